//! Float storage in 16 bits: activations and float weights move from f32 to f16 or bf16 (or
//! everything to f32, where a target computes in nothing else).
//!
//! Only storage changes. Norms, softmax, attention scores, reductions and expressions compute in
//! f32 by definition of their ops and round once, when they store. What stays f32:
//!
//! - parameters and results of the function: they are its interface;
//! - values that follow from positions and constants alone (rotary angles, masks): their
//!   precision is that of indices, not of data;
//! - scales, zero points, biases, gains, rotary tables and masks as operands;
//! - elementwise results with such an operand, or with a constant beyond the format's range: a
//!   mask of −3.4e38 must not become −∞, where a row of nothing else has no softmax;
//! - what is summed by a `reduce` or `cumsum`, with the elementwise ops before it, the sums
//!   themselves, and what is computed from nothing but them: a norm that was not recognised.
//!
//! f16 is taken only where ranges permit: if a weight exceeds 65504, or an activation came within
//! a factor of 4 of it on calibration data, everything becomes bf16, and the ledger says so.
//!
//! Preconditions: none; integers and truth values are not touched.

mod plan;
#[cfg(test)]
mod tests;

use plan::{constant_absmax, float, is_storage, largest, plan};

use crate::pass::{Pass, PassContext};
use crate::rewrite::{Replacement, Rewriter, Rule, rewrite};
use crate::weights::Transform;
use qcc_ir::DType;
use qcc_ir::diag::{Class, Diagnostic, Result};
use qcc_ir::graph::{Elem, Func, Module, Op, OpKind, TensorType, ValueId};
use qcc_ir::ledger::{Candidate, Decision, Topic};
use std::collections::HashMap;

/// The pass.
pub(crate) struct NarrowFloats;

impl Pass for NarrowFloats {
    fn name(&self) -> &'static str {
        "narrow-floats"
    }

    fn summary(&self) -> &'static str {
        "stores activations and float weights in 16 bits"
    }

    fn run(&self, module: &Module, ctx: &mut PassContext<'_>) -> Result<Module> {
        let Some(wish) = ctx.options.float else {
            return Ok(module.clone());
        };
        if !is_storage(wish) {
            let message = format!("{wish} is no float format to compute with");
            return Err(Diagnostic::error(47, Class::Usage, message)
                .hint("floats are stored as f32, f16 or bf16"));
        }
        let mut dtype = wish;
        if wish == DType::F16
            && let Some(reason) = exceeds_f16(module, ctx)?
        {
            dtype = DType::BF16;
            ctx.ledger.record(
                Decision::new("model", Topic::Fallback, "bf16")
                    .consider(Candidate::refused("f16", reason))
                    .consider(Candidate::new("bf16")),
            );
        }
        let plans: Result<Vec<_>> = module
            .funcs
            .iter()
            .map(|f| plan(module, f, dtype))
            .collect();
        let mut retyper = Retyper {
            target: dtype,
            plans: plans?.into_iter(),
            plan: Vec::new(),
            casts: HashMap::new(),
        };
        Ok(rewrite(module, &mut retyper)?.module)
    }
}

/// Why f16 is out of the question, if it is: an activation on calibration data, or the weight of
/// a layer or of an embedding.
fn exceeds_f16(m: &Module, ctx: &PassContext<'_>) -> Result<Option<String>> {
    let limit = largest(DType::F16);
    for (name, s) in ctx.statistics.iter().flat_map(|s| s.iter()) {
        if f64::from(s.absmax()) > limit / 4.0 {
            let reason = format!("`{name}` reaches {} on the calibration data", s.absmax());
            return Ok(Some(reason));
        }
    }
    for f in &m.funcs {
        let layers = f.ops.iter().filter_map(|op| match op.kind {
            OpKind::Linear { .. } | OpKind::Conv { .. } => op.operands.get(1),
            OpKind::Gather { .. } => op.operands.first(),
            OpKind::SparseLinear => op.operands.get(2),
            _ => None,
        });
        for v in layers.filter(|v| float(f.ty(**v)) == Some(DType::F32)) {
            if let Some(most) = constant_absmax(m, f, *v)?
                && most > limit
            {
                let name = &f.value(*v).name;
                return Ok(Some(format!("weight `{name}` holds {most}")));
            }
        }
    }
    Ok(None)
}

/// Where an op wants its float operands.
enum Operands {
    /// All in the format of the result (for a comparison: in one format).
    Uniform,
    /// The first ones in the target's format, the others as they come.
    Leading(usize),
}

