//! What an attention may see: masks as exporters write them.
//!
//! A mask is added to the scores, or selects between them and a very negative number. It is
//! taken apart into what `attention` knows:
//!
//! - *causal*: key `j` is seen by query `i` if `j ≤ i + (t − s)`, compared on ranges or written
//!   out as a constant triangle;
//! - *keep*: truth values that come from the model's inputs, such as padding;
//! - *added*: numbers, if nothing else fits.
//!
//! A very negative number is one whose exponential vanishes beside any score (at most −10⁴).
//! A row in which it hides every key is the one difference: with numbers the softmax is then
//! uniform, `attention` gives zeros. Such rows are padding, whose outputs mean nothing.

use super::affine::{Affine, Comparison, Counting, move_units};
use super::pattern::Pattern;
use qcc_ir::eval::weight_tensor;
use qcc_ir::expr::{BinaryFn, UnaryFn};
use qcc_ir::graph::{OpKind, ValueId};
use qcc_ir::{DType, DimExpr};

/// Masks within masks that are taken apart.
const DEPTH: u32 = 16;
/// Elements of a constant that is looked at for a triangle.
const LARGEST_TRIANGLE: u64 = 1 << 24;

/// Whether adding this hides a key.
pub(super) fn hides(number: f64) -> bool {
    number <= -1e4
}

/// A part of a mask and the shape in which it broadcasts to `[b, h, s, t]`.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) value: ValueId,
    /// For truth values: whether false keeps.
    pub(super) negated: bool,
    pub(super) shape: Vec<DimExpr>,
}

/// A mask, taken apart.
#[derive(Clone, Debug, Default)]
pub(super) struct Mask {
    pub(super) causal: bool,
    /// Truth values that must all hold.
    pub(super) keep: Vec<Part>,
    /// Numbers that are added to the scores.
    pub(super) added: Vec<Part>,
    /// What was given to [`Mask::add`].
    pub(super) sources: Vec<ValueId>,
}

/// The shape with leading 1s up to four dimensions.
fn rank4(shape: &[DimExpr]) -> Option<Vec<DimExpr>> {
    let lead = 4usize.checked_sub(shape.len())?;
    let mut out = vec![DimExpr::from(1); lead];
    out.extend_from_slice(shape);
    Some(out)
}

/// A value below an expand that is seen in `shape` keeps its own, smaller shape there.
fn below(p: &Pattern, outer: ValueId, shape: &[DimExpr], inner: ValueId) -> Option<Vec<DimExpr>> {
    let (from, to) = (&p.ty(outer).shape, &p.ty(inner).shape);
    if from == to {
        return Some(shape.to_vec());
    }
    (rank4(from)? == shape).then(|| rank4(to)).flatten()
}

impl Mask {
    /// Adds a float mask that is added to scores of four dimensions.
    pub(super) fn add(&mut self, p: &mut Pattern, v: ValueId) -> Option<()> {
        let shape = rank4(&p.ty(v).shape)?;
        self.sources.push(v);
        self.additive(p, v, shape, DEPTH)
    }

    /// Adds a condition: scores of four dimensions are kept where `v` is `want`.
    pub(super) fn require(&mut self, p: &mut Pattern, v: ValueId, want: bool) -> Option<()> {
        let shape = rank4(&p.ty(v).shape)?;
        self.condition(p, v, shape, want, DEPTH)
    }

    fn additive(
        &mut self,
        p: &mut Pattern,
        v: ValueId,
        shape: Vec<DimExpr>,
        depth: u32,
    ) -> Option<()> {
        let depth = depth.checked_sub(1)?;
        if p.number(v) == Some(0.0) {
            return Some(());
        }
        if let Some(op) = p.op(v, |k| *k == OpKind::Reshape) {
            return self.additive(p, op.operands[0], shape, depth);
        }
        if let Some(op) = p.op(v, |k| *k == OpKind::Expand)
            && let Some(inner) = below(p, v, &shape, op.operands[0])
        {
            return self.additive(p, op.operands[0], inner, depth);
        }
        if let Some([a, b]) = p.binary(v, BinaryFn::Add)
            && let (Some(x), Some(y)) = (below(p, v, &shape, a), below(p, v, &shape, b))
        {
            self.additive(p, a, x, depth)?;
            return self.additive(p, b, y, depth);
        }
        if let Some((c, want, inner)) = selected(p, v, &shape) {
            return self.condition(p, c, inner, want, depth);
        }
        self.added.push(Part {
            value: v,
            negated: false,
            shape,
        });
        Some(())
    }

