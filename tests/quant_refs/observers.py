"""Reference of the ends of static ranges in NumPy; prints observers.txt.

    python tests/quant_refs/observers.py > tests/quant_refs/observers.txt

Written from what the tools do: TensorRT's entropy calibration as NVIDIA's toolkits publish it,
histogram MSE of ModelOpt, percentiles of magnitudes, moving averages of onnxruntime, the
history of Transformer Engine. `entropy:ort`
calls onnxruntime itself (1.32). Histograms are NumPy's, with bins as wide as the least power of
two for which 4096 of them cover the largest magnitude. Numbers come from the generator of
gptq.py, so only results are stored: tensor, format, method, width of a bin, end of the range.
"""

import ml_dtypes
import numpy as np
from onnxruntime.quantization.calibrate import HistogramCollector
from scipy.stats import entropy as kl

from gptq import normal

BINS = 4096


def tensors():
    z = normal(7, 8000)
    i = np.arange(8000)
    yield "normal", z
    yield "cubed", z * z * z
    yield "outliers", np.where(i % 100 == 3, z * 40.0, z)
    yield "positive", np.maximum(z, 0.0)
    yield "shifted", z * 0.01 + 0.5
    yield "tiny", z * 1e-12


def width_of(x):
    width = 2.0**-126
    while not np.abs(x).max() < BINS * width:
        width *= 2
    return width


def magnitudes(x, width):
    counts, edges = np.histogram(np.abs(x).astype(np.float64), bins=BINS, range=(0, BINS * width))
    return counts[: counts.nonzero()[0].max() + 1], edges


def percentile(x, percent, width):
    """The upper edge of the bin in which the percentile lies."""
    return (np.floor(np.quantile(np.abs(x), percent / 100, method="inverted_cdf") / width) + 1) * width


def quantized(x, end, fmt):
    if fmt == "int8":
        scale = np.float32(end) / np.float32(127)
        return np.clip(np.round(x / scale), -127, 127) * scale
    scale = np.float32(end) / np.float32(448)
    return np.clip(x / scale, -448, 448).astype(ml_dtypes.float8_e4m3fn).astype(np.float32) * scale


def mse(x, width, fmt):
    counts, edges = magnitudes(x, width)
    centres = ((edges[1:] + edges[:-1]) / 2)[: counts.size].astype(np.float32)
    ends = list(edges[128 : counts.size : 8]) + [np.abs(x).max()]
    errors = []
    for end in ends:
        d = centres.astype(np.float64) - quantized(centres, end, fmt)
        errors.append((d * d * counts).sum())
    return ends[int(np.argmin(errors))]


def entropy_trt(x, width, levels=128, first=128):
    bins, edges = magnitudes(x, width)
    bins = bins.copy()
    bins[0] = bins[1]
    divergences = []
    for i in range(first, bins.size + 1):
        group = np.digitize(np.arange(i), np.linspace(0, i, levels + 1)) - 1
        filled = bins[:i] != 0
        sums = np.bincount(group[filled], weights=bins[:i][filled], minlength=levels)
        sizes = np.bincount(group[filled], minlength=levels)
        q = np.zeros(i)
        q[filled] = (sums / np.maximum(sizes, 1))[group[filled]]
        p = bins[:i].astype(np.float64)
        p[-1] += bins[i:].sum()
        # Where nothing lies in the range there is no divergence (SciPy has NaN, which NumPy takes
        # for the least number).
        divergences.append(kl(p, q) if filled.any() else np.inf)
    d = np.array(divergences)
    return edges[first + d.size - 1 - int(np.argmin(d[::-1]))]


def entropy_ort(x, width):
    """onnxruntime's own search over 1024 bins of either sign at most."""
    coarse = width * BINS / 1024
    half = int(np.floor(np.abs(x).max() / coarse)) + 1
    hist, edges = np.histogram(x.astype(np.float64), bins=2 * half, range=(-half * coarse, half * coarse))
    collector = HistogramCollector("entropy", True, 2 * half, 128, 99.99, "same")
    low, high = collector.get_entropy_threshold((hist, edges, x.min(), x.max()), 128)
    return max(abs(float(low)), abs(float(high)))


def ema(x):
    low = high = None
    for batch in x.reshape(-1, 1000):
        lo, hi = float(batch.min()), float(batch.max())
        if low is None:
            low, high = lo, hi
        else:
            low, high = low + 0.01 * (lo - low), high + 0.01 * (hi - high)
    return max(abs(low), abs(high))


def delayed(x, window, margin):
    """Transformer Engine: the largest amax of the history's window; its scale is over 2^margin."""
    history = [float(np.abs(batch).max()) for batch in x.reshape(-1, 1000)]
    return max(history[-window:]) * 2.0**margin


def main():
    for name, x in tensors():
        x = x.astype(np.float32)
        width = width_of(x)
        absmax = float(np.abs(x).max())
        rows = [
            ("int8", "minmax", absmax),
            ("int8", "ema", ema(x)),
            ("int8", "percentile:99", percentile(x, 99, width)),
            ("int8", "percentile:99.9", percentile(x, 99.9, width)),
            ("int8", "percentile", percentile(x, 99.99, width)),
            ("int8", "mse", mse(x, width, "int8")),
            ("e4m3", "mse", mse(x, width, "e4m3")),
            ("e4m3", "percentile", percentile(x, 99.99, width)),
            ("int8", "entropy", entropy_trt(x, width)),
            ("int8", "entropy:ort", entropy_ort(x, width)),
        ]
        rows = [(fmt, method, min(float(end), absmax)) for fmt, method, end in rows]
        rows += [
            ("e4m3", "delayed", delayed(x, 16, 0)),
            ("int8", "delayed:1", delayed(x, 1, 0)),
            ("int8", "delayed:3:1", delayed(x, 3, 1)),
        ]
        for fmt, method, end in rows:
            print(name, fmt, method, repr(float(width)), repr(end))


if __name__ == "__main__":
    main()
