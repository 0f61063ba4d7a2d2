//! Blocks of the float model to try variants on.
//!
//! A search wants to know how much a variant of some layers changes what the model computes
//! behind them. The *block* of layers that read the same value is what follows them up to the
//! first layer output where their paths have met again (attention with its projection, or the
//! whole MLP), or the layers themselves where the paths never meet. It is run on a few batches,
//! evenly spread, of the float model; errors are sums of squares in f64 in the order of batches
//! and outputs.

use super::stream::{Block, Stream, floats};
use qcc_ir::Tensor;
use qcc_ir::diag::Result;
use qcc_ir::exec::Prepared;
use qcc_ir::graph::{Func, Module, OpId, OpKind, ValueId};
use std::collections::BTreeSet;

/// Batches on which variants are tried, at most.
pub(crate) const TRIAL_BATCHES: usize = 2;

/// What a block gives, by batch and output.
type Outputs = Vec<Vec<Vec<f32>>>;

/// A block and the batches that it is run on.
pub(crate) struct Trial<'s> {
    stream: &'s Stream<'s>,
    block: Block,
    batches: Vec<usize>,
}

impl<'s> Trial<'s> {
    /// A block where the stream is.
    pub(crate) fn new(stream: &'s Stream<'s>, block: Block) -> Self {
        let batches = spread(stream.batches());
        Trial {
            stream,
            block,
            batches,
        }
    }

    /// The block's module.
    pub(crate) fn module(&self) -> &Module {
        self.block.module()
    }

    /// Makes the block, or a variant of it that has the same parameters, ready to run.
    ///
    /// # Errors
    /// What the executor reports.
    pub(crate) fn prepare<'b>(&self, variant: &'b Module) -> Result<Box<dyn Prepared + 'b>> {
        self.stream.prepare(variant)
    }

    /// As [`Trial::prepare`], to run often.
    ///
    /// # Errors
    /// What the executor reports.
    pub(crate) fn hold<'b>(&self, variant: &'b Module) -> Result<Box<dyn Prepared + 'b>> {
        self.stream.hold(variant)
    }

    /// What a variant gives. `weights` are those that the block leaves open.
    ///
    /// # Errors
    /// What the executor reports.
    pub(crate) fn outputs(&self, ready: &mut dyn Prepared, weights: &[Tensor]) -> Result<Outputs> {
        let mut out = Vec::with_capacity(self.batches.len());
        for b in &self.batches {
            let mut given = self.stream.arguments(&self.block, *b)?;
            given.extend_from_slice(weights);
            let results = ready.run(&given, &mut |_, _| ())?;
            out.push(results.iter().map(floats).collect::<Result<_>>()?);
        }
        Ok(out)
    }
}

/// The batches of which variants are tried.
pub(crate) fn spread(all: usize) -> Vec<usize> {
    let some = all.clamp(1, TRIAL_BATCHES);
    (0..some).map(|i| i * all / some).collect()
}

/// `Σ (y − ŷ)²`
pub(crate) fn squared_error(got: &Outputs, wanted: &Outputs) -> f64 {
    let pairs = got.iter().flatten().zip(wanted.iter().flatten());
    pairs.fold(0.0, |sum, (y, w)| sum + squares(y, w))
}

fn squares(a: &[f32], b: &[f32]) -> f64 {
    let each = a.iter().zip(b).map(|(a, b)| f64::from(a - b));
    each.map(|d| d * d).sum()
}

/// The position of the least; of equal ones, the first.
pub(crate) fn first_least(losses: &[f64]) -> usize {
    let mut best = 0;
    for (i, l) in losses.iter().enumerate() {
        if *l < losses[best] {
            best = i;
        }
    }
    best
}

/// What the block of these layers, in the order of their ops, computes.
pub(crate) fn block_outputs(f: &Func, layers: &[OpId]) -> Vec<ValueId> {
    meeting(f, layers).unwrap_or_else(|| own_outputs(f, layers))
}

/// The layers' own results.
pub(crate) fn own_outputs(f: &Func, layers: &[OpId]) -> Vec<ValueId> {
    let own = layers.iter().map(|o| f.ops[o.index()].results[0]);
    own.collect()
}

/// The output of the first other layer through which all paths from these layers lead.
fn meeting(f: &Func, layers: &[OpId]) -> Option<Vec<ValueId>> {
    let mut last_use = vec![0usize; f.values.len()];
    for (i, op) in f.ops.iter().enumerate() {
        op.operands.iter().for_each(|v| last_use[v.index()] = i);
    }
    f.results
        .iter()
        .for_each(|(_, v)| last_use[v.index()] = usize::MAX);
    let first = layers.first()?.index();
    let last = layers.last()?.index();
    let mut open: BTreeSet<ValueId> = BTreeSet::new();
    for (i, op) in f.ops.iter().enumerate().skip(first) {
        let own = layers.iter().any(|l| l.index() == i);
        if !own && !op.operands.iter().any(|v| open.contains(v)) {
            continue;
        }
        open.extend(&op.results);
        open.retain(|v| last_use[v.index()] > i);
        let layer = matches!(op.kind, OpKind::Linear { .. });
        if i > last && layer && open.len() == 1 && open.contains(&op.results[0]) {
            return Some(vec![op.results[0]]);
        }
    }
    None
}
