//! Which strength each group of layers wants, by what it does to the model's output.
//!
//! ```text
//! loss(α) = Σ (block(X) − block(X; the group's layers quantized, smoothed by α))²
//!           α: off, 0, 0.05 … 1
//! ```
//!
//! The block is that of [`Trial`] with the inputs that the float model has; weights are rounded to
//! nearest, activations quantized as they will be. The first of equal losses wins, so *off* does;
//! where the division costs a product at run time, it has to leave less than 0.9 of the loss.
//! (Choosing α by the error of outputs is what Intel's neural-compressor does per layer; the block
//! behind a norm sees what attention and activations make of an error.)
//!
//! Groups are measured alone. Whether their choices add up is measured on the whole model, every
//! layer quantized: against 0.5 for every norm, and against *off*. So the search never does worse
//! than those two on the samples that it sees.
//!
//! Those samples are few. Static ranges that were taken from them too would hold every one of their
//! outliers, and the search would take strengths that leave no room for those of other data. So it
//! works with ranges of the samples that it does not see ([`held_out`](super::held_out)).

use super::fake::Fake;
use super::held_out::Few;
use super::smoothed;
use super::spot::{Choice, Spot, name};
use crate::pass::PassContext;
use crate::quantize::{
    Assigned, Nearest, Stream, Target, Trial, first_least, quantized, squared_error,
};
use crate::statistics::Statistics;
use qcc_ir::Tensor;
use qcc_ir::diag::{Class, Diagnostic, Result};
use qcc_ir::exec::Executor;
use qcc_ir::graph::{Module, ValueId};
use qcc_ir::ledger::{Candidate, Decision, Topic};

/// The strength that the whole search is measured against.
const USUAL: f32 = 0.5;
/// Share of the loss that a product has to leave at most to be worth its run time.
const WORTH: f64 = 0.9;
/// Steps between no and full strength.
const STEPS: usize = 20;

/// What a search works with.
pub(super) struct Bench<'a> {
    pub(super) module: &'a Module,
    pub(super) statistics: &'a Statistics,
    pub(super) layers: &'a [Assigned],
    pub(super) spots: &'a [Spot<'a>],
}

impl Bench<'_> {
    /// What is best for each spot.
    ///
    /// # Errors
    /// `Q0525` without samples to measure on; what the executor reports.
    pub(super) fn search(&self, ctx: &mut PassContext<'_>) -> Result<Vec<Choice>> {
        let samples = ctx.samples.filter(|s| s.batches() > 0);
        let (Some(executor), Some(samples)) = (ctx.executor, samples) else {
            let message = "the search of smoothing measures on calibration data; statistics alone \
                           do not do";
            return Err(Diagnostic::error(525, Class::Usage, message)
                .hint("give --calib, or a strength: --smooth 0.5 needs only statistics"));
        };
        if self.spots.is_empty() {
            return Ok(Vec::new());
        }
        let few = Few::new(self.module, samples);
        let mut stream = Stream::new(self.module, executor, &few, ctx.spilling)?;
        let mut found = Vec::with_capacity(self.spots.len());
        for spot in self.spots {
            stream.advance(&spot.group, false, &mut |_| Ok(()))?;
            found.push(self.best(&stream, spot, ctx.threads)?);
        }
        let decision = self.agree(executor, &few, &mut found)?;
        ctx.ledger.record(decision);
        Ok(found)
    }

    /// The best strength of one spot by the output of its block.
    fn best(&self, stream: &Stream<'_>, spot: &Spot<'_>, threads: usize) -> Result<Choice> {
        let f = &self.module.funcs[0];
        let mut layers = spot.readers.clone();
        layers.sort_by_key(|l| l.site.op);
        let trial = Trial::of(stream, f, spot.group.input, &layers)?;
        let layers = Nearest::of(self.module, layers, threads)?;
        let float: Vec<Tensor> = layers.iter().map(|(_, w)| w.float().clone()).collect();
        let wanted = trial.outputs(&mut *trial.prepare(trial.module())?, &float)?;
        let fake = Fake::new(trial.module(), self.module, layers)?;
        let mut ready = trial.hold(&fake.module)?;
        let strengths: Vec<Option<f32>> = strengths().collect();
        let mut losses = Vec::with_capacity(strengths.len());
        for s in &strengths {
            let ones = || vec![1.0; spot.stats.channels()].into();
            let factors = s.map_or_else(ones, |a| spot.factors(a));
            let given = fake.arguments(self.module, spot, &factors)?;
            losses.push(squared_error(&trial.outputs(&mut *ready, &given)?, &wanted));
        }
        let measured = strengths.iter().zip(&losses);
        let best = first_least(&losses);
        let costs = matches!(spot.to, Target::Product(_)) && losses[best] > WORTH * losses[0];
        Ok(Choice {
            strength: strengths[if costs { 0 } else { best }],
            considered: measured
                .map(|(s, l)| Candidate::new(name(*s)).error(*l))
                .collect(),
        })
    }

    /// Keeps what was found, or puts the usual strength or nothing in its place, whichever serves
    /// the whole model best.
    fn agree(
        &self,
        executor: &dyn Executor,
        few: &Few<'_>,
        found: &mut [Choice],
    ) -> Result<Decision> {
        let f = &self.module.funcs[0];
        let stream = Stream::new(self.module, executor, few, None)?;
        let results: Vec<ValueId> = f.results.iter().map(|(_, v)| *v).collect();
        let trial = Trial::new(&stream, stream.block(&[], &results)?);
        let wanted = trial.outputs(&mut *trial.prepare(trial.module())?, &[])?;
        let usual = |s: &Spot<'_>| s.is_norm().then_some(USUAL);
        let plans: [(&str, Vec<Option<f32>>); 3] = [
            ("searched", found.iter().map(|c| c.strength).collect()),
            ("alpha 0.5", self.spots.iter().map(usual).collect()),
            ("off", vec![None; found.len()]),
        ];
        let mut losses = Vec::with_capacity(plans.len());
        for (_, strengths) in &plans {
            let (spots, statistics) = (self.spots, self.statistics);
            let variant = variant(self.module, self.layers, spots, strengths, statistics)?;
            let got = trial.outputs(&mut *trial.prepare(&variant)?, &[])?;
            losses.push(squared_error(&got, &wanted));
        }
        let (best, strengths) = &plans[first_least(&losses)];
        for (choice, strength) in found.iter_mut().zip(strengths) {
            choice.strength = *strength;
        }
        let mut decision = Decision::new("model", Topic::Smoothing, *best);
        let errors = plans.iter().zip(&losses);
        decision.considered = errors
            .map(|((name, _), l)| Candidate::new(*name).error(*l))
            .collect();
        Ok(decision)
    }
}

/// The candidates.
fn strengths() -> impl Iterator<Item = Option<f32>> {
    let alphas = (0..=STEPS).map(|i| Some(i as f32 / STEPS as f32));
    std::iter::once(None).chain(alphas)
}

/// A module smoothed, and its layers quantized.
fn variant(
    m: &Module,
    layers: &[Assigned],
    spots: &[Spot<'_>],
    strengths: &[Option<f32>],
    statistics: &Statistics,
) -> Result<Module> {
    let (smooth, updated) = smoothed(m, layers, spots, strengths, statistics)?;
    let moved = |l: &Assigned| l.within(m, &smooth, Some(&updated));
    let layers: Vec<Assigned> = layers.iter().map(moved).collect::<Result<_>>()?;
    quantized(&smooth, &layers)
}
