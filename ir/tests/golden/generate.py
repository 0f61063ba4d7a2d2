"""Writes the goldens of the number formats into `format/` beside this script.

    python -m venv venv && venv/bin/pip install -r requirements.txt && venv/bin/python generate.py

References: numpy for f16 and integers, ml_dtypes for bf16, e4m3 (float8_e4m3fn), e5m2, e2m1
(float4_e2m1fn), e8m0 (float8_e8m0fnu) and 2-bit integers, and
onnx.reference for QuantizeLinear, DequantizeLinear and DynamicQuantizeLinear. A NaN result is
the canonical quiet NaN with the sign kept, which ml_dtypes does by itself; numpy's f16 keeps
payload bits instead, so they are cleared here.

All numbers are little endian. `A_B.bin` holds the encodings to format B of every code of format A
(`f32_B.bin`: of the numbers in `f32.bin`); `sat` and `special` are ONNX saturate = 1 and 0.
`A.bin` for an 8-bit or 4-bit format holds the f32 value of each code.
"""

import pathlib
import warnings

import ml_dtypes
import numpy as np
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

warnings.simplefilter("ignore")
HERE = pathlib.Path(__file__).parent / "format"
F8 = {"e4m3": ml_dtypes.float8_e4m3fn, "e5m2": ml_dtypes.float8_e5m2}
MX = {"e2m1": ml_dtypes.float4_e2m1fn, "e8m0": ml_dtypes.float8_e8m0fnu}
INT = {
    "i4": ml_dtypes.int4, "u4": ml_dtypes.uint4, "i8": np.int8, "u8": np.uint8,
    "i16": np.int16, "u16": np.uint16, "i32": np.int32,
}
ONNX = {
    "i4": TensorProto.INT4, "u4": TensorProto.UINT4, "i8": TensorProto.INT8,
    "u8": TensorProto.UINT8, "i16": TensorProto.INT16, "u16": TensorProto.UINT16,
    "i32": TensorProto.INT32, "e4m3": TensorProto.FLOAT8E4M3FN, "e5m2": TensorProto.FLOAT8E5M2,
}
OPSETS = [helper.make_opsetid("", 23)]


def save(name, array):
    (HERE / f"{name}.bin").write_bytes(np.ascontiguousarray(array).tobytes())


def to_f16(x):
    code = x.astype(np.float16).view(np.uint16)
    return np.where(np.isnan(x), (code & 0x8000) | 0x7E00, code).astype(np.uint16)


def to_f8(x, dtype, saturate):
    if saturate:
        top = ml_dtypes.finfo(dtype).max
        x = np.clip(x, -np.float32(top), np.float32(top))
    return x.astype(dtype).view(np.uint8)


def to_mx(x, dtype):
    """A NaN, which e2m1 lacks, is 6 here as in PTX; in ml_dtypes it is -0."""
    code = x.astype(dtype).view(np.uint8)
    return np.where(np.isnan(x), 7, code).astype(np.uint8) if dtype is MX["e2m1"] else code


def decodings():
    codes = np.arange(256, dtype=np.uint8)
    for name, dtype in F8.items():
        save(name, codes.view(dtype).astype(np.float32))
    save("i8", codes.view(np.int8).astype(np.float32))
    save("u8", codes.astype(np.float32))
    for name in ("i4", "u4"):
        save(name, codes[:16].astype(np.int8).astype(INT[name]).astype(np.float32))
    save("i2", codes[:4].astype(np.int8).astype(ml_dtypes.int2).astype(np.float32))
    save("u2", codes[:4].astype(ml_dtypes.uint2).astype(np.float32))
    save("e2m1", codes[:16].view(MX["e2m1"]).astype(np.float32))
    save("e8m0", codes.view(MX["e8m0"]).astype(np.float32))


def encodings():
    codes = np.arange(65536, dtype=np.uint16)
    f16 = codes.view(np.float16).astype(np.float32)
    bf16 = codes.view(ml_dtypes.bfloat16).astype(np.float32)
    save("f16_bf16", f16.astype(ml_dtypes.bfloat16))
    save("bf16_f16", to_f16(bf16))
    for source, x in (("f16", f16), ("bf16", bf16)):
        for name, dtype in F8.items():
            save(f"{source}_{name}_sat", to_f8(x, dtype, True))
            save(f"{source}_{name}_special", to_f8(x, dtype, False))
        for name, dtype in MX.items():
            save(f"{source}_{name}", to_mx(x, dtype))
    x = f32_inputs()
    save("f32", x)
    save("f32_f16", to_f16(x))
    save("f32_bf16", x.astype(ml_dtypes.bfloat16))
    for name, dtype in F8.items():
        save(f"f32_{name}_sat", to_f8(x, dtype, True))
        save(f"f32_{name}_special", to_f8(x, dtype, False))
    x = f64_inputs()
    save("f64", x)
    save("f64_f16", x.astype(np.float16))


