"""CUDA C++ kernels of ours, compiled by nvrtc."""
import ctypes
import glob
import pathlib

import ml_dtypes
import numpy as np
import nvidia

from case import Case


def find(pattern):
    for root in nvidia.__path__:
        hits = glob.glob(f"{root}/**/{pattern}", recursive=True)
        if hits:
            return hits[0]
    raise FileNotFoundError(pattern)


def compile_cuda(source, arch, name):
    """PTX of a source whose kernels are extern "C"."""
    lib = ctypes.CDLL(find("libnvrtc.so.1*"))
    include = pathlib.Path(find("cuda_fp8.h")).parent
    cccl = pathlib.Path(find("cuda/barrier")).parent.parent
    options = [f"--gpu-architecture=compute_{arch}", f"-I{include}", f"-I{cccl}", "--std=c++17", "-default-device", "--fmad=false"]
    prog = ctypes.c_void_p()
    raw = (ctypes.c_char_p * len(options))(*[o.encode() for o in options])
    lib.nvrtcCreateProgram(ctypes.byref(prog), source.encode(), f"{name}.cu".encode(), 0, None, None)
    status = lib.nvrtcCompileProgram(prog, len(options), raw)
    if status:
        n = ctypes.c_size_t()
        lib.nvrtcGetProgramLogSize(prog, ctypes.byref(n))
        log = ctypes.create_string_buffer(n.value)
        lib.nvrtcGetProgramLog(prog, log)
        raise RuntimeError(log.value.decode())
    n = ctypes.c_size_t()
    lib.nvrtcGetPTXSize(prog, ctypes.byref(n))
    text = ctypes.create_string_buffer(n.value)
    lib.nvrtcGetPTX(prog, text)
    return text.value.decode()


CONVERT = r"""
#include <cuda_fp16.h>
#include <cuda_bf16.h>
#include <cuda_fp8.h>
extern "C" __global__ void convert(const float* x, unsigned char* e4m3, unsigned char* e5m2, unsigned short* f16,
                                   unsigned short* bf16, unsigned short* back4, unsigned short* back5, int n) {
  int i = 2 * (blockIdx.x * blockDim.x + threadIdx.x);
  if (i >= n) return;
  float2 v = make_float2(x[i], x[i + 1]);
  __nv_fp8x2_storage_t a = __nv_cvt_float2_to_fp8x2(v, __NV_SATFINITE, __NV_E4M3);
  __nv_fp8x2_storage_t b = __nv_cvt_float2_to_fp8x2(v, __NV_SATFINITE, __NV_E5M2);
  *(unsigned short*)(e4m3 + i) = a;
  *(unsigned short*)(e5m2 + i) = b;
  __half2 h = __float22half2_rn(v);
  __nv_bfloat162 t = __float22bfloat162_rn(v);
  *(__half2*)(f16 + i) = h;
  *(__nv_bfloat162*)(bf16 + i) = t;
  __half2_raw r4 = __nv_cvt_fp8x2_to_halfraw2(a, __NV_E4M3), r5 = __nv_cvt_fp8x2_to_halfraw2(b, __NV_E5M2);
  back4[i] = r4.x; back4[i + 1] = r4.y;
  back5[i] = r5.x; back5[i + 1] = r5.y;
}
extern "C" __global__ void halves(const unsigned short* x, unsigned char* e4m3, unsigned char* e5m2) {
  int i = 2 * (blockIdx.x * blockDim.x + threadIdx.x);
  __half2_raw h; h.x = x[i]; h.y = x[i + 1];
  *(unsigned short*)(e4m3 + i) = __nv_cvt_halfraw2_to_fp8x2(h, __NV_SATFINITE, __NV_E4M3);
  *(unsigned short*)(e5m2 + i) = __nv_cvt_halfraw2_to_fp8x2(h, __NV_SATFINITE, __NV_E5M2);
}
"""


