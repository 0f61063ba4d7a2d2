//! What the pass makes of layers under each scheme, what it refuses, and what the ledger says.

use super::Scheme;
use crate::testing::{difference, module, run_with};
use crate::{ActMode, Options, PassContext, Statistics, ValueStats};
use qcc_ir::diag::{Class, Result};
use qcc_ir::exec::{Bindings, CostModel};
use qcc_ir::graph::{Module, OpKind, TensorType};
use qcc_ir::ledger::{Ledger, Topic};

const MLP: &str = r#"dim n = 1..9
    weight @embed: f32[7, 4] = normal(1, 1.0)
    weight @up: f32[6, 4] = [
      1.0, -2.54, 0.5, 0.0, 0.0, 0.0, 0.0, 0.0, 0.5, 0.25, 0.125, -1.0,
      1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0, 3.0, 3.0, 3.0, 3.0]
    weight @gate: f32[6, 4] = normal(2, 1.0)
    weight @down: f32[4, 6] = normal(3, 1.0)
    weight @b: f32[4] = normal(4, 1.0)
    weight @head: f32[7, 4] = normal(5, 1.0)
    func @main(%ids: i64[n]) -> (logits: f32[n, 7]) {
      %embed: f32[7, 4] = const @embed
      %x: f32[n, 4] = gather %embed, %ids {axis = 0}
      %up: f32[6, 4] = const @up
      %u: f32[n, 6] = linear %x, %up @"layers.0.up"
      %gate: f32[6, 4] = const @gate
      %g: f32[n, 6] = linear %x, %gate @"layers.0.gate"
      %h: f32[n, 6] = mul %u, %g
      %down: f32[4, 6] = const @down
      %b: f32[4] = const @b
      %d: f32[n, 4] = linear %h, %down, %b @"layers.0.down"
      %head: f32[7, 4] = const @head
      %l: f32[n, 7] = linear %d, %head @"lm_head"
      return %l
    }"#;

fn options(scheme: &str) -> Options {
    Options {
        scheme: Scheme::named(scheme).unwrap(),
        ..Options::default()
    }
}

fn statistics(values: &[(&str, &[f32])]) -> Statistics {
    let mut s = Statistics::new();
    for (name, row) in values {
        let mut v = ValueStats::new(row.len());
        v.observe(row).unwrap();
        s.insert(*name, v);
    }
    s
}

fn run(text: &str, options: &Options, data: Option<Statistics>) -> Result<(Module, Ledger)> {
    let mut ctx = PassContext::new(options);
    ctx.statistics = data;
    let m = run_with("quantize", module(text), &mut ctx)?;
    Ok((m, ctx.ledger))
}

/// The lines of the text form that define the values named.
fn lines(m: &Module, names: &[&str]) -> Vec<String> {
    let text = m.to_string();
    let of = |n: &&str| {
        let start = format!("%{n}: ");
        let line = text.lines().find(|l| l.trim_start().starts_with(&start));
        line.unwrap_or("none").trim().to_string()
    };
    names.iter().map(of).collect()
}

