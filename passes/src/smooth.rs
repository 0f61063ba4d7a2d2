//! SmoothQuant: outliers move from activations, where they cost precision, into weights.
//!
//! ```text
//! s_j = max |X_j|^α / max |W_j|^(1−α)            j: channel; W: all layers that read X
//! norm(x)·(g / s) + b / s    and    W·diag(s)    give the same products: (X/s)·(W·s)ᵀ = X·Wᵀ
//! ```
//!
//! (Xiao et al., "SmoothQuant", 2023, eq. 4.) Both maxima are at least 1e-5, and so is `s`; a
//! channel that is always 0 has s = 1. The factors are computed in f64 without any function of
//! the host's mathematics library, so they are the same on every machine. The statistics of the
//! norm's result are divided along with it.
//!
//! Preconditions, per norm: gain and bias are constants; every reader of the result is a linear
//! layer with a constant weight, and at least one of them has quantized activations. A norm that
//! does not meet them is left as it is, and the ledger says why.

use crate::pass::{Pass, PassContext};
use crate::quantize::{Assigned, Folded, assign, target};
use crate::statistics::{Statistics, ValueStats};
use crate::weights::read_f32;
use qcc_ir::diag::{Class, Diagnostic, Result};
use qcc_ir::graph::{Func, Module, Op, OpKind, ValueId};
use qcc_ir::ledger::{Candidate, Decision, Topic};
use std::sync::Arc;

/// Smallest maximum that counts, and smallest factor.
const FLOOR: f64 = 1e-5;

/// The pass.
pub(crate) struct Smooth;

impl Pass for Smooth {
    fn name(&self) -> &'static str {
        "smooth"
    }

    fn summary(&self) -> &'static str {
        "moves activation outliers into weights (SmoothQuant)"
    }

    fn run(&self, module: &Module, ctx: &mut PassContext<'_>) -> Result<Module> {
        let (Some(alpha), Some(f)) = (ctx.options.smooth, module.funcs.first()) else {
            return Ok(module.clone());
        };
        if !(0.0..=1.0).contains(&alpha) {
            let message = format!("a smoothing strength lies between 0 and 1, not at {alpha}");
            return Err(Diagnostic::error(45, Class::Usage, message).hint("0.5 suits most models"));
        }
        let Some(statistics) = ctx.statistics.clone() else {
            let message = "smoothing needs calibration data";
            return Err(Diagnostic::error(525, Class::Usage, message)
                .hint("give --calib or --stats, or --smooth off"));
        };
        let layers = assign(module, ctx)?;
        let mut folded = Folded::default();
        let mut updated = statistics.clone();
        for (_, norm) in f.ops().filter(|(_, op)| is_norm(&op.kind)) {
            let mut decision = decision(f, norm, alpha);
            let x = norm.results[0];
            let quantized = |l: &Assigned| l.choice.is_some_and(|q| q.acts.is_some());
            match target(f, x, &layers, quantized) {
                Ok((to, readers)) => {
                    let stats = stats(&statistics, f, x)?;
                    let s: Arc<[f32]> = factors(module, f, stats, &readers, alpha)?.into();
                    updated.insert(&f.value(x).name, stats.divided(&s));
                    folded.add(f, to, &readers, &s, &|_| true);
                    decision.fused = readers.iter().map(|l| l.site.name.clone()).collect();
                }
                Err(Some(reason)) => {
                    decision.chosen = "off".into();
                    decision.considered[0].refused_by = Some(reason);
                }
                Err(None) => continue,
            }
            ctx.ledger.record(decision);
        }
        if folded.is_empty() {
            let message = format!("--smooth {alpha} has no effect: no norm can take the factors");
            ctx.warnings.push(
                Diagnostic::warning(48, Class::Usage, message)
                    .hint("`qcc explain` says why, norm by norm"),
            );
        }
        ctx.statistics = Some(updated);
        folded.apply(module)
    }
}

fn is_norm(kind: &OpKind) -> bool {
    matches!(
        kind,
        OpKind::LayerNorm { expr: None, .. } | OpKind::RmsNorm { expr: None, .. }
    )
}

