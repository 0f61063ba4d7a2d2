//! Scalar expressions as kernel IR: the one lowering that every skeleton's builder uses.
//!
//! Each step of an [`Expr`] becomes operations on f32, i64 or bool, rounded to nearest even, so a
//! kernel computes step by step what the oracle computes. Special functions stay *exact* ops; a
//! target that has none expands them before emission.

use super::attr::{Cmp, Math, Round, Sat};
use super::{KernelBuilder, Problem, Ty, Value};
use crate::DType;
use crate::expr::{BinaryFn, Compute, Expr, Node, UnaryFn};

/// Lowers every step; returns one value per node, of the node's compute type.
///
/// `accs` are the accumulators (f32). `input` yields operand `k` at the element being computed,
/// already converted to its compute type (f32, i64 or bool).
pub fn lower_expr(
    k: &mut KernelBuilder,
    e: &Expr,
    accs: &[Value],
    input: &mut dyn FnMut(&mut KernelBuilder, u8) -> Value,
) -> Vec<Value> {
    lower_expr_lanes(k, e, 1, accs, input)
}

/// As [`lower_expr`] for `lanes` neighbouring elements at once: accumulators, operands and
/// results are vectors.
pub fn lower_expr_lanes(
    k: &mut KernelBuilder,
    e: &Expr,
    lanes: u8,
    accs: &[Value],
    input: &mut dyn FnMut(&mut KernelBuilder, u8) -> Value,
) -> Vec<Value> {
    let mut steps: Vec<Value> = Vec::with_capacity(e.nodes.len());
    for node in &e.nodes {
        let at = |id: crate::expr::NodeId| steps[id.0 as usize];
        let v = match *node {
            Node::Acc(i) => match accs.get(usize::from(i)) {
                Some(v) => *v,
                None => {
                    k.fail(Problem::new("K02", format!("no accumulator {i}")));
                    k.f32_splat(0.0, lanes)
                }
            },
            Node::Input(n) => input(k, n),
            Node::ConstF32(bits) => k.f32_splat(f32::from_bits(bits), lanes),
            Node::ConstI64(v) => k.const_bits(Ty::vec(DType::I64, lanes), v as u64),
            Node::Unary(f, a) => unary(k, f, at(a)),
            Node::Binary(f, a, b) => binary(k, f, at(a), at(b)),
            Node::Select(c, a, b) => k.select(at(c), at(a), at(b)),
            Node::Cast(d, a) => cast(k, d, at(a)),
        };
        steps.push(v);
    }
    steps
}

/// A loaded element of format `d` in its compute type.
pub fn to_compute(k: &mut KernelBuilder, d: DType, v: Value) -> Value {
    match Compute::of(d) {
        Compute::F32 if d == DType::F32 => v,
        Compute::F32 => k.cvt(v, DType::F32),
        Compute::I64 if d == DType::I64 => v,
        Compute::I64 => k.cvt(v, DType::I64),
        Compute::Bool => v,
    }
}

/// A compute value as an element of the plain format `d`: floats are rounded to nearest even
/// (8-bit ones saturate), floats to integers truncate and saturate, integers wrap.
pub fn to_storage(k: &mut KernelBuilder, d: DType, v: Value) -> Value {
    let from = k.ty(v).dtype();
    match (from, d) {
        (Some(f), d) if f == d => v,
        (Some(DType::Bool), d) => {
            let int = bool_to_i64(k, v);
            if d == DType::I64 { int } else { k.cvt(int, d) }
        }
        (Some(DType::F32), DType::Bool) => {
            let zero = f32_like(k, v, 0.0);
            k.cmp(Cmp::Ne, v, zero)
        }
        (_, DType::Bool) => {
            let zero = k.int_like(v, 0);
            k.cmp(Cmp::Ne, v, zero)
        }
        (Some(DType::F32), d) if d.is_int() => k.cvt_with(v, d, Round::Rz, Sat::Sat),
        (Some(DType::F32), DType::E4M3 | DType::E5M2) => k.cvt_sat(v, d),
        _ => k.cvt(v, d),
    }
}

/// 1 or 0.
pub fn bool_to_i64(k: &mut KernelBuilder, v: Value) -> Value {
    let ty = k.ty(v).with_dtype(DType::I64);
    let (one, zero) = (k.const_bits(ty, 1), k.const_bits(ty, 0));
    k.select(v, one, zero)
}

/// An f32 constant with as many lanes as `like`.
fn f32_like(k: &mut KernelBuilder, like: Value, v: f32) -> Value {
    let lanes = k.ty(like).lanes().max(1);
    k.f32_splat(v, lanes)
}

