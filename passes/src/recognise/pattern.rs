//! Matching trees of ops: what a recogniser asks about the operands of its root.
//!
//! A [`Pattern`] walks from values to the ops that define them and remembers which ops it went
//! through, so that the op that replaces them can join their locations. Numbers compare with a
//! relative tolerance: exporters round `√2` and `0.044715` to binary32 or binary16.

use crate::rewrite::Rewriter;
use qcc_ir::DimExpr;
use qcc_ir::expr::{BinaryFn, UnaryFn};
use qcc_ir::graph::{Loc, Op, OpKind, ReduceFn, TensorType, ValueId};

/// Relative distance of numbers that count as the same.
const NEAR: f64 = 1e-3;
/// Longest chain of factors that is followed.
const DEPTH: u32 = 8;

/// Whether a constant of the model is this number.
pub(super) fn near(a: f64, b: f64) -> bool {
    (a - b).abs() <= NEAR * b.abs()
}

/// The ops above one root that have matched so far.
pub(super) struct Pattern<'a, 'm> {
    pub(super) rw: &'a Rewriter<'m>,
    seen: Vec<&'m Op>,
}

impl<'a, 'm> Pattern<'a, 'm> {
    pub(super) fn new(rw: &'a Rewriter<'m>) -> Self {
        Pattern {
            rw,
            seen: Vec::new(),
        }
    }

    /// The locations of everything that matched, the root's last.
    pub(super) fn loc(&self, root: &Op) -> Loc {
        let mut seen: Vec<&Op> = self.seen.clone();
        // Operands come before the ops that read them.
        seen.sort_by_key(|op| op.results.first());
        seen.iter()
            .fold(Loc::default(), |loc, op| loc.join(&op.loc))
            .join(&root.loc)
    }

    /// Tries `f`; forgets what it went through if it fails.
    pub(super) fn attempt<T>(&mut self, f: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        let before = self.seen.len();
        let found = f(self);
        if found.is_none() {
            self.seen.truncate(before);
        }
        found
    }

