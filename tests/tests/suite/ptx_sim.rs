//! Emitted PTX, executed: the simulator and the kernel evaluator leave the same bytes.

use qcc_codegen::kernels::hard::fp8_gemm::Fp8Gemm;
use qcc_codegen::legalize::legalize;
use qcc_codegen::ptx::Arch;
use qcc_ir::DType;
use qcc_ir::kernel::eval::{decode, encode};
use qcc_ir::kernel::*;
use qcc_tests::on_sim::{Input, OnSim, Shape, assert_same};

const ONE_BLOCK: Shape = Shape {
    grid: [1, 1, 1],
    shared: 0,
};

fn noise(n: usize, seed: u32) -> Vec<u8> {
    let mut state = seed;
    (0..n)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect()
}

/// `out[i] = f(x[i], y[i])` on one block of 128 threads.
fn binary(
    dtype: DType,
    lanes: u8,
    to: DType,
    f: &dyn Fn(&mut KernelBuilder, Value, Value) -> Value,
) -> Kernel {
    let mut k = KernelBuilder::spmd("binary", Launch::threads(128));
    let x = k.param_ro("x", dtype);
    let y = k.param_ro("y", dtype);
    let out = k.param_ptr("out", to);
    let tid = k.tid();
    let i = k.mul_imm(tid, i64::from(lanes));
    let [a, b] = [x, y].map(|p| {
        let p = k.ptr_add(p, i);
        k.load_vec(p, lanes)
    });
    let v = f(&mut k, a, b);
    let p = k.ptr_add(out, i);
    k.store(p, v);
    k.finish().expect("a valid kernel")
}

#[track_caller]
fn check_binary(
    dtype: DType,
    lanes: u8,
    to: DType,
    f: &dyn Fn(&mut KernelBuilder, Value, Value) -> Value,
) {
    let n = 128 * usize::from(lanes);
    let bytes = |d: DType| n * d.bits() as usize / 8;
    let kernel = binary(dtype, lanes, to, f);
    for (arch, seed) in [(Arch::sm(80), 1), (Arch::sm(90), 2)] {
        let legal = legalize(&kernel, arch).expect("legal");
        let (x, mut y) = (noise(bytes(dtype), seed), noise(bytes(dtype), seed + 7));
        if dtype.is_int() {
            // No division by zero.
            y.iter_mut().for_each(|b| *b |= 1);
        }
        let inputs = [
            Input::Memory(x),
            Input::Memory(y),
            Input::Memory(vec![0; bytes(to)]),
        ];
        assert_same(&legal, arch.sm, ONE_BLOCK, &inputs);
    }
}

#[test]
fn integer_arithmetic() {
    use DType::*;
    for dtype in [I8, U8, I16, U16, I32, U32, I64, U64] {
        type Binary = fn(&mut KernelBuilder, Value, Value) -> Value;
        let ops: [Binary; 12] = [
            |k, a, b| k.add(a, b),
            |k, a, b| k.sub(a, b),
            |k, a, b| k.mul(a, b),
            |k, a, b| k.div(a, b),
            |k, a, b| k.rem(a, b),
            |k, a, b| k.min(a, b),
            |k, a, b| k.max(a, b),
            |k, a, b| k.fma(a, b, a),
            |k, a, b| k.xor(a, b),
            |k, a, _| k.not(a),
            |k, a, b| {
                let amount = k.cvt(b, DType::U32);
                let amount = k.and_imm(amount, 127);
                k.shl(a, amount)
            },
            |k, a, b| {
                let amount = k.cvt(b, DType::U32);
                let amount = k.and_imm(amount, 127);
                k.shr(a, amount)
            },
        ];
        for op in ops {
            check_binary(dtype, 1, dtype, &op);
        }
    }
    for dtype in [I32, U32, I64, U64] {
        check_binary(dtype, 1, dtype, &|k, a, b| k.mul_hi(a, b));
    }
    check_binary(U32, 1, U32, &|k, a, b| k.lop3(a, b, a, 0xe8));
    check_binary(U32, 1, U32, &|k, a, b| {
        let selector = k.shl_imm(b, 3);
        k.prmt(a, b, selector)
    });
    check_binary(I8, 4, I32, &|k, a, b| {
        let zero = k.i32(-5);
        k.dp4a(a, b, zero)
    });
}

