"""Compiles and evaluates every row of ROWS and writes the table; see run.sh."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

LLAMA, LLAMA_OUT, GPT_OUT = "docs-llama", "docs-llama-outlier", "docs-gpt-outlier"
CALIB = "--calib calib_tokens.npy"

# Model, flags, bound on the KL (of float: the perplexity), and as figures what others reach on the
# same data: (perplexity, KL). `fake`: quantize-dequantize in PyTorch with float32 arithmetic, the
# formula without an engine. `ort`: onnxruntime.quantization of the same kind.
ROWS = [
    (LLAMA, "", 19.626, None, (19.626, 0.0)),
    (LLAMA_OUT, "", 19.626, None, (19.626, 0.0)),
    (GPT_OUT, "", 34.357, None, (34.357, 0.0)),
    (LLAMA, f"--fp8 {CALIB}", 0.0020, (19.662, 0.00181), None),
    (LLAMA_OUT, f"--fp8 {CALIB}", 0.0020, (19.655, 0.00182), None),
    (GPT_OUT, f"--fp8 {CALIB}", 0.0022, (34.442, 0.00200), None),
    (LLAMA_OUT, "--fp8", None, None, None),
    (LLAMA, "--int8", 0.0008, (19.648, 0.00073), (19.731, 0.00581)),
    (LLAMA_OUT, "--int8", None, (20.845, 0.06448), (47.090, 0.92176)),
    (GPT_OUT, "--int8", None, (38.815, 0.11620), (70.896, 0.70743)),
    (LLAMA_OUT, f"--int8 --smooth 0.5 {CALIB}", None, None, (47.090, 0.92176)),
    (GPT_OUT, f"--int8 --smooth 0.5 {CALIB}", None, None, (70.896, 0.70743)),
    (LLAMA_OUT, f"--int8 --act static {CALIB}", None, (204.131, 2.41198), (205.658, 2.41321)),
    (GPT_OUT, f"--int8 --act static {CALIB}", None, (84.720, 0.88701), (85.194, 0.89152)),
    (LLAMA_OUT, f"--int8 --act static --smooth 0.5 {CALIB}", 0.0088, (19.764, 0.00838), (205.658, 2.41321)),
    (GPT_OUT, f"--int8 --act static --smooth 0.5 {CALIB}", 0.00086, (34.385, 0.00078), (85.194, 0.89152)),
    # Weights of 4 and 3 bits. onnxruntime: MatMulNBits with blocks of the same size.
    (LLAMA, "--scheme w4a16-g128-asym --algo rtn", 0.0098, (19.763, 0.00933), (19.763, 0.00933)),
    (LLAMA_OUT, "--scheme w4a16-g128-asym --algo rtn", 0.0306, (20.085, 0.02919), (20.085, 0.02919)),
    (GPT_OUT, "--scheme w4a16-g128-asym --algo rtn", 0.0681, (36.805, 0.06485), (36.805, 0.06485)),
    (LLAMA, "--scheme w4a16-g128-sym --algo rtn", 0.0121, (19.791, 0.01148), (19.809, 0.00995)),
    (LLAMA, "--scheme w4a16-g32-asym --algo rtn", 0.0063, (19.721, 0.00599), (19.721, 0.00599)),
    (LLAMA, "--scheme w3a16-g128-asym --algo rtn", 0.0473, (20.515, 0.04501), None),
    (LLAMA, f"--scheme w4a16-g128-asym --algo gptq {CALIB}", 0.0060, (19.710, 0.00575), None),
    (LLAMA_OUT, f"--scheme w4a16-g128-asym --algo gptq {CALIB}", 0.0201, (19.911, 0.01917), None),
    (GPT_OUT, f"--scheme w4a16-g128-asym --algo gptq {CALIB}", 0.0416, (35.859, 0.03964), None),
    (LLAMA, f"--scheme w4a16-g128-sym --algo gptq {CALIB}", 0.0073, (19.781, 0.00698), None),
    (LLAMA, f"--scheme w3a16-g128-asym --algo gptq {CALIB}", 0.0290, (20.100, 0.02766), None),
    (LLAMA, f"--scheme w4a16-g128-asym --algo awq {CALIB}", 0.0089, (19.786, 0.00844), None),
    (LLAMA_OUT, f"--scheme w4a16-g128-asym --algo awq {CALIB}", 0.0093, (19.758, 0.00884), None),
    (GPT_OUT, f"--scheme w4a16-g128-asym --algo awq {CALIB}", 0.0065, (34.597, 0.00618), None),
    (LLAMA, f"--scheme w4a16-g128-sym --algo awq {CALIB}", 0.0101, (19.790, 0.00961), None),
    (LLAMA, f"--scheme w3a16-g128-asym --algo awq {CALIB}", 0.0370, (20.235, 0.03527), None),
    (LLAMA, "--scheme w4a16-g128-asym --algo hqq", None, None, (19.763, 0.00933)),
    (LLAMA, f"--scheme w4a16-g128-asym --algo gptq,refine {CALIB}", None, None, (19.763, 0.00933)),
    # AWQ and GPTQ together: 15 % below the better of the two.
    (LLAMA, f"--int4 {CALIB}", 0.00487, None, (19.763, 0.00933)),
    (LLAMA_OUT, f"--int4 {CALIB}", 0.0074, None, (20.085, 0.02919)),
    (GPT_OUT, f"--int4 {CALIB}", 0.0048, None, (36.805, 0.06485)),
]

HEAD = """# Accuracy

