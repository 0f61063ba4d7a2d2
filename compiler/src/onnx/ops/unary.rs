//! Elementwise operators of one operand.

use qcc_ir::DType;
use qcc_ir::diag::Result;
use qcc_ir::expr::{BinaryFn, UnaryFn};
use qcc_ir::graph::ValueId;

use super::super::error::{self, unsupported};
use super::super::node::{Node, Val, operand, supported};
use super::super::scope::Scope;
use super::super::tensor;
use super::one;

/// `Abs`, `Ceil`, `Cos`, `Erf`, … : the function of the graph IR with the same meaning.
pub(super) fn simple(s: &mut Scope, n: &Node) -> Result<Vec<Val>> {
    let f = match n.op {
        "Abs" => UnaryFn::Abs,
        "Ceil" => UnaryFn::Ceil,
        "Cos" => UnaryFn::Cos,
        "Erf" => UnaryFn::Erf,
        "Exp" => UnaryFn::Exp,
        "Floor" => UnaryFn::Floor,
        "HardSwish" => UnaryFn::HardSwish,
        "Log" => UnaryFn::Log,
        "Neg" => UnaryFn::Neg,
        "Not" => UnaryFn::Not,
        "Reciprocal" => UnaryFn::Recip,
        "Relu" => UnaryFn::Relu,
        "Round" => UnaryFn::Round,
        "Sigmoid" => UnaryFn::Sigmoid,
        "Sin" => UnaryFn::Sin,
        "Sqrt" => UnaryFn::Sqrt,
        "Tanh" => UnaryFn::Tanh,
        other => return Err(operand(format!("{other} is no elementwise function"))),
    };
    let x = s.value(n.input(0)?)?;
    apply(s, f, x).and_then(one)
}

/// `f(x)`, refused for formats for which the graph IR does not define it.
fn apply(s: &mut Scope, f: UnaryFn, x: ValueId) -> Result<ValueId> {
    let dtype = s.plain(x)?;
    if f.result(qcc_ir::expr::Compute::of(dtype)).is_none() {
        return Err(unsupported(
            error::ELEM_TYPE,
            format!("{} of {dtype} is not supported", f.name()),
        ));
    }
    s.b.unary(f, x)
}

/// `Identity`
pub(super) fn identity(_: &mut Scope, n: &Node) -> Result<Vec<Val>> {
    Ok(vec![n.input(0)?.clone()])
}

/// `Dropout`: the identity at inference; the mask is true everywhere.
pub(super) fn dropout(s: &mut Scope, n: &Node) -> Result<Vec<Val>> {
    n.attrs.ignore(&["seed"]);
    // The ratio matters in training only.
    n.optional(1);
    let training = n.optional(2).map(|v| s.number(v));
    if !matches!(training, None | Some(Some(0.0))) {
        return Err(unsupported(
            error::ATTRIBUTE,
            "Dropout in training mode is not supported",
        ));
    }
    let x = n.input(0)?;
    let shape = s.shape(x);
    let mask = s.splat(DType::Bool, shape, 1.0);
    Ok(vec![x.clone(), Val::Value(mask)])
}

/// `Cast`
pub(super) fn cast(s: &mut Scope, n: &Node) -> Result<Vec<Val>> {
    n.attrs.only("saturate", 1)?;
    n.attrs.ignore(&["round_mode"]);
    let number = n.attrs.int_or("to", 0)?;
    let number = i32::try_from(number).unwrap_or(-1);
    let to = supported(tensor::elem_type(number)?)?;
    convert(s, n.input(0)?, to)
}

/// `CastLike`
pub(super) fn cast_like(s: &mut Scope, n: &Node) -> Result<Vec<Val>> {
    n.attrs.only("saturate", 1)?;
    n.attrs.ignore(&["round_mode"]);
    let to = s.dtype(n.input(1)?)?;
    convert(s, n.input(0)?, to)
}

fn convert(s: &mut Scope, x: &Val, to: DType) -> Result<Vec<Val>> {
    if s.dtype(x)? == to {
        return Ok(vec![x.clone()]);
    }
    // A whole number that binary32 holds exactly is the same number in any wider format.
    if let (Some(v), DType::F32 | DType::F64 | DType::I64) = (s.number(x), to)
        && v.fract() == 0.0
        && v.abs() <= 16_777_216.0
    {
        let shape = s.shape(x);
        return one(s.splat(to, shape, v));
    }
    let v = s.value(x)?;
    if to == DType::Bool {
        return one(s.binary_scalar(BinaryFn::Ne, v, 0.0)?);
    }
    one(s.b.cast(v, to))
}

