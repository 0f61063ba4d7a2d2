//! Rotary position embedding, the half-split form.
//!
//! ```text
//! x·cos + concat(−x₂, x₁)·sin                          x = (x₁, x₂) along the last dimension
//! concat(x₁·c − x₂·s, x₂·c + x₁·s)
//! ```
//!
//! In the first form the tables are twice as wide as they need to be; both halves must be known
//! to be equal, and the first is kept. Heads stand before or after the positions; which of
//! the two a dimension is, is read off the tables, which have no heads.

use super::pattern::Pattern;
use crate::rewrite::{Replacement, Rewriter};
use qcc_ir::diag::Result;
use qcc_ir::expr::{BinaryFn, UnaryFn};
use qcc_ir::graph::{Loc, Op, OpKind, RotaryAttrs, TensorType, ValueId};
use qcc_ir::{DType, DimExpr};

/// Ops between a table and the angles that it is made of.
const DEPTH: u32 = 16;

/// What was found: the operand, and the tables in full or half width.
struct Found {
    x: ValueId,
    cos: ValueId,
    sin: ValueId,
}

pub(super) fn rotary(rw: &mut Rewriter<'_>, op: &Op) -> Replacement {
    if !matches!(
        op.kind,
        OpKind::Binary(BinaryFn::Add) | OpKind::Concat { .. }
    ) {
        return Ok(None);
    }
    let mut p = Pattern::new(rw);
    let Some(found) = p
        .attempt(|p| full(p, op))
        .or_else(|| p.attempt(|p| halves(p, op)))
    else {
        return Ok(None);
    };
    let Some(layout) = Layout::of(p.ty(found.x), p.ty(found.cos), p.ty(found.sin)) else {
        return Ok(None);
    };
    let loc = p.loc(op);
    build(rw, op, &found, &layout, &loc).map(|v| Some(vec![v]))
}

/// `x·cos + rotated(x)·sin`
fn full(p: &mut Pattern, op: &Op) -> Option<Found> {
    let root = *op.results.first()?;
    p.either(root, BinaryFn::Add, |p, straight, turned| {
        p.either(turned, BinaryFn::Mul, |p, rotated, sin| {
            let x = half_turn(p, rotated)?;
            let cos = p.either(straight, BinaryFn::Mul, |_, a, cos| (a == x).then_some(cos))?;
            let both = equal_halves(p, cos, DEPTH) && equal_halves(p, sin, DEPTH);
            (both && p.ty(x) == p.ty(root)).then_some(Found { x, cos, sin })
        })
    })
}

/// `x` of `concat(−x₂, x₁)`.
fn half_turn(p: &mut Pattern, v: ValueId) -> Option<ValueId> {
    let [a, b] = last_concat(p, v)?;
    let second = p.unary(a, UnaryFn::Neg)?;
    let (x, at) = half(p, second)?;
    (at == 1 && half(p, b)? == (x, 0)).then_some(x)
}

/// `concat(x₁·c − x₂·s, x₂·c + x₁·s)`
fn halves(p: &mut Pattern, op: &Op) -> Option<Found> {
    let root = *op.results.first()?;
    let [first, second] = last_concat(p, root)?;
    let [a, b] = p.binary(first, BinaryFn::Sub)?;
    let (x, c) = p.either(a, BinaryFn::Mul, |p, x1, c| {
        let (x, at) = half(p, x1)?;
        (at == 0).then_some((x, c))
    })?;
    let s = p.either(b, BinaryFn::Mul, |p, x2, s| {
        (half(p, x2)? == (x, 1)).then_some(s)
    })?;
    p.either(second, BinaryFn::Add, |p, u, w| {
        p.either(u, BinaryFn::Mul, |p, x2, d| {
            (d == c && half(p, x2)? == (x, 1)).then_some(())
        })?;
        p.either(w, BinaryFn::Mul, |p, x1, d| {
            (d == s && half(p, x1)? == (x, 0)).then_some(())
        })
    })?;
    (p.ty(x) == p.ty(root)).then_some(Found { x, cos: c, sin: s })
}

/// The two operands of a concatenation along the last dimension.
fn last_concat(p: &mut Pattern, v: ValueId) -> Option<[ValueId; 2]> {
    let last = p.ty(v).rank().checked_sub(1)?;
    let op = p.op(v, |k| *k == OpKind::Concat { axis: last })?;
    op.operands.as_slice().try_into().ok()
}

