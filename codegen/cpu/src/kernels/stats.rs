//! What a row kernel computes of a whole row: sums, the largest element, softmax weights.
//!
//! Sums are in f64 over four interleaved partial sums, so they agree with exact ones to the last
//! place of f32.

use super::rows::LANES;
use qcc_ir::DType;
use qcc_ir::kernel::{KernelBuilder, Math, Ty, Value};

/// A scalar in every lane.
pub(super) fn splat(k: &mut KernelBuilder, v: Value, lanes: u8) -> Value {
    k.pack(&vec![v; usize::from(lanes)])
}

pub(super) fn f64_const(k: &mut KernelBuilder, v: f64) -> Value {
    k.const_bits(Ty::scalar(DType::F64), v.to_bits())
}

/// `Σ (x − shift)`, or of the squares, in f64: four interleaved partial sums, then the rest.
pub(super) fn sum(
    k: &mut KernelBuilder,
    cols: Value,
    x: Value,
    shift: Value,
    square: bool,
) -> Value {
    let term = |k: &mut KernelBuilder, col: Value, acc: Value, lanes: u8| {
        let p = k.ptr_add(x, col);
        let v = k.load_vec(p, lanes);
        let v = k.cvt(v, DType::F64);
        let s = splat(k, shift, lanes);
        let d = k.sub(v, s);
        let t = if square { k.mul(d, d) } else { d };
        k.add(acc, t)
    };
    let (start, end) = (k.i64(0), k.and_imm(cols, -i64::from(LANES)));
    let (four, one) = (k.i64(i64::from(LANES)), k.i64(1));
    let zero = k.const_bits(Ty::vec(DType::F64, LANES), 0);
    let wide = k.for_range(start, end, four, &[zero], |k, col, acc| {
        vec![term(k, col, acc[0], LANES)]
    });
    let lanes = k.lanes(wide[0]);
    let mut total = lanes[0];
    for l in &lanes[1..] {
        total = k.add(total, *l);
    }
    k.for_range(end, cols, one, &[total], |k, col, acc| {
        vec![term(k, col, acc[0], 1)]
    })[0]
}

/// `1/√(mean((x − shift)²) + eps)` in f64.
pub(super) fn factor(
    k: &mut KernelBuilder,
    cols: Value,
    x: Value,
    shift: Value,
    eps: f32,
) -> Value {
    let squares = sum(k, cols, x, shift, true);
    let n = k.cvt(cols, DType::F64);
    let var = k.div(squares, n);
    let eps = f64_const(k, f64::from(eps));
    let v = k.add(var, eps);
    let root = k.math(Math::Sqrt, v);
    let one = f64_const(k, 1.0);
    k.div(one, root)
}

/// `w = e^(x − max)`; returns `1/Σw`. A row of −∞ only gets the factor 0.
pub(super) fn exponentials(k: &mut KernelBuilder, cols: Value, x: Value, w: Value) -> Value {
    let max = maximum(k, cols, x);
    let low = k.f32(f32::NEG_INFINITY);
    let empty = k.eq(max, low);
    let zero = k.f32(0.0);
    let shift = k.select(empty, zero, max);
    let term = |k: &mut KernelBuilder, col: Value, acc: Value, lanes: u8| {
        let p = k.ptr_add(x, col);
        let v = k.load_vec(p, lanes);
        let s = splat(k, shift, lanes);
        let d = k.sub(v, s);
        let e = k.math(Math::Exp, d);
        let to = k.ptr_add(w, col);
        k.store(to, e);
        let wide = k.cvt(e, DType::F64);
        k.add(acc, wide)
    };
    let (start, end) = (k.i64(0), k.and_imm(cols, -i64::from(LANES)));
    let (four, one) = (k.i64(i64::from(LANES)), k.i64(1));
    let none = k.const_bits(Ty::vec(DType::F64, LANES), 0);
    let wide = k.for_range(start, end, four, &[none], |k, col, acc| {
        vec![term(k, col, acc[0], LANES)]
    });
    let lanes = k.lanes(wide[0]);
    let mut total = lanes[0];
    for l in &lanes[1..] {
        total = k.add(total, *l);
    }
    let total = k.for_range(end, cols, one, &[total], |k, col, acc| {
        vec![term(k, col, acc[0], 1)]
    })[0];
    let one = f64_const(k, 1.0);
    let inverse = k.div(one, total);
    let inverse = k.cvt(inverse, DType::F32);
    k.select(empty, zero, inverse)
}

/// The largest element of a row, NaN if any is.
fn maximum(k: &mut KernelBuilder, cols: Value, x: Value) -> Value {
    let low = k.f32_splat(f32::NEG_INFINITY, LANES);
    let (start, end) = (k.i64(0), k.and_imm(cols, -i64::from(LANES)));
    let (four, one) = (k.i64(i64::from(LANES)), k.i64(1));
    let term = |k: &mut KernelBuilder, col: Value, acc: Value, lanes: u8| {
        let p = k.ptr_add(x, col);
        let v = k.load_vec(p, lanes);
        k.max_nan(acc, v)
    };
    let wide = k.for_range(start, end, four, &[low], |k, col, acc| {
        vec![term(k, col, acc[0], LANES)]
    });
    let lanes = k.lanes(wide[0]);
    let mut max = lanes[0];
    for l in &lanes[1..] {
        max = k.max_nan(max, *l);
    }
    k.for_range(end, cols, one, &[max], |k, col, acc| {
        vec![term(k, col, acc[0], 1)]
    })[0]
}
