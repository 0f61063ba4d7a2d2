//! What quantization does to a model's outputs, and which layers do it.
//!
//! ```text
//! share of layer i = dᵢ / Σⱼ dⱼ,   dᵢ = distance(float model, float model with layer i quantized)
//! ```
//!
//! The distance of a language model is the mean KL divergence of its predictions, at every position
//! that no mask excludes; that of another model is the mean of `‖a − b‖² / ‖b‖²` over its outputs.
//! Each needs one run. Errors of layers are nearly independent, so that while they are small the
//! `dᵢ` add up to about the distance of the whole; [`Sensitivity::sum`] shows how well.
//!
//! Budget: [`SAMPLES`] samples, and [`LAYERS`] layers alone, those with the largest errors of
//! their own. Further layers are measured all together and have no share of their own.

use crate::data::Dataset;
use crate::evaluate::{Difference, Differences, Divergence, Position, floats};
use qcc_ir::Tensor;
use qcc_ir::diag::Result;
use qcc_ir::exec::Executor;
use qcc_ir::graph::Module;
use qcc_passes::{LayerFacts, PassContext, log_sum_exp, logits, quantize_only};
use serde::Serialize;

/// Calibration samples on which outputs are compared.
const SAMPLES: usize = 2;
/// Layers that are measured alone.
const LAYERS: usize = 48;

/// The outputs of the quantized model against those of the float model.
#[derive(Clone, Debug, Serialize)]
pub struct OutputReport {
    /// Calibration samples that were run.
    pub samples: usize,
    /// Positions at which predictions were compared; of language models.
    pub positions: Option<usize>,
    /// How far predictions are apart; of language models.
    #[serde(flatten)]
    pub divergence: Option<Divergence>,
    /// Every output.
    pub outputs: Vec<Difference>,
    /// How the distance was divided among layers.
    pub sensitivity: Option<Sensitivity>,
}

/// How the distance between outputs was divided among layers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Sensitivity {
    /// What the distance is: `kl`, or `relative_mse` averaged over outputs.
    pub distance: &'static str,
    /// Layers that were measured alone.
    pub layers: usize,
    /// Quantized layers that were measured together.
    pub rest_layers: usize,
    /// The distance of those.
    pub rest: f64,
    /// The sum of all distances, of which shares are parts.
    pub sum: f64,
}

/// What is measured.
pub(crate) struct Subject<'a> {
    /// The float module, as `quantize` is given it.
    pub(crate) float: &'a Module,
    /// The compiled module.
    pub(crate) compiled: &'a Module,
    pub(crate) ctx: &'a PassContext<'a>,
    pub(crate) executor: &'a dyn Executor,
    pub(crate) layers: &'a [LayerFacts],
}

type Outputs = Vec<(String, Tensor)>;

impl Subject<'_> {
    /// The outputs' errors, and the share of each layer where it was measured. `step` is told how
    /// many runs of how many are done.
    ///
    /// # Errors
    /// What the executor and `step` report.
    pub(crate) fn measure(
        &self,
        data: &Dataset,
        step: &mut dyn FnMut(usize, usize) -> Result<()>,
    ) -> Result<(OutputReport, Vec<Option<f64>>)> {
        let (first, samples) = data.batches_of(SAMPLES, SAMPLES).next().unwrap_or((0, 0));
        let inputs = data.batch(first, samples)?;
        let (alone, rest) = self.chosen();
        let runs = alone.len() + usize::from(!rest.is_empty()) + 2;
        step(0, runs)?;
        let base = Reference::new(self.float, self.run(self.float, &inputs)?, &inputs)?;
        step(1, runs)?;
        let whole = self.run(self.compiled, &inputs)?;
        let mut differences = Differences::new();
        differences.add(&whole, &base.outputs)?;
        let mut distances = vec![None; self.layers.len()];
        for (n, i) in alone.iter().enumerate() {
            step(n + 2, runs)?;
            distances[*i] = Some(self.distance(&base, &inputs, &|j| j == *i)?);
        }
        let rest_distance = match rest.is_empty() {
            true => 0.0,
            false => self.distance(&base, &inputs, &|j| rest.contains(&j))?,
        };
        let sum = distances.iter().flatten().sum::<f64>() + rest_distance;
        let share = |d: f64| if sum > 0.0 { d / sum } else { 0.0 };
        let report = OutputReport {
            samples,
            positions: base.logits.as_ref().map(|l| l.rows.len()),
            divergence: match &base.logits {
                Some(l) => Divergence::of(&l.compare(&whole, self.ctx.threads)?),
                None => None,
            },
            outputs: differences.finish(),
            sensitivity: (!alone.is_empty()).then_some(Sensitivity {
                distance: match base.logits {
                    Some(_) => "kl",
                    None => "relative_mse",
                },
                layers: alone.len(),
                rest_layers: rest.len(),
                rest: rest_distance,
                sum,
            }),
        };
        let shares = distances.into_iter().map(|d| d.map(share)).collect();
        Ok((report, shares))
    }

    /// The quantized layers that are measured alone, and those that are measured together.
    fn chosen(&self) -> (Vec<usize>, Vec<usize>) {
        let error = |i: &usize| {
            let m = self.layers[*i].measured.as_ref();
            m.map_or(0.0, |m| m.relative_mse)
        };
        let mut alone: Vec<usize> = (0..self.layers.len())
            .filter(|i| self.layers[*i].measured.is_some())
            .collect();
        alone.sort_by(|a, b| error(b).total_cmp(&error(a)));
        let mut rest = alone.split_off(LAYERS.min(alone.len()));
        alone.sort_unstable();
        rest.sort_unstable();
        (alone, rest)
    }

    fn distance(
        &self,
        base: &Reference,
        inputs: &[Tensor],
        which: &dyn Fn(usize) -> bool,
    ) -> Result<f64> {
        let module = quantize_only(self.float, self.ctx, which)?;
        base.distance(&self.run(&module, inputs)?, self.ctx.threads)
    }

    fn run(&self, module: &Module, inputs: &[Tensor]) -> Result<Outputs> {
        let out = self
            .executor
            .prepare(module, &[])?
            .run(inputs, &mut |_, _| ())?;
        let names = module.funcs.iter().take(1).flat_map(|f| &f.results);
        Ok(names.map(|(n, _)| n.clone()).zip(out).collect())
    }
}