    fn condition(
        &mut self,
        p: &mut Pattern,
        v: ValueId,
        shape: Vec<DimExpr>,
        want: bool,
        depth: u32,
    ) -> Option<()> {
        let depth = depth.checked_sub(1)?;
        if p.number(v) == Some(f64::from(u8::from(want))) {
            return Some(());
        }
        if let Some(inner) = p.unary(v, UnaryFn::Not) {
            return self.condition(p, inner, shape, !want, depth);
        }
        if let Some(op) = p.op(v, |k| *k == OpKind::Reshape) {
            return self.condition(p, op.operands[0], shape, want, depth);
        }
        if let Some(op) = p.op(v, |k| *k == OpKind::Expand)
            && let Some(inner) = below(p, v, &shape, op.operands[0])
        {
            return self.condition(p, op.operands[0], inner, want, depth);
        }
        // Both must hold; or neither may.
        let both = if want { BinaryFn::And } else { BinaryFn::Or };
        if let Some([a, b]) = p.binary(v, both)
            && let (Some(x), Some(y)) = (below(p, v, &shape, a), below(p, v, &shape, b))
        {
            self.condition(p, a, x, want, depth)?;
            return self.condition(p, b, y, want, depth);
        }
        match counted(p, v, want).or_else(|| triangle(p, v, want)) {
            Some(Comparison::Always(true)) => {}
            Some(Comparison::AtLeastZero(a)) if is_causal(&a, &p.ty(v).shape, &shape) => {
                self.causal = true;
            }
            _ => self.keep.push(Part {
                value: v,
                negated: !want,
                shape,
            }),
        }
        Some(())
    }
}

/// The condition of `select(c, 0, very negative)`, the truth that keeps, and its shape.
fn selected(
    p: &mut Pattern,
    v: ValueId,
    shape: &[DimExpr],
) -> Option<(ValueId, bool, Vec<DimExpr>)> {
    p.attempt(|p| {
        let op = p.op(v, |k| *k == OpKind::Select)?;
        let [c, a, b] = [op.operands[0], op.operands[1], op.operands[2]];
        let want = match (p.number(a), p.number(b)) {
            (Some(0.0), Some(low)) if hides(low) => true,
            (Some(low), Some(0.0)) if hides(low) => false,
            _ => return None,
        };
        Some((c, want, below(p, v, shape, c)?))
    })
}

/// Where `v`, a comparison of positions, is `want`.
fn counted(p: &mut Pattern, v: ValueId, want: bool) -> Option<Comparison> {
    let op = p.op(v, |k| matches!(k, OpKind::Binary(f) if f.is_compare()))?;
    let comparison = Counting::new(p.rw).comparison(op)?;
    Some(match (comparison, want) {
        (comparison, true) => comparison,
        (Comparison::Always(truth), false) => Comparison::Always(!truth),
        (Comparison::AtLeastZero(a), false) => Comparison::AtLeastZero(a.below_zero()),
    })
}

/// A constant of truth values, or a part of one, that is `want` where `j ≤ i + k`.
fn triangle(p: &mut Pattern, v: ValueId, want: bool) -> Option<Comparison> {
    let zero = DimExpr::from(0);
    let (constant, start) = match p.op(v, |k| matches!(k, OpKind::Slice { .. })) {
        Some(op) => match &op.kind {
            OpKind::Slice { starts, steps, .. } if steps.iter().all(|&s| s == 1) => {
                (op.operands[0], starts.clone())
            }
            _ => return None,
        },
        None => (v, vec![zero.clone(); p.ty(v).rank()]),
    };
    let [lead @ .., row, column] = start.as_slice() else {
        return None;
    };
    let k = diagonal(p, constant, want)?;
    let mut steps = vec![zero; lead.len()];
    steps.extend([DimExpr::from(1), DimExpr::from(-1)]);
    Some(Comparison::AtLeastZero(Affine {
        base: &(row - column) + &DimExpr::from(k),
        steps,
    }))
}

/// `k` of a constant matrix of truth values that is `want` exactly where `j ≤ i + k`.
fn diagonal(p: &Pattern, v: ValueId, want: bool) -> Option<i64> {
    let (_, weight) = p.rw.weight_of(v)?;
    let [lead @ .., rows, columns] = weight.dims.as_slice() else {
        return None;
    };
    let small = weight.numel()? <= LARGEST_TRIANGLE;
    if weight.dtype != DType::Bool || lead.iter().any(|&d| d != 1) || !small {
        return None;
    }
    let tensor = weight_tensor(weight).ok()?;
    let (rows, columns) = (
        usize::try_from(*rows).ok()?,
        usize::try_from(*columns).ok()?,
    );
    let kept = |i: usize, j: usize| (tensor.bytes()[i * columns + j] != 0) == want;
    let first = (0..columns).take_while(|&j| kept(0, j)).count();
    let k = i64::try_from(first).ok()? - 1;
    let fits = |i: usize, j: usize| kept(i, j) == (j as i64 <= i as i64 + k);
    (rows > 1 && (0..rows).all(|i| (0..columns).all(|j| fits(i, j)))).then_some(k)
}

/// Whether `a ≥ 0`, seen in `[1, 1, s, t]`, says `i + (t − s) − j ≥ 0`.
fn is_causal(a: &Affine, own: &[DimExpr], shape: &[DimExpr]) -> bool {
    let Some(steps) = move_units(own, &a.steps, shape) else {
        return false;
    };
    let ([b, h, s, t], [bi, hi, i, j]) = (shape, steps.as_slice()) else {
        return false;
    };
    let number = |d: &DimExpr| d.as_const();
    number(b) == Some(1)
        && number(h) == Some(1)
        && [bi, hi].iter().all(|d| number(d) == Some(0))
        && number(i) == Some(1)
        && number(j) == Some(-1)
        && a.base == t - s
}
