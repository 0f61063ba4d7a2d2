//! The kernel evaluator: kernels of both kinds, and what it refuses.

use qcc_ir::DType;
use qcc_ir::kernel::eval::{Arg, EvalError, decode, encode, run};
use qcc_ir::kernel::*;

fn floats(values: &[f64]) -> Vec<u8> {
    encode(DType::F32, values)
}

#[test]
fn serial_kernel_sums_its_rows() {
    let (mut k, begin, end) = KernelBuilder::serial("sum");
    let x = k.param_ro("x", DType::F32);
    let out = k.param_ptr("out", DType::F32);
    let (four, zero) = (k.i64(4), k.f32_splat(0.0, 4));
    let sums = k.for_range(begin, end, four, &[zero], |k, i, c| {
        let p = k.ptr_add(x, i);
        let v = k.load_vec(p, 4);
        vec![k.add(c[0], v)]
    });
    k.store(out, sums[0]);
    let kernel = k.finish().expect("a valid kernel");
    let x = floats(&(0..16).map(f64::from).collect::<Vec<_>>());
    let mut out = vec![0; 16];
    let mut args = [
        Arg::Scalar(4),
        Arg::Scalar(12),
        Arg::Read(&x),
        Arg::Write(&mut out),
    ];
    run(&kernel, [1; 3], 0, &mut args).expect("runs");
    assert_eq!(decode(DType::F32, &out), [12.0, 14.0, 16.0, 18.0]);
}

/// Sum of a block by shuffles and shared memory, added to a counter of blocks.
fn block_sum() -> Kernel {
    let mut k = KernelBuilder::spmd("block_sum", Launch::threads(64));
    let x = k.param_ro("x", DType::I32);
    let out = k.param_ptr("out", DType::I32);
    let blocks = k.param_ptr("blocks", DType::U32);
    let parts = k.shared("parts", DType::I32, 2, 8);
    let tid = k.tid();
    let block = k.block_id();
    let first = k.mul_imm(block, 64);
    let i = k.add(first, tid);
    let p = k.ptr_add(x, i);
    let mut v = k.load(p);
    for step in [16, 8, 4, 2, 1] {
        let other = k.shuffle_xor(v, step);
        v = k.add(v, other);
    }
    let (warp, lane) = (k.shr_imm(tid, 5), k.and_imm(tid, 31));
    let zero = k.u32(0);
    let leads = k.eq(lane, zero);
    let slot = k.ptr_add(parts, warp);
    k.store_if(slot, v, leads);
    k.barrier();
    let first = k.eq(tid, zero);
    k.if_then(first, |k| {
        let both = k.load_vec(parts, 2);
        let both = k.lanes(both);
        let sum = k.add(both[0], both[1]);
        let p = k.ptr_add(out, block);
        k.store(p, sum);
        let one = k.u32(1);
        k.atomic(AtomicOp::Add, Order::Relaxed, Scope::Gpu, blocks, one);
    });
    k.finish().expect("a valid kernel")
}

#[test]
fn blocks_reduce_through_shared_memory() {
    let kernel = block_sum();
    let x: Vec<u8> = (0..128i32).flat_map(|i| (i - 3).to_le_bytes()).collect();
    let (mut out, mut blocks) = (vec![0; 8], vec![0; 4]);
    let mut args = [Arg::Read(&x), Arg::Write(&mut out), Arg::Write(&mut blocks)];
    run(&kernel, [2, 1, 1], 0, &mut args).expect("runs");
    let sum = |from: i32| (from..from + 64).map(|i| i - 3).sum::<i32>();
    assert_eq!(out, [sum(0).to_le_bytes(), sum(64).to_le_bytes()].concat());
    assert_eq!(blocks, 2u32.to_le_bytes());
}

#[test]
fn loops_diverge_and_join() {
    let mut k = KernelBuilder::spmd("collatz", Launch::threads(32));
    let out = k.param_ptr("out", DType::U32);
    let tid = k.tid();
    let start = k.add_imm(tid, 1);
    let (zero, one) = (k.u32(0), k.u32(1));
    let steps = k.while_loop(
        &[start, zero],
        |k, c| (k.cmp(Cmp::Ne, c[0], one), c.to_vec()),
        |k, c| {
            let odd = k.and_imm(c[0], 1);
            let is_odd = k.eq(odd, one);
            let next = k.if_else(
                is_odd,
                |k| {
                    let three = k.mul_imm(c[0], 3);
                    vec![k.add_imm(three, 1)]
                },
                |k| vec![k.shr_imm(c[0], 1)],
            );
            vec![next[0], k.add_imm(c[1], 1)]
        },
    );
    let p = k.ptr_add(out, tid);
    k.store(p, steps[1]);
    let kernel = k.finish().expect("a valid kernel");
    let mut out = vec![0; 128];
    run(&kernel, [1; 3], 0, &mut [Arg::Write(&mut out)]).expect("runs");
    let steps = |mut n: u32| {
        let mut steps = 0u32;
        while n != 1 {
            n = if n % 2 == 1 { 3 * n + 1 } else { n / 2 };
            steps += 1;
        }
        steps
    };
    let expected: Vec<u8> = (1..=32).flat_map(|n| steps(n).to_le_bytes()).collect();
    assert_eq!(out, expected);
}

