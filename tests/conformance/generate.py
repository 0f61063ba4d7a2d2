"""Writes the expected outputs of the conformance test, as onnxruntime computes them.

    python3 -m venv tools && tools/bin/pip install numpy==2.4.6 onnxruntime==1.31.1
    tools/bin/python tests/conformance/generate.py [MODELS_DIR]

For every model in `models/`, for the example model, and for the docs-llama models where MODELS_DIR
has them, `goldens/NAME.npz` gets sets of inputs and outputs, `SET.in.INPUT` and `SET.out.OUTPUT`.
To keep the files small,

- a float input is stored as bytes b that stand for b / 64 - 2;
- an output of many elements is stored as every 13th of them, in one dimension (13 divides no
  width that occurs, so every row and every column is met).

The set `torch` of the docs models is the float32 output of the PyTorch model that was exported
(MODELS_DIR/docs-*-ref.npz); those of `models/` lie beside them as `models/NAME.npz`.
"""

import pathlib
import sys

import numpy as np
import onnxruntime

HERE = pathlib.Path(__file__).parent
EXAMPLE = HERE.parent.parent / "examples" / "models" / "docs-gpt-outlier.onnx"
STRIDE, SMALL = 13, 4096


def session(path):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def sampled(x):
    return x if x.size <= SMALL else x.reshape(-1)[::STRIDE].copy()


def padded(kind, batch, seq):
    """A padding mask; the first row sees everything in all kinds but `left` and `right`."""
    mask = np.ones((batch, seq), np.int64)
    for row in range(batch):
        n = seq // 3 + row if kind in ("left", "right") else seq // 4 * row
        n = min(n, seq - 1)
        if kind == "left" or (kind == "mixed" and row % 2 == 1):
            mask[row, :n] = 0
        elif kind == "right" or kind == "mixed":
            mask[row, seq - n :] = 0
        elif kind == "holes":
            mask[row, 1 + row :: 3] = 0
    return mask


def text_sets(inputs, vocabulary, rng):
    """Token ids at several sizes, and padding masks where the model takes one."""
    sizes = [(1, 1), (1, 7), (2, 24), (3, 17), (5, 1), (1, 64)]
    cases = [(f"b{b}s{s}", b, s, "full") for b, s in sizes]
    if any(i.name == "attention_mask" for i in inputs):
        cases += [(f"b3s17_{k}", 3, 17, k) for k in ("left", "right", "mixed", "holes")]
        cases += [("b2s32_left", 2, 32, "left"), ("b1s9_right", 1, 9, "right")]
    for name, b, s, kind in cases:
        feed = {}
        for i in inputs:
            if i.name == "attention_mask":
                feed[i.name] = padded(kind, b, s)
            elif i.name == "token_type_ids":
                feed[i.name] = rng.integers(0, 2, (b, s))
            else:
                feed[i.name] = rng.integers(0, vocabulary, (b, s))
        yield name, feed, feed


def dense_sets(inputs, rng):
    """Float inputs of the declared shape at several batch sizes: what is stored, what is fed."""
    for b in (1, 3, 5):
        stored = {i.name: rng.integers(0, 256, [b, *i.shape[1:]], np.uint8) for i in inputs}
        yield f"b{b}", stored, {k: (v / 64.0 - 2.0).astype(np.float32) for k, v in stored.items()}


def generate(path, reference=None, vocabulary=512):
    s = session(path)
    inputs, outputs = s.get_inputs(), [o.name for o in s.get_outputs()]
    rng = np.random.default_rng(sum(path.stem.encode()))
    text = inputs[0].type == "tensor(int64)"
    sets = text_sets(inputs, vocabulary, rng) if text else dense_sets(inputs, rng)
    arrays = {}
    for name, stored, feed in sets:
        for k, v in stored.items():
            arrays[f"{name}.in.{k}"] = v
        for k, v in zip(outputs, s.run(outputs, feed)):
            arrays[f"{name}.out.{k}"] = sampled(v)
    if reference:
        folder, file = reference
        logits = np.load(folder / file)["logits_row0_first24"]
        arrays["torch.in.input_ids"] = np.load(folder / "eval_tokens.npy")[:1, :24]
        arrays["torch.out.logits"] = sampled(logits[None])
    np.savez_compressed(HERE / "goldens" / f"{path.stem}.npz", **arrays)
    print(f"{path.stem}: {len(arrays)} arrays")


def main():
    for path in sorted((HERE / "models").glob("*.onnx")):
        generate(path)
    if len(sys.argv) > 1:
        folder = pathlib.Path(sys.argv[1])
        generate(EXAMPLE, (folder, "docs-gpt-ref.npz"), 2048)
        for name in ("docs-llama", "docs-llama-outlier"):
            generate(folder / f"{name}.onnx", (folder, "docs-llama-ref.npz"), 2048)


main()
