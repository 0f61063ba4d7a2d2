//! Blocks of the float model to try variants on.
//!
//! A search wants to know how much a variant of some layers changes what the model computes
//! behind them. The *block* of layers that read a norm is what follows them up to the first value
//! behind another layer where their paths have met again: attention with its projection, the whole
//! MLP, or the sum of both where they run side by side. Of other layers, or where the paths never
//! meet, the block is the layers themselves. So its length does not grow with the model's, unless
//! layers all along it read the same norm, as decoders do an encoder's.
//! It is run on a few batches, evenly spread, of the float model; errors are sums of squares in f64
//! in the order of batches and outputs.

use super::assign::Assigned;
use super::stream::{Block, Stream, floats};
use crate::analysis::is_plain_norm;
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

    /// The block of layers that read `x`, in the order of their ops, their weights left open.
    ///
    /// # Errors
    /// When the block does not follow from where the stream is.
    pub(crate) fn of(
        stream: &'s Stream<'s>,
        f: &Func,
        x: ValueId,
        layers: &[&Assigned],
    ) -> Result<Self> {
        let ops: Vec<OpId> = layers.iter().map(|l| l.site.op).collect();
        Ok(Self::new(
            stream,
            stream.block(&ops, &block_outputs(f, x, &ops))?,
        ))
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

/// What the block of these readers of `x`, in the order of their ops, gives.
///
/// What another layer makes reaches the model through these layers alone, and they mostly end in a
/// residual sum: there their own error is the block's. What a norm makes has no such end before
/// its layers' paths have met.
fn block_outputs(f: &Func, x: ValueId, layers: &[OpId]) -> Vec<ValueId> {
    let norm = f.def_op(x).is_some_and(|o| is_plain_norm(&o.kind));
    let meeting = norm.then(|| meeting(f, layers)).flatten();
    let own = || layers.iter().map(|o| f.ops[o.index()].results[0]).collect();
    meeting.map_or_else(own, |v| vec![v])
}

/// The first value behind at least one other layer through which all paths from these layers lead.
fn meeting(f: &Func, layers: &[OpId]) -> Option<ValueId> {
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
    let mut passed = false;
    for (i, op) in f.ops.iter().enumerate().skip(first) {
        let own = layers.iter().any(|l| l.index() == i);
        if !own && !op.operands.iter().any(|v| open.contains(v)) {
            continue;
        }
        passed |= !own && matches!(op.kind, OpKind::Linear { .. });
        open.extend(&op.results);
        open.retain(|v| last_use[v.index()] > i);
        if i > last && passed && open.len() == 1 {
            return open.pop_first();
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::maker;
    use crate::testing::module;

    /// A residual block; `#` is its number, `+` the next one's.
    const MLP: &str = r#"%h#: f32[n, 2] = rms_norm %x#, %g {eps = 0.00001} @"norm#"
      %up#: f32[n, 2] = linear %h#, %w @"up#"
      %relu#: f32[n, 2] = relu %up#
      %down#: f32[n, 2] = linear %relu#, %w @"down#"
      %x+: f32[n, 2] = add %x#, %down#"#;

    /// One with another layer beside its MLP.
    const PARALLEL: &str = r#"%h#: f32[n, 2] = rms_norm %x#, %g {eps = 0.00001} @"norm#"
      %side#: f32[n, 2] = linear %h#, %w @"side#"
      %up#: f32[n, 2] = linear %h#, %w @"up#"
      %relu#: f32[n, 2] = relu %up#
      %down#: f32[n, 2] = linear %relu#, %w @"down#"
      %both#: f32[n, 2] = add %down#, %side#
      %x+: f32[n, 2] = add %x#, %both#"#;

    fn deep(block: &str, depth: usize) -> Module {
        let each = |i: usize| {
            let block = block.replace('#', &i.to_string());
            block.replace('+', &(i + 1).to_string())
        };
        let blocks: Vec<String> = (0..depth).map(each).collect();
        module(&format!(
            "dim n = 1..8
            weight @g: f32[2] = [1.0, 1.0]
            weight @w: f32[2, 2] = [1.0, 0.5, -1.0, 2.0]
            func @main(%x0: f32[n, 2]) -> (y: f32[n, 2]) {{
              %g: f32[2] = const @g
              %w: f32[2, 2] = const @w
              {}
              return %x{depth}
            }}",
            blocks.join("\n")
        ))
    }

    /// The name of the one value that the block of these readers of `x` gives.
    fn output(m: &Module, x: &str, layers: &[&str]) -> String {
        let f = &m.funcs[0];
        let value = |name: &str| f.find(name).unwrap();
        let ops = layers.iter().map(|l| maker(f, value(l)).unwrap());
        let outputs = block_outputs(f, value(x), &ops.collect::<Vec<_>>());
        assert_eq!(outputs.len(), 1);
        f.value(outputs[0]).name.clone()
    }

    #[test]
    fn a_block_ends_where_paths_have_met_however_deep_the_model_is() {
        for depth in [2, 9] {
            assert_eq!(output(&deep(MLP, depth), "h0", &["up0"]), "down0");
            let m = deep(PARALLEL, depth);
            assert_eq!(output(&m, "h0", &["side0", "up0"]), "both0");
        }
    }

    #[test]
    fn what_else_reads_the_norm_does_not_matter() {
        let post = MLP.replace("add %x#", "add %h#");
        assert_eq!(output(&deep(&post, 3), "h1", &["up1"]), "down1");
    }

    #[test]
    fn paths_that_leave_the_model_never_meet() {
        let mut m = deep(MLP, 3);
        let up = m.funcs[0].find("up0").unwrap();
        m.funcs[0].results.push(("cache".into(), up));
        assert_eq!(output(&m, "h0", &["up0"]), "up0");
    }

    #[test]
    fn the_block_of_what_reads_a_layer_is_itself() {
        assert_eq!(output(&deep(MLP, 2), "relu0", &["down0"]), "down0");
    }
}
