//! A float module in which each quantized layer has a quantized twin that reads the same input.
//!
//! It runs once over the data. Input, output and twin are looked at as they are computed, so that
//! no more than one layer's values are held at a time. Positions that an attention mask excludes
//! do not count.

use super::{Measured, ValueHistogram, ratio};
use crate::calibrate::{has_row_per_position, mask, positions};
use crate::pass::PassContext;
use crate::quantize::{Assigned, Layers};
use crate::rewrite::{Replacement, Rewriter, Rule, rewrite};
use qcc_ir::Tensor;
use qcc_ir::diag::{Class, Diagnostic, Result};
use qcc_ir::exec::Executor;
use qcc_ir::format::{QuantFormat, decode_slice};
use qcc_ir::graph::{Func, Module, Op, OpId, ValueId};

/// What is known of each layer after the run; none of float ones.
pub(super) fn measure(
    module: &Module,
    ctx: &PassContext<'_>,
    assigned: &[Assigned],
    executor: &dyn Executor,
    batches: &[Vec<Tensor>],
) -> Result<Vec<Option<Measured>>> {
    let mut twins = Twins {
        layers: Layers::new(assigned, &ctx.codes),
        assigned,
        funcs: 0,
        pairs: Vec::new(),
    };
    let mut probe = rewrite(module, &mut twins)?.module;
    let Some(f) = probe.funcs.first_mut() else {
        return Ok(Vec::new());
    };
    // What is looked at need not be held to the end, as results are.
    let added = f.results.split_off(f.results.len() - 2 * twins.pairs.len());
    let f = &probe.funcs[0];
    let mut sums = Vec::new();
    let mut watched = Vec::new();
    for (layer, pair) in twins.pairs.iter().zip(added.chunks_exact(2)) {
        let [float, twin] = [pair[0].1, pair[1].1];
        let input = f.def_op(float).and_then(|op| op.operands.first());
        watched.extend(input.map(|x| (*x, sums.len(), Role::Input)));
        watched.push((float, sums.len(), Role::Float));
        watched.push((twin, sums.len(), Role::Twin));
        sums.push(Sums::new(ctx, module, &assigned[*layer]));
    }
    let mut taps: Vec<ValueId> = watched.iter().map(|w| w.0).collect();
    taps.sort_unstable();
    taps.dedup();
    let mut prepared = executor.prepare(&probe, &taps)?;
    for inputs in batches {
        let keep = match mask(f).and_then(|i| inputs.get(i)) {
            Some(m) => Some(positions(m)?),
            None => None,
        };
        let mut failure = None;
        prepared.run(inputs, &mut |tap, t| {
            let seen = see(f, taps[tap], t, keep.as_deref(), &watched, &mut sums);
            failure = failure.take().or(seen.err());
        })?;
        if let Some(e) = failure {
            return Err(e);
        }
    }
    let mut out = vec![None; assigned.len()];
    for (layer, s) in twins.pairs.iter().zip(sums) {
        out[*layer] = Some(s.finish());
    }
    Ok(out)
}

/// What a value is to a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Input,
    Float,
    Twin,
}

/// Takes a value in, for every layer that it belongs to.
fn see(
    f: &Func,
    v: ValueId,
    t: &Tensor,
    keep: Option<&[bool]>,
    watched: &[(ValueId, usize, Role)],
    sums: &mut [Sums],
) -> Result<()> {
    let keep = keep.filter(|_| has_row_per_position(f, v));
    let values = kept(numbers(t)?, keep);
    for (_, layer, role) in watched.iter().filter(|w| w.0 == v) {
        let s = &mut sums[*layer];
        match role {
            Role::Input => s.input(&values),
            Role::Float => s.float.clone_from(&values),
            Role::Twin => s.twin(&values),
        }
    }
    Ok(())
}

fn numbers(t: &Tensor) -> Result<Vec<f32>> {
    let mut v = vec![0.0; t.numel()];
    decode_slice(t.dtype(), t.bytes(), &mut v)
        .map_err(|e| Diagnostic::error(520, Class::Input, e.to_string()))?;
    Ok(v)
}

