//! Matmul, linear, convolution, pooling, attention, norms and rotary against the oracle.

use crate::common::{Close, F32, check};

fn text(body: &str) -> String {
    format!("qir 1\ndim n = 0..4096\ndim m = 0..4096\n{body}")
}

#[test]
fn matmul_broadcasts_batches() {
    for d in ["f32", "f16"] {
        let t = text(&format!(
            "func @main(%a: {d}[2, n, m], %b: {d}[m, 9], %c: {d}[3, 1, m, 9], %e: {d}[1, m]) -> (x: {d}[2, n, 9], y: {d}[3, 2, n, 9], z: {d}[1, 9]) {{
              %x: {d}[2, n, 9] = matmul %a, %b
              %y: {d}[3, 2, n, 9] = matmul %a, %c
              %z: {d}[1, 9] = matmul %e, %b
              return %x, %y, %z
            }}"
        ));
        let close = if d == "f32" {
            F32
        } else {
            Close::Rel(1e-3, 1e-4)
        };
        for (n, m) in [(1, 1), (5, 3), (0, 2), (2, 0), (130, 65)] {
            check(&t, &[("n", n), ("m", m)], (0, 2), close);
        }
    }
}

/// A linear of `[n, k]` by `[out, k]` with operand types and a body for its result.
fn linear(x: &str, w: &str, weights: &str, quant: &str, k: u64, out: u64, rest: &str) -> String {
    text(&format!(
        "{weights}
        func @main(%x0: f32[n, {k}]) -> (y: f32[n, {out}]) {{
          {quant}
          %w: {w}[{out}, {k}] = const @w{}
          {rest}
          return %y
        }}",
        if weights.contains("@w.z") {
            ", @w.s, @w.z"
        } else if weights.contains("@w.s") {
            ", @w.s"
        } else {
            ""
        },
    ))
    .replace("$x", x)
}

const ROWS: [i64; 5] = [1, 0, 3, 129, 300];

#[test]
fn plain_linear_in_every_float() {
    for d in ["f32", "f16", "bf16", "e4m3"] {
        for (k, out) in [(1, 1), (5, 3), (64, 513)] {
            let t = linear(
                "f32",
                d,
                &format!(
                    "weight @w: {d}[{out}, {k}] = normal(3, 0.5)\nweight @b: f32[{out}] = normal(4, 1)"
                ),
                "%b: f32[OUT] = const @b"
                    .replace("OUT", &out.to_string())
                    .as_str(),
                k,
                out,
                &format!("%y: f32[n, {out}] = linear %x0, %w, %b"),
            );
            for n in ROWS {
                check(&t, &[("n", n)], (0, 2), F32);
            }
        }
    }
}

/// Types and constants of a quantized weight.
fn weight(
    storage: &str,
    block: &str,
    scale_dims: &str,
    zero: bool,
    out: u64,
    k: u64,
) -> (String, String) {
    let ty = format!(
        "q<{storage}, {block}, scale=f32{}>",
        if zero {
            format!(", zero={storage}")
        } else {
            String::new()
        }
    );
    let std = match storage {
        "i8" | "u8" => 50.0,
        "i4" | "u4" => 3.0,
        _ => 1.0,
    };
    let mut w = format!(
        "weight @w: {storage}[{out}, {k}] = normal(5, {std})\nweight @w.s: f32{scale_dims} = normal(6, 0.01)"
    );
    if zero {
        w.push_str(&format!(
            "\nweight @w.z: {storage}{scale_dims} = normal(8, 2)"
        ));
    }
    (ty, w)
}

