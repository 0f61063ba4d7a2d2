//! Quantization of linear layers and convolutions.
//!
//! ```text
//! y = x · Wᵀ + b   →   y ≈ (s_x · x̂) · (s_W · Ŵ)ᵀ + b,   x̂ = quantize(x, s_x),  Ŵ = quantize(W, s_W)
//!
//! %y = linear %x, %w, %b        %x.q = quantize %x, %x.scale
//!                          →    %w   = const @w, @w.scale
//!                               %y   = linear %x.q, %w, %b
//! ```
//!
//! [`assign`](mod@assign) decides what happens to each layer and writes it to the ledger; each
//! weight method has a file of its own ([`rtn`], [`clip`], [`hqq`], [`awq`], [`gptq`],
//! [`refine`]), and `fit-weights` applies them before. Unless a method made codes, they are derived from the weight on demand;
//! then only its scales are held. An activation that several layers read is
//! quantized once. A dynamic type takes no scale: it is computed from each token at run time.
//!
//! Preconditions: layers are in their normal form (`canonicalize`), not yet fused with anything
//! quantized. Only the entry function is quantized.

mod assign;
mod awq;
mod cholesky;
mod clip;
mod coded;
mod fit;
mod fit_weight;
mod fold;
mod gptq;
mod grid;
mod hqq;
mod idle;
#[cfg(test)]
mod method_tests;
mod methods;
mod nearest;
mod part;
mod range_search;
mod refine;
mod rtn;
mod scheme;
mod sites;
mod stream;
mod table;
#[cfg(test)]
mod tests;
mod trial;

pub(crate) use assign::{Acts, Assigned, Intent, Quantized, assign, intents, scale as input_scale};
pub(crate) use awq::Awq;
pub use coded::CodedWeights;
pub(crate) use fit::FitWeights;
pub(crate) use fold::{Folded, Target, product_name, target};
pub use grid::Grid;
pub use methods::Algo;
pub(crate) use nearest::Nearest;
pub(crate) use part::gram;
pub use scheme::{Granularity, Group, QuantSpec, Scheme, Weights};
pub(crate) use sites::{Site, embedding_rows, sites};
pub use stream::Samples;
pub(crate) use stream::{Group as LayerGroup, Stream, groups, maker_name};
pub(crate) use trial::{Trial, first_least, spread, squared_error};

use crate::pass::{Pass, PassContext};
use crate::rewrite::{Replacement, Rewriter, Rule, rewrite};
use crate::weights::{inline_as, inline_f32, inline_ints};
use qcc_ir::DType;
use qcc_ir::diag::Result;
use qcc_ir::graph::{Func, Module, Op, OpId, OpKind, ScaleType, TensorType, ValueId, WeightId};
use std::collections::HashMap;

/// The pass.
pub(crate) struct Quantize;

impl Pass for Quantize {
    fn name(&self) -> &'static str {
        "quantize"
    }

    fn summary(&self) -> &'static str {
        "quantizes linear layers and convolutions as the options ask"
    }

    fn run(&self, module: &Module, ctx: &mut PassContext<'_>) -> Result<Module> {
        let assigned = assign(module, ctx)?;
        let mut layers = Layers::new(&assigned, &ctx.codes);
        let gptq = assigned
            .iter()
            .any(|l| fit::methods_of(module, l, ctx).gptq);
        // Where schemes were chosen, options had their effect on the choice.
        if ctx.considered.is_empty() {
            ctx.warnings
                .extend(idle::without_effect(ctx.options, &assigned, gptq));
        }
        for d in assigned.into_iter().flat_map(|a| a.decisions) {
            ctx.ledger.record(d);
        }
        Ok(rewrite(module, &mut layers)?.module)
    }
}

/// The module with these layers quantized, their weights rounded to nearest.
///
/// # Errors
/// When a weight cannot be read, or is not finite.
pub(crate) fn quantized(module: &Module, layers: &[Assigned]) -> Result<Module> {
    let mut layers = Layers::new(layers, &CodedWeights::default());
    Ok(rewrite(module, &mut layers)?.module)
}

/// Rebuilds the chosen layers of the entry function.
#[derive(Default)]
pub(crate) struct Layers {
    codes: CodedWeights,
    choices: HashMap<OpId, Quantized>,
    /// Functions entered so far.
    funcs: usize,
    /// Quantized activations by source value, type and bits of the scale.
    acts: HashMap<(ValueId, TensorType, Option<u32>), ValueId>,
    /// Quantized weights by source value and type.
    weights: HashMap<(ValueId, TensorType), ValueId>,
    /// Global scales by their bits.
    globals: HashMap<u32, WeightId>,
}