    /// The type of a value.
    pub(super) fn ty(&self, v: ValueId) -> &'m TensorType {
        self.rw.src.ty(v)
    }

    /// The op that defines `v`, if `is` accepts its kind.
    pub(super) fn op(&mut self, v: ValueId, is: impl Fn(&OpKind) -> bool) -> Option<&'m Op> {
        let op = self.rw.def(v).filter(|op| is(&op.kind))?;
        self.seen.push(op);
        Some(op)
    }

    /// The argument of `f`.
    pub(super) fn unary(&mut self, v: ValueId, f: UnaryFn) -> Option<ValueId> {
        self.op(v, |k| *k == OpKind::Unary(f))
            .map(|op| op.operands[0])
    }

    /// The operands of `f`, in order.
    pub(super) fn binary(&mut self, v: ValueId, f: BinaryFn) -> Option<[ValueId; 2]> {
        let op = self.op(v, |k| *k == OpKind::Binary(f))?;
        Some([op.operands[0], op.operands[1]])
    }

    /// The operands of a commutative `f` in the order in which `rest` accepts them.
    pub(super) fn either<T>(
        &mut self,
        v: ValueId,
        f: BinaryFn,
        mut rest: impl FnMut(&mut Self, ValueId, ValueId) -> Option<T>,
    ) -> Option<T> {
        self.attempt(|p| {
            let [a, b] = p.binary(v, f)?;
            p.attempt(|p| rest(p, a, b))
                .or_else(|| p.attempt(|p| rest(p, b, a)))
        })
    }

    /// The number that every element of `v` is.
    pub(super) fn number(&self, v: ValueId) -> Option<f64> {
        self.rw.uniform(v).ok().flatten()
    }

    /// `x` of `f(x, number)`, or of `f(number, x)` if `f` is commutative.
    pub(super) fn with_number(&mut self, v: ValueId, f: BinaryFn) -> Option<(ValueId, f64)> {
        self.attempt(|p| {
            let [a, b] = p.binary(v, f)?;
            match (p.number(b), p.number(a)) {
                (Some(n), _) => Some((a, n)),
                (None, Some(n)) if f.is_commutative() => Some((b, n)),
                _ => None,
            }
        })
    }

    /// `(x, c)` of `x·c` or `x/(1/c)`.
    pub(super) fn scaled(&mut self, v: ValueId) -> Option<(ValueId, f64)> {
        self.with_number(v, BinaryFn::Mul).or_else(|| {
            self.with_number(v, BinaryFn::Div)
                .map(|(x, n)| (x, 1.0 / n))
        })
    }

    /// `(x, c)` with `v = x·c` and `x` no product with a number itself.
    pub(super) fn unscaled(&mut self, v: ValueId) -> (ValueId, f64) {
        let (mut x, mut c) = (v, 1.0);
        for _ in 0..DEPTH {
            match self.scaled(x) {
                Some((inner, factor)) => (x, c) = (inner, c * factor),
                None => break,
            }
        }
        (x, c)
    }

    /// `(c, n)` with `v = c·xⁿ`, for a given `x`.
    pub(super) fn monomial(&mut self, v: ValueId, x: ValueId) -> Option<(f64, f64)> {
        self.power_of(v, x, DEPTH)
    }

    fn power_of(&mut self, v: ValueId, x: ValueId, depth: u32) -> Option<(f64, f64)> {
        if v == x {
            return Some((1.0, 1.0));
        }
        if let Some(c) = self.number(v) {
            return Some((c, 0.0));
        }
        let depth = depth.checked_sub(1)?;
        if let Some((base, n)) = self.with_number(v, BinaryFn::Pow) {
            let (c, m) = self.power_of(base, x, depth)?;
            return Some((c.powf(n), m * n));
        }
        for (f, sign) in [(BinaryFn::Mul, 1.0), (BinaryFn::Div, -1.0)] {
            if let Some([a, b]) = self.binary(v, f) {
                let (c, n) = self.power_of(a, x, depth)?;
                let (d, m) = self.power_of(b, x, depth)?;
                return Some((c * d.powf(sign), n + sign * m));
            }
        }
        None
    }

    /// What is reduced by `f` along the last dimension, which stays as 1.
    pub(super) fn row_reduce(&mut self, v: ValueId, f: ReduceFn) -> Option<ValueId> {
        let op = self.op(
            v,
            |k| matches!(k, OpKind::Reduce { f: g, keep: true, .. } if *g == f),
        )?;
        let x = op.operands[0];
        let OpKind::Reduce { axes, .. } = &op.kind else {
            return None;
        };
        (axes.as_slice() == [self.ty(x).rank().checked_sub(1)?]).then_some(x)
    }

    /// `x` of `1/√(x + eps)`, and `eps`, however it is written. `v` is the reciprocal root.
    pub(super) fn reciprocal_root(&mut self, v: ValueId) -> Option<(ValueId, f32)> {
        self.attempt(|p| {
            let root = p.unary(v, UnaryFn::Recip).or_else(|| {
                p.attempt(|p| {
                    let [one, root] = p.binary(v, BinaryFn::Div)?;
                    (p.number(one)? == 1.0).then_some(root)
                })
            });
            match root {
                Some(root) => p.root(root),
                None => {
                    let inner = p.unary(v, UnaryFn::Rsqrt).or_else(|| {
                        p.with_number(v, BinaryFn::Pow)
                            .and_then(|(x, n)| (n == -0.5).then_some(x))
                    })?;
                    p.plus_eps(inner)
                }
            }
        })
    }

    /// `x` of `√(x + eps)`, and `eps`.
    pub(super) fn root(&mut self, v: ValueId) -> Option<(ValueId, f32)> {
        self.attempt(|p| {
            let inner = p.unary(v, UnaryFn::Sqrt).or_else(|| {
                p.with_number(v, BinaryFn::Pow)
                    .and_then(|(x, n)| (n == 0.5).then_some(x))
            })?;
            p.plus_eps(inner)
        })
    }

    fn plus_eps(&mut self, v: ValueId) -> Option<(ValueId, f32)> {
        match self.with_number(v, BinaryFn::Add) {
            Some((x, eps)) if (0.0..1.0).contains(&eps) => Some((x, eps as f32)),
            Some(_) => None,
            None => Some((v, 0.0)),
        }
    }

    /// Whether `v` is `x·x` or `x²`.
    pub(super) fn square(&mut self, v: ValueId, x: ValueId) -> bool {
        let by_mul = self.attempt(|p| {
            let [a, b] = p.binary(v, BinaryFn::Mul)?;
            (a == x && b == x).then_some(())
        });
        let found = by_mul.or_else(|| {
            self.attempt(|p| {
                let (base, n) = p.with_number(v, BinaryFn::Pow)?;
                (base == x && n == 2.0).then_some(())
            })
        });
        found.is_some()
    }

    /// Whether `v` is a vector along the last dimension of rows of `x`.
    pub(super) fn row_vector(&self, v: ValueId, x: ValueId) -> bool {
        let (ty, rows) = (self.ty(v), self.ty(x));
        let one = DimExpr::from(1);
        match (ty.shape.split_last(), rows.shape.last()) {
            (Some((last, lead)), Some(n)) => {
                last == n && lead.iter().all(|d| *d == one) && ty.elem == rows.elem
            }
            _ => false,
        }
    }

    /// Through a cast to a wider format: what was cast.
    pub(super) fn before_cast(&mut self, v: ValueId) -> Option<ValueId> {
        self.op(v, |k| *k == OpKind::Cast).map(|op| op.operands[0])
    }
}