fn cast(k: &mut KernelBuilder, d: DType, v: Value) -> Value {
    let stored = to_storage(k, d, v);
    to_compute(k, d, stored)
}

fn is_float(k: &KernelBuilder, v: Value) -> bool {
    k.ty(v).is_float()
}

fn unary(k: &mut KernelBuilder, f: UnaryFn, x: Value) -> Value {
    match f {
        UnaryFn::Neg => k.neg(x),
        UnaryFn::Abs => k.abs(x),
        UnaryFn::Sqrt => k.math(Math::Sqrt, x),
        UnaryFn::Rsqrt => k.math(Math::Rsqrt, x),
        UnaryFn::Recip => k.math(Math::Rcp, x),
        UnaryFn::Exp => k.math(Math::Exp, x),
        UnaryFn::Log => k.math(Math::Log, x),
        UnaryFn::Erf => k.math(Math::Erf, x),
        UnaryFn::Tanh => k.math(Math::Tanh, x),
        UnaryFn::Sin => k.math(Math::Sin, x),
        UnaryFn::Cos => k.math(Math::Cos, x),
        UnaryFn::Sigmoid => sigmoid(k, x),
        UnaryFn::Relu if is_float(k, x) => {
            let zero = f32_like(k, x, 0.0);
            k.max_nan(x, zero)
        }
        UnaryFn::Relu => {
            let zero = k.int_like(x, 0);
            k.max(x, zero)
        }
        UnaryFn::Gelu => {
            let c = f32_like(k, x, std::f32::consts::FRAC_1_SQRT_2);
            let scaled = k.mul(x, c);
            let erf = k.math(Math::Erf, scaled);
            half_one_plus(k, x, erf)
        }
        UnaryFn::GeluTanh => {
            let (a, b) = (f32_like(k, x, 0.044_715), f32_like(k, x, 0.797_884_6));
            let x2 = k.mul(x, x);
            let x3 = k.mul(x2, x);
            let inner = k.fma(x3, a, x);
            let inner = k.mul(inner, b);
            let tanh = k.math(Math::Tanh, inner);
            half_one_plus(k, x, tanh)
        }
        UnaryFn::Silu => {
            let s = sigmoid(k, x);
            k.mul(x, s)
        }
        UnaryFn::HardSwish => {
            let (six, half) = (f32_like(k, x, 6.0), f32_like(k, x, 0.5));
            let (zero, one) = (f32_like(k, x, 0.0), f32_like(k, x, 1.0));
            let t = k.div(x, six);
            let t = k.add(t, half);
            let t = k.max_nan(t, zero);
            let t = k.min_nan(t, one);
            k.mul(x, t)
        }
        UnaryFn::Floor => k.round(x, Round::Rm),
        UnaryFn::Ceil => k.round(x, Round::Rp),
        UnaryFn::Round => k.round_even(x),
        UnaryFn::Not => k.not(x),
    }
}

/// `1 / (1 + e⁻ˣ)`
fn sigmoid(k: &mut KernelBuilder, x: Value) -> Value {
    let one = f32_like(k, x, 1.0);
    let minus = k.neg(x);
    let e = k.math(Math::Exp, minus);
    let sum = k.add(one, e);
    k.div(one, sum)
}

/// `x·½·(1 + t)`
fn half_one_plus(k: &mut KernelBuilder, x: Value, t: Value) -> Value {
    let (one, half) = (f32_like(k, x, 1.0), f32_like(k, x, 0.5));
    let sum = k.add(one, t);
    let h = k.mul(x, half);
    k.mul(h, sum)
}

fn compare(f: BinaryFn) -> Option<Cmp> {
    Some(match f {
        BinaryFn::Eq => Cmp::Eq,
        BinaryFn::Ne => Cmp::Ne,
        BinaryFn::Lt => Cmp::Lt,
        BinaryFn::Le => Cmp::Le,
        BinaryFn::Gt => Cmp::Gt,
        BinaryFn::Ge => Cmp::Ge,
        _ => return None,
    })
}

