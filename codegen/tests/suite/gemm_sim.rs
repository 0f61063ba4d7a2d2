//! Linear layers and matrix products on the simulator, against the oracle: every storage, any
//! size, tails, two accumulators, column segments, expressions, quantized results.

use crate::common::{check, random};
use qcc_ir::DType::{self, BF16, F16, F32};

/// A linear layer over a plain `x` of format `d`, quantized first where `xq` is given.
struct Layer {
    d: DType,
    /// Quantized type of the activations, without shape.
    xq: Option<&'static str>,
    /// Declarations of the weight's tensors, `N` and `K` to be replaced.
    weights: &'static str,
    /// Type of the weight, without shape, and its operands.
    w: (&'static str, &'static str),
}

const F16_LAYER: Layer = Layer {
    d: F16,
    xq: None,
    weights: "weight @w: f16[N, K] = normal(5, 0.1)\n",
    w: ("f16", "@w"),
};

impl Layer {
    fn text(&self, m: u64, n: u64, k: u64, result: &str, attrs: &str, tail: &str) -> String {
        let weights = self
            .weights
            .replace('N', &n.to_string())
            .replace("K2", &k.div_ceil(32).to_string())
            .replace('K', &k.to_string());
        let d = self.d;
        let (wt, ws) = self.w;
        let quantize = match self.xq {
            Some(q) => format!(
                "  %xs: f32[] = splat(0.02)\n  %xz: u8[] = splat(117)\n  %xq: {q}[1, m, {k}] = quantize %x{}\n",
                if q.contains("zero") {
                    ", %xs, %xz"
                } else if q.contains("dynamic") {
                    ""
                } else {
                    ", %xs"
                }
            ),
            None => String::new(),
        };
        let quantize = quantize
            .replace("splat(0.02)", "splat { value = 0.02 }")
            .replace("splat(117)", "splat { value = 117 }");
        let x = if self.xq.is_some() { "%xq" } else { "%x" };
        format!(
            "qir 1\ndim m = 1..{}\n{weights}weight @b: f32[{n}] = normal(9, 0.5)\nfunc @main(%x: {d}[1, m, {k}]) -> (y: {result}) {{\n{quantize}  %w: {wt}[{n}, {k}] = const {ws}\n  %b: f32[{n}] = const @b\n  %l: {result} = linear {x}, %w, %b{attrs}\n{tail}}}\n",
            m.max(400)
        )
    }

    fn check(&self, what: &str, m: u64, n: u64, k: u64, out: DType, tolerance: f64) {
        let text = self.text(m, n, k, &format!("{out}[1, m, {n}]"), "", "  return %l\n");
        let x = random(m + n + k, self.d, &[1, m, k], 1.0);
        check(&format!("{what} {m}x{n}x{k}"), &text, &[x], tolerance);
    }
}

/// Sizes with every kind of tail; the last is larger than the largest tile.
const SIZES: [(u64, u64, u64); 6] = [
    (1, 8, 32),
    (1, 70, 64),
    (17, 33, 7),
    (5, 64, 200),
    (65, 96, 136),
    (259, 136, 72),
];

#[test]
fn sixteen_bit_floats() {
    let bf16 = Layer {
        d: BF16,
        weights: "weight @w: bf16[N, K] = normal(5, 0.1)\n",
        w: ("bf16", "@w"),
        ..F16_LAYER
    };
    for (m, n, k) in SIZES {
        F16_LAYER.check("f16", m, n, k, F16, 1e-3);
        bf16.check("bf16", m, n, k, F32, 1e-5);
    }
}

#[test]
fn f32_in_ordinary_arithmetic() {
    let layer = Layer {
        d: F32,
        weights: "weight @w: f32[N, K] = normal(5, 0.1)\n",
        w: ("f32", "@w"),
        ..F16_LAYER
    };
    for (m, n, k) in [(1, 8, 32), (17, 70, 7), (65, 96, 33)] {
        layer.check("f32", m, n, k, F32, 1e-5);
    }
}

