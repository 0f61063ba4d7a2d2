"""Writes a decoder of Llama's shape with random weights in an external file, and tokens.

    deep_model.py OUT.onnx LAYERS [WIDTH MLP]

Weights (f32, normal) go to OUT.data one after another, so that a model larger than memory can be
made; OUT.npy holds 16 windows of 128 tokens. The same arguments give the same bytes.
"""

import sys

import numpy as np
import onnx
from onnx import TensorProto, helper

VOCAB, HEAD = 1024, 64
WINDOWS, TOKENS = 16, 128


class Weights:
    """Initializers, their data in one file."""

    def __init__(self, path):
        self.file = open(path, "wb")
        self.location = path.rsplit("/", 1)[-1]
        self.random = np.random.default_rng(1)
        self.initializers = []

    def add(self, name, values):
        at = self.file.tell()
        raw = np.ascontiguousarray(values, np.float32).tobytes()
        self.file.write(raw + bytes(-len(raw) % 64))
        t = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=values.shape)
        t.data_location = TensorProto.EXTERNAL
        place = {"location": self.location, "offset": at, "length": len(raw)}
        t.external_data.extend(
            onnx.StringStringEntryProto(key=k, value=str(v)) for k, v in place.items()
        )
        self.initializers.append(t)
        return name

    def matrix(self, name, k, n):
        scale = np.float32(k**-0.5)
        return self.add(name, self.random.standard_normal((k, n), np.float32) * scale)


def decoder(weights, layers, width, mlp):
    nodes = []

    def op(kind, inputs, output, **attributes):
        nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    gain = weights.add("gain", np.ones(width))
    angle = np.arange(4096)[:, None] * 10000.0 ** (-np.arange(HEAD // 2) / (HEAD / 2))
    cos, sin = weights.add("cos", np.cos(angle)), weights.add("sin", np.sin(angle))
    x = op("Gather", [weights.matrix("embed", VOCAB, width), "input_ids"], "embedded", axis=0)
    length = op("Slice", [op("Shape", ["input_ids"], "shape"), "one", "two"], "length")
    scalar = op("Squeeze", [length], "scalar")
    positions = op("Range", ["zero", scalar, "step"], "range")
    positions = op("Expand", [op("Unsqueeze", [positions, "axis"], "row"), "shape"], "positions")
    heads = width // HEAD
    for i in range(layers):

        def linear(of, name, k, n):
            w = weights.matrix(f"l{i}.{name}.weight", k, n)
            return op("MatMul", [of, w], f"l{i}.{name}")

        h = op("RMSNormalization", [x, gain], f"l{i}.norm1", axis=-1, epsilon=1e-5)
        q, k, v = (linear(h, n, width, width) for n in "qkv")
        rotate = {"num_heads": heads}
        q = op("RotaryEmbedding", [q, cos, sin, positions], f"l{i}.q.rotated", **rotate)
        k = op("RotaryEmbedding", [k, cos, sin, positions], f"l{i}.k.rotated", **rotate)
        shape = {"q_num_heads": heads, "kv_num_heads": heads, "is_causal": 1}
        a = op("Attention", [q, k, v], f"l{i}.attention", **shape)
        x = op("Add", [x, linear(a, "o", width, width)], f"l{i}.sum1")
        h = op("RMSNormalization", [x, gain], f"l{i}.norm2", axis=-1, epsilon=1e-5)
        gate, up = linear(h, "gate", width, mlp), linear(h, "up", width, mlp)
        gate = op("Mul", [gate, op("Sigmoid", [gate], f"l{i}.sigmoid")], f"l{i}.silu")
        h = op("Mul", [gate, up], f"l{i}.gated")
        x = op("Add", [x, linear(h, "down", mlp, width)], f"l{i}.sum2")
    x = op("RMSNormalization", [x, gain], "norm", axis=-1, epsilon=1e-5)
    op("MatMul", [x, weights.matrix("head", width, VOCAB)], "logits")
    return nodes


def main(out, layers, width=512, mlp=1536):
    stem = out.removesuffix(".onnx")
    weights = Weights(stem + ".data")
    nodes = decoder(weights, layers, width, mlp)
    ints = {"one": [1], "two": [2], "axis": [0], "zero": 0, "step": 1}
    ints = [onnx.numpy_helper.from_array(np.int64(v), n) for n, v in ints.items()]
    ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["b", "s"])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["b", "s", VOCAB])
    graph = helper.make_graph(nodes, "decoder", [ids], [logits], weights.initializers + ints)
    opset = [helper.make_opsetid("", 23)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=11), out)
    tokens = np.random.default_rng(2).integers(0, VOCAB, (WINDOWS, TOKENS))
    np.save(stem + ".npy", tokens.astype(np.int64))


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
