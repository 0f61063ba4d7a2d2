//! Schemes chosen under a bound on accuracy or size, and the bound checked on the result.
//!
//! ```text
//! perplexity ≤ (1 + P/100) · perplexity of float   ⇐   KL ≤ ln(1 + P/100)
//! ```
//!
//! The log of the perplexities' ratio is the growth of the cross entropy, Σ p*·(ln p − ln q) with
//! the data's distribution p*; a language model p is trained to be p*, and with p in its place this
//! is KL(p ‖ q). On models at hand the growth is 0.8 to 1.05 times the divergence.
//!
//! The choice goes by a sum of divergences that were measured layer by layer. The fused module
//! is measured as a whole, on more samples; if it misses the bound, the budget shrinks in
//! proportion and the choice is made again, a few times. What comes nearest is kept if none meets
//! it.

use crate::compile::{Compiler, ERROR_SAMPLES};
use crate::data::Dataset;
use crate::evaluate::Evaluator;
use crate::options::Bound;
use crate::report::SearchReport;
use qcc_ir::DType;
use qcc_ir::Tensor;
use qcc_ir::diag::{Class, Diagnostic, Result};
use qcc_ir::exec::Executor;
use qcc_ir::graph::Module;
use qcc_ir::ledger::Candidate;
use qcc_passes::choose::{Budget, Chosen, Reference, Study, Summary, Totals, logits};
use qcc_passes::egraph::Stats;
use qcc_passes::{Manager, PassContext, Scheme, pipeline};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Choices that are compiled at most.
const ROUNDS: usize = 3;
/// A budget shrinks to this share of what would do if errors were in proportion.
const MARGIN: f64 = 0.95;
/// Calibration samples on which the result is measured at most.
const SAMPLES: usize = 32;

/// Predicted figures.
#[derive(Clone, Debug, Serialize)]
pub struct Predicted {
    /// Microseconds of a run for each bucket of sizes, on the first GPU among the targets.
    pub us: BTreeMap<String, f64>,
    /// Their mean over all calls of the workload.
    pub mean_us: f64,
    /// Divergence from float in nats, the sum over layers.
    pub kl: f64,
    /// Bits per element of the layers' weights.
    pub bits: f64,
}

/// How a choice of schemes came out.
#[derive(Clone, Debug, Serialize)]
pub struct AutoReport {
    /// `drop`, `kl` or `bits`, and its limit: percent of the perplexity, nats, or bits.
    pub bound: (String, f64),
    /// Whether the compiled model keeps it.
    pub kept: bool,
    /// What was chosen.
    pub chosen: Predicted,
    /// Divergence of the compiled model on calibration samples, in nats.
    pub measured_kl: f64,
    /// Growth of its perplexity there, in percent; for language models.
    pub measured_drop: Option<f64>,
    /// What was minimised (microseconds, or nats under a bound on bits), and below which no choice
    /// of those enumerated comes.
    pub cost: (f64, f64),
    /// The options without a choice.
    pub base: Predicted,
    /// The best single scheme within the budget.
    pub uniform: Option<(String, Predicted)>,
    /// Schemes layer by layer first and fusion after, if that keeps the budget.
    pub precision_first: Option<Predicted>,
    /// Choices that were compiled.
    pub rounds: usize,
    /// Groups of layers that read one value.
    pub groups: usize,
    /// Parts of the model that are fused independently.
    pub parts: usize,
}

impl From<Totals> for Predicted {
    fn from(t: Totals) -> Self {
        Predicted {
            us: t.micros.into_iter().collect(),
            mean_us: t.mean_micros,
            kl: t.divergence,
            bits: t.bits,
        }
    }
}

/// A choice of schemes that was measured.
pub(crate) struct Choice {
    /// Schemes of layers, as overrides of the options.
    pub(crate) overrides: Vec<(String, Scheme)>,
    /// By layer, all candidates with their figures, for the ledger.
    pub(crate) considered: BTreeMap<String, Vec<Candidate>>,
    pub(crate) report: AutoReport,
    /// What was searched for prices, in all rounds.
    pub(crate) search: SearchReport,
}

/// Chooses schemes for the layers of a calibrated module, in the context of its quantization.
///
/// # Errors
/// `Q0525` without data; `Q0535` where a bound needs a language model and this is none.
pub(crate) fn choose(
    c: &mut Compiler<'_>,
    module: &Module,
    ctx: &PassContext<'_>,
    data: Option<&Dataset>,
    bound: Bound,
) -> Result<Choice> {
    let (Some(data), Some(executor)) = (data, ctx.executor) else {
        let message = "a choice of schemes needs calibration data";
        return Err(Diagnostic::error(525, Class::Usage, message).hint("give --calib"));
    };
    let few = batches(data, ERROR_SAMPLES)?;
    let step = &mut |done, total| c.step("weigh schemes", done, total);
    let mut study = Study::new(module, ctx, &few, step)?;
    let judge = Judge::new(module, executor, data, (bound, ctx.threads))?;
    let mut budget = bound.budget();
    let mut best: Option<(f64, Chosen, AutoReport)> = None;
    let (mut pricing, mut search) = (Duration::ZERO, Stats::default());
    for round in 1..=ROUNDS {
        c.step("choose schemes", round - 1, ROUNDS)?;
        let start = Instant::now();
        let chosen = study.choose(budget)?;
        pricing += start.elapsed();
        search = chosen.summary.search;
        let mut options = ctx.options.clone();
        options.overrides.extend(chosen.overrides.iter().cloned());
        let mut own = ctx.with_options(&options);
        let passes = pipeline::passes(pipeline::QUANTIZE)?;
        let compiled = Manager::new(passes).run(module.clone(), &mut own)?.module;
        let seen = judge.measure(&compiled, executor)?;
        let share = seen.share(bound, chosen.summary.chosen.bits);
        if best.as_ref().is_none_or(|(least, ..)| share < *least) {
            let report = report(&chosen.summary, bound, &seen, share <= 1.0, round);
            best = Some((share, chosen, report));
        }
        match (budget, share <= 1.0) {
            (Budget::Divergence(x), false) => budget = Budget::Divergence(x * MARGIN / share),
            _ => break,
        }
    }
    let none = || Diagnostic::error(919, Class::Internal, "no choice was measured");
    let (_, chosen, report) = best.ok_or_else(none)?;
    Ok(Choice {
        overrides: chosen.overrides,
        considered: chosen.considered,
        report,
        search: SearchReport::new(&search, pricing),
    })
}