#[test]
fn float_arithmetic() {
    use DType::*;
    for (dtype, lanes) in [
        (F32, 1),
        (F32, 4),
        (F64, 1),
        (F16, 1),
        (F16, 2),
        (BF16, 1),
        (BF16, 2),
    ] {
        type Binary = fn(&mut KernelBuilder, Value, Value) -> Value;
        let ops: [Binary; 8] = [
            |k, a, b| k.add(a, b),
            |k, a, b| k.sub(a, b),
            |k, a, b| k.mul(a, b),
            |k, a, b| k.div(a, b),
            |k, a, b| k.min(a, b),
            |k, a, b| k.max(a, b),
            |k, a, b| k.fma(a, b, a),
            |k, a, b| {
                let p = k.lt(a, b);
                k.select(p, b, a)
            },
        ];
        for op in ops {
            // A NaN has no fixed bits: it becomes 1.
            check_binary(dtype, lanes, dtype, &|k, a, b| {
                let v = op(k, a, b);
                let numbers = k.cmp(Cmp::Eq, v, v);
                let ty = k.ty(v);
                let one = k.const_bits(ty, 1);
                k.select(numbers, v, one)
            });
        }
    }
    for round in [Round::Rn, Round::Rz, Round::Rm, Round::Rp] {
        check_binary(F32, 1, I32, &|k, a, b| {
            let sum = k.op(Op::FAdd { round }, &[a, b], &[Ty::F32])[0];
            let down = k.round(sum, round);
            let p = k.cmp(Cmp::Eq, down, down);
            let zero = k.f32(0.0);
            let number = k.select(p, down, zero);
            k.cvt_with(number, DType::I32, round, Sat::Wrap)
        });
    }
}

#[test]
fn conversions() {
    use DType::*;
    for (from, to) in [
        (F32, I8),
        (F32, U8),
        (F32, I32),
        (F32, U32),
        (F16, I32),
        (I32, I8),
        (U8, F32),
        (I8, F16),
        (I64, F32),
        (U32, U64),
    ] {
        check_binary(from, 1, to, &|k, a, _| k.cvt(a, to));
        check_binary(from, 1, to, &|k, a, _| {
            let sat = if from.is_int() && to.is_float() {
                Sat::Wrap
            } else {
                Sat::Sat
            };
            k.cvt_with(a, to, Round::Rn, sat)
        });
    }
    for (from, lanes, to) in [
        (F32, 4, E4M3),
        (F32, 4, E5M2),
        (F16, 8, E4M3),
        (F32, 1, E4M3),
        (I8, 4, F32),
    ] {
        check_binary(from, lanes, to, &|k, a, _| {
            let p = k.cmp(Cmp::Eq, a, a);
            let zero = k.const_bits(k.ty(a), 0);
            let number = k.select(p, a, zero);
            k.cvt_sat(number, to)
        });
    }
}

/// The row sum of a 2-D block through shared memory, shuffles and a loop with two carried values.
#[test]
fn blocks_loops_and_shared_memory() {
    let mut k = KernelBuilder::spmd("rows", Launch::threads(64));
    let x = k.param_ro("x", DType::F32);
    let out = k.param_ptr("out", DType::F32);
    let columns = k.param("columns", Ty::U32);
    let parts = k.shared("parts", DType::F32, 4, 16);
    let (tid, row) = (k.tid(), k.block_id());
    let start = k.mul(row, columns);
    let line = k.ptr_add(x, start);
    let step = k.special(Special::NtidX);
    let zero = k.f32(0.0);
    let lowest = k.f32(f32::NEG_INFINITY);
    let both = k.for_range(tid, columns, step, &[zero, lowest], |k, i, c| {
        let p = k.ptr_add(line, i);
        let v = k.load(p);
        vec![k.add(c[0], v), k.max(c[1], v)]
    });
    let mut both = [both[0], both[1]];
    for mask in [16, 8, 4, 2, 1] {
        let others = both.map(|v| k.shuffle_xor(v, mask));
        both = [k.add(both[0], others[0]), k.max(both[1], others[1])];
    }
    let (warp, lane) = (k.shr_imm(tid, 5), k.and_imm(tid, 31));
    let none = k.u32(0);
    let leads = k.eq(lane, none);
    k.if_then(leads, |k| {
        let at = k.mul_imm(warp, 2);
        let p = k.ptr_add(parts, at);
        let v = k.pack(&both);
        k.store(p, v);
    });
    k.barrier();
    let first = k.eq(tid, none);
    k.if_then(first, |k| {
        let all = k.load_vec(parts, 4);
        let all = k.lanes(all);
        let (sum, max) = (k.add(all[0], all[2]), k.max(all[1], all[3]));
        let scaled = k.div(sum, max);
        let p = k.ptr_add(out, row);
        k.store(p, scaled);
    });
    let kernel = k.finish().expect("a valid kernel");
    let x: Vec<f64> = noise(3 * 200, 5)
        .into_iter()
        .map(|b| f64::from(b) / 16.0)
        .collect();
    let inputs = [
        Input::Memory(encode(DType::F32, &x)),
        Input::Memory(vec![0; 12]),
        Input::Scalar(200),
    ];
    let shape = Shape {
        grid: [3, 1, 1],
        shared: 0,
    };
    assert_same(&kernel, 80, shape, &inputs);
}