#[test]
fn integer_codes_are_exact() {
    let per_token = "q<i8, [1, 1, *], scale=f32, dynamic, narrow>";
    let per_tensor = "q<i8, [*, *, *], scale=f32>";
    let asymmetric = "q<u8, [*, *, *], scale=f32, zero=u8>";
    let w8 = "weight @w: i8[N, K] = normal(5, 30)\nweight @s: f32[N, 1] = normal(6, 0.01)\n";
    let w4 = "weight @w: i4[N, K] = normal(5, 2)\nweight @s: f32[N, 1] = normal(6, 0.01)\n";
    let w4z = "weight @w: u4[N, K] = normal(5, 6)\nweight @s: f32[N, 1] = normal(6, 0.01)\nweight @z: u4[N, 1] = normal(7, 6)\n";
    let w8z = "weight @w: u8[N, K] = normal(5, 90)\nweight @s: f32[N, 1] = normal(6, 0.01)\nweight @z: u8[N, 1] = normal(7, 90)\n";
    let weights = [
        (w8, ("q<i8, [1, *], scale=f32>", "@w, @s")),
        (w4, ("q<i4, [1, *], scale=f32>", "@w, @s")),
        (w4z, ("q<u4, [1, *], scale=f32, zero=u4>", "@w, @s, @z")),
        (w8z, ("q<u8, [1, *], scale=f32, zero=u8>", "@w, @s, @z")),
    ];
    for xq in [per_token, per_tensor, asymmetric] {
        for (weights, w) in weights {
            let layer = Layer {
                d: F32,
                xq: Some(xq),
                weights,
                w,
            };
            for (m, n, k) in [(1, 70, 64), (17, 33, 7), (65, 96, 160)] {
                // The sums are exact and the float operations are the oracle's, in its order.
                layer.check(xq, m, n, k, F32, 0.0);
            }
        }
    }
}

#[test]
fn eight_bit_floats() {
    let w = "weight @w: e4m3[N, K] = normal(5, 4)\nweight @s: f32[N, 1] = normal(6, 0.01)\n";
    for xq in [
        "q<e4m3, [1, 1, *], scale=f32, dynamic>",
        "q<e4m3, [*, *, *], scale=f32>",
        "q<e5m2, [*, *, *], scale=f32>",
    ] {
        let layer = Layer {
            d: F16,
            xq: Some(xq),
            weights: w,
            w: ("q<e4m3, [1, *], scale=f32>", "@w, @s"),
        };
        for (m, n, k) in SIZES {
            layer.check(xq, m, n, k, F16, 1e-3);
        }
    }
}

#[test]
fn quantized_weights_alone() {
    let cases = [
        (
            "weight @w: e4m3[N, K] = normal(5, 4)\nweight @s: f32[N, 1] = normal(6, 0.01)\n",
            ("q<e4m3, [1, *], scale=f32>", "@w, @s"),
        ),
        (
            "weight @w: i8[N, K] = normal(5, 30)\nweight @s: f32[] = normal(6, 0.01)\n",
            ("q<i8, [*, *], scale=f32>", "@w, @s"),
        ),
        (
            "weight @w: u4[N, K] = normal(5, 6)\nweight @s: f16[N, K2] = normal(6, 0.01)\nweight @z: u4[N, K2] = normal(7, 6)\n",
            ("q<u4, [1, 32], scale=f16, zero=u4>", "@w, @s, @z"),
        ),
        (
            "weight @w: i4[N, K] = normal(5, 2)\nweight @s: f32[N, K2] = normal(6, 0.01)\n",
            ("q<i4, [1, 32], scale=f32>", "@w, @s"),
        ),
    ];
    for (weights, w) in cases {
        for d in [F16, BF16] {
            let layer = Layer {
                d,
                xq: None,
                weights,
                w,
            };
            for (m, n, k) in [(1, 70, 64), (17, 33, 39), (65, 96, 160)] {
                layer.check(w.0, m, n, k, F32, if d == F16 { 1e-3 } else { 3e-3 });
            }
        }
    }
}

#[test]
fn gate_and_up_with_an_expression() {
    let attrs =
        " { accs = 2, expr = { t0 = acc0; t1 = silu t0; t2 = acc1; t3 = mul t1, t2; store t3 } }";
    for (m, n, k) in [(1, 16, 32), (33, 70, 24), (130, 160, 72)] {
        let text = F16_LAYER.text(
            m,
            2 * n,
            k,
            &format!("f16[1, m, {n}]"),
            attrs,
            "  return %l\n",
        );
        check("swiglu", &text, &[random(m, F16, &[1, m, k], 1.0)], 1e-3);
    }
}

