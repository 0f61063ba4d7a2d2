//! Rules for ops that only move elements.

use crate::rewrite::{Replacement, Rewriter};
use crate::weights::Transform;
use qcc_ir::DimExpr;
use qcc_ir::graph::{Op, OpKind, ValueId, Window, broadcast};

/// `x` itself, if it has the type of the op's result.
fn identity(rw: &Rewriter<'_>, op: &Op) -> Option<Vec<ValueId>> {
    let x = op.operands[0];
    (rw.src.ty(x) == rw.src.ty(op.results[0])).then(|| vec![rw.get(x)])
}

/// The op before, if it is of the kind that `is` accepts.
fn before<'m>(rw: &Rewriter<'m>, op: &Op, is: fn(&OpKind) -> bool) -> Option<&'m Op> {
    rw.def(op.operands[0]).filter(|d| is(&d.kind))
}

/// A splat stays one in any layout.
fn splat(rw: &mut Rewriter<'_>, op: &Op) -> Option<Vec<ValueId>> {
    let inner = before(rw, op, |k| matches!(k, OpKind::Splat { .. }))?;
    Some(rw.put(op, inner.kind.clone(), &[]))
}

/// `op` applied to the operand of the op before it.
fn merged(rw: &mut Rewriter<'_>, op: &Op, inner: &Op, kind: OpKind) -> Vec<ValueId> {
    rw.join_loc(inner, op);
    let x = rw.get(inner.operands[0]);
    rw.put(op, kind, &[x])
}

/// To the same shape; after another; of a splat.
pub(super) fn reshape(rw: &mut Rewriter<'_>, op: &Op) -> Replacement {
    let OpKind::Reshape = op.kind else {
        return Ok(None);
    };
    if let Some(x) = identity(rw, op) {
        return Ok(Some(x));
    }
    if let Some(inner) = before(rw, op, |k| *k == OpKind::Reshape) {
        return Ok(Some(merged(rw, op, inner, OpKind::Reshape)));
    }
    Ok(splat(rw, op))
}

/// In the same order; after another; of a splat.
pub(super) fn transpose(rw: &mut Rewriter<'_>, op: &Op) -> Replacement {
    let OpKind::Transpose { perm } = &op.kind else {
        return Ok(None);
    };
    if perm.iter().enumerate().all(|(i, p)| i == *p) {
        return Ok(Some(vec![rw.get(op.operands[0])]));
    }
    let inner = before(rw, op, |k| matches!(k, OpKind::Transpose { .. }));
    if let Some(inner) = inner
        && let OpKind::Transpose { perm: first } = &inner.kind
    {
        let perm = perm.iter().map(|p| first[*p]).collect();
        return Ok(Some(merged(rw, op, inner, OpKind::Transpose { perm })));
    }
    Ok(splat(rw, op))
}

/// To the same shape; after another; of a splat.
pub(super) fn expand(rw: &mut Rewriter<'_>, op: &Op) -> Replacement {
    let OpKind::Expand = op.kind else {
        return Ok(None);
    };
    if let Some(x) = identity(rw, op) {
        return Ok(Some(x));
    }
    if let Some(inner) = before(rw, op, |k| *k == OpKind::Expand) {
        return Ok(Some(merged(rw, op, inner, OpKind::Expand)));
    }
    Ok(splat(rw, op))
}

/// Everything; after another without steps; of a splat.
pub(super) fn slice(rw: &mut Rewriter<'_>, op: &Op) -> Replacement {
    let OpKind::Slice {
        starts,
        ends,
        steps,
    } = &op.kind
    else {
        return Ok(None);
    };
    let zero = DimExpr::from(0);
    let whole = starts.iter().all(|s| *s == zero) && steps.iter().all(|s| *s == 1);
    if whole && let Some(x) = identity(rw, op) {
        return Ok(Some(x));
    }
    let inner = before(rw, op, |k| matches!(k, OpKind::Slice { .. }));
    if let Some(inner) = inner
        && let OpKind::Slice {
            starts: first,
            steps: unit,
            ..
        } = &inner.kind
        && unit.iter().all(|s| *s == 1)
    {
        let shift = |v: &[DimExpr]| first.iter().zip(v).map(|(a, b)| a + b).collect();
        let kind = OpKind::Slice {
            starts: shift(starts),
            ends: shift(ends),
            steps: steps.clone(),
        };
        return Ok(Some(merged(rw, op, inner, kind)));
    }
    Ok(splat(rw, op))
}

