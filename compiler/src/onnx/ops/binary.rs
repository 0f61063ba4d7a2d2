//! Elementwise operators of several operands, with NumPy broadcasting.

use qcc_ir::diag::Result;
use qcc_ir::expr::{BinaryFn, Compute, UnaryFn};
use qcc_ir::graph::ValueId;

use super::super::error::{self, unsupported};
use super::super::node::{Node, Val, operand};
use super::super::scope::Scope;
use super::one;

/// The function of the graph IR with the meaning of an operator.
fn function(op: &str) -> Result<BinaryFn> {
    Ok(match op {
        "Add" | "Sum" | "Mean" => BinaryFn::Add,
        "And" => BinaryFn::And,
        "Div" => BinaryFn::Div,
        "Equal" => BinaryFn::Eq,
        "Greater" => BinaryFn::Gt,
        "GreaterOrEqual" => BinaryFn::Ge,
        "Less" => BinaryFn::Lt,
        "LessOrEqual" => BinaryFn::Le,
        "Max" => BinaryFn::Max,
        "Min" => BinaryFn::Min,
        "Mod" => BinaryFn::Mod,
        "Mul" => BinaryFn::Mul,
        "Or" => BinaryFn::Or,
        "Sub" => BinaryFn::Sub,
        "Xor" => BinaryFn::Xor,
        other => return Err(operand(format!("{other} is no elementwise function"))),
    })
}

fn apply(s: &mut Scope, f: BinaryFn, a: ValueId, b: ValueId) -> Result<ValueId> {
    let dtype = s.plain(a)?;
    if f.result(Compute::of(dtype)).is_none() {
        return Err(unsupported(
            error::ELEM_TYPE,
            format!("{} of {dtype} is not supported", f.name()),
        ));
    }
    s.binary(f, a, b)
}

/// `Add`, `And`, `Div`, `Equal`, … of two operands.
pub(super) fn arithmetic(s: &mut Scope, n: &Node) -> Result<Vec<Val>> {
    if n.op == "Mod" {
        n.attrs.only("fmod", 0)?;
    }
    let f = function(n.op)?;
    let (a, b) = (s.value(n.input(0)?)?, s.value(n.input(1)?)?);
    apply(s, f, a, b).and_then(one)
}

/// `Max`, `Min`, `Sum`, `Mean` of any number of operands, from left to right.
pub(super) fn variadic(s: &mut Scope, n: &Node) -> Result<Vec<Val>> {
    let f = function(n.op)?;
    let inputs = n.all_inputs()?;
    let mut v = s.value(inputs[0])?;
    for input in &inputs[1..] {
        let next = s.value(input)?;
        v = apply(s, f, v, next)?;
    }
    if n.op == "Mean" && inputs.len() > 1 {
        v = s.binary_scalar(BinaryFn::Div, v, inputs.len() as f64)?;
    }
    one(v)
}

/// `Pow`; the exponent is converted to the format of the base.
pub(super) fn power(s: &mut Scope, n: &Node) -> Result<Vec<Val>> {
    let base = s.value(n.input(0)?)?;
    let exponent = n.input(1)?;
    match s.number(exponent) {
        // A root is exact, a power of one half need not be.
        Some(0.5) if s.shape(exponent).is_empty() && s.plain(base)?.is_float() => {
            return one(s.b.unary(UnaryFn::Sqrt, base)?);
        }
        _ => {}
    }
    let v = s.value(exponent)?;
    let v = match (s.plain(base)?, s.plain(v)?) {
        (a, b) if a == b => v,
        (a, b) if a.is_float() || !b.is_float() => s.b.cast(v, a),
        (a, b) => {
            return Err(unsupported(
                error::ELEM_TYPE,
                format!("a power of {a} with an exponent of {b} is not supported"),
            ));
        }
    };
    apply(s, BinaryFn::Pow, base, v).and_then(one)
}

/// `Where`
pub(super) fn choose(s: &mut Scope, n: &Node) -> Result<Vec<Val>> {
    let condition = s.value(n.input(0)?)?;
    let (a, b) = (s.value(n.input(1)?)?, s.value(n.input(2)?)?);
    s.select(condition, a, b).and_then(one)
}