def conversions(rng):
    x = np.concatenate([
        (rng.standard_normal(800) * 2.0 ** rng.integers(-20, 18, 800)),
        [0.0, -0.0, np.inf, -np.inf, np.nan, 448, 464, 465, 480, 57344, 61440, 65504, 65520, 1e38, 2.0**-9, 2.0**-10, 2.0**-16, 2.0**-17, 1e-45, -1e-40],
    ]).astype(np.float32)
    x = np.concatenate([x, np.zeros(-len(x) % 4, np.float32)])

    def saturating(x, dtype, top):
        return np.where(np.isnan(x), x, np.clip(x, -top, top)).astype(dtype)

    e4, e5 = saturating(x, ml_dtypes.float8_e4m3fn, 448), saturating(x, ml_dtypes.float8_e5m2, 57344)
    codes4, codes5 = e4.view(np.uint8).copy(), e5.view(np.uint8).copy()
    codes4[np.isnan(x)] = 0x7F
    codes5[np.isnan(x)] = 0x7F
    with np.errstate(over="ignore", invalid="ignore"):
        f16, bf16 = x.astype(np.float16).view(np.uint16).copy(), x.astype(ml_dtypes.bfloat16).view(np.uint16).copy()
    f16[np.isnan(x)] = 0x7FFF
    bf16[np.isnan(x)] = 0x7FFF
    back4, back5 = e4.astype(np.float16).view(np.uint16).copy(), e5.astype(np.float16).view(np.uint16).copy()
    back4[np.isnan(x)] = 0x7FFF
    back5[np.isnan(x)] = 0x7FFF
    n = len(x)
    for arch in (80, 90):
        ptx = compile_cuda(CONVERT, arch, "convert")
        c = Case(f"cuda_convert_sm{arch}", ptx, "convert", (7, 1, 1), (64, 1, 1))
        c.input("x", x).output("e4m3", codes4).output("e5m2", codes5).output("f16", f16).output("bf16", bf16)
        c.output("back4", back4).output("back5", back5).u32(n).done()
    h = np.arange(65536, dtype=np.uint16)
    v = h.view(np.float16).astype(np.float32)
    e4, e5 = saturating(v, ml_dtypes.float8_e4m3fn, 448).view(np.uint8), saturating(v, ml_dtypes.float8_e5m2, 57344).view(np.uint8)
    e4, e5 = e4.copy(), e5.copy()
    e4[np.isnan(v)] = 0x7F
    e5[np.isnan(v)] = 0x7F
    for arch in (80, 90):
        ptx = compile_cuda(CONVERT, arch, "convert")
        Case(f"cuda_halves_sm{arch}", ptx, "halves", (128, 1, 1), (256, 1, 1)).input("x", h).output("e4m3", e4).output("e5m2", e5).done()


INTEGER = r"""
extern "C" __global__ void integer(const unsigned* a, const unsigned* b, const unsigned* c, unsigned* o, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  unsigned x = a[i], y = b[i], z = c[i];
  int s = (int)x, t = (int)y;
  unsigned long long w = ((unsigned long long)x << 32) | y, v = ((unsigned long long)z << 20) | 12345;
  o += i;
  int k = 0;
#define OUT(e) o[(k++) * n] = (unsigned)(e)
  OUT(__dp4a(x, y, z)); OUT(__dp4a(s, t, (int)z)); OUT(__dp2a_lo(s, t, (int)z)); OUT(__dp2a_hi(x, y, z));
  OUT(__byte_perm(x, y, z)); OUT(__funnelshift_l(x, y, z)); OUT(__funnelshift_rc(x, y, z & 63));
  OUT(__clz(s)); OUT(__popc(x)); OUT(__brev(x)); OUT(__ffs(s)); OUT(__umulhi(x, y)); OUT(__mulhi(s, t));
  OUT(__umul24(x, y)); OUT(__mul24(s, t)); OUT(__sad(s, t, z)); OUT(__usad(x, y, z)); OUT(x / (y | 1)); OUT(s / (t | 1));
  OUT(x % (y | 1)); OUT(s % (t | 1)); OUT(w / v); OUT((w / v) >> 32); OUT((long long)w / (long long)v); OUT(w % v);
  OUT(__umul64hi(w, v)); OUT(min(s, t)); OUT(max(x, y)); OUT(s >> (z & 31)); OUT(x << (z & 31)); OUT((x & y) ^ (~x & z));
  OUT(__rhadd(s, t)); OUT(abs(s)); OUT(__vadd4(x, y)); OUT(__vmaxs2(x, y));
  OUT(__float2int_rn(__int_as_float((x & 0x7fffff) | 0x45000000))); OUT(__float_as_uint(__uint2float_rz(x)));
  OUT(__float_as_uint(__int2float_ru(s))); OUT(__float_as_uint(__ull2float_rn(w))); OUT(__clzll(w >> (z & 63))); OUT(__popcll(w));
}
"""


