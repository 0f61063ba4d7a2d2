//! Attention, decomposed.
//!
//! ```text
//! softmax(scale · q·kᵀ + mask) · v        q[b, h, s, d], k[b, h, t, d], v[b, h, t, e]
//! ```
//!
//! The factor may stand before or after the first product, on either operand or split between
//! them; keys and values may be repeated for groups of query heads; the softmax may be guarded
//! against rows without any key. See [`super::mask`] for masks and [`super::view`] for how
//! heads are found. The result is in the layout of `attention`, `[b, s, h·d]`, arranged back;
//! canonicalization removes what meets its inverse.

use super::mask::{Mask, Part, hides};
use super::pattern::Pattern;
use super::view::{Piece, View, size};
use crate::rewrite::{Replacement, Rewriter};
use qcc_ir::expr::{BinaryFn, UnaryFn};
use qcc_ir::graph::{AttentionAttrs, Elem, Op, OpKind, ReduceFn, TensorType, ValueId};
use qcc_ir::{DType, DimExpr};

/// Ops between the first product and the softmax.
const DEPTH: u32 = 16;

/// What was found above a product with `v`.
struct Found {
    q: View,
    k: View,
    v: View,
    heads: u64,
    kv_heads: u64,
    scale: f64,
    mask: Mask,
}

pub(super) fn attention(rw: &mut Rewriter<'_>, op: &Op) -> Replacement {
    if op.kind != OpKind::MatMul || rw.src.ty(op.results[0]).rank() != 4 {
        return Ok(None);
    }
    let mut p = Pattern::new(rw);
    let Some(found) = p.attempt(|p| find(p, op)) else {
        return Ok(None);
    };
    let loc = p.loc(op);
    rw.set_loc(loc);
    Ok(build(rw, op, &found).map(|v| vec![v]))
}

fn find(p: &mut Pattern, op: &Op) -> Option<Found> {
    let (softmax, guard) = p
        .attempt(|p| guarded(p, op.operands[0]))
        .unwrap_or((op.operands[0], None));
    let rank = p.ty(softmax).rank();
    let softmax = p.op(
        softmax,
        |k| matches!(k, OpKind::Softmax { axis } if axis + 1 == rank),
    )?;
    let mut mask = Mask::default();
    let (product, scale) = scores(p, softmax.operands[0], &mut mask, DEPTH)?;
    if guard.is_some_and(|m| !mask.sources.contains(&m)) {
        return None;
    }
    let product = p.op(product, |k| *k == OpKind::MatMul)?;
    let q = View::trace(p, product.operands[0], true);
    let k = View::trace(p, product.operands[1], true);
    let v = View::trace(p, op.operands[1], false);
    let heads = number(&p.ty(op.results[0]).shape[1])?;
    let kv_heads = grouped(&k)?;
    let divides = heads.is_multiple_of(kv_heads);
    if grouped(&v)? != kv_heads || grouped(&q)? != heads || !divides {
        return None;
    }
    let arranged = [(&q, 2, 3), (&k, 3, 2), (&v, 2, 3)];
    if !arranged
        .iter()
        .all(|(view, len, width)| view.holds(&rows(view, *len, *width)))
    {
        return None;
    }
    Some(Found {
        scale: scale * q.scale * k.scale,
        q,
        k,
        v,
        heads,
        kv_heads,
        mask,
    })
}

fn number(d: &DimExpr) -> Option<u64> {
    d.as_const()
        .and_then(|c| u64::try_from(c).ok())
        .filter(|&c| c > 0)
}

/// `select(s ≠ s, 0, s)`, where NaN becomes 0, or `select(max(mask) = −∞, 0, s)`: rows without
/// any key, which `attention` makes zeros by itself. Also the mask, in the second form.
fn guarded(p: &mut Pattern, v: ValueId) -> Option<(ValueId, Option<ValueId>)> {
    let op = p.op(v, |k| *k == OpKind::Select)?;
    let [c, a, b] = [op.operands[0], op.operands[1], op.operands[2]];
    if p.number(a) != Some(0.0) {
        return None;
    }
    if let Some(same) = p.binary(c, BinaryFn::Ne) {
        return (same == [b, b]).then_some((b, None));
    }
    let (max, low) = p.with_number(c, BinaryFn::Eq)?;
    let mask = p.row_reduce(max, ReduceFn::Max)?;
    (low == f64::NEG_INFINITY).then_some((b, Some(mask)))
}

/// The product under masks and factors, and the factor. A factor outside of a mask would scale
/// the mask too, so none may follow it.
fn scores(p: &mut Pattern, v: ValueId, mask: &mut Mask, depth: u32) -> Option<(ValueId, f64)> {
    let depth = depth.checked_sub(1)?;
    if p.rw.def(v)?.kind == OpKind::MatMul {
        return Some((v, 1.0));
    }
    let unscaled = p.unscaled(v);
    if unscaled.0 != v {
        let product = p.rw.def(unscaled.0).filter(|d| d.kind == OpKind::MatMul);
        return product.map(|_| unscaled);
    }
    if let Some(op) = p.op(v, |k| *k == OpKind::Select) {
        let [c, a, b] = [op.operands[0], op.operands[1], op.operands[2]];
        let (inner, keep) = match (p.number(a), p.number(b)) {
            (_, Some(low)) if hides(low) => (a, true),
            (Some(low), _) if hides(low) => (b, false),
            _ => return None,
        };
        if p.ty(inner) != p.ty(v) {
            return None;
        }
        mask.require(p, c, keep)?;
        return scores(p, inner, mask, depth);
    }
    let [a, b] = p.binary(v, BinaryFn::Add)?;
    for (inner, added) in [(a, b), (b, a)] {
        let found = p.attempt(|p| {
            let mut with = mask.clone();
            let found = scores(p, inner, &mut with, depth).filter(|_| p.ty(inner) == p.ty(v))?;
            with.add(p, added)?;
            Some((found, with))
        });
        if let Some((found, with)) = found {
            *mask = with;
            return Some(found);
        }
    }
    None
}

