//! Blocks of real models: what becomes one kernel, and why the rest does not.

use super::fused;
use crate::testing::difference;
use qcc_ir::graph::Module;

/// The fused functions and the decisions, after checking that both sides compute the same.
fn show(text: &str, tolerance: f64) -> String {
    let (before, out) = fused(text);
    let d = difference(&before, &out.module);
    assert!(d <= tolerance, "results differ by {d}");
    assert_eq!(out.stats.cut, 0);
    let mut s = functions(&out.module);
    for d in out.ledger.decisions() {
        s.push_str(&format!("{}: {}\n", d.site, d.chosen));
        if !d.rules.is_empty() {
            s.push_str(&format!("  by {}\n", d.rules.join(", ")));
        }
        for c in d.considered.iter().skip(1) {
            let why = c.refused_by.as_deref().unwrap_or("costs more");
            s.push_str(&format!("  not {}: {why}\n", c.candidate));
        }
    }
    s
}

fn functions(m: &Module) -> String {
    let text = m.to_string();
    text.split_once("func")
        .map_or(text.clone(), |(_, f)| format!("func{f}\n"))
}

#[test]
fn llama_mlp_static_fp8() {
    insta::assert_snapshot!(show(
        r#"
        dim n = 1..64 @ 1, 16
        weight @norm.g: f32[8] = normal(1, 1.0)
        weight @gate.w: e4m3[12, 8] = normal(2, 20.0)
        weight @gate.s: f32[12, 1] = splat(0.01)
        weight @up.w: e4m3[12, 8] = normal(3, 20.0)
        weight @up.s: f32[12, 1] = splat(0.02)
        weight @down.w: e4m3[8, 12] = normal(4, 20.0)
        weight @down.s: f32[8, 1] = splat(0.03)
        weight @x.scale: f32[] = splat(0.01)
        weight @h.scale: f32[] = splat(0.02)
        func @main(%x: f32[n, 8]) -> (y: f32[n, 8]) {
          %g: f32[8] = const @norm.g
          %xn: f32[n, 8] = rms_norm %x, %g { eps = 1e-5 } @"norm"
          %xs: f32[] = const @x.scale
          %xq: q<e4m3, [*, *], scale=f32>[n, 8] = quantize %xn, %xs @"gate"
          %gw: q<e4m3, [1, *], scale=f32>[12, 8] = const @gate.w, @gate.s
          %gate: f32[n, 12] = linear %xq, %gw @"gate"
          %uw: q<e4m3, [1, *], scale=f32>[12, 8] = const @up.w, @up.s
          %up: f32[n, 12] = linear %xq, %uw @"up"
          %a: f32[n, 12] = silu %gate @"act"
          %h: f32[n, 12] = mul %a, %up @"mul"
          %hs: f32[] = const @h.scale
          %hq: q<e4m3, [*, *], scale=f32>[n, 12] = quantize %h, %hs @"down"
          %dw: q<e4m3, [1, *], scale=f32>[8, 12] = const @down.w, @down.s
          %d: f32[n, 8] = linear %hq, %dw @"down"
          %y: f32[n, 8] = add %x, %d @"residual"
          return %y
        }
        "#,
        1e-5
    ));
}

