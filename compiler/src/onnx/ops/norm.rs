//! Normalizations.

use qcc_ir::DimExpr;
use qcc_ir::diag::Result;
use qcc_ir::expr::{BinaryFn, UnaryFn};
use qcc_ir::graph::{OpKind, ReduceFn, ValueId};

use super::super::error::{self, unsupported};
use super::super::node::{Node, Val, axis, operand};
use super::super::scope::Scope;
use super::one;
use super::reduce::over;

/// `LayerNormalization`
pub(super) fn layer(s: &mut Scope, n: &Node) -> Result<Vec<Val>> {
    n.only_outputs(1)?;
    let eps = n.attrs.float_or("epsilon", 1e-5)?.to_bits();
    rows(s, n, |s, x, gain, bias| {
        let mut operands = vec![x, gain];
        operands.extend(bias);
        s.b.same(OpKind::LayerNorm { eps, expr: None }, &operands)
    })
}

/// `RMSNormalization`
pub(super) fn rms(s: &mut Scope, n: &Node) -> Result<Vec<Val>> {
    let eps = n.attrs.float_or("epsilon", 1e-5)?.to_bits();
    rows(s, n, |s, x, gain, _| {
        s.b.same(OpKind::RmsNorm { eps, expr: None }, &[x, gain])
    })
}

/// Normalizes rows: the dimensions from `axis` on are seen as one.
fn rows(
    s: &mut Scope,
    n: &Node,
    norm: impl Fn(&mut Scope, ValueId, ValueId, Option<ValueId>) -> Result<ValueId>,
) -> Result<Vec<Val>> {
    n.attrs.only("stash_type", 1)?;
    let x = s.value(n.input(0)?)?;
    let ty = s.b.ty(x).clone();
    let from = axis(n.attrs.int_or("axis", -1)?, ty.rank())?;
    let width = DimExpr::product(&ty.shape[from..]);
    let parameter = |s: &mut Scope, v: &Val| {
        let v = s.value(v)?;
        let found = s.b.ty(v).clone();
        if found.elem != ty.elem {
            return Err(operand(format!("the input is {ty}, gain or bias {found}")));
        }
        if found.numel() == width {
            return Ok(s.b.reshape(v, vec![width.clone()]));
        }
        let own = &ty.shape[from..];
        if s.broadcast(&found.shape, own)? != own {
            return Err(operand(format!(
                "gain or bias {found} does not fit rows of {width}"
            )));
        }
        let wide = s.expand(v, own.to_vec());
        Ok(s.b.reshape(wide, vec![width.clone()]))
    };
    let gain = parameter(s, n.input(1)?)?;
    let bias = n.optional(2).map(|v| parameter(s, v)).transpose()?;
    let mut flat = ty.shape[..from].to_vec();
    flat.push(width.clone());
    let flat = s.b.reshape(x, flat);
    let y = norm(s, flat, gain, bias)?;
    one(s.b.reshape(y, ty.shape.clone()))
}

/// A vector of channels, shaped to broadcast over `rank` dimensions with channels second.
fn channels(s: &mut Scope, n: &Node, at: usize, rank: usize) -> Result<ValueId> {
    let v = s.value(n.input(at)?)?;
    let shape = s.b.ty(v).shape.clone();
    let [count] = shape.as_slice() else {
        return Err(operand(format!(
            "operand {at} is {}, not a vector",
            s.b.ty(v)
        )));
    };
    let mut wide = vec![DimExpr::from(1); rank.max(2) - 1];
    wide[0] = count.clone();
    Ok(s.b.reshape(v, wide))
}

