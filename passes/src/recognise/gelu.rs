//! GELU, exact and approximate.
//!
//! ```text
//! x · ½ (1 + erf(x / √2))                              gelu
//! x · ½ (1 + tanh(√(2/π) (x + 0.044715 x³)))           gelu_tanh
//! ```
//!
//! The factors may stand in any order; the cube may be a power or a product, or be written as
//! `x (1 + 0.044715 x²)`.

use super::pattern::{Pattern, near};
use crate::rewrite::{Replacement, Rewriter};
use qcc_ir::expr::{BinaryFn, UnaryFn};
use qcc_ir::graph::{Op, OpKind, ValueId};
use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_PI};

pub(super) fn gelu(rw: &mut Rewriter<'_>, op: &Op) -> Replacement {
    if !matches!(op.kind, OpKind::Binary(BinaryFn::Mul | BinaryFn::Div)) {
        return Ok(None);
    }
    let mut p = Pattern::new(rw);
    let Some((f, x)) = p.attempt(|p| product(p, op.results[0])) else {
        return Ok(None);
    };
    if p.ty(x) != p.ty(op.results[0]) {
        return Ok(None);
    }
    let loc = p.loc(op);
    rw.set_loc(loc);
    let x = rw.get(x);
    Ok(Some(rw.put(op, OpKind::Unary(f), &[x])))
}

/// `c0 · (c1 x) · (c2 (1 + t))` with `c0 c1 c2 = ½`.
fn product(p: &mut Pattern, v: ValueId) -> Option<(UnaryFn, ValueId)> {
    let (core, c0) = p.unscaled(v);
    p.either(core, BinaryFn::Mul, |p, left, right| {
        let (sum, c2) = p.unscaled(right);
        let (t, one) = p.with_number(sum, BinaryFn::Add)?;
        if one != 1.0 {
            return None;
        }
        let (f, x) = exact(p, t).or_else(|| approximate(p, t))?;
        let (c1, n) = p.monomial(left, x)?;
        (n == 1.0 && near(c0 * c1 * c2, 0.5)).then_some((f, x))
    })
}

/// `erf(x / √2)`
fn exact(p: &mut Pattern, t: ValueId) -> Option<(UnaryFn, ValueId)> {
    p.attempt(|p| {
        let inner = p.unary(t, UnaryFn::Erf)?;
        let (x, c) = p.scaled(inner)?;
        near(c, FRAC_1_SQRT_2).then_some((UnaryFn::Gelu, x))
    })
}

/// `tanh(√(2/π) (x + 0.044715 x³))`
fn approximate(p: &mut Pattern, t: ValueId) -> Option<(UnaryFn, ValueId)> {
    p.attempt(|p| {
        let inner = p.unary(t, UnaryFn::Tanh)?;
        let (core, c) = p.unscaled(inner);
        let x = p
            .either(core, BinaryFn::Add, |p, x, cube| {
                let (a, n) = p.monomial(cube, x)?;
                (n == 3.0 && near(a, 0.044715)).then_some((x, c))
            })
            .or_else(|| factored(p, core, c));
        let (x, c) = x?;
        near(c, FRAC_2_PI.sqrt()).then_some((UnaryFn::GeluTanh, x))
    })
}

/// `c x · (1 + 0.044715 x²)`, the number on any factor.
fn factored(p: &mut Pattern, v: ValueId, c: f64) -> Option<(ValueId, f64)> {
    p.either(v, BinaryFn::Mul, |p, left, right| {
        let (x, c1) = p.unscaled(left);
        let (sum, c2) = p.unscaled(right);
        let (square, one) = p.with_number(sum, BinaryFn::Add)?;
        let (a, n) = p.monomial(square, x)?;
        (one == 1.0 && n == 2.0 && near(a, 0.044715)).then_some((x, c * c1 * c2))
    })
}