/// A reshaped, transposed or cast constant is a constant derived from it, computed when read.
pub(super) fn constant_layout(rw: &mut Rewriter<'_>, op: &Op) -> Replacement {
    let Some((&x, to)) = op.operands.first().zip(op.results.first()) else {
        return Ok(None);
    };
    let to = rw.src.ty(*to);
    let Some(from) = rw.weight_of(x).map(|(_, w)| w.dtype) else {
        return Ok(None);
    };
    let transform = match (&op.kind, to.fixed_dims(), to.elem.plain()) {
        (OpKind::Reshape, Some(dims), _) => Transform::Reshape { dims },
        (OpKind::Transpose { perm }, ..) if from.bits() >= 8 => {
            Transform::Transpose { perm: perm.clone() }
        }
        (OpKind::Cast, _, Some(dtype)) if from.is_float() && dtype.is_float() => {
            Transform::Cast { dtype }
        }
        _ => return Ok(None),
    };
    Ok(Some(vec![rw.derived(x, transform)?]))
}

/// Of one operand; of the result of a concat along the same axis.
pub(super) fn concat(rw: &mut Rewriter<'_>, op: &Op) -> Replacement {
    let OpKind::Concat { axis } = op.kind else {
        return Ok(None);
    };
    if op.operands.len() == 1 {
        return Ok(Some(vec![rw.get(op.operands[0])]));
    }
    let nested = |v: &ValueId| rw.def(*v).filter(|d| d.kind == OpKind::Concat { axis });
    if op.operands.iter().all(|v| nested(v).is_none()) {
        return Ok(None);
    }
    let mut loc = op.loc.clone();
    let mut operands = Vec::new();
    for v in &op.operands {
        match nested(v) {
            Some(inner) => {
                loc = inner.loc.join(&loc);
                operands.extend(inner.operands.iter().map(|v| rw.get(*v)));
            }
            None => operands.push(rw.get(*v)),
        }
    }
    rw.set_loc(loc);
    Ok(Some(rw.put(op, op.kind.clone(), &operands)))
}

/// By nothing; or spatial zeros in front of a convolution, which pads by itself.
pub(super) fn pad(rw: &mut Rewriter<'_>, op: &Op) -> Replacement {
    match &op.kind {
        OpKind::Pad { lo, hi, .. } if lo.iter().chain(hi).all(|n| *n == 0) => {
            Ok(Some(vec![rw.get(op.operands[0])]))
        }
        OpKind::Conv {
            window,
            groups,
            expr,
        } => {
            let Some(inner) = before(rw, op, |k| matches!(k, OpKind::Pad { .. })) else {
                return Ok(None);
            };
            let Some(window) = padded(window, &inner.kind) else {
                return Ok(None);
            };
            let kind = OpKind::Conv {
                window,
                groups: *groups,
                expr: expr.clone(),
            };
            rw.join_loc(inner, op);
            let mut operands = rw.operands(op);
            operands[0] = rw.get(inner.operands[0]);
            Ok(Some(rw.put(op, kind, &operands)))
        }
        _ => Ok(None),
    }
}

/// The window with the padding of a `pad` op added, if that is of zeros and spatial only.
fn padded(window: &Window, pad: &OpKind) -> Option<Window> {
    let OpKind::Pad { lo, hi, value } = pad else {
        return None;
    };
    let ([lb, lc, lo @ ..], [hb, hc, hi @ ..]) = (lo.as_slice(), hi.as_slice()) else {
        return None;
    };
    if [lb, lc, hb, hc].iter().any(|n| **n != 0) || f64::from_bits(*value) != 0.0 {
        return None;
    }
    let add = |a: &[u64], b: &[u64]| -> Option<Vec<u64>> {
        a.iter().zip(b).map(|(a, b)| a.checked_add(*b)).collect()
    };
    Some(Window {
        pad_lo: add(&window.pad_lo, lo)?,
        pad_hi: add(&window.pad_hi, hi)?,
        ..window.clone()
    })
}

/// An elementwise op broadcasts by itself, as long as its result keeps its shape.
pub(super) fn implicit_broadcast(rw: &mut Rewriter<'_>, op: &Op) -> Replacement {
    if !matches!(op.kind, OpKind::Binary(_) | OpKind::Select) {
        return Ok(None);
    }
    for (i, v) in op.operands.iter().enumerate() {
        let Some(inner) = rw.def(*v).filter(|d| d.kind == OpKind::Expand) else {
            continue;
        };
        let x = inner.operands[0];
        let mut shape = rw.src.ty(x).shape.clone();
        for (j, other) in op.operands.iter().enumerate().filter(|(j, _)| *j != i) {
            // The op is valid, so its operands broadcast; a smaller one of them may not.
            match broadcast(&shape, &rw.src.ty(*other).shape) {
                Ok(s) => shape = s,
                Err(_) => break,
            }
            debug_assert!(j != i);
        }
        if shape == rw.src.ty(op.results[0]).shape {
            let mut operands = rw.operands(op);
            operands[i] = rw.get(x);
            rw.join_loc(inner, op);
            return Ok(Some(rw.put(op, op.kind.clone(), &operands)));
        }
    }
    Ok(None)
}