def integers(rng):
    n = 256
    a, b, c = (rng.integers(0, 2**32, n, dtype=np.uint64).astype(np.uint32) for _ in range(3))
    a[:4], b[:4], c[:4] = [0, 1, 2**31, 2**32 - 1], [0, 2**31, 2**32 - 1, 1], [0, 33, 31, 32]
    rows = []
    M = 2**32
    sx = lambda v, bits: (v & ((1 << bits) - 1)) - ((v >> (bits - 1) & 1) << bits)
    by = lambda v, i: v >> (8 * i) & 255
    hw = lambda v, i: v >> (16 * i) & 65535

    def trunc_div(p, q):
        r = abs(p) // abs(q)
        return -r if (p < 0) != (q < 0) else r

    def rounded(value, up_only=None, toward_zero=False):
        f = np.float32(value)
        exact = int(value)
        if toward_zero and abs(int(f)) > abs(exact):
            f = np.nextafter(f, np.float32(0))
        if up_only and int(f) < exact:
            f = np.nextafter(f, np.float32(np.inf))
        return int(np.array(f, np.float32).view(np.uint32))

    for x, y, z in zip(a.tolist(), b.tolist(), c.tolist()):
        s, t = sx(x, 32), sx(y, 32)
        w, v = x << 32 | y, (z << 20 & (2**64 - 1)) | 12345
        sw, sv = sx(w, 64), sx(v, 64)
        wide = y << 32 | x
        perm = [(wide >> (8 * (z >> (4 * i) & 7))) & 255 for i in range(4)]
        lz = lambda q, bits: bits - q.bit_length()
        q = w >> (z & 63)
        rows.append([
            z + sum(by(x, i) * by(y, i) for i in range(4)),
            z + sum(sx(by(x, i), 8) * sx(by(y, i), 8) for i in range(4)),
            z + sum(sx(hw(x, i), 16) * sx(by(y, i), 8) for i in range(2)),
            z + sum(hw(x, i) * by(y, i + 2) for i in range(2)),
            sum(p << (8 * i) for i, p in enumerate(perm)),
            (wide << (z & 31)) >> 32, wide >> min(z & 63, 32),
            lz(x, 32), bin(x).count("1"), int(f"{x:032b}"[::-1], 2), (x & -x).bit_length(), x * y >> 32, s * t >> 32,
            (x & 0xFFFFFF) * (y & 0xFFFFFF), sx(x, 24) * sx(y, 24), abs(s - t) + z, abs(x - y) + z, x // (y | 1), trunc_div(s, sx(y | 1, 32)),
            x % (y | 1), s - trunc_div(s, sx(y | 1, 32)) * sx(y | 1, 32), w // v, w // v >> 32, trunc_div(sw, sv), w % v,
            w * v >> 64, min(s, t), max(x, y), s >> (z & 31), x << (z & 31), (x & y) ^ (~x & z),
            (s + t + 1) >> 1, abs(s),
            sum(((by(x, i) + by(y, i)) & 255) << (8 * i) for i in range(4)),
            sum((max(sx(hw(x, i), 16), sx(hw(y, i), 16)) & 65535) << (16 * i) for i in range(2)),
            int(np.rint(np.array((x & 0x7FFFFF) | 0x45000000, np.uint32).view(np.float32))), rounded(x, toward_zero=True),
            rounded(s, up_only=True), int(np.array(np.uint64(w)).astype(np.float32).view(np.uint32)), lz(q, 64), bin(w).count("1"),
        ])
    want = (np.array([[e % M for e in r] for r in rows], dtype=np.uint64).astype(np.uint32)).T.copy()
    for arch in (80, 90):
        c_ = Case(f"cuda_integer_sm{arch}", compile_cuda(INTEGER, arch, "integer"), "integer", (2, 1, 1), (128, 1, 1))
        c_.input("a", a).input("b", b).input("c", c).output("o", want).u32(n).done()


