//! Rotations change no result, and spread outliers.

use crate::testing::{difference, module, run_with};
use crate::{Options, PassContext, Scheme};
use qcc_ir::graph::{Module, OpKind};
use qcc_ir::ledger::Topic;

/// Two blocks as in Llama: RMS norms, shared value heads, gated MLP.
fn llama() -> String {
    let mut text = String::from(
        r#"dim b = 1..4
        dim s = 1..9
        weight @embed: f32[9, 24] = normal(1, 1.0)
        weight @head: f32[9, 24] = normal(2, 0.3)
        weight @g: f32[24] = normal(3, 2.0)
        weight @q: f32[24, 24] = normal(4, 0.3)
        weight @k: f32[12, 24] = normal(5, 0.3)
        weight @v: f32[12, 24] = normal(6, 0.3)
        weight @o: f32[24, 24] = normal(7, 0.3)
        weight @up: f32[40, 24] = normal(8, 0.3)
        weight @gate: f32[40, 24] = normal(9, 0.3)
        weight @down: f32[24, 40] = normal(10, 0.3)
        func @main(%ids: i64[b, s]) -> (logits: f32[b, s, 9]) {
          %embed: f32[9, 24] = const @embed
          %g: f32[24] = const @g
          %q: f32[24, 24] = const @q
          %k: f32[12, 24] = const @k
          %v: f32[12, 24] = const @v
          %o: f32[24, 24] = const @o
          %up: f32[40, 24] = const @up
          %gate: f32[40, 24] = const @gate
          %down: f32[24, 40] = const @down
          %x0: f32[b, s, 24] = gather %embed, %ids {axis = 0}
        "#,
    );
    for (i, next) in [(0, 1), (1, 2)] {
        text += &format!(
            r#"%n{i}: f32[b, s, 24] = rms_norm %x{i}, %g {{eps = 0.00001}} @"norm{i}"
            %q{i}: f32[b, s, 24] = linear %n{i}, %q @"q{i}"
            %k{i}: f32[b, s, 12] = linear %n{i}, %k @"k{i}"
            %v{i}: f32[b, s, 12] = linear %n{i}, %v @"v{i}"
            %a{i}: f32[b, s, 24] = attention %q{i}, %k{i}, %v{i} {{heads = 2, kv_heads = 1, scale = 0.3, causal}} @"attention{i}"
            %o{i}: f32[b, s, 24] = linear %a{i}, %o @"o{i}"
            %y{i}: f32[b, s, 24] = add %x{i}, %o{i}
            %m{i}: f32[b, s, 24] = rms_norm %y{i}, %g {{eps = 0.00001}} @"mlp{i}"
            %up{i}: f32[b, s, 40] = linear %m{i}, %up @"up{i}"
            %gate{i}: f32[b, s, 40] = linear %m{i}, %gate @"gate{i}"
            %act{i}: f32[b, s, 40] = silu %gate{i}
            %h{i}: f32[b, s, 40] = mul %act{i}, %up{i}
            %down{i}: f32[b, s, 24] = linear %h{i}, %down @"down{i}"
            %x{next}: f32[b, s, 24] = add %y{i}, %down{i}
            "#
        );
    }
    text + r#"%last: f32[b, s, 24] = rms_norm %x2, %g {eps = 0.00001} @"last"
        %head: f32[9, 24] = const @head
        %logits: f32[b, s, 9] = linear %last, %head @"head"
        return %logits
      }"#
}

