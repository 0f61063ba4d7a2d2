//! Quantization goes into the kernel that computes what is quantized.
//!
//! A static scheme is a store with a scale. A dynamic one needs every element that shares a
//! scale: a norm and a map see whole rows, a linear only a tile of one.

use super::absorb::{Others, Reader, absorb};
use super::epilogue::{attention, conv, linear, norm, plain};
use super::{Exactness::BitExact, Rule};

/// The rules of this family.
pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "linear-quantize",
        class: BitExact,
        equation: "quantize(linear(x, w), s) = linear(x, w) { store acc scale s }",
        find: |r, s, f| absorb(r, s, f, Others::None, |_, p, c| linear(p) && quantizes(c)),
    },
    Rule {
        name: "conv-quantize",
        class: BitExact,
        equation: "quantize(conv(x, w), s) = conv(x, w) { store acc scale s }",
        find: |r, s, f| absorb(r, s, f, Others::None, |_, p, c| conv(p) && quantizes(c)),
    },
    Rule {
        name: "norm-quantize",
        class: BitExact,
        equation: "quantize(norm(x, g), [s]) = norm(x, g) { store acc·g [scale s] }",
        find: |r, s, f| absorb(r, s, f, Others::None, |_, p, c| norm(p) && quantizes(c)),
    },
    Rule {
        name: "attention-quantize",
        class: BitExact,
        equation: "quantize(attention(q, k, v), s) = attention(q, k, v) { store acc scale s }",
        find: |r, s, f| {
            absorb(r, s, f, Others::None, |_, p, c| {
                attention(p) && quantizes(c)
            })
        },
    },
];

pub(super) fn quantizes(c: &Reader<'_>) -> bool {
    !plain(c)
}
