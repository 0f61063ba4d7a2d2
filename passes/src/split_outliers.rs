//! Input channels with outliers stay float beside the others.
//!
//! ```text
//! x·Wᵀ + b = (x ∘ m)·(W·diag(m))ᵀ + b + x_O·W_Oᵀ
//! O = { j : max |X_j| > threshold },   m_j = 0 for j in O, else 1
//! ```
//!
//! (Dettmers et al., "LLM.int8()", 2022; there with a threshold of 6.) The first product is
//! quantized later, with weights and activations whose scales the outliers no longer set; the
//! second, of few columns, stays as it is. Which channels are outliers is known from calibration,
//! so no run looks for them. Multiplying by `m` keeps the width that kernels like.
//!
//! Preconditions: statistics; layers are plain and have quantized activations. A layer of which
//! more than half the channels exceed the threshold is left alone: it is no case of outliers.

use crate::pass::{Pass, PassContext};
use crate::quantize::{Assigned, assign};
use crate::rewrite::{Replacement, Rewriter, Rule, rewrite};
use crate::statistics::Statistics;
use crate::weights::{Transform, derive, inline_f32, inline_ints, read_f32};
use qcc_ir::diag::{Class, Diagnostic, Result};
use qcc_ir::expr::BinaryFn;
use qcc_ir::graph::{Func, Module, Op, OpId, OpKind, TensorType, ValueId, Weight};
use qcc_ir::ledger::{Candidate, Decision, Topic};
use qcc_ir::{DType, DimExpr};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// The pass.
pub(crate) struct SplitOutliers;

impl Pass for SplitOutliers {
    fn name(&self) -> &'static str {
        "split-outliers"
    }

    fn summary(&self) -> &'static str {
        "keeps input channels with outliers float (LLM.int8())"
    }

    fn run(&self, module: &Module, ctx: &mut PassContext<'_>) -> Result<Module> {
        let (Some(threshold), Some(f)) = (ctx.options.outliers, module.funcs.first()) else {
            return Ok(module.clone());
        };
        let Some(mut statistics) = ctx.statistics.clone() else {
            let message = "which columns hold outliers is known from calibration data only";
            return Err(Diagnostic::error(525, Class::Usage, message)
                .hint("give --calib or --stats, or leave --outlier-columns out"));
        };
        let mut split = Split::default();
        for l in assign(module, ctx)? {
            let Some(columns) = outliers(f, &l, &statistics, threshold) else {
                continue;
            };
            let decision = match refusal(f, &l, &columns) {
                Some(reason) => refused(&l, reason),
                None => {
                    split.columns.insert(l.site.op, columns.clone());
                    chosen(&l, &columns)
                }
            };
            ctx.ledger.record(decision);
        }
        if split.columns.is_empty() {
            let message = format!(
                "--outlier-columns {threshold} has no effect: no layer has columns to split"
            );
            ctx.warnings
                .push(Diagnostic::warning(48, Class::Usage, message));
            return Ok(module.clone());
        }
        for (op, columns) in &split.columns {
            let name = &f.value(f.ops[op.index()].operands[0]).name;
            if let Some(stats) = statistics.get(name) {
                let mut by = vec![1.0; stats.channels()];
                columns.iter().for_each(|j| by[*j] = f32::INFINITY);
                let inner = stats.divided(&by);
                statistics.insert(inner_name(name), inner);
            }
        }
        ctx.statistics = Some(statistics);
        Ok(rewrite(module, &mut split)?.module)
    }
}

/// The channels beyond the threshold of a layer with quantized activations; `None` without any.
fn outliers(f: &Func, l: &Assigned, s: &Statistics, threshold: f32) -> Option<Arc<[usize]>> {
    l.choice.and_then(|q| q.acts).filter(|_| !l.site.conv)?;
    let absmax = s.get(&f.value(l.site.input).name)?.channel_absmax();
    let beyond = absmax.iter().enumerate().filter(|(_, m)| **m > threshold);
    let found: Vec<usize> = beyond.map(|(j, _)| j).collect();
    (!found.is_empty()).then(|| found.into())
}

fn refusal(f: &Func, l: &Assigned, columns: &[usize]) -> Option<String> {
    let op = &f.ops[l.site.op.index()];
    let width = f.ty(l.site.input).shape.last().and_then(DimExpr::as_const);
    let plain =
        matches!(&op.kind, OpKind::Linear { segments, accs: 1, expr: None } if segments.is_empty());
    match width {
        _ if !plain || f.ty(l.site.input).rank() < 2 => Some("it is fused with others".into()),
        Some(n) if 2 * columns.len() as i64 <= n => None,
        _ => Some(format!("{} columns are more than half", columns.len())),
    }
}

