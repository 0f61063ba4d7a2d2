#!/usr/bin/env bash
# Runs the GPU suite on this machine and puts everything into tests/gpu/results/ (or $1).
#
#   bash tests/gpu/run.sh [OUT_DIR]
#
# QCC_GPU_SUITE  the executable (default: target/release/qcc-gpu-suite of this repository)
# QCC_PLANS      folder with .qplan files to compare (optional)
# QCC_SECONDS    limit for everything (default: 590)
# QCC_ARGS       more arguments for the executable, such as --quick
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-$here/results}
suite=${QCC_GPU_SUITE:-$here/../../target/release/qcc-gpu-suite}
limit=${QCC_SECONDS:-590}
[ -x "$suite" ] || { echo "there is no $suite: cargo build --release -p qcc-gpu-suite"; exit 2; }
mkdir -p "$out"
: >"$out/log.txt"

say() { echo "$*" | tee -a "$out/log.txt"; }
# The smaller of $1 and the seconds that are left.
within() { local left=$((limit - SECONDS)); echo $((left < $1 ? left : $1)); }
# Whether a command is there and there is time for it; says so otherwise.
possible() {
    command -v "$1" >/dev/null || { say "[$2] $1: not here"; return 1; }
    [ "$(within 5)" -ge 5 ] || { say "[$2] $1: skipped, no time is left"; return 1; }
}

if possible nvidia-smi 1; then
    timeout "$(within 20)" nvidia-smi -q >"$out/nvidia-smi.txt" 2>&1 || say "[1] nvidia-smi: FAILED"
fi

# cuBLASLt of a PyTorch wheel, for loaders that know none.
blas=$(timeout 20 python3 -c 'import glob, site
roots = site.getsitepackages() + [site.getusersitepackages()]
print(next(f for r in roots for f in sorted(glob.glob(r + "/nvidia/*/lib/libcublasLt.so*"))))' 2>/dev/null)
if [ -n "$blas" ] && ! ldconfig -p 2>/dev/null | grep -q 'libcublasLt\.so '; then
    mkdir -p "$out/lib"
    ln -sf "$blas" "$out/lib/libcublasLt.so"
    export LD_LIBRARY_PATH="${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$out/lib"
fi

args=(--out "$out" --seconds "$(within $((limit * 6 / 10)))")
[ -n "${QCC_PLANS:-}" ] && args+=(--plans "$QCC_PLANS")
# shellcheck disable=SC2206
[ -n "${QCC_ARGS:-}" ] && args+=($QCC_ARGS)
"$suite" all "${args[@]}" | tee -a "$out/log.txt"
code=${PIPESTATUS[0]}

# Stage 5, the other side: the same products in PyTorch.
if possible python3 5; then
    if timeout "$(within 60)" python3 -c 'import torch; assert torch.cuda.is_available()' 2>/dev/null; then
        timeout "$(within 120)" python3 "$here/torch_layers.py" "$out" >"$out/torch.txt" 2>&1 ||
            say "[5] PyTorch: FAILED, $(tail -1 "$out/torch.txt")"
        grep '^\[5\]' "$out/torch.txt" | tee -a "$out/log.txt"
    else
        say "[5] PyTorch with CUDA: not here, nothing to compare with"
    fi
fi

# Stage 6: NVIDIA's own tools on the kernels of one block and of one chain.
for tool in memcheck racecheck initcheck synccheck; do
    possible compute-sanitizer 6 || break
    report="$out/sanitizer-$tool.txt"
    timeout "$(within 30)" compute-sanitizer --tool "$tool" --error-exitcode 9 "$suite" block linear >"$report" 2>&1
    rc=$?
    say "[6] compute-sanitizer $tool: $([ $rc = 0 ] || echo "FAILED with $rc, ")$(tail -1 "$report")"
done
if possible ncu 6; then
    timeout "$(within 40)" ncu --csv --set basic "$suite" chain fp8 4096 1 >"$out/ncu.csv" 2>&1
    rc=$?
    say "[6] ncu: $([ $rc = 0 ] || echo "FAILED with $rc, ")$(tail -1 "$out/ncu.csv")"
fi
exit "$code"