def neighbours(values):
    """Every number, and the numbers just below and above it."""
    below = np.nextafter(values, values.dtype.type(-np.inf))
    above = np.nextafter(values, values.dtype.type(np.inf))
    return np.concatenate([values, below, above])


def midpoints(codes, dtype):
    """The exact ties between consecutive finite codes, and the codes."""
    v = codes.view(dtype).astype(np.float64)
    v = np.sort(v[np.isfinite(v)])
    return np.concatenate([v, (v[1:] + v[:-1]) / 2])


def f32_inputs():
    rng = np.random.default_rng(1)
    parts = [
        midpoints(np.arange(256, dtype=np.uint8), d).astype(np.float32) for d in F8.values()
    ]
    for dtype in (np.float16, ml_dtypes.bfloat16):
        start = rng.integers(0, 65535, 80).astype(np.uint16)
        pairs = np.stack([start, start + 1], axis=1)
        parts += [midpoints(p, dtype).astype(np.float32) for p in pairs]
    edges = [0.0, 464.0, 480.0, 61440.0, 65504.0, 65519.9, 65520.0, 2.0**-10, 2.0**-17, 2.0**-25,
             3.3895314e38, 3.3961776e38, 3.4028235e38, 2.0**-126, 2.0**-133, 2.0**-134, 1e-45]
    parts.append(np.array(edges, dtype=np.float32))
    parts.append(rng.standard_normal(100).astype(np.float32) * np.float32(100))
    x = neighbours(np.concatenate(parts))
    nans = np.array([0x7FC00000, 0x7F800001, 0x7FFFFFFF, 0x7FA00000], dtype=np.uint32)
    random = rng.integers(0, 2**32, 500, dtype=np.uint32)
    x = np.concatenate([x, [np.inf], nans.view(np.float32), random.view(np.float32)])
    x = np.unique(np.abs(x.astype(np.float32)).view(np.uint32))
    return np.concatenate([x, x | 0x80000000]).astype(np.uint32).view(np.float32)


def f64_inputs():
    """Where rounding through f32 would round twice: just beside the ties of f16."""
    rng = np.random.default_rng(2)
    low = rng.integers(0, 0x7BFF, 300).astype(np.uint16)
    a, b = low.view(np.float16), (low + np.uint16(1)).view(np.float16)
    x = neighbours((a.astype(np.float64) + b.astype(np.float64)) / 2)
    x = np.concatenate([x, neighbours(np.array([65520.0, 2.0**-25, 1e300, 5e-324])), [np.inf]])
    return np.concatenate([x, -x])


def run(op, inputs, output, **attributes):
    names = [f"i{k}" for k in range(len(inputs))]
    node = helper.make_node(op, names, ["y"], **attributes)
    infos = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
        for n, a in zip(names, inputs)
    ]
    out = helper.make_tensor_value_info("y", output, None)
    model = helper.make_model(helper.make_graph([node], "g", infos, [out]), opset_imports=OPSETS)
    return ReferenceEvaluator(model).run(None, dict(zip(names, inputs)))[0]


def spread(blocked, dims, block):
    """Repeats each scale over its block."""
    for axis, (d, b) in enumerate(zip(dims, block)):
        size = d if b == "*" else b
        blocked = np.repeat(blocked, size, axis=axis).take(range(d), axis=axis)
    return blocked


def formula(x, scale, zero, storage, narrow):
    """saturate(round(x / scale) + zero) in f32."""
    if storage in F8:
        top = np.float32(ml_dtypes.finfo(F8[storage]).max)
        return np.clip(x / scale, -top, top).astype(F8[storage])
    info = ml_dtypes.iinfo(INT[storage])
    low = -int(info.max) if narrow else int(info.min)
    q = np.rint(x / scale) + zero.astype(np.float32)
    return np.clip(q, low, int(info.max)).astype(np.int32).astype(INT[storage])


def attributes(dims, block):
    """The ONNX spelling of a block shape, or None where there is none."""
    if all(b == "*" for b in block):
        return {}
    sized = [k for k, b in enumerate(block) if b != "*"]
    if len(sized) == 1 and block[sized[0]] == 1:
        return {"axis": sized[0]}
    grouped = [k for k, b in enumerate(block) if b == "*" or b > 1]
    if len(grouped) == 1 and len(sized) == len(block):
        return {"axis": grouped[0], "block_size": block[grouped[0]]}
    return None


def packed(codes, storage):
    if storage not in ("i4", "u4"):
        return codes.tobytes()
    nibbles = (codes.astype(np.int8).view(np.uint8) & 15).reshape(-1)
    nibbles = np.append(nibbles, np.zeros(nibbles.size % 2, dtype=np.uint8))
    return (nibbles[0::2] | nibbles[1::2] << 4).tobytes()


