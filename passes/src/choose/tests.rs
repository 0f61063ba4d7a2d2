//! The choice as a whole: exact, repeatable, no worse than what it is compared with.

use super::*;
use crate::quantize::{Layers, assign};
use crate::rewrite::rewrite;
use crate::testing::{Oracle, inputs, module};
use crate::{Options, Statistics, ValueStats};
use qcc_ir::ledger::Topic;

/// Two blocks of a decoder without attention: merged products, a gate, residuals, a head.
fn decoder() -> Module {
    let mut weights = String::new();
    let mut body = String::new();
    for i in 0..2 {
        for (w, n, k) in [
            ("q", 8, 8),
            ("k", 8, 8),
            ("o", 8, 8),
            ("g", 16, 8),
            ("u", 16, 8),
            ("d", 8, 16),
        ] {
            weights += &format!("weight @{w}{i}: f32[{n}, {k}] = normal(1{i}{n}, 0.4)\n");
            body += &format!("%{w}{i}: f32[{n}, {k}] = const @{w}{i}\n");
        }
        body += &format!(
            r#"%n{i}: f32[s, 8] = rms_norm %x{i}, %gain {{ eps = 1e-5 }}
               %a{i}: f32[s, 8] = linear %n{i}, %q{i} @"q{i}"
               %b{i}: f32[s, 8] = linear %n{i}, %k{i} @"k{i}"
               %c{i}: f32[s, 8] = mul %a{i}, %b{i}
               %p{i}: f32[s, 8] = softmax %c{i} {{ axis = 1 }}
               %e{i}: f32[s, 8] = linear %p{i}, %o{i} @"o{i}"
               %h{i}: f32[s, 8] = add %x{i}, %e{i}
               %m{i}: f32[s, 8] = rms_norm %h{i}, %gain {{ eps = 1e-5 }}
               %f{i}: f32[s, 16] = linear %m{i}, %g{i} @"gate{i}"
               %t{i}: f32[s, 16] = silu %f{i}
               %v{i}: f32[s, 16] = linear %m{i}, %u{i} @"up{i}"
               %z{i}: f32[s, 16] = mul %t{i}, %v{i}
               %y{i}: f32[s, 8] = linear %z{i}, %d{i} @"down{i}"
               %x{}: f32[s, 8] = add %h{i}, %y{i}
            "#,
            i + 1
        );
    }
    module(&format!(
        "dim s = 1..64 @ 1, 32\n{weights}weight @gain: f32[8] = splat(1.0)\n\
         func @main(%x0: f32[s, 8]) -> (y: f32[s, 8]) {{\n%gain: f32[8] = const @gain\n{body}return %x2\n}}\n"
    ))
}

/// Statistics of every layer's input: all within ±4.
fn statistics(m: &Module) -> Statistics {
    let mut s = Statistics::new();
    for p in crate::calibration_points(m) {
        let mut v = ValueStats::new(p.channels);
        v.observe(&vec![4.0; p.channels]).unwrap();
        s.insert(&p.value, v);
    }
    s.samples = 1;
    s
}

fn batches(m: &Module) -> Vec<Vec<Tensor>> {
    (0..2).map(|seed| inputs(m, 10 + seed)).collect()
}

fn study<'a>(m: &Module, options: &'a Options, threads: usize) -> Study<'a> {
    let mut ctx = PassContext::new(options);
    ctx.statistics = Some(statistics(m));
    ctx.executor = Some(&Oracle);
    ctx.threads = threads;
    Study::new(m, &ctx, &batches(m), &mut |_, _| Ok(())).unwrap()
}

fn options() -> Options {
    Options {
        float: Some(qcc_ir::DType::F16),
        algo: Some(vec![crate::Algo::Rtn]),
        smooth: crate::Smooth::Off,
        ..Options::default()
    }
}

#[test]
fn errors_are_measured_layer_by_layer() {
    let (m, options) = (decoder(), options());
    let study = study(&m, &options, 1);
    assert_eq!(study.menus.len(), 12);
    for menu in &study.menus {
        let of = |scheme: &str| menu.items[menu.find(scheme).unwrap()].error;
        assert_eq!(of("float"), 0.0);
        assert!(
            of("w4a16-g32-asym") > of("int8-weights"),
            "{}",
            menu.site.name
        );
        assert!(of("int8-weights") > 0.0);
    }
}

#[test]
fn known_errors_need_no_measurement() {
    let (m, options) = (decoder(), options());
    let mut first = study(&m, &options, 1);
    let mut ctx = PassContext::new(&options);
    ctx.statistics = Some(statistics(&m));
    let error = |layer: &str, scheme: &str| first.error(layer, scheme).unwrap();
    let mut second = Study::with_errors(&m, &ctx, &error).unwrap();
    assert!(first.error("q0", "int8-static").unwrap() > 0.0);
    assert!(first.error("q0", "w2a4").is_none() && first.error("z", "float").is_none());
    let budget = Budget::Divergence(1e-3);
    let (a, b) = (
        first.choose(budget).unwrap(),
        second.choose(budget).unwrap(),
    );
    assert_eq!(format!("{a:?}"), format!("{b:?}"));
}

