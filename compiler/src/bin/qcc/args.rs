//! Flags that several commands share: scheme, data, dimensions, threads.

use super::choice::{ChoiceArgs, percent};
use super::usage;
use clap::{Args, ValueEnum};
use qcc::{ActMode, Algo, CalibMethod, Grid, Scheme, Smooth};
use qcc::{Float, Options};
use qcc_ir::DType;
use qcc_ir::diag::Result;
use qcc_ir::graph::Symbol;

/// How activations are quantized.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Act {
    /// Scales known before the run; needs --calib.
    Static,
    /// Scales computed for each token.
    Dynamic,
    /// Activations stay float.
    Float,
}

/// A switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnOff {
    /// Yes.
    On,
    /// No.
    Off,
}

/// How floats are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum FloatArg {
    /// 16 bits for GPUs (f16 where ranges permit), f32 for CPUs alone.
    Auto,
    /// binary16
    F16,
    /// bfloat16
    Bf16,
    /// binary32
    F32,
}

/// Whether cuBLASLt is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum VendorGemm {
    /// For products of many rows on GPUs that have it; elsewhere kernels of qcc.
    Auto,
    /// Kernels of qcc alone.
    Off,
}

/// What is quantized, and how.
#[derive(Debug, Args)]
pub(crate) struct SchemeArgs {
    /// e4m3 weights per output channel; activations static per tensor with data, else dynamic.
    #[arg(long, group = "scheme_choice", help_heading = "Scheme")]
    fp8: bool,
    /// i8 weights per output channel; activations dynamic per token.
    #[arg(long, group = "scheme_choice", help_heading = "Scheme")]
    int8: bool,
    /// 4-bit weights with zero points, in groups of 128 input channels with data and of 32
    /// without; activations stay float.
    #[arg(long, group = "scheme_choice", help_heading = "Scheme")]
    int4: bool,
    /// e2m1 weights in groups of 16, with e4m3 scales under one f32 scale; activations stay float.
    #[arg(long, group = "scheme_choice", help_heading = "Scheme")]
    nvfp4: bool,
    /// e2m1 weights in groups of 32, scaled by powers of two; activations stay float.
    #[arg(long, group = "scheme_choice", help_heading = "Scheme")]
    mxfp4: bool,
    /// A scheme by name: float, fp8, int8, int8-tensor, int4, nvfp4, mxfp4, mxfp8, nf4, lut4, w4a16-g32-asym,
    /// w4a8, w4a4, …; those that quantize activations also with -static, -dynamic or -weights.
    #[arg(
        long,
        value_name = "NAME",
        group = "scheme_choice",
        help_heading = "Scheme"
    )]
    scheme: Option<String>,
    /// Input channels that share a scale in integer weights: 16, 32, 64, 128 or 256.
    #[arg(long, value_name = "N", help_heading = "Scheme")]
    group_size: Option<u32>,
    /// Integer weights without zero points.
    #[arg(long, conflicts_with = "asym", help_heading = "Scheme")]
    sym: bool,
    /// Integer weights with zero points.
    #[arg(long, help_heading = "Scheme")]
    asym: bool,
    /// Weight methods: rtn, mse, hqq, awq, gptq, or together awq,gptq (refines too), gptq,refine,
    /// mse,gptq [default: up to 4 bits awq,gptq with data, without it mse of integers; else rtn].
    #[arg(long, value_name = "METHODS", help_heading = "Scheme")]
    algo: Option<String>,
    /// GPTQ rounds the columns of large inputs first.
    #[arg(long, help_heading = "Scheme")]
    act_order: bool,
    /// How activations are quantized.
    #[arg(long, conflicts_with = "auto", help_heading = "Scheme")]
    act: Option<Act>,
    /// Where the range of static activations ends: minmax, ema, delayed[:N[:M]] (the last 16 batches
    /// of 8 samples, times 2^0), percentile[:P] (99.99), mse, entropy or entropy:ort.
    #[arg(
        long,
        value_name = "METHOD",
        default_value = "minmax",
        help_heading = "Scheme"
    )]
    calib_method: String,
    /// Smooth activations into weights: off, the exponent (0 to 1), or auto, which measures
    /// [default: auto for integer activations with --calib, else off].
    #[arg(long, value_name = "off|ALPHA|auto", help_heading = "Scheme")]
    smooth: Option<String>,
    /// Keep input channels float that exceed a magnitude on the data, beside quantized ones
    /// (LLM.int8() takes 6).
    #[arg(
        long,
        value_name = "THRESHOLD",
        conflicts_with = "auto",
        help_heading = "Scheme"
    )]
    outlier_columns: Option<f32>,
    /// Keep this share of each row of a weight float, the elements that matter most, beside codes
    /// (SqueezeLLM takes 0.45%); where only weights are quantized.
    #[arg(
        long,
        value_name = "P%",
        conflicts_with = "auto",
        help_heading = "Scheme"
    )]
    sparse_weights: Option<String>,
    /// Rotate what layers read by Hadamard matrices, merged into weights where possible; spreads
    /// outliers, for activations of 4 bits.
    #[arg(
        long,
        value_enum,
        value_name = "on|off",
        conflicts_with = "auto",
        help_heading = "Scheme"
    )]
    rotate: Option<OnOff>,
    /// What random signs follow from [default: 0].
    #[arg(long, value_name = "N", requires = "rotate", help_heading = "Scheme")]
    seed: Option<u64>,
    /// Scheme of the language model head, float unless given.
    #[arg(long, value_name = "SCHEME", help_heading = "Scheme")]
    head: Option<String>,
    /// Layers that stay float, found by a regular expression in node and weight names.
    #[arg(long, value_name = "REGEX", help_heading = "Scheme")]
    exclude: Vec<String>,
    /// Scheme of the layers that a regular expression finds; of several that match, the last wins.
    #[arg(
        long = "override",
        value_name = "REGEX=SCHEME",
        help_heading = "Scheme"
    )]
    overrides: Vec<String>,
    #[command(flatten)]
    choice: ChoiceArgs,
    /// Storage of what stays float.
    #[arg(long, value_enum, default_value = "auto", help_heading = "Scheme")]
    float: FloatArg,
    /// cuBLASLt products in GPU sections: off until they have been measured beside qcc's kernels.
    #[arg(long, value_enum, default_value = "off", help_heading = "Kernels")]
    vendor_gemm: VendorGemm,
    /// Range and sizes to optimise for of a dimension: NAME=MIN..MAX[@SIZE,SIZE…].
    #[arg(long, value_name = "NAME=MIN..MAX@SIZES", help_heading = "Shapes")]
    dims: Vec<String>,
    /// Refuse options that have no effect on this model, instead of warning of them.
    #[arg(long, help_heading = "Scheme")]
    strict: bool,
    /// Threads; results do not depend on their number [default: one per core].
    #[arg(long, help_heading = "Resources")]
    threads: Option<usize>,
}

