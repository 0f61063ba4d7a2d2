//! Every operation of the kernel IR that PTX has, in small kernels: each assembles for the
//! architecture that the module claims, without spills.

use qcc_codegen::ptx::{self, PtxModule};
use qcc_ir::DType;
use qcc_ir::kernel::*;
use qcc_tests::ptxas;

/// Prints, assembles for the claimed architecture, and checks the claim.
#[track_caller]
fn check(k: KernelBuilder, floor: u32, arch: &str, version: &str) -> PtxModule {
    let kernel = k.finish().expect("a valid kernel");
    let text = kernel.to_string();
    assert_eq!(parse_kernel(&text).as_ref(), Ok(&kernel), "{text}");
    let module = ptx::emit(&[kernel], floor).expect("an instruction for each operation");
    ptxas::assert_assembles("ptx_ops", &module.text, &[&module.arch.to_string()]);
    assert_eq!(module.arch.to_string(), arch, "{}", module.text);
    assert_eq!(module.version.to_string(), version, "{}", module.text);
    module
}

fn spmd(name: &str) -> KernelBuilder {
    KernelBuilder::spmd(name, Launch::threads(128))
}

/// Stores a value where the thread's own slot of `out` begins.
fn keep(k: &mut KernelBuilder, out: Value, v: Value) {
    let ty = k.ty(v);
    let elem = ty.dtype().expect("a number");
    let p = k.ptr_cast(out, elem);
    let tid = k.tid();
    let i = k.mul_imm(tid, i64::from(ty.lanes()));
    let p = k.ptr_add(p, i);
    k.store(p, v);
}

#[test]
fn integer_arithmetic_of_every_width() {
    for dtype in [
        DType::I8,
        DType::U8,
        DType::I16,
        DType::U16,
        DType::I32,
        DType::U32,
        DType::I64,
        DType::U64,
    ] {
        let mut k = spmd("ints");
        let x = k.param_ro("x", dtype);
        let out = k.param_ptr("out", dtype);
        let a = k.load(x);
        let b = k.load_with(x, dtype.into(), 8, Cache::Default);
        let mut v = k.add(a, b);
        v = k.sub(v, b);
        v = k.mul(v, a);
        v = k.fma(v, a, b);
        v = k.min(v, a);
        v = k.max(v, b);
        v = k.div(v, b);
        v = k.rem(v, a);
        v = k.shl_imm(v, 3);
        v = k.shr_imm(v, 2);
        v = k.and(v, a);
        v = k.xor(v, b);
        v = k.not(v);
        v = k.neg(v);
        if qcc_ir::format::Kind::Signed == dtype.kind() {
            v = k.abs(v);
        }
        if dtype.bits() >= 32 {
            v = k.mul_hi(v, a);
        }
        let p = k.lt(v, a);
        let v = k.select(p, v, b);
        keep(&mut k, out, v);
        check(k, 75, "sm_75", "6.3");
    }
}

#[test]
fn float_arithmetic_of_every_width() {
    let cases = [
        (Ty::F32, 75, "sm_75", "6.3"),
        (Ty::scalar(DType::F64), 75, "sm_75", "6.3"),
        (Ty::vec(DType::F32, 4), 75, "sm_75", "6.3"),
        (Ty::F16, 80, "sm_80", "7.0"),
        (Ty::vec(DType::F16, 2), 80, "sm_80", "7.0"),
        (Ty::vec(DType::F16, 8), 80, "sm_80", "7.0"),
        (Ty::scalar(DType::BF16), 90, "sm_90", "7.8"),
        (Ty::vec(DType::BF16, 2), 90, "sm_90", "7.8"),
    ];
    for (ty, floor, arch, version) in cases {
        let dtype = ty.dtype().expect("a number");
        let mut k = spmd("floats");
        let x = k.param_ro("x", dtype);
        let out = k.param_ptr("out", dtype);
        let a = k.load_with(x, ty, 0, Cache::Default);
        let b = k.load_with(x, ty, 16, Cache::Cg);
        let c = k.const_bits(ty, 0x3c00);
        let mut v = k.add(a, b);
        v = k.sub(v, c);
        v = k.mul(v, a);
        v = k.fma(v, a, c);
        v = k.min(v, a);
        v = k.max(v, b);
        v = k.neg(v);
        v = k.abs(v);
        if dtype.bits() >= 32 {
            v = k.div(v, b);
            v = k.math(Math::Sqrt, v);
            v = k.math(Math::Rcp, v);
        }
        if dtype != DType::F64 && dtype.bits() == 16 {
            v = k.max_nan(v, a);
        }
        if ty.lanes() == 1 {
            let p = k.lt(v, a);
            v = k.select(p, v, b);
        }
        keep(&mut k, out, v);
        check(k, floor, arch, version);
    }
}

