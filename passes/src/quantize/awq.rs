//! AWQ: input channels that matter are scaled up before rounding and down again in the input.
//!
//! ```text
//! s_j = mean |X_j|^r / sqrt(max s · min s)       r = 0, 0.05 … 0.95, s_j at least 1e-4
//! loss(r) = Σ (block(X; W) − block(X; quantize(W·diag(s))·diag(1/s)))²
//! ```
//!
//! (Lin et al., "AWQ", 2024; the search of its public implementation.) The means are those of all
//! calibration rows. The block is what follows the layers up to the first layer output where
//! their paths have met again (attention with its projection, or the whole MLP); of layers whose
//! input comes from a product, the layer itself. Losses are summed over a few batches, evenly
//! spread, of the float model; the first of equal losses wins, so *off* (`r = 0`) does.
//!
//! Factors are folded ([`fold`](super::fold)); a value whose maker can take none is left alone,
//! and the ledger says why. Ranges are clipped later ([`clip`](super::clip)).
//!
//! Preconditions: as for `quantize`; an executor and samples where a layer asks for the method.

use super::assign::{Assigned, assign};
use super::fit::{methods_of, rounded, source, stream};
use super::fold::{Folded, Target, target};
use super::stream::{Group, Stream, floats, groups};
use crate::pass::{Pass, PassContext};
use crate::weights::{Transform, derive, format_error, read_f32};
use qcc_ir::diag::Result;
use qcc_ir::format::encode_slice;
use qcc_ir::graph::{Func, Module, OpId, OpKind, ValueId};
use qcc_ir::ledger::{Candidate, Decision, Topic};
use qcc_ir::{DType, Tensor};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Exponents that are tried, in steps of 1/20.
const RATIOS: usize = 20;
/// Batches on which losses are measured, at most.
const LOSS_BATCHES: usize = 2;
/// Smallest factor before normalization.
const FLOOR: f64 = 1e-4;

/// The pass.
pub(crate) struct Awq;

impl Pass for Awq {
    fn name(&self) -> &'static str {
        "awq"
    }

    fn summary(&self) -> &'static str {
        "scales input channels by how much they matter (AWQ)"
    }

    fn run(&self, module: &Module, ctx: &mut PassContext<'_>) -> Result<Module> {
        let layers = assign(module, ctx)?;
        let wants: BTreeSet<OpId> = layers
            .iter()
            .filter(|l| methods_of(l, ctx).awq)
            .map(|l| l.site.op)
            .collect();
        if wants.is_empty() {
            return Ok(module.clone());
        }
        let f = &module.funcs[0];
        let quantized: BTreeSet<OpId> = layers
            .iter()
            .filter(|l| l.choice.is_some())
            .map(|l| l.site.op)
            .collect();
        let mut stream = stream(module, ctx)?;
        let mut folded = Folded::default();
        for g in groups(f, &layers) {
            let found = target(f, g.input, &layers, |l| wants.contains(&l.site.op));
            let (to, readers) = match found {
                Ok(found) => found,
                Err(None) => continue,
                Err(Some(reason)) => {
                    ctx.ledger.record(refused(f, &g, &layers, reason));
                    continue;
                }
            };
            let channels = source(module, readers[0])?
                .dims
                .last()
                .copied()
                .unwrap_or(0);
            let means = means(&mut stream, &g, usize::try_from(channels).unwrap_or(0))?;
            let search = Search::new(module, &stream, to, &readers)?;
            let losses = search.losses(&means)?;
            let best = first_least(&losses);
            ctx.ledger.record(decision(f, &g, &readers, &losses, best));
            if best > 0 {
                let s: Arc<[f32]> = factors(&means, best).into();
                folded.add(f, to, &readers, &s, &|id| quantized.contains(&id));
                divide_statistics(ctx, &f.value(g.input).name, &s);
            }
        }
        match folded.is_empty() {
            true => Ok(module.clone()),
            false => folded.apply(module),
        }
    }
}

fn site(f: &Func, g: &Group) -> String {
    match f.def_op(g.input) {
        Some(op) if !op.loc.nodes.is_empty() => op.loc.to_string(),
        _ => f.value(g.input).name.clone(),
    }
}

fn refused(f: &Func, g: &Group, layers: &[Assigned], reason: String) -> Decision {
    let mut d = Decision::new(site(f, g), Topic::Smoothing, "off")
        .consider(Candidate::refused("awq", reason))
        .consider(Candidate::new("off"));
    d.fused = g
        .members
        .iter()
        .map(|i| layers[*i].site.name.clone())
        .collect();
    d
}