#[test]
fn integer_linear_is_bit_exact() {
    for storage in ["i8", "u8", "i4", "u4"] {
        for act in ["i8", "u8"] {
            for zero in [false, true] {
                for (k, out, per_channel) in [(7, 3, true), (64, 33, false), (2500, 9, true)] {
                    let (block, dims) = if per_channel {
                        ("[1, *]", format!("[{out}, 1]"))
                    } else {
                        ("[*, *]", "[]".to_string())
                    };
                    let (ty, weights) = weight(storage, block, &dims, zero, out, k);
                    let z = if zero {
                        format!(", zero={act}")
                    } else {
                        String::new()
                    };
                    let t = linear(
                        "",
                        &ty,
                        &weights,
                        &format!(
                            "%x: q<{act}, [1, *], scale=f32{z}, dynamic>[n, {k}] = quantize %x0"
                        ),
                        k,
                        out,
                        &format!("%y: f32[n, {out}] = linear %x, %w"),
                    );
                    for n in [1, 0, 5, 131] {
                        check(&t, &[("n", n)], (0, 2), Close::Exact);
                    }
                }
            }
        }
    }
}

#[test]
fn float8_linear_keeps_scales_outside() {
    for storage in ["e4m3", "e5m2"] {
        for act in ["[1, *]", "[*, *]"] {
            let (ty, weights) = weight(storage, "[1, *]", "[65, 1]", false, 65, 200);
            let t = linear(
                "",
                &ty,
                &weights,
                &format!("%x: q<e4m3, {act}, scale=f32, dynamic>[n, 200] = quantize %x0"),
                200,
                65,
                "%y: f32[n, 65] = linear %x, %w",
            );
            for n in [1, 5, 131] {
                check(&t, &[("n", n)], (0, 2), F32);
            }
        }
    }
}

#[test]
fn weight_only_schemes_with_groups_and_blocks() {
    for storage in ["i8", "i4", "u4", "e4m3"] {
        for zero in [false, true] {
            if zero && storage == "e4m3" {
                continue;
            }
            for (block, dims) in [
                ("[1, 32]", "[35, 3]"),
                ("[16, 16]", "[3, 5]"),
                ("[1, *]", "[35, 1]"),
                ("[*, 1]", "[1, 75]"),
            ] {
                let (ty, weights) = weight(storage, block, dims, zero, 35, 75);
                let t = linear(
                    "f32",
                    &ty,
                    &weights,
                    "",
                    75,
                    35,
                    "%y: f32[n, 35] = linear %x0, %w",
                );
                for n in [1, 3, 200] {
                    check(&t, &[("n", n)], (0, 2), F32);
                }
            }
        }
    }
}

#[test]
fn linear_with_epilogues() {
    let t = text(
        "weight @w: f32[26, 16] = normal(1, 0.3)
        weight @b: f32[26] = normal(2, 1)
        weight @s: f32[] = [0.02]
        func @main(%x: f32[2, n, 16], %r: f32[2, n, 13]) -> (y: f32[2, n, 13], u: f16[2, n, 13], v: f32[2, n, 13], d: f32[2, n, 13], p: f32[2, n, 10], q: f32[2, n, 12], o: f32[2, n, 4], g: f32[2, n, 26]) {
          %w: f32[26, 16] = const @w
          %b: f32[26] = const @b
          %s: f32[] = const @s
          %y: f32[2, n, 13], %u: f16[2, n, 13], %q0: q<i8, [1, 1, *], scale=f32, dynamic, narrow>[2, n, 13], %q1: q<e4m3, [*, *, *], scale=f32>[2, n, 13] =
            linear %x, %w, %r, %s { accs = 2, expr = { t0 = acc0; t1 = acc1; t2 = silu t0; t3 = mul t2, t1; t4 = in2; t5 = add t3, t4;
              store t5; store t3; store t5; store t5 scale in3 } }
          %v: f32[2, n, 13] = dequantize %q0
          %d: f32[2, n, 13] = dequantize %q1
          %p: f32[2, n, 10], %q: f32[2, n, 12], %o: f32[2, n, 4] = linear %x, %w, %b { segments = [10, 12, 4] }
          %g: f32[2, n, 26] = linear %x, %w, %b { expr = { t0 = acc0; t1 = in2; t2 = add t0, t1; t3 = gelu t2; store t3 } }
          return %y, %u, %v, %d, %p, %q, %o, %g
        }",
    );
    for n in [1, 7, 200] {
        // A code next to a tie may fall on either side.
        check(&t, &[("n", n)], (0, 2), Close::Rel(0.13, 0.02));
    }
}

