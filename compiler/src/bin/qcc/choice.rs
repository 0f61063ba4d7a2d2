//! Flags of the choice of schemes, and how it is told.

use super::usage;
use clap::{Args, ValueEnum};
use qcc::{AutoReport, Bound, Predicted, Workload};
use qcc_ir::diag::{Class, Diagnostic, Result};

/// Which sizes are called most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum WorkloadArg {
    /// The smallest.
    Decode,
    /// The largest.
    Prefill,
    /// All alike.
    #[default]
    Mixed,
}

/// Whether and under which bound schemes are chosen.
#[derive(Debug, Default, Args)]
pub(crate) struct ChoiceArgs {
    /// Choose the scheme of each layer together with fusion, for the least time under a bound;
    /// needs --calib [default bound: --max-drop 1].
    #[arg(
        long,
        conflicts_with_all = ["fp8", "int8", "int4", "nvfp4", "mxfp4", "scheme"],
        help_heading = "Choice"
    )]
    auto: bool,
    /// Perplexity may grow by this many percent.
    #[arg(
        long,
        value_name = "P%",
        requires = "auto",
        group = "bound",
        help_heading = "Choice"
    )]
    max_drop: Option<String>,
    /// The output may diverge from float by this many nats per row.
    #[arg(
        long,
        value_name = "NATS",
        requires = "auto",
        group = "bound",
        help_heading = "Choice"
    )]
    max_kl: Option<f64>,
    /// Weights take this many bits per element at most; the least divergence wins.
    #[arg(
        long,
        value_name = "BITS",
        requires = "auto",
        group = "bound",
        help_heading = "Choice"
    )]
    effective_bits: Option<f64>,
    /// Which of the sizes of --dims … @ are called most: the smallest, the largest, or all alike.
    #[arg(long, value_enum, default_value = "mixed", help_heading = "Choice")]
    workload: WorkloadArg,
}

impl ChoiceArgs {
    /// Whether any of these flags was given.
    pub(crate) fn is_given(&self) -> bool {
        self.auto || self.workload != WorkloadArg::Mixed
    }

    /// The workload.
    pub(crate) fn workload(&self) -> Workload {
        match self.workload {
            WorkloadArg::Decode => Workload::Decode,
            WorkloadArg::Prefill => Workload::Prefill,
            WorkloadArg::Mixed => Workload::Mixed,
        }
    }

    /// The bound under which schemes are chosen, if they are.
    pub(crate) fn bound(&self) -> Result<Option<Bound>> {
        if !self.auto {
            return Ok(None);
        }
        let bound = match (&self.max_drop, self.max_kl, self.effective_bits) {
            (Some(text), ..) => Bound::Drop(percent("--max-drop", text)?),
            (_, Some(nats), _) => Bound::Divergence(nats),
            (.., Some(bits)) => Bound::Bits(bits),
            _ => Bound::Drop(1.0),
        };
        let (Bound::Drop(x) | Bound::Divergence(x) | Bound::Bits(x)) = bound;
        match x.is_finite() && x > 0.0 {
            true => Ok(Some(bound)),
            false => Err(usage(format!("a bound is a number above 0, not {x}"))),
        }
    }
}

/// A number of percent.
pub(crate) fn percent(flag: &str, text: &str) -> Result<f64> {
    let number = text.trim_end_matches('%').parse::<f64>();
    number.map_err(|_| usage(format!("{flag} takes percent such as 1%, not `{text}`")))
}

/// The plan is written, but nothing that was tried keeps the bound.
pub(crate) fn missed(a: &AutoReport) -> Diagnostic {
    let (name, limit) = &a.bound;
    let reached = match name.as_str() {
        "drop" => a.measured_drop.unwrap_or(f64::NAN),
        "kl" => a.measured_kl,
        _ => a.chosen.bits,
    };
    let message = format!("the bound is missed: {name} is {reached:.4}, the limit {limit}");
    Diagnostic::error(801, Class::Accuracy, message)
        .hint("the plan holds the nearest choice; `qcc explain` lists what each layer could have")
}

/// A choice of schemes: predicted beside measured, and what it was chosen over.
pub(crate) fn text_of(a: &AutoReport) -> String {
    let kept = if a.kept { "kept" } else { "missed" };
    let (name, limit) = &a.bound;
    let mut t = format!("bound     {name} {limit}: {kept}");
    t += &format!(
        ", KL {:.5} predicted, {:.5} measured",
        a.chosen.kl, a.measured_kl
    );
    if let Some(d) = a.measured_drop {
        t += &format!(", perplexity {d:+.3} %");
    }
    let (cost, bound) = a.cost;
    t += &format!(
        "\nchoice    {cost:.3}, and no choice of schemes comes below {bound:.3} (predicted)\n"
    );
    t += &line("chosen", &a.chosen);
    if let Some((name, p)) = &a.uniform {
        t += &line(&format!("all {name}"), p);
    }
    if let Some(p) = &a.precision_first {
        t += &line("precision, then fusion", p);
    }
    t + &line("options alone", &a.base)
}

fn line(name: &str, p: &Predicted) -> String {
    let us = p.us.iter().map(|(b, us)| format!("{us:.1} µs at {b}"));
    let us: Vec<String> = us.collect();
    let (bits, kl) = (p.bits, p.kl);
    format!(
        "          {name:<24} {bits:>8.2} bits  KL {kl:.5}  {}\n",
        us.join(", ")
    )
}