/// The values of the positions that count.
fn kept(values: Vec<f32>, keep: Option<&[bool]>) -> Vec<f32> {
    let Some(keep) = keep.filter(|k| !k.is_empty() && values.len().is_multiple_of(k.len())) else {
        return values;
    };
    let each = (values.len() / keep.len()).max(1);
    let rows = values.chunks(each).zip(keep).filter(|(_, k)| **k);
    rows.flat_map(|(r, _)| r).copied().collect()
}

/// What is added up about one layer.
struct Sums {
    /// The float output of this batch, until its twin is there.
    float: Vec<f32>,
    signal: f64,
    twin: f64,
    dot: f64,
    noise: f64,
    /// The range of a static scale.
    range: Option<(f32, f32)>,
    clipped: u64,
    inputs: u64,
    histogram: Option<ValueHistogram>,
}

impl Sums {
    fn new(ctx: &PassContext<'_>, m: &Module, a: &Assigned) -> Self {
        let acts = a.choice.and_then(|q| q.acts);
        let fixed = acts.and_then(|x| Some((x.spec.format().ok()?, x.scale?)));
        let value = &m.funcs[0].value(a.site.input).name;
        let stats = ctx.statistics.as_ref().and_then(|s| s.get(value));
        Sums {
            float: Vec::new(),
            signal: 0.0,
            twin: 0.0,
            dot: 0.0,
            noise: 0.0,
            range: fixed.map(|(f, s): (QuantFormat, f32)| {
                let (lo, hi) = f.unclipped(None);
                (lo * s, hi * s)
            }),
            clipped: 0,
            inputs: 0,
            histogram: stats.map(|s| ValueHistogram::new(s.min(), s.max())),
        }
    }

    fn input(&mut self, x: &[f32]) {
        if let Some((lo, hi)) = self.range {
            let clipped = x.iter().filter(|x| **x < lo || **x > hi).count();
            self.clipped += clipped as u64;
        }
        self.inputs += x.len() as u64;
        if let Some(h) = &mut self.histogram {
            h.add(x);
        }
    }

    fn twin(&mut self, twin: &[f32]) {
        for (y, t) in self.float.iter().zip(twin) {
            let (y, t) = (f64::from(*y), f64::from(*t));
            self.signal += y * y;
            self.twin += t * t;
            self.dot += y * t;
            self.noise += (y - t) * (y - t);
        }
        self.float = Vec::new();
    }

    fn finish(self) -> Measured {
        let wide = |(lo, hi): (f32, f32)| (f64::from(lo), f64::from(hi));
        Measured {
            sqnr_db: match self.noise == 0.0 {
                true => f64::INFINITY,
                false => 10.0 * libm::log10(self.signal / self.noise),
            },
            relative_mse: ratio(self.noise, self.signal),
            cosine: match self.signal == self.twin && self.noise == 0.0 {
                true => 1.0,
                false => ratio(self.dot, (self.signal * self.twin).sqrt()),
            },
            clipped_inputs: self
                .range
                .map(|_| ratio(self.clipped as f64, self.inputs as f64)),
            inputs: self.histogram,
            input_range: self.range.map(wide),
        }
    }
}

/// Adds a quantized twin to each chosen layer of the entry function, and both as results.
struct Twins<'a> {
    layers: Layers,
    assigned: &'a [Assigned],
    funcs: usize,
    /// Which layer each pair of results belongs to.
    pairs: Vec<usize>,
}

impl Rule for Twins<'_> {
    fn enter(&mut self, _: &Func) {
        self.funcs += 1;
    }

    fn apply(&mut self, rw: &mut Rewriter<'_>, op: &Op) -> Replacement {
        let id: OpId = rw.id(op);
        let mut layers = self.assigned.iter();
        let at = layers.position(|a| a.site.op == id && self.funcs == 1);
        let chosen = at.and_then(|i| Some((i, self.assigned[i].choice?)));
        let Some((at, q)) = chosen else {
            return Ok(None);
        };
        let results = rw.copy(op);
        let operands = self.layers.operands(rw, op, &q)?;
        let twin = rw.put(op, op.kind.clone(), &operands);
        for v in [results[0], twin[0]] {
            let name = format!("probe.{}", rw.more_results.len());
            rw.more_results.push((name, v));
        }
        self.pairs.push(at);
        Ok(Some(results))
    }
}