#[test]
fn llama_attention_static_fp8() {
    insta::assert_snapshot!(show(
        r#"
        dim b = 1..4 @ 1
        dim s = 1..64 @ 1, 16
        weight @norm.g: f32[8] = normal(1, 1.0)
        weight @q.w: e4m3[8, 8] = normal(2, 20.0)
        weight @q.s: f32[8, 1] = splat(0.01)
        weight @k.w: e4m3[4, 8] = normal(3, 20.0)
        weight @k.s: f32[4, 1] = splat(0.02)
        weight @v.w: e4m3[4, 8] = normal(4, 20.0)
        weight @v.s: f32[4, 1] = splat(0.02)
        weight @o.w: e4m3[8, 8] = normal(5, 20.0)
        weight @o.s: f32[8, 1] = splat(0.03)
        weight @norm2.g: f32[8] = normal(6, 1.0)
        func @main(%x: f32[b, s, 8], %cos: f32[s, 2], %sin: f32[s, 2]) -> (h: f32[b, s, 8], n: f32[b, s, 8]) {
          %g: f32[8] = const @norm.g
          %xn: f32[b, s, 8] = rms_norm %x, %g { eps = 1e-5 } @"norm"
          %xs: f32[] = splat { value = 0.01 }
          %xq: q<e4m3, [*, *, *], scale=f32>[b, s, 8] = quantize %xn, %xs @"q"
          %qw: q<e4m3, [1, *], scale=f32>[8, 8] = const @q.w, @q.s
          %q: f32[b, s, 8] = linear %xq, %qw @"q"
          %xs2: f32[] = splat { value = 0.01 }
          %xq2: q<e4m3, [*, *, *], scale=f32>[b, s, 8] = quantize %xn, %xs2 @"k"
          %kw: q<e4m3, [1, *], scale=f32>[4, 8] = const @k.w, @k.s
          %k: f32[b, s, 4] = linear %xq2, %kw @"k"
          %vw: q<e4m3, [1, *], scale=f32>[4, 8] = const @v.w, @v.s
          %v: f32[b, s, 4] = linear %xq2, %vw @"v"
          %qr: f32[b, s, 8] = rotary %q, %cos, %sin { heads = 2 } @"rotary_q"
          %kr: f32[b, s, 4] = rotary %k, %cos, %sin { heads = 1 } @"rotary_k"
          %a: f32[b, s, 8] = attention %qr, %kr, %v { heads = 2, kv_heads = 1, scale = 0.5, causal } @"attn"
          %as: f32[] = splat { value = 0.02 }
          %aq: q<e4m3, [*, *, *], scale=f32>[b, s, 8] = quantize %a, %as @"o"
          %ow: q<e4m3, [1, *], scale=f32>[8, 8] = const @o.w, @o.s
          %o: f32[b, s, 8] = linear %aq, %ow @"o"
          %h: f32[b, s, 8] = add %x, %o @"residual"
          %g2: f32[8] = const @norm2.g
          %n: f32[b, s, 8] = rms_norm %h, %g2 { eps = 1e-5 } @"norm2"
          return %h, %n
        }
        "#,
        1e-5
    ));
}

