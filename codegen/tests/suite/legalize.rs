//! Legalized kernels give the same bits as the operations they replace, by the kernel evaluator.

use qcc_codegen::legalize::legalize;
use qcc_codegen::ptx::{self, Arch};
use qcc_ir::DType;
use qcc_ir::kernel::eval::{Arg, decode, run};
use qcc_ir::kernel::*;

const ARCHS: [Arch; 4] = [Arch::sm(75), Arch::sm(80), Arch::sm(89), Arch::sm(90)];

/// `out[i] = f(x[i], …)` on vectors of `ty`, 128 threads a block.
fn elementwise(
    inputs: usize,
    ty: Ty,
    to: DType,
    f: &dyn Fn(&mut KernelBuilder, &[Value]) -> Value,
) -> Kernel {
    let mut k = KernelBuilder::spmd("map", Launch::threads(128));
    let byte = |d: DType| if d.bits() == 4 { DType::U8 } else { d };
    let elem = byte(ty.dtype().expect("a number"));
    let ptrs: Vec<Value> = (0..inputs)
        .map(|i| k.param_ro(&format!("x{i}"), elem))
        .collect();
    let out = k.param_ptr("out", byte(to));
    let (block, tid) = (k.block_id(), k.tid());
    let first = k.mul_imm(block, 128);
    let i = k.add(first, tid);
    let at = |k: &mut KernelBuilder, d: DType| {
        let per = i64::from(ty.lanes()) * i64::from(d.bits()) / i64::from(byte(d).bits());
        k.mul_imm(i, per)
    };
    let source = at(&mut k, ty.dtype().expect("a number"));
    let values: Vec<Value> = ptrs
        .iter()
        .map(|&p| {
            let p = k.ptr_add(p, source);
            k.load_with(p, ty, 0, Cache::Default)
        })
        .collect();
    let v = f(&mut k, &values);
    let target = at(&mut k, to);
    let p = k.ptr_add(out, target);
    // An access is at most 16 bytes wide.
    let parts = (k.ty(v).bits() / 128).max(1);
    for (n, part) in k.unpack(v, parts as u8).into_iter().enumerate() {
        k.store_with(p, part, 16 * n as i32, Cache::Default);
    }
    k.finish().expect("a valid kernel")
}

fn execute(kernel: &Kernel, inputs: &[Vec<u8>], bytes: usize, blocks: u32) -> Vec<u8> {
    let mut out = vec![0; bytes];
    let mut args: Vec<Arg> = inputs.iter().map(|x| Arg::Read(x)).collect();
    args.push(Arg::Write(&mut out));
    run(kernel, [blocks, 1, 1], 0, &mut args).expect("runs");
    drop(args);
    out
}

/// The same bits, or both a NaN.
#[track_caller]
fn same(dtype: DType, expected: &[u8], found: &[u8], what: &str) {
    if !dtype.is_float() || expected == found {
        assert_eq!(expected, found, "{what}");
        return;
    }
    let width = (dtype.bits() / 8) as usize;
    let (e, f) = (decode(dtype, expected), decode(dtype, found));
    for (i, (a, b)) in expected.chunks(width).zip(found.chunks(width)).enumerate() {
        assert!(
            a == b || e[i].is_nan() && f[i].is_nan(),
            "{what}, {i}: {a:x?} {} became {b:x?} {}",
            e[i],
            f[i]
        );
    }
}

/// Legalizes for every architecture, prints, and compares on the inputs' codes.
#[track_caller]
fn check(kernel: &Kernel, inputs: &[Vec<u8>], to: DType, bytes: usize, blocks: u32) {
    let expected = execute(kernel, inputs, bytes, blocks);
    let mut seen = vec![kernel.clone()];
    for arch in ARCHS {
        let legal = match legalize(kernel, arch) {
            Ok(legal) => legal,
            Err(e) => panic!("{e}\n{kernel}"),
        };
        let module = ptx::emit(std::slice::from_ref(&legal), arch.sm).expect("legal");
        assert!(module.arch <= arch, "{} for {arch}:\n{legal}", module.arch);
        if !seen.contains(&legal) {
            let found = execute(&legal, inputs, bytes, blocks);
            same(to, &expected, &found, &format!("{arch}\n{legal}"));
            seen.push(legal);
        }
    }
}