/// What outputs are compared with.
struct Reference {
    outputs: Outputs,
    logits: Option<Logits>,
}

/// The float model's predictions.
struct Logits {
    output: usize,
    width: usize,
    /// The positions that count.
    rows: Vec<usize>,
    values: Vec<f32>,
    norms: Vec<f64>,
}

impl Reference {
    fn new(module: &Module, outputs: Outputs, inputs: &[Tensor]) -> Result<Self> {
        let logits = match logits(module) {
            Some(at) => Logits::new(module, at, &outputs[at].1, inputs)?,
            None => None,
        };
        Ok(Reference { outputs, logits })
    }

    fn distance(&self, outputs: &Outputs, threads: usize) -> Result<f64> {
        if let Some(l) = &self.logits {
            let positions = l.compare(outputs, threads)?;
            return Ok(Divergence::of(&positions).map_or(0.0, |d| d.kl));
        }
        let mut d = Differences::new();
        d.add(outputs, &self.outputs)?;
        let d = d.finish();
        let sum: f64 = d.iter().map(|d| d.relative_error * d.relative_error).sum();
        Ok(sum / d.len().max(1) as f64)
    }
}

impl Logits {
    fn new(m: &Module, output: usize, t: &Tensor, inputs: &[Tensor]) -> Result<Option<Self>> {
        let values = floats::<f32>(t)?;
        let width = t.dims().last().map_or(0, |n| *n as usize);
        if width == 0 {
            return Ok(None);
        }
        let f = &m.funcs[0];
        let mask = f
            .params
            .iter()
            .position(|p| f.value(*p).name == "attention_mask");
        let mask = mask.and_then(|i| inputs.get(i));
        let mask = mask.map(floats::<f32>).transpose()?;
        let count = values.len() / width;
        let counts = |i: &usize| match &mask {
            Some(m) if m.len() == count => m[*i] != 0.0,
            _ => true,
        };
        let rows: Vec<usize> = (0..count).filter(counts).collect();
        let norm = |r: &usize| log_sum_exp(&values[r * width..(r + 1) * width]);
        let norms = rows.iter().map(norm).collect();
        Ok(Some(Logits {
            output,
            width,
            rows,
            values,
            norms,
        }))
    }

