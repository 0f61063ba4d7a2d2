//! What the user asked for, as far as passes are concerned.

use crate::egraph::Workload;
use crate::quantize::{Algo, Scheme};
use crate::ranges::CalibMethod;
use qcc_ir::DType;

/// How activations are quantized in front of a quantized layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ActMode {
    /// As the scheme says: may depend on whether there is calibration data.
    #[default]
    Auto,
    /// With a scale known before the run; needs calibration data.
    Static,
    /// With a scale computed for each token at run time.
    Dynamic,
    /// Not at all: only weights are quantized.
    Float,
}

/// How far activations are smoothed into weights.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Smooth {
    /// `Auto` for integer activations where there are samples to measure on and outliers are not
    /// split off, else `Off`.
    #[default]
    Default,
    /// Not at all.
    Off,
    /// Every norm by this exponent of SmoothQuant, from 0 (all difficulty stays in the
    /// activations) to 1. Needs calibration data.
    Alpha(f32),
    /// Each group of layers by the exponent that measures best, *off* being one of the
    /// candidates. Needs samples of calibration data.
    Auto,
}

/// How GPTQ rounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GptqOptions {
    /// Share of the Hessian's mean diagonal that is added to its diagonal.
    pub damping: f64,
    /// Whether columns of large inputs are rounded first.
    pub act_order: bool,
    /// Whether scales are those of the original weights even in natural order.
    pub static_groups: bool,
}

impl Default for GptqOptions {
    fn default() -> Self {
        GptqOptions {
            damping: 0.01,
            act_order: false,
            static_groups: false,
        }
    }
}

/// Options of the passes.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// The scheme of linear layers and convolutions.
    pub scheme: Scheme,
    /// The scheme of the head: a linear layer as wide as an embedding table has rows that
    /// reaches a result through elementwise and shape ops only.
    pub head: Scheme,
    /// The weight methods; `None` leaves the choice to bits and data.
    pub algo: Option<Vec<Algo>>,
    /// How GPTQ rounds.
    pub gptq: GptqOptions,
    /// How activations are quantized where the scheme's name does not fix it.
    pub act: ActMode,
    /// Where the range of statically quantized activations ends.
    pub calib: CalibMethod,
    /// Layers that stay float: regular expressions searched in node and weight names.
    pub exclude: Vec<String>,
    /// Schemes of layers, as `exclude` finds them; of several that match, the last wins, and any
    /// wins over `exclude`.
    pub overrides: Vec<(String, Scheme)>,
    /// How far activations are smoothed into weights.
    pub smooth: Smooth,
    /// Input channels of quantized activations that exceed this magnitude stay float. Needs
    /// calibration data.
    pub outliers: Option<f32>,
    /// The share of each row of a weight that stays float, where only weights are quantized.
    pub sparse: Option<f64>,
    /// Whether what layers read is rotated by Hadamard matrices.
    pub rotate: bool,
    /// What random choices follow from.
    pub seed: u64,
    /// How float activations and weights are stored; `None` leaves them as the model has them.
    pub float: Option<DType>,
    /// How often each of the sizes to optimise for is called.
    pub workload: Workload,
    /// Constant folding makes no constant of more than this many bytes.
    pub fold_budget: u64,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            scheme: Scheme::float(),
            head: Scheme::float(),
            algo: None,
            gptq: GptqOptions::default(),
            act: ActMode::Auto,
            calib: CalibMethod::MinMax,
            exclude: Vec::new(),
            overrides: Vec::new(),
            smooth: Smooth::Default,
            outliers: None,
            sparse: None,
            rotate: false,
            seed: 0,
            float: None,
            workload: Workload::Mixed,
            fold_budget: 1 << 20,
        }
    }
}

impl Options {
    /// What smoothing comes to, with samples of calibration data or without.
    pub fn smoothing(&self, samples: bool) -> Smooth {
        let mode = |s: &Scheme| match s.act {
            ActMode::Auto => self.act,
            fixed => fixed,
        };
        let ints = |s: &Scheme| s.acts.is_some_and(DType::is_int) && mode(s) != ActMode::Float;
        let overrides = self.overrides.iter().map(|(_, s)| s);
        let mut schemes = [&self.scheme, &self.head].into_iter().chain(overrides);
        match self.smooth {
            Smooth::Default if samples && self.outliers.is_none() && schemes.any(ints) => {
                Smooth::Auto
            }
            Smooth::Default => Smooth::Off,
            given => given,
        }
    }
}