def words(array, dtype):
    return " ".join(f"{v:08x}" for v in array.astype(dtype).reshape(-1).view(np.uint32))


def quantize_case(rng, storage, dims, block, asymmetric=False, narrow=False):
    shape = [1 if b == "*" else -(-d // b) for d, b in zip(dims, block)]
    # Powers of two give exact ties, the others exercise the division.
    scale = np.where(rng.random(shape) < 0.5, 2.0 ** rng.integers(-3, 3, shape), rng.random(shape) + 0.01)
    scale = scale.astype(np.float32)
    info = None if storage in F8 else ml_dtypes.iinfo(INT[storage])
    zero = np.zeros(shape, dtype=np.int32)
    if asymmetric:
        zero = rng.integers(int(info.min), int(info.max) + 1, shape).astype(np.int32)
    reach = float(ml_dtypes.finfo(F8[storage]).max) if info is None else float(info.max)
    full_scale, full_zero = spread(scale, dims, block), spread(zero, dims, block)
    halves = np.rint(rng.uniform(-3, 3, dims) * reach) / 2 * full_scale
    normal = rng.standard_normal(dims) * reach * full_scale / 2
    x = np.where(rng.random(dims) < 0.6, halves, normal).astype(np.float32)
    q = formula(x, full_scale, full_zero, storage, narrow)
    onnx_attributes = attributes(dims, block)
    if onnx_attributes is None or narrow:
        y = (q.astype(np.float32) - full_zero.astype(np.float32)) * full_scale
        source = "formula"
    else:
        blocked = "block_size" in onnx_attributes
        s = scale if blocked else scale.reshape(-1) if onnx_attributes else scale.reshape(())
        z = zero.reshape(s.shape).astype(INT.get(storage) or F8[storage])
        by_onnx = run("QuantizeLinear", [x, s, z], ONNX[storage], **onnx_attributes)
        assert packed(by_onnx, storage) == packed(q, storage), (storage, dims, block)
        y = run("DequantizeLinear", [q, s, z], TensorProto.FLOAT, **onnx_attributes)
        source = "onnx"
    return [
        f"case {storage} {'narrow' if narrow else 'full'} dims {' '.join(map(str, dims))}"
        f" block {' '.join(map(str, block))} source {source}",
        "x " + words(x, np.float32),
        "scale " + words(scale, np.float32),
        "zero " + words(zero, np.int32) if asymmetric else "zero",
        "codes " + packed(q, storage).hex(),
        "y " + words(y, np.float32),
    ]


def quantization():
    rng = np.random.default_rng(3)
    lines = []
    for storage in ("i8", "u8", "i4", "u4", "i16", "u16", "e4m3", "e5m2"):
        asym = [False] if storage in F8 else [False, True]
        for asymmetric in asym:
            # The five common storages in every block shape, the others in some.
            for dims, block in (
                ([3, 5], ["*", "*"]),
                ([15], ["*"]),
                ([5, 7], [1, "*"]),
                ([5, 7], ["*", 1]),
                ([2, 3, 5], ["*", 1, "*"]),
                ([3, 10], [1, 4]),
                ([7, 3], [2, 1]),
                ([2, 7, 3], [1, 4, 1]),
                ([5, 9], [2, 4]),
                ([2, 5, 7], ["*", 2, 3]),
                ([3, 3, 5], [1, 1, "*"]),
            )[:: 1 if storage in ("i8", "u8", "i4", "u4", "e4m3") else 3]:
                lines += quantize_case(rng, storage, dims, block, asymmetric)
        if storage in ("i8", "i4", "i16"):
            lines += quantize_case(rng, storage, [3, 10], [1, 4], narrow=True)
            lines += quantize_case(rng, storage, [5, 7], [1, "*"], narrow=True)
    (HERE / "quantize.txt").write_text("\n".join(lines) + "\n")


def asymmetric_scales():
    """DynamicQuantizeLinear: minimum, maximum, scale, zero point (u8)."""
    rng = np.random.default_rng(4)
    lines = []
    for k in range(200):
        x = (rng.standard_normal(6) * 10.0 ** rng.integers(-3, 4) + rng.integers(-3, 4)).astype(np.float32)
        infos = [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)]
        outs = [helper.make_tensor_value_info(n, t, None) for n, t in
                (("q", TensorProto.UINT8), ("s", TensorProto.FLOAT), ("z", TensorProto.UINT8))]
        node = helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"])
        model = helper.make_model(helper.make_graph([node], "g", infos, outs), opset_imports=OPSETS)
        _, scale, zero = ReferenceEvaluator(model).run(None, {"x": x})
        bounds = np.array([x.min(), x.max(), scale], dtype=np.float32)
        lines.append(f"{words(bounds, np.float32)} {int(zero)}")
    (HERE / "dynamic.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    HERE.mkdir(exist_ok=True)
    decodings()
    encodings()
    quantization()
    asymmetric_scales()
