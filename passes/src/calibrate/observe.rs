//! Observes again what earlier passes changed.
//!
//! Smoothing divides a value channel by channel. Its extremes follow from those before, but the
//! distribution of all its elements does not. Where the method of the options reads that, the
//! module is run on the samples once more; without samples, the layer says what is missing.

use super::{Calibrator, calibration_points};
use crate::pass::{Pass, PassContext};
use qcc_ir::diag::Result;
use qcc_ir::graph::Module;

/// The pass.
pub(crate) struct Observe;

impl Pass for Observe {
    fn name(&self) -> &'static str {
        "observe"
    }

    fn summary(&self) -> &'static str {
        "gathers statistics of smoothed values again"
    }

    fn run(&self, module: &Module, ctx: &mut PassContext<'_>) -> Result<Module> {
        let (Some(statistics), Some(samples), Some(executor)) =
            (&mut ctx.statistics, ctx.samples, ctx.executor)
        else {
            return Ok(module.clone());
        };
        let lacks = |name: &str| statistics.get(name).is_some_and(|s| s.histogram.is_none());
        let stale: Vec<String> = calibration_points(module)
            .into_iter()
            .map(|p| p.value)
            .filter(|v| lacks(v))
            .collect();
        if stale.is_empty() || !ctx.options.calib.needs_distribution() {
            return Ok(module.clone());
        }
        let mut calibrator = Calibrator::new(module, executor)?;
        for i in 0..samples.batches() {
            calibrator.feed(&samples.batch(i)?)?;
        }
        let fresh = calibrator.finish();
        for name in stale {
            if let Some(seen) = fresh.get(&name) {
                let gram = statistics.get(&name).and_then(|s| s.gram.clone());
                let mut seen = seen.clone();
                seen.gram = gram;
                statistics.insert(name, seen);
            }
        }
        Ok(module.clone())
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{Held, Oracle, inputs, module, run_with};
    use crate::{CalibMethod, Calibrator, Options, PassContext, Scheme, Smooth};

    #[test]
    fn smoothed_values_are_observed_again_if_the_method_reads_it() {
        let m = module(
            r#"dim n = 1..40
            weight @g: f32[4] = [1.0, 60.0, 1.0, 0.5]
            weight @q: f32[3, 4] = normal(1, 1.0)
            func @main(%x: f32[n, 4]) -> (a: f32[n, 3]) {
              %g: f32[4] = const @g
              %h: f32[n, 4] = rms_norm %x, %g {eps = 0.00001} @"norm"
              %q: f32[3, 4] = const @q
              %a: f32[n, 3] = linear %h, %q @"q"
              return %a
            }"#,
        );
        let samples = Held(vec![inputs(&m, 1), inputs(&m, 9)]);
        let statistics = |m: &qcc_ir::graph::Module| {
            let mut c = Calibrator::new(m, &Oracle).unwrap();
            samples.0.iter().for_each(|b| c.feed(b).unwrap());
            c.finish()
        };
        let mut options = Options {
            scheme: Scheme::named("int8-static").unwrap(),
            smooth: Smooth::Alpha(0.5),
            calib: CalibMethod::Entropy,
            ..Options::default()
        };
        let mut ctx = PassContext::new(&options);
        ctx.statistics = Some(statistics(&m));
        ctx.executor = Some(&Oracle);
        ctx.samples = Some(&samples);
        let smooth = run_with("smooth,observe", m.clone(), &mut ctx).unwrap();
        let fresh = statistics(&smooth);
        let (got, want) = (ctx.statistics.unwrap(), fresh.get("h").unwrap());
        assert_eq!(got.get("h"), Some(want));
        assert!(want.histogram.is_some());

        // Without samples the layer says what is missing; minmax does without.
        let mut ctx = PassContext::new(&options);
        ctx.statistics = Some(statistics(&m));
        let e = run_with("smooth,observe,quantize", m.clone(), &mut ctx).unwrap_err();
        assert_eq!((e.code().as_str(), e.place()), ("Q0527", Some("q")));
        options.calib = CalibMethod::MinMax;
        let mut ctx = PassContext::new(&options);
        ctx.statistics = Some(statistics(&m));
        run_with("smooth,observe,quantize", m, &mut ctx).unwrap();
        assert!(
            ctx.statistics
                .unwrap()
                .get("h")
                .unwrap()
                .histogram
                .is_none()
        );
    }
}