fn decision(f: &Func, g: &Group, readers: &[&Assigned], losses: &[f64], best: usize) -> Decision {
    let name = |i: usize| match i {
        0 => "off".to_string(),
        _ => format!("awq ratio {:.2}", i as f64 / RATIOS as f64),
    };
    let mut d = Decision::new(site(f, g), Topic::Smoothing, name(best));
    for (i, loss) in losses.iter().enumerate() {
        let mut c = Candidate::new(name(i));
        c.error = Some(*loss);
        d = d.consider(c);
    }
    d.fused = readers.iter().map(|l| l.site.name.clone()).collect();
    d
}

/// What was seen of a value is divided along with it.
fn divide_statistics(ctx: &mut PassContext<'_>, name: &str, s: &[f32]) {
    if let Some(all) = &mut ctx.statistics
        && let Some(stats) = all.get(name).filter(|v| v.channels() == s.len())
    {
        let divided = stats.divided(s);
        all.insert(name, divided);
    }
}

/// Mean magnitude of each channel of a group's input over all samples.
fn means(stream: &mut Stream<'_>, g: &Group, channels: usize) -> Result<Vec<f64>> {
    let (mut sums, mut rows) = (vec![0.0; channels], 0u64);
    stream.advance(g, &mut |seen| {
        for row in seen.rows(channels)?.chunks(channels.max(1)) {
            for (s, v) in sums.iter_mut().zip(row) {
                *s += f64::from(v.abs());
            }
            rows += 1;
        }
        Ok(())
    })?;
    Ok(sums.into_iter().map(|s| s / rows.max(1) as f64).collect())
}

/// The factors of a ratio.
fn factors(means: &[f64], ratio: usize) -> Vec<f32> {
    let r = ratio as f64 / RATIOS as f64;
    let s: Vec<f64> = means.iter().map(|m| libm::pow(*m, r).max(FLOOR)).collect();
    let greatest = s.iter().copied().fold(0.0, f64::max);
    let least = s.iter().copied().fold(f64::INFINITY, f64::min);
    let norm = (greatest * least).sqrt();
    s.into_iter().map(|v| (v / norm) as f32).collect()
}

fn first_least(losses: &[f64]) -> usize {
    let mut best = 0;
    for (i, l) in losses.iter().enumerate() {
        if *l < losses[best] {
            best = i;
        }
    }
    best
}

/// A block, its weights and what it gives on some batches.
struct Search<'s, 'm> {
    stream: &'s Stream<'s>,
    module: &'m Module,
    block: super::stream::Block,
    /// By position of their ops.
    layers: Vec<&'m Assigned>,
    batches: Vec<usize>,
}

