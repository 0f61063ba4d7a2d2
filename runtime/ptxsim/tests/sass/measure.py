"""Instructions of loop bodies as the GPU runs them (SASS), for each instruction of the PTX.

    pip install nvidia-cuda-nvcc==13.5.37 nvidia-cuda-nvdisasm==13.5.37
    for scheme in float fp8 int8 int4; do for target in sm_80 sm_90; do
        flag=$([ $scheme = float ] || echo --$scheme)
        qcc compile MODEL.onnx $flag --target $target --emit ptx -o ptx/$scheme-$target.ptx
    done; done
    python3 measure.py ptx/*.ptx > factors.tsv

Every kernel is assembled with ptxas and taken apart with nvdisasm. Of its innermost loops the one with
most work is compared: the work is counted by instructions that the assembler keeps one for one (matrix
products, else loads from global memory, else loads from shared memory, else shuffles, else functions),
so a loop that it unrolled is divided by the number of copies. A kernel without a loop in both is left
out. One line for each kernel, then the sums over all kernels of an architecture.
"""

import pathlib
import re
import subprocess
import sys
import tempfile
from collections import Counter

CLASSES = ["integer", "float", "convert", "function", "exchange", "other"]
# What ptxas keeps: PTX and SASS instructions that stand for each other.
ANCHORS = [
    (r"(wgmma\.mma_async|mma\.sync)", r"(HMMA|IMMA|QMMA|DMMA|HGMMA|QGMMA|IGMMA)"),
    (r"(ld\.global|ld\.relaxed|cp\.async\.c[ag])", r"(LDG|LDGSTS)"),
    (r"(ld\.shared)", r"LDS"),
    (r"shfl", r"SHFL"),
    (r"(ex2|lg2|rcp|rsqrt|sqrt)\.approx", r"MUFU"),
]


def ptx_class(op):
    """The class that ptxsim counts the instruction in, as far as the pipes of the time model go."""
    name, *mods = op.split(".")
    last = mods[-1] if mods else ""
    if name in ("mad", "add", "sub", "mul", "fma", "min", "max", "neg", "abs", "div", "rem"):
        return "float" if re.match(r"(b?f16|f32)", last) else "other" if last == "f64" else "integer"
    if name in ("and", "or", "xor", "not", "shl", "shr", "lop3", "prmt", "shf", "popc", "clz", "bfe", "bfi", "dp4a", "cnot"):
        return "integer"
    if name in ("setp", "set", "slct"):
        return "integer"
    if name == "cvt":
        return "convert"
    if name in ("ex2", "lg2", "rcp", "rsqrt", "sqrt", "sin", "cos", "tanh"):
        return "function"
    if name in ("shfl", "vote", "redux", "match", "activemask"):
        return "exchange"
    return "other"


def sass_class(op):
    name = op.split(".")[0]
    if name in ("IADD3", "IADD", "IMAD", "LEA", "LOP3", "LOP", "SHF", "SHL", "SHR", "ISETP", "ICMP", "IMNMX", "VIMNMX", "VIADD", "VIADDMNMX", "IABS", "PRMT", "PLOP3", "BMSK", "SGXT", "POPC", "FLO", "IDP", "FSETP", "HSETP2", "SEL", "P2R", "R2P"):
        return "integer"
    if name in ("FADD", "FMUL", "FFMA", "FMNMX", "HADD2", "HMUL2", "HFMA2", "HMNMX2", "FSEL", "FCHK"):
        return "float"
    if name in ("F2F", "F2I", "I2F", "F2FP", "I2FP", "I2IP", "FRND"):
        return "convert"
    if name == "MUFU":
        return "function"
    if name in ("SHFL", "VOTE", "REDUX", "MATCH", "VOTEU"):
        return "exchange"
    return "other"


def innermost(lines, label, jump):
    """Bodies between a label and a jump back to it that hold no other such pair."""
    at = {m.group(1): i for i, l in enumerate(lines) if (m := label.match(l))}
    spans = [(at[m.group(1)], i) for i, l in enumerate(lines) if (m := jump.search(l)) and at.get(m.group(1), i) < i]
    inner = [s for s in spans if not any(o != s and s[0] <= o[0] and o[1] <= s[1] for o in spans)]
    return [lines[a:b + 1] for a, b in inner]


