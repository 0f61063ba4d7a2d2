//! How much each quantized layer errs by itself.
//!
//! ```text
//! sqnr = 10·log₁₀( Σ y² / Σ (y − ŷ)² )  dB,    y = layer(x),  ŷ = quantized layer(x)
//! ```
//!
//! Both see the same `x`, that of the float model, so an error counts where it is made and not
//! where it arrives. The float module is given a quantized twin of every layer that would be
//! quantized, and runs once; sums are in f64 in a fixed order.

use crate::pass::PassContext;
use crate::quantize::{Assigned, Layers, assign};
use crate::rewrite::{Replacement, Rewriter, Rule, rewrite};
use qcc_ir::Tensor;
use qcc_ir::diag::{Class, Diagnostic, Result};
use qcc_ir::exec::Executor;
use qcc_ir::format::decode_slice;
use qcc_ir::graph::{Func, Module, Op, OpId};

/// The error of one layer.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerError {
    /// Its source nodes.
    pub layer: String,
    /// Its weight.
    pub weight: String,
    /// What was chosen for it, as in the ledger.
    pub scheme: String,
    /// Terms of each of its sums.
    pub k: u64,
    /// Output channels.
    pub n: u64,
    /// Signal to quantization noise ratio of its output; infinite where they are equal.
    pub sqnr_db: f64,
}

/// The errors of the layers that `quantize` would quantize in this context, in execution order.
///
/// `module` is what `quantize` would be given: smoothed already if it is to be, with the
/// statistics of the context being its own. `batches` hold one tensor per parameter.
///
/// # Errors
/// As `quantize`; what the executor reports.
pub fn layer_errors(
    module: &Module,
    ctx: &PassContext<'_>,
    executor: &dyn Executor,
    batches: &[Vec<Tensor>],
) -> Result<Vec<LayerError>> {
    let assigned: Vec<Assigned> = assign(module, ctx)?
        .into_iter()
        .filter(|a| a.choice.is_some())
        .collect();
    let Some(first) = module.funcs.first().map(|f| f.results.len()) else {
        return Ok(Vec::new());
    };
    let mut twins = Twins {
        layers: Layers::new(&assigned, &ctx.codes),
        assigned: &assigned,
        funcs: 0,
    };
    let probe = rewrite(module, &mut twins)?.module;
    let mut prepared = executor.prepare(&probe, &[])?;
    let mut sums = vec![(0.0, 0.0); assigned.len()];
    for inputs in batches {
        let out = prepared.run(inputs, &mut |_, _| ())?;
        for (sum, pair) in sums.iter_mut().zip(out[first..].chunks_exact(2)) {
            add(sum, &pair[0], &pair[1])?;
        }
    }
    Ok(assigned
        .iter()
        .zip(sums)
        .map(|(a, s)| report(module, a, s))
        .collect())
}

/// Adds to `Σ y²` and `Σ (y − ŷ)²`.
fn add(sum: &mut (f64, f64), y: &Tensor, twin: &Tensor) -> Result<()> {
    let (y, twin) = (numbers(y)?, numbers(twin)?);
    for (y, t) in y.iter().zip(&twin) {
        sum.0 += y * y;
        sum.1 += (y - t) * (y - t);
    }
    Ok(())
}

fn numbers(t: &Tensor) -> Result<Vec<f64>> {
    let mut v = vec![0.0; t.numel()];
    decode_slice(t.dtype(), t.bytes(), &mut v)
        .map_err(|e| Diagnostic::error(520, Class::Input, e.to_string()))?;
    Ok(v)
}

fn report(m: &Module, a: &Assigned, (signal, noise): (f64, f64)) -> LayerError {
    let weight = m.funcs[0].ty(a.site.weight_value);
    let dims = weight.fixed_dims().unwrap_or_default();
    LayerError {
        layer: a.site.name.clone(),
        weight: a.site.weight.clone(),
        scheme: a
            .decisions
            .first()
            .map(|d| d.chosen.clone())
            .unwrap_or_default(),
        k: dims.iter().skip(1).product(),
        n: dims.first().copied().unwrap_or(0),
        sqnr_db: match noise == 0.0 {
            true => f64::INFINITY,
            false => 10.0 * libm::log10(signal / noise),
        },
    }
}

/// Adds a quantized twin to each chosen layer of the entry function, and both as results.
struct Twins<'a> {
    layers: Layers,
    assigned: &'a [Assigned],
    funcs: usize,
}

impl Rule for Twins<'_> {
    fn enter(&mut self, _: &Func) {
        self.funcs += 1;
    }

    fn apply(&mut self, rw: &mut Rewriter<'_>, op: &Op) -> Replacement {
        let id: OpId = rw.id(op);
        let choice = self
            .assigned
            .iter()
            .find(|a| a.site.op == id && self.funcs == 1);
        let Some(q) = choice.and_then(|a| a.choice) else {
            return Ok(None);
        };
        let results = rw.copy(op);
        let operands = self.layers.operands(rw, op, &q)?;
        let twin = rw.put(op, op.kind.clone(), &operands);
        for v in [results[0], twin[0]] {
            let name = format!("probe.{}", rw.more_results.len());
            rw.more_results.push((name, v));
        }
        Ok(Some(results))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Oracle, inputs, module};
    use crate::{Options, Scheme};

    #[test]
    fn errors_are_those_of_each_layer_alone() {
        // The second layer's weight and input are exact in i8; the first's are not.
        let m = module(
            r#"dim n = 1..9
             weight @a: f32[3, 4] = normal(1, 1.0)
             weight @one: f32[2, 3] = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
             func @main(%x: f32[n, 4]) -> (y: f32[n, 2]) {
               %a: f32[3, 4] = const @a
               %h: f32[n, 3] = linear %x, %a @"first"
               %c: f32[n, 3] = relu %h
               %zero: f32[] = splat {value = 0.0}
               %p: bool[n, 3] = gt %c, %zero
               %s: f32[n, 3] = cast %p
               %one: f32[2, 3] = const @one
               %y: f32[n, 2] = linear %s, %one @"second"
               return %y
             }"#,
        );
        let options = Options {
            scheme: Scheme::named("int8").unwrap(),
            ..Options::default()
        };
        let ctx = PassContext::new(&options);
        let data = [inputs(&m, 1), inputs(&m, 7)];
        let e = layer_errors(&m, &ctx, &Oracle, &data).unwrap();
        let named: Vec<_> = e.iter().map(|e| (e.layer.as_str(), e.k, e.n)).collect();
        assert_eq!(named, [("first", 4, 3), ("second", 3, 2)]);
        assert_eq!(e[0].scheme, "int8-dynamic");
        assert!((30.0..60.0).contains(&e[0].sqnr_db), "{}", e[0].sqnr_db);
        assert!(e[1].sqnr_db > 120.0, "{}", e[1].sqnr_db);
    }
}