WARP = r"""
#include <cooperative_groups.h>
namespace cg = cooperative_groups;
extern "C" __global__ void warp(const int* x, int* o) {
  int t = threadIdx.x, l = t & 31, v = x[t], k = 0;
  unsigned all = 0xffffffffu;
#define OUT(e) o[(k++) * blockDim.x + t] = (int)(e)
  OUT(__shfl_sync(all, v, 5)); OUT(__shfl_up_sync(all, v, 3)); OUT(__shfl_down_sync(all, v, 3, 16)); OUT(__shfl_xor_sync(all, v, 9));
  OUT(__shfl_sync(all, v, l + 3, 8)); OUT(__ballot_sync(all, v > 0)); OUT(__any_sync(all, v > 90)); OUT(__all_sync(all, v > -200));
  OUT(__match_any_sync(all, v & 3)); int p; OUT(__match_all_sync(all, v & 3, &p)); OUT(p);
  OUT(__reduce_add_sync(all, v)); OUT(__reduce_min_sync(all, v)); OUT(__reduce_or_sync(all, (unsigned)v & 0xf0));
  int r = 0;
  if (v & 1) { r = __ballot_sync(__activemask(), v & 2); } else { for (int i = 0; i < (l & 7); ++i) r += v * i; }
  OUT(r);
  switch (v & 7) { case 0: r = v; break; case 1: r = v * 3; break; case 2: r = v - 7; break; case 3: r = v ^ 99; break;
                   case 4: r = v / 5; break; case 5: r = v << 2; break; default: r = -v; }
  OUT(r);
  cg::thread_block_tile<16> tile = cg::tiled_partition<16>(cg::this_thread_block());
  int sum = v;
  for (int i = 8; i > 0; i /= 2) sum += tile.shfl_down(sum, i);
  OUT(tile.shfl(sum, 0));
}
"""


