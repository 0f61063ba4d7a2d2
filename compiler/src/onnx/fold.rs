//! Operators on small symbolic integers: what exporters write to compute shapes.
//!
//! A function answers `None` when the result is not known at import; the operator is then
//! imported as an op of the graph IR. Truth values are decided by the ranges of the symbols:
//! `seq = -1` is false because a size is never negative.

use qcc_ir::diag::Result;
use qcc_ir::{DType, DimExpr};

use super::node::{Node, axis};
use super::ops::{layout, pick, reduce, reshape as shapes};
use super::scope::Scope;
use super::sym::SymTensor;
use super::tensor;

type Folded = Result<Option<Vec<SymTensor>>>;
type Inputs<'a> = &'a [Option<SymTensor>];

fn only(v: Option<SymTensor>) -> Folded {
    Ok(v.map(|v| vec![v]))
}

fn first(inputs: Inputs<'_>) -> Option<&SymTensor> {
    inputs.first().and_then(Option::as_ref)
}

fn truth(v: bool) -> DimExpr {
    DimExpr::from(i64::from(v))
}

/// The elements through `f`; `None` as soon as it is for one.
fn map(v: &SymTensor, dtype: DType, f: impl Fn(&DimExpr) -> Option<DimExpr>) -> Option<SymTensor> {
    let elems = v.elems.iter().map(f).collect::<Option<Vec<DimExpr>>>()?;
    SymTensor::new(dtype, v.dims.clone(), elems)
}

/// `Abs`, `Identity`, `Neg`, `Not`
pub(super) fn unary(s: &Scope, n: &Node, inputs: Inputs) -> Folded {
    let zero = DimExpr::from(0);
    let Some(x) = first(inputs) else {
        return Ok(None);
    };
    only(map(x, x.dtype, |e| match n.op {
        "Identity" => Some(e.clone()),
        "Not" => Some(&DimExpr::from(1) - e),
        "Neg" if x.dtype != DType::Bool => Some(&zero - e),
        "Abs" if s.dims.at_most(&zero, e) == Some(true) => Some(e.clone()),
        _ => None,
    }))
}

/// `Cast` between integers and bool.
pub(super) fn cast(s: &Scope, n: &Node, inputs: Inputs) -> Folded {
    let Some(x) = first(inputs) else {
        return Ok(None);
    };
    let number = i32::try_from(n.attrs.int_or("to", 0)?).unwrap_or(-1);
    let to = tensor::elem_type(number)?.dtype();
    n.attrs.ignore(&["saturate", "round_mode"]);
    let zero = DimExpr::from(0);
    let fits = |e: &DimExpr| {
        let (lo, hi) = s.dims.bounds(e);
        lo >= i64::from(i32::MIN) && hi <= i64::from(i32::MAX)
    };
    only(match to {
        Some(DType::I64) => map(x, DType::I64, |e| Some(e.clone())),
        Some(DType::I32) => map(x, DType::I32, |e| fits(e).then(|| e.clone())),
        Some(DType::Bool) => map(x, DType::Bool, |e| {
            s.dims.equal(e, &zero).map(|z| truth(!z))
        }),
        _ => None,
    })
}

/// `Add`, `Equal`, `Max`, … of two or more operands, from left to right.
pub(super) fn binary(s: &Scope, n: &Node, inputs: Inputs) -> Folded {
    if inputs.len() != 2 && !matches!(n.op, "Max" | "Min") {
        return Ok(None);
    }
    let mut operands = inputs.iter().flatten();
    let Some(mut all) = operands.next().cloned() else {
        return Ok(None);
    };
    for next in operands {
        let Some((a, b)) = SymTensor::aligned(&all, next).filter(|(a, b)| a.dtype == b.dtype)
        else {
            return Ok(None);
        };
        let pairs = a.elems.iter().zip(&b.elems);
        let elems = pairs.map(|(x, y)| element(s, n.op, a.dtype, x, y));
        let Some(elems) = elems.collect::<Option<Vec<DimExpr>>>() else {
            return Ok(None);
        };
        let compares = matches!(
            n.op,
            "Equal" | "Greater" | "GreaterOrEqual" | "Less" | "LessOrEqual"
        );
        let dtype = if compares { DType::Bool } else { a.dtype };
        match SymTensor::new(dtype, a.dims, elems) {
            Some(next) => all = next,
            None => return Ok(None),
        }
    }
    if n.op == "Mod" && n.attrs.int_or("fmod", 0)? != 0 {
        return Ok(None);
    }
    only(Some(all))
}

