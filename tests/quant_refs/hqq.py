"""Reference of HQQ in NumPy, written from its description; prints hqq.txt.

    python tests/quant_refs/hqq.py > tests/quant_refs/hqq.txt

Per group of a row: scale and zero point of the range, then up to twenty half-quadratic steps as long
as the mean error falls. The published method moves a real zero point; with integer ones each step
rounds it, and moves the scale too. Of all grids on the way that with the least sum of |error|^0.7
stays. One line per case: that sum over all groups for the first grids and for the last, the zero
points in hexadecimal, the scales.
"""

import numpy as np
from gptq import normal

P, BETA, KAPPA, STEPS = 0.7, 10.0, 1.01, 20


def shrink(x, beta):
    size = np.abs(x)
    safe = np.where(size == 0, 1, size)
    return np.sign(x) * np.where(size == 0, 0, np.maximum(size - safe ** (P - 1) / beta, 0))


def hqq(w, bits):
    """First and last sum, zero point, scale."""
    top = 2**bits - 1
    low, high = min(w.min(), 0), max(w.max(), 0)
    s = np.float32(np.float32(high - low) / np.float32(top))
    s = 1.0 if s == 0 else float(s)
    z = int(np.round(np.clip(-low / s, 0, top)))
    beta, least, best, first = BETA, np.inf, None, None
    for _ in range(STEPS + 1):
        q = np.clip(np.round(w / s + z), 0, top)
        r = w - s * (q - z)
        norm = np.sum(np.abs(r) ** P)
        if best is None:
            first = norm
        if best is None or norm < best[0]:
            best = (norm, z, s)
        if not np.sum(np.abs(r)) < least:
            break
        least = np.sum(np.abs(r))
        target = w - shrink(r, beta)
        z = int(np.clip(np.round(np.mean(q - target / s)), 0, top))
        u = q - z
        if np.sum(u * u) == 0:
            break
        s = float(np.float32(np.sum(u * target) / np.sum(u * u)))
        if s <= 0:
            break
        beta *= KAPPA
    return (first,) + best


def weights(n, k, std):
    """Normal weights, some four times as large, shifted row by row."""
    w = normal(3, n * k).reshape(n, k)
    w[:, ::37] *= 4.0
    w += np.arange(n)[:, None] * 0.1
    return (w * std).astype(np.float32)


CASES = [(8, 96, 4, 32, 1.0), (8, 96, 2, 32, 1.0), (8, 128, 3, 64, 0.02), (4, 100, 4, 64, 10.0)]

if __name__ == "__main__":
    for n, k, bits, group, std in CASES:
        w = weights(n, k, std).astype(np.float64)
        found = [hqq(row[g : g + group], bits) for row in w for g in range(0, k, group)]
        first, last = sum(f[0] for f in found), sum(f[1] for f in found)
        zeros = "".join(f"{f[2]:x}" for f in found)
        scales = " ".join(f"{f[3]:.6g}" for f in found)
        print(n, k, bits, group, std, f"{first:.7g} {last:.7g}", zeros, scales)