/// `x` of one half of its last dimension, and which half.
fn half(p: &mut Pattern, v: ValueId) -> Option<(ValueId, usize)> {
    let op = p.op(v, |k| matches!(k, OpKind::Slice { .. }))?;
    let x = op.operands[0];
    let OpKind::Slice {
        starts,
        ends,
        steps,
    } = &op.kind
    else {
        return None;
    };
    let shape = &p.ty(x).shape;
    let (last, lead) = shape.split_last()?;
    let middle = last.exact_div(&DimExpr::from(2))?;
    let zero = DimExpr::from(0);
    let whole = (0..lead.len()).all(|i| starts[i] == zero && ends[i] == shape[i]);
    if !whole || steps.iter().any(|&s| s != 1) {
        return None;
    }
    match (starts.last()?, ends.last()?) {
        (s, e) if *s == zero && *e == middle => Some((x, 0)),
        (s, e) if *s == middle && e == last => Some((x, 1)),
        _ => None,
    }
}

/// Whether the last dimension of `v` is the same twice.
fn equal_halves(p: &mut Pattern, v: ValueId, depth: u32) -> bool {
    let Some(depth) = depth.checked_sub(1) else {
        return false;
    };
    if p.number(v).is_some() {
        return true;
    }
    if let Some([a, b]) = last_concat(p, v)
        && a == b
    {
        return true;
    }
    let Some(op) = p.rw.def(v) else { return false };
    let src = p.rw.src;
    let last = |v: ValueId| src.ty(v).shape.last();
    match &op.kind {
        OpKind::Const { .. } => constant_halves(p, v),
        OpKind::Unary(_) | OpKind::Cast => equal_halves(p, op.operands[0], depth),
        OpKind::Reshape | OpKind::Expand if last(op.operands[0]) == last(v) => {
            equal_halves(p, op.operands[0], depth)
        }
        OpKind::Slice {
            starts,
            ends,
            steps,
        } if starts.last() == Some(&DimExpr::from(0))
            && ends.last() == last(op.operands[0])
            && steps.last() == Some(&1) =>
        {
            equal_halves(p, op.operands[0], depth)
        }
        OpKind::Gather { axis: 0 } if p.ty(op.operands[0]).rank() > 1 => {
            equal_halves(p, op.operands[0], depth)
        }
        OpKind::Binary(_) => op.operands.iter().all(|&o| {
            let narrow = last(o).is_none_or(|d| *d == DimExpr::from(1));
            narrow || (last(o) == last(v) && equal_halves(p, o, depth))
        }),
        _ => false,
    }
}

fn constant_halves(p: &Pattern, v: ValueId) -> bool {
    let Some((_, weight)) = p.rw.weight_of(v) else {
        return false;
    };
    let (Some(&width), true) = (weight.dims.last(), weight.dtype.is_float()) else {
        return false;
    };
    let Ok(tensor) = qcc_ir::eval::weight_tensor(weight) else {
        return false;
    };
    let row = usize::try_from(width).unwrap_or(0) * weight.dtype.bits() as usize / 8;
    row > 0
        && row.is_multiple_of(2)
        && tensor
            .bytes()
            .chunks(row)
            .all(|r| r[..row / 2] == r[row / 2..])
}

/// Where heads and positions are in the operand, and what the tables must look like.
struct Layout {
    /// Whether the operand is `[b, h, s, d]`, not `[b, s, h, d]`.
    heads_first: bool,
    heads: u64,
    /// Shapes of the tables, `[s, w]` or `[b, s, w]`.
    tables: [Vec<DimExpr>; 2],
}

impl Layout {
    fn of(x: &TensorType, cos: &TensorType, sin: &TensorType) -> Option<Layout> {
        let [_, d1, d2, d] = x.shape.as_slice() else {
            return None;
        };
        let width = |t: &TensorType| t.shape.last().cloned();
        if width(cos) != width(sin) || x.elem != cos.elem || x.elem != sin.elem {
            return None;
        }
        d.exact_div(&DimExpr::from(2))?;
        for (heads_first, heads, positions) in [(true, d1, d2), (false, d2, d1)] {
            let tables = [cos, sin].map(|t| table(t, heads_first, positions));
            let heads = heads.as_const().and_then(|h| u64::try_from(h).ok());
            if let ([Some(cos), Some(sin)], Some(heads)) = (tables, heads) {
                return Some(Layout {
                    heads_first,
                    heads,
                    tables: [cos, sin],
                });
            }
        }
        None
    }
}

