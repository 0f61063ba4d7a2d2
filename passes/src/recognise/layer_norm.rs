//! Layer normalization.
//!
//! ```text
//! gain · (x − μ) / √(mean((x − μ)²) + ε) + bias      μ = mean(x), along the last dimension
//! ```
//!
//! The deviation may be computed once or twice. Without a gain the gain is 1; a bias is folded
//! where it is added right after.

use super::pattern::Pattern;
use super::rms_norm::row;
use crate::rewrite::{Replacement, Rewriter};
use qcc_ir::expr::BinaryFn;
use qcc_ir::graph::{Op, OpKind, ReduceFn, ValueId};

/// The parts of a layer normalization.
struct Parts {
    x: ValueId,
    eps: f32,
    gain: Option<ValueId>,
    bias: Option<ValueId>,
}

pub(super) fn layer_norm(rw: &mut Rewriter<'_>, op: &Op) -> Replacement {
    let root = op.results[0];
    let mut p = Pattern::new(rw);
    let Some(parts) = biased(&mut p, root).or_else(|| gained(&mut p, root)) else {
        return Ok(None);
    };
    if p.ty(parts.x) != p.ty(root) {
        return Ok(None);
    }
    let loc = p.loc(op);
    rw.set_loc(loc);
    let mut operands = vec![rw.get(parts.x), row(rw, op, parts.x, parts.gain, 1.0)];
    if parts.bias.is_some() {
        operands.push(row(rw, op, parts.x, parts.bias, 0.0));
    }
    let kind = OpKind::LayerNorm {
        eps: parts.eps.to_bits(),
        expr: None,
    };
    Ok(Some(rw.put(op, kind, &operands)))
}

fn biased(p: &mut Pattern, v: ValueId) -> Option<Parts> {
    p.either(v, BinaryFn::Add, |p, scaled, bias| {
        let parts = gained(p, scaled)?;
        let fits = p.row_vector(bias, parts.x);
        fits.then_some(Parts {
            bias: Some(bias),
            ..parts
        })
    })
}

fn gained(p: &mut Pattern, v: ValueId) -> Option<Parts> {
    let with_gain = p.either(v, BinaryFn::Mul, |p, unit, gain| {
        let (x, eps) = normalized(p, unit)?;
        p.row_vector(gain, x).then_some(Parts {
            x,
            eps,
            gain: Some(gain),
            bias: None,
        })
    });
    with_gain.or_else(|| {
        normalized(p, v).map(|(x, eps)| Parts {
            x,
            eps,
            gain: None,
            bias: None,
        })
    })
}

/// `x` of `(x − μ)/√(mean((x − μ)²) + ε)`, and `ε`.
fn normalized(p: &mut Pattern, v: ValueId) -> Option<(ValueId, f32)> {
    p.attempt(|p| {
        let [deviation, root] = p.binary(v, BinaryFn::Div)?;
        let (variance, eps) = p.root(root)?;
        Some((parts(p, deviation, variance)?, eps))
    })
    .or_else(|| {
        p.either(v, BinaryFn::Mul, |p, deviation, factor| {
            let (variance, eps) = p.reciprocal_root(factor)?;
            Some((parts(p, deviation, variance)?, eps))
        })
    })
}

/// `x`, if the deviation and the variance are its own.
fn parts(p: &mut Pattern, deviation: ValueId, variance: ValueId) -> Option<ValueId> {
    let x = centered(p, deviation)?;
    let square = p.row_reduce(variance, ReduceFn::Mean)?;
    if p.square(square, deviation) {
        return Some(x);
    }
    // The square of another copy of the deviation.
    let again = p.attempt(|p| {
        let [a, b] = p.binary(square, BinaryFn::Mul)?;
        (a == b).then_some(a)
    });
    let again = again.or_else(|| {
        let (base, n) = p.with_number(square, BinaryFn::Pow)?;
        (n == 2.0).then_some(base)
    })?;
    (centered(p, again)? == x).then_some(x)
}

/// `x` of `x − mean(x)`.
fn centered(p: &mut Pattern, v: ValueId) -> Option<ValueId> {
    p.attempt(|p| {
        let [x, mean] = p.binary(v, BinaryFn::Sub)?;
        (p.row_reduce(mean, ReduceFn::Mean)? == x).then_some(x)
    })
}