def ptx_loops(text):
    lines = [l.strip() for l in text.splitlines()]
    bodies = innermost(lines, re.compile(r"([$\w]+):$"), re.compile(r"\bbra(?:\.uni)?\s+([$\w]+);"))
    op = re.compile(r"(?:@!?%\w+\s+)?([a-z][\w.:]*)\s")
    return [[m.group(1) for l in b if (m := op.match(l)) and not l.startswith((".", "//", "{", "}"))] for b in bodies]


def sass_loops(text):
    lines = [l.strip() for l in text.splitlines()]
    bodies = innermost(lines, re.compile(r"(\.L_x_\d+):$"), re.compile(r"\bBRA\b.*`\((\.L_x_\d+)\)"))
    op = re.compile(r"/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)")
    bodies = [[m.group(1) for l in b if (m := op.match(l))] for b in bodies]
    return [[o for o in b if not o.startswith("NOP")] for b in bodies]


def kernels(path):
    """The modules of a file of several, each with one kernel: its name, architecture and text."""
    for part in re.split(r"(?=^\.version)", path.read_text(), flags=re.M):
        entry = re.search(r"\.entry (\w+)", part)
        target = re.search(r"\.target (\w+)", part)
        if entry and target:
            yield entry.group(1), target.group(1), part


def disassembled(text, arch, folder):
    ptx, cubin = folder / "k.ptx", folder / "k.cubin"
    ptx.write_text(text)
    subprocess.run([TOOLS / "ptxas", f"-arch={arch}", ptx, "-o", cubin], check=True, capture_output=True)
    return subprocess.run([TOOLS / "nvdisasm", "-c", cubin], check=True, capture_output=True, text=True).stdout


def work(ops, pattern):
    return sum(bool(re.match(pattern, o)) for o in ops)


def compared(text, sass):
    """The loop with most work in PTX, that in SASS, and the copies of the first in the second."""
    loops, bodies = ptx_loops(text), sass_loops(sass)
    for ptx_anchor, sass_anchor in ANCHORS:
        loop = max(loops, key=lambda b: work(b, ptx_anchor), default=[])
        body = max(bodies, key=lambda b: work(b, sass_anchor), default=[])
        n, m = work(loop, ptx_anchor), work(body, sass_anchor)
        if n and m and m % n == 0:
            return loop, body, m // n
    return None


def main():
    seen, sums = set(), {}
    print("\t".join(["kernel", "arch", "copies", *[f"{c}.{s}" for c in ["all", *CLASSES] for s in ("ptx", "sass")]]))
    with tempfile.TemporaryDirectory() as folder:
        for path in map(pathlib.Path, sys.argv[1:]):
            for name, target, text in kernels(path):
                chip = path.stem.rsplit("-", 1)[-1]
                arch = target if target.endswith("a") else chip
                if (name, arch) in seen:
                    continue
                seen.add((name, arch))
                found = compared(text, disassembled(text, arch, pathlib.Path(folder)))
                if not found:
                    continue
                loop, body, copies = found
                ptx, sass = Counter(map(ptx_class, loop)), Counter(map(sass_class, body))
                row = [len(loop), len(body) / copies]
                for c in CLASSES:
                    row += [ptx[c], sass[c] / copies]
                total = sums.setdefault(arch.rstrip("a"), [0] * len(row))
                sums[arch.rstrip("a")] = [a + b for a, b in zip(total, row)]
                print("\t".join([name, arch, str(copies), *[f"{v:g}" for v in row]]))
    for arch, total in sorted(sums.items()):
        print("\t".join(["sum", arch, "", *[f"{v:g}" for v in total]]))


if __name__ == "__main__":
    TOOLS = pathlib.Path(next(p for p in sys.path if p.endswith("site-packages"))) / "nvidia/cu13/bin"
    main()
