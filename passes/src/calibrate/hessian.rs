//! A module that also gives `XᵀX` of the inputs of its linear layers.
//!
//! Half the Hessian of a layer's squared error is `Σ xᵀx` over the rows of its input, those left
//! out that a mask excludes. The executor's own matrix product computes it for each batch in f32;
//! batches are added in f64.

use super::{Point, calibration_points, has_row_per_position, mask};
use crate::quantize::gram;
use crate::rewrite::{Replacement, Rewriter, Rule, rewrite};
use qcc_ir::diag::Result;
use qcc_ir::graph::{Func, Module, Op, OpId, OpKind};
use std::collections::BTreeMap;

/// The module, and of which values it gives Hessians.
pub struct HessianProbe {
    module: Module,
    values: Vec<String>,
}

impl HessianProbe {
    /// Rows longer than this have no Hessian: it would take more than half a GiB.
    pub const CHANNELS: usize = 8192;

    /// A module with one more result for each input of a linear layer with rows of at most
    /// [`HessianProbe::CHANNELS`] elements.
    ///
    /// # Errors
    /// When the module cannot be rewritten.
    pub fn new(module: &Module) -> Result<Self> {
        let mut grams = Grams::default();
        if let Some(f) = module.funcs.first() {
            let points = calibration_points(module);
            for p in points.into_iter().filter(|p| p.channels <= Self::CHANNELS) {
                // At the first layer that reads the value it is known.
                let reads = |op: &Op| op.operands.first() == Some(&p.id);
                let linear = |op: &Op| matches!(op.kind, OpKind::Linear { .. }) && reads(op);
                if let Some((id, _)) = f.ops().find(|(_, op)| linear(op)) {
                    grams.at.insert(id, p);
                }
            }
        }
        Ok(HessianProbe {
            module: rewrite(module, &mut grams)?.module,
            values: grams.given,
        })
    }

    /// The module with more results.
    pub fn module(&self) -> &Module {
        &self.module
    }

    /// The values whose Hessians are the last results, in order.
    pub fn values(&self) -> &[String] {
        &self.values
    }
}

/// Adds a result at the first reader of each point.
#[derive(Default)]
struct Grams {
    at: BTreeMap<OpId, Point>,
    given: Vec<String>,
    funcs: usize,
}

impl Rule for Grams {
    fn enter(&mut self, _: &Func) {
        self.funcs += 1;
    }

    fn apply(&mut self, rw: &mut Rewriter<'_>, op: &Op) -> Replacement {
        let id = rw.id(op);
        let Some(p) = self.at.get(&id).filter(|_| self.funcs == 1) else {
            return Ok(None);
        };
        let counts = has_row_per_position(rw.src, p.id);
        let mask = mask(rw.src).filter(|_| counts);
        let mask = mask.map(|i| rw.get(rw.src.params[i]));
        let x = rw.get(p.id);
        let v = gram(&mut rw.b, x, mask)?;
        let name = format!("hessian.{}", self.given.len());
        rw.more_results.push((name, v));
        self.given.push(p.value.clone());
        Ok(Some(rw.copy(op)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Calibrator;
    use super::*;
    use crate::testing::{Held, Oracle, inputs, module, run_with};
    use crate::{Algo, Options, PassContext, Scheme};
    use qcc_ir::Tensor;

    #[test]
    fn hessians_are_sums_over_rows_that_count() {
        let m = module(
            "dim s = 1..9
             weight @w: f32[3, 2] = normal(1, 1.0)
             weight @v: f32[2, 3] = normal(2, 1.0)
             func @main(%x: f32[1, s, 2], %attention_mask: i64[1, s]) -> (y: f32[1, s, 2]) {
               %w: f32[3, 2] = const @w
               %h: f32[1, s, 3] = linear %x, %w @\"a\"
               %v: f32[2, 3] = const @v
               %y: f32[1, s, 2] = linear %h, %v @\"b\"
               return %y
             }",
        );
        let probe = HessianProbe::new(&m).unwrap();
        let mut c = Calibrator::with_hessians(&probe, &Oracle).unwrap();
        let x = |v: &[f32]| Tensor::f32(&[1, v.len() as u64 / 2, 2], v).unwrap();
        let mask = |v: &[i64]| Tensor::i64(&[1, v.len() as u64], v).unwrap();
        c.feed(&[x(&[1.0, 2.0, 50.0, 60.0]), mask(&[1, 0])])
            .unwrap();
        c.feed(&[x(&[3.0, -1.0]), mask(&[1])]).unwrap();
        let s = c.finish();
        let stats = s.get("x").unwrap();
        assert_eq!(stats.gram, Some(vec![10.0, -1.0, -1.0, 5.0]));
        let h = s.get("h").unwrap();
        let gram = h.gram.as_ref().unwrap();
        let square = &h.sums.as_ref().unwrap().square;
        for j in 0..3 {
            assert!((gram[j * 3 + j] - square[j]).abs() <= 1e-5 * square[j]);
        }
        let plain = Calibrator::new(&m, &Oracle).unwrap().finish();
        assert!(plain.get("x").is_none());
    }

    /// GPTQ of a layer that reads an input takes the same `XᵀX` from samples and statistics.
    #[test]
    fn gptq_from_statistics_is_that_from_samples() {
        let m = module(
            "dim n = 1..40
             weight @w: f32[4, 32] = normal(1, 1.0)
             func @main(%x: f32[n, 32]) -> (y: f32[n, 4]) {
               %w: f32[4, 32] = const @w
               %y: f32[n, 4] = linear %x, %w @\"fc\"
               return %y
             }",
        );
        let samples = Held((0..9).map(|seed| inputs(&m, 100 * seed)).collect());
        let statistics = |hessians: bool| {
            let probe = HessianProbe::new(&m).unwrap();
            let mut c = match hessians {
                true => Calibrator::with_hessians(&probe, &Oracle).unwrap(),
                false => Calibrator::new(&m, &Oracle).unwrap(),
            };
            samples.0.iter().for_each(|b| c.feed(b).unwrap());
            c.finish()
        };
        let options = Options {
            scheme: Scheme::named("w4a16-g16-asym").unwrap(),
            algo: Some(Algo::list("gptq").unwrap()),
            ..Options::default()
        };
        let quantized = |data, sampled: bool| {
            let mut ctx = PassContext::new(&options);
            ctx.statistics = Some(data);
            ctx.executor = Some(&Oracle);
            if sampled {
                ctx.samples = Some(&samples);
            }
            run_with("fit-weights,quantize", m.clone(), &mut ctx)
        };
        let x = inputs(&m, 5);
        let results = |m: &Module| {
            let out = qcc_ir::eval::run(m, &x).unwrap();
            out[0].bytes().to_vec()
        };
        let sampled = quantized(statistics(false), true).unwrap();
        let known = quantized(statistics(true), false).unwrap();
        assert_eq!(results(&sampled), results(&known));
        let e = quantized(statistics(false), false).unwrap_err();
        assert_eq!((e.code().as_str(), e.place()), ("Q0527", Some("fc")));
    }
}
