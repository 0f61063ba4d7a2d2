"""Reference of GPTQ in NumPy, written from the paper; prints gptq.txt.

    python tests/quant_refs/gptq.py > tests/quant_refs/gptq.txt

Weights are [n, k], the rows of x are tokens. Everything is computed as the published
implementation does: H = 2 XᵀX, damping added to the diagonal, the upper Cholesky factor of the
inverse, blocks of 128 columns, the loss summed over (w - q)² / d² / 2. Integer grids are those of
`fit`; float codes are looked up in the list of their values, with the scale of a group as its format
stores it: f32 (NF4), a power of two (MXFP4), e4m3 under the tensor's f32 scale (NVFP4). Numbers come from the
generator that the tests use too (SplitMix64, twelve uniforms summed), so only results are stored:
one line per case with the loss and one hexadecimal digit per code.
"""

import numpy as np

MASK = (1 << 64) - 1


def normal(seed, n):
    state, out = seed, np.empty(n)
    for i in range(n):
        total = 0.0
        for _ in range(12):
            state = (state + 0x9E3779B97F4A7C15) & MASK
            z = state
            z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
            z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
            z ^= z >> 31
            total += (z >> 11) / float(1 << 53)
        out[i] = total - 6.0
    return out


def inputs(n, k, tokens):
    """Correlated inputs with three channels of outliers and one that is always 0."""
    w = normal(1, n * k).reshape(n, k).astype(np.float32)
    z = normal(2, tokens * k).reshape(tokens, k)
    x = z.copy()
    for j in range(k):
        x[:, j] += 1.5 * z[:, (7 * j + 3) % k]
    x[:, [1, k // 2, k - 2]] *= 20.0
    x[:, 5] = 0.0
    return w, x


def fit(v, bits, sym):
    top = np.float32(2**bits - 1)
    if sym:
        absmax = np.abs(v).max(axis=1)
        scale = absmax / (top / np.float32(2))
        zero = np.full_like(scale, 2 ** (bits - 1))
    else:
        low, high = np.minimum(v.min(axis=1), 0), np.maximum(v.max(axis=1), 0)
        scale = (high - low) / top
        scale = np.where(scale == 0, np.float32(1), scale)
        zero = np.round(np.clip(-low / scale, 0, top))
    return np.where(scale == 0, np.float32(1), scale).astype(np.float32), zero.astype(np.float32)


E2M1 = [0, 0.5, 1, 1.5, 2, 3, 4, 6]
NF4 = [-1, -0.6961928, -0.52507305, -0.3949175, -0.28444138, -0.18477343, -0.091050036, 0, 0.0795803]
NF4 += [0.1609302, 0.2461123, 0.33791524, 0.44070983, 0.562617, 0.72295684, 1]
E4M3 = [m * 2.0**-9 for m in range(8)]
E4M3 += [(8 + m) * 2.0 ** (e - 10) for e in range(1, 16) for m in range(8)][:-1]


class Integers:
    def __init__(self, bits, sym):
        self.bits, self.sym = bits, sym

    def fit(self, v):
        return fit(v, self.bits, self.sym)

    def code(self, v, grid):
        scale, zero = grid
        return np.clip(np.round(v / scale) + zero, 0, 2**self.bits - 1)

    def real(self, code, grid):
        scale, zero = grid
        return (code - zero) * scale


class Floats:
    """Codes of e2m1 or nf4 by the list of their values."""

    def __init__(self, name, w):
        self.name = name
        positive = np.array(E2M1, dtype=np.float32)
        values = np.concatenate([positive, -positive]) if name != "nf4" else np.array(NF4, np.float32)
        self.values, self.top = values, values.max()
        self.over = np.abs(w).max() / (np.float32(448) * self.top)

    def fit(self, v):
        absmax = np.abs(v).max(axis=1)
        if self.name == "mxfp4":
            return np.exp2(np.floor(np.log2(absmax)) - 2).astype(np.float32)
        if self.name == "nf4":
            return absmax
        wanted = np.minimum(absmax / self.top / self.over, np.float32(448))
        at = np.abs(np.array(E4M3)[None] - wanted[:, None]).argmin(axis=1)
        return (np.array(E4M3, dtype=np.float32)[np.maximum(at, 1)] * self.over).astype(np.float32)

    def code(self, v, scale):
        return np.abs(self.values[None] - (v / scale)[:, None]).argmin(axis=1)

    def real(self, code, scale):
        return self.values[code] * scale


def gptq(w, x, coder, group, static, act_order, percdamp=0.01, block=128):
    w = w.copy()
    n, k = w.shape
    h = 2.0 * x.T @ x
    dead = np.diag(h) == 0
    h[dead, dead] = 1
    w[:, dead] = 0
    group = min(group, k)
    fixed = [coder.fit(w[:, g : g + group]) for g in range(0, k, group)]
    perm = np.arange(k)
    if act_order:
        # The dead column counts as 0 in the order.
        diagonal = np.where(dead, 0, np.diag(h))
        perm = np.argsort(-diagonal, kind="stable")
    w, h = w[:, perm], h[np.ix_(perm, perm)]
    h[np.arange(k), np.arange(k)] += percdamp * np.mean(np.diag(h))
    factor = np.linalg.cholesky(np.linalg.inv(h)).T.astype(np.float32)
    codes, loss = np.zeros((n, k), dtype=np.int64), 0.0
    for i1 in range(0, k, block):
        i2 = min(i1 + block, k)
        w1, err = w[:, i1:i2].copy(), np.zeros((n, i2 - i1), dtype=np.float32)
        for i in range(i2 - i1):
            at = i1 + i
            d = factor[at, at]
            if static or act_order:
                grid = fixed[perm[at] // group]
            elif at % group == 0:
                grid = coder.fit(w[:, at : at + group])
            q = coder.code(w1[:, i], grid)
            codes[:, perm[at]] = q
            e = (w1[:, i] - coder.real(q, grid)) / d
            loss += float(np.sum(e.astype(np.float64) ** 2) / 2)
            w1[:, i:] -= np.outer(e, factor[at, at:i2])
            err[:, i] = e
        w[:, i2:] -= err @ factor[i1:i2, i2:]
    return loss, codes


CASES = [
    ("natural", 16, 96, 4, 32, False, False, False, 0.01),
    ("static", 16, 96, 4, 32, False, True, False, 0.01),
    ("act-order", 16, 96, 4, 32, False, True, True, 0.01),
    ("short-group", 8, 192, 4, 128, False, False, False, 0.01),
    ("symmetric", 8, 192, 4, 128, True, False, False, 0.01),
    ("three-bits", 8, 192, 3, 64, False, False, False, 0.01),
    ("channel", 8, 160, 4, 160, False, False, False, 0.01),
    ("damped", 16, 96, 3, 32, False, False, False, 0.3),
    ("damped-act-order", 8, 160, 4, 64, True, True, True, 0.1),
]

# Float codes: format, group.
FLOATS = [("nvfp4", 16), ("mxfp4", 32), ("nf4", 64)]

if __name__ == "__main__":
    for name, n, k, bits, group, sym, static, order, damping in CASES:
        w, x = inputs(n, k, 256)
        loss, codes = gptq(w, x, Integers(bits, sym), group, static, order, damping)
        text = "".join(f"{c:x}" for c in codes.flatten())
        flags = [int(sym), int(static), int(order)]
        print(name, n, k, bits, group, *flags, damping, f"{loss:.9g}", text)
    for name, group in FLOATS:
        w, x = inputs(8, 192, 256)
        w[:, 5] = 0
        loss, codes = gptq(w, x, Floats(name, w), group, False, False)
        text = "".join(f"{c:x}" for c in codes.flatten())
        print(name, 8, 192, name, group, 0, 0, 0, 0.01, f"{loss:.9g}", text)
