"""What is measured, and what others reach on the same data.

A row is some flags of `qcc compile` and, for each model in the order of MODELS, figures as
(perplexity, KL): `formula` is quantize-dequantize in PyTorch with float32 arithmetic, the method
without an engine; `ort` is `onnxruntime.quantization` of the same kind. None: not measured there.
`models` limits a row to some models. `bound` is the largest KL that passes; where it is not given,
that of the formula and 5 %.
"""

from dataclasses import dataclass, field

MODELS = ("docs-llama", "docs-llama-outlier", "docs-gpt-outlier")
LLAMA, LLAMA_OUT, GPT_OUT = range(3)
CALIB = "--calib calib_tokens.npy"
NONE = (None, None, None)


@dataclass
class Row:
    flags: str
    formula: tuple = NONE
    ort: tuple = NONE
    bound: dict = field(default_factory=dict)
    models: tuple = (LLAMA, LLAMA_OUT, GPT_OUT)

    def limit(self, model):
        """The largest KL that passes, or None."""
        if model in self.bound:
            return self.bound[model]
        known = self.formula[model]
        return known and round(known[1] * 1.05, 6)


# onnxruntime: static QDQ S8S8 with min-max, weights per channel; dynamic per channel; MatMulNBits.
ORT_STATIC = ((19.839, 0.01117), (205.658, 2.41321), (85.194, 0.89152))
ORT_STATIC_TENSOR = ((19.840, 0.01129), (207.742, 2.42595), (86.417, 0.90352))
ORT_DYNAMIC = ((19.731, 0.00581), (47.090, 0.92176), (70.896, 0.70743))
ORT_G128 = ((19.763, 0.00933), (20.085, 0.02919), (36.805, 0.06485))
ORT_G128_SYM = ((19.809, 0.00995), (20.143, 0.02980), (36.823, 0.06686))
ORT_G32 = ((19.721, 0.00599), (20.041, 0.02558), (36.477, 0.05691))
G128 = "--scheme w4a16-g128-asym"
G128_SYM = "--scheme w4a16-g128-sym"
TENSOR = "--scheme int8-tensor"
W3 = "--scheme w3a16-g128-asym"

ROWS = [
    Row(
        f"--fp8 {CALIB}",
        ((19.662, 0.00181), (19.655, 0.00182), (34.442, 0.00200)),
        bound={LLAMA: 0.0020, LLAMA_OUT: 0.0020, GPT_OUT: 0.0022},
    ),
    Row(
        f"--fp8 --smooth 0.5 {CALIB}",
        ((19.678, 0.00182), (19.681, 0.00182), (34.448, 0.00200)),
    ),
    Row("--fp8"),
    Row(
        "--int8",
        ((19.648, 0.00073), (20.845, 0.06448), (38.815, 0.11620)),
        ORT_DYNAMIC,
        {LLAMA: 0.0008},
    ),
    Row(f"--int8 --smooth 0.5 {CALIB}", ort=ORT_DYNAMIC),
    Row(f"--int8 {CALIB}", ort=ORT_DYNAMIC),
    Row(
        f"--int8 --act static --smooth off {CALIB}",
        ((19.767, 0.00842), (204.131, 2.41198), (84.720, 0.88701)),
        ORT_STATIC,
    ),
    Row(
        f"--int8 --act static --smooth 0.5 {CALIB}",
        ((19.768, 0.00838), (19.764, 0.00838), (34.385, 0.00078)),
        ORT_STATIC,
    ),
    Row(
        f"--int8 --act static {CALIB}",
        ort=ORT_STATIC,
        bound={LLAMA_OUT: 0.0085, GPT_OUT: 0.00082},
    ),
    # One scale for a whole weight.
    Row(
        f"{TENSOR} --act static --smooth off {CALIB}",
        ((19.778, 0.00852), (204.120, 2.42051), (85.881, 0.89699)),
        ORT_STATIC_TENSOR,
    ),
    Row(
        f"{TENSOR} --act static --smooth 0.5 {CALIB}",
        ((19.777, 0.00848), (19.776, 0.00849), (34.382, 0.00086)),
        ORT_STATIC_TENSOR,
    ),
    Row(
        f"--scheme fp8-tensor {CALIB}",
        ((19.662, 0.00181), (19.655, 0.00182), (34.442, 0.00200)),
    ),
    Row(
        f"{G128} --algo rtn",
        ((19.763, 0.00933), (20.085, 0.02919), (36.805, 0.06485)),
        ORT_G128,
    ),
    Row(
        f"{G128_SYM} --algo rtn",
        ((19.791, 0.01148), (20.123, 0.03137), (36.934, 0.06974)),
        ORT_G128_SYM,
    ),
    Row(
        "--scheme w4a16-g32-asym --algo rtn",
        ((19.721, 0.00599), (20.041, 0.02558), (36.477, 0.05691)),
        ORT_G32,
    ),
    Row(
        f"{W3} --algo rtn",
        ((20.515, 0.04501), (20.854, 0.06510), (37.842, 0.08936)),
    ),
    Row(
        f"{G128} --algo gptq {CALIB}",
        ((19.710, 0.00575), (19.911, 0.01917), (35.859, 0.03964)),
        bound={LLAMA: 0.0060},
    ),
    Row(
        f"{G128_SYM} --algo gptq {CALIB}",
        ((19.781, 0.00698), (19.986, 0.02054), (35.933, 0.04187)),
    ),
    Row(
        f"{W3} --algo gptq {CALIB}",
        ((20.100, 0.02766), (20.358, 0.04255), (36.128, 0.04916)),
    ),
    Row(
        f"{G128} --algo awq {CALIB}",
        ((19.786, 0.00844), (19.758, 0.00884), (34.597, 0.00618)),
        bound={LLAMA_OUT: 0.0093, GPT_OUT: 0.0065},
    ),
    Row(
        f"{G128_SYM} --algo awq {CALIB}",
        ((19.790, 0.00961), (19.802, 0.01019), (34.586, 0.00759)),
    ),
    Row(
        f"{W3} --algo awq {CALIB}",
        ((20.235, 0.03527), (20.226, 0.03726), (35.344, 0.02820)),
    ),
    Row(f"{G128} --algo gptq,refine {CALIB}", ort=ORT_G128),
    Row(f"--int4 {CALIB}", ort=ORT_G128),
    Row("--int4", ort=ORT_G32),
    Row("--scheme w4a16-g64-asym --algo hqq"),
    Row("--scheme w8a16-g128-sym"),
    Row(f"{W3} {CALIB}"),
    Row("--scheme w2a16-g32-asym"),
    Row(f"--scheme w2a16-g32-asym {CALIB}"),
    # Other formats; weights alone but for FP8.
    Row("--scheme w8a8-fp8-block128"),
    Row("--scheme int8-block128"),
    Row("--scheme fp8-e5m2"),
    Row("--scheme mxfp8"),
    Row("--mxfp4"),
    Row(f"--mxfp4 {CALIB}"),
    Row("--nvfp4"),
    Row(f"--nvfp4 --algo gptq,refine {CALIB}"),
    Row(f"--nvfp4 {CALIB}"),
    Row("--scheme nf4"),
    Row(f"--scheme nf4 {CALIB}"),
    Row(f"--scheme lut4 {CALIB}"),
    Row(f"--scheme lut3 {CALIB}"),
    Row(f"--scheme lut4 --sparse-weights 0.45% {CALIB}"),
    Row(f"--scheme lut3 --sparse-weights 0.45% {CALIB}"),
    # Outliers elsewhere: rotated away, or kept float.
    Row(f"--int8 --smooth off --rotate on {CALIB}", ort=ORT_DYNAMIC),
    Row(f"--int8 --act static --smooth off --rotate on {CALIB}", ort=ORT_STATIC),
    Row(f"--int8 --outlier-columns 6 {CALIB}", ort=ORT_DYNAMIC),
    Row("--scheme w4a4 --algo rtn"),
    Row("--scheme w4a4 --algo rtn --rotate on"),
]