/// `BatchNormalization` with fixed statistics: `x·g + (b − mean·g)`, `g = gain/√(var + ε)`.
pub(super) fn batch(s: &mut Scope, n: &Node) -> Result<Vec<Val>> {
    n.attrs.ignore(&["momentum"]);
    n.attrs.only("training_mode", 0)?;
    n.only_outputs(1)?;
    let eps = n.attrs.float_or("epsilon", 1e-5)?;
    let x = s.value(n.input(0)?)?;
    let rank = s.b.ty(x).rank();
    if rank < 2 {
        return Err(operand("BatchNormalization needs channels"));
    }
    let [gain, bias, mean, var] = [1, 2, 3, 4].map(|at| channels(s, n, at, rank));
    let stable = s.binary_scalar(BinaryFn::Add, var?, eps.into())?;
    let deviation = s.b.unary(UnaryFn::Sqrt, stable)?;
    let factor = s.binary(BinaryFn::Div, gain?, deviation)?;
    let shift = s.binary(BinaryFn::Mul, mean?, factor)?;
    let shift = s.binary(BinaryFn::Sub, bias?, shift)?;
    let scaled = s.binary(BinaryFn::Mul, x, factor)?;
    s.binary(BinaryFn::Add, scaled, shift).and_then(one)
}

/// `InstanceNormalization`: each channel of each sample is normalized over space.
pub(super) fn instance(s: &mut Scope, n: &Node) -> Result<Vec<Val>> {
    let eps = n.attrs.float_or("epsilon", 1e-5)?;
    let x = s.value(n.input(0)?)?;
    let rank = s.b.ty(x).rank();
    if rank < 3 {
        return Err(unsupported(
            error::OPERAND,
            "InstanceNormalization without spatial dimensions is not supported",
        ));
    }
    let (gain, bias) = (channels(s, n, 1, rank)?, channels(s, n, 2, rank)?);
    let unit = standardized(s, x, (2..rank).collect(), eps)?;
    let scaled = s.binary(BinaryFn::Mul, unit, gain)?;
    s.binary(BinaryFn::Add, scaled, bias).and_then(one)
}

/// `(x − mean) / √(var + ε)` over some axes.
fn standardized(s: &mut Scope, x: ValueId, axes: Vec<usize>, eps: f32) -> Result<ValueId> {
    let mean = over(s, ReduceFn::Mean, x, axes.clone(), true)?;
    let centered = s.binary(BinaryFn::Sub, x, mean)?;
    let square = s.binary(BinaryFn::Mul, centered, centered)?;
    let var = over(s, ReduceFn::Mean, square, axes, true)?;
    let stable = s.binary_scalar(BinaryFn::Add, var, eps.into())?;
    let deviation = s.b.unary(UnaryFn::Sqrt, stable)?;
    s.binary(BinaryFn::Div, centered, deviation)
}

/// `GroupNormalization` of operator set 21: groups of channels are normalized, gain and bias are
/// per channel.
pub(super) fn group(s: &mut Scope, n: &Node) -> Result<Vec<Val>> {
    n.attrs.only("stash_type", 1)?;
    let eps = n.attrs.float_or("epsilon", 1e-5)?;
    let groups = n.attrs.int_or("num_groups", 0)?;
    let x = s.value(n.input(0)?)?;
    let shape = s.b.ty(x).shape.clone();
    let [b, c, space @ ..] = shape.as_slice() else {
        return Err(operand("GroupNormalization needs channels"));
    };
    let count = DimExpr::from(groups);
    let Some(width) = c.exact_div(&count).filter(|_| groups > 0) else {
        return Err(operand(format!(
            "{c} channels do not split into {groups} groups"
        )));
    };
    let (gain, bias) = (
        channels(s, n, 1, shape.len())?,
        channels(s, n, 2, shape.len())?,
    );
    if s.b.ty(gain).shape[0] != *c {
        return Err(unsupported(
            error::OPERAND,
            "GroupNormalization with a gain per group (before operator set 21) is not supported",
        ));
    }
    let elements = &width * &DimExpr::product(space);
    let grouped = s.b.reshape(x, vec![b.clone(), count, elements]);
    let unit = standardized(s, grouped, vec![2], eps)?;
    let unit = s.b.reshape(unit, shape.clone());
    let scaled = s.binary(BinaryFn::Mul, unit, gain)?;
    s.binary(BinaryFn::Add, scaled, bias).and_then(one)
}