/// One element of a binary operator.
fn element(s: &Scope, op: &str, dtype: DType, x: &DimExpr, y: &DimExpr) -> Option<DimExpr> {
    let one = DimExpr::from(1);
    let logical = dtype == DType::Bool;
    let not = |v: Option<bool>| v.map(|v| !v);
    Some(match op {
        "And" if logical => x * y,
        "Or" if logical => &(x + y) - &(x * y),
        "Xor" if logical => &(x + y) - &(&DimExpr::from(2) * &(x * y)),
        "Equal" => truth(s.dims.equal(x, y)?),
        _ if logical => return None,
        "LessOrEqual" => truth(s.dims.at_most(x, y)?),
        "GreaterOrEqual" => truth(s.dims.at_most(y, x)?),
        "Less" => truth(not(s.dims.at_most(y, x))?),
        "Greater" => truth(not(s.dims.at_most(x, y))?),
        "Add" => x + y,
        "Sub" => x - y,
        "Mul" => x * y,
        "Max" => s.dims.max(x, y),
        "Min" => s.dims.min(x, y),
        // Division truncates and the remainder takes the divisor's sign; for a dividend of at
        // least 0 and a positive divisor both round down.
        "Div" | "Mod" if s.dims.bounds(x).0 >= 0 && s.dims.at_most(&one, y) == Some(true) => {
            match op {
                "Div" => x.floor_div(y),
                _ => x.modulo(y),
            }
        }
        "Div" => DimExpr::from(x.as_const()?.checked_div(y.as_const()?)?),
        _ => return None,
    })
}

/// `Where` with a known condition.
pub(super) fn choose(_: &Scope, _: &Node, inputs: Inputs) -> Folded {
    let [Some(c), Some(a), Some(b)] = inputs else {
        return Ok(None);
    };
    let chosen = || {
        let (c1, a1) = SymTensor::aligned(c, a)?;
        let (c, b) = SymTensor::aligned(&c1, b)?;
        let (a, b) = SymTensor::aligned(&a1, &b)?;
        let c = c.expanded(&a.dims)?.numbers()?;
        let pairs = a.elems.iter().zip(&b.elems).zip(c);
        let elems = pairs.map(|((a, b), c)| if c != 0 { a.clone() } else { b.clone() });
        SymTensor::new(a.dtype, a.dims.clone(), elems.collect())
    };
    only(chosen())
}

/// `Concat`
pub(super) fn concat(_: &Scope, n: &Node, inputs: Inputs) -> Folded {
    let parts: Option<Vec<SymTensor>> = inputs.iter().cloned().collect();
    let Some(parts) = parts.filter(|p| !p.is_empty()) else {
        return Ok(None);
    };
    let along = axis(n.attrs.int_or("axis", 0)?, parts[0].dims.len())?;
    only(SymTensor::joined(&parts, along))
}

/// `Gather` at known positions.
pub(super) fn gather(_: &Scope, n: &Node, inputs: Inputs) -> Folded {
    let [Some(data), Some(indices)] = inputs else {
        return Ok(None);
    };
    let along = axis(n.attrs.int_or("axis", 0)?, data.dims.len())?;
    let size = data.dims[along] as i64;
    let at = indices.numbers().and_then(|at| {
        at.into_iter()
            .map(|i| usize::try_from(if i < 0 { i.checked_add(size)? } else { i }).ok())
            .map(|i| i.filter(|&i| (i as i64) < size))
            .collect::<Option<Vec<usize>>>()
    });
    only(at.and_then(|at| data.gathered(along, &at, &indices.dims)))
}

/// `Slice`, also backwards.
pub(super) fn slice(s: &Scope, n: &Node, inputs: Inputs) -> Folded {
    let Some(data) = first(inputs) else {
        return Ok(None);
    };
    let mut out = data.clone();
    for cut in pick::cuts(s, n, &shapes::sym_shape(data))? {
        let (Some(start), Some(end)) = (cut.start.as_const(), cut.end.as_const()) else {
            return Ok(None);
        };
        let span = (end - start).unsigned_abs();
        let count = span.div_ceil(cut.step.unsigned_abs()) as usize;
        match out.sliced(cut.axis, start, cut.step, count) {
            Some(part) => out = part,
            None => return Ok(None),
        }
    }
    only(Some(out))
}

/// `Split` into parts of known lengths.
pub(super) fn split(s: &Scope, n: &Node, inputs: Inputs) -> Folded {
    let Some(data) = first(inputs) else {
        return Ok(None);
    };
    let along = axis(n.attrs.int_or("axis", 0)?, data.dims.len())?;
    let parts = pick::parts(s, n, &DimExpr::from(data.dims[along] as i64))?;
    let mut start = 0;
    let mut out = Vec::new();
    for part in parts {
        let count = part.as_const().and_then(|c| usize::try_from(c).ok());
        let Some(part) = count.and_then(|c| data.sliced(along, start, 1, c)) else {
            return Ok(None);
        };
        start += part.dims[along] as i64;
        out.push(part);
    }
    Ok(Some(out))
}

