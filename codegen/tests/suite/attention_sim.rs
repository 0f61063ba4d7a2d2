//! Attention, norms and dynamic quantization on the simulator, against the oracle.

use crate::common::{check, random};
use qcc_ir::DType::{self, Bool, F16, F32};

struct Case {
    d: DType,
    heads: u64,
    kv: u64,
    head: u64,
    value: u64,
    s: u64,
    t: u64,
    attrs: &'static str,
    mask: Option<(DType, &'static str, &'static [u64])>,
}

impl Case {
    fn check(&self, tolerance: f64) {
        let Case {
            d,
            heads,
            kv,
            head,
            value,
            s,
            t,
            attrs,
            mask,
        } = self;
        let (hq, hk, hv, out) = (heads * head, kv * head, kv * value, heads * value);
        let (mask_param, mask_arg, flag) = match mask {
            Some((m, shape, _)) => (format!(", %m: {m}{shape}"), ", %m", ", mask"),
            None => (String::new(), "", ""),
        };
        let text = format!(
            "qir 1\ndim b = 1..4\ndim s = 1..128\ndim t = 1..128\nfunc @main(%q: {d}[b, s, {hq}], %k: {d}[b, t, {hk}], %v: {d}[b, t, {hv}]{mask_param}) -> (y: {d}[b, s, {out}]) {{\n  %y: {d}[b, s, {out}] = attention %q, %k, %v{mask_arg} {{ heads = {heads}, kv_heads = {kv}, scale = 0.25{attrs}{flag} }}\n  return %y\n}}\n"
        );
        let mut inputs = vec![
            random(1, *d, &[2, *s, hq], 1.0),
            random(2, *d, &[2, *t, hk], 1.0),
            random(3, *d, &[2, *t, hv], 1.0),
        ];
        if let Some((m, _, dims)) = mask {
            inputs.push(random(4, *m, dims, 1.0));
        }
        check(&text, &text, &inputs, tolerance);
    }
}

const PLAIN: Case = Case {
    d: F32,
    heads: 4,
    kv: 2,
    head: 8,
    value: 8,
    s: 5,
    t: 5,
    attrs: "",
    mask: None,
};

#[test]
fn attention_of_any_shape() {
    for (s, t) in [(1, 1), (1, 37), (33, 33), (40, 70)] {
        for attrs in ["", ", causal"] {
            Case {
                s,
                t,
                attrs,
                ..PLAIN
            }
            .check(1e-5);
            Case {
                d: F16,
                head: 5,
                value: 12,
                s,
                t,
                attrs,
                ..PLAIN
            }
            .check(1e-3);
        }
    }
    // Queries before the first key see nothing: zeros.
    Case {
        s: 9,
        t: 4,
        attrs: ", causal",
        ..PLAIN
    }
    .check(1e-5);
    // More value columns than one block takes.
    Case {
        heads: 1,
        kv: 1,
        head: 16,
        value: 300,
        s: 3,
        t: 9,
        ..PLAIN
    }
    .check(1e-5);
}

#[test]
fn masks() {
    for (m, shape, dims) in [
        (Bool, "[b, 1, s, t]", &[2u64, 1, 7, 9][..]),
        (Bool, "[b, 1, 1, t]", &[2, 1, 1, 9]),
        (F32, "[s, t]", &[7, 9]),
        (F16, "[1, 4, s, t]", &[1, 4, 7, 9]),
    ] {
        for attrs in ["", ", causal"] {
            Case {
                s: 7,
                t: 9,
                attrs,
                mask: Some((m, shape, dims)),
                ..PLAIN
            }
            .check(1e-5);
        }
    }
}

#[test]
fn attention_stores_quantized() {
    let text = "qir 1\ndim s = 1..64\nweight @s: f32[] = [0.03]\nfunc @main(%q: f16[1, s, 32], %k: f16[1, s, 16]) -> (y: f16[1, s, 32]) {\n  %sc: f32[] = const @s\n  %a: q<e4m3, [*, *, *], scale=f32>[1, s, 32] = attention %q, %k, %k, %sc { heads = 4, kv_heads = 2, scale = 0.3, causal, expr = { t0 = acc0; store t0 scale in3 } }\n  %y: f16[1, s, 32] = dequantize %a\n  return %y\n}\n";
    check(
        "quantized",
        text,
        &[
            random(1, F16, &[1, 20, 32], 1.0),
            random(2, F16, &[1, 20, 16], 1.0),
        ],
        2e-2,
    );
}

#[test]
fn norms_with_results_plain_and_quantized() {
    for n in [1, 7, 64, 300] {
        let x = random(n, F16, &[2, 3, n], 1.0);
        for (norm, bias) in [("rms_norm", ""), ("layer_norm", ", %b")] {
            let text = format!(
                "qir 1\ndim s = 1..64\nweight @g: f32[{n}] = normal(3, 1)\nfunc @main(%x: f16[2, s, {n}]) -> (y: f16[2, s, {n}]) {{\n  %g: f32[{n}] = const @g\n  %b: f32[{n}] = const @g\n  %y: f16[2, s, {n}] = {norm} %x, %g{bias} {{ eps = 1e-5 }}\n  return %y\n}}\n"
            );
            check(norm, &text, std::slice::from_ref(&x), 1e-3);
        }
        for q in [
            "q<i8, [1, 1, *], scale=f32, dynamic, narrow>",
            "q<e4m3, [1, 1, *], scale=f32, dynamic>",
        ] {
            let text = format!(
                "qir 1\ndim s = 1..64\nweight @g: f32[{n}] = normal(3, 1)\nfunc @main(%x: f16[2, s, {n}]) -> (y: f16[2, s, {n}], z: f16[2, s, {n}]) {{\n  %g: f32[{n}] = const @g\n  %q: {q}[2, s, {n}], %y: f16[2, s, {n}] = rms_norm %x, %g {{ eps = 1e-5, expr = {{ t0 = acc0; t1 = in1; t2 = mul t0, t1; store t2; store t2 }} }}\n  %z: f16[2, s, {n}] = dequantize %q\n  return %y, %z\n}}\n"
            );
            check(q, &text, std::slice::from_ref(&x), 5e-3);
        }
    }
}
