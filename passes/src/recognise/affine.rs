//! Integer tensors that count: `base + Σ stepₖ · indexₖ`.
//!
//! Exporters build positions and masks from ranges, reshapes, broadcasts and arithmetic. Such a
//! tensor is known without running anything, so comparisons of two of them can be decided or
//! recognised as a causal mask, and a gather along one of them as a slice.

use crate::rewrite::Rewriter;
use qcc_ir::DimExpr;
use qcc_ir::expr::BinaryFn;
use qcc_ir::graph::{Op, OpKind, ValueId};
use std::cell::Cell;

/// Values that are looked at for one question; hostile graphs share operands endlessly.
const BUDGET: u32 = 512;

/// The element at index `(i₀, i₁, …)` is `base + Σ stepₖ · iₖ`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Affine {
    pub(super) base: DimExpr,
    /// One per dimension; 0 where the dimension is 1.
    pub(super) steps: Vec<DimExpr>,
}

impl Affine {
    /// What is at least 0 exactly where this is not: `−1 − a`.
    pub(super) fn below_zero(&self) -> Affine {
        let zero = DimExpr::from(0);
        Affine {
            base: &DimExpr::from(-1) - &self.base,
            steps: self.steps.iter().map(|s| &zero - s).collect(),
        }
    }
}

/// What comparing two counting tensors comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    /// The same everywhere.
    Always(bool),
    /// True where this is at least 0.
    AtLeastZero(Affine),
}

/// Answers questions about the source function of a rewriter.
pub(super) struct Counting<'a, 'm> {
    rw: &'a Rewriter<'m>,
    budget: Cell<u32>,
}

impl<'a, 'm> Counting<'a, 'm> {
    pub(super) fn new(rw: &'a Rewriter<'m>) -> Self {
        Counting {
            rw,
            budget: Cell::new(BUDGET),
        }
    }