/// How many different heads dimension 1 holds: what is left without an innermost repetition.
fn grouped(view: &View) -> Option<u64> {
    let own = without_repeats(view.dims.get(1)?);
    // A repetition outside would order the heads differently.
    let inner_only = own.iter().all(|p| p.axis.is_some());
    inner_only.then(|| number(&size(own))).flatten()
}

fn without_repeats(pieces: &[Piece]) -> &[Piece] {
    let own = pieces.iter().rposition(|p| p.axis.is_some());
    &pieces[..own.map_or(0, |at| at + 1)]
}

/// The pieces as `[b, t, h·d]`.
fn rows(view: &View, len: usize, width: usize) -> [Vec<Piece>; 3] {
    let heads = without_repeats(&view.dims[1]);
    let columns = [heads, &view.dims[width]].concat();
    [view.dims[0].clone(), view.dims[len].clone(), columns]
}

fn build(rw: &mut Rewriter<'_>, op: &Op, found: &Found) -> Option<ValueId> {
    let Found { q, k, v, .. } = found;
    // Dimensions of q and v are [b, h, s, d], those of k, which is transposed, [b, h, d, t].
    let mut arrange = |view: &View, suffix: &str, len: usize, width: usize| {
        view.arrange(rw, op, suffix, &rows(view, len, width))
    };
    let q = arrange(q, "q", 2, 3)?;
    let k = arrange(k, "k", 3, 2)?;
    let v = arrange(v, "v", 2, 3)?;
    let mut operands = vec![q, k, v];
    let mask = mask(rw, op, &found.mask)?;
    operands.extend(mask);
    let attrs = AttentionAttrs {
        heads: found.heads,
        kv_heads: found.kv_heads,
        scale: (found.scale as f32).to_bits(),
        mask: mask.is_some(),
        causal: found.mask.causal,
    };
    let out = rw.src.ty(op.results[0]).clone();
    let [b, h, s, d] = out.shape.as_slice() else {
        return None;
    };
    let ty = |shape: Vec<DimExpr>| TensorType {
        elem: out.elem.clone(),
        shape,
    };
    let kind = OpKind::Attention { attrs, expr: None };
    let rows = ty(vec![b.clone(), s.clone(), h * d]);
    let y = rw.step(op, "heads", kind, &operands, rows);
    let split =
        rw.b.reshape(y, vec![b.clone(), s.clone(), h.clone(), d.clone()]);
    let perm = vec![0, 2, 1, 3];
    rw.put(op, OpKind::Transpose { perm }, &[split]).pop()
}

/// The mask operand: all conditions together, or all numbers; conditions beside numbers become
/// numbers. The inner option is absent if nothing is masked, the outer one if it cannot be built.
fn mask(rw: &mut Rewriter<'_>, op: &Op, mask: &Mask) -> Option<Option<ValueId>> {
    let keep = join(rw, op, &mask.keep, BinaryFn::And)?;
    let added = join(rw, op, &mask.added, BinaryFn::Add)?;
    let (Some(keep), Some(added)) = (keep, added) else {
        return Some(keep.or(added));
    };
    let elem = rw.b.ty(added).elem.clone();
    let dtype = elem.plain()?;
    let zero = rw.b.scalar(dtype, 0.0);
    let low = rw.b.scalar(dtype, f64::NEG_INFINITY);
    let hidden = rw.b.infer(OpKind::Select, &[keep, zero, low], elem).ok()?;
    rw.b.binary(BinaryFn::Add, hidden[0], added).ok().map(Some)
}

/// All parts under `f`, each in its shape of four dimensions.
fn join(rw: &mut Rewriter<'_>, op: &Op, parts: &[Part], f: BinaryFn) -> Option<Option<ValueId>> {
    let mut all = None;
    for part in parts {
        let mut new = rw.get(part.value);
        if part.negated {
            new = rw.b.unary(UnaryFn::Not, new).ok()?;
        }
        let ty = TensorType {
            elem: rw.b.ty(new).elem.clone(),
            shape: part.shape.clone(),
        };
        let plain = matches!(ty.elem, Elem::Plain(d) if d == DType::Bool || d.is_float());
        if !plain {
            return None;
        }
        let shaped = match rw.b.ty(new).shape == part.shape {
            true => new,
            false => rw.step(op, "mask", OpKind::Reshape, &[new], ty),
        };
        all = Some(match all {
            None => shaped,
            Some(before) => rw.b.binary(f, before, shaped).ok()?,
        });
    }
    Some(all)
}
