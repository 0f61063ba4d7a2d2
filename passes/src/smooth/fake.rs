//! A block whose quantization is simulated, so that one compilation serves every strength.
//!
//! ```text
//! linear(x, W)   →   linear(dequantize(quantize(x · r, scale)), Ŵ)     r = 1/s
//! ```
//!
//! `Ŵ`, `r` and the scale of static activations are arguments. `Ŵ` holds the real values of the
//! codes of `W·diag(s)`, so the products are those of the quantized layers up to the rounding of
//! float sums.

use super::spot::Spot;
use crate::quantize::{Acts, Assigned, Nearest, input_scale};
use crate::ranges::CalibMethod;
use crate::rewrite::{Replacement, Rewriter, Rule, rewrite};
use crate::statistics::Statistics;
use crate::weights::format_error;
use qcc_ir::diag::Result;
use qcc_ir::expr::BinaryFn;
use qcc_ir::format::encode_slice;
use qcc_ir::graph::{Module, Op, OpKind, TensorType, ValueId};
use qcc_ir::{DType, DimExpr, Tensor};
use std::collections::BTreeMap;

/// The simulation of a block.
pub(super) struct Fake<'a> {
    pub(super) module: Module,
    /// Layers in the order of their weights among the arguments, and those weights.
    layers: Vec<(&'a Assigned, Nearest)>,
    /// Those whose static scales are arguments.
    scaled: Vec<&'a Assigned>,
    /// Storage of the factors.
    dtype: DType,
}

impl<'a> Fake<'a> {
    /// `block` takes the weights of `layers`, which are layers of `from`, as arguments.
    ///
    /// # Errors
    /// When a layer is not there.
    pub(super) fn new(
        block: &Module,
        from: &Module,
        layers: Vec<(&'a Assigned, Nearest)>,
    ) -> Result<Self> {
        let f = &from.funcs[0];
        let name = |(l, _): &(&'a Assigned, Nearest)| {
            let result = f.ops[l.site.op.index()].results[0];
            (f.value(result).name.clone(), *l)
        };
        let mut readers = Readers {
            layers: layers.iter().map(name).collect(),
            factored: None,
            seen: Vec::new(),
        };
        let module = rewrite(block, &mut readers)?.module;
        let ty = layers
            .first()
            .and_then(|(l, _)| f.ty(l.site.input).elem.plain());
        Ok(Fake {
            module,
            layers,
            scaled: readers
                .seen
                .iter()
                .filter(|s| s.1.scale.is_some())
                .map(|s| s.0)
                .collect(),
            dtype: ty.unwrap_or(DType::F32),
        })
    }

    /// The arguments for these factors.
    ///
    /// # Errors
    /// When a weight cannot be read or rounded.
    pub(super) fn arguments(
        &self,
        from: &Module,
        spot: &Spot<'_>,
        factors: &[f32],
    ) -> Result<Vec<Tensor>> {
        let mut out = Vec::with_capacity(self.layers.len() + 1 + self.scaled.len());
        for (_, weight) in &self.layers {
            out.push(weight.scaled(factors, false)?);
        }
        let inverse: Vec<f32> = factors.iter().map(|s| 1.0 / s).collect();
        out.push(tensor(self.dtype, &[inverse.len() as u64], &inverse)?);
        let mut seen = Statistics::new();
        let name = &from.funcs[0].value(spot.group.input).name;
        seen.insert(name, spot.stats.divided(factors));
        for l in &self.scaled {
            let storage = l.choice.and_then(|q| q.acts).map(|a| a.spec.storage);
            let scale = input_scale(
                from,
                Some(&seen),
                CalibMethod::MinMax,
                &l.site,
                storage.unwrap_or(DType::I8),
            )?;
            out.push(Tensor::f32(&[], &[scale])?);
        }
        Ok(out)
    }
}

fn tensor(dtype: DType, dims: &[u64], values: &[f32]) -> Result<Tensor> {
    let mut t = Tensor::zeros(dtype, dims)?;
    encode_slice(dtype, values, t.bytes_mut()).map_err(|e| format_error(e, "a trial"))?;
    Ok(t)
}

/// Simulates the quantization of what these layers read.
struct Readers<'a> {
    /// By the name of their result.
    layers: BTreeMap<String, &'a Assigned>,
    /// The input times the factors.
    factored: Option<ValueId>,
    /// Forms of activations, each with the first layer that has it and the value.
    seen: Vec<(&'a Assigned, Acts, ValueId)>,
}

impl Rule for Readers<'_> {
    fn apply(&mut self, rw: &mut Rewriter<'_>, op: &Op) -> Replacement {
        let name = &rw.src.value(op.results[0]).name;
        let Some(l) = self.layers.get(name).copied() else {
            return Ok(None);
        };
        let mut operands = rw.operands(op);
        operands[0] = self.input(rw, op.operands[0], l)?;
        Ok(Some(rw.put(op, op.kind.clone(), &operands)))
    }
}

impl<'a> Readers<'a> {
    fn input(&mut self, rw: &mut Rewriter<'_>, x: ValueId, l: &'a Assigned) -> Result<ValueId> {
        let ty = rw.src.ty(x).clone();
        let factored = match self.factored {
            Some(v) => v,
            None => {
                let last: Vec<DimExpr> = ty.shape.last().cloned().into_iter().collect();
                let factors = TensorType {
                    elem: ty.elem.clone(),
                    shape: last,
                };
                let r = rw.b.param("factors", factors);
                let given = rw.get(x);
                rw.b.op(OpKind::Binary(BinaryFn::Mul), &[given, r], ty.clone())
            }
        };
        self.factored = Some(factored);
        let Some(acts) = l.choice.and_then(|q| q.acts) else {
            return Ok(factored);
        };
        let same = |a: &Acts| a.spec == acts.spec && a.scale.is_some() == acts.scale.is_some();
        if let Some((_, _, v)) = self.seen.iter().find(|(_, a, _)| same(a)) {
            return Ok(*v);
        }
        let quant = acts.spec.quant_type(ty.rank(), acts.scale.is_none());
        let mut operands = vec![factored];
        if acts.scale.is_some() {
            let scale = TensorType::new(DType::F32, []);
            operands.push(rw.b.param("scale", scale));
        }
        let coded = TensorType::quant(quant, ty.shape.clone());
        let codes = rw.b.op(OpKind::Quantize, &operands, coded);
        let v = rw.b.op(OpKind::Dequantize, &[codes], ty);
        self.seen.push((l, acts, v));
        Ok(v)
    }
}
