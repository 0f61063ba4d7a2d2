//! Smoothing changes no result, follows its equation, and finds strengths.

use super::{smoothed, spots};
use crate::quantize::{Target, assign};
use crate::testing::{Oracle, difference, inputs, module, run_with, values};
use crate::{ActMode, Calibrator, Options, PassContext, Samples, Scheme, Smooth, Statistics};
use qcc_ir::Tensor;
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
        smooth: Smooth::Alpha(alpha),
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

/// Two batches of 24 samples, of which a search sees the first two.
struct Pair;

/// Samples of a batch.
fn samples(batch: u64, range: std::ops::Range<usize>) -> Vec<Tensor> {
    let all = qcc_ir::eval::normal(1 + batch, 1.0, 24 * 4);
    let some: Vec<f32> = all[4 * range.start..4 * range.end]
        .iter()
        .map(|v| *v as f32)
        .collect();
    vec![Tensor::f32(&[range.len() as u64, 4], &some).unwrap()]
}

impl Samples for Pair {
    fn batches(&self) -> usize {
        2
    }

    fn batch(&self, index: usize) -> qcc_ir::diag::Result<Vec<Tensor>> {
        Ok(samples(index as u64, 0..24))
    }
}

/// As [`BLOCK`], with a layer behind whose input no norm makes.
fn with_activation() -> Module {
    let text = BLOCK
        .replace("b: f32[n, 2])", "b: f32[n, 2], d: f32[n, 2])")
        .replace(
            "return %a, %b",
            "%u: f32[n, 3] = gelu %a @\"gelu\"
             %d.w: f32[2, 3] = const @d
             %d: f32[n, 2] = linear %u, %d.w @\"d\"
             return %a, %b, %d",
        )
        .replace(
            "func @main",
            "weight @d: f32[2, 3] = [1.0, 0.02, 1.0, -1.0, 0.01, 0.5]
             func @main",
        );
    module(&text)
}

/// With statistics of what the search does not see.
fn search<'a>(m: &Module, options: &'a Options) -> (Module, PassContext<'a>) {
    let mut ctx = PassContext::new(options);
    let mut c = Calibrator::new(m, &Oracle).unwrap();
    (0..2).for_each(|i| c.feed(&samples(i, 2..24)).unwrap());
    ctx.statistics = Some(c.finish());
    ctx.samples = Some(&Pair);
    ctx.executor = Some(&Oracle);
    let out = run_with("smooth", m.clone(), &mut ctx).unwrap();
    (out, ctx)
}

/// The error of the quantized results over the samples that a search sees.
fn error(m: &Module, smooth: Smooth, act: ActMode) -> f64 {
    let options = Options {
        smooth,
        act,
        ..options(0.0)
    };
    let (out, mut ctx) = search(m, &options);
    let quantized = run_with("quantize", out, &mut ctx).unwrap();
    let results = |m: &Module, i| {
        let out = qcc_ir::eval::run(m, &samples(i, 0..2)).unwrap();
        out.iter().flat_map(values).collect::<Vec<f64>>()
    };
    let each = (0..2).flat_map(|i| {
        let pairs = results(m, i).into_iter().zip(results(&quantized, i));
        pairs.map(|(a, b)| (a - b) * (a - b)).collect::<Vec<f64>>()
    });
    each.sum()
}

#[test]
fn what_is_searched_serves_the_samples_at_least_as_well_as_what_is_given() {
    for m in [module(BLOCK), with_activation()] {
        for act in [ActMode::Static, ActMode::Dynamic] {
            let of = |smooth| error(&m, smooth, act);
            let found = of(Smooth::Auto);
            for other in [of(Smooth::Off), of(Smooth::Alpha(0.5))] {
                assert!(found <= other * (1.0 + 1e-6), "{found} against {other}");
            }
        }
    }
}

