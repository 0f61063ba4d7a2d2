//! Constant folding: ops on constants become constants.
//!
//! ```text
//! f(c₁, c₂, …)  →  const or splat
//! ```
//!
//! The evaluator computes the result, so folding can not differ from running. Scalars and
//! tensors of one number become a `splat`, others a constant held in memory. The model's own
//! constants are read where an op on constants needs them, and not held.
//!
//! Declined: quantized values; results or operands larger than [`Options::fold_budget`]; results
//! that grow by broadcasting (a mask is cheaper to compute than to load); symbolic shapes, except
//! elementwise functions of splats; ops that fail on their operands, which fail again when run.

use crate::pass::{Pass, PassContext};
use crate::rewrite::{Replacement, Rewriter, Rule, rewrite};
use crate::weights::{format_error, inline};
use qcc_ir::bind::Sizes;
use qcc_ir::diag::Result;
use qcc_ir::eval::eval_op;
use qcc_ir::format::decode_slice;
use qcc_ir::graph::{Func, Module, Op, OpKind, TensorType, ValueId, Weight, WeightData};
use qcc_ir::{Bundle, DType, DimExpr, Tensor};
use std::borrow::Cow;
use std::collections::HashMap;

#[cfg(doc)]
use crate::Options;

/// A result may always have this many elements, however few its operands have.
const SMALL: u64 = 4096;

/// Constants of at most this many elements are written out in text.
const LISTED: usize = 64;

/// The pass.
pub(crate) struct FoldConstants;

impl Pass for FoldConstants {
    fn name(&self) -> &'static str {
        "fold-constants"
    }

    fn summary(&self) -> &'static str {
        "computes ops on constants"
    }

    fn run(&self, module: &Module, ctx: &mut PassContext<'_>) -> Result<Module> {
        let mut folder = Folder {
            budget: ctx.options.fold_budget,
            known: HashMap::new(),
        };
        Ok(rewrite(module, &mut folder)?.module)
    }
}

struct Folder {
    budget: u64,
    /// Constant values of the current source function.
    known: HashMap<ValueId, Known>,
}

/// A constant value.
enum Known {
    /// Of an op without operands, which makes it whenever it is needed.
    Source,
    /// Computed.
    Value(Box<Bundle>),
}

impl Rule for Folder {
    fn enter(&mut self, _: &Func) {
        self.known.clear();
    }

    fn apply(&mut self, rw: &mut Rewriter<'_>, op: &Op) -> Replacement {
        // Cheaper to keep than the tensors they stand for.
        if op.operands.is_empty() {
            self.learn(rw, op);
            return Ok(None);
        }
        if let Some(folded) = fold_splats(rw, op)? {
            // What reads it may be constant too.
            self.learn(rw, op);
            return Ok(Some(folded));
        }
        if !self.worthwhile(rw, op) {
            return Ok(None);
        }
        let Some(values) = self.evaluate(rw, op) else {
            return Ok(None);
        };
        let mut new = Vec::with_capacity(values.len());
        for (r, b) in op.results.iter().zip(values) {
            new.push(constant(rw, *r, &b.codes)?);
            self.known.insert(*r, Known::Value(Box::new(b)));
        }
        Ok(Some(new))
    }
}

impl Folder {
    /// Takes a constant for known, if it is small enough.
    fn learn(&mut self, rw: &Rewriter<'_>, op: &Op) {
        let r = op.results[0];
        let ty = rw.src.ty(r);
        if bytes(ty).is_none_or(|b| b > self.budget) {
            return;
        }
        if op.operands.is_empty() {
            self.known.insert(r, Known::Source);
        } else if let Some(v) = self.evaluate(rw, op).and_then(|mut v| v.pop()) {
            self.known.insert(r, Known::Value(Box::new(v)));
        }
    }

    fn worthwhile(&self, rw: &Rewriter<'_>, op: &Op) -> bool {
        if !op.operands.iter().all(|v| self.known.contains_key(v)) {
            return false;
        }
        let elements = |v: &ValueId| numel(rw.src.ty(*v));
        let read: u64 = op.operands.iter().filter_map(elements).sum();
        op.results.iter().all(|r| {
            let fits = bytes(rw.src.ty(*r)).is_some_and(|b| b <= self.budget);
            fits && elements(r).is_some_and(|n| n <= SMALL.max(read))
        })
    }

