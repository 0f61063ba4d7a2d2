//! Values that are other values seen differently: reshaped, transposed, repeated, scaled.
//!
//! A [`View`] follows such ops down to a source and says for each dimension of the value which
//! pieces of the source's dimensions it consists of. So `[b, h, s, d]` made of `[b, s, h·d]` by
//! reshape and transpose, or keys repeated for several query heads, are recognised whatever
//! ops the exporter has chosen, and the source can be arranged anew.

use super::pattern::Pattern;
use crate::rewrite::Rewriter;
use qcc_ir::DimExpr;
use qcc_ir::graph::{Op, OpKind, TensorType, ValueId};

/// Longest chain of ops that is followed.
const CHAIN: usize = 32;

/// A piece of a dimension of the source, or a repetition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// The dimension of the source; `None` for a repetition.
    pub(super) axis: Option<usize>,
    /// Elements of that dimension between neighbours of this piece.
    stride: DimExpr,
    pub(super) size: DimExpr,
}

/// A value as an arrangement of its source.
#[derive(Clone, Debug)]
pub(super) struct View {
    pub(super) source: ValueId,
    /// What the source is multiplied with.
    pub(super) scale: f64,
    /// The pieces of each dimension, outer first; none for a dimension of 1.
    pub(super) dims: Vec<Vec<Piece>>,
    /// The pieces of the source, in its order.
    order: Vec<Piece>,
}

/// The size that several pieces have together.
pub(super) fn size(pieces: &[Piece]) -> DimExpr {
    DimExpr::product(pieces.iter().map(|p| &p.size))
}

impl View {
    /// Follows `v` as far as possible; through products with a number only if `scaled`.
    pub(super) fn trace(p: &mut Pattern, v: ValueId, scaled: bool) -> View {
        let mut chain: Vec<&Op> = Vec::new();
        let (mut at, mut scale) = (v, 1.0);
        while chain.len() < CHAIN {
            let view = |k: &OpKind| {
                matches!(
                    k,
                    OpKind::Reshape | OpKind::Transpose { .. } | OpKind::Expand
                )
            };
            if let Some(op) = p.op(at, view) {
                chain.push(op);
                at = op.operands[0];
                continue;
            }
            match p.attempt(|p| p.scaled(at).filter(|(x, _)| scaled && p.ty(*x) == p.ty(at))) {
                Some((x, c)) => (at, scale) = (x, scale * c),
                None => break,
            }
        }
        let mut view = View::identity(p.ty(at), at, scale);
        for op in chain.into_iter().rev() {
            let result = op.results[0];
            match view.apply(&op.kind, &p.ty(result).shape) {
                Some(next) => view = next,
                // What cannot be followed is itself the source of what comes after it. A factor
                // before it is given up with it.
                None if view.scale == 1.0 => view = View::identity(p.ty(result), result, 1.0),
                None => return View::identity(p.ty(v), v, 1.0),
            }
        }
        view
    }

    fn identity(ty: &TensorType, source: ValueId, scale: f64) -> View {
        let one = DimExpr::from(1);
        let dims = ty.shape.iter().enumerate().map(|(axis, size)| {
            let piece = Piece {
                axis: Some(axis),
                stride: one.clone(),
                size: size.clone(),
            };
            if *size == one {
                Vec::new()
            } else {
                vec![piece]
            }
        });
        let dims: Vec<Vec<Piece>> = dims.collect();
        View {
            source,
            scale,
            order: dims.concat(),
            dims,
        }
    }

    /// The view after one more op with a result of this shape.
    fn apply(&self, kind: &OpKind, shape: &[DimExpr]) -> Option<View> {
        let mut next = self.clone();
        next.dims = match kind {
            OpKind::Transpose { perm } => {
                let moved = perm.iter().map(|&p| self.dims.get(p).cloned());
                moved.collect::<Option<_>>()?
            }
            OpKind::Expand => self.expanded(shape)?,
            OpKind::Reshape => next.reshaped(shape)?,
            _ => return None,
        };
        Some(next)
    }

