//! Recognisers: composite ops that exporters have written out in small ones.
//!
//! Each is a pass of its own, so that it can be run alone on text, and leaves alone what it does
//! not recognise. They expect the normal form of `canonicalize` (constants on the right, no
//! reshape after a reshape), and folded constants. The order matters where one is part of
//! another: a layer normalization contains an RMS normalization, attention reads rotated
//! queries.
//!
//! | pass | finds |
//! |---|---|
//! | `fold-positions` | comparisons and gathers of positions that are known without running |
//! | `fold-gelu`, `fold-silu` | activations |
//! | `fold-layer-norm`, `fold-rms-norm` | normalizations along the last dimension |
//! | `fold-rotary` | rotary embeddings |
//! | `fold-attention` | softmax attention with its masks, factors and repeated heads |
//!
//! Linear layers with a bias and convolutions are put together by `canonicalize` itself.

mod affine;
mod attention;
mod gelu;
mod layer_norm;
mod mask;
mod pattern;
mod positions;
mod rms_norm;
mod rotary;
mod silu;
#[cfg(test)]
mod tests;
mod view;

use crate::pass::{Pass, PassContext};
use crate::rewrite::{Replacement, Rewriter, rewrite};
use qcc_ir::diag::Result;
use qcc_ir::graph::{Module, Op};

/// A pass that replaces what one rule recognises.
pub(crate) struct Recogniser {
    name: &'static str,
    summary: &'static str,
    rule: fn(&mut Rewriter<'_>, &Op) -> Replacement,
}

/// Every recogniser, in the order in which they should run.
pub(crate) const POSITIONS: Recogniser = Recogniser {
    name: "fold-positions",
    summary: "decides comparisons of positions, makes gathers of ranges slices",
    rule: positions::positions,
};
/// GELU.
pub(crate) const GELU: Recogniser = Recogniser {
    name: "fold-gelu",
    summary: "recognises GELU, exact and approximate",
    rule: gelu::gelu,
};
/// SiLU and hard swish.
pub(crate) const SILU: Recogniser = Recogniser {
    name: "fold-silu",
    summary: "recognises SiLU and hard swish",
    rule: silu::silu,
};
/// Layer normalization.
pub(crate) const LAYER_NORM: Recogniser = Recogniser {
    name: "fold-layer-norm",
    summary: "recognises layer normalization",
    rule: layer_norm::layer_norm,
};
/// RMS normalization.
pub(crate) const RMS_NORM: Recogniser = Recogniser {
    name: "fold-rms-norm",
    summary: "recognises RMS normalization",
    rule: rms_norm::rms_norm,
};
/// Rotary embedding.
pub(crate) const ROTARY: Recogniser = Recogniser {
    name: "fold-rotary",
    summary: "recognises rotary embeddings",
    rule: rotary::rotary,
};
/// Attention.
pub(crate) const ATTENTION: Recogniser = Recogniser {
    name: "fold-attention",
    summary: "recognises softmax attention",
    rule: attention::attention,
};

impl Pass for Recogniser {
    fn name(&self) -> &'static str {
        self.name
    }

    fn summary(&self) -> &'static str {
        self.summary
    }

    fn run(&self, module: &Module, _: &mut PassContext<'_>) -> Result<Module> {
        let rule = self.rule;
        Ok(rewrite(module, &mut |rw: &mut Rewriter<'_>, op: &Op| rule(rw, op))?.module)
    }
}
