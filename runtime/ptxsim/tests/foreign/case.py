"""One case: a folder with kernel.ptx, case.txt and the arrays it names."""
import re

import numpy as np


class Case:
    root = None

    def __init__(self, name, ptx, entry, grid, block, shared=0):
        self.dir = Case.root / name
        self.dir.mkdir()
        # Debug information names files of the machine that compiled.
        lines = [l for l in ptx.splitlines() if not re.match(r"\s*(\.loc|\.file)\b", l)]
        text = "\n".join(l.split("//")[0].rstrip() for l in lines)
        text = re.sub(r"\n\s*\.section.*", "", text, flags=re.S)
        text = re.sub(r"\n\n+", "\n", text).strip() + "\n"
        (self.dir / "kernel.ptx").write_text(text)
        self.lines = [f"entry {entry}", "grid " + " ".join(map(str, grid)), "block " + " ".join(map(str, block)), f"shared {shared}"]

    def _save(self, name, array):
        raw = np.ascontiguousarray(array)
        (self.dir / f"{name}.bin").write_bytes(raw.tobytes())
        return raw.nbytes

    def input(self, name, array):
        self._save(name, array)
        self.lines.append(f"in {name}.bin")
        return self

    def output(self, name, expected, kind="exact", tolerance=0.0):
        n = self._save(name, expected)
        self.lines.append(f"out {name}.bin {n} {kind} {tolerance}")
        return self

    def inout(self, name, before, expected):
        self._save(name + "_before", before)
        self._save(name, expected)
        self.lines.append(f"inout {name}_before.bin {name}.bin")
        return self

    def u32(self, value):
        self.lines.append(f"u32 {value}")
        return self

    def null(self):
        self.lines.append("u64 0")
        return self

    def tensormap(self, name, array, element, dims, strides, box, swizzle):
        self._save(name, array)
        join = lambda v: ",".join(map(str, v))
        self.lines.append(f"tensormap {name}.bin {element} {join(dims)} {join(strides)} {join(box)} {swizzle}")
        return self

    def done(self):
        (self.dir / "case.txt").write_text("\n".join(self.lines) + "\n")