/// Prices the module as the passes make it of a choice.
fn price_of_passes(m: &Module, study: &mut Study<'_>, items: &[usize], options: &Options) -> f64 {
    let mut all = Vec::new();
    for (at, item) in items.iter().enumerate() {
        let scheme = study.menus[at].items[*item].scheme.clone();
        let options = menu::with_scheme(options, &scheme).unwrap();
        let mut ctx = PassContext::new(&options);
        ctx.statistics = Some(statistics(m));
        all.push(assign(m, &ctx).unwrap().swap_remove(at));
    }
    all.sort_by_key(|a| a.site.op);
    let mut layers = Layers::new(&all, &Default::default());
    let quantized = rewrite(m, &mut layers).unwrap().module;
    let passes = parse_list("narrow-floats,cse,dce").unwrap();
    let mut ctx = PassContext::new(options);
    let quantized = Manager::new(passes)
        .run(quantized, &mut ctx)
        .unwrap()
        .module;
    let micros = study.pricer.price(&quantized.funcs[0]).unwrap().unwrap();
    study.pricer.mean(&micros)
}

#[test]
fn factors_add_up_to_the_price_of_the_fused_module() {
    let (m, options) = (decoder(), options());
    let mut study = study(&m, &options, 1);
    let mut state = 7usize;
    for _ in 0..30 {
        let menus = &study.menus;
        let items: Vec<usize> = menus
            .iter()
            .map(|menu| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                (state >> 33) % menu.items.len()
            })
            .collect();
        let expected = price_of_passes(&m, &mut study, &items, &options);
        let sites = sites(&study.narrowed);
        let mut search = Search {
            graph: Graph::new(&study.narrowed.funcs[0], &sites),
            menus: &study.menus,
            pricer: &mut study.pricer,
            budget: Budget::Divergence(1.0),
        };
        let mut sum = 0.0;
        for factor in 0..search.graph.factors.len() {
            let micros = search.price(factor, &items).unwrap().unwrap();
            sum += search.pricer.mean(&micros);
        }
        assert!(
            (sum - expected).abs() < 1e-9 * expected,
            "{sum} {expected} {items:?}"
        );
    }
}

#[test]
fn a_choice_keeps_its_budget_and_beats_what_it_is_compared_with() {
    let (m, options) = (decoder(), options());
    let mut study = study(&m, &options, 1);
    let free = study
        .choose(Budget::Divergence(f64::INFINITY))
        .unwrap()
        .summary;
    let least = free.chosen.divergence;
    let mut before = free.base.mean_micros + 1e-9;
    for share in [0.0, 0.02, 0.1, 0.3, 1.0] {
        let s = study
            .choose(Budget::Divergence(least * share))
            .unwrap()
            .summary;
        assert!(s.feasible && s.chosen.divergence <= least * share);
        assert!((s.cost - s.chosen.mean_micros).abs() < 1e-6 && s.bound <= s.cost);
        // A larger budget never costs time.
        assert!(s.chosen.mean_micros <= before);
        before = s.chosen.mean_micros + 1e-9;
        let others = [s.uniform.map(|(_, t)| t), s.precision_first];
        for other in others.into_iter().flatten() {
            assert!(s.chosen.mean_micros <= other.mean_micros + 1e-9);
        }
    }
    let s = study.choose(Budget::Divergence(-1.0)).unwrap().summary;
    assert!(!s.feasible && s.chosen.divergence == 0.0);
    let s = study.choose(Budget::Bits(9.0)).unwrap().summary;
    assert!(s.feasible && s.chosen.bits <= 9.0 && s.chosen.bits < s.base.bits);
}

#[test]
fn a_choice_is_followed_by_the_passes_and_explained() {
    let (m, mut options) = (decoder(), options());
    let chosen = study(&m, &options, 1)
        .choose(Budget::Divergence(1e-3))
        .unwrap();
    assert_eq!(chosen.overrides.len(), 12);
    options.overrides = chosen.overrides.clone();
    let mut ctx = PassContext::new(&options);
    ctx.statistics = Some(statistics(&m));
    ctx.considered = chosen.considered.clone();
    let assigned = assign(&m, &ctx).unwrap();
    for (a, (_, scheme)) in assigned.iter().zip(&chosen.overrides) {
        let d = &a.decisions[0];
        assert_eq!((d.topic, &d.chosen), (Topic::Scheme, &scheme.name));
        let taken = d
            .considered
            .iter()
            .find(|c| c.candidate == d.chosen)
            .unwrap();
        assert!(taken.predicted_us.len() == 2 && taken.refused_by.is_none());
        assert!(d.considered.len() >= 8, "{d:?}");
    }
}

#[test]
fn threads_and_runs_change_nothing() {
    let (m, options) = (decoder(), options());
    let text = |threads| {
        let c = study(&m, &options, threads)
            .choose(Budget::Divergence(1e-3))
            .unwrap();
        format!("{c:?}")
    };
    let first = text(1);
    assert_eq!(first, text(1));
    assert_eq!(first, text(3));
}

#[test]
fn an_output_without_classes_and_a_study_without_executor_are_refused() {
    let (m, options) = (decoder(), options());
    let ctx = PassContext::new(&options);
    let e = Study::new(&m, &ctx, &batches(&m), &mut |_, _| Ok(()));
    assert_eq!(e.err().unwrap().code(), "Q0525");
    let ints =
        module("func @main(%x: i64[2]) -> (y: i64[2]) {\n%y: i64[2] = neg %x\nreturn %y\n}\n");
    let e = logits(&ints, &Oracle, &[inputs(&ints, 1)]);
    assert_eq!(e.err().unwrap().code(), "Q0535");
}
