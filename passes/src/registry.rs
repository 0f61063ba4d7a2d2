//! The passes by name, so that each can be run alone on text.

use crate::calibrate::Observe;
use crate::canonicalize::Canonicalize;
use crate::cse::Cse;
use crate::dce::Dce;
use crate::egraph::Fuse;
use crate::fold_constants::FoldConstants;
use crate::narrow_floats::NarrowFloats;
use crate::pass::Pass;
use crate::quantize::{Awq, FitWeights, Quantize};
use crate::recognise;
use crate::rotate::Rotate;
use crate::smooth::Smooth;
use crate::split_outliers::SplitOutliers;
use crate::split_weights::SplitWeights;
use qcc_ir::Diagnostic;
use qcc_ir::diag::{Class, Result};

/// Makes a pass.
pub type Constructor = fn() -> Box<dyn Pass>;

/// Every pass, in alphabetical order.
const PASSES: &[(&str, Constructor)] = &[
    ("awq", || Box::new(Awq)),
    ("canonicalize", || Box::new(Canonicalize)),
    ("cse", || Box::new(Cse)),
    ("dce", || Box::new(Dce)),
    ("fit-weights", || Box::new(FitWeights)),
    ("fold-attention", || Box::new(recognise::ATTENTION)),
    ("fold-constants", || Box::new(FoldConstants)),
    ("fold-gelu", || Box::new(recognise::GELU)),
    ("fold-layer-norm", || Box::new(recognise::LAYER_NORM)),
    ("fold-positions", || Box::new(recognise::POSITIONS)),
    ("fold-rms-norm", || Box::new(recognise::RMS_NORM)),
    ("fold-rotary", || Box::new(recognise::ROTARY)),
    ("fold-silu", || Box::new(recognise::SILU)),
    ("fuse", || Box::new(Fuse)),
    ("narrow-floats", || Box::new(NarrowFloats)),
    ("observe", || Box::new(Observe)),
    ("quantize", || Box::new(Quantize)),
    ("rotate", || Box::new(Rotate)),
    ("smooth", || Box::new(Smooth)),
    ("split-outliers", || Box::new(SplitOutliers)),
    ("split-weights", || Box::new(SplitWeights)),
];

/// The names of all passes, in alphabetical order.
pub fn names() -> impl Iterator<Item = &'static str> {
    PASSES.iter().map(|(name, _)| *name)
}

/// The pass of this name.
///
/// # Errors
/// `Q0040` when there is none.
pub fn find(name: &str) -> Result<Box<dyn Pass>> {
    match PASSES.iter().find(|(n, _)| *n == name) {
        Some((_, make)) => Ok(make()),
        None => Err(
            Diagnostic::error(40, Class::Usage, format!("there is no pass `{name}`")).hint(
                format!("passes are: {}", names().collect::<Vec<_>>().join(", ")),
            ),
        ),
    }
}

/// The passes of a list `name,name,…`.
///
/// # Errors
/// As [`find`].
pub fn parse_list(list: &str) -> Result<Vec<Box<dyn Pass>>> {
    list.split(',').map(|name| find(name.trim())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_and_are_those_of_the_passes() {
        assert!(PASSES.windows(2).all(|w| w[0].0 < w[1].0));
        for (name, make) in PASSES {
            assert_eq!(*name, make().name());
            assert!(!make().summary().is_empty());
        }
    }

    #[test]
    fn an_unknown_pass_is_a_usage_error() {
        let error = parse_list("dce,frobnicate").err().unwrap();
        assert_eq!(error.code(), "Q0040");
        assert_eq!(error.class(), Class::Usage);
        assert!(error.advice().unwrap().contains("dce"));
    }
}