impl SchemeArgs {
    /// A float scheme on this many threads.
    pub(crate) fn float(threads: usize) -> Self {
        SchemeArgs {
            fp8: false,
            int8: false,
            int4: false,
            nvfp4: false,
            mxfp4: false,
            group_size: None,
            sym: false,
            asym: false,
            algo: None,
            act_order: false,
            scheme: None,
            act: None,
            calib_method: "minmax".into(),
            smooth: None,
            outlier_columns: None,
            sparse_weights: None,
            rotate: None,
            seed: None,
            head: None,
            exclude: Vec::new(),
            overrides: Vec::new(),
            choice: ChoiceArgs::default(),
            float: FloatArg::Auto,
            vendor_gemm: VendorGemm::Off,
            dims: Vec::new(),
            strict: false,
            threads: Some(threads),
        }
    }

    /// Whether any of these flags was given that only a compilation can follow.
    pub(crate) fn is_given(&self) -> bool {
        let words = [&self.scheme, &self.head, &self.algo, &self.smooth];
        let lists = [&self.exclude, &self.overrides, &self.dims];
        self.fp8
            || self.int8
            || self.int4
            || self.nvfp4
            || self.mxfp4
            || self.sym
            || self.asym
            || self.act_order
            || self.group_size.is_some()
            || self.act.is_some()
            || self.calib_method != "minmax"
            || self.outlier_columns.is_some()
            || self.sparse_weights.is_some()
            || self.rotate.is_some()
            || self.seed.is_some()
            || self.float != FloatArg::Auto
            || self.vendor_gemm != VendorGemm::Off
            || self.choice.is_given()
            || words.iter().any(|w| w.is_some())
            || lists.iter().any(|l| !l.is_empty())
    }

    /// Threads to use.
    pub(crate) fn threads(&self) -> usize {
        threads(self.threads)
    }