    /// The divergence at each position that counts. Threads take parts of them; no sum crosses
    /// positions, so their number does not show.
    fn compare(&self, outputs: &Outputs, threads: usize) -> Result<Vec<Position>> {
        let model = floats::<f32>(&outputs[self.output].1)?;
        let mut out = vec![Position::default(); self.rows.len()];
        let part = self.rows.len().div_ceil(threads.max(1)).max(1);
        let at = |i: usize| {
            let span = self.rows[i] * self.width..(self.rows[i] + 1) * self.width;
            let model = &model[span.clone()];
            let norms = (self.norms[i], log_sum_exp(model));
            Position::of(&self.values[span], model, norms)
        };
        std::thread::scope(|s| {
            for (p, out) in out.chunks_mut(part).enumerate() {
                s.spawn(move || {
                    let all = out.iter_mut().enumerate();
                    all.for_each(|(i, o)| *o = at(p * part + i));
                });
            }
        });
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use qcc_cpu::{CpuExecutor, CpuOptions, Threads};
    use qcc_ir::graph::parse;
    use qcc_ir::plan::Interface;
    use qcc_passes::{Options, Scheme, layer_facts};

    /// A chain of small linear layers.
    fn chain(layers: usize) -> Module {
        let mut text = String::from("qir 1\ndim n = 1..4\n");
        for i in 0..layers {
            text += &format!("weight @w{i}: f32[4, 4] = normal({i}, 0.5)\n");
        }
        text += "func @main(%x0: f32[n, 4]) -> (y: f32[n, 4]) {\n";
        for i in 0..layers {
            let next = i + 1;
            text += &format!("%w{i}: f32[4, 4] = const @w{i}\n");
            text += &format!("%x{next}: f32[n, 4] = linear %x{i}, %w{i} @\"layer{i}\"\n");
        }
        parse(&(text + &format!("return %x{layers}\n}}"))).unwrap()
    }

    fn measured(module: &Module) -> (OutputReport, Vec<Option<f64>>) {
        let options = Options {
            scheme: Scheme::named("int8").unwrap(),
            ..Options::default()
        };
        let ctx = PassContext::new(&options);
        let executor = CpuExecutor::new(CpuOptions::new(Threads::new(1).unwrap()));
        let x = Tensor::f32(&[2, 4], &[1.0, -0.3, 0.5, 0.7, 0.2, 0.9, -1.1, 0.4]).unwrap();
        let io = Interface::of(module).unwrap();
        let data = Dataset::new(vec![("x0".into(), x)], &io).unwrap();
        let batch = data.batch(0, 2).unwrap();
        let layers = layer_facts(module, &ctx, &executor, &[batch]).unwrap();
        let subject = Subject {
            float: module,
            compiled: &quantize_only(module, &ctx, &|_| true).unwrap(),
            ctx: &ctx,
            executor: &executor,
            layers: &layers,
        };
        subject.measure(&data, &mut |_, _| Ok(())).unwrap()
    }

    #[test]
    fn layers_beyond_the_budget_are_measured_together() {
        let (report, shares) = measured(&chain(LAYERS + 2));
        let s = report.sensitivity.unwrap();
        assert_eq!(
            (s.layers, s.rest_layers, s.distance),
            (LAYERS, 2, "relative_mse")
        );
        assert_eq!(shares.iter().flatten().count(), LAYERS);
        let alone: f64 = shares.iter().flatten().sum();
        assert!((alone + s.rest / s.sum - 1.0).abs() < 1e-9 && s.rest > 0.0);
        assert!(report.divergence.is_none() && report.positions.is_none());
    }

    #[test]
    fn distances_add_up_to_about_the_whole() {
        let (report, shares) = measured(&chain(3));
        let whole = report.outputs[0].relative_error.powi(2);
        let s = report.sensitivity.unwrap();
        assert!(
            shares.iter().all(|s| s.is_some_and(|s| s > 0.0)),
            "{shares:?}"
        );
        assert!(
            (0.2..5.0).contains(&(s.sum / whole)),
            "{} of {whole}",
            s.sum
        );
    }

    #[test]
    fn masked_positions_do_not_count() {
        let m = parse(
            r#"qir 1
            dim b = 1..9
            dim s = 1..9
            weight @table: f32[3, 3] = normal(1, 1.0)
            func @main(%ids: i64[b, s], %attention_mask: i64[b, s]) -> (logits: f32[b, s, 3]) {
              %t: f32[3, 3] = const @table
              %x: f32[b, s, 3] = gather %t, %ids {axis = 0}
              return %x
            }"#,
        )
        .unwrap();
        let ids = Tensor::i64(&[1, 4], &[0, 1, 2, 0]).unwrap();
        let mask = Tensor::i64(&[1, 4], &[1, 0, 1, 0]).unwrap();
        let logits: Vec<f32> = (0..12).map(|i| i as f32 * 0.1).collect();
        let outputs = |v: &[f32]| {
            let t = Tensor::f32(&[1, 4, 3], v).unwrap();
            vec![("logits".to_string(), t)]
        };
        let base = Reference::new(&m, outputs(&logits), &[ids, mask]).unwrap();
        assert_eq!(base.logits.as_ref().unwrap().rows, [0, 2]);
        let mut other = logits;
        other[4] = 50.0;
        assert_eq!(base.distance(&outputs(&other), 3).unwrap(), 0.0);
        other[7] = 50.0;
        assert!(base.distance(&outputs(&other), 1).unwrap() > 1.0);
    }
}
