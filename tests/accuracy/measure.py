"""Compiles and evaluates rows of rows.py and writes the tables; see run.sh.

Rows that are not measured keep the line that the document has of them.
"""

import json
import os
import pathlib
import re
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
`onnxruntime.quantization` with weights per channel (per tensor beside `int8-tensor`): dynamic for rows with dynamic activations, QDQ
S8S8 with min-max calibration for static ones; it has no smoothing, so smoothed rows stand beside its
plain ones. For 4-bit weights it is MatMulNBits with blocks of the same size. Both are given as
perplexity / KL and were measured on the same data.

Seconds and memory are what `qcc compile` and `qcc eval` say of themselves on {cores} cores
({cpu}, shared with other work), with calibration on all {calib} windows where there is data;
evaluation runs the float model beside the plan for the KL. Not all rows were measured in one run or
by one build, so seconds of different rows are no comparison.

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


def measured(row):
    """KL of a line, or None for a row that is not there."""
    return row and float(row.split(" | ")[3])


def known_rows(text):
    """Lines of a document by model and flags."""
    found = {}
    for row in text.splitlines(keepends=True):
        cells = row.strip("| \n").split(" | ")
        if len(cells) == 12 and cells[0] in MODELS:
            flags = "" if cells[1] == "float" else cells[1].strip("`")
            found[flags, MODELS.index(cells[0])] = row
    return found


def all_rows():
    """Flags, model, bound in words, whether a result keeps it, and the peers."""
    for model, wanted in enumerate(FLOAT):
        yield "", model, wanted, (lambda e, w=wanted: f"{e['perplexity']:.3f}" == w), None, None
    for r in ROWS:
        for model in r.models:
            limit = r.limit(model)
            text = "" if limit is None else f"KL ≤ {limit:.3g}"
            keeps = lambda e, l=limit: l is None or e["kl"] <= l
            yield r.flags, model, text, keeps, r.formula[model], r.ort[model]


def claims(rows):
    for claim, flags, model, factor, other, other_model in CLAIMS:
        a, b = measured(rows.get((flags, model))), measured(rows.get((other, other_model)))
        if a is None or b is None:
            continue
        met = a <= factor * b
        mark = "" if met else " **missed**"
        versus = f"`{other}` on {MODELS[other_model]}: {b:.5f}"
        yield met, f"| {claim} | {MODELS[model]} | `{flags}` | {a:.5f} | {factor}{mark} | {versus} |\n"


def document(models, rows):
    """The tables of these rows, in the order of rows.py."""
    calib = (pathlib.Path(models) / "calib_tokens.npy").stat().st_size // (8 * 256)
    windows = (pathlib.Path(models) / "eval_tokens.npy").stat().st_size // (8 * 256)
    head = HEAD.format(
        windows=windows, tokens=windows * 255, cores=os.cpu_count(), cpu=processor(), calib=calib
    )
    table = "".join(rows.get((flags, model), "") for flags, model, *_ in all_rows())
    return head + table + CLAIMS_HEAD + "".join(row for _, row in claims(rows))


def main():
    qcc, models, out = os.path.abspath(sys.argv[1]), sys.argv[2], pathlib.Path(sys.argv[3])
    chosen = re.compile(sys.argv[4] if len(sys.argv) > 4 else "")
    rows = known_rows(out.read_text()) if out.exists() else {}
    out.parent.mkdir(exist_ok=True)
    missed = 0
    with tempfile.TemporaryDirectory() as folder:
        plan = os.path.join(folder, "m.qplan")
        for flags, model, limit, keeps, formula, ort in all_rows():
            if not chosen.search(flags or "float"):
                continue
            c, e = measure(qcc, models, model, flags, plan)
            met = keeps(e)
            missed += not met
            rows[flags, model] = line(model, flags, c, e, met, limit, formula, ort)
            print(rows[flags, model], end="", flush=True)
            # What is measured is kept if the rest is interrupted.
            out.write_text(document(models, rows))
    for met, row in claims(rows):
        missed += not met
        print(row, end="", flush=True)
    out.write_text(document(models, rows))
    sys.exit(f"{missed} bounds missed" if missed else 0)


main()