    /// The options for these targets.
    pub(crate) fn options(&self, targets: Vec<String>) -> Result<Options> {
        let flags = [
            (self.fp8, "fp8"),
            (self.int8, "int8"),
            (self.int4, "int4"),
            (self.nvfp4, "nvfp4"),
            (self.mxfp4, "mxfp4"),
        ];
        let flag = flags
            .iter()
            .find(|(given, _)| *given)
            .map(|(_, name)| *name);
        let name = flag.or(self.scheme.as_deref()).unwrap_or("float");
        let grid = match (self.sym, self.asym) {
            (true, _) => Some(Grid::Half),
            (_, true) => Some(Grid::Asymmetric),
            _ => None,
        };
        let mut passes = qcc_passes::Options {
            scheme: Scheme::named(name)?.refined(self.group_size, grid)?,
            calib: CalibMethod::named(&self.calib_method)?,
            smooth: smooth(self.smooth.as_deref())?,
            outliers: self.outlier_columns,
            sparse: self.sparse_weights.as_deref().map(share).transpose()?,
            rotate: matches!(self.rotate, Some(OnOff::On)),
            seed: self.seed.unwrap_or(0),
            exclude: self.exclude.clone(),
            overrides: self
                .overrides
                .iter()
                .map(|o| override_of(o))
                .collect::<Result<_>>()?,
            algo: self.algo.as_deref().map(Algo::list).transpose()?,
            ..qcc_passes::Options::default()
        };
        passes.gptq.act_order = self.act_order;
        passes.workload = self.choice.workload();
        if let Some(h) = &self.head {
            passes.head = Scheme::named(h)?;
        }
        passes.act = match self.act {
            None => ActMode::Auto,
            Some(Act::Static) => ActMode::Static,
            Some(Act::Dynamic) => ActMode::Dynamic,
            Some(Act::Float) => ActMode::Float,
        };
        Ok(Options {
            targets,
            passes,
            auto: self.choice.bound()?,
            float: match self.float {
                FloatArg::Auto => Float::Auto,
                FloatArg::F16 => Float::Fixed(DType::F16),
                FloatArg::Bf16 => Float::Fixed(DType::BF16),
                FloatArg::F32 => Float::Fixed(DType::F32),
            },
            vendor_gemm: self.vendor_gemm == VendorGemm::Auto,
            symbols: self.dims.iter().map(|d| symbol(d)).collect::<Result<_>>()?,
            threads: self.threads(),
            strict: self.strict,
            spill: None,
            diagnose: true,
        })
    }
}

/// A share in percent, above 0 and at most 50.
fn share(text: &str) -> Result<f64> {
    let percent = percent("--sparse-weights", text)?;
    match percent > 0.0 && percent <= 50.0 {
        true => Ok(percent / 100.0),
        false => Err(usage(format!(
            "--sparse-weights is more than 0 % and at most 50 %, not {text}"
        ))),
    }
}

/// The given number of threads, or one per core.
pub(crate) fn threads(given: Option<usize>) -> usize {
    given.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |n| n.get()))
}

fn smooth(text: Option<&str>) -> Result<Smooth> {
    match (text, text.map(str::parse::<f32>)) {
        (None, _) => Ok(Smooth::Default),
        (Some("off"), _) => Ok(Smooth::Off),
        (Some("auto"), _) => Ok(Smooth::Auto),
        (_, Some(Ok(a))) if (0.0..=1.0).contains(&a) => Ok(Smooth::Alpha(a)),
        (Some(text), _) => Err(usage(format!(
            "--smooth takes `off`, `auto` or a number from 0 to 1, not `{text}`"
        ))),
    }
}

fn override_of(text: &str) -> Result<(String, Scheme)> {
    match text.rsplit_once('=') {
        Some((regex, scheme)) if !regex.is_empty() => {
            Ok((regex.to_string(), Scheme::named(scheme)?))
        }
        _ => Err(usage(format!(
            "--override takes REGEX=SCHEME, not `{text}`"
        ))),
    }
}

/// `seq=1..4096@1,16`
pub(crate) fn symbol(text: &str) -> Result<Symbol> {
    let bad = || {
        usage(format!(
            "--dims takes NAME=MIN..MAX or NAME=MIN..MAX@SIZE,SIZE…, not `{text}`"
        ))
    };
    let (name, rest) = text.rsplit_once('=').ok_or_else(bad)?;
    let (range, points) = rest
        .split_once('@')
        .map_or((rest, None), |(r, p)| (r, Some(p)));
    let (min, max) = range.split_once("..").unwrap_or((range, range));
    let number = |s: &str| s.parse::<u64>().map_err(|_| bad());
    let (min, max) = (number(min)?, number(max)?);
    let mut points: Vec<u64> =
        points.map_or(Ok(Vec::new()), |p| p.split(',').map(number).collect())?;
    points.sort_unstable();
    points.dedup();
    if min > max || points.iter().any(|p| *p < min || *p > max) {
        return Err(usage(format!(
            "--dims {text}: sizes must lie in a range that is not empty"
        )));
    }
    Ok(Symbol {
        name: name.to_string(),
        min,
        max,
        points,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dims_have_ranges_and_points() {
        let s = symbol("seq=1..4096@16,1").unwrap();
        assert_eq!((s.min, s.max, s.points), (1, 4096, vec![1, 16]));
        let s = symbol("in.0=8").unwrap();
        assert_eq!((s.name.as_str(), s.min, s.max), ("in.0", 8, 8));
        for bad in ["seq", "seq=", "seq=9..1", "seq=1..4@9", "seq=a..b"] {
            assert_eq!(symbol(bad).unwrap_err().code(), "Q0011", "{bad}");
        }
    }

    #[test]
    fn overrides_split_at_the_last_equals_sign() {
        let (r, s) = override_of("a=b=int8").unwrap();
        assert_eq!((r.as_str(), s.name.as_str()), ("a=b", "int8"));
        assert!(override_of("int8").is_err() && smooth(Some("2")).is_err());
    }
}