#[test]
fn norms() {
    let t = text(
        "weight @g: f32[75] = normal(1, 1)
        weight @b: f16[75] = normal(2, 1)
        func @main(%x: f32[2, n, 75], %h: f16[n, 75]) -> (a: f32[2, n, 75], b: f16[2, n, 75], c: f32[2, n, 75], d: f16[n, 75], e: f32[n, 75]) {
          %g: f32[75] = const @g
          %b0: f16[75] = const @b
          %a: f32[2, n, 75] = layer_norm %x, %g, %b0 { eps = 1e-5 }
          %b: f16[2, n, 75] = layer_norm %x, %g { eps = 1e-5 }
          %c: f32[2, n, 75] = rms_norm %x, %g { eps = 1e-6 }
          %d: f16[n, 75], %e: f32[n, 75] = rms_norm %h, %g, %h { eps = 1e-6, expr = { t0 = acc0; t1 = in1; t2 = mul t0, t1; t3 = in2; t4 = add t2, t3; store t4; store t2 } }
          return %a, %b, %c, %d, %e
        }",
    );
    for n in [0, 1, 3, 400] {
        check(&t, &[("n", n)], (0, 2), Close::Rel(1e-3, 1e-6));
    }
    let t = text(
        "weight @g: f32[1] = [2]
        func @main(%x: f32[n, 1]) -> (a: f32[n, 1], c: f32[n, 1]) {
          %g: f32[1] = const @g
          %a: f32[n, 1] = layer_norm %x, %g { eps = 1e-5 }
          %c: f32[n, 1] = rms_norm %x, %g { eps = 1e-5 }
          return %a, %c
        }",
    );
    check(&t, &[("n", 5)], (0, 2), F32);
}

#[test]
fn norm_then_quantize_gives_the_oracles_codes() {
    let t = text(
        "weight @g: f32[64] = normal(1, 1)
        weight @s: f32[] = [0.03]
        func @main(%x: f32[n, 64]) -> (a: i8[n, 64], b: i8[n, 64]) {
          %g: f32[64] = const @g
          %s: f32[] = const @s
          %q0: q<i8, [1, *], scale=f32, dynamic, narrow>[n, 64], %q1: q<i8, [*, *], scale=f32>[n, 64] = rms_norm %x, %g, %s { eps = 1e-5, expr = { t0 = acc0; t1 = in1; t2 = mul t0, t1; store t2; store t2 scale in2 } }
          %f: f32[n, 64] = dequantize %q0
          %h: f32[n, 64] = dequantize %q1
          %c: f32[] = splat { value = 0.03 }
          %f2: f32[n, 64] = div %f, %c
          %h2: f32[n, 64] = div %h, %c
          %f3: f32[n, 64] = round %f2
          %h3: f32[n, 64] = round %h2
          %a: i8[n, 64] = cast %f3
          %b: i8[n, 64] = cast %h3
          return %a, %b
        }",
    );
    for n in [1, 3, 300] {
        check(&t, &[("n", n)], (0, 2), Close::Codes(0.001));
    }
}

