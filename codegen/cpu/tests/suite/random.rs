//! Random expressions and a whole transformer block against the oracle.

use crate::common::{Close, Rng, check};

/// A shape that broadcasts to `[b, n, m]`.
const SHAPES: [&str; 7] = [
    "b, n, m", "n, m", "m", "n, 1", "b, 1, m", "b, 1, 1", "1, n, m",
];
const FORMATS: [&str; 4] = ["f32", "f16", "bf16", "f32"];

/// A map of random steps. Steps that amplify errors (differences, quotients) are left out.
fn map(rng: &mut Rng) -> String {
    const UNARY: [&str; 9] = [
        "neg",
        "abs",
        "relu",
        "sigmoid",
        "tanh",
        "silu",
        "gelu",
        "erf",
        "hard_swish",
    ];
    const BINARY: [&str; 4] = ["add", "mul", "max", "min"];
    let mut pick = |n: usize| rng.below(n as u64) as usize;
    let inputs = 1 + pick(4);
    let mut params = vec!["%in0: f32[b, n, m]".to_string()];
    params
        .extend((1..inputs).map(|i| format!("%in{i}: {}[{}]", FORMATS[pick(4)], SHAPES[pick(7)])));
    params.push("%c: bool[n, 1]".to_string());
    params.push("%s: f32[]".to_string());
    let mut steps: Vec<String> = (0..inputs).map(|i| format!("t{i} = in{i}")).collect();
    steps.push(format!("t{inputs} = in{inputs}"));
    // Values are numbered past the operands; the truth value is no operand of arithmetic.
    let mut floats: Vec<usize> = (0..inputs).collect();
    for _ in 0..1 + pick(10) {
        let t = steps.len();
        let (a, b) = (floats[pick(floats.len())], floats[pick(floats.len())]);
        steps.push(match pick(6) {
            0 | 1 => format!("t{t} = {} t{a}", UNARY[pick(9)]),
            2 | 3 => format!("t{t} = {} t{a}, t{b}", BINARY[pick(4)]),
            4 => format!("t{t} = select t{inputs}, t{a}, t{b}"),
            _ => format!("t{t} = {:?}", [0.5f32, -1.25, 3.0][pick(3)]),
        });
        floats.push(t);
    }
    let last = floats[floats.len() - 1];
    let scale = inputs + 1;
    let dynamic = ["i8", "e4m3"][pick(2)];
    let operands: Vec<String> = (0..inputs).map(|i| format!("%in{i}")).collect();
    format!(
        "func @main({}) -> (y: f32[b, n, m], z: {}[b, n, m], u: f32[b, n, m], v: f32[b, n, m]) {{
          %p: f32[] = abs %s
          %y: f32[b, n, m], %z: {}[b, n, m], %q: q<{dynamic}, [1, 1, *], scale=f32, dynamic>[b, n, m], %r: q<i8, [*, *, *], scale=f32>[b, n, m] =
            map {}, %c, %p {{ expr = {{ {}; store t{last}; store t{}; store t{last}; store t{} scale in{scale} }} }}
          %u: f32[b, n, m] = dequantize %q
          %v: f32[b, n, m] = dequantize %r
          return %y, %z, %u, %v
        }}",
        params.join(", "),
        FORMATS[1],
        FORMATS[1],
        operands.join(", "),
        steps.join("; "),
        floats[pick(floats.len())],
        floats[pick(floats.len())],
    )
}

#[test]
fn random_expressions() {
    let mut rng = Rng(2026);
    for i in 0..40 {
        let text = format!(
            "qir 1\ndim b = 0..64\ndim n = 0..64\ndim m = 0..512\n{}",
            map(&mut rng)
        );
        let sizes = [(2, 3, 5), (1, 1, 1), (3, 2, 67), (1, 4, 300)][i % 4];
        // A number next to the middle between two codes may fall on either side.
        check(
            &text,
            &[("b", sizes.0), ("n", sizes.1), ("m", sizes.2)],
            (0, 2),
            Close::Rel(0.13, 0.05),
        );
    }
}

