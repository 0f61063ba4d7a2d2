//! Linear layers as makers of values.

use qcc_ir::expr::UnaryFn;
use qcc_ir::graph::{Def, Func, Op, OpId, OpKind, ValueId};
use std::ops::Range;

/// Whether a value is a constant without a scheme.
pub(crate) fn is_const(f: &Func, v: ValueId) -> bool {
    let kind = f.def_op(v).map(|o| &o.kind);
    matches!(kind, Some(OpKind::Const { scale: None, .. }))
}

/// Whether an op is a linear layer with constant parameters that nothing is fused with.
pub(crate) fn is_plain_linear(f: &Func, op: &Op) -> bool {
    let plain =
        matches!(&op.kind, OpKind::Linear { segments, accs: 1, expr: None } if segments.is_empty());
    plain && op.operands[1..].iter().all(|v| is_const(f, *v))
}

/// Whether an op is a norm that nothing is fused with.
pub(crate) fn is_plain_norm(kind: &OpKind) -> bool {
    matches!(
        kind,
        OpKind::LayerNorm { expr: None, .. } | OpKind::RmsNorm { expr: None, .. }
    )
}

/// The op that makes a value.
pub(crate) fn maker(f: &Func, v: ValueId) -> Option<OpId> {
    match f.value(v).def {
        Def::Param(_) => None,
        Def::Result(id, _) => Some(id),
    }
}

/// The extent of a value's last dimension.
pub(crate) fn width(f: &Func, v: ValueId) -> Option<usize> {
    let last = f.ty(v).shape.last()?.as_const()?;
    usize::try_from(last).ok().filter(|n| *n > 0)
}

/// Whether a value is read once and is no result.
pub(crate) fn read_once(f: &Func, v: ValueId) -> bool {
    let reads = f.ops.iter().flat_map(|o| &o.operands);
    reads.filter(|u| **u == v).count() == 1 && !f.is_result(v)
}

/// The plain linear layer that makes a value, and which of its columns the value is. Where it is a
/// part of them, nothing else reads that part.
pub(crate) fn projection(f: &Func, v: ValueId) -> Option<(OpId, Range<usize>)> {
    let id = maker(f, v)?;
    let op = &f.ops[id.index()];
    if matches!(op.kind, OpKind::Linear { .. }) {
        let whole = 0..width(f, v)?;
        return is_plain_linear(f, op).then_some((id, whole));
    }
    let (all, span) = (op.operands.first().copied()?, columns(f, op)?);
    let from = maker(f, all)?;
    let apart = |o: &Op| columns(f, o).is_some_and(|s| s.end <= span.start || span.end <= s.start);
    let mut others = f
        .ops
        .iter()
        .filter(|o| o.operands.contains(&all) && *o != op);
    let alone = !f.is_result(all) && others.all(apart);
    (alone && is_plain_linear(f, &f.ops[from.index()])).then_some((from, span))
}

/// The columns of its operand that a slice gives.
fn columns(f: &Func, op: &Op) -> Option<Range<usize>> {
    let OpKind::Slice {
        starts,
        ends,
        steps,
    } = &op.kind
    else {
        return None;
    };
    let last = starts.len().checked_sub(1)?;
    let [a, b] = [&starts[last], &ends[last]].map(|e| e.as_const());
    let span = usize::try_from(a?).ok()?..usize::try_from(b?).ok()?;
    let width = width(f, op.results[0])?;
    (steps[last] == 1 && span.len() == width).then_some(span)
}

/// Whether `fn(c·x) = c·fn(x)` for every positive `c`.
pub(crate) fn is_homogeneous(kind: &OpKind) -> bool {
    matches!(
        kind,
        OpKind::Unary(UnaryFn::Relu | UnaryFn::Abs | UnaryFn::Neg)
    )
}