#[test]
fn int8_is_dynamic_per_token_and_shares_the_activation() {
    let (m, ledger) = run(MLP, &options("int8"), None).unwrap();
    assert_eq!(
        lines(&m, &["x.q", "up", "u", "g", "h.q", "d", "l"]),
        [
            r#"%x.q: q<i8, [1, *], scale=f32, dynamic, narrow>[n, 4] = quantize %x @"layers.0.up""#,
            "%up: q<i8, [1, *], scale=f32, narrow>[6, 4] = const @up, @up.scale",
            r#"%u: f32[n, 6] = linear %x.q, %up @"layers.0.up""#,
            r#"%g: f32[n, 6] = linear %x.q, %gate @"layers.0.gate""#,
            r#"%h.q: q<i8, [1, *], scale=f32, dynamic, narrow>[n, 6] = quantize %h @"layers.0.down""#,
            r#"%d: f32[n, 4] = linear %h.q, %down, %b @"layers.0.down""#,
            r#"%l: f32[n, 7] = linear %d, %head @"lm_head""#,
        ]
    );
    let find = |name: &str| m.weight(m.find_weight(name).unwrap()).clone();
    let scales = crate::weights::read_f32(&find("up.scale")).unwrap();
    assert_eq!(scales[..3], [2.54 / 127.0, 1.0, 1.0 / 127.0]);
    let codes = crate::weights::read_f32(&find("up")).unwrap();
    assert_eq!(codes[..4], [50.0, -127.0, 25.0, 0.0]);

    let d = difference(&module(MLP), &m);
    assert!(d > 1e-4 && d < 0.03, "int8 differs by {d}");
    let head = ledger.find("lm_head", Topic::Scheme).unwrap();
    assert_eq!(
        (head.chosen.as_str(), head.weight.as_deref()),
        ("float", Some("head"))
    );
    let why = head.considered[0].refused_by.as_deref();
    assert_eq!(why, Some("scheme of the head"));
    let up = ledger.find("layers.0.up", Topic::Scheme).unwrap();
    assert_eq!(up.chosen, "int8-dynamic");
    assert!(
        ledger
            .decisions()
            .iter()
            .all(|d| d.topic != Topic::Fallback)
    );
}

#[test]
fn fp8_is_static_with_data_and_dynamic_without() {
    let data = statistics(&[("x", &[0.5, -1.0, 2.0, 896.0]), ("h", &[0.0; 6])]);
    let (m, _) = run(MLP, &options("fp8"), Some(data)).unwrap();
    assert_eq!(
        lines(&m, &["x.scale", "x.q", "h.scale", "u"]),
        [
            r#"%x.scale: f32[] = const @x.scale @"layers.0.up""#,
            r#"%x.q: q<e4m3, [*, *], scale=f32>[n, 4] = quantize %x, %x.scale @"layers.0.up""#,
            r#"%h.scale: f32[] = const @h.scale @"layers.0.down""#,
            r#"%u: f32[n, 6] = linear %x.q, %up @"layers.0.up""#,
        ]
    );
    let scale = |name| {
        let w = m.weight(m.find_weight(name).unwrap());
        crate::weights::read_f32(w).unwrap()
    };
    // Nothing but zeros was seen of `h`.
    assert_eq!((scale("x.scale"), scale("h.scale")), (vec![2.0], vec![1.0]));
    let (m, ledger) = run(MLP, &options("fp8"), None).unwrap();
    let line = r#"%x.q: q<e4m3, [1, *], scale=f32, dynamic>[n, 4] = quantize %x @"layers.0.up""#;
    assert_eq!(lines(&m, &["x.q"]), [line]);
    let d = difference(&module(MLP), &m);
    assert!(d > 1e-4 && d < 0.1, "fp8 differs by {d}");
    let up = ledger.find("layers.0.up", Topic::Scheme).unwrap();
    assert_eq!(up.chosen, "fp8-dynamic");
}

#[test]
fn overrides_win_over_exclusions_and_the_last_wins() {
    let scheme = |n| Scheme::named(n).unwrap();
    let options = Options {
        exclude: vec!["layers".into()],
        overrides: vec![
            ("up|gate".into(), scheme("int8")),
            ("^gate$".into(), scheme("fp8-weights")),
            ("lm_head".into(), scheme("fp8-dynamic")),
        ],
        act: ActMode::Dynamic,
        ..options("int8")
    };
    let (m, ledger) = run(MLP, &options, None).unwrap();
    let chosen = |site| ledger.find(site, Topic::Scheme).unwrap().chosen.clone();
    assert_eq!(chosen("layers.0.up"), "int8-dynamic");
    assert_eq!(chosen("layers.0.gate"), "fp8-weights");
    assert_eq!(chosen("layers.0.down"), "float");
    assert_eq!(chosen("lm_head"), "fp8-dynamic");
    assert_eq!(
        lines(&m, &["g", "d", "l"]),
        [
            r#"%g: f32[n, 6] = linear %x, %gate @"layers.0.gate""#,
            r#"%d: f32[n, 4] = linear %h, %down, %b @"layers.0.down""#,
            r#"%l: f32[n, 7] = linear %d.q, %head @"lm_head""#,
        ]
    );
    let down = ledger.find("layers.0.down", Topic::Scheme).unwrap();
    let why = down.considered[0].refused_by.as_deref();
    assert_eq!(why, Some("excluded by `layers`"));
}

