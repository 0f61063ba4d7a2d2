"""Reference of HQQ in NumPy, written from its description; prints hqq.txt.

    python tests/quant_refs/hqq.py > tests/quant_refs/hqq.txt

Per group of a row: scale and zero point of the range, then up to twenty half-quadratic steps for a
real zero point, as long as the mean error falls; of the integers beside it and the first zero point
that with the least sum of |error|^0.7 stays. One line per case with that sum over all groups and the
zero points in hexadecimal.
"""

import numpy as np
from gptq import normal

P, BETA, KAPPA, STEPS = 0.7, 10.0, 1.01, 20


def shrink(x, beta):
    size = np.abs(x)
    safe = np.where(size == 0, 1, size)
    return np.sign(x) * np.where(size == 0, 0, np.maximum(size - safe ** (P - 1) / beta, 0))


def hqq(w, bits):
    top = 2**bits - 1
    low, high = min(w.min(), 0), max(w.max(), 0)
    scale = np.float32(np.float32(high - low) / np.float32(top))
    scale = 1.0 if scale == 0 else float(scale)
    first = int(np.round(np.clip(-low / scale, 0, top)))

    def error(z):
        return w - scale * (np.clip(np.round(w / scale + z), 0, top) - z)

    z, beta, least = float(first), BETA, np.inf
    for _ in range(STEPS):
        q = np.clip(np.round(w / scale + z), 0, top)
        r = w - scale * (q - z)
        z = np.mean(q - (w - shrink(r, beta)) / scale)
        beta *= KAPPA
        if not np.mean(np.abs(r)) < least:
            break
        least = np.mean(np.abs(r))
    tries = [first] + [int(np.clip(v, 0, top)) for v in (np.floor(z), np.ceil(z))]
    sums = [np.sum(np.abs(error(t)) ** P) for t in tries]
    best = int(np.argmin(sums))
    return tries[best], sums[best]


def weights(n, k, std):
    """Normal weights, a few of them ten times as large, shifted row by row."""
    w = normal(3, n * k).reshape(n, k)
    w[:, ::37] *= 4.0
    w += np.arange(n)[:, None] * 0.1
    return (w * std).astype(np.float32)


CASES = [(8, 96, 4, 32, 1.0), (8, 96, 2, 32, 1.0), (8, 128, 3, 64, 0.02), (4, 100, 4, 64, 10.0)]

if __name__ == "__main__":
    for n, k, bits, group, std in CASES:
        w = weights(n, k, std).astype(np.float64)
        found = [hqq(row[g : g + group], bits) for row in w for g in range(0, k, group)]
        zeros = "".join(f"{z:x}" for z, _ in found)
        print(n, k, bits, group, std, f"{sum(s for _, s in found):.9g}", zeros)
