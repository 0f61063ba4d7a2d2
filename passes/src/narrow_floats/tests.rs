//! What narrows, what stays wide, and what is refused.

use crate::testing::{difference, module, run_with};
use crate::{Options, PassContext, Statistics, ValueStats};
use qcc_ir::DType;
use qcc_ir::graph::Module;
use qcc_ir::ledger::Topic;

fn narrowed(text: &str, float: DType, ctx_of: fn(&mut PassContext<'_>)) -> (Module, String) {
    let options = Options {
        float: Some(float),
        ..Options::default()
    };
    let mut ctx = PassContext::new(&options);
    ctx_of(&mut ctx);
    let m = run_with("narrow-floats", module(text), &mut ctx).unwrap();
    let chosen = ctx.ledger.find("model", Topic::Fallback);
    (
        m,
        chosen
            .map(|d| d.considered[0].refused_by.clone().unwrap())
            .unwrap_or_default(),
    )
}

fn becomes(text: &str, float: DType, tolerance: f64, expected: &str) {
    let (m, _) = narrowed(text, float, |_| ());
    assert_eq!(m.to_string(), module(expected).to_string());
    let d = difference(&module(text), &m);
    assert!(d <= tolerance, "results differ by {d}");
}

#[test]
fn data_narrows_and_positions_do_not() {
    becomes(
        r#"dim s = 1..9
             weight @embed: f32[3, 4] = normal(1, 1.0)
             weight @g: f32[4] = normal(2, 1.0)
             weight @w: f32[4, 4] = normal(3, 0.5)
             func @main(%ids: i64[1, s]) -> (y: f32[1, s, 4]) {
               %embed: f32[3, 4] = const @embed
               %x: f32[1, s, 4] = gather %embed, %ids {axis = 0}
               %p: i64[s, 2] = iota {axis = 0}
               %a: f32[s, 2] = cast %p
               %cos: f32[s, 2] = cos %a
               %sin: f32[s, 2] = sin %a
               %g: f32[4] = const @g
               %h: f32[1, s, 4] = rms_norm %x, %g {eps = 0.00001}
               %w: f32[4, 4] = const @w
               %q: f32[1, s, 4] = linear %h, %w
               %r: f32[1, s, 4] = rotary %q, %cos, %sin {heads = 1}
               %half: f32[] = splat {value = 0.5}
               %t: f32[1, s, 4] = mul %r, %half
               %y: f32[1, s, 4] = add %x, %t
               return %y
             }"#,
        DType::F16,
        2e-3,
        r#"dim s = 1..9
             weight @g: f32[4] = normal(2, 1.0)
             weight @embed: f16[3, 4] = extern
             weight @w: f16[4, 4] = extern
             func @main(%ids: i64[1, s]) -> (y: f32[1, s, 4]) {
               %embed: f16[3, 4] = const @embed
               %x: f16[1, s, 4] = gather %embed, %ids {axis = 0}
               %p: i64[s, 2] = iota {axis = 0}
               %a: f32[s, 2] = cast %p
               %cos: f32[s, 2] = cos %a
               %sin: f32[s, 2] = sin %a
               %g: f32[4] = const @g
               %h: f16[1, s, 4] = rms_norm %x, %g {eps = 0.00001}
               %w: f16[4, 4] = const @w
               %q: f16[1, s, 4] = linear %h, %w
               %r: f16[1, s, 4] = rotary %q, %cos, %sin {heads = 1}
               %half.f16: f16[] = splat {value = 0.5}
               %t: f16[1, s, 4] = mul %r, %half.f16
               %x.f32: f32[1, s, 4] = cast %x
               %t.f32: f32[1, s, 4] = cast %t
               %y: f32[1, s, 4] = add %x.f32, %t.f32
               return %y
             }"#,
    );
}

#[test]
fn sums_and_what_leads_to_them_stay_wide() {
    becomes(
        "dim n = 1..9
             weight @w: f32[4, 4] = normal(3, 0.5)
             weight @v: f32[4, 4] = normal(4, 0.5)
             func @main(%x: f32[n, 4]) -> (y: f32[n, 4]) {
               %w: f32[4, 4] = const @w
               %v: f32[4, 4] = const @v
               %a: f32[n, 4] = linear %x, %w
               %sq: f32[n, 4] = mul %a, %a
               %m: f32[n, 1] = reduce %sq {f = mean, axes = [1], keep}
               %r: f32[n, 1] = rsqrt %m
               %h: f32[n, 4] = mul %a, %r
               %y: f32[n, 4] = linear %h, %v
               return %y
             }",
        DType::BF16,
        3e-2,
        "dim n = 1..9
             weight @w: bf16[4, 4] = extern
             weight @v: bf16[4, 4] = extern
             func @main(%x: f32[n, 4]) -> (y: f32[n, 4]) {
               %x.bf16: bf16[n, 4] = cast %x
               %w: bf16[4, 4] = const @w
               %a: bf16[n, 4] = linear %x.bf16, %w
               %a.f32: f32[n, 4] = cast %a
               %sq: f32[n, 4] = mul %a.f32, %a.f32
               %m: f32[n, 1] = reduce %sq {f = mean, axes = [1], keep}
               %r: f32[n, 1] = rsqrt %m
               %r.bf16: bf16[n, 1] = cast %r
               %h: bf16[n, 4] = mul %a, %r.bf16
               %v: bf16[4, 4] = const @v
               %y: f32[n, 4] = linear %h, %v
               return %y
             }",
    );
}

#[test]
fn masks_stay_wide_until_the_softmax() {
    becomes(
        "dim n = 1..9
             func @main(%q: f32[n, 4], %k: f32[4, 3], %mask: i64[n, 3]) -> (y: f32[n, 3]) {
               %s: f32[n, 3] = matmul %q, %k
               %zero: i64[] = splat {value = 0.0}
               %hide: bool[n, 3] = eq %mask, %zero
               %low: f32[] = splat {value = -3.4028234663852886e38}
               %t: f32[n, 3] = select %hide, %low, %s
               %p: f32[n, 3] = softmax %t {axis = 1}
               %a: f32[n, 3] = neg %p
               %y: f32[n, 3] = exp %a
               return %y
             }",
        DType::F16,
        2e-3,
        "dim n = 1..9
             func @main(%q: f32[n, 4], %k: f32[4, 3], %mask: i64[n, 3]) -> (y: f32[n, 3]) {
               %q.f16: f16[n, 4] = cast %q
               %k.f16: f16[4, 3] = cast %k
               %s: f16[n, 3] = matmul %q.f16, %k.f16
               %zero: i64[] = splat {value = 0.0}
               %hide: bool[n, 3] = eq %mask, %zero
               %low: f32[] = splat {value = -3.4028234663852886e38}
               %s.f32: f32[n, 3] = cast %s
               %t: f32[n, 3] = select %hide, %low, %s.f32
               %p: f16[n, 3] = softmax %t {axis = 1}
               %a: f16[n, 3] = neg %p
               %a.f32: f32[n, 3] = cast %a
               %y: f32[n, 3] = exp %a.f32
               return %y
             }",
    );
}

#[test]
fn everything_widens_for_a_target_without_16_bits() {
    becomes(
        "weight @w: f16[2, 2] = normal(1, 1.0)
             func @main(%x: f16[3, 2]) -> (y: f16[3, 2], c: bool[3, 2]) {
               %w: f16[2, 2] = const @w
               %a: f16[3, 2] = linear %x, %w
               %zero: f16[] = splat {value = 0.0}
               %c: bool[3, 2] = gt %a, %zero
               %y: f16[3, 2] = relu %a
               return %y, %c
             }",
        DType::F32,
        1e-3,
        "weight @w: f32[2, 2] = extern
             func @main(%x: f16[3, 2]) -> (y: f16[3, 2], c: bool[3, 2]) {
               %x.f32: f32[3, 2] = cast %x
               %w: f32[2, 2] = const @w
               %a: f32[3, 2] = linear %x.f32, %w
               %zero.f32: f32[] = splat {value = 0.0}
               %c: bool[3, 2] = gt %a, %zero.f32
               %a.f16: f16[3, 2] = cast %a
               %y: f16[3, 2] = relu %a.f16
               return %y, %c
             }",
    );
}

const LINEAR: &str = "weight @w: f32[1, 2] = [1.0, 70000.0]
        weight @v: f32[1, 2] = [1.0, 7.0]
        func @main(%x: f32[1, 2]) -> (y: f32[1, 1]) {
          %w: f32[1, 2] = const @w
          %y: f32[1, 1] = linear %x, %w
          return %y
        }";

#[test]
fn f16_is_not_taken_beyond_its_range() {
    let (m, why) = narrowed(LINEAR, DType::F16, |_| ());
    assert_eq!(why, "weight `w` holds 70000");
    assert_eq!(m.weights[0].dtype, DType::BF16);
    let small = LINEAR.replace("70000.0", "7.0");
    let (m, why) = narrowed(&small, DType::F16, |_| ());
    assert_eq!((m.weights[0].dtype, why.as_str()), (DType::F16, ""));
    let (_, why) = narrowed(&small, DType::F16, |ctx| {
        let mut s = Statistics::new();
        let mut v = ValueStats::new(2);
        v.observe(&[1.0, -20000.0]).unwrap();
        s.insert("x", v);
        ctx.statistics = Some(s);
    });
    assert_eq!(why, "`x` reaches 20000 on the calibration data");
}

#[test]
fn other_formats_are_refused() {
    let options = Options {
        float: Some(DType::E4M3),
        ..Options::default()
    };
    let mut ctx = PassContext::new(&options);
    let e = run_with("narrow-floats", module(LINEAR), &mut ctx).unwrap_err();
    assert_eq!(e.code(), "Q0047");
}