impl Rule for Layers {
    fn enter(&mut self, _: &Func) {
        self.funcs += 1;
    }

    fn apply(&mut self, rw: &mut Rewriter<'_>, op: &Op) -> Replacement {
        let choice = (self.funcs == 1)
            .then(|| self.choices.get(&rw.id(op)))
            .flatten();
        let Some(q) = choice.copied() else {
            return Ok(None);
        };
        let operands = self.operands(rw, op, &q)?;
        Ok(Some(rw.put(op, op.kind.clone(), &operands)))
    }
}

impl Layers {
    /// The layers for which quantization was chosen, with the codes that are known.
    pub(crate) fn new(assigned: &[Assigned], codes: &CodedWeights) -> Self {
        let chosen = assigned.iter().filter_map(|a| Some((a.site.op, a.choice?)));
        Layers {
            codes: codes.clone(),
            choices: chosen.collect(),
            ..Layers::default()
        }
    }

    /// The operands of a layer in their quantized form.
    pub(crate) fn operands(
        &mut self,
        rw: &mut Rewriter<'_>,
        op: &Op,
        q: &Quantized,
    ) -> Result<Vec<ValueId>> {
        let mut operands = rw.operands(op);
        if let Some(a) = &q.acts {
            operands[0] = self.activation(rw, op.operands[0], a);
        }
        operands[1] = self.weight(rw, op.operands[1], q)?;
        Ok(operands)
    }

    fn activation(&mut self, rw: &mut Rewriter<'_>, x: ValueId, a: &Acts) -> ValueId {
        let from = rw.src.ty(x);
        let q = a.spec.quant_type(from.rank(), a.scale.is_none());
        let ty = TensorType::quant(q, from.shape.clone());
        let key = (x, ty.clone(), a.scale.map(f32::to_bits));
        if let Some(v) = self.acts.get(&key) {
            return *v;
        }
        let name = &rw.src.value(x).name;
        let mut operands = vec![rw.get(x)];
        if let Some(s) = a.scale {
            // A weight, not a number: kernels of layers with other scales are the same.
            let scale = inline_f32(format!("{name}.scale"), Vec::new(), &[s]);
            operands.push(rw.constant(scale));
        }
        let name = format!("{name}.q");
        let v = rw.b.push(OpKind::Quantize, &operands, vec![ty], &[&name])[0];
        self.acts.insert(key, v);
        v
    }

    fn weight(&mut self, rw: &mut Rewriter<'_>, w: ValueId, q: &Quantized) -> Result<ValueId> {
        let from = rw.src.ty(w);
        let quant = q.weights.quant_type(from.rank(), false);
        let ty = TensorType::quant(quant.clone(), from.shape.clone());
        let key = (w, ty.clone());
        if let Some(v) = self.weights.get(&key) {
            return Ok(*v);
        }
        let source = rw.plain_weight(w)?;
        let coded = self.codes.of(source, q)?;
        let quantizer = &coded.quantizer;
        let shape: Option<Vec<u64>> = ty
            .scale_shape()
            .and_then(|s| TensorType::new(DType::F32, s).fixed_dims());
        // INVARIANT: the extents of a weight are known, so those of its scales are.
        let dims = shape.unwrap_or_default();
        let name = source.name.clone();
        let (suffix, stored) = (suffix(&quant.scale), quant.scale.stored());
        let scale_name = format!("{name}.{suffix}");
        let scale = inline_as(scale_name, stored, dims.clone(), &quantizer.scales)?;
        let zero = match (&quantizer.zeros, quant.zero) {
            (Some(z), Some(storage)) => {
                Some(inline_ints(format!("{name}.zero"), storage, dims, z)?)
            }
            _ => None,
        };
        let codes = coded.weight(source)?;
        let global = quantizer.global.map(|g| {
            let add = || rw.add_weight(inline_f32(format!("{name}.global"), Vec::new(), &[g]));
            *self.globals.entry(g.to_bits()).or_insert_with(add)
        });
        let v = rw.quantized(w, codes, (scale, zero, global), ty)?;
        self.weights.insert(key, v);
        Ok(v)
    }
}

/// What the scales of a weight are called.
fn suffix(scale: &ScaleType) -> &'static str {
    match scale {
        ScaleType::Table(_) => "table",
        _ => "scale",
    }
}
