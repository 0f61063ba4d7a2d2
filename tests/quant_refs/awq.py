"""Reference of AWQ's search in NumPy, written from the paper; prints awq.txt.

    python tests/quant_refs/awq.py > tests/quant_refs/awq.txt

A small MLP (RMS norm, gate and up, SiLU, product, down) with a few large channels. For each of the
twenty ratios: factors from the mean magnitudes of the channels, weights scaled, rounded to nearest
in groups and scaled back, and the squared error of what the block gives. The block of the norm is
all of the MLP, that of the product the layer behind it. One line per place and scheme: bits, whether
symmetric, group, place, the ratio with the first least loss, all losses.
"""

import numpy as np
from gptq import fit, normal

TOKENS, WIDTH, INNER, OUT = 64, 32, 48, 24


def weight(seed, n, k):
    return (normal(seed, n * k).reshape(n, k) * 0.25).astype(np.float32)


def rounded(w, bits, group, sym):
    out = np.empty_like(w)
    for g in range(0, w.shape[1], group):
        part = w[:, g : g + group]
        if sym:
            # absmax / 7: with absmax / 7.5 each group's largest weight would be a tie.
            top = 2 ** (bits - 1) - 1
            scale, zero = np.abs(part).max(axis=1, keepdims=True) / np.float32(top), 0
            code = np.clip(np.round(part / scale), -top, top)
        else:
            scale, zero = (v[:, None] for v in fit(part, bits, sym))
            code = np.clip(np.round(part / scale) + zero, 0, 2**bits - 1)
        out[:, g : g + group] = (code - zero) * scale
    return out


def factors(x, ratio):
    s = np.maximum(np.abs(x).mean(axis=0) ** ratio, 1e-4)
    return (s / np.sqrt(s.max() * s.min())).astype(np.float32)


def search(x, weights, block, bits, group, sym):
    """Losses by ratio; `block` gives the output for weights."""
    wanted, losses = block(*weights), []
    for i in range(20):
        s = factors(x, i / 20)
        back = [rounded(w * s, bits, group, sym) / s for w in weights]
        losses.append(float(((block(*back) - wanted) ** 2).sum()))
    return int(np.argmin(losses)), losses


def model():
    x = normal(9, TOKENS * WIDTH).reshape(TOKENS, WIDTH)
    x[:, 3] *= 30.0
    x[:, 17] *= 8.0
    x[:, 20] *= 0.1
    h = x / np.sqrt((x * x).mean(axis=1, keepdims=True) + 1e-5)
    up, gate = weight(1, INNER, WIDTH), weight(2, INNER, WIDTH)
    return h, up, gate, weight(3, OUT, INNER)


def product(h, up, gate):
    g = h @ gate.T.astype(np.float64)
    return g / (1 + np.exp(-g)) * (h @ up.T.astype(np.float64))


if __name__ == "__main__":
    h, up, gate, down = model()
    m = product(h, up, gate)
    for bits, group, sym in [(4, 16, False), (3, 32, False), (4, 32, True)]:
        places = {
            "norm": (h, [up, gate], lambda u, g: product(h, u, g) @ down.T),
            "m": (m, [down], lambda d: m @ d.T),
        }
        for name, (x, weights, block) in places.items():
            best, losses = search(x, weights, block, bits, group, sym)
            text = " ".join(f"{v:.6g}" for v in losses)
            print(bits, int(sym), group, name, best, text)