#[test]
fn special_functions_and_rounding() {
    let mut k = spmd("special");
    let x = k.param_ro("x", DType::F32);
    let out = k.param_ptr("out", DType::F32);
    let mut v = k.load(x);
    for func in [
        Math::Sqrt,
        Math::Rcp,
        Math::Rsqrt,
        Math::Exp2,
        Math::Log2,
        Math::Sin,
        Math::Cos,
        Math::Tanh,
    ] {
        v = k.math_approx(func, v);
    }
    for round in [Round::Rn, Round::Rz, Round::Rm, Round::Rp] {
        v = k.round(v, round);
    }
    keep(&mut k, out, v);
    check(k, 75, "sm_75", "7.0");
}

#[test]
fn conversions_of_the_hardware() {
    use DType::*;
    let cases: [(Ty, DType, u32, &str, &str); 21] = [
        (Ty::F32, F16, 75, "sm_75", "6.3"),
        (Ty::F16, F32, 75, "sm_75", "6.3"),
        (Ty::F32, F64, 75, "sm_75", "6.3"),
        (Ty::F32, BF16, 75, "sm_80", "7.0"),
        (Ty::scalar(BF16), F32, 75, "sm_90", "7.8"),
        (Ty::F32, I32, 75, "sm_75", "6.3"),
        (Ty::F32, I8, 75, "sm_75", "6.3"),
        (Ty::F32, U8, 75, "sm_75", "6.3"),
        (Ty::I32, F32, 75, "sm_75", "6.3"),
        (Ty::scalar(I8), F32, 75, "sm_75", "6.3"),
        (Ty::scalar(U8), F16, 75, "sm_75", "6.3"),
        (Ty::I32, I8, 75, "sm_75", "6.3"),
        (Ty::U32, U64, 75, "sm_75", "6.3"),
        (Ty::I64, I32, 75, "sm_75", "6.3"),
        (Ty::scalar(I8), I64, 75, "sm_75", "6.3"),
        (Ty::vec(F32, 4), I32, 75, "sm_75", "6.3"),
        (Ty::vec(F32, 2), F16, 75, "sm_80", "7.0"),
        (Ty::vec(F32, 4), BF16, 75, "sm_80", "7.0"),
        (Ty::vec(E4M3, 4), F16, 75, "sm_89", "8.1"),
        (Ty::vec(E5M2, 2), F16, 75, "sm_89", "8.1"),
        (Ty::BOOL, I32, 75, "sm_75", "6.3"),
    ];
    for (from, to, floor, arch, version) in cases {
        let mut k = spmd("cvt");
        let x = k.param_ro("x", from.dtype().expect("a number"));
        let out = k.param_ptr("out", to);
        let v = k.load_with(x, from, 0, Cache::Default);
        let v = k.cvt(v, to);
        keep(&mut k, out, v);
        check(k, floor, arch, version);
    }
    for (from, lanes) in [(F32, 2), (F32, 4), (F16, 2), (F16, 8)] {
        let mut k = spmd("cvt_fp8");
        let x = k.param_ro("x", from);
        let out = k.param_ptr("out", E4M3);
        let v = k.load_vec(x, lanes);
        let v = k.cvt_sat(v, E4M3);
        keep(&mut k, out, v);
        check(k, 75, "sm_89", "8.1");
    }
}

#[test]
fn vectors_and_bits() {
    use DType::*;
    let mut k = spmd("vectors");
    let x = k.param_ro("x", U32);
    let out = k.param_ptr("out", U32);
    let words = k.load_vec(x, 4);
    let w = k.lanes(words);
    let mut sum = k.lop3(w[0], w[1], w[2], 0xea);
    let selector = k.u32(0x5410);
    sum = k.prmt(sum, w[3], selector);
    for dtype in [I8, U8, I16, U16, F16, BF16, E4M3] {
        let lanes = (32 / dtype.bits()) as u8;
        let v = k.bitcast(sum, Ty::vec(dtype, lanes));
        let parts = k.lanes(v);
        let turned: Vec<Value> = parts.into_iter().rev().collect();
        let v = k.pack(&turned);
        sum = k.bitcast(v, Ty::U32);
    }
    let bytes = k.bitcast(sum, Ty::vec(I8, 4));
    let zero = k.i32(0);
    let dot = k.dp4a(bytes, bytes, zero);
    let dot = k.bitcast(dot, Ty::U32);
    let pair = k.pack(&[sum, dot]);
    let wide = k.bitcast(pair, Ty::U64);
    let one = k.u64(1);
    let wide = k.add(wide, one);
    let pair = k.bitcast(wide, Ty::vec(U32, 2));
    keep(&mut k, out, pair);
    check(k, 75, "sm_75", "6.3");
}

