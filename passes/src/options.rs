//! What the user asked for, as far as passes are concerned.

/// How activations are quantized in front of a quantized linear.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ActMode {
    /// As the scheme says: depends on whether there is calibration data.
    #[default]
    Auto,
    /// With a scale known before the run; needs calibration data.
    Static,
    /// With a scale computed for each token at run time.
    Dynamic,
    /// Not at all: only weights are quantized.
    Float,
}

/// Options of the passes.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// How activations are quantized.
    pub act: ActMode,
    /// Constant folding makes no constant of more than this many bytes.
    pub fold_budget: u64,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            act: ActMode::Auto,
            fold_budget: 1 << 20,
        }
    }
}