fn decision(f: &Func, norm: &Op, alpha: f32) -> Decision {
    let name = format!("alpha {alpha}");
    let site = match norm.loc.nodes.is_empty() {
        true => f.value(norm.results[0]).name.clone(),
        false => norm.loc.to_string(),
    };
    Decision::new(site, Topic::Smoothing, &name)
        .consider(Candidate::new(name))
        .consider(Candidate::new("off"))
}

fn stats<'a>(statistics: &'a Statistics, f: &Func, x: ValueId) -> Result<&'a ValueStats> {
    let v = f.value(x);
    let channels = v.ty.shape.last().and_then(|n| n.as_const());
    let fits = |s: &&ValueStats| s.rows > 0 && i64::try_from(s.channels()).ok() == channels;
    statistics.get(&v.name).filter(fits).ok_or_else(|| {
        let message = format!("the statistics do not fit the value `{}`", v.name);
        Diagnostic::error(526, Class::Input, message)
            .hint("they were made of another model, or without data: calibrate again")
    })
}

/// One factor per channel.
fn factors(
    m: &Module,
    f: &Func,
    x: &ValueStats,
    readers: &[&Assigned],
    alpha: f32,
) -> Result<Vec<f32>> {
    let mut weight_max = vec![0.0f32; x.channels()];
    for l in readers {
        let Some(OpKind::Const { weight, .. }) = f.def_op(l.site.weight_value).map(|o| &o.kind)
        else {
            continue;
        };
        for row in read_f32(m.weight(*weight))?.chunks(x.channels()) {
            for (max, w) in weight_max.iter_mut().zip(row) {
                *max = max.max(w.abs());
            }
        }
    }
    let alpha = f64::from(alpha);
    let factor = |(x, w): (f32, &f32)| match x == 0.0 {
        true => 1.0,
        false => {
            let x = libm::pow(f64::from(x).max(FLOOR), alpha);
            let w = libm::pow(f64::from(*w).max(FLOOR), 1.0 - alpha);
            (x / w).max(FLOOR) as f32
        }
    };
    Ok(x.channel_absmax()
        .into_iter()
        .zip(&weight_max)
        .map(factor)
        .collect())
}

#[cfg(test)]
mod tests {
    use crate::testing::{Oracle, difference, inputs, module, run_with};
    use crate::{Calibrator, Options, PassContext, Scheme, Statistics};
    use qcc_ir::graph::Module;
    use qcc_ir::ledger::Topic;

    /// Channel 1 of the norm's gain is an outlier.
    const BLOCK: &str = r#"dim n = 1..40
        weight @g: f32[4] = [1.0, 60.0, 1.0, 0.0]
        weight @c: f32[4] = [0.5, 20.0, -0.5, 0.0]
        weight @q: f32[3, 4] = [1.0, 0.01, -1.0, 1.0, 0.5, -0.02, 1.0, 1.0, 1.0, 0.01, 1.0, 1.0]
        weight @k: f32[2, 4] = [1.0, 0.01, 2.0, 1.0, 1.0, 0.0, 1.0, 1.0]
        func @main(%x: f32[n, 4]) -> (a: f32[n, 3], b: f32[n, 2]) {
          %g: f32[4] = const @g
          %c: f32[4] = const @c
          %h: f32[n, 4] = layer_norm %x, %g, %c {eps = 0.00001} @"ln_1"
          %q: f32[3, 4] = const @q
          %k: f32[2, 4] = const @k
          %a: f32[n, 3] = linear %h, %q @"q"
          %b: f32[n, 2] = linear %h, %k @"k"
          return %a, %b
        }"#;

    fn options(alpha: f32) -> Options {
        Options {
            scheme: Scheme::named("int8").unwrap(),
            smooth: Some(alpha),
            ..Options::default()
        }
    }

    fn statistics(m: &Module) -> Statistics {
        let mut c = Calibrator::new(m, &Oracle).unwrap();
        c.feed(&inputs(m, 1)).unwrap();
        c.finish()
    }