#[test]
fn loops_and_branches() {
    let mut k = spmd("flow");
    let x = k.param_ro("x", DType::F32);
    let out = k.param_ptr("out", DType::F32);
    let n = k.param("n", Ty::I32);
    let (zero, one) = (k.i32(0), k.i32(1));
    let (a, b) = (k.f32(0.0), k.f32(1.0));
    // The carried values change places, as in Fibonacci's sequence.
    let sums = k.for_range(zero, n, one, &[a, b], |k, i, c| {
        let p = k.ptr_add(x, i);
        let v = k.load(p);
        let next = k.fma(v, c[0], c[1]);
        vec![c[1], next]
    });
    let limit = k.f32(100.0);
    let halves = k.while_loop(
        &[sums[1]],
        |k, c| (k.cmp(Cmp::Gt, c[0], limit), vec![c[0]]),
        |k, c| {
            let half = k.f32(0.5);
            vec![k.mul(c[0], half)]
        },
    );
    let negative = k.lt(halves[0], a);
    let v = k.if_else(negative, |k| vec![k.neg(halves[0])], |_| vec![sums[0]]);
    k.if_then(negative, |k| k.barrier());
    keep(&mut k, out, v[0]);
    check(k, 75, "sm_75", "6.3");
}

#[test]
fn shared_memory_warps_and_atomics() {
    let mut k = spmd("warps");
    let x = k.param_ro("x", DType::I32);
    let out = k.param_ptr("out", DType::I32);
    let tile = k.shared("tile", DType::I32, 128, 16);
    let tid = k.tid();
    let inside = k.lt(tid, tid);
    let zero = k.i32(0);
    let v = k.load_if(x, inside, zero);
    let slot = k.ptr_add(tile, tid);
    k.store(slot, v);
    k.barrier();
    let mut v = k.load(slot);
    for step in [16, 8, 4, 2, 1] {
        let other = k.shuffle_xor(v, step);
        v = k.add(v, other);
    }
    let one = k.u32(1);
    for mode in [ShflMode::Idx, ShflMode::Up, ShflMode::Down] {
        v = k.shuffle(mode, v, one);
    }
    v = k.redux(ReduxOp::Max, v);
    let all = k.vote(VoteMode::All, inside);
    let bits = k.ballot(all);
    let bits = k.bitcast(bits, Ty::I32);
    v = k.xor(v, bits);
    for op in AtomicOp::ALL {
        v = k.atomic(*op, Order::AcqRel, Scope::Gpu, out, v);
        v = k.atomic(*op, Order::Weak, Scope::Cta, tile, v);
    }
    v = k.compare_and_swap(out, v, zero, Order::Relaxed, Scope::Gpu);
    k.store_if(slot, v, inside);
    k.barrier_named(1, 128);
    k.warp_sync();
    k.fence(Fence::Gpu);
    k.store_ordered(out, v, Order::Release);
    let flag = k.load_ordered(out, Order::Acquire);
    keep(&mut k, out, flag);
    check(k, 75, "sm_80", "7.0");
}

#[test]
fn tensor_core_shapes() {
    use DType::*;
    let cases = [
        (MmaShape::M16n8k8, F16, F16, F16, "sm_75", "6.5"),
        (MmaShape::M16n8k8, F16, F16, F32, "sm_75", "6.5"),
        (MmaShape::M16n8k8, BF16, BF16, F32, "sm_80", "7.0"),
        (MmaShape::M16n8k16, F16, F16, F16, "sm_80", "7.0"),
        (MmaShape::M16n8k16, F16, F16, F32, "sm_80", "7.0"),
        (MmaShape::M16n8k16, BF16, BF16, F32, "sm_80", "7.0"),
        (MmaShape::M16n8k16, I8, I8, I32, "sm_80", "7.0"),
        (MmaShape::M16n8k32, I8, U8, I32, "sm_80", "7.0"),
        (MmaShape::M16n8k32, E4M3, E4M3, F32, "sm_89", "8.4"),
        (MmaShape::M16n8k32, E5M2, E4M3, F32, "sm_89", "8.4"),
    ];
    for (shape, a, b, acc, arch, version) in cases {
        let f = mma::fragments(shape, a, b, acc).expect("a shape of the table");
        let mut k = spmd("mma");
        let out = k.param_ptr("out", U32);
        let tile = k.shared("tile", F16, 1024, 128);
        let a_words = k.ldmatrix(tile, 4, Trans::No, Ty::U32);
        let b_words = k.ldmatrix(tile, 2, Trans::Trans, Ty::U32);
        let zero = k.const_bits(f.acc, 0);
        let d = k.mma(
            shape,
            (a, b, acc),
            &a_words[..f.a],
            &b_words[..f.b],
            &vec![zero; f.c],
        );
        let words: Vec<Value> = d.iter().map(|&v| k.bitcast(v, Ty::U32)).collect();
        let v = k.pack(&words);
        keep(&mut k, out, v);
        check(k, 75, arch, version);
    }
}

