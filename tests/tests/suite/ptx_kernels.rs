//! Every kernel of the GPU target assembles for sm_80 and sm_90 with zero spills and zero stack.

use qcc_codegen::lower::emit_section;
use qcc_codegen::target::Target;
use qcc_ir::graph::{Module, parse, verify};
use qcc_tests::ptxas;

fn module(text: &str) -> Module {
    let m = parse(text).unwrap_or_else(|e| panic!("{e:?}\n{text}"));
    assert!(verify(&m).is_empty(), "{:?}", verify(&m));
    m
}

/// Assembles each kernel of the module's sections; a section's kernels go through one assembler
/// run per text, all for the architecture of the section.
fn assembles(test: &str, text: &str) {
    let m = module(text);
    for (name, arch) in [("sm_80", "sm_80"), ("sm_90", "sm_90")] {
        let Some(target) = Target::find(name) else {
            panic!("no target {name}");
        };
        let (section, texts) = emit_section(&m, "main", target).expect("a complete section");
        assert!(!section.kernels.is_empty());
        for k in &section.kernels {
            // A text for one architecture only assembles for no other.
            let claimed = match k.arch.ends_with('a') {
                true => k.arch.as_str(),
                false => arch,
            };
            ptxas::assert_assembles(test, &texts[&k.entry], &[claimed]);
        }
    }
}

#[test]
fn layouts_reductions_and_windows() {
    assembles(
        "layouts",
        "qir 1
dim b = 1..8
dim s = 1..512
weight @t: f16[300, 40] = normal(1, 1)
weight @g: f32[40] = normal(2, 1)
weight @sc: i32[24, 3] = splat(7)
weight @sv: f16[24, 3] = normal(4, 1)
weight @cw: f32[8, 4, 3, 3] = normal(3, 1)
weight @qw: i8[8, 4, 3, 3] = normal(3, 40)
weight @qs: f32[8, 1, 1, 1] = splat(0.01)
weight @xs: f32[] = splat(0.05)
func @main(%ids: i64[b, s], %img: f32[b, 8, 16, 16], %mask: bool[b, 1, s, s]) -> (a: f16[b, 4, s, 5], i: i64[b], c: f32[b, 8, 4, 4], d: f32[b, 8, 4, 4], e: bool[b, 1, s, s], f: f16[s, b, 40], g: f32[b, s, 40], h: f32[b, s], sp: f16[b, s, 24]) {
  %t: f16[300, 40] = const @t
  %g: f32[40] = const @g
  %x: f16[b, s, 40] = gather %t, %ids { axis = 0 }
  %p: f16[b, s, 20] = slice %x { starts = [0, 0, 20], ends = [b, s, 40] }
  %q: f16[b, s, 20] = slice %x { starts = [0, 0, 0], ends = [b, s, 20] }
  %r: f16[b, s, 40] = concat %p, %q { axis = 2 }
  %n: f16[b, s, 40] = layer_norm %r, %g, %g { eps = 1e-5 }
  %m: f16[b, s, 40] = rms_norm %n, %g { eps = 1e-6 }
  %v: f16[b, s, 4, 10] = reshape %m
  %w: f16[b, 4, s, 10] = transpose %v { perm = [0, 2, 1, 3] }
  %a: f16[b, 4, s, 5] = slice %w { starts = [0, 0, 0, 0], ends = [b, 4, s, 10], steps = [1, 1, 1, 2] }
  %sc: i32[24, 3] = const @sc
  %sv: f16[24, 3] = const @sv
  %sp: f16[b, s, 24] = sparse_linear %m, %sc, %sv
  %i: i64[b] = reduce %ids { f = max, axes = [1] }
  %cw: f32[8, 4, 3, 3] = const @cw
  %c0: f32[b, 8, 8, 8] = conv %img, %cw { kernel = [3, 3], strides = [2, 2], pad_lo = [1, 1], pad_hi = [1, 1], groups = 2 }
  %c: f32[b, 8, 4, 4] = pool %c0 { f = mean, kernel = [2, 2], strides = [2, 2] }
  %xs: f32[] = const @xs
  %iq: q<i8, [*, *, *, *], scale=f32>[b, 8, 16, 16] = quantize %img, %xs
  %qw: q<i8, [1, *, *, *], scale=f32>[8, 4, 3, 3] = const @qw, @qs
  %d0: f32[b, 8, 8, 8] = conv %iq, %qw { kernel = [3, 3], strides = [2, 2], pad_lo = [1, 1], pad_hi = [1, 1], groups = 2, expr = { t0 = acc0; t1 = gelu t0; store t1 } }
  %d: f32[b, 8, 4, 4] = pool %d0 { f = max, kernel = [2, 2], strides = [2, 2] }
  %e: bool[b, 1, s, s] = not %mask
  %f: f16[s, b, 40] = transpose %m { perm = [1, 0, 2] }
  %x32: f32[b, s, 40] = cast %m
  %y: f32[b, s, 40] = softmax %x32 { axis = 1 }
  %z: f32[b, s, 40] = cumsum %y { axis = 1 }
  %o: f32[b, s, 40] = softmax %z { axis = 2 }
  %k: f32[b, s, 42] = pad %o { lo = [0, 0, 1], hi = [0, 0, 1], value = 1 }
  %k1: f32[b, s, 40] = slice %k { starts = [0, 0, 1], ends = [b, s, 41] }
  %k2: f32[b, s, 40] = sin %k1
  %k3: f32[b, s, 40] = log %k2
  %k4: f32[b, s, 40] = tanh %k3
  %h: f32[b, s] = reduce %k4 { f = mean, axes = [2] }
  return %a, %i, %c, %d, %e, %f, %k4, %h, %sp
}
",
    );
}