/// A 2-D tensor map over bytes with the 128-byte swizzle.
fn byte_map(address: u64, columns: u64, rows: u64, box_rows: u32) -> [u8; 128] {
    let map = ptxsim::TensorMap {
        element: ptxsim::ElementType::U8,
        address,
        dims: vec![columns, rows],
        strides: vec![columns],
        box_dims: vec![128, box_rows],
        swizzle: ptxsim::Swizzle::B128,
        fill: ptxsim::OobFill::Zero,
    };
    map.encode().expect("a tensor map")
}

/// The warp-specialised FP8 GEMM on matrices that fill no tile.
#[test]
fn fp8_gemm_equals_its_definition() {
    for (m, n, depth, config) in [
        (
            130usize,
            70usize,
            272usize,
            Fp8Gemm {
                bn: 64,
                stages: 4,
                out: DType::BF16,
                even_n: true,
            },
        ),
        (
            40,
            31,
            640,
            Fp8Gemm {
                bn: 16,
                stages: 4,
                out: DType::F16,
                even_n: false,
            },
        ),
    ] {
        let kernel = config.build("fp8_gemm").expect("a valid kernel");
        // Codes of e4m3 below 16 in size, no NaN.
        let codes =
            |n: usize, seed| -> Vec<u8> { noise(n, seed).into_iter().map(|b| b & 0xd7).collect() };
        let (a, b) = (codes(m * depth, 1), codes(n * depth, 2));
        let scales = |n: usize, seed| -> Vec<f64> {
            noise(n, seed)
                .iter()
                .map(|&b| 0.5 + f64::from(b) / 256.0)
                .collect()
        };
        let (sa, sb) = (scales(m, 3), scales(n, 4));
        // Copies and products complete at once, or as late as they may.
        for schedule_seed in [0, 1, 2, 3] {
            let mut sim = OnSim::new(&kernel, 80).expect("text that the simulator reads");
            let mut place = |bytes: &[u8]| {
                let p = sim.memory.alloc(bytes.len() as u64).expect("memory");
                sim.memory.write(p, bytes).expect("in bounds");
                p.0
            };
            let maps = [
                byte_map(place(&a), depth as u64, m as u64, 128),
                byte_map(place(&b), depth as u64, n as u64, config.bn),
            ];
            let inputs = [
                Input::Map(maps[0]),
                Input::Map(maps[1]),
                Input::Memory(encode(DType::F32, &sa)),
                Input::Memory(encode(DType::F32, &sb)),
                Input::Memory(vec![0; m * n * 2]),
                Input::Scalar(m as u64),
                Input::Scalar(n as u64),
                Input::Scalar(depth as u64),
            ];
            // Two persistent blocks share the tiles.
            let shape = Shape {
                grid: [2, 1, 1],
                shared: config.shared_bytes(),
            };
            let options = ptxsim::Options {
                schedule_seed,
                ..ptxsim::Options::default()
            };
            let (memory, _) = sim.run(shape, &inputs, options).expect("no fault");
            let found = decode(config.out, &memory[2]);
            let (a, b) = (decode(DType::E4M3, &a), decode(DType::E4M3, &b));
            let (mut error, mut norm) = (0.0, 0.0);
            for (i, found) in found.into_iter().enumerate() {
                let (row, column) = (i / n, i % n);
                let dot: f64 = (0..depth)
                    .map(|k| a[row * depth + k] * b[column * depth + k])
                    .sum();
                let expected =
                    dot * decode(DType::F32, &encode(DType::F32, &sa[row..=row]))[0] * sb[column];
                error += (found - expected).powi(2);
                norm += expected.powi(2);
            }
            let relative = (error / norm).sqrt();
            let bound = if config.out == DType::BF16 {
                3e-3
            } else {
                1e-3
            };
            assert!(
                relative < bound,
                "{config:?}, schedule {schedule_seed}: relative error {relative}"
            );
        }
    }
}