#[test]
fn asynchronous_copies_of_sm_80() {
    let mut k = spmd("cp_async");
    let x = k.param_ro("x", DType::F16);
    let tile = k.shared("tile", DType::F16, 1024, 128);
    let bytes = k.u32(8);
    k.cp_async(tile, x, 16, Some(bytes));
    k.cp_async(tile, x, 4, None);
    k.cp_async_commit();
    k.cp_async_wait(0);
    k.barrier();
    check(k, 75, "sm_80", "7.0");
}

#[test]
fn bulk_copies_and_clusters_of_sm_90() {
    let launch = Launch {
        cluster: [2, 1, 1],
        ..Launch::threads(128)
    };
    let mut k = KernelBuilder::spmd("bulk", launch);
    let x = k.param_ro("x", DType::F16);
    let out = k.param_ptr("out", DType::F16);
    let map = k.param("map", Ty::TensorMap);
    let tile = k.dynamic_shared("tile", DType::F16, 1024);
    let mbar = k.shared("mbar", DType::U64, 4, 8);
    let (one, bytes) = (k.u32(1), k.u32(2048));
    let elected = k.elect();
    k.grid_dep(GridDep::Wait);
    k.if_then(elected, |k| {
        k.mbar_init(mbar, one);
        k.fence(Fence::MbarInit);
        k.fence(Fence::ProxyAsync);
        k.tma_prefetch(map);
        k.mbar_expect_tx(mbar, bytes);
        k.bulk_load(tile, x, bytes, mbar);
        let zero = k.i32(0);
        k.tma_load(tile, map, mbar, &[zero, zero]);
        let mask = k.u32(3);
        k.op(
            Op::TmaLoad {
                dims: 2,
                multicast: Multicast::Multicast,
            },
            &[tile, map, mbar, zero, zero, mask],
            &[],
        );
        k.op(
            Op::BulkLoad {
                multicast: Multicast::Multicast,
            },
            &[tile, x, bytes, mbar, mask],
            &[],
        );
    });
    k.cluster_barrier(ClusterHalf::Arrive);
    k.cluster_barrier(ClusterHalf::Wait);
    let parity = k.u32(0);
    k.mbar_wait(mbar, parity);
    let rank = k.special(Special::ClusterRank);
    let remote = k.map_rank(mbar, rank);
    k.mbar_arrive(remote);
    k.mbar_arrive(mbar);
    k.op(Op::CpAsyncMbar, &[mbar], &[]);
    let ready = k.op(Op::MbarTryWait, &[mbar, parity], &[Ty::BOOL])[0];
    let words = k.ldmatrix(tile, 4, Trans::No, Ty::U32);
    k.stmatrix(tile, &words, Trans::No);
    k.if_then(ready, |k| {
        let zero = k.i32(0);
        k.bulk_store(out, tile, bytes);
        k.tma_store(map, tile, &[zero, zero]);
        k.bulk_commit();
        k.bulk_wait(0, BulkWait::Read);
        k.bulk_wait(0, BulkWait::Done);
    });
    k.grid_dep(GridDep::Launch);
    check(k, 80, "sm_90a", "8.0");
}

#[test]
fn wgmma_shapes() {
    use DType::*;
    let cases = [
        (64, F16, F16, F32, "8.0"),
        (8, BF16, BF16, F32, "8.0"),
        (256, E4M3, E4M3, F32, "8.0"),
        (128, E4M3, E5M2, F16, "8.0"),
        (64, F16, F16, F16, "8.0"),
        (96, I8, U8, I32, "8.4"),
        (96, I8, I8, I32, "8.0"),
    ];
    for (n, a, b, acc, version) in cases {
        let words = mma::wgmma_words(n, a, b, acc).expect("a shape of the table");
        let mut k = spmd("wgmma");
        let out = k.param_ptr("out", U32);
        let desc = k.param("desc", Ty::U64);
        let first = k.wgmma_begin(&[], acc, words);
        let p = k.wgmma(n, (a, b), first, desc, desc);
        let p = k.wgmma(n, (a, b), p, desc, desc);
        let p = k.wgmma_commit(&[p]);
        let d = k.wgmma_wait(0, &p);
        let p = k.wgmma_begin(&d, acc, words);
        let zero = k.u32(0);
        let p = k.wgmma_reg_a(n, (a, b), p, [zero; 4], desc);
        let p = k.wgmma_commit(&[p]);
        let d = k.wgmma_wait(0, &p);
        let mut v = k.bitcast(d[0], Ty::U32);
        for w in &d[1..] {
            let w = k.bitcast(*w, Ty::U32);
            v = k.xor(v, w);
        }
        keep(&mut k, out, v);
        check(k, 80, "sm_90a", version);
    }
}