/// A linear layer over activations and weights of these types.
fn linear(x: &str, k: u64, weights: &str, w: &str, tail: &str) -> String {
    format!(
        "qir 1
dim m = 1..4096
{weights}weight @b: f32[200] = normal(9, 0.5)
weight @xs: f32[] = splat(0.02)
weight @xz: u8[] = splat(117)
func @main(%x: f16[m, {k}]) -> (y: f16[m, 200]) {{
  %xs: f32[] = const @xs
  %xz: u8[] = const @xz
  {x}
  {w}
  %b: f32[200] = const @b
  %y: f16[m, 200] = linear %xq, %w, %b{tail}
  return %y
}}
"
    )
}

#[test]
fn linear_layers_of_every_storage() {
    let w8 = "weight @w: i8[200, K] = normal(5, 30)\nweight @s: f32[200, 1] = normal(6, 0.01)\n";
    let f8 = "weight @w: e4m3[200, K] = normal(5, 4)\nweight @s: f32[200, 1] = normal(6, 0.01)\n";
    let h = "weight @w: f16[200, K] = normal(5, 4)\n";
    let w4 = "weight @w: u4[200, K] = normal(5, 4)\nweight @s: f16[200, G] = normal(6, 0.01)\nweight @z: u4[200, G] = normal(7, 6)\n";
    let cases = [
        ("%xq: f16[m, K] = neg %x", h, "%w: f16[200, K] = const @w"),
        (
            "%xq: q<i8, [1, *], scale=f32, dynamic, narrow>[m, K] = quantize %x",
            w8,
            "%w: q<i8, [1, *], scale=f32>[200, K] = const @w, @s",
        ),
        (
            "%xq: q<u8, [*, *], scale=f32, zero=u8>[m, K] = quantize %x, %xs, %xz",
            w8,
            "%w: q<i8, [1, *], scale=f32>[200, K] = const @w, @s",
        ),
        (
            "%xq: q<e4m3, [1, *], scale=f32, dynamic>[m, K] = quantize %x",
            f8,
            "%w: q<e4m3, [1, *], scale=f32>[200, K] = const @w, @s",
        ),
        (
            "%xq: f16[m, K] = neg %x",
            w4,
            "%w: q<u4, [1, 32], scale=f16, zero=u4>[200, K] = const @w, @s, @z",
        ),
    ];
    // Aligned rows, and rows that are not.
    for k in [256u64, 261] {
        let sized = |t: &str| {
            t.replace('K', &k.to_string())
                .replace('G', &k.div_ceil(32).to_string())
        };
        for (x, weights, w) in cases {
            for tail in [
                "",
                " { expr = { t0 = acc0; t1 = in2; t2 = add t0, t1; t3 = gelu t2; store t3 } }",
            ] {
                assembles(
                    "linear",
                    &linear(&sized(x), k, &sized(weights), &sized(w), tail),
                );
            }
        }
    }
}