#[test]
fn column_segments_and_residuals() {
    for (m, k) in [(3, 40), (70, 64)] {
        let text = format!(
            "qir 1\ndim m = 1..400\nweight @w: f16[96, {k}] = normal(5, 0.1)\nweight @b: f32[96] = normal(6, 0.5)\nfunc @main(%x: f16[m, {k}]) -> (q: f16[m, 64], k: f16[m, 21], v: f16[m, 11]) {{\n  %w: f16[96, {k}] = const @w\n  %b: f32[96] = const @b\n  %q: f16[m, 64], %k: f16[m, 21], %v: f16[m, 11] = linear %x, %w, %b {{ segments = [64, 21, 11] }}\n  return %q, %k, %v\n}}\n"
        );
        check("segments", &text, &[random(m, F16, &[m, k], 1.0)], 1e-3);
        let text = format!(
            "qir 1\ndim m = 1..400\nweight @w: f16[96, {k}] = normal(5, 0.1)\nweight @s: f32[] = [0.02]\nfunc @main(%x: f16[m, {k}], %r: f16[m, 96]) -> (y: f16[m, 96], z: f16[m, 96]) {{\n  %w: f16[96, {k}] = const @w\n  %s: f32[] = const @s\n  %y: f16[m, 96], %q: q<i8, [*, *], scale=f32>[m, 96] = linear %x, %w, %r, %s {{ expr = {{ t0 = acc0; t1 = in2; t2 = add t0, t1; store t2; store t2 scale in3 }} }}\n  %z: f16[m, 96] = dequantize %q\n  return %y, %z\n}}\n"
        );
        check(
            "residual",
            &text,
            &[
                random(m, F16, &[m, k], 1.0),
                random(m + 1, F16, &[m, 96], 1.0),
            ],
            1e-3,
        );
    }
}

#[test]
fn sums_of_nothing_and_no_rows() {
    let text = "qir 1\ndim m = 0..64\ndim k = 0..64\nfunc @main(%a: f16[m, k], %w: f16[70, k], %b: f16[70], %c: f32[2, k, 9]) -> (y: f16[m, 70], z: f32[2, m, 9]) {\n  %y: f16[m, 70] = linear %a, %w, %b\n  %f: f32[m, k] = cast %a\n  %z: f32[2, m, 9] = matmul %f, %c\n  return %y, %z\n}\n";
    for (m, k) in [(3, 0), (0, 5), (0, 0), (1, 1)] {
        let inputs = [
            random(1, F16, &[m, k], 1.0),
            random(2, F16, &[70, k], 1.0),
            random(3, F16, &[70], 1.0),
            random(4, DType::F32, &[2, k, 9], 1.0),
        ];
        check(&format!("m = {m}, k = {k}"), text, &inputs, 1e-3);
    }
}

#[test]
fn batches_of_several_row_tiles() {
    let text = "qir 1\ndim b = 1..8\nfunc @main(%a: f32[b, 130, 5], %c: f32[b, 5, 7]) -> (y: f32[b, 130, 7]) {\n  %y: f32[b, 130, 7] = matmul %a, %c\n  return %y\n}\n";
    let inputs = [
        random(1, DType::F32, &[3, 130, 5], 1.0),
        random(2, DType::F32, &[3, 5, 7], 1.0),
    ];
    check("row tiles", text, &inputs, 1e-5);
}

#[test]
fn batched_products() {
    for (d, tolerance) in [(F32, 1e-5), (F16, 1e-3), (BF16, 4e-3)] {
        let text = format!(
            "qir 1\ndim b = 1..8\nfunc @main(%a: {d}[b, 1, 9, 37], %c: {d}[3, 37, 70]) -> (y: {d}[b, 3, 9, 70]) {{\n  %y: {d}[b, 3, 9, 70] = matmul %a, %c\n  return %y\n}}\n"
        );
        check(
            "matmul",
            &text,
            &[
                random(1, d, &[2, 1, 9, 37], 2.0),
                random(2, d, &[3, 37, 70], 2.0),
            ],
            tolerance,
        );
    }
}