#[test]
fn attention_with_groups_masks_and_causality() {
    for (causal, mask) in [
        ("", ""),
        (", causal", ""),
        ("", "bool"),
        (", causal", "f32"),
        (", causal", "bool"),
    ] {
        for shape in ["[b, 1, 1, t]", "[1, 1, n, t]", "[b, 4, n, t]", "[t]"] {
            if mask.is_empty() && shape != "[t]" {
                continue;
            }
            let (param, use_, flag) = match mask {
                "" => (String::new(), "", ""),
                m => (format!(", %k0: {m}{shape}"), ", %k0", ", mask"),
            };
            let t = text(&format!(
                "dim t = 0..4096\ndim b = 0..16
                func @main(%q: f32[b, n, 32], %k: f32[b, t, 16], %v: f32[b, t, 10]{param}) -> (y: f32[b, n, 20], z: f16[b, n, 20]) {{
                  %y: f32[b, n, 20] = attention %q, %k, %v{use_} {{ heads = 4, kv_heads = 2, scale = 0.35355338{causal}{flag} }}
                  %z: f16[b, n, 20] = attention %q, %k, %v{use_} {{ heads = 4, kv_heads = 2, scale = 0.35355338{flag}{causal}, expr = {{ t0 = acc0; t1 = relu t0; store t1 }} }}
                  return %y, %z
                }}"
            ));
            for (b, n, k) in [
                (1, 1, 1),
                (2, 5, 5),
                (1, 3, 9),
                (1, 9, 3),
                (1, 1, 70),
                (2, 130, 130),
                (1, 4, 0),
                (0, 2, 2),
            ] {
                check(
                    &t,
                    &[("b", b), ("n", n), ("t", k)],
                    (0, 2),
                    Close::Rel(1e-3, 2e-5),
                );
            }
        }
    }
}

#[test]
fn rotary_in_both_layouts() {
    for flag in ["", ", interleaved"] {
        for table in ["[n, 4]", "[1, n, 4]", "[2, n, 4]", "[2, 1, 4]"] {
            let t = text(&format!(
                "func @main(%x: f32[2, n, 24], %h: f16[2, n, 24], %c: f32{table}, %s: f32{table}) -> (y: f32[2, n, 24], z: f16[2, n, 24]) {{
                  %y: f32[2, n, 24] = rotary %x, %c, %s {{ heads = 3{flag} }}
                  %z: f16[2, n, 24] = rotary %h, %c, %s {{ heads = 3{flag} }}
                  return %y, %z
                }}"
            ));
            for n in [0, 1, 5, 1000] {
                check(&t, &[("n", n)], (0, 2), Close::Rel(1e-3, 1e-6));
            }
        }
    }
}

#[test]
fn convolutions() {
    let cases = [
        // kernel, channels, groups, out, attributes
        (
            "3, 3",
            4,
            1,
            6,
            "kernel = [3, 3], pad_lo = [1, 1], pad_hi = [1, 1]",
        ),
        (
            "3, 3",
            6,
            6,
            6,
            "kernel = [3, 3], strides = [2, 2], pad_lo = [1, 1], pad_hi = [0, 1]",
        ),
        ("1, 1", 4, 2, 6, "kernel = [1, 1]"),
        (
            "3, 2",
            4,
            2,
            8,
            "kernel = [3, 2], strides = [1, 2], dilations = [2, 1], pad_lo = [2, 0], pad_hi = [1, 1]",
        ),
    ];
    for (kernel, c, groups, out, attrs) in cases {
        let t = format!(
            "qir 1\ndim n = 1..64\ndim m = 1..64\ndim b = 0..9
            weight @w: f32[{out}, {}, {kernel}] = normal(1, 0.4)
            weight @b: f32[{out}] = normal(2, 1)
            func @main(%x: f32[b, {c}, n, m]) -> (y: f32[b, {out}, H, W], z: f16[b, {out}, H, W]) {{
              %w: f32[{out}, {}, {kernel}] = const @w
              %b: f32[{out}] = const @b
              %y: f32[b, {out}, H, W] = conv %x, %w, %b {{ {attrs}, groups = {groups} }}
              %r: f32[{out}, 1, 1] = reshape %b
              %z: f16[b, {out}, H, W] = conv %x, %w, %r, %y {{ {attrs}, groups = {groups}, expr = {{ t0 = acc0; t1 = in2; t2 = add t0, t1; t3 = hard_swish t2; t4 = in3; t5 = add t3, t4; store t5 }} }}
              return %y, %z
            }}",
            c / groups,
            c / groups
        );
        for (b, n, m) in [(1, 5, 6), (2, 9, 7), (1, 30, 40), (0, 5, 5)] {
            // Output extents as numbers: the shape rule's own spelling is not the subject here.
            let (h, w) = output(attrs, n, m);
            let t = t
                .replace("dim n = 1..64\ndim m = 1..64\n", "")
                .replace('H', &h.to_string())
                .replace('W', &w.to_string())
                .replace("[b, {c}", "[b, c")
                .replace(", n, m]", &format!(", {n}, {m}]"));
            check(&t, &[("b", b)], (0, 2), Close::Rel(1e-3, 1e-5));
        }
    }
}

