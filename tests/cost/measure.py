"""Compiles models by each method and writes what it cost; see run.sh.

Rows that are not measured keep the line that the document has of them. An interrupt ends the
measuring, not the writing.
"""

import json
import os
import pathlib
import re
import resource
import subprocess
import sys
import tempfile

from deep_model import TOKENS, WINDOWS, main as make_model

METHODS = [
    "",
    "--int8",
    "--int8 --smooth 0.5 --calib C",
    "--int8 --calib C",
    "--int8 --act static --calib C",
    "--fp8 --calib C",
    "--int4 --algo rtn",
    "--int4 --algo mse",
    "--int4 --algo hqq",
    "--int4 --algo gptq --calib C",
    "--int4 --algo awq --calib C",
    "--int4 --calib C",
    "--scheme lut4",
    "--nvfp4 --calib C",
    "--int8 --rotate on --calib C",
]
DEPTHS = (4, 8, 16, 32)
DEEP = ["", "--int8", "--fp8 --calib C", "--int8 --calib C", "--int4 --algo gptq --calib C"]
LIMIT = "--max-memory 64M"
WIDTH, MLP, BLOCKS = 4096, 11008, 32

HEAD = """# Cost of a compilation

Written by `tests/cost/run.sh`. Each row is `qcc compile MODEL --target cpu FLAGS` of a release build
on {cores} cores ({cpu}, shared with other work). *Seconds* are what the compiler says of itself,
*CPU seconds* those of all threads together, which other work disturbs less. *Memory* is the most
that the process had resident at one time (`VmHWM`): everything, the pages of mapped files with it.
`C` is the calibration data.

A compilation holds a layer at a time. Weights stay in the model's mapped file: an op reads its own
when it runs and gives the pages back after; a search that runs one block often holds the weights of
that block. Weight methods run the samples from layer to layer; what they carry along, activations and
codes, goes to a temporary file beyond `--max-memory`, which counts neither `XᵀX` of a layer nor its
factor. What grows with depth is what is known of each layer: its decisions, the statistics of its
inputs, the scales of its weight. `tests/tests/memory.rs` counts bytes and holds compilations to it.

## A model of 20 MB

docs-llama (5.0 million weights in f32, 5 layers), with all {calib} windows of 256 tokens where there
are data.

"""
TABLE = "| what | flags | seconds | CPU seconds | memory | plan |\n|---|---|---|---|---|---|\n"
SEVEN = """
## Layers of 7B shape

One decoder layer of width {width} and MLP {mlp}: q, k, v, o, gate, up and down, 202 million weights
in f32 (810 MB, generated, in an external file), with {windows} windows of {tokens} tokens where there are
data. The model has nothing else but an embedding and a head of 1024 tokens, so {blocks} times as long is
what a model of {blocks} layers takes: that is the last column, and it is computed, not measured.

"""
SEVEN_TABLE = (
    "| what | flags | seconds | CPU seconds | memory | plan | CPU hours of 32 layers |\n"
    "|---|---|---|---|---|---|---|\n"
)
DEPTH = """
## Memory against depth

Decoders of width 512 and MLP 1536 with 4 to 32 layers (13.6 MB of weights in each), {windows} windows of
{tokens} tokens, `{limit}`.

"""


def processor():
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return "unknown processor"


class Bench:
    """Measures rows, or keeps those that the document has."""

    def __init__(self, qcc, out, pattern, folder):
        self.qcc, self.out, self.pattern = qcc, out, re.compile(pattern)
        self.folder = folder
        old = out.read_text() if out.exists() else ""
        rows = [line for line in old.splitlines() if line.startswith("| ")]
        self.old = {tuple(r.split(" | ")[:2]): r + "\n" for r in rows}

    def row(self, what, flags, model, calib, blocks=None):
        """The line of a compilation. `model` gives its file when it is needed."""
        label = f"`{flags}`" if flags else "float"
        if not self.pattern.search(f"| {what} | {label} |"):
            return self.old.get((f"| {what}", label), "")
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        args = [str(calib) if f == "C" else f for f in flags.split()]
        plan = self.folder / "m.qplan"
        run = [self.qcc, "compile", str(model()), "--target", "cpu", "-o", str(plan), *args]
        try:
            done = subprocess.run([*run, "--json"], capture_output=True, text=True)
        except KeyboardInterrupt:
            self.pattern = re.compile("(?!)")
            return self.old.get((f"| {what}", label), "")
        if done.returncode:
            sys.exit(f"{' '.join(run)}\n{done.stdout}{done.stderr}")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        said = json.loads(done.stdout)
        cells = [
            what,
            label,
            f"{said['seconds']:.1f}",
            f"{cpu:.1f}",
            f"{said['compile_peak_bytes'] / 1e6:.0f} MB",
            f"{said['bytes'] / 1e6:.1f} MB",
        ]
        if blocks:
            cells.append(f"{cpu * blocks / 3600:.2f}")
        line = f"| {' | '.join(cells)} |\n"
        print(line, end="", flush=True)
        return line


def depth_model(folder, layers, *shape):
    """A generated model, written when it is first asked for."""
    path = folder / f"depth{layers}-{'-'.join(map(str, shape))}.onnx"

    def model():
        if not path.exists():
            make_model(str(path), layers, *shape)
        return path

    return model, path.with_suffix(".npy")


def main():
    qcc, models, out, pattern = sys.argv[1:]
    models, out = pathlib.Path(models), pathlib.Path(out)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(qcc, out, pattern, pathlib.Path(folder))
        calib = models / "calib_tokens.npy"
        text = HEAD.format(
            cores=os.cpu_count(), cpu=processor(), calib=calib.stat().st_size // (8 * 256)
        )
        text += TABLE
        for flags in METHODS:
            text += bench.row("docs-llama", flags, lambda: models / "docs-llama.onnx", calib)
        sizes = {"width": WIDTH, "mlp": MLP, "blocks": BLOCKS, "windows": WINDOWS, "tokens": TOKENS}
        text += SEVEN.format(**sizes) + SEVEN_TABLE
        model, calib = depth_model(bench.folder, 1, WIDTH, MLP)
        for flags in METHODS:
            text += bench.row("7B layer", flags, model, calib, BLOCKS)
        text += DEPTH.format(limit=LIMIT, **sizes) + TABLE
        for flags in DEEP:
            for layers in DEPTHS:
                model, calib = depth_model(bench.folder, layers, 512, 1536)
                limited = f"{flags} {LIMIT}".strip()
                text += bench.row(f"depth {layers}", limited, model, calib)
    out.write_text(text)


main()