/// `Clip`: `min(max(x, low), high)`
pub(super) fn clip(s: &mut Scope, n: &Node) -> Result<Vec<Val>> {
    let mut v = s.value(n.input(0)?)?;
    for (at, f) in [(1, BinaryFn::Max), (2, BinaryFn::Min)] {
        if let Some(bound) = n.optional(at) {
            let bound = s.value(bound)?;
            if s.b.ty(bound).rank() > 1 {
                return Err(operand("Clip needs scalar bounds"));
            }
            v = s.binary(f, v, bound)?;
        }
    }
    one(v)
}

/// `Gelu`, in its exact or its tanh form.
pub(super) fn gelu(s: &mut Scope, n: &Node) -> Result<Vec<Val>> {
    let f = match n.attrs.text_or("approximate", "none")? {
        "none" => UnaryFn::Gelu,
        "tanh" => UnaryFn::GeluTanh,
        other => {
            return Err(unsupported(
                error::ATTRIBUTE,
                format!("attribute `approximate` is `{other}`; none and tanh are supported"),
            ));
        }
    };
    let x = s.value(n.input(0)?)?;
    apply(s, f, x).and_then(one)
}

/// `IsNaN`: only NaN differs from itself.
pub(super) fn is_nan(s: &mut Scope, n: &Node) -> Result<Vec<Val>> {
    let x = s.value(n.input(0)?)?;
    one(s.binary(BinaryFn::Ne, x, x)?)
}

/// `x < 0 ? below(x) : x`
fn negative_part(s: &mut Scope, x: ValueId, below: ValueId) -> Result<ValueId> {
    let zero = s.scalar_like(x, 0.0)?;
    let negative = s.binary(BinaryFn::Lt, x, zero)?;
    s.select(negative, below, x)
}

/// `LeakyRelu`
pub(super) fn leaky_relu(s: &mut Scope, n: &Node) -> Result<Vec<Val>> {
    let alpha = n.attrs.float_or("alpha", 0.01)?;
    let x = s.value(n.input(0)?)?;
    let below = s.binary_scalar(BinaryFn::Mul, x, alpha.into())?;
    negative_part(s, x, below).and_then(one)
}

/// `PRelu`
pub(super) fn prelu(s: &mut Scope, n: &Node) -> Result<Vec<Val>> {
    let (x, slope) = (s.value(n.input(0)?)?, s.value(n.input(1)?)?);
    let below = s.binary(BinaryFn::Mul, x, slope)?;
    negative_part(s, x, below).and_then(one)
}

/// `Elu`: `α·(eˣ − 1)` below zero.
pub(super) fn elu(s: &mut Scope, n: &Node) -> Result<Vec<Val>> {
    let alpha = n.attrs.float_or("alpha", 1.0)?;
    let x = s.value(n.input(0)?)?;
    let exp = apply(s, UnaryFn::Exp, x)?;
    let less = s.binary_scalar(BinaryFn::Sub, exp, 1.0)?;
    let below = s.binary_scalar(BinaryFn::Mul, less, alpha.into())?;
    negative_part(s, x, below).and_then(one)
}

/// `Selu`: `γ·x`, `γ·α·(eˣ − 1)` below zero.
pub(super) fn selu(s: &mut Scope, n: &Node) -> Result<Vec<Val>> {
    let alpha = n.attrs.float_or("alpha", 1.673_263_2)?;
    let gamma = n.attrs.float_or("gamma", 1.050_701)?;
    let x = s.value(n.input(0)?)?;
    let exp = apply(s, UnaryFn::Exp, x)?;
    let less = s.binary_scalar(BinaryFn::Sub, exp, 1.0)?;
    let below = s.binary_scalar(BinaryFn::Mul, less, alpha.into())?;
    let v = negative_part(s, x, below)?;
    s.binary_scalar(BinaryFn::Mul, v, gamma.into())
        .and_then(one)
}

/// `Celu`: `α·(e^(x/α) − 1)` below zero.
pub(super) fn celu(s: &mut Scope, n: &Node) -> Result<Vec<Val>> {
    let alpha = n.attrs.float_or("alpha", 1.0)?;
    let x = s.value(n.input(0)?)?;
    let scaled = s.binary_scalar(BinaryFn::Div, x, alpha.into())?;
    let exp = apply(s, UnaryFn::Exp, scaled)?;
    let less = s.binary_scalar(BinaryFn::Sub, exp, 1.0)?;
    let below = s.binary_scalar(BinaryFn::Mul, less, alpha.into())?;
    negative_part(s, x, below).and_then(one)
}