fn operands(kind: &OpKind) -> Operands {
    match kind {
        OpKind::Linear { .. } | OpKind::Conv { .. } => Operands::Leading(2),
        OpKind::Attention { .. } => Operands::Leading(3),
        OpKind::Const { .. }
        | OpKind::Splat { .. }
        | OpKind::Iota { .. }
        | OpKind::Dim { .. }
        | OpKind::Cast
        | OpKind::Map(_)
        | OpKind::Quantize
        | OpKind::Dequantize
        | OpKind::Softmax { .. }
        | OpKind::LayerNorm { .. }
        | OpKind::RmsNorm { .. }
        | OpKind::Rotary(_) => Operands::Leading(0),
        OpKind::Unary(_)
        | OpKind::Binary(_)
        | OpKind::Select
        | OpKind::Reshape
        | OpKind::Transpose { .. }
        | OpKind::Expand
        | OpKind::Slice { .. }
        | OpKind::Concat { .. }
        | OpKind::Pad { .. }
        | OpKind::Gather { .. }
        | OpKind::Reduce { .. }
        | OpKind::CumSum { .. }
        | OpKind::MatMul
        | OpKind::SparseLinear
        | OpKind::Pool { .. } => Operands::Uniform,
    }
}

/// Rebuilds every op with the formats of the plan.
struct Retyper {
    target: DType,
    /// Of the functions that are still to come.
    plans: std::vec::IntoIter<Vec<Option<DType>>>,
    plan: Vec<Option<DType>>,
    casts: HashMap<(ValueId, DType), ValueId>,
}

impl Rule for Retyper {
    fn enter(&mut self, _: &Func) {
        self.plan = self.plans.next().unwrap_or_default();
        self.casts.clear();
    }

    fn apply(&mut self, rw: &mut Rewriter<'_>, op: &Op) -> Replacement {
        // Constants change where they are read.
        if matches!(op.kind, OpKind::Const { .. } | OpKind::Splat { .. }) {
            return Ok(None);
        }
        let result = self.format(rw, op.results[0]);
        let mut operands_new = Vec::with_capacity(op.operands.len());
        for (i, v) in op.operands.iter().enumerate() {
            let want = match operands(&op.kind) {
                _ if float(rw.src.ty(*v)).is_none() => None,
                Operands::Uniform => result.or_else(|| self.common(rw, op)),
                Operands::Leading(n) => (i < n).then_some(self.target),
            };
            operands_new.push(match want {
                Some(d) => self.operand(rw, *v, d)?,
                None => rw.get(*v),
            });
        }
        let types: Vec<TensorType> = op
            .results
            .iter()
            .map(|r| match self.format(rw, *r) {
                Some(d) => rw.src.ty(*r).with_dtype(d),
                None => rw.src.ty(*r).clone(),
            })
            .collect();
        let unchanged = operands_new == rw.operands(op)
            && op
                .results
                .iter()
                .zip(&types)
                .all(|(r, t)| rw.src.ty(*r) == t);
        if unchanged {
            return Ok(None);
        }
        Ok(Some(rw.put_as(op, op.kind.clone(), &operands_new, types)))
    }
}

impl Retyper {
    /// The format of a float value after the pass.
    fn format(&self, rw: &Rewriter<'_>, v: ValueId) -> Option<DType> {
        let own = float(rw.src.ty(v))?;
        Some(self.plan[v.index()].unwrap_or(own))
    }

    /// One format for the operands of an op without a float result: f32 unless all agree.
    fn common(&self, rw: &Rewriter<'_>, op: &Op) -> Option<DType> {
        let constant = |v: &&ValueId| {
            let kind = rw.def(**v).map(|d| &d.kind);
            matches!(kind, Some(OpKind::Const { .. } | OpKind::Splat { .. }))
        };
        let values = op.operands.iter().filter(|v| !constant(v));
        let mut formats = values.filter_map(|v| self.format(rw, *v));
        let first = formats.next().unwrap_or(DType::F32);
        Some(if formats.all(|d| d == first) {
            first
        } else {
            DType::F32
        })
    }

    /// A source value in another format.
    fn operand(&mut self, rw: &mut Rewriter<'_>, v: ValueId, d: DType) -> Result<ValueId> {
        let new = rw.get(v);
        if rw.b.ty(new).elem == Elem::Plain(d) {
            return Ok(new);
        }
        if rw.weight_of(v).is_some() {
            return rw.derived(v, Transform::Cast { dtype: d });
        }
        if let Some(known) = self.casts.get(&(v, d)) {
            return Ok(*known);
        }
        let ty = rw.b.ty(new).with_dtype(d);
        let name = format!("{}.{d}", rw.src.value(v).name);
        let (kind, operands) = match rw.def(v).map(|o| &o.kind) {
            Some(k @ OpKind::Splat { .. }) => (k.clone(), vec![]),
            _ => (OpKind::Cast, vec![new]),
        };
        let cast = rw.b.push(kind, &operands, vec![ty], &[&name])[0];
        self.casts.insert((v, d), cast);
        Ok(cast)
    }
}