/// A block as in GPT-2: layer norms with bias, learned positions, Q, K and V in one layer.
const GPT: &str = r#"dim b = 1..4
    dim s = 1..9
    weight @embed: f32[9, 24] = normal(1, 1.0)
    weight @at: f32[9, 24] = normal(2, 1.0)
    weight @g: f32[24] = normal(3, 2.0)
    weight @c: f32[24] = normal(4, 1.0)
    weight @qkv: f32[72, 24] = normal(5, 0.3)
    weight @qkv.b: f32[72] = normal(6, 0.3)
    weight @o: f32[24, 24] = normal(7, 0.3)
    weight @o.b: f32[24] = normal(8, 0.3)
    weight @up: f32[48, 24] = normal(9, 0.3)
    weight @down: f32[24, 48] = normal(10, 0.3)
    weight @head: f32[9, 24] = normal(11, 0.3)
    func @main(%ids: i64[b, s]) -> (logits: f32[b, s, 9]) {
      %embed: f32[9, 24] = const @embed
      %at: f32[9, 24] = const @at
      %g: f32[24] = const @g
      %c: f32[24] = const @c
      %e: f32[b, s, 24] = gather %embed, %ids {axis = 0}
      %p: f32[s, 24] = slice %at {starts = [0, 0], ends = [s, 24]}
      %p1: f32[1, s, 24] = reshape %p
      %x: f32[b, s, 24] = add %e, %p1
      %n: f32[b, s, 24] = layer_norm %x, %g, %c {eps = 0.00001} @"ln_1"
      %qkv: f32[72, 24] = const @qkv
      %qkv.b: f32[72] = const @qkv.b
      %t: f32[b, s, 72] = linear %n, %qkv, %qkv.b @"c_attn"
      %q: f32[b, s, 24] = slice %t {starts = [0, 0, 0], ends = [b, s, 24]}
      %k: f32[b, s, 24] = slice %t {starts = [0, 0, 24], ends = [b, s, 48]}
      %v: f32[b, s, 24] = slice %t {starts = [0, 0, 48], ends = [b, s, 72]}
      %a: f32[b, s, 24] = attention %q, %k, %v {heads = 3, scale = 0.3, causal} @"attention"
      %o: f32[24, 24] = const @o
      %o.b: f32[24] = const @o.b
      %r: f32[b, s, 24] = linear %a, %o, %o.b @"c_proj"
      %y: f32[b, s, 24] = add %r, %x
      %m: f32[b, s, 24] = layer_norm %y, %g, %c {eps = 0.00001} @"ln_2"
      %up: f32[48, 24] = const @up
      %u: f32[b, s, 48] = linear %m, %up @"c_fc"
      %h: f32[b, s, 48] = gelu %u
      %down: f32[24, 48] = const @down
      %d: f32[b, s, 24] = linear %h, %down @"down"
      %z: f32[b, s, 24] = add %d, %y
      %l: f32[b, s, 24] = layer_norm %z, %g {eps = 0.00001} @"ln_f"
      %head: f32[9, 24] = const @head
      %logits: f32[b, s, 9] = linear %l, %head @"head"
      return %logits
    }"#;

fn options(scheme: &str) -> Options {
    Options {
        scheme: Scheme::named(scheme).unwrap(),
        rotate: true,
        ..Options::default()
    }
}

fn rotated<'a>(text: &str, options: &'a Options) -> (Module, Module, PassContext<'a>) {
    let before = module(text);
    let mut ctx = PassContext::new(options);
    let after = run_with("rotate", before.clone(), &mut ctx).unwrap();
    (before, after, ctx)
}

fn chosen(ctx: &PassContext<'_>, site: &str) -> String {
    ctx.ledger
        .find(site, Topic::Rotation)
        .unwrap()
        .chosen
        .clone()
}

fn refused(ctx: &PassContext<'_>, site: &str) -> String {
    let d = ctx.ledger.find(site, Topic::Rotation).unwrap();
    d.considered[0].refused_by.clone().unwrap()
}

#[test]
fn rotated_models_compute_the_same() {
    for text in [llama().as_str(), GPT] {
        for seed in [0, 1] {
            let options = Options {
                seed,
                ..options("int8")
            };
            let (before, after, ctx) = rotated(text, &options);
            assert_ne!(before.to_string(), after.to_string());
            let d = difference(&before, &after);
            assert!(d < 1e-5, "results differ by {d}");
            assert!(ctx.warnings.is_empty());
        }
    }
}

#[test]
fn what_is_merged_and_what_is_not() {
    let options = options("int8");
    let (_, after, ctx) = rotated(&llama(), &options);
    assert_eq!(chosen(&ctx, "norm0"), "merged, hadamard 24");
    assert_eq!(chosen(&ctx, "attention1"), "merged by head, hadamard 12");
    assert_eq!(chosen(&ctx, "down0"), "online, hadamard 40");
    let products = |m: &Module| {
        let ops = m.funcs[0].ops.iter();
        ops.filter(|o| o.kind == OpKind::MatMul).count()
    };
    assert_eq!(products(&after), 2);
    let (_, after, ctx) = rotated(GPT, &options);
    assert_eq!(chosen(&ctx, "attention"), "merged by head, hadamard 8");
    let norms = after.funcs[0].ops.iter();
    let layer_norms = norms.filter(|o| matches!(o.kind, OpKind::LayerNorm { .. }));
    assert_eq!((layer_norms.count(), products(&after)), (0, 1));
    // Float activations need no rotation at run time.
    let weights = self::options("int8-weights");
    let (_, after, _) = rotated(&llama(), &weights);
    assert_eq!(products(&after), 0);
}