/// The shape of a table without the dimension of heads; `None` if it does not fit.
fn table(t: &TensorType, heads_first: bool, positions: &DimExpr) -> Option<Vec<DimExpr>> {
    let lead = 4usize.checked_sub(t.rank())?;
    let one = DimExpr::from(1);
    let at = |i: usize| i.checked_sub(lead).map_or(&one, |i| &t.shape[i]);
    let (heads, own) = if heads_first {
        (at(1), at(2))
    } else {
        (at(2), at(1))
    };
    if *heads != one || own != positions {
        return None;
    }
    let mut shape = vec![own.clone(), at(3).clone()];
    if *at(0) != one {
        shape.insert(0, at(0).clone());
    }
    Some(shape)
}

fn build(
    rw: &mut Rewriter<'_>,
    op: &Op,
    found: &Found,
    layout: &Layout,
    loc: &Loc,
) -> Result<ValueId> {
    rw.set_loc(loc.clone());
    let ty = rw.src.ty(found.x).clone();
    let [b, d1, d2, d] = [0, 1, 2, 3].map(|i| ty.shape[i].clone());
    let pairs = d.floor_div(&DimExpr::from(2));
    let mut operands = vec![rw.get(found.x)];
    let to_rows = vec![0, 2, 1, 3];
    let (split, s) = match layout.heads_first {
        true => {
            operands[0] = rw.b.transpose(operands[0], to_rows.clone())?;
            (vec![b.clone(), d2.clone(), d1.clone(), d.clone()], d2)
        }
        false => (ty.shape.clone(), d1),
    };
    let width = &d * &DimExpr::from(i64::try_from(layout.heads).unwrap_or(i64::MAX));
    operands[0] = rw.b.reshape(operands[0], vec![b, s, width]);
    for (table, shape) in [found.cos, found.sin].into_iter().zip(&layout.tables) {
        let narrow = first_half(rw, table, &pairs, DEPTH)?;
        rw.set_loc(loc.clone());
        let mut shape = shape.clone();
        if let Some(last) = shape.last_mut() {
            *last = pairs.clone();
        }
        operands.push(rw.b.reshape(narrow, shape));
    }
    let kind = OpKind::Rotary(RotaryAttrs {
        heads: layout.heads,
        interleaved: false,
    });
    let flat = rw.b.ty(operands[0]).clone();
    let y = rw.step(op, "rows", kind, &operands, flat);
    match layout.heads_first {
        true => {
            let y = rw.b.reshape(y, split);
            Ok(rw.put(op, OpKind::Transpose { perm: to_rows }, &[y])[0])
        }
        false => Ok(rw.put(op, OpKind::Reshape, &[y])[0]),
    }
}

/// The first half of the last dimension of a table, computed from the halves of what it is
/// made of where that is simple.
fn first_half(rw: &mut Rewriter<'_>, v: ValueId, pairs: &DimExpr, depth: u32) -> Result<ValueId> {
    let ty = rw.src.ty(v).clone();
    if ty.shape.last() == Some(pairs) {
        return Ok(rw.get(v));
    }
    let rank = ty.rank();
    let def = rw.def(v).filter(|_| depth > 0);
    match def.map(|op| (&op.kind, op)) {
        Some((OpKind::Concat { axis }, op)) if axis + 1 == rank => Ok(rw.get(op.operands[0])),
        Some((OpKind::Unary(f), op)) => {
            let inner = first_half(rw, op.operands[0], pairs, depth - 1)?;
            rw.set_loc(op.loc.clone());
            rw.b.unary(*f, inner)
        }
        Some((OpKind::Cast, op)) => {
            let inner = first_half(rw, op.operands[0], pairs, depth - 1)?;
            rw.set_loc(op.loc.clone());
            let dtype = ty.elem.plain().unwrap_or(DType::F32);
            Ok(rw.b.cast(inner, dtype))
        }
        Some((OpKind::Reshape, op))
            if rw.src.ty(op.operands[0]).shape.last() == ty.shape.last() =>
        {
            let inner = first_half(rw, op.operands[0], pairs, depth - 1)?;
            let mut shape = ty.shape.clone();
            shape[rank - 1] = pairs.clone();
            rw.set_loc(op.loc.clone());
            Ok(rw.b.reshape(inner, shape))
        }
        _ => {
            let mut ends = ty.shape.clone();
            ends[rank - 1] = pairs.clone();
            let kind = OpKind::Slice {
                starts: vec![DimExpr::from(0); rank],
                ends,
                steps: vec![1; rank],
            };
            let whole = rw.get(v);
            rw.b.same(kind, &[whole])
        }
    }
}
