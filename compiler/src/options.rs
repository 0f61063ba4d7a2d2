//! What to compile for, and how.

use qcc_codegen::target::Target;
use qcc_ir::DType;
use qcc_ir::diag::{Class, Diagnostic, Result};
use qcc_ir::graph::Symbol;
use qcc_passes::{ActMode, CalibMethod, Smooth, Workload};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// How what stays float is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Float {
    /// 16 bits when a GPU is among the targets (f16 where ranges permit, else bf16), f32 for
    /// CPUs alone.
    #[default]
    Auto,
    /// This format.
    Fixed(DType),
}

/// What a choice of schemes has to keep.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    /// Perplexity grows by at most this many percent.
    Drop(f64),
    /// The output diverges from float by at most this many nats per row.
    Divergence(f64),
    /// The layers' weights take at most this many bits per element, scales included.
    Bits(f64),
}

/// Everything that a compilation depends on besides the model and the calibration data.
#[derive(Clone, Debug)]
pub struct Options {
    /// Names of the targets, each once; one section of the plan is made for each.
    pub targets: Vec<String>,
    /// What passes are told: scheme, activations, exclusions, smoothing.
    pub passes: qcc_passes::Options,
    /// Chooses the schemes of layers under this bound instead of giving all the same.
    pub auto: Option<Bound>,
    /// Storage of floats.
    pub float: Float,
    /// Whether GPU sections may use products of the vendor's library, with kernels of ours where it
    /// is missing.
    pub vendor_gemm: bool,
    /// Ranges and preferred sizes of symbolic dimensions.
    pub symbols: Vec<Symbol>,
    /// Threads; results do not depend on their number.
    pub threads: usize,
    /// Whether an option that has no effect on the model is an error instead of a warning.
    pub strict: bool,
    /// Whether errors of layers and outputs are measured on calibration data. The plan is the
    /// same but for the errors in its ledger.
    pub diagnose: bool,
    /// What of streamed activations and codes goes to a file; nothing without it.
    pub spill: Option<SpillTo>,
}

/// A limit of memory, and the folder for a temporary file with what exceeds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpillTo {
    /// The folder.
    pub folder: PathBuf,
    /// Bytes: half for the activations of all samples between two layers, half for codes. What
    /// the methods need for a single layer comes on top.
    pub above: u64,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            targets: vec!["cpu".to_string()],
            passes: qcc_passes::Options::default(),
            auto: None,
            float: Float::Auto,
            vendor_gemm: false,
            symbols: Vec::new(),
            threads: 1,
            strict: false,
            spill: None,
            diagnose: true,
        }
    }
}

impl Options {
    /// The rows of the target table.
    ///
    /// # Errors
    /// `Q0010` for an unknown or repeated target, or none.
    pub fn resolve_targets(&self) -> Result<Vec<&'static Target>> {
        let bad = |m: String| {
            let names: Vec<&str> = qcc_codegen::target::TARGETS
                .iter()
                .map(|t| t.name)
                .collect();
            Diagnostic::error(10, Class::Usage, m).hint(format!("targets are {}", names.join(", ")))
        };
        if self.targets.is_empty() {
            return Err(bad("no target is given".into()));
        }
        let mut out: Vec<&'static Target> = Vec::new();
        for name in &self.targets {
            let t =
                Target::find(name).ok_or_else(|| bad(format!("there is no target `{name}`")))?;
            if out.iter().any(|o| o.name == t.name) {
                return Err(bad(format!("target `{name}` is given twice")));
            }
            out.push(t);
        }
        Ok(out)
    }

    /// The storage of floats for these targets; `None` leaves them as the model has them.
    pub(crate) fn float_storage(&self, targets: &[&Target]) -> Option<DType> {
        match self.float {
            Float::Fixed(d) => Some(d),
            Float::Auto if targets.iter().any(|t| t.is_gpu()) => Some(DType::F16),
            Float::Auto => Some(DType::F32),
        }
    }

    /// The options as they are recorded in a plan. `smooth`: what smoothing came to, with the data
    /// and the schemes that were chosen. Threads are left out: nothing depends on them.
    pub(crate) fn record(&self, smooth: Smooth) -> BTreeMap<String, String> {
        let p = &self.passes;
        let mut out = BTreeMap::new();
        let mut put = |k: &str, v: String| out.insert(k.to_string(), v);
        put("targets", self.targets.join(","));
        match self.auto {
            None => put("scheme", p.scheme.name.clone()),
            Some(Bound::Drop(x)) => put("auto", format!("drop {x}%")),
            Some(Bound::Divergence(x)) => put("auto", format!("kl {x}")),
            Some(Bound::Bits(x)) => put("auto", format!("bits {x}")),
        };
        let workload = match p.workload {
            Workload::Decode => Some("decode"),
            Workload::Prefill => Some("prefill"),
            Workload::Mixed => None,
        };
        if let Some(w) = workload {
            put("workload", w.into());
        }
        put("head", p.head.name.clone());
        let act = match p.act {
            ActMode::Auto => "auto",
            ActMode::Static => "static",
            ActMode::Dynamic => "dynamic",
            ActMode::Float => "float",
        };
        put("act", act.into());
        if p.calib != CalibMethod::MinMax {
            put("calib-method", p.calib.to_string());
        }
        if let Some(algo) = &p.algo {
            let names: Vec<&str> = algo.iter().map(|a| a.name()).collect();
            put("algo", names.join(","));
        }
        if p.gptq.act_order {
            put("act-order", "on".into());
        }
        let smooth = match smooth {
            Smooth::Default | Smooth::Off => "off".into(),
            Smooth::Alpha(a) => a.to_string(),
            Smooth::Auto => "auto".into(),
        };
        put("smooth", smooth);
        if let Some(t) = p.outliers {
            put("outlier-columns", t.to_string());
        }
        if let Some(share) = p.sparse {
            put("sparse-weights", format!("{}%", share * 100.0));
        }
        if p.rotate {
            put("rotate", "on".into());
            put("seed", p.seed.to_string());
        }
        let float = match self.float {
            Float::Auto => "auto".to_string(),
            Float::Fixed(d) => d.to_string(),
        };
        put("float", float);
        if self.vendor_gemm {
            put("vendor-gemm", "auto".into());
        }
        if !p.exclude.is_empty() {
            put("exclude", p.exclude.join(" "));
        }
        for (i, (regex, scheme)) in p.overrides.iter().enumerate() {
            put(&format!("override.{i}"), format!("{regex}={}", scheme.name));
        }
        out
    }
}