#[test]
fn what_cannot_be_done_is_an_error_with_a_way_out() {
    let code = |options: &Options, data| {
        let e = run(MLP, options, data).map(|_| ()).unwrap_err();
        assert!(e.number() == 43 || e.advice().is_some(), "{e}");
        (e.code(), e.class())
    };
    let with = |f: fn(&mut Options)| {
        let mut o = options("int8");
        f(&mut o);
        o
    };
    let unmatched = with(|o| o.exclude = vec!["layers.7".into()]);
    assert_eq!(code(&unmatched, None), ("Q0042".into(), Class::Usage));
    let unmatched = with(|o| o.overrides = vec![("conv".into(), Scheme::float())]);
    assert_eq!(code(&unmatched, None), ("Q0042".into(), Class::Usage));
    let broken = with(|o| o.exclude = vec!["layers(".into()]);
    assert_eq!(code(&broken, None), ("Q0043".into(), Class::Usage));
    let fixed = with(|o| o.act = ActMode::Static);
    assert_eq!(code(&fixed, None), ("Q0525".into(), Class::Usage));
    let other = statistics(&[("x", &[1.0; 4])]);
    assert_eq!(code(&fixed, Some(other)), ("Q0526".into(), Class::Input));
}

const CONV: &str = r#"weight @w: f32[2, 3, 1, 1] = normal(1, 1.0)
    func @main(%x: f32[1, 3, 2, 2]) -> (y: f32[1, 2, 2, 2]) {
      %w: f32[2, 3, 1, 1] = const @w
      %y: f32[1, 2, 2, 2] = conv %x, %w {kernel = [1, 1]} @"conv1"
      return %y
    }"#;

#[test]
fn a_convolution_is_static_or_float() {
    let data = statistics(&[("x", &[127.0])]);
    let (m, _) = run(CONV, &options("int8"), Some(data)).unwrap();
    assert_eq!(
        lines(&m, &["x.q", "w"]),
        [
            r#"%x.q: q<i8, [*, *, *, *], scale=f32, narrow>[1, 3, 2, 2] = quantize %x, %x.scale @"conv1""#,
            "%w: q<i8, [1, *, *, *], scale=f32, narrow>[2, 3, 1, 1] = const @w, @w.scale",
        ]
    );
    let (m, ledger) = run(CONV, &options("int8"), None).unwrap();
    assert_eq!(m.to_string(), module(CONV).to_string());
    let fallback = ledger.find("conv1", Topic::Fallback).unwrap();
    let why = fallback.considered[0].refused_by.as_deref();
    assert_eq!(
        why,
        Some("a convolution needs static activations, and there is no calibration data")
    );
}

/// Has kernels for float activations only, and none for outputs of six columns.
struct WeightsOnly;

impl CostModel for WeightsOnly {
    fn op_micros(
        &self,
        _: &OpKind,
        operands: &[&TensorType],
        results: &[&TensorType],
        dims: Bindings<'_>,
    ) -> std::result::Result<f64, String> {
        assert_eq!(dims("n"), Some(9));
        let wide = results[0].shape.last().and_then(|n| n.as_const()) == Some(6);
        match (operands[0].elem.quant(), wide) {
            (Some(_), _) => Err("no fp8 units".into()),
            (None, true) => Err("six columns".into()),
            (None, false) => Ok(1.0),
        }
    }

    fn target(&self) -> &str {
        "test"
    }
}

