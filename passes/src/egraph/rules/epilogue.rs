//! Elementwise ops go into the kernel that computes their operand.

use super::absorb::{Others, Producer, Reader, absorb};
use super::{Exactness::BitExact, Rule};
use crate::egraph::space::Space;
use qcc_ir::expr::BinaryFn;
use qcc_ir::graph::OpKind;

/// The rules of this family.
pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "linear-bias",
        class: BitExact,
        equation: "(x·wᵀ) + b = linear(x, w, b)",
        find: |r, s, f| absorb(r, s, f, Others::None, |s, p, c| linear(p) && is_bias(s, c)),
    },
    Rule {
        name: "linear-residual",
        class: BitExact,
        equation: "linear(x, w) + r = linear(x, w) { acc + r }",
        find: |r, s, f| {
            absorb(r, s, f, Others::None, |s, p, c| {
                linear(p) && is_residual(s, c)
            })
        },
    },
    Rule {
        name: "linear-activation",
        class: BitExact,
        equation: "f(linear(x, w)) = linear(x, w) { f(acc) }",
        find: |r, s, f| absorb(r, s, f, Others::None, |_, p, c| linear(p) && is_unary(c)),
    },
    Rule {
        name: "linear-gate",
        class: BitExact,
        equation: "f(u, v) where (u, v) = linear(x, [w₀; w₁]) = linear(x, [w₀; w₁]) { f(acc₀, acc₁) }",
        find: |r, s, f| absorb(r, s, f, Others::None, |_, p, c| gated(p) && plain(c)),
    },
    Rule {
        name: "linear-map",
        class: BitExact,
        equation: "f(linear(x, w), a…) = linear(x, w) { f(acc, a…) }",
        find: |r, s, f| {
            absorb(r, s, f, Others::None, |s, p, c| {
                let named = is_bias(s, c) || is_residual(s, c) || is_unary(c);
                linear(p) && !gated(p) && plain(c) && !named
            });
        },
    },
    Rule {
        name: "linear-two-results",
        class: BitExact,
        equation: "v = linear(x, w); y = f(v, a…)  =  v, y = linear(x, w) { acc; f(acc, a…) }",
        find: |r, s, f| absorb(r, s, f, Others::Stored, |_, p, _| linear(p)),
    },
    Rule {
        name: "conv-map",
        class: BitExact,
        equation: "f(conv(x, w), a…) = conv(x, w) { f(acc, a…) }",
        find: |r, s, f| absorb(r, s, f, Others::None, |_, p, c| conv(p) && plain(c)),
    },
    Rule {
        name: "conv-two-results",
        class: BitExact,
        equation: "v = conv(x, w); y = f(v, a…)  =  v, y = conv(x, w) { acc; f(acc, a…) }",
        find: |r, s, f| absorb(r, s, f, Others::Stored, |_, p, _| conv(p)),
    },
    Rule {
        name: "norm-map",
        class: BitExact,
        equation: "f(norm(x, g), a…) = norm(x, g) { f(acc·g, a…) }",
        find: |r, s, f| absorb(r, s, f, Others::None, |_, p, c| norm(p) && plain(c)),
    },
    Rule {
        name: "norm-two-results",
        class: BitExact,
        equation: "v = norm(x, g); y = f(v, a…)  =  v, y = norm(x, g) { acc·g; f(acc·g, a…) }",
        find: |r, s, f| absorb(r, s, f, Others::Stored, |_, p, _| norm(p)),
    },
    Rule {
        name: "attention-map",
        class: BitExact,
        equation: "f(attention(q, k, v), a…) = attention(q, k, v) { f(acc, a…) }",
        find: |r, s, f| absorb(r, s, f, Others::None, |_, p, c| attention(p) && plain(c)),
    },
    Rule {
        name: "attention-two-results",
        class: BitExact,
        equation: "o = attention(…); y = f(o, a…)  =  o, y = attention(…) { acc; f(acc, a…) }",
        find: |r, s, f| absorb(r, s, f, Others::Stored, |_, p, _| attention(p)),
    },
];

pub(super) fn linear(p: &Producer<'_>) -> bool {
    matches!(p.kind, OpKind::Linear { .. })
}

fn gated(p: &Producer<'_>) -> bool {
    matches!(p.kind, OpKind::Linear { accs: 2, .. })
}

pub(super) fn conv(p: &Producer<'_>) -> bool {
    matches!(p.kind, OpKind::Conv { .. })
}

pub(super) fn norm(p: &Producer<'_>) -> bool {
    matches!(p.kind, OpKind::LayerNorm { .. } | OpKind::RmsNorm { .. })
}

pub(super) fn attention(p: &Producer<'_>) -> bool {
    matches!(p.kind, OpKind::Attention { .. })
}

/// Whether nothing that the reader gives is quantized.
pub(super) fn plain(c: &Reader<'_>) -> bool {
    c.types.iter().all(|r| r.elem.plain().is_some())
}

fn is_unary(c: &Reader<'_>) -> bool {
    matches!(c.kind, OpKind::Unary(_))
}

/// Whether the reader adds a vector along the last dimension.
fn is_bias(s: &Space<'_>, c: &Reader<'_>) -> bool {
    is_add(c) && c.operands.iter().any(|o| s.ty(*o).rank() == 1)
}

/// Whether the reader adds two tensors of one shape.
fn is_residual(s: &Space<'_>, c: &Reader<'_>) -> bool {
    is_add(c)
        && c.operands
            .iter()
            .all(|o| s.ty(*o).shape == c.types[0].shape)
        && !is_bias(s, c)
}

fn is_add(c: &Reader<'_>) -> bool {
    *c.kind == OpKind::Binary(BinaryFn::Add)
}