/// `ThresholdedRelu`: `x` above `α`, else 0.
pub(super) fn thresholded_relu(s: &mut Scope, n: &Node) -> Result<Vec<Val>> {
    let alpha = n.attrs.float_or("alpha", 1.0)?;
    let x = s.value(n.input(0)?)?;
    let (limit, zero) = (s.scalar_like(x, alpha.into())?, s.scalar_like(x, 0.0)?);
    let above = s.binary(BinaryFn::Gt, x, limit)?;
    s.select(above, x, zero).and_then(one)
}

/// `Softsign`: `x / (1 + |x|)`
pub(super) fn softsign(s: &mut Scope, n: &Node) -> Result<Vec<Val>> {
    let x = s.value(n.input(0)?)?;
    let abs = apply(s, UnaryFn::Abs, x)?;
    let sum = s.binary_scalar(BinaryFn::Add, abs, 1.0)?;
    s.binary(BinaryFn::Div, x, sum).and_then(one)
}

/// `IsInf`, of either sign or of one.
pub(super) fn is_inf(s: &mut Scope, n: &Node) -> Result<Vec<Val>> {
    let negative = n.attrs.flag("detect_negative", true)?;
    let positive = n.attrs.flag("detect_positive", true)?;
    let x = s.value(n.input(0)?)?;
    let magnitude = match (positive, negative) {
        (true, true) => apply(s, UnaryFn::Abs, x)?,
        (true, false) => x,
        (false, true) => apply(s, UnaryFn::Neg, x)?,
        (false, false) => {
            let shape = s.b.ty(x).shape.clone();
            return one(s.splat(DType::Bool, shape, 0.0));
        }
    };
    s.binary_scalar(BinaryFn::Eq, magnitude, f64::INFINITY)
        .and_then(one)
}

/// `HardSigmoid`: `max(0, min(1, α·x + β))`
pub(super) fn hard_sigmoid(s: &mut Scope, n: &Node) -> Result<Vec<Val>> {
    let (alpha, beta) = (
        n.attrs.float_or("alpha", 0.2)?,
        n.attrs.float_or("beta", 0.5)?,
    );
    let x = s.value(n.input(0)?)?;
    let scaled = s.binary_scalar(BinaryFn::Mul, x, alpha.into())?;
    let line = s.binary_scalar(BinaryFn::Add, scaled, beta.into())?;
    let low = s.binary_scalar(BinaryFn::Min, line, 1.0)?;
    s.binary_scalar(BinaryFn::Max, low, 0.0).and_then(one)
}

/// `Softplus`
pub(super) fn softplus(s: &mut Scope, n: &Node) -> Result<Vec<Val>> {
    let x = s.value(n.input(0)?)?;
    log_one_plus_exp(s, x).and_then(one)
}

/// `Mish`: `x·tanh(softplus(x))`
pub(super) fn mish(s: &mut Scope, n: &Node) -> Result<Vec<Val>> {
    let x = s.value(n.input(0)?)?;
    let soft = log_one_plus_exp(s, x)?;
    let gate = s.b.unary(UnaryFn::Tanh, soft)?;
    s.binary(BinaryFn::Mul, x, gate).and_then(one)
}

/// `ln(1 + eˣ)` as `max(x, 0) + ln(1 + e^−|x|)`, which does not overflow.
fn log_one_plus_exp(s: &mut Scope, x: ValueId) -> Result<ValueId> {
    let abs = apply(s, UnaryFn::Abs, x)?;
    let neg = s.b.unary(UnaryFn::Neg, abs)?;
    let exp = apply(s, UnaryFn::Exp, neg)?;
    let sum = s.binary_scalar(BinaryFn::Add, exp, 1.0)?;
    let log = s.b.unary(UnaryFn::Log, sum)?;
    let positive = s.b.unary(UnaryFn::Relu, x)?;
    s.binary(BinaryFn::Add, positive, log)
}

/// `Sign`: −1, 0 or 1.
pub(super) fn sign(s: &mut Scope, n: &Node) -> Result<Vec<Val>> {
    let x = s.value(n.input(0)?)?;
    let (zero, plus, minus) = (
        s.scalar_like(x, 0.0)?,
        s.scalar_like(x, 1.0)?,
        s.scalar_like(x, -1.0)?,
    );
    let above = s.binary(BinaryFn::Gt, x, zero)?;
    let below = s.binary(BinaryFn::Lt, x, zero)?;
    let rest = s.select(below, minus, zero)?;
    s.select(above, plus, rest).and_then(one)
}
