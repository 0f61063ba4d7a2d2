//! Reductions, running sums and softmax.

use qcc_ir::diag::Result;
use qcc_ir::expr::{BinaryFn, UnaryFn};
use qcc_ir::graph::{OpKind, ReduceFn, ValueId};

use super::super::error::{self, unsupported};
use super::super::node::{Node, Val, axes, axis, operand};
use super::super::scope::Scope;
use super::one;

/// `f` over `axes`; nothing to do without axes.
pub(super) fn over(
    s: &mut Scope,
    f: ReduceFn,
    x: ValueId,
    axes: Vec<usize>,
    keep: bool,
) -> Result<ValueId> {
    match axes.is_empty() {
        true => Ok(x),
        false => s.b.same(OpKind::Reduce { f, axes, keep }, &[x]),
    }
}

/// The axes of a reduction: an attribute, an operand since version 18 (`ReduceSum`: 13), or
/// all; `None` if there is nothing to reduce.
pub(in super::super) fn reduced_axes(
    s: &Scope,
    n: &Node,
    rank: usize,
) -> Result<Option<Vec<usize>>> {
    let nothing = n.attrs.flag("noop_with_empty_axes", false)?;
    let given = match n.optional(1) {
        Some(v) => Some(s.numbers(v, "the axes")?),
        None => n.attrs.ints("axes")?.map(<[i64]>::to_vec),
    };
    match given.filter(|g| !g.is_empty()) {
        Some(given) => axes(&given, rank).map(Some),
        None if nothing => Ok(None),
        None => Ok(Some((0..rank).collect())),
    }
}

/// `ReduceMean`, `ReduceSum`, `ReduceMax`, …
pub(super) fn reduce(s: &mut Scope, n: &Node) -> Result<Vec<Val>> {
    let mut x = s.value(n.input(0)?)?;
    let keep = n.attrs.flag("keepdims", true)?;
    let axes = reduced_axes(s, n, s.b.ty(x).rank())?;
    if matches!(n.op, "ReduceLogSum" | "ReduceLogSumExp") && !s.plain(x)?.is_float() {
        return Err(operand(format!("{} of integers", n.op)));
    }
    match n.op {
        "ReduceSumSquare" | "ReduceL2" => x = s.binary(BinaryFn::Mul, x, x)?,
        "ReduceL1" => x = s.b.unary(UnaryFn::Abs, x)?,
        "ReduceLogSumExp" => {
            let axes = axes.unwrap_or_default();
            return log_sum_exp(s, x, axes, keep).and_then(one);
        }
        _ => {}
    }
    let f = match n.op {
        "ReduceMean" => ReduceFn::Mean,
        "ReduceMax" => ReduceFn::Max,
        "ReduceMin" => ReduceFn::Min,
        "ReduceProd" => ReduceFn::Prod,
        _ => ReduceFn::Sum,
    };
    let dtype = s.plain(x)?;
    if dtype == qcc_ir::DType::Bool || (f == ReduceFn::Mean && !dtype.is_float()) {
        return Err(unsupported(
            error::ELEM_TYPE,
            format!("{} of {dtype} is not supported", n.op),
        ));
    }
    let v = match axes {
        Some(axes) => over(s, f, x, axes, keep)?,
        None => x,
    };
    match n.op {
        "ReduceL2" => one(s.b.unary(UnaryFn::Sqrt, v)?),
        "ReduceLogSum" => one(s.b.unary(UnaryFn::Log, v)?),
        _ => one(v),
    }
}

/// `m + ln Σ e^(x−m)` with `m` the largest element, which does not overflow.
fn log_sum_exp(s: &mut Scope, x: ValueId, axes: Vec<usize>, keep: bool) -> Result<ValueId> {
    let max = over(s, ReduceFn::Max, x, axes.clone(), true)?;
    let shifted = s.binary(BinaryFn::Sub, x, max)?;
    let exp = s.b.unary(UnaryFn::Exp, shifted)?;
    let sum = over(s, ReduceFn::Sum, exp, axes.clone(), true)?;
    let log = s.b.unary(UnaryFn::Log, sum)?;
    let v = s.binary(BinaryFn::Add, max, log)?;
    let shape = s.b.ty(v).shape.clone();
    let kept = shape
        .into_iter()
        .enumerate()
        .filter(|(i, _)| keep || !axes.contains(i));
    let kept = kept.map(|(_, d)| d).collect();
    Ok(s.b.reshape(v, kept))
}

/// `CumSum`, inclusive and forward.
pub(super) fn cumulative(s: &mut Scope, n: &Node) -> Result<Vec<Val>> {
    n.attrs.only("exclusive", 0)?;
    n.attrs.only("reverse", 0)?;
    let x = s.value(n.input(0)?)?;
    let along = s.numbers(n.input(1)?, "the axis")?;
    let [along] = along.as_slice() else {
        return Err(operand("CumSum needs one axis"));
    };
    let axis = axis(*along, s.b.ty(x).rank())?;
    one(s.b.same(OpKind::CumSum { axis }, &[x])?)
}

/// `Softmax` and `LogSoftmax` along one axis (their meaning since version 13).
pub(super) fn softmax(s: &mut Scope, n: &Node) -> Result<Vec<Val>> {
    let x = s.value(n.input(0)?)?;
    let along = axis(n.attrs.int_or("axis", -1)?, s.b.ty(x).rank())?;
    if n.op == "Softmax" {
        return one(s.b.same(OpKind::Softmax { axis: along }, &[x])?);
    }
    // x − m − ln Σ e^(x−m)
    let max = over(s, ReduceFn::Max, x, vec![along], true)?;
    let shifted = s.binary(BinaryFn::Sub, x, max)?;
    let exp = s.b.unary(UnaryFn::Exp, shifted)?;
    let sum = over(s, ReduceFn::Sum, exp, vec![along], true)?;
    let log = s.b.unary(UnaryFn::Log, sum)?;
    s.binary(BinaryFn::Sub, shifted, log).and_then(one)
}
