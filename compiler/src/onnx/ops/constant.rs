//! Constants, sizes and counts.

use qcc_ir::diag::Result;
use qcc_ir::expr::BinaryFn;
use qcc_ir::graph::{OpKind, TensorType};
use qcc_ir::{DType, DimExpr};

use super::super::error::{self, input, unsupported};
use super::super::node::{Node, Val, dynamic, operand};
use super::super::scope::Scope;
use super::super::sym::SymTensor;
use super::super::tensor::{self, Tensor};
use super::one;

/// `Constant`, from whichever attribute holds the value.
pub(super) fn constant(s: &mut Scope, n: &Node) -> Result<Vec<Val>> {
    if let Some(proto) = n.attrs.tensor("value")? {
        // It is known by the name of the node's result.
        return Ok(vec![Val::Const(tensor::read(proto, s.files)?.renamed(""))]);
    }
    let long = || operand("the constant is too long for an attribute");
    if let Some(i) = n.attrs.int("value_int")? {
        return Ok(vec![Val::Sym(SymTensor::scalar(i.into()))]);
    }
    if let Some(list) = n.attrs.ints("value_ints")? {
        let elems = list.iter().map(|&i| i.into()).collect();
        return Ok(vec![Val::Sym(SymTensor::vector(elems).ok_or_else(long)?)]);
    }
    if let Some(f) = n.attrs.float("value_float")? {
        return Ok(vec![Val::Const(Tensor::floats(&[], &[f])?)]);
    }
    if let Some(list) = n.attrs.floats("value_floats")? {
        return Ok(vec![Val::Const(Tensor::floats(
            &[list.len() as u64],
            list,
        )?)]);
    }
    Err(unsupported(
        error::ATTRIBUTE,
        "only constants that are dense tensors of numbers are supported",
    ))
}

/// `ConstantOfShape`; a short vector stays symbolic.
pub(super) fn of_shape(s: &mut Scope, n: &Node) -> Result<Vec<Val>> {
    let shape = s.known(n.input(0)?, "the shape")?;
    let value = match n.attrs.tensor("value")? {
        Some(proto) => tensor::read(proto, s.files)?,
        None => Tensor::floats(&[1], &[0.0])?,
    };
    let value = Val::Const(value);
    let number = s
        .number(&value)
        .ok_or_else(|| input(error::ATTRIBUTE, "attribute `value` is no single number"))?;
    let symbolic = s.sym(&value).and_then(|v| {
        let dims: Option<Vec<usize>> = shape
            .numbers()?
            .into_iter()
            .map(|d| usize::try_from(d).ok())
            .collect();
        v.reshaped(Vec::new())?.expanded(&dims?)
    });
    if let Some(v) = symbolic {
        return Ok(vec![Val::Sym(v)]);
    }
    let dtype = s.dtype(&value)?;
    sizes(s, &shape.elems)?;
    one(s.splat(dtype, shape.elems, number))
}

/// Refuses a shape that could be negative.
fn sizes(s: &Scope, dims: &[DimExpr]) -> Result<()> {
    match dims.iter().find(|d| s.dims.bounds(d).0 < 0) {
        Some(d) => Err(operand(format!("dimension {d} may be negative"))),
        None => Ok(()),
    }
}

/// `Shape`, of all dimensions or of a range of them.
pub(super) fn shape(s: &mut Scope, n: &Node) -> Result<Vec<Val>> {
    let shape = s.shape(n.input(0)?);
    let rank = shape.len() as i64;
    let clamp = |at: i64| {
        let at = if at < 0 { at.saturating_add(rank) } else { at };
        at.clamp(0, rank) as usize
    };
    let start = clamp(n.attrs.int_or("start", 0)?);
    let end = clamp(n.attrs.int_or("end", rank)?);
    let part = shape[start.min(end)..end].to_vec();
    let sym = SymTensor::vector(part).ok_or_else(|| operand("there are too many dimensions"))?;
    Ok(vec![Val::Sym(sym)])
}

/// `Size`
pub(super) fn size(s: &mut Scope, n: &Node) -> Result<Vec<Val>> {
    let shape = s.shape(n.input(0)?);
    Ok(vec![Val::Sym(SymTensor::scalar(DimExpr::product(&shape)))])
}

/// `Range`: `start + i·delta` for `⌈(limit − start) / delta⌉` elements.
pub(super) fn range(s: &mut Scope, n: &Node) -> Result<Vec<Val>> {
    let dtype = s.dtype(n.input(0)?)?;
    if dtype.is_float() {
        return float_range(s, n, dtype);
    }
    let mut ends = Vec::with_capacity(3);
    for at in 0..3 {
        let v = s.known(n.input(at)?, "the range")?;
        let single = v.single().cloned();
        ends.push(single.ok_or_else(|| operand("Range needs scalars"))?);
    }
    let (start, limit, delta) = (&ends[0], &ends[1], &ends[2]);
    let step = delta
        .as_const()
        .filter(|&d| d > 0)
        .ok_or_else(|| dynamic("the step of the range is not a positive number"))?;
    let span = limit - start;
    let count = span.exact_div(delta).unwrap_or_else(|| {
        let up = &span + &DimExpr::from(step - 1);
        up.floor_div(delta)
    });
    let count = s.dims.max(&count, &DimExpr::from(0));
    let shape = vec![count];
    let iota = TensorType::new(dtype, shape);
    let mut v = s.b.op(OpKind::Iota { axis: 0 }, &[], iota);
    if step != 1 {
        v = s.binary_scalar(BinaryFn::Mul, v, step as f64)?;
    }
    if start.as_const() != Some(0) {
        let start = Val::Sym(SymTensor {
            dtype,
            ..SymTensor::scalar(start.clone())
        });
        let start = s.value(&start)?;
        v = s.binary(BinaryFn::Add, v, start)?;
    }
    one(v)
}

/// A range of floats: counted in integers, then scaled; all three ends must be numbers.
fn float_range(s: &mut Scope, n: &Node, dtype: DType) -> Result<Vec<Val>> {
    let mut ends = [0.0; 3];
    for (at, end) in ends.iter_mut().enumerate() {
        let number = s.number(n.input(at)?);
        *end = number.ok_or_else(|| dynamic("a range of floats is computed at run time"))?;
    }
    let [start, limit, delta] = ends;
    let count = ((limit - start) / delta).ceil().max(0.0);
    if count.is_nan() || count >= f64::from(u32::MAX) {
        return Err(operand(format!(
            "a range from {start} to {limit} by {delta} does not end"
        )));
    }
    let shape = vec![DimExpr::from(count as i64)];
    let iota = TensorType::new(DType::I64, shape);
    let i = s.b.op(OpKind::Iota { axis: 0 }, &[], iota);
    let i = s.b.cast(i, dtype);
    let scaled = s.binary_scalar(BinaryFn::Mul, i, delta)?;
    s.binary_scalar(BinaryFn::Add, scaled, start).and_then(one)
}