#[test]
fn without_a_kernel_it_falls_back_and_says_so() {
    let options = options("fp8");
    let mut ctx = PassContext::new(&options);
    ctx.cost = Some(&WeightsOnly);
    let m = run_with("quantize", module(MLP), &mut ctx).unwrap();
    assert_eq!(
        lines(&m, &["u", "up", "d", "down"]),
        [
            r#"%u: f32[n, 6] = linear %x, %up @"layers.0.up""#,
            "%up: f32[6, 4] = const @up",
            r#"%d: f32[n, 4] = linear %h, %down, %b @"layers.0.down""#,
            "%down: q<e4m3, [1, *], scale=f32>[4, 6] = const @down, @down.scale",
        ]
    );
    let fallback = ctx.ledger.find("layers.0.up", Topic::Fallback).unwrap();
    assert_eq!(fallback.chosen, "float");
    let reasons: Vec<_> = fallback
        .considered
        .iter()
        .map(|c| (c.candidate.as_str(), c.refused_by.as_deref()))
        .collect();
    assert_eq!(
        reasons,
        [
            ("fp8-dynamic", Some("no kernel: no fp8 units")),
            ("fp8-weights", Some("no kernel: six columns")),
            ("float", None),
        ]
    );
    let down = ctx.ledger.find("layers.0.down", Topic::Fallback).unwrap();
    assert_eq!(down.chosen, "fp8-weights");
}

/// `up` and `gate` read the same value and may run as one, so they share the scale above those of
/// their blocks; `down` has its own.
#[test]
fn layers_that_read_one_value_share_the_global_scale() {
    let (m, ledger) = run(MLP, &options("nvfp4"), None).unwrap();
    assert_eq!(
        lines(&m, &["up", "gate", "down"]),
        [
            "%up: q<e2m1, [1, 16], scale=e4m3/f32>[6, 4] = const @up, @up.scale, _, @up.global",
            "%gate: q<e2m1, [1, 16], scale=e4m3/f32>[6, 4] = const @gate, @gate.scale, _, @up.global",
            "%down: q<e2m1, [1, 16], scale=e4m3/f32>[4, 6] = const @down, @down.scale, _, @down.global",
        ]
    );
    let up = ledger.find("layers.0.up", Topic::Scheme).unwrap();
    assert_eq!(up.chosen, "nvfp4");
    assert!(difference(&module(MLP), &m) > 0.0);
}

/// Rows of fewer values than a table has are kept as they are.
#[test]
fn tables_keep_short_rows() {
    let (m, _) = run(MLP, &options("lut4"), None).unwrap();
    assert_eq!(
        lines(&m, &["up"]),
        ["%up: q<u4, [1, *], table=f32>[6, 4] = const @up, @up.table"]
    );
    assert_eq!(difference(&module(MLP), &m), 0.0);
}

#[test]
fn activations_in_four_bits_and_in_groups_are_dynamic() {
    let (m, _) = run(MLP, &options("w4a4-g32"), None).unwrap();
    assert_eq!(
        lines(&m, &["x.q"]),
        [r#"%x.q: q<i4, [1, *], scale=f32, dynamic, narrow>[n, 4] = quantize %x @"layers.0.up""#]
    );
    let (m, _) = run(MLP, &options("w8a8-fp8-block128"), None).unwrap();
    assert_eq!(
        lines(&m, &["x.q", "up"]),
        [
            r#"%x.q: q<e4m3, [1, 128], scale=f32, dynamic>[n, 4] = quantize %x @"layers.0.up""#,
            "%up: q<e4m3, [128, 128], scale=f32>[6, 4] = const @up, @up.scale",
        ]
    );
    let (m, _) = run(MLP, &options("int8-block128"), None).unwrap();
    assert_eq!(
        lines(&m, &["x.q", "up"]),
        [
            r#"%x.q: q<i8, [1, 128], scale=f32, dynamic, narrow>[n, 4] = quantize %x @"layers.0.up""#,
            "%up: q<i8, [128, 128], scale=f32, narrow>[6, 4] = const @up, @up.scale",
        ]
    );
    let (m, _) = run(MLP, &options("int8-tensor"), None).unwrap();
    assert_eq!(
        lines(&m, &["up"]),
        ["%up: q<i8, [*, *], scale=f32, narrow>[6, 4] = const @up, @up.scale"]
    );
}