impl Bound {
    /// What the choice has to keep so that the bound is met.
    fn budget(self) -> Budget {
        match self {
            Bound::Drop(percent) => Budget::Divergence(libm::log(1.0 + percent / 100.0)),
            Bound::Divergence(nats) => Budget::Divergence(nats),
            Bound::Bits(bits) => Budget::Bits(bits),
        }
    }

    fn named(self) -> (String, f64) {
        let (name, limit) = match self {
            Bound::Drop(x) => ("drop", x),
            Bound::Divergence(x) => ("kl", x),
            Bound::Bits(x) => ("bits", x),
        };
        (name.to_string(), limit)
    }
}

fn batches(data: &Dataset, most: usize) -> Result<Vec<Vec<Tensor>>> {
    let batches = data.batches(most);
    batches.map(|(first, n)| data.batch(first, n)).collect()
}

/// Measures modules against the float one.
struct Judge {
    batches: Vec<Vec<Tensor>>,
    float: Vec<Tensor>,
    reference: Reference,
    /// The input that holds tokens, where perplexities are asked for.
    tokens: Option<usize>,
}

/// What was measured.
struct Seen {
    kl: f64,
    drop: Option<f64>,
}

impl Judge {
    fn new(
        m: &Module,
        executor: &dyn Executor,
        data: &Dataset,
        (bound, threads): (Bound, usize),
    ) -> Result<Judge> {
        let batches = batches(data, SAMPLES)?;
        let float = logits(m, executor, &batches)?;
        let ids = |inputs: &Vec<Tensor>| {
            inputs
                .iter()
                .position(|t| t.dtype() == DType::I64 && t.dims().len() == 2)
        };
        let tokens = batches.first().and_then(ids);
        let predicts = float.iter().all(|t| t.dims().len() == 3);
        let judge = Judge {
            batches,
            reference: Reference::new(&float, threads)?,
            float,
            tokens: tokens.filter(|_| predicts),
        };
        if matches!(bound, Bound::Drop(_)) && judge.tokens.is_none() {
            let message =
                "perplexity is that of language models: logits [b, s, v] from tokens [b, s]";
            return Err(Diagnostic::error(535, Class::Usage, message)
                .hint("bound the divergence instead: --max-kl"));
        }
        Ok(judge)
    }

    fn measure(&self, m: &Module, executor: &dyn Executor) -> Result<Seen> {
        let ours = logits(m, executor, &self.batches)?;
        let kl = self.reference.divergence(&ours)?;
        let Some(at) = self.tokens else {
            return Ok(Seen { kl, drop: None });
        };
        let mut e = Evaluator::new();
        for ((inputs, ours), float) in self.batches.iter().zip(&ours).zip(&self.float) {
            e.add(&inputs[at], ours, Some(float))?;
        }
        let q = e.finish()?;
        let drop = q
            .baseline_perplexity
            .map(|b| (q.perplexity / b - 1.0) * 100.0);
        Ok(Seen { kl, drop })
    }
}

impl Seen {
    /// What was measured as a share of what the bound allows.
    fn share(&self, bound: Bound, bits: f64) -> f64 {
        let share = |value: f64, limit: f64| match value <= limit {
            true => (value / limit.max(f64::MIN_POSITIVE)).min(1.0),
            false => value / limit.max(f64::MIN_POSITIVE),
        };
        match bound {
            Bound::Drop(limit) => share(self.drop.unwrap_or(0.0), limit),
            Bound::Divergence(limit) => share(self.kl, limit),
            Bound::Bits(limit) => share(bits, limit),
        }
    }
}

fn report(s: &Summary, bound: Bound, seen: &Seen, kept: bool, round: usize) -> AutoReport {
    AutoReport {
        bound: bound.named(),
        kept,
        chosen: s.chosen.clone().into(),
        measured_kl: seen.kl,
        measured_drop: seen.drop,
        cost: (s.cost, s.bound),
        base: s.base.clone().into(),
        uniform: s.uniform.clone().map(|(name, t)| (name, t.into())),
        precision_first: s.precision_first.clone().map(Predicted::from),
        rounds: round,
        groups: s.groups,
        parts: s.factors,
    }
}
