//! RMS normalization.
//!
//! ```text
//! gain · x / √(mean(x²) + ε)      along the last dimension
//! ```
//!
//! Models in 16-bit formats compute it in binary32 between two casts; since `rms_norm` computes
//! in binary32 anyway, the casts belong to it. Without a gain the gain is 1.

use super::pattern::Pattern;
use crate::rewrite::{Replacement, Rewriter};
use qcc_ir::expr::BinaryFn;
use qcc_ir::graph::{Op, OpKind, ReduceFn, TensorType, ValueId};

pub(super) fn rms_norm(rw: &mut Rewriter<'_>, op: &Op) -> Replacement {
    let root = op.results[0];
    let mut p = Pattern::new(rw);
    let with_gain = p.either(root, BinaryFn::Mul, |p, unit, gain| {
        let (x, eps) = through_casts(p, unit)?;
        p.row_vector(gain, x).then_some((x, eps, Some(gain)))
    });
    let found = with_gain.or_else(|| normalized(&mut p, root).map(|(x, eps)| (x, eps, None)));
    let Some((x, eps, gain)) = found.filter(|(x, ..)| p.ty(*x) == p.ty(root)) else {
        return Ok(None);
    };
    let loc = p.loc(op);
    rw.set_loc(loc);
    let gain = row(rw, op, x, gain, 1.0);
    let kind = OpKind::RmsNorm {
        eps: eps.to_bits(),
        expr: None,
    };
    let operands = [rw.get(x), gain];
    Ok(Some(rw.put(op, kind, &operands)))
}

/// A vector `[n]` for the rows of `x`: the given one, or a number.
pub(super) fn row(
    rw: &mut Rewriter<'_>,
    op: &Op,
    x: ValueId,
    given: Option<ValueId>,
    number: f64,
) -> ValueId {
    let ty = rw.src.ty(x);
    let ty = TensorType {
        elem: ty.elem.clone(),
        shape: ty.shape.last().cloned().into_iter().collect(),
    };
    match given {
        Some(v) => {
            let new = rw.get(v);
            rw.b.reshape(new, ty.shape)
        }
        None => {
            let value = number.to_bits();
            rw.step(op, "gain", OpKind::Splat { value }, &[], ty)
        }
    }
}

/// As [`normalized`], also where it is computed in a wider format than that of `x`.
fn through_casts(p: &mut Pattern, v: ValueId) -> Option<(ValueId, f32)> {
    normalized(p, v).or_else(|| {
        p.attempt(|p| {
            let wide = p.before_cast(v)?;
            let (x, eps) = normalized(p, wide)?;
            let narrow = p.before_cast(x)?;
            (p.ty(narrow).elem == p.ty(v).elem).then_some((narrow, eps))
        })
    })
}

/// `x` of `x/√(mean(x²) + ε)`, and `ε`.
fn normalized(p: &mut Pattern, v: ValueId) -> Option<(ValueId, f32)> {
    p.either(v, BinaryFn::Mul, |p, x, factor| {
        let (mean, eps) = p.reciprocal_root(factor)?;
        mean_square(p, mean, x)?;
        Some((x, eps))
    })
    .or_else(|| {
        p.attempt(|p| {
            let [x, root] = p.binary(v, BinaryFn::Div)?;
            let (mean, eps) = p.root(root)?;
            mean_square(p, mean, x)?;
            Some((x, eps))
        })
    })
}

fn mean_square(p: &mut Pattern, v: ValueId, x: ValueId) -> Option<()> {
    let square = p.row_reduce(v, ReduceFn::Mean)?;
    p.square(square, x).then_some(())
}