fn numbers(attrs: &str, key: &str, default: i64) -> Vec<i64> {
    match attrs.split_once(&format!("{key} = [")) {
        Some((_, rest)) => {
            let list = rest.split(']').next().unwrap();
            list.split(',').map(|v| v.trim().parse().unwrap()).collect()
        }
        None => vec![default; 2],
    }
}

fn output(attrs: &str, n: i64, m: i64) -> (i64, i64) {
    let get = |k, d| numbers(attrs, k, d);
    let (k, s, d) = (get("kernel", 1), get("strides", 1), get("dilations", 1));
    let (lo, hi) = (get("pad_lo", 0), get("pad_hi", 0));
    let out = |i: usize, x: i64| (x + lo[i] + hi[i] - d[i] * (k[i] - 1) - 1) / s[i] + 1;
    (out(0, n), out(1, m))
}

#[test]
fn one_dimensional_and_quantized_convolutions() {
    let t = "qir 1
        dim b = 0..9
        weight @w: i8[8, 4, 3] = normal(1, 40)
        weight @w.s: f32[8, 1, 1] = normal(2, 0.1)
        weight @v: f16[8, 4, 3] = normal(3, 0.4)
        weight @s: f32[] = [0.02]
        func @main(%x: f32[b, 8, 100]) -> (y: f32[b, 8, 50], z: f32[b, 8, 50]) {
          %w: q<i8, [1, *, *], scale=f32>[8, 4, 3] = const @w, @w.s
          %v: f16[8, 4, 3] = const @v
          %s: f32[] = const @s
          %xq: q<u8, [*, *, *], scale=f32>[b, 8, 100] = quantize %x, %s
          %y: f32[b, 8, 50] = conv %xq, %w { kernel = [3], strides = [2], pad_lo = [1], pad_hi = [1], groups = 2 }
          %z: f32[b, 8, 50] = conv %x, %v { kernel = [3], strides = [2], pad_lo = [1], pad_hi = [1], groups = 2 }
          return %y, %z
        }";
    for b in [1, 3] {
        check(t, &[("b", b)], (0, 2), F32);
    }
}

#[test]
fn poolings() {
    for f in ["max", "mean", "mean_padded"] {
        for d in ["f32", "f16"] {
            let t = format!(
                "qir 1\ndim b = 0..9
                func @main(%x: {d}[b, 3, 9, 8], %u: {d}[b, 3, 9]) -> (y: {d}[b, 3, 5, 4], z: {d}[b, 3, 5]) {{
                  %y: {d}[b, 3, 5, 4] = pool %x {{ f = {f}, kernel = [3, 2], strides = [2, 2], pad_lo = [1, 0], pad_hi = [1, 0] }}
                  %z: {d}[b, 3, 5] = pool %u {{ f = {f}, kernel = [3], dilations = [2] }}
                  return %y, %z
                }}"
            );
            let close = if d == "f32" {
                F32
            } else {
                Close::Rel(1e-3, 1e-6)
            };
            for b in [0, 1, 4] {
                check(&t, &[("b", b)], (0, 2), close);
            }
        }
    }
}
