"""Triton kernels of ours: dots of every operand type, row reductions, quantization."""
import ml_dtypes
import numpy as np
import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from case import Case


@triton.jit
def dot_kernel(a, b, c, K, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, ACC: tl.constexpr, BT: tl.constexpr, AT: tl.constexpr):
    m = tl.arange(0, BM)[:, None]
    n = tl.arange(0, BN)[None, :]
    k = tl.arange(0, BK)
    acc = tl.zeros((BM, BN), dtype=ACC)
    for k0 in range(0, K, BK):
        if AT:
            x = tl.load(a + m + (k0 + k)[None, :] * BM)
        else:
            x = tl.load(a + m * K + (k0 + k)[None, :])
        if BT:
            y = tl.load(b + n * K + (k0 + k)[:, None])
        else:
            y = tl.load(b + (k0 + k)[:, None] * BN + n)
        acc = tl.dot(x, y, acc, out_dtype=ACC)
    tl.store(c + m * BN + n, acc)


@triton.jit
def tma_dot_kernel(a, b, c, K, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    pm = tl.program_id(0)
    acc = tl.zeros((BM, BN), dtype=tl.float32)
    for k0 in range(0, K, BK):
        x = a.load([pm * BM, k0])
        y = b.load([0, k0])
        acc = tl.dot(x, y.T, acc)
    c.store([pm * BM, 0], acc.to(tl.float16))


@triton.jit
def scaled_kernel(a, b, sa, sb, c, K, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, FA: tl.constexpr, FB: tl.constexpr, PACK: tl.constexpr, VEC: tl.constexpr):
    m = tl.arange(0, BM)[:, None]
    n = tl.arange(0, BN)[None, :]
    kp = tl.arange(0, BK // PACK)
    ks = tl.arange(0, BK // VEC)
    acc = tl.zeros((BM, BN), dtype=tl.float32)
    for k0 in range(0, K, BK):
        x = tl.load(a + m * (K // PACK) + (k0 // PACK + kp)[None, :])
        y = tl.load(b + n * (K // PACK) + (k0 // PACK + kp)[:, None])
        p = tl.load(sa + m * (K // VEC) + (k0 // VEC + ks)[None, :])
        q = tl.load(sb + tl.arange(0, BN)[:, None] * (K // VEC) + (k0 // VEC + ks)[None, :])
        acc = tl.dot_scaled(x, p, FA, y, q, FB, acc)
    tl.store(c + m * BN + n, acc)


@triton.jit
def softmax_kernel(x, y, N, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    i = tl.arange(0, BLOCK)
    v = tl.load(x + row * N + i, mask=i < N, other=float("-inf"))
    v = v - tl.max(v, axis=0)
    e = tl.exp(v)
    tl.store(y + row * N + i, e / tl.sum(e, axis=0), mask=i < N)


@triton.jit
def quantize_kernel(x, q, s, N, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    i = tl.arange(0, BLOCK)
    v = tl.load(x + row * N + i, mask=i < N, other=0.0)
    scale = tl.max(tl.abs(v), axis=0)
    tl.store(s + row, scale)
    tl.store(q + row * N + i, (v * 256.0).to(q.dtype.element_ty), mask=i < N)


@triton.jit
def scan_kernel(x, y, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    v = tl.load(x + i)
    tl.store(y + i, tl.cumsum(v, axis=0))


@triton.jit
def histogram_kernel(x, h, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    v = tl.load(x + i, mask=i < n, other=0)
    tl.atomic_add(h + v, 1, mask=i < n)


def build(fn, signature, constants, cap, aligned, **options):
    attrs = {(i,): [["tt.divisibility", 16]] for i in aligned}
    signature = dict(signature, **{k: "constexpr" for k in constants})
    src = ASTSource(fn, signature=signature, constexprs=constants, attrs=attrs)
    return triton.compile(src, target=GPUTarget("cuda", cap, 32), options=options)


def case(name, kernel, grid):
    m = kernel.metadata
    block = (m.num_warps * 32, 1, 1)
    return Case(name, kernel.asm["ptx"], m.name, grid, block, m.shared)


def grid_values(rng, shape, dtype, low=-8, high=9, scale=0.25):
    return (rng.integers(low, high, shape) * scale).astype(np.float32).astype(dtype)


def dots(rng):
    f8, f8b = ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2
    kinds = [
        ("f16", "*fp16", np.float16, 64, 64, 32, 192, False, (80, 90)),
        ("bf16", "*bf16", ml_dtypes.bfloat16, 64, 32, 32, 64, False, (80, 90)),
        ("tf32", "*fp32", np.float32, 64, 32, 32, 64, False, (80, 90)),
        ("f16t", "*fp16", np.float16, 64, 128, 64, 128, True, (80, 90)),
        ("s8", "*i8", np.int8, 64, 64, 64, 384, True, (80, 90)),
        ("s8n", "*i8", np.int8, 64, 64, 32, 64, False, (80, 90)),
        ("e4m3", "*fp8e4nv", f8, 64, 64, 64, 320, True, (89, 90)),
        ("e5m2", "*fp8e5", f8b, 64, 64, 64, 128, True, (89, 90)),
        ("f16k16", "*fp16", np.float16, 64, 64, 16, 64, True, (80, 90)),
        ("f16n16", "*fp16", np.float16, 64, 16, 32, 96, False, (80, 90)),
        ("f16at", "*fp16", np.float16, 64, 64, 32, 96, True, (80, 90)),
        ("f16at32", "*fp16", np.float16, 128, 32, 32, 64, False, (90,)),
        ("f16wide", "*fp16", np.float16, 128, 256, 64, 64, False, (90,)),
    ]
    for name, ptr, dtype, bm, bn, bk, k, bt, caps in kinds:
        integer = dtype == np.int8
        if integer:
            a = rng.integers(-128, 128, (bm, k)).astype(dtype)
            b = rng.integers(-128, 128, (bn, k) if bt else (k, bn)).astype(dtype)
            want = a.astype(np.int32) @ (b.T if bt else b).astype(np.int32)
        else:
            a, b = grid_values(rng, (bm, k), dtype), grid_values(rng, (bn, k) if bt else (k, bn), dtype)
            want = a.astype(np.float32) @ (b.T if bt else b).astype(np.float32)
        at = name.startswith("f16at")
        acc = "*i32" if integer else "*fp32"
        for cap in caps:
            consts = dict(BM=bm, BN=bn, BK=bk, ACC=tl.int32 if integer else tl.float32, BT=bt, AT=at)
            kern = build(dot_kernel, {"a": ptr, "b": ptr, "c": acc, "K": "i32"}, consts, cap, (0, 1, 2, 3), num_warps=4, num_stages=3)
            c = case(f"triton_dot_{name}_sm{cap}", kern, (1, 1, 1))
            c.input("a", a.T if at else a).input("b", b).output("c", want).u32(k).null().null().done()


def f16_accumulator(rng):
    a, b = grid_values(rng, (64, 64), np.float16, -3, 4, 0.5), grid_values(rng, (64, 64), np.float16, -3, 4, 0.5)
    want = (a.astype(np.float32) @ b.astype(np.float32)).astype(np.float16)
    for cap in (80, 90):
        consts = dict(BM=64, BN=64, BK=32, ACC=tl.float16, BT=False, AT=False)
        kern = build(dot_kernel, {"a": "*fp16", "b": "*fp16", "c": "*fp16", "K": "i32"}, consts, cap, (0, 1, 2, 3), num_warps=4, num_stages=2)
        c = case(f"triton_dot_f16acc_sm{cap}", kern, (1, 1, 1)).input("a", a).input("b", b).output("c", want).u32(64).null().null()
        if cap == 90:
            # Triton 3.9 unpacks packed accumulators before wgmma.wait_group; ptxas serializes, the ISA forbids it.
            c.lines.append("fault wgmma-order")
        c.done()


def tma(rng):
    for name, tt, dtype, bk, elem in [("f16", "fp16", np.float16, 64, "f16"), ("e4m3", "fp8e4nv", ml_dtypes.float8_e4m3fn, 128, "u8"), ("f16k32", "fp16", np.float16, 32, "f16")]:
        m, n, k = 128, 64, bk * 6
        a, b = grid_values(rng, (m, k), dtype), grid_values(rng, (n, k), dtype)
        want = (a.astype(np.float32) @ b.astype(np.float32).T).astype(np.float16)
        sig = {"a": f"tensordesc<{tt}[64, {bk}]>", "b": f"tensordesc<{tt}[{n}, {bk}]>", "c": f"tensordesc<fp16[64, {n}]>", "K": "i32"}
        kern = build(tma_dot_kernel, sig, dict(BM=64, BN=n, BK=bk), 90, (3,), num_warps=4, num_stages=3)
        c = case(f"triton_tma_{name}_sm90", kern, (2, 1, 1))
        meta = kern.metadata.tensordesc_meta
        size = np.dtype(dtype).itemsize
        swizzle = lambda i: {0: "none", 1: "b32", 2: "b64", 3: "b128"}[meta[i]["swizzle"]]
        box = lambda i: list(reversed(meta[i]["block_size"]))
        for key, arr, i, e, sz in [("a", a, 0, elem, size), ("b", b, 1, elem, size)]:
            rows, cols = arr.shape
            c.tensormap(key, arr, e, [cols, rows], [cols * sz], box(i), swizzle(i))
            c.lines += [f"u32 {rows}", f"u32 {cols}", f"u64 {cols}", "u64 1"]
        c._save("c", want)
        c.lines.append(f"outmap c.bin f16 {n},{m} {n * 2} {','.join(map(str, box(2)))} {swizzle(2)}")
        c.lines += [f"u32 {m}", f"u32 {n}", f"u64 {n}", "u64 1"]
        c.u32(k).null().null().done()


def scaled(rng):
    e2m1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])
    m, n, k = 64, 32, 256
    kinds = [("e4m3", "e4m3", "*u8", 32), ("e5m2", "e4m3", "*u8", 32), ("e2m1", "e2m1", "*u8", 32), ("e2m1", "e2m1", "*fp8e4nv", 16)]
    types = {"e4m3": ("*fp8e4nv", ml_dtypes.float8_e4m3fn), "e5m2": ("*fp8e5", ml_dtypes.float8_e5m2), "e2m1": ("*u8", None)}

    def operand(kind, rows):
        if kind == "e2m1":
            codes = rng.integers(0, 16, (rows, k)).astype(np.uint8)
            return codes[:, ::2] | codes[:, 1::2] << 4, e2m1[codes]
        v = grid_values(rng, (rows, k), types[kind][1])
        return v, v.astype(np.float64)

    def scales(ptr, rows, vec):
        if ptr == "*u8":
            codes = rng.integers(125, 130, (rows, k // vec)).astype(np.uint8)
            return codes, 2.0 ** (codes.astype(np.float64) - 127)
        v = rng.choice([0.5, 1.0, 1.5, 2.0], (rows, k // vec)).astype(ml_dtypes.float8_e4m3fn)
        return v, v.astype(np.float64)

    for fa, fb, st, vec in kinds:
        (a, va), (b, vb) = operand(fa, m), operand(fb, n)
        (sa, wa), (sb, wb) = scales(st, m, vec), scales(st, n, vec)
        want = ((va * np.repeat(wa, vec, 1)) @ (vb * np.repeat(wb, vec, 1)).T).astype(np.float32)
        pack = 2 if fa == "e2m1" else 1
        consts = dict(BM=m, BN=n, BK=128, FA=fa, FB=fb, PACK=pack, VEC=vec)
        sig = {"a": types[fa][0], "b": types[fb][0], "sa": st, "sb": st, "c": "*fp32", "K": "i32"}
        kern = build(scaled_kernel, sig, consts, 120, range(6), num_warps=4, num_stages=2)
        c = case(f"triton_scaled_{fa}_{fb}_{vec}_sm120", kern, (1, 1, 1)).input("a", a).input("b", b).input("sa", sa).input("sb", sb)
        c.output("c", want).u32(k).null().null().done()


def rows(rng):
    x = rng.standard_normal((3, 200)).astype(np.float32)
    e = np.exp((x - x.max(1, keepdims=True)).astype(np.float64))
    want = (e / e.sum(1, keepdims=True)).astype(np.float32)
    kern = build(softmax_kernel, {"x": "*fp32", "y": "*fp32", "N": "i32"}, dict(BLOCK=256), 80, (0, 1), num_warps=4)
    case("triton_softmax_sm80", kern, (3, 1, 1)).input("x", x).output("y", want, "f32", 2e-6).u32(200).null().null().done()

    v = (rng.standard_normal((3, 200)) * 2.0 ** rng.integers(-12, 4, (3, 200))).astype(np.float32)
    for ptr, dtype, top in [("*fp8e4nv", ml_dtypes.float8_e4m3fn, 1.5), ("*fp8e5", ml_dtypes.float8_e5m2, 100.0), ("*fp16", np.float16, 200.0), ("*bf16", ml_dtypes.bfloat16, 1e9)]:
        x = np.clip(v, -top, top)
        want = (x * np.float32(256)).astype(dtype)
        kern = build(quantize_kernel, {"x": "*fp32", "q": ptr, "s": "*fp32", "N": "i32"}, dict(BLOCK=256), 90, (0, 1, 2), num_warps=2)
        c = case(f"triton_quantize_{ptr[1:]}_sm90", kern, (3, 1, 1)).input("x", x).output("q", want)
        c.output("s", np.abs(x).max(1)).u32(200).null().null().done()

    x = rng.integers(-50, 50, 512).astype(np.int32)
    kern = build(scan_kernel, {"x": "*i32", "y": "*i32"}, dict(BLOCK=512), 80, (0, 1), num_warps=4)
    case("triton_scan_sm80", kern, (1, 1, 1)).input("x", x).output("y", np.cumsum(x).astype(np.int32)).null().null().done()

    x = rng.integers(0, 16, 1000).astype(np.int32)
    kern = build(histogram_kernel, {"x": "*i32", "h": "*i32", "n": "i32"}, dict(BLOCK=256), 80, (0, 1), num_warps=4)
    want = np.bincount(x, minlength=16).astype(np.int32)
    case("triton_histogram_sm80", kern, (4, 1, 1)).input("x", x).inout("h", np.zeros(16, np.int32), want).u32(1000).null().null().done()


def generate(rng):
    dots(rng)
    f16_accumulator(rng)
    tma(rng)
    rows(rng)
    scaled(np.random.default_rng(5))