/// Codes worth trying: all of a format of 16 bits or less, else a spread over all exponents.
fn codes(dtype: DType) -> Vec<u8> {
    let n = 1u64 << 16;
    match dtype.bits() {
        4 | 8 => (0..1u64 << 12).map(|i| (i + i / 256) as u8).collect(),
        16 => (0..n).flat_map(|i| (i as u16).to_le_bytes()).collect(),
        32 => (0..n)
            .flat_map(|i| ((i << 16 | (i * 40503) & 0xffff) as u32).to_le_bytes())
            .collect(),
        _ => (0..n)
            .flat_map(|i| {
                (i << 48 | i.wrapping_mul(0x9e37_79b9_7f4a) & 0xffff_ffff_ffff).to_le_bytes()
            })
            .collect(),
    }
}

/// Values around the ties of small formats, which the spread misses.
fn ties() -> Vec<u8> {
    let mut out: Vec<u8> = Vec::new();
    for i in 0..(1u32 << 14) {
        // 12 upper bits with the pattern of a tie, one below, one above.
        for low in [0x0008_0000u32, 0x0007_ffff, 0x0008_0001, 0x0000_8000] {
            out.extend((i << 18 | low).to_le_bytes());
        }
    }
    out
}

fn convert(ty: Ty, to: DType, round: Round, sat: Sat) {
    let from = ty.dtype().expect("a number");
    let kernel = elementwise(1, ty, to, &|k, v| k.cvt_with(v[0], to, round, sat));
    let mut inputs = vec![codes(from)];
    if from == DType::F32 {
        inputs.push(ties());
    }
    for input in inputs {
        let elements = input.len() * 8 / from.bits() as usize;
        let blocks = (elements / usize::from(ty.lanes()) / 128).max(1);
        let used = blocks * 128 * usize::from(ty.lanes());
        check(
            &kernel,
            &[input],
            to,
            used * to.bits() as usize / 8,
            blocks as u32,
        );
    }
}

#[test]
fn fp8_converts_from_and_to_everything() {
    use DType::*;
    for fp8 in [E4M3, E5M2] {
        for to in [F16, F32, BF16, F64, I32, I8] {
            convert(Ty::scalar(fp8), to, Round::Rn, Sat::Wrap);
        }
        for from in [F16, F32, BF16, F64, I32, U8, I64] {
            convert(Ty::scalar(from), fp8, Round::Rn, Sat::Sat);
        }
        convert(Ty::F32, fp8, Round::Rn, Sat::Wrap);
        for lanes in [2, 4, 8] {
            convert(Ty::vec(fp8, lanes), F16, Round::Rn, Sat::Wrap);
            convert(Ty::vec(F16, lanes), fp8, Round::Rn, Sat::Sat);
        }
        convert(Ty::vec(F32, 4), fp8, Round::Rn, Sat::Sat);
        convert(Ty::vec(fp8, 4), F32, Round::Rn, Sat::Wrap);
    }
    convert(Ty::vec(E4M3, 4), E5M2, Round::Rn, Sat::Sat);
}

#[test]
fn bf16_converts_from_and_to_everything() {
    use DType::*;
    for to in [F16, F32, F64, I32, U8] {
        convert(Ty::scalar(BF16), to, Round::Rn, Sat::Wrap);
    }
    for from in [F16, F32, F64, I32, U32, I64, U64, I8, U16] {
        convert(Ty::scalar(from), BF16, Round::Rn, Sat::Wrap);
    }
    convert(Ty::vec(BF16, 8), F32, Round::Rn, Sat::Wrap);
    convert(Ty::vec(F32, 4), BF16, Round::Rn, Sat::Wrap);
}