#[test]
fn gpt2_block_static_int8() {
    insta::assert_snapshot!(show(
        r#"
        dim s = 1..64 @ 1, 16
        weight @ln.g: f32[8] = normal(1, 1.0)
        weight @ln.b: f32[8] = normal(2, 1.0)
        weight @qkv.w: i8[24, 8] = normal(3, 40.0)
        weight @qkv.s: f32[24, 1] = splat(0.01)
        weight @qkv.b: f32[24] = normal(4, 1.0)
        weight @o.w: i8[8, 8] = normal(5, 40.0)
        weight @o.s: f32[8, 1] = splat(0.01)
        weight @o.b: f32[8] = normal(6, 1.0)
        weight @ln2.g: f32[8] = normal(7, 1.0)
        weight @ln2.b: f32[8] = normal(8, 1.0)
        weight @fc.w: i8[16, 8] = normal(9, 40.0)
        weight @fc.s: f32[16, 1] = splat(0.01)
        weight @fc.b: f32[16] = normal(10, 1.0)
        weight @proj.w: i8[8, 16] = normal(11, 40.0)
        weight @proj.s: f32[8, 1] = splat(0.01)
        weight @proj.b: f32[8] = normal(12, 1.0)
        func @main(%x: f32[1, s, 8]) -> (y: f32[1, s, 8]) {
          %g: f32[8] = const @ln.g
          %b: f32[8] = const @ln.b
          %n: f32[1, s, 8] = layer_norm %x, %g, %b { eps = 1e-5 } @"ln_1"
          %s0: f32[] = splat { value = 0.02 }
          %nq: q<i8, [*, *, *], scale=f32, narrow>[1, s, 8] = quantize %n, %s0 @"c_attn"
          %w0: q<i8, [1, *], scale=f32>[24, 8] = const @qkv.w, @qkv.s
          %b0: f32[24] = const @qkv.b
          %qkv: f32[1, s, 24] = linear %nq, %w0, %b0 @"c_attn"
          %q: f32[1, s, 8] = slice %qkv { starts = [0, 0, 0], ends = [1, s, 8] }
          %k: f32[1, s, 8] = slice %qkv { starts = [0, 0, 8], ends = [1, s, 16] }
          %v: f32[1, s, 8] = slice %qkv { starts = [0, 0, 16], ends = [1, s, 24] }
          %a: f32[1, s, 8] = attention %q, %k, %v { heads = 2, kv_heads = 2, scale = 0.5, causal } @"attn"
          %s1: f32[] = splat { value = 0.02 }
          %aq: q<i8, [*, *, *], scale=f32, narrow>[1, s, 8] = quantize %a, %s1 @"c_proj"
          %w1: q<i8, [1, *], scale=f32>[8, 8] = const @o.w, @o.s
          %b1: f32[8] = const @o.b
          %o: f32[1, s, 8] = linear %aq, %w1, %b1 @"c_proj"
          %h: f32[1, s, 8] = add %o, %x @"add_1"
          %g2: f32[8] = const @ln2.g
          %bb: f32[8] = const @ln2.b
          %n2: f32[1, s, 8] = layer_norm %h, %g2, %bb { eps = 1e-5 } @"ln_2"
          %s2: f32[] = splat { value = 0.02 }
          %n2q: q<i8, [*, *, *], scale=f32, narrow>[1, s, 8] = quantize %n2, %s2 @"c_fc"
          %w2: q<i8, [1, *], scale=f32>[16, 8] = const @fc.w, @fc.s
          %f0: f32[1, s, 16] = linear %n2q, %w2 @"c_fc"
          %b2: f32[16] = const @fc.b
          %f1: f32[1, s, 16] = add %f0, %b2 @"c_fc_bias"
          %f2: f32[1, s, 16] = gelu_tanh %f1 @"gelu"
          %s3: f32[] = splat { value = 0.02 }
          %fq: q<i8, [*, *, *], scale=f32, narrow>[1, s, 16] = quantize %f2, %s3 @"c_proj2"
          %w3: q<i8, [1, *], scale=f32>[8, 16] = const @proj.w, @proj.s
          %b3: f32[8] = const @proj.b
          %p: f32[1, s, 8] = linear %fq, %w3, %b3 @"c_proj2"
          %y: f32[1, s, 8] = add %p, %h @"add_2"
          return %y
        }
        "#,
        1e-5
    ));
}

#[test]
fn llama_block_dynamic_int8() {
    insta::assert_snapshot!(show(
        r#"
        dim n = 1..64 @ 1, 16
        weight @norm.g: f16[8] = normal(1, 1.0)
        weight @gate.w: i8[12, 8] = normal(2, 40.0)
        weight @gate.s: f32[12, 1] = splat(0.01)
        weight @up.w: i8[12, 8] = normal(3, 40.0)
        weight @up.s: f32[12, 1] = splat(0.02)
        weight @down.w: i8[8, 12] = normal(4, 40.0)
        weight @down.s: f32[8, 1] = splat(0.03)
        func @main(%x: f16[n, 8]) -> (y: f16[n, 8]) {
          %g: f16[8] = const @norm.g
          %xn: f16[n, 8] = rms_norm %x, %g { eps = 1e-5 } @"norm"
          %xq: q<i8, [1, *], scale=f32, dynamic, narrow>[n, 8] = quantize %xn @"gate"
          %gw: q<i8, [1, *], scale=f32>[12, 8] = const @gate.w, @gate.s
          %gate: f16[n, 12] = linear %xq, %gw @"gate"
          %uw: q<i8, [1, *], scale=f32>[12, 8] = const @up.w, @up.s
          %up: f16[n, 12] = linear %xq, %uw @"up"
          %a: f16[n, 12] = silu %gate @"act"
          %h: f16[n, 12] = mul %a, %up @"mul"
          %hq: q<i8, [1, *], scale=f32, dynamic, narrow>[n, 12] = quantize %h @"down"
          %dw: q<i8, [1, *], scale=f32>[8, 12] = const @down.w, @down.s
          %d: f16[n, 8] = linear %hq, %dw @"down"
          %y: f16[n, 8] = add %x, %d @"residual"
          return %y
        }
        "#,
        2e-2
    ));
}
