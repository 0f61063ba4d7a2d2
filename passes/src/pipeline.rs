//! The order of the passes, each with its reason.

use crate::pass::Pass;
use crate::registry::find;
use qcc_ir::diag::Result;

/// A pass by name and why it stands where it does.
pub type Step = (&'static str, &'static str);

/// From an imported model to the float module in normal form: what is calibrated, quantized and
/// compared with.
pub const PREPARE: &[Step] = &[
    (
        "fold-constants",
        "exporters spell sizes and epsilons as subgraphs",
    ),
    (
        "canonicalize",
        "one spelling for the recognisers and all that follows",
    ),
    (
        "fold-constants",
        "what canonicalization left of biases and scales",
    ),
    (
        "fold-positions",
        "masks and lookups of positions become visible to the recognisers",
    ),
    ("canonicalize", "selects between known branches"),
    ("fold-gelu", "activations, before their parts meet others"),
    ("fold-silu", "activations"),
    (
        "fold-layer-norm",
        "before what looks like an RMS normalization of the deviation",
    ),
    ("fold-rms-norm", "normalizations"),
    ("fold-rotary", "attention then reads rotated rows"),
    ("canonicalize", "reshapes and transposes around rotations"),
    ("fold-attention", "with its masks and repeated heads"),
    ("canonicalize", "reshapes and transposes around attention"),
    (
        "fold-constants",
        "tables and masks that turned out constant",
    ),
    ("cse", "exporters repeat masks and tables for each layer"),
    (
        "dce",
        "nothing that no result needs is calibrated or compiled",
    ),
];

/// What changes what values hold: after it, before the next, the module is calibrated.
pub const ROTATE: &[Step] = &[(
    "rotate",
    "before calibration: it has to see what the quantized layers will",
)];

/// From the float module to the one that is compiled.
pub const QUANTIZE: &[Step] = &[
    ("smooth", "before codes are computed from the weights"),
    (
        "split-outliers",
        "what smoothing leaves, before anything is scaled by what remains",
    ),
    (
        "observe",
        "smoothed values, before anything reads their ranges",
    ),
    (
        "awq",
        "also before codes are computed, and after activations have their outliers removed",
    ),
    ("observe", "values that AWQ scaled"),
    (
        "split-weights",
        "on weights that AWQ has scaled; methods then fit what remains",
    ),
    (
        "fit-weights",
        "on the final float weights; the module stays as it is",
    ),
    ("quantize", "on float weights of full precision"),
    (
        "narrow-floats",
        "what stayed float, once codes have been taken from f32",
    ),
    ("cse", "casts and scales of one value"),
    ("dce", "float weights that are codes now"),
    ("fuse", "last: it chooses among what the other passes left"),
    ("dce", "constants that merged weights replaced"),
];

/// The passes of some steps.
///
/// # Errors
/// When a step names no pass.
pub fn passes(steps: &[Step]) -> Result<Vec<Box<dyn Pass>>> {
    steps.iter().map(|(name, _)| find(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_exists() {
        for steps in [PREPARE, ROTATE, QUANTIZE] {
            assert_eq!(passes(steps).unwrap().len(), steps.len());
        }
    }
}