    fn evaluate(&self, rw: &Rewriter<'_>, op: &Op) -> Option<Vec<Bundle>> {
        let made: Option<Vec<Cow<'_, Bundle>>> =
            op.operands.iter().map(|v| self.value(rw, *v)).collect();
        let made = made?;
        let operands: Vec<&Bundle> = made.iter().map(|b| &**b).collect();
        let types: Vec<_> = op.operands.iter().map(|v| rw.src.ty(*v)).collect();
        let results: Vec<_> = op.results.iter().map(|v| rw.src.ty(*v)).collect();
        let sizes = Sizes::default();
        eval_op(&rw.module, &op.kind, &operands, &types, &results, &sizes).ok()
    }

    fn value(&self, rw: &Rewriter<'_>, v: ValueId) -> Option<Cow<'_, Bundle>> {
        match self.known.get(&v)? {
            Known::Value(b) => Some(Cow::Borrowed(b)),
            Known::Source => {
                let made = self.evaluate(rw, rw.src.def_op(v)?)?.pop();
                made.map(Cow::Owned)
            }
        }
    }
}

/// Elements of a plain type of known extents.
fn numel(ty: &TensorType) -> Option<u64> {
    let n = ty.numel().as_const().and_then(|n| u64::try_from(n).ok());
    n.filter(|_| ty.elem.plain().is_some())
}

fn bytes(ty: &TensorType) -> Option<u64> {
    ty.elem.storage().byte_len(numel(ty)?)
}

/// An elementwise function of splats is a splat, of whatever shape.
fn fold_splats(rw: &mut Rewriter<'_>, op: &Op) -> Replacement {
    if !matches!(
        op.kind,
        OpKind::Unary(_) | OpKind::Binary(_) | OpKind::Select | OpKind::Cast
    ) {
        return Ok(None);
    }
    let scalar = |v: ValueId| TensorType {
        elem: rw.src.ty(v).elem.clone(),
        shape: Vec::<DimExpr>::new(),
    };
    let sizes = Sizes::default();
    let mut operands = Vec::new();
    for v in &op.operands {
        let Some(kind @ OpKind::Splat { .. }) = rw.def(*v).map(|d| &d.kind) else {
            return Ok(None);
        };
        let b = eval_op(&rw.module, kind, &[], &[], &[&scalar(*v)], &sizes)?;
        operands.extend(b);
    }
    let types: Vec<TensorType> = op.operands.iter().map(|v| scalar(*v)).collect();
    let result = scalar(op.results[0]);
    let out = eval_op(
        &rw.module,
        &op.kind,
        &operands.iter().collect::<Vec<_>>(),
        &types.iter().collect::<Vec<_>>(),
        &[&result],
        &sizes,
    );
    // What fails on its operands is left to fail when it is run.
    let value = match out.as_deref() {
        Ok([b]) => one_number(&b.codes)?,
        _ => None,
    };
    Ok(value.map(|v| rw.put(op, OpKind::Splat { value: v.to_bits() }, &[])))
}

/// The number that all elements are. None for NaN and for integers that an f64 may round.
fn one_number(t: &Tensor) -> Result<Option<f64>> {
    let mut v = vec![0.0f64; t.numel()];
    decode_slice(t.dtype(), t.bytes(), &mut v).map_err(|e| format_error(e, "constant"))?;
    let Some(first) = v.first().copied() else {
        return Ok(None);
    };
    let exact = t.dtype().bits() < 64 || t.dtype().is_float() || first.abs() < 9e15;
    let same = v.iter().all(|o| o.to_bits() == first.to_bits());
    Ok((exact && same && !first.is_nan()).then_some(first))
}

/// The op that gives a constant, with the name and type of the source value `like`.
fn constant(rw: &mut Rewriter<'_>, like: ValueId, t: &Tensor) -> Result<ValueId> {
    let (name, ty) = (&rw.src.value(like).name, rw.src.ty(like).clone());
    if let Some(v) = one_number(t)? {
        let kind = OpKind::Splat { value: v.to_bits() };
        return Ok(rw.b.push(kind, &[], vec![ty], &[name])[0]);
    }
    let mut w = inline(
        name.clone(),
        t.dtype(),
        t.dims().to_vec(),
        t.bytes().to_vec(),
    );
    if t.numel() <= LISTED && (t.dtype().bits() < 64 || t.dtype() == DType::F64) {
        w = listed(w, t)?;
    }
    Ok(rw.constant(w))
}

fn listed(w: Weight, t: &Tensor) -> Result<Weight> {
    let mut v = vec![0.0f64; t.numel()];
    decode_slice(t.dtype(), t.bytes(), &mut v).map_err(|e| format_error(e, &w.name))?;
    Ok(Weight {
        data: WeightData::List(v.iter().map(|v| v.to_bits()).collect()),
        ..w
    })
}

#[cfg(test)]
mod tests {
    use crate::testing::{check, declines, module, run_with};
    use crate::{Options, PassContext};