    #[test]
    fn smoothing_changes_no_result_and_helps_quantization() {
        let m = module(BLOCK);
        let data = statistics(&m);
        for alpha in [0.0, 0.3, 0.5, 1.0] {
            let options = options(alpha);
            let mut ctx = PassContext::new(&options);
            ctx.statistics = Some(data.clone());
            let smooth = run_with("smooth", m.clone(), &mut ctx).unwrap();
            let d = difference(&m, &smooth);
            assert!(d < 1e-6, "results differ by {d} at alpha {alpha}");
            let fresh = statistics(&smooth);
            let [a, b] = [ctx.statistics.as_ref().unwrap(), &fresh].map(|s| s.get("h").unwrap());
            for (a, b) in a.channel_max.iter().zip(&b.channel_max) {
                assert!((a - b).abs() <= 1e-6 * b.abs().max(1.0), "{a} {b}");
            }
        }
        let error = |passes| {
            let options = options(0.5);
            let mut ctx = PassContext::new(&options);
            ctx.statistics = Some(data.clone());
            difference(&m, &run_with(passes, m.clone(), &mut ctx).unwrap())
        };
        let (plain, smooth) = (error("quantize"), error("smooth,quantize"));
        assert!(smooth * 4.0 < plain, "{smooth} against {plain}");
    }

    #[test]
    fn the_factors_are_those_of_the_equation() {
        let m = module(BLOCK);
        let options = options(0.5);
        let mut ctx = PassContext::new(&options);
        let data = statistics(&m);
        let absmax = data.get("h").unwrap().channel_absmax();
        ctx.statistics = Some(data);
        let smooth = run_with("smooth", m.clone(), &mut ctx).unwrap();
        let read = |name: &str| {
            let w = smooth.weight(smooth.find_weight(name).unwrap());
            crate::weights::read_f32(w).unwrap()
        };
        let s = [
            (absmax[0] / 1.0).sqrt(),
            (absmax[1] / 0.02).sqrt(),
            (absmax[2] / 2.0).sqrt(),
            // The channel is always 0.
            1.0,
        ];
        let gain = [1.0, 60.0, 1.0, 0.0];
        for j in 0..4 {
            let close = |a: f32, b: f32| (a - b).abs() <= 1e-6 * b.abs();
            assert!(close(read("g")[j], gain[j] / s[j]), "gain of channel {j}");
            assert!(close(read("q")[8 + j], [1.0, 0.01, 1.0, 1.0][j] * s[j]));
        }
        let d = ctx.ledger.find("ln_1", Topic::Smoothing).unwrap();
        assert_eq!((d.chosen.as_str(), d.fused.len()), ("alpha 0.5", 2));
    }

    #[test]
    fn a_norm_that_others_read_is_left_alone_and_the_ledger_says_why() {
        let text = BLOCK
            .replace("b: f32[n, 2])", "b: f32[n, 2], r: f32[n, 4])")
            .replace(
                "return",
                "%r: f32[n, 4] = add %x, %h @\"residual\"\n return",
            )
            .replace("%a, %b\n", "%a, %b, %r\n");
        let m = module(&text);
        let options = options(0.5);
        let mut ctx = PassContext::new(&options);
        ctx.statistics = Some(statistics(&m));
        let out = run_with("smooth", m.clone(), &mut ctx).unwrap();
        assert_eq!(out.to_string(), m.to_string());
        let d = ctx.ledger.find("ln_1", Topic::Smoothing).unwrap();
        assert_eq!(d.chosen, "off");
        let why = d.considered[0].refused_by.as_deref();
        assert_eq!(why, Some("its result is also read by residual"));
        assert_eq!(ctx.warnings[0].code(), "Q0048");
    }

    #[test]
    fn what_cannot_be_done_is_an_error() {
        let m = module(BLOCK);
        let code = |options: &Options, data: Option<Statistics>| {
            let mut ctx = PassContext::new(options);
            ctx.statistics = data;
            run_with("smooth", m.clone(), &mut ctx).unwrap_err().code()
        };
        assert_eq!(code(&options(0.5), None), "Q0525");
        assert_eq!(code(&options(1.5), Some(statistics(&m))), "Q0045");
        assert_eq!(code(&options(0.5), Some(Statistics::new())), "Q0526");
    }
}
