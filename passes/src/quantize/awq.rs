//! AWQ: input channels that matter are scaled up before rounding and down again in the input.
//!
//! ```text
//! s_j = mean |X_j|^r / sqrt(max s · min s)       r = 0, 0.05 … 0.95, s_j at least 1e-4
//! loss(r) = Σ (block(X; W) − block(X; quantize(W·diag(s))·diag(1/s)))²
//! ```
//!
//! (Lin et al., "AWQ", 2024; the search of its public implementation.) The means are those of all
//! calibration rows. The block is that of [`trial`](super::trial); of layers whose input comes
//! from a product, the layer itself. The first of equal losses wins, so *off* (`r = 0`) does.
//!
//! Factors are folded ([`fold`](super::fold)); a value whose maker can take none is left alone,
//! and the ledger says why. Ranges are clipped later ([`clip`](super::clip)).
//!
//! Preconditions: as for `quantize`; an executor and samples where a layer asks for the method.

use super::assign::{Assigned, assign};
use super::fit::{methods_of, rounded, source, stream};
use super::fold::{Folded, Target, target};
use super::stream::{Group, Stream, groups};
use super::trial::{Trial, block_outputs, first_least, own_outputs, squared_error};
use crate::pass::{Pass, PassContext};
use crate::weights::{Transform, derive, format_error, read_f32};
use qcc_ir::diag::Result;
use qcc_ir::format::encode_slice;
use qcc_ir::graph::{Func, Module, OpId};
use qcc_ir::ledger::{Candidate, Decision, Topic};
use qcc_ir::{DType, Tensor};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Exponents that are tried, in steps of 1/20.
const RATIOS: usize = 20;
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

fn refused(f: &Func, g: &Group, layers: &[Assigned], reason: String) -> Decision {
    let mut d = Decision::new(g.site(f), Topic::Smoothing, "off")
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
    let mut d = Decision::new(g.site(f), Topic::Smoothing, name(best));
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

/// A block and the layers whose weights it leaves open.
struct Search<'s, 'm> {
    trial: Trial<'s>,
    module: &'m Module,
    /// By position of their ops.
    layers: Vec<&'m Assigned>,
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
            Target::Norm(_) => block_outputs(f, &ops),
            Target::Rows(_) | Target::Product(_) => own_outputs(f, &ops),
        };
        Ok(Search {
            trial: Trial::new(stream, stream.block(&ops, &outputs)?),
            module,
            layers,
        })
    }

    /// The loss of each ratio.
    fn losses(&self, means: &[f64]) -> Result<Vec<f64>> {
        let mut ready = self.trial.prepare(self.trial.module())?;
        let wanted = self.trial.outputs(&mut *ready, &self.weights(None)?)?;
        let mut losses = Vec::with_capacity(RATIOS);
        for ratio in 0..RATIOS {
            let s: Arc<[f32]> = factors(means, ratio).into();
            let got = self.trial.outputs(&mut *ready, &self.weights(Some(&s))?)?;
            losses.push(squared_error(&got, &wanted));
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
