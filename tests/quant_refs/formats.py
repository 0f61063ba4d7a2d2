"""Reference of the block formats in NumPy and ml_dtypes; prints formats.txt.

    pip install numpy==2.4.6 ml_dtypes==0.6.0
    python tests/quant_refs/formats.py > tests/quant_refs/formats.txt

Tensors [n, k] come from the generator that the tests use too (SplitMix64, twelve uniforms summed),
so only results are stored: one line per case with the stored scales and one hexadecimal digit per
4-bit code (two per e4m3 code). Written from the OCP MX 1.0 and the published descriptions of NVFP4
and NF4:

- MX: the scale is 2^(floor(log2 amax) - emax) for `floor`; `rceil` is the least power of two that
  is at least amax / qmax; `even` rounds amax to the mantissa of the codes, half up, then floors.
- NVFP4: global = amax of the tensor / (448 * 6), block = e4m3(amax / 6 / global), at least 2^-9,
  code = e2m1(x / (block * global)).
- NF4: the nearest of 16 values to x / amax.
"""

import ml_dtypes
import numpy as np

from gptq import normal

F32 = np.float32
NF4 = np.array([
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
    -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
    0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
    0.7229568362236023, 1.0], dtype=F32)
CODES = {"e2m1": (ml_dtypes.float4_e2m1fn, 6.0, 2, 1), "e4m3": (ml_dtypes.float8_e4m3fn, 448.0, 8, 3)}


def tensor(seed, n, k):
    """Rows of very different size, a block of zeros among them."""
    x = normal(seed, n * k).reshape(n, k) * 4.0 ** (np.arange(n) - 2)[:, None]
    x[1, :64] = 0.0
    return x.astype(F32)


def blocks(x, size):
    n, k = x.shape
    pad = -k % size
    return np.pad(x, ((0, 0), (0, pad))).reshape(n, -1, size)


def narrow(x, name):
    dtype, top, _, _ = CODES[name]
    return np.clip(x, F32(-top), F32(top)).astype(dtype).view(np.uint8)


def power(amax, name, how):
    _, top, emax, man = CODES[name]
    if how == "rceil":
        e = np.ceil(np.log2(amax.astype(np.float64) / top))
    else:
        if how == "even":
            amax = (amax.view(np.uint32) + np.uint32(1 << (22 - man))).view(F32)
        e = np.floor(np.log2(amax.astype(np.float64))) - emax
    return np.where(amax == 0, 0, np.where(np.isfinite(e), e, 0)).astype(np.int32) + 127


def line(name, scales, codes, digits, k):
    flat = codes.reshape(codes.shape[0], -1)[:, :k].reshape(-1)
    print(name, " ".join(scales), "".join(f"{c:0{digits}x}" for c in flat))


def main():
    np.seterr(divide="ignore", invalid="ignore")
    n, k = 5, 80
    for seed in (1, 2):
        x = tensor(seed, n, k)
        for name, element in (("mxfp4", "e2m1"), ("mxfp8", "e4m3")):
            b = blocks(x, 32)
            amax = np.abs(b).max(axis=2)
            for how in ("floor", "rceil", "even"):
                e = np.where(amax == 0, 127, power(amax, element, how))
                q = narrow(b / np.exp2((e - 127).astype(F32))[:, :, None].astype(F32), element)
                line(f"{name}-{how}", [f"{v:02x}" for v in e.reshape(-1)], q, 1 if element == "e2m1" else 2, k)
        b = blocks(x, 16)
        amax = np.abs(b).max(axis=2)
        top = F32(np.abs(x).max() / F32(448 * 6))
        s = (amax / F32(6) / top).astype(ml_dtypes.float8_e4m3fn)
        s = np.maximum(s.view(np.uint8), 1)
        real = s.view(ml_dtypes.float8_e4m3fn).astype(F32) * top
        q = narrow(b / real[:, :, None], "e2m1")
        line("nvfp4", [f"{top.view(np.uint32):08x}"] + [f"{v:02x}" for v in s.reshape(-1)], q, 1, k)
        b = blocks(x, 64)
        amax = np.abs(b).max(axis=2)
        s = np.where(amax == 0, F32(1), amax).astype(F32)
        r = (b / s[:, :, None]).astype(np.float64)
        q = np.abs(r[..., None] - NF4.astype(np.float64)).argmin(axis=-1)
        line("nf4", [f"{v:08x}" for v in s.reshape(-1).view(np.uint32)], q, 1, k)


if __name__ == "__main__":
    main()