    fn shape(&self, v: ValueId) -> &'m [DimExpr] {
        &self.rw.src.ty(v).shape
    }

    fn bounds(&self, e: &DimExpr) -> (i64, i64) {
        e.bounds(&|s| self.rw.module.symbol_range(s))
    }

    /// The integer tensor `v` as a count; `None` if it is none.
    pub(super) fn affine(&self, v: ValueId) -> Option<Affine> {
        self.budget.set(self.budget.get().checked_sub(1)?);
        let shape = self.shape(v);
        let rank = shape.len();
        let constant = |base: DimExpr| Affine {
            base,
            steps: vec![DimExpr::from(0); rank],
        };
        let dtype = self.rw.src.ty(v).elem.plain().filter(|d| d.is_int())?;
        if let Some(n) = self.rw.uniform(v).ok().flatten() {
            let whole = n.fract() == 0.0 && n.abs() < 2f64.powi(53);
            return whole.then(|| constant(DimExpr::from(n as i64)));
        }
        let op = self.rw.def(v)?;
        let operand = |i: usize| op.operands.get(i).copied();
        match &op.kind {
            OpKind::Dim { value } => Some(constant(value.clone())),
            OpKind::Iota { axis } => {
                let mut a = constant(DimExpr::from(0));
                *a.steps.get_mut(*axis)? = DimExpr::from(1);
                Some(a)
            }
            OpKind::Cast => {
                // Positions fit in any integer format that an exporter chooses for them.
                let wide = dtype.bits() >= 32;
                let from = operand(0)?;
                self.affine(from).filter(|_| wide)
            }
            OpKind::Reshape => self.reshaped(operand(0)?, shape),
            OpKind::Expand => self.spread(operand(0)?, shape),
            OpKind::Transpose { perm } => {
                let a = self.affine(operand(0)?)?;
                let steps = perm.iter().map(|&p| a.steps.get(p).cloned());
                Some(Affine {
                    steps: steps.collect::<Option<_>>()?,
                    base: a.base,
                })
            }
            OpKind::Slice { starts, steps, .. } => {
                let mut a = self.affine(operand(0)?)?;
                for ((step, start), stride) in a.steps.iter_mut().zip(starts).zip(steps) {
                    a.base = &a.base + &(&*step * start);
                    *step = &*step * &DimExpr::from(i64::try_from(*stride).ok()?);
                }
                Some(a)
            }
            OpKind::Binary(f) => self.arithmetic(*f, operand(0)?, operand(1)?, shape),
            OpKind::Select => match self.truth(operand(0)?)? {
                true => self.spread(operand(1)?, shape),
                false => self.spread(operand(2)?, shape),
            },
            _ => None,
        }
    }

    /// `v` broadcast to `shape`.
    fn spread(&self, v: ValueId, shape: &[DimExpr]) -> Option<Affine> {
        let a = self.affine(v)?;
        let lead = shape.len().checked_sub(a.steps.len())?;
        let mut steps = vec![DimExpr::from(0); lead];
        steps.extend(a.steps);
        Some(Affine {
            base: a.base,
            steps,
        })
    }

    /// `v` with dimensions of 1 added or removed.
    fn reshaped(&self, v: ValueId, shape: &[DimExpr]) -> Option<Affine> {
        let a = self.affine(v)?;
        let steps = move_units(self.shape(v), &a.steps, shape)?;
        Some(Affine {
            base: a.base,
            steps,
        })
    }

    fn arithmetic(&self, f: BinaryFn, a: ValueId, b: ValueId, shape: &[DimExpr]) -> Option<Affine> {
        let (x, y) = (self.spread(a, shape)?, self.spread(b, shape)?);
        let zero = DimExpr::from(0);
        let each = |g: &dyn Fn(&DimExpr, &DimExpr) -> DimExpr| Affine {
            base: g(&x.base, &y.base),
            steps: x.steps.iter().zip(&y.steps).map(|(p, q)| g(p, q)).collect(),
        };
        let times = |a: &Affine, c: &DimExpr| Affine {
            base: &a.base * c,
            steps: a.steps.iter().map(|s| s * c).collect(),
        };
        let flat = |a: &Affine| a.steps.iter().all(|s| *s == zero);
        match f {
            BinaryFn::Add => Some(each(&|p, q| p + q)),
            BinaryFn::Sub => Some(each(&|p, q| p - q)),
            BinaryFn::Mul if flat(&y) => Some(times(&x, &y.base)),
            BinaryFn::Mul if flat(&x) => Some(times(&y, &x.base)),
            _ => None,
        }
    }

    /// What an op that compares counting tensors comes to.
    pub(super) fn comparison(&self, op: &Op) -> Option<Comparison> {
        let OpKind::Binary(f) = op.kind else {
            return None;
        };
        let shape = self.shape(*op.results.first()?);
        let (a, b) = (*op.operands.first()?, *op.operands.get(1)?);
        // `greater − less − slack ≥ 0`
        let (less, greater, slack) = match f {
            BinaryFn::Le => (a, b, 0),
            BinaryFn::Lt => (a, b, 1),
            BinaryFn::Ge => (b, a, 0),
            BinaryFn::Gt => (b, a, 1),
            _ => return None,
        };
        let mut diff = self.arithmetic(BinaryFn::Sub, greater, less, shape)?;
        diff.base = &diff.base - &DimExpr::from(slack);
        let (lo, hi) = self.range(&diff, shape)?;
        Some(match (lo >= 0, hi < 0) {
            (true, _) => Comparison::Always(true),
            (_, true) => Comparison::Always(false),
            _ => Comparison::AtLeastZero(diff),
        })
    }

    /// A truth value that is the same everywhere.
    pub(super) fn truth(&self, v: ValueId) -> Option<bool> {
        if let Some(n) = self.rw.uniform(v).ok().flatten() {
            return Some(n != 0.0);
        }
        match self.comparison(self.rw.def(v)?)? {
            Comparison::Always(truth) => Some(truth),
            Comparison::AtLeastZero(_) => None,
        }
    }

    /// Smallest and largest element, for all sizes that the symbols allow.
    fn range(&self, a: &Affine, shape: &[DimExpr]) -> Option<(i64, i64)> {
        let (mut least, mut most) = (a.base.clone(), a.base.clone());
        for (step, size) in a.steps.iter().zip(shape) {
            let last = step * &(size - &DimExpr::from(1));
            match self.bounds(step) {
                (0.., _) => most = &most + &last,
                (_, ..=0) => least = &least + &last,
                _ => return None,
            }
        }
        Some((self.bounds(&least).0, self.bounds(&most).1))
    }

    /// If `v` counts `start, start + 1, …` in row-major order: the start.
    pub(super) fn consecutive(&self, v: ValueId) -> Option<DimExpr> {
        let a = self.affine(v)?;
        let one = DimExpr::from(1);
        let mut stride = one.clone();
        for (step, size) in a.steps.iter().zip(self.shape(v)).rev() {
            if *size != one && *step != stride {
                return None;
            }
            stride = &stride * size;
        }
        Some(a.base)
    }

    /// Whether `a ≤ b` for all sizes that the symbols allow.
    pub(super) fn at_most(&self, a: &DimExpr, b: &DimExpr) -> bool {
        self.bounds(&(b - a)).0 >= 0
    }
}

/// The entries of dimensions of `from` as entries of those of `to`, which differs in dimensions
/// of 1 only; those have the entry 0.
pub(super) fn move_units(
    from: &[DimExpr],
    entries: &[DimExpr],
    to: &[DimExpr],
) -> Option<Vec<DimExpr>> {
    let one = DimExpr::from(1);
    let mut rest = from.iter().zip(entries).filter(|(d, _)| **d != one);
    let moved = to
        .iter()
        .map(|d| match *d == one {
            true => Some(DimExpr::from(0)),
            false => rest.next().filter(|(f, _)| *f == d).map(|(_, e)| e.clone()),
        })
        .collect::<Option<Vec<_>>>()?;
    rest.next().is_none().then_some(moved)
}
