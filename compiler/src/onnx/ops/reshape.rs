//! The same elements in another shape.

use qcc_ir::DimExpr;
use qcc_ir::diag::Result;

use super::super::node::{Node, Val, axes, axis, dynamic, operand};
use super::super::scope::Scope;
use super::super::sym::SymTensor;
use super::one;

/// A value in another shape; constants and short vectors stay what they are.
fn reshaped(s: &mut Scope, v: &Val, shape: Vec<DimExpr>) -> Result<Vec<Val>> {
    let numbers: Option<Vec<u64>> = shape
        .iter()
        .map(|d| d.as_const().and_then(|c| u64::try_from(c).ok()))
        .collect();
    if let (Val::Const(t), Some(dims)) = (v, numbers)
        && t.dims() == dims
    {
        return Ok(vec![v.clone()]);
    }
    let x = s.value(v)?;
    one(s.b.reshape(x, shape))
}

/// The shape that `target` means for a tensor of `shape`: 0 copies a dimension (unless
/// `allow_zero`), −1 takes what is left.
pub(in super::super) fn target_shape(
    shape: &[DimExpr],
    target: &[DimExpr],
    allow_zero: bool,
) -> Result<Vec<DimExpr>> {
    let mut out = Vec::with_capacity(target.len());
    let mut rest = None;
    for (i, dim) in target.iter().enumerate() {
        match dim.as_const() {
            Some(0) if !allow_zero => {
                let copied = shape.get(i).cloned();
                out.push(copied.ok_or_else(|| operand(format!("no dimension {i} to copy")))?);
            }
            Some(-1) if rest.is_none() => {
                rest = Some(i);
                out.push(DimExpr::from(1));
            }
            Some(n) if n < 0 => return Err(operand(format!("dimension {i} of the target is {n}"))),
            _ => out.push(dim.clone()),
        }
    }
    if let Some(i) = rest {
        let (all, others) = (DimExpr::product(shape), DimExpr::product(&out));
        if others.as_const() == Some(0) {
            return Err(operand(
                "what is left beside a dimension of 0 is not defined",
            ));
        }
        out[i] = all.floor_div(&others);
    }
    Ok(out)
}

/// `Reshape`
pub(super) fn reshape(s: &mut Scope, n: &Node) -> Result<Vec<Val>> {
    let allow_zero = n.attrs.flag("allowzero", false)?;
    let x = n.input(0)?;
    let shape = s.shape(x);
    let target = s.known(n.input(1)?, "the target shape")?;
    let out = target_shape(&shape, &target.elems, allow_zero)?;
    same_count(s, &shape, &out)?;
    reshaped(s, x, out)
}

/// Requires two shapes to have as many elements, narrowing the symbols if they can be.
fn same_count(s: &mut Scope, a: &[DimExpr], b: &[DimExpr]) -> Result<()> {
    let (before, after) = (DimExpr::product(a), DimExpr::product(b));
    if before == after {
        return Ok(());
    }
    // If all but one dimension cancel, the rest must be equal.
    for dim in b.iter().filter(|d| d.as_const().is_none()) {
        let quotient = after
            .exact_div(dim)
            .and_then(|others| before.exact_div(&others));
        if let Some(quotient) = quotient {
            return s.same_dim(dim, &quotient, "Reshape");
        }
    }
    if s.dims.equal(&before, &after) == Some(false) {
        return Err(operand(format!(
            "a tensor of {before} elements cannot have {after}"
        )));
    }
    Ok(())
}

/// `Flatten`: two dimensions, split at `axis`.
pub(super) fn flatten(s: &mut Scope, n: &Node) -> Result<Vec<Val>> {
    let x = n.input(0)?;
    let shape = s.shape(x);
    let at = match n.attrs.int_or("axis", 1)? {
        at if at == shape.len() as i64 => shape.len(),
        at => axis(at, shape.len())?,
    };
    let (outer, inner) = shape.split_at(at);
    reshaped(s, x, vec![DimExpr::product(outer), DimExpr::product(inner)])
}

/// Axes of `Squeeze` and `Unsqueeze`: an operand since version 13.
pub(in super::super) fn given_axes(s: &Scope, n: &Node) -> Result<Option<Vec<i64>>> {
    match n.optional(1) {
        Some(v) => s.numbers(v, "the axes").map(Some),
        None => Ok(n.attrs.ints("axes")?.map(<[i64]>::to_vec)),
    }
}

/// The dimensions that are left after `Squeeze`.
pub(in super::super) fn squeezed(
    shape: &[DimExpr],
    given: Option<Vec<i64>>,
) -> Result<Vec<DimExpr>> {
    let one = DimExpr::from(1);
    let drop = match given {
        Some(given) => axes(&given, shape.len())?,
        None if shape.iter().any(|d| d.as_const().is_none()) => {
            return Err(dynamic(
                "Squeeze without axes of a tensor with unknown dimensions",
            ));
        }
        None => (0..shape.len()).filter(|&i| shape[i] == one).collect(),
    };
    if let Some(i) = drop.iter().find(|&&i| shape[i] != one) {
        return Err(operand(format!("dimension {i} is {}, not 1", shape[*i])));
    }
    let kept = shape.iter().enumerate().filter(|(i, _)| !drop.contains(i));
    Ok(kept.map(|(_, d)| d.clone()).collect())
}

/// `Squeeze`
pub(super) fn squeeze(s: &mut Scope, n: &Node) -> Result<Vec<Val>> {
    let x = n.input(0)?;
    let given = given_axes(s, n)?;
    let shape = s.shape(x);
    // An unknown dimension that is squeezed must be 1.
    let one = DimExpr::from(1);
    for &a in given.iter().flatten() {
        let dim = shape[axis(a, shape.len())?].clone();
        s.same_dim(&dim, &one, "Squeeze")?;
    }
    let out = squeezed(&shape, given)?;
    reshaped(s, x, out)
}

/// The dimensions after `Unsqueeze`.
pub(in super::super) fn unsqueezed(shape: &[DimExpr], given: &[i64]) -> Result<Vec<DimExpr>> {
    let mut out = shape.to_vec();
    for at in axes(given, shape.len().saturating_add(given.len()))? {
        out.insert(at.min(out.len()), DimExpr::from(1));
    }
    Ok(out)
}

/// `Unsqueeze`
pub(super) fn unsqueeze(s: &mut Scope, n: &Node) -> Result<Vec<Val>> {
    let x = n.input(0)?;
    let given = given_axes(s, n)?.ok_or_else(|| operand("Unsqueeze needs axes"))?;
    let out = unsqueezed(&s.shape(x), &given)?;
    reshaped(s, x, out)
}

/// The dimensions of a small integer tensor as expressions.
pub(in super::super) fn sym_shape(v: &SymTensor) -> Vec<DimExpr> {
    v.dims.iter().map(|&d| DimExpr::from(d as i64)).collect()
}