fn refused(l: &Assigned, reason: String) -> Decision {
    Decision::new(&l.site.name, Topic::Outliers, "none")
        .weight(&l.site.weight)
        .consider(Candidate::refused("float columns", reason))
        .consider(Candidate::new("none"))
}

fn chosen(l: &Assigned, columns: &[usize]) -> Decision {
    let list: Vec<String> = columns.iter().map(usize::to_string).collect();
    let name = format!("float columns {}", list.join(" "));
    Decision::new(&l.site.name, Topic::Outliers, &name)
        .weight(&l.site.weight)
        .consider(Candidate::new(&name))
        .consider(Candidate::new("none"))
}

fn inner_name(value: &str) -> String {
    format!("{value}.inner")
}

/// What is split in the entry function.
#[derive(Default)]
struct Split {
    columns: BTreeMap<OpId, Arc<[usize]>>,
    funcs: usize,
    /// By input: the input without its outliers, and the outliers.
    parts: HashMap<ValueId, (ValueId, ValueId)>,
}

impl Rule for Split {
    fn enter(&mut self, _: &Func) {
        self.funcs += 1;
    }

    fn apply(&mut self, rw: &mut Rewriter<'_>, op: &Op) -> Replacement {
        let columns = (self.funcs == 1)
            .then(|| self.columns.get(&rw.id(op)))
            .flatten();
        let Some(columns) = columns.cloned() else {
            return Ok(None);
        };
        let (x, w) = (op.operands[0], op.operands[1]);
        let (inner, outer) = match self.parts.get(&x) {
            Some(parts) => *parts,
            None => parts(rw, x, &columns)?,
        };
        self.parts.insert(x, (inner, outer));
        let ty = rw.src.ty(op.results[0]).clone();
        let weight = rw.plain_weight(w)?.clone();
        let apart = rw.constant(apart(&weight, &columns, dtype(rw, x))?);
        let mut operands = rw.operands(op);
        operands[0] = inner;
        operands[1] = rw.derived(w, without(&weight, &columns))?;
        let first = rw.step(op, "inner", op.kind.clone(), &operands, ty.clone());
        let second = rw.step(op, "outer", OpKind::MatMul, &[outer, apart], ty);
        let sum = OpKind::Binary(BinaryFn::Add);
        Ok(Some(rw.put(op, sum, &[first, second])))
    }
}

fn dtype(rw: &Rewriter<'_>, x: ValueId) -> DType {
    rw.src.ty(x).elem.plain().unwrap_or(DType::F32)
}

/// `x ∘ m` and `x_O`.
fn parts(rw: &mut Rewriter<'_>, x: ValueId, columns: &[usize]) -> Result<(ValueId, ValueId)> {
    let (ty, name) = (rw.src.ty(x).clone(), rw.src.value(x).name.clone());
    let (last, width) = (ty.rank() - 1, ty.shape.last().and_then(DimExpr::as_const));
    let mut mask = vec![1.0; usize::try_from(width.unwrap_or(0)).unwrap_or(0)];
    columns.iter().for_each(|j| mask[*j] = 0.0);
    let mask = inline_f32(format!("{name}.mask"), vec![mask.len() as u64], &mask);
    let mask = rw.constant(stored(mask, dtype(rw, x))?);
    let product = OpKind::Binary(BinaryFn::Mul);
    let given = rw.get(x);
    let inner = rw.b.push(
        product,
        &[given, mask],
        vec![ty.clone()],
        &[&inner_name(&name)],
    )[0];
    let indices: Vec<i32> = columns.iter().map(|j| *j as i32).collect();
    let dims = vec![indices.len() as u64];
    let indices = inline_ints(format!("{name}.columns"), DType::I64, dims, &indices)?;
    let indices = rw.constant(indices);
    let mut few: TensorType = ty;
    few.shape[last] = DimExpr::from(columns.len() as i64);
    let kind = OpKind::Gather { axis: last };
    let outer = format!("{name}.outliers");
    Ok((
        inner,
        rw.b.push(kind, &[given, indices], vec![few], &[&outer])[0],
    ))
}

/// The columns of a weight as rows `[columns, n]`.
fn apart(w: &Weight, columns: &[usize], dtype: DType) -> Result<Weight> {
    let (values, k) = (read_f32(w)?, w.dims.last().map_or(1, |k| *k as usize));
    let rows = columns
        .iter()
        .flat_map(|j| values.iter().skip(*j).step_by(k));
    let taken: Vec<f32> = rows.copied().collect();
    let dims = vec![columns.len() as u64, w.dims[0]];
    stored(
        inline_f32(format!("{}.outliers", w.name), dims, &taken),
        dtype,
    )
}

