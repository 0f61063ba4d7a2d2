//! Arithmetic on positions that is known without running it.
//!
//! ```text
//! i < n, i ≥ 0, …        of counting tensors: true or false, where it is the same everywhere
//! a ∧ true, a ∨ false    a
//! gather x, (s, s + 1, …)    slice x
//! ```
//!
//! A gather becomes a slice only if the range lies within `x` for all sizes that the symbols
//! allow; otherwise it keeps its check at run time.

use super::affine::{Comparison, Counting};
use crate::rewrite::{Replacement, Rewriter};
use qcc_ir::DimExpr;
use qcc_ir::expr::BinaryFn;
use qcc_ir::graph::{Op, OpKind};

pub(super) fn positions(rw: &mut Rewriter<'_>, op: &Op) -> Replacement {
    match op.kind {
        OpKind::Binary(BinaryFn::And | BinaryFn::Or) => logic(rw, op),
        OpKind::Binary(_) => compare(rw, op),
        OpKind::Select => choose(rw, op),
        OpKind::Gather { axis } => gather(rw, op, axis),
        _ => Ok(None),
    }
}

fn compare(rw: &mut Rewriter<'_>, op: &Op) -> Replacement {
    let Some(Comparison::Always(truth)) = Counting::new(rw).comparison(op) else {
        return Ok(None);
    };
    let value = f64::from(u8::from(truth)).to_bits();
    Ok(Some(rw.put(op, OpKind::Splat { value }, &[])))
}

/// `a ∧ true`, `a ∨ false`; and what absorbs the other operand.
fn logic(rw: &mut Rewriter<'_>, op: &Op) -> Replacement {
    let neutral = op.kind == OpKind::Binary(BinaryFn::And);
    for (known, other) in [(1, 0), (0, 1)] {
        let truth = Counting::new(rw).truth(op.operands[known]);
        let other = op.operands[other];
        match truth {
            Some(t) if t == neutral && rw.src.ty(other) == rw.src.ty(op.results[0]) => {
                return Ok(Some(vec![rw.get(other)]));
            }
            Some(t) if t != neutral => {
                let value = f64::from(u8::from(t)).to_bits();
                return Ok(Some(rw.put(op, OpKind::Splat { value }, &[])));
            }
            _ => {}
        }
    }
    Ok(None)
}

fn choose(rw: &mut Rewriter<'_>, op: &Op) -> Replacement {
    let taken = match Counting::new(rw).truth(op.operands[0]) {
        Some(true) => op.operands[1],
        Some(false) => op.operands[2],
        None => return Ok(None),
    };
    let same = rw.src.ty(taken) == rw.src.ty(op.results[0]);
    Ok(same.then(|| vec![rw.get(taken)]))
}

fn gather(rw: &mut Rewriter<'_>, op: &Op, axis: usize) -> Replacement {
    let (x, indices) = (op.operands[0], op.operands[1]);
    let counting = Counting::new(rw);
    let Some(start) = counting.consecutive(indices) else {
        return Ok(None);
    };
    let from = rw.src.ty(x).clone();
    let end = &start + &rw.src.ty(indices).numel();
    let zero = DimExpr::from(0);
    if !counting.at_most(&zero, &start) || !counting.at_most(&end, &from.shape[axis]) {
        return Ok(None);
    }
    let mut rows = rw.get(x);
    if start != zero || end != from.shape[axis] {
        let rank = from.rank();
        let mut ty = from.clone();
        ty.shape[axis] = &end - &start;
        let (mut starts, mut ends) = (vec![zero; rank], from.shape.clone());
        (starts[axis], ends[axis]) = (start, end);
        let kind = OpKind::Slice {
            starts,
            ends,
            steps: vec![1; rank],
        };
        rows = rw.step(op, "rows", kind, &[rows], ty);
    }
    Ok(Some(rw.put(op, OpKind::Reshape, &[rows])))
}
