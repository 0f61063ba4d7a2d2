//! AWQ: input channels that matter are scaled up before rounding and down again in the input.
//!
//! ```text
//! s_j = mean |X_j|^r / sqrt(max s · min s)       r = 0, 0.05 … 0.95, s_j at least 1e-4
//! loss(r) = Σ (block(X; W) − block(X; quantize(W·diag(s))·diag(1/s)))²
//! ```
//!
//! (Lin et al., "AWQ", 2024; the search of its public implementation.) The means are those of all
//! calibration rows; channels that must have the same factor have the greatest of theirs. The block
//! is that of [`trial`](super::trial); of layers whose input comes from another layer, the layer
//! itself. The first of equal losses wins, so *off* (`r = 0`) does.
//!
//! When GPTQ follows, it makes good much of what the factors are for, and what they cost (coarser
//! steps for all other channels) remains. So the block's loss is also measured with weights rounded
//! by GPTQ, for that ratio, for halves of it and for none, and the least decides.
//!
//! Factors are folded ([`fold`](super::fold)); a value whose maker can take none is left alone,
//! and the ledger says why. Ranges are clipped later ([`clip`](super::clip)).
//!
//! Preconditions: as for `quantize`; an executor and samples where a layer asks for the method.

use super::assign::{Assigned, assign};
use super::fit::{methods_of, source, stream};
use super::fit_weight::{Fit, real};
use super::fold::{Folded, target};
use super::methods::Methods;
use super::nearest::Nearest;
use super::scheme::QuantSpec;
use super::stream::{Group, Stream, groups};
use super::trial::{Trial, squared_error};
use crate::pass::{Pass, PassContext};
use qcc_ir::Tensor;
use qcc_ir::diag::Result;
use qcc_ir::graph::{Func, Module, OpId, ValueId, Weight};
use qcc_ir::ledger::{Candidate, Decision, Topic};
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
            .filter(|l| methods_of(module, l, ctx).awq)
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
            let channels = usize::try_from(channels).unwrap_or(0);
            let by_gptq = readers.iter().any(|l| methods_of(module, l, ctx).gptq);
            let mut inputs = Inputs::of(&mut stream, &g, channels, by_gptq)?;
            to.tie(&mut inputs.means, f64::max);
            let means = &inputs.means;
            let search = Search::new(module, &stream, g.input, &readers, ctx.threads)?;
            let all: Vec<usize> = (0..RATIOS).collect();
            let mut tried = search.losses(ctx, means, &all, None)?;
            let mut best = first_least(&tried).ratio;
            if by_gptq {
                let some = [0, best / 4, best / 2, best / 2 + best / 4, best];
                let some: BTreeSet<usize> = some.into_iter().collect();
                let some: Vec<usize> = some.into_iter().collect();
                let rounded = search.losses(ctx, means, &some, Some(&inputs.gram))?;
                best = first_least(&rounded).ratio;
                tried.extend(rounded);
            }
            let mut d = decision(f, &g, &readers, &tried, best);
            d.rules.extend((best > 0).then(|| to.name(f)));
            ctx.ledger.record(d);
            if best > 0 {
                let s: Arc<[f32]> = factors(means, best).into();
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

/// The loss of a ratio.
struct Tried {
    ratio: usize,
    /// Whether weights were rounded by GPTQ.
    gptq: bool,
    loss: f64,
}

fn name(ratio: usize) -> String {
    match ratio {
        0 => "off".to_string(),
        _ => format!("awq ratio {:.2}", ratio as f64 / RATIOS as f64),
    }
}

fn decision(f: &Func, g: &Group, readers: &[&Assigned], tried: &[Tried], best: usize) -> Decision {
    let mut d = Decision::new(g.site(f), Topic::Smoothing, name(best));
    for t in tried {
        let by = if t.gptq { ", rounded by gptq" } else { "" };
        let mut c = Candidate::new(format!("{}{by}", name(t.ratio)));
        c.error = Some(t.loss);
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

/// What is known of a group's input over all samples.
struct Inputs {
    /// Mean magnitude of each channel.
    means: Vec<f64>,
    /// `XᵀX`, row-major, if it was asked for.
    gram: Vec<f64>,
}

impl Inputs {
    fn of(stream: &mut Stream<'_>, g: &Group, channels: usize, by_gptq: bool) -> Result<Self> {
        let (mut sums, mut rows) = (vec![0.0; channels], 0u64);
        let mut gram: Vec<f64> = Vec::new();
        stream.advance(g, by_gptq, &mut |seen| {
            for row in seen.rows(channels)?.chunks(channels.max(1)) {
                for (s, v) in sums.iter_mut().zip(row) {
                    *s += f64::from(v.abs());
                }
                rows += 1;
            }
            seen.add_gram(&mut gram);
            Ok(())
        })?;
        let means = sums.into_iter().map(|s| s / rows.max(1) as f64).collect();
        Ok(Inputs { means, gram })
    }
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

/// The first of the least losses; there is at least one.
fn first_least(tried: &[Tried]) -> &Tried {
    let better = |a: &&Tried, b: &&Tried| a.loss.total_cmp(&b.loss);
    // INVARIANT: every search tries no factors at all. `min_by` gives the first of equals.
    tried.iter().min_by(better).expect("a trial")
}

/// A block and the layers whose weights it leaves open.
struct Search<'s, 'm> {
    trial: Trial<'s>,
    /// By position of their ops.
    layers: Vec<(&'m Assigned, Nearest)>,
}

impl<'s, 'm> Search<'s, 'm> {
    fn new(
        module: &'m Module,
        stream: &'s Stream<'s>,
        x: ValueId,
        readers: &[&'m Assigned],
        threads: usize,
    ) -> Result<Self> {
        let f = &module.funcs[0];
        let mut layers = readers.to_vec();
        layers.sort_by_key(|l| l.site.op);
        Ok(Search {
            trial: Trial::of(stream, f, x, &layers)?,
            layers: Nearest::of(module, layers, threads)?,
        })
    }

    /// The losses of ratios with weights rounded to nearest, or by GPTQ for inputs with the
    /// Gram matrix `gram`.
    fn losses(
        &self,
        ctx: &PassContext<'_>,
        means: &[f64],
        ratios: &[usize],
        gram: Option<&[f64]>,
    ) -> Result<Vec<Tried>> {
        let mut ready = self.trial.hold(self.trial.module())?;
        let float: Vec<Tensor> = self.layers.iter().map(|(_, w)| w.float().clone()).collect();
        let wanted = self.trial.outputs(&mut *ready, &float)?;
        let mut tried = Vec::with_capacity(ratios.len());
        for ratio in ratios {
            let s = factors(means, *ratio);
            let gram = gram.map(|g| scaled_gram(g, &s));
            let weight = |(l, nearest): &(&Assigned, Nearest)| match (l.choice, &gram) {
                (None, _) => Ok(nearest.float().clone()),
                (Some(_), None) => nearest.scaled(&s, true),
                (Some(q), Some(gram)) => {
                    nearest.rounded_by(&s, &|w| by_gptq(ctx, w, &q.weights, gram))
                }
            };
            let weights: Vec<Tensor> = self.layers.iter().map(weight).collect::<Result<_>>()?;
            let got = self.trial.outputs(&mut *ready, &weights)?;
            tried.push(Tried {
                ratio: *ratio,
                gptq: gram.is_some(),
                loss: squared_error(&got, &wanted),
            });
        }
        Ok(tried)
    }
}

/// The real values of a weight after rounding by GPTQ.
fn by_gptq(ctx: &PassContext<'_>, w: &Weight, spec: &QuantSpec, gram: &[f64]) -> Result<Weight> {
    let fit = Fit {
        methods: Methods {
            gptq: true,
            table: spec.is_table(),
            ..Methods::default()
        },
        gptq: &ctx.options.gptq,
        threads: ctx.threads,
        scores: false,
        global: None,
    };
    let (coded, _) = fit.weight(w, *spec, Some(gram))?;
    real(w, &coded)
}

/// `XᵀX` of inputs that are divided by factors.
fn scaled_gram(gram: &[f64], s: &[f32]) -> Vec<f64> {
    let rows = gram.chunks(s.len().max(1)).zip(s);
    let row = |(row, a): (&[f64], &f32)| -> Vec<f64> {
        let each = row.iter().zip(s);
        each.map(|(g, b)| g / (f64::from(*a) * f64::from(*b)))
            .collect()
    };
    rows.flat_map(row).collect()
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