    #[test]
    fn chains_of_constants_fold_into_what_is_read() {
        check(
            "fold-constants",
            r#"func @main(%x: f32[2, 4]) -> (y: f32[2, 4]) {
                 %i: i64[4] = iota {axis = 0}
                 %f: f32[4] = cast %i
                 %two: f32[] = splat {value = 2.0}
                 %p: f32[4] = pow %two, %f @"Pow"
                 %y: f32[2, 4] = mul %x, %p
                 return %y
               }"#,
            r#"weight @p: f32[4] = [1.0, 2.0, 4.0, 8.0]
               func @main(%x: f32[2, 4]) -> (y: f32[2, 4]) {
                 %p: f32[4] = const @p @"Pow"
                 %y: f32[2, 4] = mul %x, %p
                 return %y
               }"#,
        );
    }

    #[test]
    fn one_number_becomes_a_splat_of_any_shape() {
        check(
            "fold-constants",
            "dim n = 1..9
             weight @d: i64[2] = [4.0, 9.0]
             func @main(%x: f32[n, 3]) -> (y: f32[n, 3]) {
               %d: i64[2] = const @d
               %k: i64[1] = slice %d {starts = [1], ends = [2]}
               %f: f32[1] = cast %k
               %r: f32[1] = sqrt %f
               %a: f32[n, 3] = splat {value = 0.5}
               %b: f32[n, 3] = neg %a
               %c: f32[n, 3] = add %x, %b
               %y: f32[n, 3] = mul %c, %r
               return %y
             }",
            "dim n = 1..9
             func @main(%x: f32[n, 3]) -> (y: f32[n, 3]) {
               %r: f32[1] = splat {value = 3.0}
               %b: f32[n, 3] = splat {value = -0.5}
               %c: f32[n, 3] = add %x, %b
               %y: f32[n, 3] = mul %c, %r
               return %y
             }",
        );
    }

    #[test]
    fn broadcasts_and_symbolic_sizes_stay() {
        declines(
            "fold-constants",
            "dim n = 1..9
             func @main(%x: f32[n, 100, 100]) -> (y: f32[n, 100, 100], z: i64[n]) {
               %r: i64[100, 1] = iota {axis = 0}
               %c: i64[1, 100] = iota {axis = 1}
               %m: bool[100, 100] = ge %r, %c
               %f: f32[100, 100] = cast %m
               %y: f32[n, 100, 100] = mul %x, %f
               %z: i64[n] = iota {axis = 0}
               return %y, %z
             }",
        );
    }

    #[test]
    fn what_exceeds_the_budget_or_fails_stays() {
        let text = "weight @w: f32[8] = normal(1, 1.0)
             weight @z: i64[2] = [0.0, 1.0]
             func @main(%x: f32[8], %i: i64[2]) -> (y: f32[8], j: i64[2]) {
               %w: f32[8] = const @w
               %e: f32[8] = exp %w
               %y: f32[8] = mul %x, %e
               %z: i64[2] = const @z
               %one: i64[2] = splat {value = 1.0}
               %d: i64[2] = div %one, %z
               %j: i64[2] = mul %i, %d
               return %y, %j
             }";
        let options = Options {
            fold_budget: 31,
            ..Options::default()
        };
        let out = run_with(
            "fold-constants",
            module(text),
            &mut PassContext::new(&options),
        );
        assert_eq!(out.unwrap().to_string(), module(text).to_string());
    }
}