impl<'s, 'm> Search<'s, 'm> {
    fn new(
        module: &'m Module,
        stream: &'s Stream<'s>,
        to: Target,
        readers: &[&'m Assigned],
    ) -> Result<Self> {
        let f = &module.funcs[0];
        let mut layers = readers.to_vec();
        layers.sort_by_key(|l| l.site.op);
        let ops: Vec<OpId> = layers.iter().map(|l| l.site.op).collect();
        let outputs = match to {
            Target::Norm(_) => meeting(f, &ops),
            Target::Rows(_) => None,
        };
        let outputs = outputs.unwrap_or_else(|| {
            let own = ops.iter().map(|o| f.ops[o.index()].results[0]);
            own.collect()
        });
        let all = stream.batches();
        let some = all.clamp(1, LOSS_BATCHES);
        Ok(Search {
            block: stream.block(&ops, &outputs)?,
            batches: (0..some).map(|i| i * all / some).collect(),
            stream,
            module,
            layers,
        })
    }

    /// The loss of each ratio.
    fn losses(&self, means: &[f64]) -> Result<Vec<f64>> {
        let mut ready = self.stream.prepare(&self.block)?;
        let mut run = |batch: usize, weights: &[Tensor]| -> Result<Vec<Vec<f32>>> {
            let mut given = self.stream.arguments(&self.block, batch)?;
            given.extend_from_slice(weights);
            let out = ready.run(&given, &mut |_, _| ())?;
            out.iter().map(floats).collect()
        };
        let float = self.weights(None)?;
        let mut wanted = Vec::new();
        for b in &self.batches {
            wanted.push(run(*b, &float)?);
        }
        let mut losses = Vec::with_capacity(RATIOS);
        for ratio in 0..RATIOS {
            let s: Arc<[f32]> = factors(means, ratio).into();
            let weights = self.weights(Some(&s))?;
            let mut loss = 0.0;
            for (b, wanted) in self.batches.iter().zip(&wanted) {
                for (y, w) in run(*b, &weights)?.iter().zip(wanted) {
                    loss += squares(y, w);
                }
            }
            losses.push(loss);
        }
        Ok(losses)
    }

    /// The weights of the layers, rounded as with these factors.
    fn weights(&self, factors: Option<&Arc<[f32]>>) -> Result<Vec<Tensor>> {
        let mut out = Vec::with_capacity(self.layers.len());
        for l in &self.layers {
            let w = source(self.module, l)?;
            let values = match (factors, l.choice) {
                (Some(s), Some(q)) => {
                    let scaled = derive(
                        w,
                        Transform::Scale {
                            axis: 1,
                            factors: s.clone(),
                            divide: false,
                            dtype: DType::F32,
                        },
                    )?;
                    let mut v = rounded(&scaled, &q.weights)?;
                    for row in v.chunks_mut(s.len().max(1)) {
                        row.iter_mut().zip(s.iter()).for_each(|(v, s)| *v /= s);
                    }
                    v
                }
                _ => read_f32(w)?,
            };
            let mut t = Tensor::zeros(w.dtype, &w.dims)?;
            encode_slice(w.dtype, &values, t.bytes_mut()).map_err(|e| format_error(e, &w.name))?;
            out.push(t);
        }
        Ok(out)
    }
}

fn squares(a: &[f32], b: &[f32]) -> f64 {
    let each = a.iter().zip(b).map(|(a, b)| f64::from(a - b));
    each.map(|d| d * d).sum()
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

#[cfg(test)]
mod tests {
    use super::super::{Algo, Samples, Scheme};
    use crate::testing::{Oracle, module, run_with};
    use crate::{Options, PassContext};
    use qcc_ir::diag::Result;
    use qcc_ir::eval::normal;
    use qcc_ir::ledger::{Decision, Ledger, Topic};
    use qcc_ir::{DType, Tensor};

    const MLP: &str = r#"dim n = 1..64
        weight @g: f32[32] = splat(1)
        weight @up: f32[48, 32] = normal(1, 0.25)
        weight @gate: f32[48, 32] = normal(2, 0.25)
        weight @down: f32[24, 48] = normal(3, 0.25)
        func @main(%x: f32[n, 32]) -> (y: f32[n, 24]) {
          %g: f32[32] = const @g
          %h: f32[n, 32] = rms_norm %x, %g { eps = 1e-5 } @"norm"
          %up: f32[48, 32] = const @up
          %gate: f32[48, 32] = const @gate
          %u: f32[n, 48] = linear %h, %up @"up"
          %a: f32[n, 48] = linear %h, %gate @"gate"
          %s: f32[n, 48] = silu %a
          %m: f32[n, 48] = mul %s, %u
          %down: f32[24, 48] = const @down
          %y: f32[n, 24] = linear %m, %down @"down"
          return %y
        }"#;

    /// The tokens of `tests/quant_refs/awq.py` in two batches.
    struct Tokens;

    impl Samples for Tokens {
        fn batches(&self) -> usize {
            2
        }

        fn batch(&self, index: usize) -> Result<Vec<Tensor>> {
            let mut x: Vec<f32> = normal(9, 1.0, 64 * 32).iter().map(|v| *v as f32).collect();
            for row in x.chunks_mut(32) {
                row[3] *= 30.0;
                row[17] *= 8.0;
                row[20] *= 0.1;
            }
            Ok(vec![Tensor::from_slice(
                DType::F32,
                &[32, 32],
                &x[index * 1024..][..1024],
            )?])
        }
    }

    fn searched(scheme: &str) -> Ledger {
        let options = Options {
            scheme: Scheme::named(scheme).unwrap(),
            algo: Some(vec![Algo::Awq]),
            ..Options::default()
        };
        let mut ctx = PassContext::new(&options);
        ctx.samples = Some(&Tokens);
        ctx.executor = Some(&Oracle);
        run_with("awq", module(MLP), &mut ctx).unwrap();
        ctx.ledger
    }

    #[test]
    fn ratios_and_losses_are_those_of_the_reference() {
        for line in include_str!("../../../tests/quant_refs/awq.txt").lines() {
            let f: Vec<&str> = line.split(' ').collect();
            let grid = if f[1] == "1" { "sym-narrow" } else { "asym" };
            let ledger = searched(&format!("w{}a16-g{}-{grid}", f[0], f[2]));
            let d: &Decision = ledger.find(f[3], Topic::Smoothing).unwrap();
            let best: usize = f[4].parse().unwrap();
            assert_eq!(d.chosen, d.considered[best].candidate, "{line}");
            for (got, want) in d.considered.iter().zip(&f[5..]) {
                let (got, want) = (got.error.unwrap(), want.parse::<f64>().unwrap());
                assert!((got - want).abs() < 1e-3 * want, "{line}: {got} for {want}");
            }
        }
    }
}