#[test]
fn the_ledger_holds_every_strength_that_was_measured() {
    let m = with_activation();
    let options = Options {
        smooth: Smooth::Default,
        act: ActMode::Static,
        ..options(0.0)
    };
    let (out, ctx) = search(&m, &options);
    let d = difference(&m, &out);
    assert!(d < 1e-5, "results differ by {d}");
    let norm = ctx.ledger.find("ln_1", Topic::Smoothing).unwrap();
    assert_eq!(norm.considered.len(), 22);
    assert!(norm.considered.iter().all(|c| c.error.is_some()));
    assert_ne!(norm.chosen, "off");
    let model = ctx.ledger.find("model", Topic::Smoothing).unwrap();
    let names: Vec<&str> = model
        .considered
        .iter()
        .map(|c| c.candidate.as_str())
        .collect();
    assert_eq!(names, ["searched", "alpha 0.5", "off"]);
    let least = model
        .considered
        .iter()
        .min_by(|a, b| a.error.partial_cmp(&b.error).unwrap());
    assert_eq!(
        least.map(|c| c.candidate.as_str()),
        Some(model.chosen.as_str())
    );
}

#[test]
fn a_value_that_takes_no_factors_gets_a_product_of_its_own() {
    let m = with_activation();
    let data = statistics(&m);
    let options = options(0.0);
    let mut ctx = PassContext::new(&options);
    ctx.statistics = Some(data.clone());
    let layers = assign(&m, &ctx).unwrap();
    let spots = spots(&m, &mut ctx, &layers, &data, Smooth::Auto).unwrap();
    let [norm, product] = spots.as_slice() else {
        panic!("two groups of layers");
    };
    assert!(norm.is_norm() && matches!(product.to, Target::Product(_)));
    let (out, updated) = smoothed(&m, &layers, &spots, &[None, Some(0.5)], &data).unwrap();
    assert!(qcc_ir::graph::verify(&out).is_empty());
    let d = difference(&m, &out);
    assert!(d < 1e-6, "results differ by {d}");
    assert!(updated.get("u.smooth").unwrap().absmax() > 0.0);
}

#[test]
fn by_default_only_integer_activations_with_samples_are_smoothed() {
    let chosen = |scheme: &str, data: bool| {
        let options = Options {
            scheme: Scheme::named(scheme).unwrap(),
            ..Options::default()
        };
        options.smoothing(data)
    };
    assert_eq!(chosen("int8", true), Smooth::Auto);
    assert_eq!(chosen("int8", false), Smooth::Off);
    assert_eq!(chosen("int8-weights", true), Smooth::Off);
    assert_eq!(chosen("fp8", true), Smooth::Off);
}

#[test]
fn with_statistics_alone_the_default_is_off_and_the_search_refused() {
    let m = module(BLOCK);
    let smoothed = |smooth| -> qcc_ir::diag::Result<_> {
        let options = Options {
            smooth,
            ..options(0.0)
        };
        let mut ctx = PassContext::new(&options);
        ctx.statistics = Some(statistics(&m));
        let out = run_with("smooth", m.clone(), &mut ctx)?;
        Ok((out, ctx.warnings))
    };
    let (out, warnings) = smoothed(Smooth::Default).unwrap();
    assert_eq!(out.to_string(), m.to_string());
    assert_eq!(warnings[0].code(), "Q0540");
    assert!(warnings[0].advice().unwrap().contains("--smooth 0.5"));
    let e = smoothed(Smooth::Auto).unwrap_err();
    assert_eq!(e.code(), "Q0525");
    assert!(e.message().contains("statistics alone"), "{}", e.message());
    assert!(smoothed(Smooth::Alpha(0.5)).unwrap().1.is_empty());
}

#[test]
fn gains_that_make_outliers_are_named_where_there_is_no_data() {
    let warnings = |text: &str, scheme: &str, data: bool| {
        let options = Options {
            scheme: Scheme::named(scheme).unwrap(),
            smooth: Smooth::Off,
            ..Options::default()
        };
        let m = module(text);
        let mut ctx = PassContext::new(&options);
        ctx.statistics = data.then(|| statistics(&m));
        run_with("smooth", m, &mut ctx).unwrap();
        ctx.warnings
    };
    let [w] = &warnings(BLOCK, "int8", false)[..] else {
        panic!("one warning");
    };
    assert_eq!((w.code().as_str(), w.place()), ("Q0540", Some("ln_1")));
    assert!(w.message().contains("60 times"), "{}", w.message());
    assert!(w.advice().unwrap().contains("--calib"));
    let even = BLOCK.replace("60.0", "7.0");
    assert!(warnings(&even, "int8", false).is_empty());
    assert!(warnings(BLOCK, "int8", true).is_empty());
    // Exponents hold outliers, and float activations do too.
    assert!(warnings(BLOCK, "fp8", false).is_empty());
    assert!(warnings(BLOCK, "int8-weights", false).is_empty());
}