#[test]
fn mma_multiplies_what_ldmatrix_loads() {
    // out[16][8] = a[16][16] · b[8][16]^T with both operands staged in shared memory.
    let mut k = KernelBuilder::spmd("mma", Launch::threads(32));
    let a = k.param_ro("a", DType::F16);
    let b = k.param_ro("b", DType::F16);
    let out = k.param_ptr("out", DType::F32);
    let (sa, sb) = (
        k.shared("sa", DType::F16, 256, 16),
        k.shared("sb", DType::F16, 128, 16),
    );
    let lane = k.tid();
    for (from, to, words) in [(a, sa, 8), (b, sb, 4)] {
        let at = k.mul_imm(lane, words);
        let (src, dst) = (k.ptr_add(from, at), k.ptr_add(to, at));
        let v = k.load_vec(src, words as u8);
        k.store(dst, v);
    }
    k.barrier();
    let row = k.and_imm(lane, 15);
    let half = k.shr_imm(lane, 4);
    let at = k.mul_imm(row, 16);
    let column = k.mul_imm(half, 8);
    let at = k.add(at, column);
    let p = k.ptr_add(sa, at);
    let fa = k.ldmatrix(p, 4, Trans::No, Ty::vec(DType::F16, 2));
    let row = k.and_imm(lane, 7);
    let half = k.shr_imm(lane, 3);
    let half = k.and_imm(half, 1);
    let at = k.mul_imm(row, 16);
    let column = k.mul_imm(half, 8);
    let at = k.add(at, column);
    let p = k.ptr_add(sb, at);
    let fb = k.ldmatrix(p, 2, Trans::No, Ty::vec(DType::F16, 2));
    let zero = k.f32(0.0);
    let d = k.mma(
        MmaShape::M16n8k16,
        (DType::F16, DType::F16, DType::F32),
        &fa,
        &fb,
        &[zero; 4],
    );
    let (quad, pair) = (k.shr_imm(lane, 2), k.and_imm(lane, 3));
    for (i, v) in d.into_iter().enumerate() {
        let row = k.add_imm(quad, 8 * (i as i64 / 2));
        let at = k.mul_imm(row, 8);
        let column = k.mul_imm(pair, 2);
        let column = k.add_imm(column, i as i64 % 2);
        let at = k.add(at, column);
        let p = k.ptr_add(out, at);
        k.store(p, v);
    }
    let kernel = k.finish().expect("a valid kernel");
    let a: Vec<f64> = (0..256).map(|i| f64::from(i * 7 % 13 - 6)).collect();
    let b: Vec<f64> = (0..128).map(|i| f64::from(i * 5 % 11 - 5)).collect();
    let (ab, bb) = (encode(DType::F16, &a), encode(DType::F16, &b));
    let mut out = vec![0; 512];
    run(
        &kernel,
        [1; 3],
        0,
        &mut [Arg::Read(&ab), Arg::Read(&bb), Arg::Write(&mut out)],
    )
    .expect("runs");
    let expected: Vec<f64> = (0..128)
        .map(|i| (0..16).map(|k| a[i / 8 * 16 + k] * b[i % 8 * 16 + k]).sum())
        .collect();
    assert_eq!(decode(DType::F32, &out), expected);
}

fn refusal(build: impl FnOnce(&mut KernelBuilder, Value), bytes: usize) -> EvalError {
    let mut k = KernelBuilder::spmd("bad", Launch::threads(32));
    let out = k.param_ptr("out", DType::F32);
    build(&mut k, out);
    let kernel = k.finish().expect("a valid kernel");
    let mut out = vec![0; bytes];
    run(&kernel, [1; 3], 0, &mut [Arg::Write(&mut out)]).expect_err("refused")
}

#[test]
fn accesses_are_checked() {
    let store = |k: &mut KernelBuilder, out| {
        let tid = k.tid();
        let p = k.ptr_add(out, tid);
        let v = k.f32(1.0);
        k.store(p, v);
    };
    let error = refusal(store, 124);
    assert_eq!(error.message, "store of 4 bytes at 124 of 124");
    assert_eq!(error.at.as_deref(), Some("st %2, %3"));
    let error = refusal(
        |k, out| {
            let one = k.u32(1);
            let p = k.ptr_add(out, one);
            let v = k.load_vec(p, 2);
            k.store(out, v);
        },
        64,
    );
    assert_eq!(error.message, "address 4 is no multiple of 8");
}

#[test]
fn a_barrier_needs_all_threads() {
    let error = refusal(
        |k, _| {
            let tid = k.tid();
            let seven = k.u32(7);
            let some = k.lt(tid, seven);
            k.if_then(some, KernelBuilder::barrier);
        },
        4,
    );
    assert_eq!(error.message, "a barrier that some threads do not reach");
}

#[test]
fn arguments_are_checked() {
    let kernel = block_sum();
    let x = [0u8; 512];
    let (mut out, mut blocks) = (vec![0; 8], vec![0; 4]);
    let error = run(
        &kernel,
        [2, 1, 1],
        0,
        &mut [Arg::Read(&x), Arg::Write(&mut out)],
    );
    assert!(error.is_err());
    let mut args = [Arg::Read(&x), Arg::Read(&out), Arg::Write(&mut blocks)];
    assert!(run(&kernel, [2, 1, 1], 0, &mut args).is_err());
    let mut args = [
        Arg::Scalar(0),
        Arg::Write(&mut out),
        Arg::Write(&mut blocks),
    ];
    assert!(run(&kernel, [2, 1, 1], 0, &mut args).is_err());
}