/// A tensor in the shape that `dims` says.
fn in_shape(v: &SymTensor, dims: Vec<DimExpr>) -> Folded {
    let dims: Option<Vec<usize>> = dims
        .iter()
        .map(|d| d.as_const().and_then(|c| usize::try_from(c).ok()))
        .collect();
    only(dims.and_then(|dims| v.reshaped(dims)))
}

/// `Reshape`
pub(super) fn reshape(_: &Scope, n: &Node, inputs: Inputs) -> Folded {
    let [Some(data), Some(target)] = inputs else {
        return Ok(None);
    };
    let allow_zero = n.attrs.flag("allowzero", false)?;
    let shape = shapes::sym_shape(data);
    in_shape(
        data,
        shapes::target_shape(&shape, &target.elems, allow_zero)?,
    )
}

/// `Squeeze`
pub(super) fn squeeze(s: &Scope, n: &Node, inputs: Inputs) -> Folded {
    let Some(data) = first(inputs) else {
        return Ok(None);
    };
    let given = shapes::given_axes(s, n)?;
    in_shape(data, shapes::squeezed(&shapes::sym_shape(data), given)?)
}

/// `Unsqueeze`
pub(super) fn unsqueeze(s: &Scope, n: &Node, inputs: Inputs) -> Folded {
    let (Some(data), Some(given)) = (first(inputs), shapes::given_axes(s, n)?) else {
        return Ok(None);
    };
    in_shape(data, shapes::unsqueezed(&shapes::sym_shape(data), &given)?)
}

/// `Transpose`
pub(super) fn transpose(_: &Scope, n: &Node, inputs: Inputs) -> Folded {
    let Some(data) = first(inputs) else {
        return Ok(None);
    };
    let perm = layout::permutation(n, data.dims.len())?;
    only(data.transposed(&perm))
}

/// `Expand` to a shape of numbers.
pub(super) fn expand(_: &Scope, _: &Node, inputs: Inputs) -> Folded {
    let [Some(data), Some(target)] = inputs else {
        return Ok(None);
    };
    let expanded = || {
        let dims = target.numbers()?;
        let dims: Option<Vec<usize>> = dims.into_iter().map(|d| usize::try_from(d).ok()).collect();
        // Broadcasting is symmetric: a 1 in the target leaves the dimension as it is.
        let unit = DimExpr::from(0);
        let count = dims
            .as_ref()?
            .iter()
            .try_fold(1usize, |n, &d| n.checked_mul(d))?;
        if count > super::sym::MAX_ELEMS {
            return None;
        }
        let like = SymTensor::new(data.dtype, dims?, vec![unit; count])?;
        Some(SymTensor::aligned(data, &like)?.0)
    };
    only(expanded())
}

/// `Range` of a known, small number of integers.
pub(super) fn range(_: &Scope, _: &Node, inputs: Inputs) -> Folded {
    let [Some(start), Some(limit), Some(delta)] = inputs else {
        return Ok(None);
    };
    let values = || {
        let (start, limit) = (start.single()?.clone(), limit.single()?);
        let step = delta.single()?.as_const().filter(|&d| d != 0)?;
        let span = (limit - &start).as_const()?;
        let count = match (span > 0) == (step > 0) {
            true => span.unsigned_abs().div_ceil(step.unsigned_abs()),
            false => 0,
        };
        let count = usize::try_from(count)
            .ok()
            .filter(|&c| c <= super::sym::MAX_ELEMS)?;
        // An index vector of symbolic length is an op; a short one of numbers is data as well.
        let elems = (0..count as i64)
            .map(|i| &start + &DimExpr::from(i.saturating_mul(step)))
            .collect();
        SymTensor::new(delta.dtype, vec![count], elems)
    };
    only(values())
}

/// `ReduceProd` and `ReduceSum` over all elements.
pub(super) fn reduce_all(s: &Scope, n: &Node, inputs: Inputs) -> Folded {
    let Some(data) = first(inputs).filter(|d| d.dtype != DType::Bool) else {
        return Ok(None);
    };
    let rank = data.dims.len();
    let Some(axes) = reduce::reduced_axes(s, n, rank)? else {
        return Ok(None);
    };
    if axes.len() != rank {
        return Ok(None);
    }
    let value = match n.op {
        "ReduceProd" => DimExpr::product(&data.elems),
        _ => data.elems.iter().fold(DimExpr::from(0), |a, b| &a + b),
    };
    let dims = match n.attrs.flag("keepdims", true)? {
        true => vec![1; rank],
        false => Vec::new(),
    };
    only(SymTensor::new(data.dtype, dims, vec![value]))
}