#[test]
fn saturating_float_conversions_stay_finite() {
    use DType::*;
    for (from, to) in [(F32, F16), (F32, BF16), (F64, F32), (F64, F16)] {
        convert(Ty::scalar(from), to, Round::Rn, Sat::Sat);
    }
}

#[test]
fn nibbles_convert() {
    use DType::*;
    for nibble in [I4, U4] {
        for to in [I8, I32, F16, F32, BF16] {
            convert(Ty::vec(nibble, 8), to, Round::Rn, Sat::Wrap);
        }
        convert(Ty::vec(nibble, 2), F32, Round::Rn, Sat::Wrap);
        convert(Ty::vec(nibble, 4), F32, Round::Rn, Sat::Wrap);
        convert(Ty::vec(F32, 4), nibble, Round::Rn, Sat::Sat);
        convert(Ty::vec(I8, 8), nibble, Round::Rn, Sat::Wrap);
        convert(Ty::vec(U32, 2), nibble, Round::Rn, Sat::Sat);
    }
    convert(Ty::vec(I4, 8), U4, Round::Rn, Sat::Sat);
}

#[test]
fn vectors_of_small_integers_convert_and_calculate() {
    use DType::*;
    convert(Ty::vec(I8, 4), F32, Round::Rn, Sat::Wrap);
    convert(Ty::vec(F32, 4), I8, Round::Rn, Sat::Sat);
    convert(Ty::vec(I32, 4), U8, Round::Rn, Sat::Sat);
    convert(Ty::vec(F16, 8), F32, Round::Rn, Sat::Wrap);
    for ty in [Ty::vec(I8, 4), Ty::vec(U8, 8), Ty::vec(I16, 2)] {
        let dtype = ty.dtype().expect("a number");
        let kernel = elementwise(2, ty, dtype, &|k, v| {
            let sum = k.add(v[0], v[1]);
            let less = k.max(sum, v[1]);
            let amount = k.u32(2);
            let shifted = k.shr(less, amount);
            let p = k.lt(shifted, v[0]);
            k.select(p, sum, shifted)
        });
        let (a, b) = (codes(dtype), codes(dtype).into_iter().rev().collect());
        let blocks = codes(dtype).len() * 8 / dtype.bits() as usize / usize::from(ty.lanes()) / 128;
        check(&kernel, &[a, b], dtype, codes(dtype).len(), blocks as u32);
    }
}

#[test]
fn sixteen_bit_floats_calculate() {
    use DType::*;
    for ty in [Ty::F16, Ty::scalar(BF16), Ty::vec(F16, 2), Ty::vec(BF16, 4)] {
        let dtype = ty.dtype().expect("a number");
        type Binary = fn(&mut KernelBuilder, Value, Value) -> Value;
        let ops: [Binary; 8] = [
            |k, a, b| k.add(a, b),
            |k, a, b| k.sub(a, b),
            |k, a, b| k.mul(a, b),
            |k, a, b| k.div(a, b),
            |k, a, b| k.min(a, b),
            |k, a, b| k.max_nan(a, b),
            |k, a, b| {
                let p = k.lt(a, b);
                let n = k.neg(a);
                k.select(p, n, b)
            },
            |k, a, _| k.round_even(a),
        ];
        for op in ops {
            let kernel = elementwise(2, ty, dtype, &|k, v| op(k, v[0], v[1]));
            let a = codes(dtype);
            let b: Vec<u8> = a
                .chunks(2)
                .enumerate()
                .flat_map(|(i, _)| ((i * 40503) as u16).to_le_bytes())
                .collect();
            let blocks = 65536 / usize::from(ty.lanes()) / 128;
            check(&kernel, &[a, b], dtype, 131_072, blocks as u32);
        }
        let kernel = elementwise(1, ty, dtype, &|k, v| k.math(Math::Sqrt, v[0]));
        check(
            &kernel,
            &[codes(dtype)],
            dtype,
            131_072,
            (65536 / u32::from(ty.lanes())) / 128,
        );
    }
}

