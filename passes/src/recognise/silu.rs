//! SiLU and hard swish: `x` times a gate of itself.
//!
//! ```text
//! x · sigmoid(x)                                       silu
//! x · max(0, min(1, x/6 + ½))                          hard_swish
//! x · min(max(x + 3, 0), 6) / 6                        hard_swish
//! ```

use super::pattern::{Pattern, near};
use crate::rewrite::{Replacement, Rewriter};
use qcc_ir::expr::{BinaryFn, UnaryFn};
use qcc_ir::graph::{Op, OpKind, ValueId};

pub(super) fn silu(rw: &mut Rewriter<'_>, op: &Op) -> Replacement {
    if !matches!(op.kind, OpKind::Binary(BinaryFn::Mul | BinaryFn::Div)) {
        return Ok(None);
    }
    let mut p = Pattern::new(rw);
    let v = op.results[0];
    let Some((f, x)) = sigmoid(&mut p, v).or_else(|| clipped(&mut p, v)) else {
        return Ok(None);
    };
    let loc = p.loc(op);
    rw.set_loc(loc);
    let x = rw.get(x);
    Ok(Some(rw.put(op, OpKind::Unary(f), &[x])))
}

fn sigmoid(p: &mut Pattern, v: ValueId) -> Option<(UnaryFn, ValueId)> {
    p.either(v, BinaryFn::Mul, |p, x, gate| {
        (p.unary(gate, UnaryFn::Sigmoid)? == x).then_some((UnaryFn::Silu, x))
    })
}

fn clipped(p: &mut Pattern, v: ValueId) -> Option<(UnaryFn, ValueId)> {
    p.attempt(|p| {
        let (core, c0) = p.unscaled(v);
        p.either(core, BinaryFn::Mul, |p, left, right| {
            let (gate, c2) = p.unscaled(right);
            let (line, top) = clip(p, gate)?;
            let (sum, shift) = p.with_number(line, BinaryFn::Add)?;
            let (slope, n) = p.monomial(sum, left)?;
            let unit = c0 * c2;
            let fits = n == 1.0
                && near(unit * top, 1.0)
                && near(unit * slope, 1.0 / 6.0)
                && near(unit * shift, 0.5);
            fits.then_some((UnaryFn::HardSwish, left))
        })
    })
}

/// `x` and `n` of `x` limited to `0..=n`, whichever limit comes first.
fn clip(p: &mut Pattern, v: ValueId) -> Option<(ValueId, f64)> {
    for (outer, inner) in [
        (BinaryFn::Min, BinaryFn::Max),
        (BinaryFn::Max, BinaryFn::Min),
    ] {
        let found = p.attempt(|p| {
            let (x, a) = p.with_number(v, outer)?;
            let (x, b) = p.with_number(x, inner)?;
            let (low, high) = if outer == BinaryFn::Min {
                (b, a)
            } else {
                (a, b)
            };
            (low == 0.0 && high > 0.0).then_some((x, high))
        });
        if found.is_some() {
            return found;
        }
    }
    p.attempt(|p| {
        let (x, high) = p.with_number(v, BinaryFn::Min)?;
        let x = p.unary(x, UnaryFn::Relu)?;
        (high > 0.0).then_some((x, high))
    })
}