/// A weight with those columns at 0.
fn without(w: &Weight, columns: &[usize]) -> Transform {
    let mut mask = vec![1.0; w.dims.last().map_or(0, |k| *k as usize)];
    columns.iter().for_each(|j| mask[*j] = 0.0);
    Transform::Scale {
        axis: 1,
        factors: mask.into(),
        divide: false,
        dtype: w.dtype,
    }
}

fn stored(w: Weight, dtype: DType) -> Result<Weight> {
    match dtype {
        DType::F32 => Ok(w),
        _ => derive(&w, Transform::Cast { dtype }),
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{Oracle, difference, inputs, module, run_with};
    use crate::{Calibrator, Options, PassContext, Scheme, Statistics};
    use qcc_ir::graph::Module;
    use qcc_ir::ledger::Topic;

    /// Channel 1 of what both layers read is an outlier.
    const BLOCK: &str = r#"dim n = 1..40
        weight @g: f32[4] = [1.0, 60.0, 1.0, 0.5]
        weight @q: f32[3, 4] = [1.0, 0.01, -1.0, 1.0, 0.5, -0.02, 1.0, 1.0, 1.0, 0.01, 1.0, 1.0]
        weight @k: f32[2, 4] = [1.0, 0.01, 2.0, 1.0, 1.0, 0.0, 1.0, 1.0]
        weight @k.b: f32[2] = [1.0, -1.0]
        func @main(%x: f32[n, 4]) -> (a: f32[n, 3], b: f32[n, 2]) {
          %g: f32[4] = const @g
          %h: f32[n, 4] = rms_norm %x, %g {eps = 0.00001} @"norm"
          %q: f32[3, 4] = const @q
          %k: f32[2, 4] = const @k
          %k.b: f32[2] = const @k.b
          %a: f32[n, 3] = linear %h, %q @"q"
          %b: f32[n, 2] = linear %h, %k, %k.b @"k"
          return %a, %b
        }"#;

    fn options(threshold: Option<f32>) -> Options {
        Options {
            scheme: Scheme::named("int8").unwrap(),
            outliers: threshold,
            ..Options::default()
        }
    }

    fn statistics(m: &Module) -> Statistics {
        let mut c = Calibrator::new(m, &Oracle).unwrap();
        c.feed(&inputs(m, 1)).unwrap();
        c.finish()
    }

    #[test]
    fn outliers_stay_float_and_results_stay_the_same() {
        let m = module(BLOCK);
        let options = options(Some(6.0));
        let mut ctx = PassContext::new(&options);
        ctx.statistics = Some(statistics(&m));
        let split = run_with("split-outliers", m.clone(), &mut ctx).unwrap();
        assert!(difference(&m, &split) < 1e-6);
        let fresh = statistics(&split);
        let inner = |s: &Statistics| s.get("h.inner").unwrap().channel_absmax();
        assert_eq!(inner(ctx.statistics.as_ref().unwrap()), inner(&fresh));
        let d = ctx.ledger.find("k", Topic::Outliers).unwrap();
        assert_eq!(d.chosen, "float columns 1");
        let error = |threshold, passes| {
            let options = self::options(threshold);
            let mut ctx = PassContext::new(&options);
            ctx.statistics = Some(statistics(&m));
            difference(&m, &run_with(passes, m.clone(), &mut ctx).unwrap())
        };
        let plain = error(None, "quantize");
        let split = error(Some(6.0), "split-outliers,quantize");
        assert!(split * 10.0 < plain, "{split} against {plain}");
    }

    #[test]
    fn what_is_no_outlier_is_left_alone() {
        let m = module(BLOCK);
        let run = |threshold: f32| {
            let options = options(Some(threshold));
            let mut ctx = PassContext::new(&options);
            ctx.statistics = Some(statistics(&m));
            let out = run_with("split-outliers", m.clone(), &mut ctx).unwrap();
            assert_eq!(out.to_string(), m.to_string());
            assert_eq!(ctx.warnings[0].code(), "Q0048");
            let d = ctx.ledger.find("q", Topic::Outliers).cloned();
            d.and_then(|d| d.considered[0].refused_by.clone())
        };
        assert_eq!(run(1e4), None);
        assert_eq!(run(0.0).unwrap(), "4 columns are more than half");
    }

    #[test]
    fn it_needs_data() {
        let options = options(Some(6.0));
        let mut ctx = PassContext::new(&options);
        let e = run_with("split-outliers", module(BLOCK), &mut ctx).unwrap_err();
        assert_eq!(e.code(), "Q0525");
    }
}
