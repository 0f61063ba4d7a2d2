"""Compiles and evaluates every row of rows.py and writes the tables; see run.sh."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

from rows import CLAIMS, MODELS, ROWS

# Perplexity of the float models.
FLOAT = ("19.626", "19.626", "34.357")

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
plain ones. For 4-bit weights it is MatMulNBits with blocks of the same size. Both are given as
perplexity / KL and were measured on the same data.

Seconds and memory are what `qcc compile` and `qcc eval` say of themselves on {cores} cores
({cpu}, shared with other work), with calibration on all {calib} windows where there is data;
evaluation runs the float model beside the plan for the KL.

| model | flags | perplexity | KL | top-1 | bound | formula | onnxruntime | plan | compile | peak memory | eval |
|---|---|---|---|---|---|---|---|---|---|---|---|
"""

CLAIMS_HEAD = """
## Claims

Each compares the KL of two rows above; the script demands them too.

| claim | model | flags | KL | at most | times the KL of |
|---|---|---|---|---|---|
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


def measure(qcc, models, model, flags, plan):
    onnx = f"{MODELS[model]}.onnx"
    c = run(qcc, models, "compile", onnx, "--target", "cpu", "-o", plan, *flags.split())
    e = run(qcc, models, "eval", plan, "--tokens", "eval_tokens.npy", "--baseline", onnx)
    return c, e


def line(model, flags, c, e, met, limit, formula, ort):
    cells = [
        MODELS[model],
        f"`{flags}`" if flags else "float",
        f"{e['perplexity']:.3f}",
        f"{e['kl']:.5f}",
        f"{e['top1']:.4f}",
        limit + ("" if met else " **missed**"),
        peer(formula),
        peer(ort),
        f"{c['bytes'] / 1e6:.2f} MB",
        f"{c['seconds']:.1f} s",
        f"{c['compile_peak_bytes'] / 1e6:.0f} MB",
        f"{e['seconds']:.1f} s",
    ]
    return "| " + " | ".join(cells) + " |\n"


def float_rows(qcc, models, plan):
    for model, wanted in enumerate(FLOAT):
        c, e = measure(qcc, models, model, "", plan)
        met = f"{e['perplexity']:.3f}" == wanted
        yield met, e, line(model, "", c, e, met, wanted, None, None)


def quantized_rows(qcc, models, plan, kl):
    for row in ROWS:
        for model in row.models:
            c, e = measure(qcc, models, model, row.flags, plan)
            kl[row.flags, model] = e["kl"]
            limit = row.limit(model)
            met = limit is None or e["kl"] <= limit
            text = "" if limit is None else f"KL ≤ {limit:.3g}"
            yield met, e, line(model, row.flags, c, e, met, text, row.formula[model], row.ort[model])


def claims(kl):
    for claim, flags, model, factor, other, other_model in CLAIMS:
        a, b = kl[flags, model], kl[other, other_model]
        met = a <= factor * b
        mark = "" if met else " **missed**"
        versus = f"`{other}` on {MODELS[other_model]}: {b:.5f}"
        yield met, f"| {claim} | {MODELS[model]} | `{flags}` | {a:.5f} | {factor}{mark} | {versus} |\n"


def main():
    qcc, models, out = os.path.abspath(sys.argv[1]), sys.argv[2], pathlib.Path(sys.argv[3])
    text, missed, kl = "", 0, {}
    with tempfile.TemporaryDirectory() as folder:
        plan = os.path.join(folder, "m.qplan")
        for rows in (float_rows(qcc, models, plan), quantized_rows(qcc, models, plan, kl)):
            for met, e, row in rows:
                missed += not met
                text += row
                print(row, end="", flush=True)
    text += CLAIMS_HEAD
    for met, row in claims(kl):
        missed += not met
        text += row
        print(row, end="", flush=True)
    calib = (pathlib.Path(models) / "calib_tokens.npy").stat().st_size // (8 * 256)
    head = HEAD.format(
        windows=e["windows"], tokens=e["tokens"], cores=os.cpu_count(), cpu=processor(), calib=calib
    )
    out.parent.mkdir(exist_ok=True)
    out.write_text(head + text)
    sys.exit(f"{missed} bounds missed" if missed else 0)


main()