def warps(rng):
    t = 64
    x = rng.integers(-100, 100, t).astype(np.int32)
    out = []
    lanes = np.arange(32)
    for w in range(t // 32):
        v = x[32 * w : 32 * w + 32].astype(np.int64)
        row = [np.full(32, v[5]), np.where(lanes >= 3, v[np.maximum(lanes - 3, 0)], v)]
        row.append(np.array([v[l + 3] if (l & 15) + 3 < 16 else v[l] for l in lanes]))
        row.append(v[lanes ^ 9])
        row.append(np.array([v[(l & ~7) + ((l + 3) & 7)] for l in lanes]))
        mask = lambda c: sum(1 << int(i) for i in lanes if c[i])
        row.append(np.full(32, mask(v > 0)))
        row.append(np.full(32, int((v > 90).any())))
        row.append(np.full(32, int((v > -200).all())))
        row.append(np.array([mask((v & 3) == (q & 3)) for q in v]))
        same = bool(((v & 3) == (v[0] & 3)).all())
        row.append(np.full(32, 0xFFFFFFFF if same else 0))
        row.append(np.full(32, int(same)))
        row.append(np.full(32, v.sum()))
        row.append(np.full(32, v.min()))
        row.append(np.full(32, int(np.bitwise_or.reduce(v & 0xF0))))
        odd = (v & 1) == 1
        row.append(np.array([mask(odd & ((v & 2) != 0)) if odd[l] else int(v[l] * sum(range(l & 7))) for l in lanes]))
        fs = [lambda q: q, lambda q: q * 3, lambda q: q - 7, lambda q: q ^ 99, lambda q: int(q / 5), lambda q: q << 2]
        row.append(np.array([fs[q & 7](q) if q & 7 < 6 else -q for q in v.tolist()]))
        row.append(np.repeat([v[:16].sum(), v[16:].sum()], 16))
        out.append(np.array([np.asarray(r, np.int64) for r in row]))
    want = (np.concatenate(out, axis=1) & 0xFFFFFFFF).astype(np.uint32)
    c = Case("cuda_warp_sm80", compile_cuda(WARP, 80, "warp"), "warp", (1, 1, 1), (t, 1, 1))
    c.input("x", x).output("o", want).done()


ATOMIC = r"""
extern "C" __global__ void atomics(const int* x, int* o, float* total, unsigned* ticket, float* partial, int n) {
  __shared__ int s[8];
  __shared__ float sum;
  __shared__ bool last;
  int t = threadIdx.x, i = blockIdx.x * blockDim.x + t;
  if (t < 8) s[t] = t == 1 ? 1000 : 0;
  if (t == 0) sum = 0;
  __syncthreads();
  int v = i < n ? x[i] : 0;
  atomicAdd(&s[0], v); atomicMin(&s[1], v); atomicMax(&s[2], v); atomicOr(&s[3], 1 << (v & 31)); atomicXor(&s[4], v);
  atomicInc((unsigned*)&s[5], 1000); atomicAdd(&sum, 0.25f * v);
  int old = *(volatile int*)&s[6], seen;
  do { seen = old; old = atomicCAS(&s[6], seen, seen + (v & 1)); } while (old != seen);
  __syncthreads();
  if (t < 8 && t != 1) atomicAdd(o + t, s[t]);
  if (t == 1) atomicMin(o + 1, s[1]);
  if (t == 0) {
    partial[blockIdx.x] = sum;
    __threadfence();
    last = atomicAdd(ticket, 1u) == gridDim.x - 1;
  }
  __syncthreads();
  if (last && t == 0) {
    __threadfence();
    float all = 0;
    for (int b = 0; b < gridDim.x; ++b) all += ((volatile float*)partial)[b];
    *total = all;
  }
}
"""


def atomics(rng):
    n, blocks, threads = 300, 3, 128
    x = rng.integers(-100, 100, n).astype(np.int32)
    padded = np.concatenate([x, np.zeros(blocks * threads - n, np.int32)]).reshape(blocks, threads)
    o = np.zeros(8, np.int64)
    before = np.zeros(8, np.int32)
    before[1] = 10000
    o[1] = 10000
    total = np.float32(0)
    for row in padded:
        s = [row.sum(), min(1000, row.min()), max(0, row.max()), 0, 0, threads, (row & 1).sum(), 0]
        s[3] = int(np.bitwise_or.reduce((1 << (row & 31).astype(np.int64)) & 0xFFFFFFFF))
        s[4] = int(np.bitwise_xor.reduce(row))
        for i in range(8):
            o[i] = min(o[i], s[i]) if i == 1 else o[i] + s[i]
        total += np.float32(0.25 * row.sum())
    want = (o & 0xFFFFFFFF).astype(np.uint32)
    c = Case("cuda_atomics_sm80", compile_cuda(ATOMIC, 80, "atomics"), "atomics", (blocks, 1, 1), (threads, 1, 1))
    c.input("x", x).inout("o", before, want).output("total", np.array([total], np.float32))
    c.inout("ticket", np.zeros(1, np.uint32), np.array([blocks], np.uint32))
    c.output("partial", np.array([np.float32(0.25 * r.sum()) for r in padded], np.float32)).u32(n).done()


FLOATS = r"""
#include <cuda_fp16.h>
extern "C" __global__ void floats(const float* a, const float* b, float* o, double* d, __half2* h, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x, k = 0;
  float x = a[i], y = b[i];
#define OUT(e) o[(k++) * n + i] = (e)
  OUT(__fadd_rz(x, y)); OUT(__fadd_rd(x, y)); OUT(__fadd_ru(x, y)); OUT(__fmul_rz(x, y)); OUT(__fmul_rd(x, y)); OUT(__fmul_ru(x, y));
  OUT(__fmaf_rn(x, y, 0.3f)); OUT(__fmaf_rz(x, y, 0.3f)); OUT(__fmaf_rd(x, y, 0.3f)); OUT(__fmaf_ru(x, y, 0.3f));
  OUT(x / y); OUT(__fdiv_rz(x, y)); OUT(__fdiv_ru(x, y)); OUT(__frcp_rd(y)); OUT(sqrtf(fabsf(x))); OUT(__fsqrt_rz(fabsf(x)));
  OUT(fminf(x, y)); OUT(fmaxf(x, y)); OUT(rintf(x)); OUT(floorf(x)); OUT(ceilf(x)); OUT(truncf(x)); OUT(copysignf(x, y));
  OUT(__saturatef(x)); OUT(fmodf(x, 3.0f)); OUT((float)(int)x); OUT(x < y ? 1.0f : 0.0f);
  double u = x, v = y;
  d[i] = u * v + 0.1; d[n + i] = u / v; d[2 * n + i] = __dadd_rz(u, v * 1e-20); d[3 * n + i] = __fma_rn(u, v, 1e-3); d[4 * n + i] = sqrt(fabs(u));
  __half2 p = __floats2half2_rn(x, y), q = __floats2half2_rn(y, 1.5f);
  h[i] = __hadd2(p, q); h[n + i] = __hmul2(p, q); h[2 * n + i] = __hfma2(p, q, p); h[3 * n + i] = __hmax2(p, q); h[4 * n + i] = __hsub2(p, q);
  h[5 * n + i] = __hneg2(p); h[6 * n + i] = __habs2(p); h[7 * n + i] = __hfma2_relu(p, q, p);
}
"""


def directed(exact, down):
    """Correct rounding of exact fractions to f32 towards minus or plus infinity."""
    from fractions import Fraction
    out = []
    for e in exact:
        f = np.float32(float(e))
        g = Fraction(float(f))
        if down and g > e:
            f = np.nextafter(f, np.float32(-np.inf))
        if not down and g < e:
            f = np.nextafter(f, np.float32(np.inf))
        out.append(f)
    return np.array(out, np.float32)


def floats(rng):
    from fractions import Fraction as F
    n = 128
    a = (rng.standard_normal(n) * 2.0 ** rng.integers(-6, 7, n)).astype(np.float32)
    b = (rng.standard_normal(n) * 2.0 ** rng.integers(-6, 7, n)).astype(np.float32)
    fa, fb = [F(float(v)) for v in a], [F(float(v)) for v in b]
    c = F(float(np.float32(0.3)))
    near = lambda e: np.array([np.float32(float(v)) if abs(F(float(np.float32(float(v)))) - v) <= 0 else nearest(v) for v in e], np.float32)

    def nearest(v):
        lo, hi = directed([v], True)[0], directed([v], False)[0]
        x, y = v - F(float(lo)), F(float(hi)) - v
        if x == y:
            return lo if not int(np.array(lo).view(np.uint32)) & 1 else hi
        return lo if x < y else hi

    zero = lambda e: np.where([v >= 0 for v in e], directed(e, True), directed(e, False))
    add, mul = [x + y for x, y in zip(fa, fb)], [x * y for x, y in zip(fa, fb)]
    fma, div, rcp = [m + c for m in mul], [x / y for x, y in zip(fa, fb)], [1 / y for y in fb]
    s = np.sqrt(np.abs(a)).astype(np.float32)
    root_rz = np.array([r if F(float(r)) ** 2 <= abs(x) else np.nextafter(r, np.float32(0)) for r, x in zip(s, fa)], np.float32)
    want = [
        zero(add), directed(add, True), directed(add, False), zero(mul), directed(mul, True), directed(mul, False),
        near(fma), zero(fma), directed(fma, True), directed(fma, False), (a / b), zero(div), directed(div, False), directed(rcp, True), s, root_rz,
        np.minimum(a, b), np.maximum(a, b), np.rint(a), np.floor(a), np.ceil(a), np.trunc(a), np.copysign(a, b),
        np.clip(a, 0, 1), np.fmod(a, np.float32(3)), np.trunc(a) + np.float32(0), (a < b).astype(np.float32),
    ]
    u, v = a.astype(np.float64), b.astype(np.float64)
    t = v * 1e-20
    rz = np.array([x + y if abs(F(x + y)) <= abs(F(x) + F(y)) else np.nextafter(x + y, 0.0) for x, y in zip(u.tolist(), t.tolist())])
    fma64 = np.array([float(F(x) * F(y) + F(1e-3)) for x, y in zip(u.tolist(), v.tolist())])
    d = np.array([u * v + 0.1, u / v, rz, fma64, np.sqrt(np.abs(u))])
    p = np.stack([a, b], 1).astype(np.float16)
    q = np.stack([b, np.full(n, 1.5, np.float32)], 1).astype(np.float16)
    w = lambda e: e.astype(np.float16)
    pf, qf = p.astype(np.float64), q.astype(np.float64)
    fh = w(pf * qf + pf)
    h = np.stack([w(pf + qf), w(pf * qf), fh, np.maximum(p, q), w(pf - qf), -p, np.abs(p), np.where(fh > 0, fh, np.float16(0))])
    case = Case("cuda_floats_sm80", compile_cuda(FLOATS, 80, "floats"), "floats", (2, 1, 1), (64, 1, 1))
    # Zeros of __saturatef and fmodf may differ in sign between numpy and the ISA; there are none here.
    case.input("a", a).input("b", b).output("o", np.array(want, np.float32)).output("d", d).output("h", h).u32(n).done()


CLUSTER = r"""
#include <cooperative_groups.h>
namespace cg = cooperative_groups;
extern "C" __global__ void __cluster_dims__(4, 1, 1) cluster(const float* x, float* y) {
  __shared__ float s[64];
  cg::cluster_group c = cg::this_cluster();
  int t = threadIdx.x, r = c.block_rank();
  s[t] = x[blockIdx.x * 64 + t];
  c.sync();
  float sum = 0;
  for (int i = 0; i < 4; ++i) sum += c.map_shared_rank(s, (r + i) & 3)[t] * (i + 1);
  c.sync();
  y[blockIdx.x * 64 + t] = sum;
}
"""

PIPELINE = r"""
#include <cuda/barrier>
#include <cuda/ptx>
using barrier = cuda::barrier<cuda::thread_scope_block>;
extern "C" __global__ void pipeline(const int* x, int* y) {
  __shared__ alignas(128) int s[2][256];
#pragma nv_diag_suppress static_var_with_dynamic_init
  __shared__ barrier bar[2];
  int t = threadIdx.x;
  if (t == 0) { init(&bar[0], blockDim.x); init(&bar[1], blockDim.x); cuda::device::experimental::fence_proxy_async_shared_cta(); }
  __syncthreads();
  int acc = 0;
  auto issue = [&](int k) {
    barrier::arrival_token token;
    if (t == 0) {
      cuda::device::memcpy_async_tx(s[k & 1], x + k * 256, cuda::aligned_size_t<16>(sizeof(s[0])), bar[k & 1]);
      token = cuda::device::barrier_arrive_tx(bar[k & 1], 1, sizeof(s[0]));
    } else token = bar[k & 1].arrive();
    return token;
  };
  barrier::arrival_token token = issue(0);
  for (int k = 0; k < 4; ++k) {
    barrier::arrival_token next;
    if (k < 3) next = issue(k + 1);
    bar[k & 1].wait(cuda::std::move(token));
    acc = acc * 3 + s[k & 1][(t * 7) & 255];
    __syncthreads();
    if (k < 3) token = cuda::std::move(next);
  }
  y[t] = acc;
}
"""


def hopper(rng):
    x = rng.integers(-8, 9, 512).astype(np.float32)
    b = x.reshape(2, 4, 64)
    y = sum(np.roll(b, -i, axis=1) * (i + 1) for i in range(4)).astype(np.float32)
    Case("cuda_cluster_sm90", compile_cuda(CLUSTER, 90, "cluster"), "cluster", (8, 1, 1), (64, 1, 1)).input("x", x).output("y", y).done()

    x = rng.integers(-1000, 1000, 1024).astype(np.int32)
    acc = np.zeros(128, np.int64)
    for k in range(4):
        acc = acc * 3 + x[k * 256 + (np.arange(128) * 7 & 255)]
    c = Case("cuda_pipeline_sm90", compile_cuda(PIPELINE, 90, "pipeline"), "pipeline", (1, 1, 1), (128, 1, 1))
    c.input("x", x).output("y", acc.astype(np.int32)).done()


def generate(rng):
    conversions(rng)
    integers(rng)
    warps(rng)
    atomics(rng)
    floats(rng)
    hopper(rng)