#[test]
fn attention_and_products() {
    for (d, head) in [("f16", 64), ("f32", 32), ("bf16", 128), ("f16", 256)] {
        let (q, kv) = (8 * head, 2 * head);
        assembles(
            "attention",
            &format!(
                "qir 1
dim b = 1..8
dim s = 1..4096
dim t = 1..4096
func @main(%q: {d}[b, s, {q}], %k: {d}[b, t, {kv}], %v: {d}[b, t, {kv}], %m: bool[b, 1, s, t], %c: {d}[s, {half}]) -> (y: {d}[b, s, {q}], z: {d}[b, s, s]) {{
  %r: {d}[b, s, {q}], %t: {d}[b, s, {q}] = rotary %q, %c, %c, %q {{ heads = 8 }}
  %a: {d}[b, s, {q}] = attention %r, %k, %v, %m {{ heads = 8, kv_heads = 2, scale = 0.125, causal, mask }}
  %p: {d}[b, {q}, s] = transpose %a {{ perm = [0, 2, 1] }}
  %z: {d}[b, s, s] = matmul %a, %p
  return %a, %z
}}
",
                half = head / 2
            ),
        );
    }
}

/// The texts of a module's kernels for a target, by step.
fn texts(text: &str, target: &str) -> String {
    let target = Target::find(target).expect("a target");
    let (section, texts) = emit_section(&module(text), "main", target).expect("a section");
    let parts = section.kernels.iter().map(|k| texts[&k.entry].as_str());
    parts.collect::<Vec<_>>().join("\n")
}

#[test]
fn representative_texts() {
    let map = "qir 1
dim n = 1..64
func @main(%x: f16[n, 512], %b: f16[512]) -> (y: f16[n, 512]) {
  %y: f16[n, 512] = map %x, %b { expr = { t0 = in0; t1 = in1; t2 = add t0, t1; t3 = relu t2; store t3 } }
  return %y
}
";
    insta::assert_snapshot!("map_sm_80", texts(map, "sm_80"));
    let norm = "qir 1
dim n = 1..64
weight @g: f32[512] = normal(3, 1)
func @main(%x: f16[n, 512]) -> (y: f16[n, 512]) {
  %g: f32[512] = const @g
  %q: q<e4m3, [1, *], scale=f32, dynamic>[n, 512] = rms_norm %x, %g { eps = 1e-5, expr = { t0 = acc0; t1 = in1; t2 = mul t0, t1; store t2 } }
  %y: f16[n, 512] = dequantize %q
  return %y
}
";
    insta::assert_snapshot!("norm_quantize_sm_90", texts(norm, "sm_90"));
    let linear = "qir 1
weight @w: i8[64, 256] = normal(3, 40)
weight @s: f32[64, 1] = splat(0.01)
weight @xs: f32[] = splat(0.02)
func @main(%x: f16[8, 256]) -> (y: f16[8, 64]) {
  %xs: f32[] = const @xs
  %q: q<i8, [*, *], scale=f32>[8, 256] = quantize %x, %xs
  %w: q<i8, [1, *], scale=f32>[64, 256] = const @w, @s
  %y: f16[8, 64] = linear %q, %w
  return %y
}
";
    insta::assert_snapshot!("linear_i8_sm_80", texts(linear, "sm_80"));
}