/// Greatest error of an exact special function in units of the last place.
fn error_in_ulp(func: Math, inputs: &[f32]) -> (f64, f32) {
    let kernel = elementwise(1, Ty::F32, DType::F32, &|k, v| k.math(func, v[0]));
    let bytes: Vec<u8> = inputs.iter().flat_map(|x| x.to_le_bytes()).collect();
    let blocks = (inputs.len() / 128) as u32;
    let legal = legalize(&kernel, Arch::sm(80)).expect("an expansion");
    // The evaluator's own result is the function in f64, rounded once.
    let expected = decode(
        DType::F32,
        &execute(&kernel, std::slice::from_ref(&bytes), bytes.len(), blocks),
    );
    let found = decode(
        DType::F32,
        &execute(&legal, std::slice::from_ref(&bytes), bytes.len(), blocks),
    );
    let mut worst = (0.0, 0.0);
    for ((&x, e), f) in inputs.iter().zip(expected).zip(found) {
        let ulp = if e == f || e.is_nan() && f.is_nan() {
            0.0
        } else if !e.is_finite() || !f.is_finite() {
            f64::INFINITY
        } else {
            let place = (e as f32).abs().max(f32::MIN_POSITIVE);
            (e - f).abs() / f64::from(place.next_up() - place)
        };
        if ulp > worst.0 {
            worst = (ulp, x);
        }
    }
    worst
}

#[test]
fn special_functions_are_within_two_ulp() {
    // All exponents, both signs, NaN and infinities; then a fine grid where the functions move.
    let spread: Vec<f32> = decode(DType::F32, &codes(DType::F32))
        .into_iter()
        .map(|x| x as f32)
        .collect();
    let grid: Vec<f32> = (0..1 << 16)
        .map(|i| (i as f32 - 32768.0) / 2900.0)
        .collect();
    let near_one: Vec<f32> = (0..1 << 14)
        .map(|i| 1.0 + (i as f32 - 8192.0) * 2e-5)
        .collect();
    for func in [
        Math::Exp,
        Math::Exp2,
        Math::Log,
        Math::Log2,
        Math::Tanh,
        Math::Erf,
        Math::Rsqrt,
    ] {
        for inputs in [&spread, &grid, &near_one] {
            let (ulp, x) = error_in_ulp(func, inputs);
            assert!(ulp <= 2.0, "{func:?}({x:e}): {ulp} ulp");
        }
    }
    let reduced: Vec<f32> = spread
        .into_iter()
        .map(|x| if x.abs() < 1e9 { x } else { 0.5 })
        .collect();
    for func in [Math::Sin, Math::Cos] {
        for inputs in [&reduced, &grid] {
            let (ulp, x) = error_in_ulp(func, inputs);
            assert!(ulp <= 2.0, "{func:?}({x:e}): {ulp} ulp");
        }
    }
}

#[test]
fn what_an_architecture_lacks_is_named() {
    let mut k = KernelBuilder::spmd("k", Launch::threads(128));
    let words = k.wgmma_begin(&[], DType::F32, 4);
    let words = k.wgmma_commit(&[words]);
    k.wgmma_wait(0, &words);
    let kernel = k.finish().expect("a valid kernel");
    let error = legalize(&kernel, Arch::sm(80)).expect_err("refused");
    assert_eq!(error.code(), "Q0623");
    assert!(
        error
            .message()
            .contains("sm_80 has no instruction for `wgmma_begin"),
        "{error}"
    );
    assert!(legalize(&kernel, Arch::sm(90)).is_err());
    assert_eq!(legalize(&kernel, Arch::specific(90)), Ok(kernel));
}

#[test]
fn reductions_of_a_warp_take_five_steps_on_sm_75() {
    let kernel = elementwise(1, Ty::I32, DType::I32, &|k, v| k.redux(ReduxOp::Min, v[0]));
    check(&kernel, &[codes(DType::I32)], DType::I32, 65536 * 4, 512);
}