DYNAMIC, DYNAMIC_HALF, DYNAMIC_AUTO = "--int8", f"--int8 --smooth 0.5 {CALIB}", f"--int8 {CALIB}"
STATIC_HALF, STATIC_AUTO = f"--int8 --act static --smooth 0.5 {CALIB}", f"--int8 --act static {CALIB}"
W4A4, W4A4_ROTATED = "--scheme w4a4 --algo rtn", "--scheme w4a4 --algo rtn --rotate on"
INT4, AWQ, GPTQ = f"--int4 {CALIB}", f"{G128} --algo awq {CALIB}", f"{G128} --algo gptq {CALIB}"

# Claims: KL of one row is at most a factor times the KL of another: (claim, flags, model, factor,
# flags, model).
CLAIMS = (
    [("a searched alpha is no worse than 0.5", DYNAMIC_AUTO, m, 1.0, DYNAMIC_HALF, m) for m in range(3)]
    + [("a searched alpha is no worse than 0.5", STATIC_AUTO, m, 1.0, STATIC_HALF, m) for m in range(3)]
    + [
        ("with smoothing, outliers cost at most a fifth", DYNAMIC_AUTO, LLAMA_OUT, 1.2, DYNAMIC, LLAMA),
        ("with smoothing, outliers cost at most a fifth", DYNAMIC_AUTO, GPT_OUT, 1.2, DYNAMIC, LLAMA),
    ]
    + [("AWQ and GPTQ together beat AWQ by 15 %", INT4, m, 0.85, AWQ, m) for m in range(3)]
    + [("AWQ and GPTQ together beat GPTQ by 15 %", INT4, m, 0.85, GPTQ, m) for m in range(3)]
    + [("NVFP4 is better than MXFP4", "--nvfp4", m, 1.0, "--mxfp4", m) for m in range(3)]
    + [("AWQ and GPTQ take 40 % off what NVFP4 costs", f"--nvfp4 {CALIB}", m, 0.6, "--nvfp4", m) for m in range(3)]
    + [
        ("with data four-bit floats are better than without", f"{flags} {CALIB}", m, 1.0, flags, m)
        for flags in ("--mxfp4", "--scheme nf4")
        for m in range(3)
    ]
    + [
        ("a few float weights make tables better", f"{LUT} --sparse-weights 0.45% {CALIB}", m, 1.0, f"{LUT} {CALIB}", m)
        for LUT in ("--scheme lut4", "--scheme lut3")
        for m in range(3)
    ]
    + [("rotation makes W4A4 three times better", W4A4_ROTATED, m, 0.333, W4A4, m) for m in range(3)]
)