    fn expanded(&self, shape: &[DimExpr]) -> Option<Vec<Vec<Piece>>> {
        let lead = shape.len().checked_sub(self.dims.len())?;
        let one = DimExpr::from(1);
        let dims = shape.iter().enumerate().map(|(i, wide)| {
            let own = i.checked_sub(lead).map_or(&[][..], |i| &self.dims[i]);
            if own.is_empty() && *wide != one {
                vec![Piece {
                    axis: None,
                    stride: one.clone(),
                    size: wide.clone(),
                }]
            } else {
                own.to_vec()
            }
        });
        Some(dims.collect())
    }

    /// Deals the pieces out to new dimensions, splitting one where a dimension ends within it.
    fn reshaped(&mut self, shape: &[DimExpr]) -> Option<Vec<Vec<Piece>>> {
        let mut rest: Vec<Piece> = self.dims.iter().flatten().rev().cloned().collect();
        let one = DimExpr::from(1);
        let mut dims = Vec::with_capacity(shape.len());
        for want in shape {
            let mut dim = Vec::new();
            let mut left = want.clone();
            while left != one {
                let piece = rest.pop()?;
                if let Some(after) = left.exact_div(&piece.size) {
                    dim.push(piece);
                    left = after;
                    continue;
                }
                let (outer, inner) = self.split(&piece, &left)?;
                dim.push(outer);
                rest.push(inner);
                left = one.clone();
            }
            dims.push(dim);
        }
        rest.is_empty().then_some(dims)
    }

    /// The outer part of a piece, of the given size, and the rest.
    fn split(&mut self, piece: &Piece, size: &DimExpr) -> Option<(Piece, Piece)> {
        let within = piece.size.exact_div(size)?;
        let outer = Piece {
            size: size.clone(),
            stride: &piece.stride * &within,
            axis: piece.axis,
        };
        let inner = Piece {
            size: within,
            ..piece.clone()
        };
        if let Some(at) = self.order.iter().position(|p| p == piece) {
            self.order.splice(at..=at, [outer.clone(), inner.clone()]);
        }
        Some((outer, inner))
    }

    /// Whether the groups hold every piece of the source exactly once and no repetition.
    pub(super) fn holds(&self, groups: &[Vec<Piece>]) -> bool {
        let pieces: Vec<&Piece> = groups.iter().flatten().collect();
        pieces.len() == self.order.len() && self.order.iter().all(|o| pieces.contains(&o))
    }

    /// Arranges the source anew: one dimension per group of pieces, in that order.
    ///
    /// `None` unless the groups [hold](View::holds) the source.
    pub(super) fn arrange(
        &self,
        rw: &mut Rewriter<'_>,
        op: &Op,
        suffix: &str,
        groups: &[Vec<Piece>],
    ) -> Option<ValueId> {
        let order = &self.order;
        let target: Vec<&Piece> = groups.iter().flatten().collect();
        if !self.holds(groups) {
            return None;
        }
        let elem = rw.src.ty(self.source).elem.clone();
        let ty = |shape: Vec<DimExpr>| TensorType {
            elem: elem.clone(),
            shape,
        };
        let perm: Vec<usize> = target
            .iter()
            .map(|t| order.iter().position(|o| o == *t))
            .collect::<Option<_>>()?;
        let mut v = rw.get(self.source);
        if perm.iter().enumerate().any(|(i, p)| i != *p) {
            let pieces = order.iter().map(|p| p.size.clone()).collect();
            v = rw.b.reshape(v, pieces);
            let moved = ty(target.iter().map(|p| p.size.clone()).collect());
            v = rw.step(op, suffix, OpKind::Transpose { perm }, &[v], moved);
        }
        let shape: Vec<DimExpr> = groups.iter().map(|g| size(g)).collect();
        match rw.b.ty(v).shape == shape {
            true => Some(v),
            false => Some(rw.step(op, suffix, OpKind::Reshape, &[v], ty(shape))),
        }
    }
}