/// Norm with a quantized copy, merged q, k, v with column segments, rotary, attention, residual in
/// the epilogue, gate and up with two accumulators, and a static scheme before the last linear.
const BLOCK: &str = "qir 1
dim b = 1..8
dim s = 1..512
weight @emb: f16[50, 32] = normal(1, 1)
weight @g: f32[32] = normal(2, 1)
weight @qkv: i8[64, 32] = normal(3, 40)
weight @qkv.s: f32[64, 1] = splat(0.002)
weight @o: e4m3[32, 32] = normal(4, 0.2)
weight @gu: u4[96, 32] = normal(5, 7)
weight @gu.s: f32[96, 2] = splat(0.02)
weight @gu.z: u4[96, 2] = splat(3)
weight @d: i8[32, 48] = normal(6, 40)
weight @d.s: f32[32, 1] = splat(0.003)
weight @d.b: f32[32] = normal(7, 0.1)
weight @act: f32[] = [0.02]
weight @cos: f32[1, 4] = [0.9, 0.8, 0.5, 0.1]
weight @sin: f32[1, 4] = [0.4, 0.6, 0.8, 0.9]

func @main(%ids: i64[b, s], %keep: i64[b, s]) -> (y: f32[b, s, 32]) {
  %emb: f16[50, 32] = const @emb
  %g: f32[32] = const @g
  %cos: f32[1, 4] = const @cos
  %sin: f32[1, 4] = const @sin
  %act: f32[] = const @act
  %wqkv: q<i8, [1, *], scale=f32>[64, 32] = const @qkv, @qkv.s
  %wo: e4m3[32, 32] = const @o
  %wgu: q<u4, [1, 16], scale=f32, zero=u4>[96, 32] = const @gu, @gu.s, @gu.z
  %wd: q<i8, [1, *], scale=f32>[32, 48] = const @d, @d.s
  %db: f32[32] = const @d.b
  %h: f16[b, s, 32] = gather %emb, %ids { axis = 0 }
  %x: f32[b, s, 32] = cast %h
  %n: q<i8, [1, 1, *], scale=f32, dynamic, narrow>[b, s, 32] = rms_norm %x, %g { eps = 1e-5, expr = { t0 = acc0; t1 = in1; t2 = mul t0, t1; store t2 } }
  %q: f32[b, s, 32], %k: f32[b, s, 16], %v: f32[b, s, 16] = linear %n, %wqkv { segments = [32, 16, 16] }
  %qr: f32[b, s, 32] = rotary %q, %cos, %sin { heads = 4 }
  %kr: f32[b, s, 16] = rotary %k, %cos, %sin { heads = 2 }
  %zero: i64[] = splat { value = 0 }
  %see: bool[b, s] = ne %keep, %zero
  %mask: bool[b, 1, 1, s] = reshape %see
  %a: f32[b, s, 32] = attention %qr, %kr, %v, %mask { heads = 4, kv_heads = 2, scale = 0.35355338, mask, causal }
  %x1: f32[b, s, 32] = linear %a, %wo, %x { expr = { t0 = acc0; t1 = in2; t2 = add t0, t1; store t2 } }
  %m: f32[b, s, 32] = rms_norm %x1, %g { eps = 1e-5 }
  %p: q<i8, [*, *, *], scale=f32>[b, s, 48] = linear %m, %wgu, %act { accs = 2, expr = { t0 = acc0; t1 = acc1; t2 = silu t0; t3 = mul t2, t1; store t3 scale in2 } }
  %y: f32[b, s, 32] = linear %p, %wd, %db, %x1 { expr = { t0 = acc0; t1 = in2; t2 = add t0, t1; t3 = in3; t4 = add t2, t3; store t4 } }
  return %y
}
";

#[test]
fn a_transformer_block() {
    for (b, s) in [(1, 1), (2, 7), (1, 70), (2, 200)] {
        check(
            BLOCK,
            &[("b", b), ("s", s)],
            (0, 50),
            Close::Rel(0.02, 0.02),
        );
    }
}