Written by `tests/accuracy/run.sh`, which compiles each row for `cpu` and evaluates the plan on all
windows of the evaluation data: {windows} windows, {tokens} predicted tokens. KL is the mean over
predicted tokens of KL(float ‖ quantized) in nats, top-1 the share of tokens for which both predict
the same. The models are small language models that were trained for this project; `-outlier` has
activation outliers as large models do, and computes the same function.

*Bound* is what the script demands (of float rows: this perplexity to three decimals). *Formula* is
quantize-dequantize in PyTorch with float32 arithmetic, *onnxruntime* is
`onnxruntime.quantization` with weights per channel: dynamic for rows with dynamic activations, QDQ
S8S8 with min-max calibration for static ones; it has no smoothing, so smoothed rows stand beside its
plain ones. Both are given as perplexity / KL and were measured on the same data.

Seconds and memory are what `qcc compile` and `qcc eval` say of themselves on {cores} cores
({cpu}, shared with other work), with calibration on all {calib} windows where there is data;
evaluation runs the float model beside the plan for the KL.

| model | flags | perplexity | KL | top-1 | bound | formula | onnxruntime | plan | compile | peak memory | eval |
|---|---|---|---|---|---|---|---|---|---|---|---|
"""


def run(qcc, folder, *args):
    out = subprocess.run([qcc, *args, "--json"], cwd=folder, capture_output=True, text=True)
    if out.returncode:
        sys.exit(f"qcc {' '.join(args)}\n{out.stdout}{out.stderr}")
    return json.loads(out.stdout)


def processor():
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        return next(l.split(":", 1)[1].strip() for l in lines if l.startswith("model name"))
    except (OSError, StopIteration):
        return "unnamed processor"


def peer(p):
    return f"{p[0]:.3f} / {p[1]:.5f}" if p else ""


def measure(qcc, models, row, plan):
    model, flags, bound, fake, ort = row
    onnx = f"{model}.onnx"
    c = run(qcc, models, "compile", onnx, "--target", "cpu", "-o", plan, *flags.split())
    e = run(qcc, models, "eval", plan, "--tokens", "eval_tokens.npy", "--baseline", onnx)
    if flags:
        met, limit = bound is None or e["kl"] <= bound, "" if bound is None else f"KL ≤ {bound}"
    else:
        met, limit = f"{e['perplexity']:.3f}" == f"{bound:.3f}", f"{bound:.3f}"
    cells = [
        model,
        f"`{flags}`" if flags else "float",
        f"{e['perplexity']:.3f}",
        f"{e['kl']:.5f}",
        f"{e['top1']:.4f}",
        limit + ("" if met else " **missed**"),
        peer(fake),
        peer(ort),
        f"{c['bytes'] / 1e6:.2f} MB",
        f"{c['seconds']:.1f} s",
        f"{c['compile_peak_bytes'] / 1e6:.0f} MB",
        f"{e['seconds']:.1f} s",
    ]
    return met, e, "| " + " | ".join(cells) + " |\n"


def main():
    qcc, models, out = os.path.abspath(sys.argv[1]), sys.argv[2], pathlib.Path(sys.argv[3])
    text, missed = "", 0
    with tempfile.TemporaryDirectory() as folder:
        for row in ROWS:
            met, e, line = measure(qcc, models, row, os.path.join(folder, "m.qplan"))
            missed += not met
            text += line
            print(line, end="", flush=True)
    calib = (pathlib.Path(models) / "calib_tokens.npy").stat().st_size // (8 * 256)
    head = HEAD.format(
        windows=e["windows"], tokens=e["tokens"], cores=os.cpu_count(), cpu=processor(), calib=calib
    )
    out.parent.mkdir(exist_ok=True)
    out.write_text(head + text)
    sys.exit(f"{missed} bounds missed" if missed else 0)


main()