fn binary(k: &mut KernelBuilder, f: BinaryFn, a: Value, b: Value) -> Value {
    if let Some(c) = compare(f) {
        return match k.ty(a).dtype() {
            // Truth values compare as numbers.
            Some(DType::Bool) => {
                let differ = k.xor(a, b);
                if c == Cmp::Ne { differ } else { k.not(differ) }
            }
            _ => k.cmp(c, a, b),
        };
    }
    match f {
        BinaryFn::Add => k.add(a, b),
        BinaryFn::Sub => k.sub(a, b),
        BinaryFn::Mul => k.mul(a, b),
        BinaryFn::Div => k.div(a, b),
        BinaryFn::Min if is_float(k, a) => k.min_nan(a, b),
        BinaryFn::Max if is_float(k, a) => k.max_nan(a, b),
        BinaryFn::Min => k.min(a, b),
        BinaryFn::Max => k.max(a, b),
        BinaryFn::Mod => modulo(k, a, b),
        BinaryFn::Pow => power(k, a, b),
        BinaryFn::And => k.and(a, b),
        BinaryFn::Or => k.or(a, b),
        _ => k.xor(a, b),
    }
}

/// The remainder with the sign of the divisor: `r = a − b·trunc(a/b)`, moved by `b` where the
/// signs differ.
fn modulo(k: &mut KernelBuilder, a: Value, b: Value) -> Value {
    let (r, zero) = if is_float(k, a) {
        let q = k.div(a, b);
        let q = k.round(q, Round::Rz);
        let minus = k.neg(q);
        (k.fma(minus, b, a), f32_like(k, a, 0.0))
    } else {
        (k.rem(a, b), k.int_like(a, 0))
    };
    let (rn, bn) = (k.lt(r, zero), k.lt(b, zero));
    let signs = k.xor(rn, bn);
    let nonzero = k.cmp(Cmp::Ne, r, zero);
    let moved = k.and(signs, nonzero);
    let sum = k.add(r, b);
    k.select(moved, sum, r)
}

/// `aᵇ = ±2^(b·log2|a|)`; the sign is that of `a` where `b` is an odd integer, NaN for a negative
/// `a` and a fractional `b`, and 1 for `b = 0`.
fn power(k: &mut KernelBuilder, a: Value, b: Value) -> Value {
    if !is_float(k, a) {
        k.fail(Problem::new(
            "K03",
            "integer powers are not lowered; write them as products",
        ));
        return a;
    }
    let (zero, one, half) = (
        f32_like(k, a, 0.0),
        f32_like(k, a, 1.0),
        f32_like(k, a, 0.5),
    );
    let mag = k.abs(a);
    let log = k.math(Math::Log2, mag);
    let exp = k.mul(log, b);
    let p = k.math(Math::Exp2, exp);
    let whole = k.round(b, Round::Rm);
    let is_whole = k.eq(whole, b);
    let halved = k.mul(b, half);
    let half_floor = k.round(halved, Round::Rm);
    let is_even = k.eq(half_floor, halved);
    let flipped = k.neg(p);
    let signed = k.select(is_even, p, flipped);
    let nan = f32_like(k, a, f32::NAN);
    let for_negative = k.select(is_whole, signed, nan);
    let negative = k.lt(a, zero);
    let r = k.select(negative, for_negative, p);
    let b_is_zero = k.eq(b, zero);
    k.select(b_is_zero, one, r)
}

/// A float value as a code of a quantized type, as in `format`:
/// `saturate(round_half_even(x / scale) + zero)`.
///
/// `x` and `scale` are f32; `zero` is f32 and integral. The result has the storage format. Four-bit
/// codes come as `i8` or `u8`.
pub fn quantize_code(
    k: &mut KernelBuilder,
    q: &crate::graph::QuantType,
    x: Value,
    scale: Value,
    zero: Option<Value>,
) -> Value {
    let scaled = k.div(x, scale);
    if q.storage.is_float() {
        return k.cvt_sat(scaled, q.storage);
    }
    let (lo, hi, store) = match (q.storage, q.narrow) {
        (DType::I8, true) => (-127.0, 127.0, DType::I8),
        (DType::I8, false) => (-128.0, 127.0, DType::I8),
        (DType::I4, true) => (-7.0, 7.0, DType::I8),
        (DType::I4, false) => (-8.0, 7.0, DType::I8),
        (DType::U4, _) => (0.0, 15.0, DType::U8),
        _ => (0.0, 255.0, DType::U8),
    };
    let mut r = k.round_even(scaled);
    if let Some(z) = zero {
        r = k.add(r, z);
    }
    let (lo, hi) = (f32_like(k, x, lo), f32_like(k, x, hi));
    // NaN becomes code 0: the clamp must let it through to the conversion.
    let r = k.max_nan(r, lo);
    let r = k.min_nan(r, hi);
    let int = k.cvt_with(r, DType::I32, Round::Rz, Sat::Sat);
    k.cvt(int, store)
}

/// The type in which an operand of this element type is loaded.
pub fn load_type(d: DType) -> Ty {
    Ty::scalar(if d == DType::Bool { DType::U8 } else { d })
}