/// A gain of 80, and weights that make it good.
fn outlier() -> String {
    let entry = |i: usize| {
        let by = if i % 8 == 2 { 80.0 } else { 1.0 };
        (((i * 7 + i / 8) % 5) as f64 - 2.2) / by
    };
    let up: Vec<String> = (0..48).map(|i| format!("{:?}", entry(i))).collect();
    format!(
        r#"dim s = 1..9
        weight @embed: f32[9, 8] = normal(1, 1.0)
        weight @g: f32[8] = [1.0, 1.0, 80.0, 1.0, 1.0, 1.0, 1.0, 1.0]
        weight @up: f32[6, 8] = [{}]
        weight @down: f32[8, 6] = normal(2, 0.3)
        weight @head: f32[9, 8] = normal(3, 0.3)
        func @main(%ids: i64[s]) -> (logits: f32[s, 9]) {{
          %embed: f32[9, 8] = const @embed
          %x: f32[s, 8] = gather %embed, %ids {{axis = 0}}
          %g: f32[8] = const @g
          %n: f32[s, 8] = rms_norm %x, %g {{eps = 0.00001}} @"norm"
          %up: f32[6, 8] = const @up
          %u: f32[s, 6] = linear %n, %up @"up"
          %a: f32[s, 6] = silu %u
          %down: f32[8, 6] = const @down
          %d: f32[s, 8] = linear %a, %down @"down"
          %y: f32[s, 8] = add %x, %d
          %head: f32[9, 8] = const @head
          %logits: f32[s, 9] = linear %y, %head @"head"
          return %logits
        }}"#,
        up.join(", ")
    )
}

#[test]
fn activations_of_a_rotated_model_have_no_outliers() {
    let error = |passes: &str| {
        let options = Options {
            rotate: passes.starts_with("rotate"),
            ..options("int8")
        };
        let m = module(&outlier());
        let out = run_with(passes, m.clone(), &mut PassContext::new(&options)).unwrap();
        difference(&m, &out)
    };
    let (plain, rotated) = (error("quantize"), error("rotate,quantize"));
    assert!(rotated * 2.0 < plain, "{rotated} against {plain}");
}

#[test]
fn streams_that_are_more_than_sums_are_left_alone() {
    let options = options("int8-weights");
    let read = GPT.replace(
        "%l: f32[b, s, 24] = layer_norm %z, %g",
        "%z1: f32[b, s, 24] = exp %z @\"exp\"\n%l: f32[b, s, 24] = layer_norm %z1, %g",
    );
    let (before, after, ctx) = rotated(&read, &options);
    assert_eq!(refused(&ctx, "ln_1"), "exp reads the stream");
    assert!(difference(&before, &after) < 1e-5);
    let shown = GPT
        .replace(
            "(logits: f32[b, s, 9])",
            "(logits: f32[b, s, 9], l: f32[b, s, 24])",
        )
        .replace("return %logits", "return %logits, %l");
    let (_, _, ctx) = rotated(&shown, &options);
    assert_eq!(refused(&ctx, "ln_1"), "%l is a result of the model");
    let mixed = GPT.replace(
        "%m: f32[b, s, 24] = layer_norm %y, %g, %c",
        "%m: f32[b, s, 24] = rms_norm %y, %g",
    );
    let (_, _, ctx) = rotated(&mixed, &options);
    assert_eq!(refused(&ctx, "ln_1"), "norms of two kinds read the stream");
    let direct = GPT.replace(
        "%u: f32[b, s, 48] = linear %m, %up",
        "%u: f32[b, s, 48] = linear %y, %up",
    );
    let (_, _, ctx) = rotated(&direct, &options);
    assert_eq!(
        refused(&ctx, "ln_1"),
        "c_fc needs the mean that layer norms take out"
    );
}

#[test]
fn without_a_scheme_it_is_idle() {
    let options = options("float");
    let (before, after, ctx) = rotated(GPT, &options);
    assert_eq!(before.to_string(), after.to_string());
    assert_eq!(ctx.warnings[0].code(), "Q0048");
}
