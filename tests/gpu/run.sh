#!/usr/bin/env bash
# Runs the GPU suite on this machine and puts everything into tests/gpu/results/ (or $1).
#
#   bash tests/gpu/run.sh [OUT_DIR]
#
# QCC_GPU_SUITE  the executable (default: target/release/qcc-gpu-suite of this repository)
# QCC_PLANS      folder with .qplan files to compare (optional)
# QCC_SECONDS    limit for everything but the comparison with PyTorch (default: 420)
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-$here/results}
suite=${QCC_GPU_SUITE:-$here/../../target/release/qcc-gpu-suite}
[ -x "$suite" ] || { echo "there is no $suite: cargo build --release -p qcc-gpu-suite"; exit 2; }
mkdir -p "$out"

if command -v nvidia-smi >/dev/null; then
    nvidia-smi -q >"$out/nvidia-smi.txt" 2>&1
else
    echo "nvidia-smi: not found" | tee "$out/nvidia-smi.txt"
fi

plans=()
[ -n "${QCC_PLANS:-}" ] && plans=(--plans "$QCC_PLANS")
"$suite" all --out "$out" --seconds "${QCC_SECONDS:-420}" "${plans[@]+"${plans[@]}"}" | tee "$out/log.txt"
code=${PIPESTATUS[0]}

# Stage 5, the other side: the same products in PyTorch.
if python3 -c 'import torch; assert torch.cuda.is_available()' 2>/dev/null; then
    timeout 150 python3 "$here/torch_layers.py" "$out" || echo "[5] PyTorch: FAILED"
else
    echo "[5] PyTorch with CUDA: not here, nothing to compare with" | tee "$out/torch.txt"
fi

# Stage 6: NVIDIA's own tools on the kernels of one block.
if command -v compute-sanitizer >/dev/null; then
    for tool in memcheck racecheck initcheck synccheck; do
        timeout 60 compute-sanitizer --tool "$tool" "$suite" block linear >"$out/sanitizer-$tool.txt" 2>&1
        echo "[6] compute-sanitizer $tool: $(tail -1 "$out/sanitizer-$tool.txt")"
    done
else
    echo "[6] compute-sanitizer: not here"
fi
if command -v ncu >/dev/null; then
    timeout 60 ncu --csv --set basic "$suite" chain fp8 4096 1 >"$out/ncu.csv" 2>&1
    echo "[6] ncu: $(tail -1 "$out/ncu.csv")"
else
    echo "[6] ncu: not here"
fi
exit "$code"
