//! One case per rule: texts in which it fires and texts in which it declines, with the reason.
//!
//! Capitals stand for sizes and words in angle brackets for random choices; see `fill`.

/// How a rule is tried.
pub(super) struct Case {
    pub(super) rule: &'static str,
    /// Rules that must run before it can match.
    pub(super) with: &'static [&'static str],
    /// The body of a function of `%x: f32[M, K]`, `%r: f32[M, N]`, `%k: f32[M, K]`.
    pub(super) fires: &'static [&'static str],
    pub(super) declines: &'static [(&'static str, &'static str)],
    /// Largest difference of results of rules that are equal in reals only.
    pub(super) tolerance: f64,
}

/// For cases that need nothing special.
const BASE: Case = Case {
    rule: "",
    with: &[],
    fires: &[],
    declines: &[],
    tolerance: 0.0,
};

/// The codes of a static scheme, and a splat for its scale.
const QUANT: &str = "q<<int>, [*, *], scale=f32>";

pub(super) const CASES: &[Case] = &[
    Case {
        rule: "linear-bias",
        fires: &[
            "%l: f32[M, N] = linear %x, %w
             %y: f32[M, N] = add %l, %b
             return %y",
            "%l: f32[M, N] = linear %x, %wq
             %y: f32[M, N] = add %b, %l
             return %y",
        ],
        declines: &[(
            "%l: f32[N] = linear %x0, %w
             %y: f32[M, N] = add %l, %r
             return %y",
            "broadcast",
        )],
        ..BASE
    },
    Case {
        rule: "linear-residual",
        fires: &[
            "%l: f32[M, N] = linear %x, %w, %b
             %y: f32[M, N] = add %l, %r
             return %y",
            "%l: f32[M, N] = linear %x, %w
             %y: f32[M, N] = add %r, %l
             return %y",
        ],
        declines: &[(
            "%l: f32[M, N], %l2: f32[M, N] = linear %x, %w2 { segments = [N, N] }
             %y: f32[M, N] = add %l, %r
             return %y, %l2",
            "share one expression",
        )],
        ..BASE
    },
    Case {
        rule: "linear-activation",
        fires: &[
            "%l: f32[M, N] = linear %x, %w, %b
             %y: f32[M, N] = <unary> %l
             return %y",
            "%l: f32[M, N] = linear %x, %w { accs = 1, expr = { t0 = acc0; t1 = tanh t0; store t1 } }
             %y: f32[M, N] = <unary> %l
             return %y",
        ],
        declines: &[(
            "%l: f64[M, N] = linear %xd, %wd
             %y: f64[M, N] = relu %l
             return %y",
            "f64 is wider",
        )],
        ..BASE
    },
    Case {
        rule: "linear-gate",
        fires: &[
            "%g: f32[M, N], %u: f32[M, N] = linear %x, %w2 { accs = 2, expr = { t0 = acc0; t1 = acc1; store t0; store t1 } }
             %y: f32[M, N] = <binary> %g, %u
             return %y",
        ],
        declines: &[(
            "%g: f32[1, N], %u: f32[1, N] = linear %x1, %w2 { accs = 2, expr = { t0 = acc0; t1 = acc1; store t0; store t1 } }
             %gr: f32[M, N] = map %g, %u, %r { expr = { t0 = in0; t1 = in1; t2 = mul t0, t1; t3 = in2; t4 = add t2, t3; store t4 } }
             return %gr",
            "broadcast",
        )],
        ..BASE
    },
    Case {
        rule: "linear-map",
        fires: &[
            "%l: f32[M, N] = linear %x, %w, %b
             %y: f32[M, N] = <arith> %l, %r
             return %y",
            "%l: f32[M, N] = linear %x, %w
             %y: f32[M, N] = <arith> %c, %l
             return %y",
            "%l: f32[M, N] = linear %x, %w
             %p: bool[M, N] = gt %r, %c
             %y: f32[M, N] = select %p, %l, %r
             return %y",
            "%l: f32[M, N] = linear %x, %w
             %y: i32[M, N] = cast %l
             return %y",
            "%l: f32[M, N] = linear %x, %w
             %half: f32[] = splat { value = 0.5 }
             %y: f32[M, N] = mul %l, %half
             return %y",
            "%l: f32[M, N] = linear %x, %w
             %y: f32[M, N], %z: i8[M, N] = map %l, %r { expr = { t0 = in0; t1 = in1; t2 = mul t0, t1; t3 = cast i8 t0; store t2; store t3 } }
             return %y, %z",
        ],
        declines: &[(
            "%l: f32[1, N] = linear %x1, %w
             %y: f32[M, N] = mul %l, %r
             return %y",
            "broadcast",
        )],
        ..BASE
    },
    Case {
        rule: "linear-two-results",
        fires: &[
            "%l: f32[M, N] = linear %x, %w, %b
             %y: f32[M, N] = <unary> %l
             return %l, %y",
            "%l: f32[M, N] = linear %x, %w
             %s: f32[] = splat { value = 0.1 }
             %y: QUANT[M, N] = quantize %l, %s
             return %y, %l",
        ],
        declines: &[(
            "%l: f32[M, N] = linear %x, %w
             %y: q<i8, [1, *], scale=f32, dynamic>[M, N] = quantize %l
             return %l, %y",
            "whole row",
        )],
        ..BASE
    },
    Case {
        rule: "linear-quantize",
        fires: &[
            "%l: f32[M, N] = linear %x, %wq, %b
             %s: f32[] = splat { value = 0.1 }
             %y: QUANT[M, N] = quantize %l, %s
             return %y",
            "%l: f32[M, N] = linear %x, %w
             %y: q<<int>, [*, 1], scale=f32>[M, N] = quantize %l, %cs
             return %y",
            "%l: f32[M, 16] = linear %x, %w16
             %y: q<<int>, [1, 8], scale=f32, dynamic>[M, 16] = quantize %l
             return %y",
        ],
        declines: &[
            (
                "%l: f32[M, N] = linear %x, %w
                 %y: q<i8, [1, *], scale=f32, dynamic>[M, N] = quantize %l
                 return %y",
                "whole row",
            ),
            (
                "%l: f32[M, N] = linear %x, %w
                 %y: q<i8, [*, *], scale=f32, dynamic>[M, N] = quantize %l
                 return %y",
                "more than one row",
            ),
        ],
        ..BASE
    },
    Case {
        rule: "conv-map",
        fires: &[
            "%l: f32[1, N, 3, 3] = conv %i, %cw, %b { kernel = [2, 2] }
             %y: f32[1, N, 3, 3] = <unary> %l
             return %y",
            "%l: f32[1, N, 3, 3] = conv %i, %cw { kernel = [2, 2] }
             %y: f32[1, N, 3, 3] = <binary> %l, %ir
             return %y",
        ],
        declines: &[(
            "%bb: f32[N] = neg %b
             %l: f32[1, N, 3, 3] = conv %i, %cw, %bb { kernel = [2, 2] }
             %y: f32[1, N, 3, 3] = relu %l
             return %y",
            "bias is computed at run time",
        )],
        ..BASE
    },
    Case {
        rule: "conv-two-results",
        fires: &[
            "%l: f32[1, N, 3, 3] = conv %i, %cw, %b { kernel = [2, 2] }
             %y: f32[1, N, 3, 3] = <unary> %l
             return %l, %y",
        ],
        declines: &[(
            "%l: f32[1, N, 3, 3] = conv %i, %cw { kernel = [2, 2] }
             %y: q<i8, [1, *, *, *], scale=f32, dynamic>[1, N, 3, 3] = quantize %l
             return %y, %l",
            "more than one row",
        )],
        ..BASE
    },
    Case {
        rule: "conv-quantize",
        fires: &[
            "%l: f32[1, N, 3, 3] = conv %i, %cw, %b { kernel = [2, 2] }
             %s: f32[] = splat { value = 0.1 }
             %y: q<<int>, [*, *, *, *], scale=f32>[1, N, 3, 3] = quantize %l, %s
             return %y",
        ],
        declines: &[(
            "%l: f32[1, N, 3, 3] = conv %i, %cw { kernel = [2, 2] }
             %y: q<i8, [1, 1, 1, *], scale=f32, dynamic>[1, N, 3, 3] = quantize %l
             return %y",
            "reaches beyond",
        )],
        ..BASE
    },
    Case {
        rule: "norm-map",
        fires: &[
            "%l: f32[M, K] = rms_norm %x, %g { eps = 1e-5 }
             %y: f32[M, K] = <unary> %l
             return %y",
            "%l: f32[M, K] = layer_norm %x, %g, %gb { eps = 1e-3 }
             %y: f32[M, K] = <binary> %l, %k
             return %y",
            "%l: f32[M, K] = layer_norm %x, %g { eps = 1e-3 }
             %y: i8[M, K] = cast %l
             return %y",
        ],
        declines: &[(
            "%l: f32[1, K] = rms_norm %x1, %g { eps = 1e-5 }
             %y: f32[M, K] = mul %l, %k
             return %y",
            "broadcast",
        )],
        ..BASE
    },
    Case {
        rule: "norm-two-results",
        fires: &[
            "%l: f32[M, K] = rms_norm %x, %g { eps = 1e-5 }
             %s: f32[] = splat { value = 0.1 }
             %y: QUANT[M, K] = quantize %l, %s
             return %y, %l",
            "%l: f32[M, K] = layer_norm %x, %g, %gb { eps = 1e-5 }
             %y: q<<int>, [1, *], scale=f32, dynamic>[M, K] = quantize %l
             return %l, %y",
        ],
        declines: &[(
            "%l: f32[M, K] = rms_norm %x, %g { eps = 1e-5 }
             %y: q<i8, [*, *], scale=f32, dynamic>[M, K] = quantize %l
             return %y, %l",
            "more than one row",
        )],
        ..BASE
    },
    Case {
        rule: "norm-quantize",
        fires: &[
            "%l: f32[M, K] = rms_norm %x, %g { eps = 1e-5 }
             %y: q<<int>, [1, *], scale=f32, dynamic>[M, K] = quantize %l
             return %y",
            "%l: f32[M, K] = layer_norm %x, %g, %gb { eps = 1e-5 }
             %s: f32[] = splat { value = 0.1 }
             %y: QUANT[M, K] = quantize %l, %s
             return %y",
            "%l: f32[M, 8] = rms_norm %x8, %g8 { eps = 1e-5 }
             %y: q<<int>, [1, 4], scale=f32, dynamic>[M, 8] = quantize %l
             return %y",
        ],
        declines: &[(
            "%l: f32[M, K] = rms_norm %x, %g { eps = 1e-5 }
             %y: q<i8, [*, *], scale=f32, dynamic>[M, K] = quantize %l
             return %y",
            "more than one row",
        )],
        ..BASE
    },
    Case {
        rule: "attention-map",
        fires: &[
            "%l: f32[1, M, 4] = attention %q, %kk, %v { heads = 2, kv_heads = 1, scale = 0.5, causal }
             %y: f32[1, M, 4] = <unary> %l
             return %y",
            "%l: f32[1, M, 4] = attention %q, %kk, %v, %mask { heads = 2, kv_heads = 1, scale = 0.5, mask }
             %y: f32[1, M, 4] = <binary> %l, %q
             return %y",
        ],
        declines: &[(
            "%l: f32[1, 1, 4] = attention %q1, %kk, %v { heads = 2, kv_heads = 1, scale = 0.5 }
             %y: f32[1, M, 4] = mul %l, %q
             return %y",
            "broadcast",
        )],
        ..BASE
    },
    Case {
        rule: "attention-two-results",
        fires: &[
            "%l: f32[1, M, 4] = attention %q, %kk, %v { heads = 2, kv_heads = 1, scale = 0.5, causal }
             %y: f32[1, M, 4] = <unary> %l
             return %l, %y",
        ],
        declines: &[(
            "%l: f32[1, M, 4] = attention %q, %kk, %v { heads = 2, kv_heads = 1, scale = 0.5 }
             %y: q<i8, [1, 1, *], scale=f32, dynamic>[1, M, 4] = quantize %l
             return %l, %y",
            "reaches beyond",
        )],
        ..BASE
    },
    Case {
        rule: "attention-quantize",
        fires: &[
            "%l: f32[1, M, 4] = attention %q, %kk, %v { heads = 2, kv_heads = 1, scale = 0.5, causal }
             %s: f32[] = splat { value = 0.02 }
             %y: q<<int>, [*, *, *], scale=f32>[1, M, 4] = quantize %l, %s
             return %y",
        ],
        declines: &[(
            "%l: f32[1, M, 4] = attention %q, %kk, %v { heads = 2, kv_heads = 1, scale = 0.5 }
             %y: q<i8, [1, 1, *], scale=f32, dynamic>[1, M, 4] = quantize %l
             return %y",
            "reaches beyond",
        )],
        ..BASE
    },
    Case {
        rule: "map-map",
        fires: &[
            "%a: f32[M, K] = <unary> %x
             %y: f32[M, K] = <binary> %a, %k
             return %y",
            "%a: f32[M, K] = <unary> %x
             %p: bool[M, K] = lt %a, %k
             %z: f32[M, K] = <binary> %a, %k
             %y: f32[M, K] = select %p, %z, %x
             return %y",
            "%a: i32[M, K] = cast %x
             %c2: i32[M, K] = mul %a, %a
             %y: f32[M, K] = cast %c2
             return %y",
            "%two: f32[] = splat { value = 2.5 }
             %y: f32[M, K] = <binary> %x, %two
             %z: f32[M, K] = <binary> %two, %y
             return %z",
        ],
        declines: &[(
            "%a: f32[1, K] = exp %x1
             %y: f32[M, K] = mul %a, %k
             return %y",
            "broadcast",
        )],
        ..BASE
    },
    Case {
        rule: "map-quantize",
        fires: &[
            "%a: f32[M, K] = silu %x
             %m: f32[M, K] = mul %a, %k
             %s: f32[] = splat { value = 0.1 }
             %y: QUANT[M, K] = quantize %m, %s
             return %y",
            "%m: f32[M, K] = <unary> %x
             %y: q<<int>, [1, *], scale=f32, dynamic>[M, K] = quantize %m
             return %y",
        ],
        declines: &[(
            "%m: f32[M, K] = mul %x, %k
             %y: q<i8, [*, *], scale=f32, dynamic>[M, K] = quantize %m
             return %y",
            "more than one row",
        )],
        ..BASE
    },
    Case {
        rule: "map-two-results",
        fires: &[
            "%a: f32[M, K] = <unary> %x
             %y: f32[M, K] = <binary> %a, %k
             return %a, %y",
            "%a: f32[M, K] = mul %x, %k
             %s: f32[] = splat { value = 0.1 }
             %t: f32[] = splat { value = 0.2 }
             %y: QUANT[M, K] = quantize %a, %s
             %z: QUANT[M, K] = quantize %a, %t
             return %y, %z",
        ],
        declines: &[(
            "%a: f32[M, K] = exp %x
             %y: q<i8, [*, *], scale=f32, dynamic>[M, K] = quantize %a
             return %a, %y",
            "more than one row",
        )],
        ..BASE
    },
    Case {
        rule: "map-recompute",
        fires: &[
            "%a: f32[M, K] = <unary> %x
             %y: f32[M, K] = <binary> %a, %k
             %z: f32[M, K] = <binary> %k, %a
             return %y, %z",
        ],
        declines: &[(
            "%a: f32[1, K] = exp %x1
             %y: f32[M, K] = mul %a, %k
             return %y, %a",
            "broadcast",
        )],
        ..BASE
    },
    Case {
        rule: "quantize-dequantize",
        fires: &[
            "%s: f32[] = splat { value = 0.1 }
             %q8: QUANT[M, K] = quantize %x, %s
             %d: f32[M, K] = dequantize %q8
             %y: QUANT[M, K] = quantize %d, %s
             return %y",
            "%q8: q<<int>, [*, 1], scale=f32>[M, N] = quantize %r, %cs
             %d: f32[M, N] = dequantize %q8
             %y: q<<int>, [*, 1], scale=f32>[M, N] = quantize %d, %cs
             return %y",
        ],
        declines: &[
            (
                "%s: f32[] = splat { value = 0.1 }
                 %t: f32[] = splat { value = 0.2 }
                 %q8: q<i8, [*, *], scale=f32>[M, K] = quantize %x, %s
                 %d: f32[M, K] = dequantize %q8
                 %y: q<i8, [*, *], scale=f32>[M, K] = quantize %d, %t
                 return %y",
                "scales differ",
            ),
            (
                "%q8: q<i8, [1, *], scale=f32, dynamic>[M, K] = quantize %x
                 %d: f32[M, K] = dequantize %q8
                 %y: q<i8, [1, *], scale=f32, dynamic>[M, K] = quantize %d
                 return %y",
                "computed again",
            ),
            (
                "%s: f32[] = splat { value = 0.1 }
                 %q8: q<i8, [*, *], scale=f32>[M, K] = quantize %x, %s
                 %d: f32[M, K] = dequantize %q8
                 %y: q<e4m3, [*, *], scale=f32>[M, K] = quantize %d, %s
                 return %y",
                "schemes differ",
            ),
            (
                "%s: f32[] = splat { value = 0.1 }
                 %d: f32[N, K] = dequantize %wt
                 %y: q<i8, [*, *], scale=f32>[N, K] = quantize %d, %s
                 return %y",
                "not known",
            ),
        ],
        ..BASE
    },
    Case {
        rule: "linear-dequantize",
        fires: &[
            "%d: f32[N, K] = dequantize %wq
             %y: f32[M, N] = linear %x, %d, %b
             return %y",
            "%s: f32[] = splat { value = 0.1 }
             %q8: QUANT[M, K] = quantize %x, %s
             %d: f32[M, K] = dequantize %q8
             %y: f32[M, N] = linear %d, %wq
             return %y",
        ],
        declines: &[],
        tolerance: 1e-5,
        ..BASE
    },
    Case {
        rule: "merge-columns",
        fires: &[
            "%l0: f32[M, N] = linear %x, %w
             %l1: f32[M, 16] = linear %x, %w16
             return %l0, %l1",
            "%l0: f32[M, N] = linear %x, %w, %b
             %l1: f32[M, 16] = linear %x, %w16
             %l2: f32[M, N] = linear %x, %wb, %b
             return %l2, %l1, %l0",
            "%l0: f32[M, N] = linear %x, %wq
             %l1: f32[M, N] = linear %x, %wq2
             return %l0, %l1",
        ],
        declines: &[
            (
                "%l0: f32[M, N] = linear %x, %w
                 %l1: f32[M, N] = linear %x, %wq
                 return %l0, %l1",
                "schemes differ",
            ),
            (
                "%l0: f32[M, N] = linear %x, %wt
                 %l1: f32[M, N] = linear %x, %wt2
                 return %l0, %l1",
                "one scale for all its rows",
            ),
            (
                "%l0: f32[M, N] = linear %x, %w
                 %l1: f16[M, N] = linear %x, %wb
                 return %l0, %l1",
                "results differ",
            ),
            (
                "%wn: f32[N, K] = neg %w
                 %l0: f32[M, N] = linear %x, %w
                 %l1: f32[M, N] = linear %x, %wn
                 return %l0, %l1",
                "computed at run time",
            ),
        ],
        ..BASE
    },
    Case {
        rule: "merge-gate-up",
        fires: &[
            "%g0: f32[M, N] = linear %x, %w, %b
             %u: f32[M, N] = linear %x, %wb
             %p: f32[M, N] = <binary> %g0, %u
             %t: f32[M, N] = <unary> %g0
             return %p, %t",
            "%g0: f32[M, N] = linear %x, %wq
             %u: f32[M, N] = linear %x, %wq2
             %p: f32[M, N] = <binary> %g0, %u
             return %p",
        ],
        declines: &[(
            "%g0: f32[M, 1] = linear %x, %one
             %u: f32[M, N] = linear %x, %wb
             %p: f32[M, N] = mul %g0, %u
             return %p",
            "differ in shape",
        )],
        ..BASE
    },
];

/// Numbers for a case.
pub(super) struct Rng(pub(super) u64);

impl Rng {
    /// A number below `n` (SplitMix64).
    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }

    fn pick<'a>(&mut self, list: &[&'a str]) -> &'a str {
        list[self.below(list.len() as u64) as usize]
    }
}

/// Constants and parameters that bodies use; only what a body names is declared.
const DECLARED: &[(&str, &str)] = &[
    ("w", "f32[N, K] const normal"),
    ("wb", "f32[N, K] const normal"),
    ("w2", "f32[2N, K] const normal"),
    ("w16", "f32[16, K] const normal"),
    ("one", "f32[1, K] const normal"),
    ("wd", "f64[N, K] const normal"),
    ("wq", "q<i8, [1, *], scale=f32>[N, K] const codes"),
    ("wq2", "q<i8, [1, *], scale=f32>[N, K] const codes"),
    ("wt", "q<i8, [*, *], scale=f32>[N, K] const codes"),
    ("wt2", "q<i8, [*, *], scale=f32>[N, K] const codes"),
    ("b", "f32[N] const normal"),
    ("c", "f32[N] const normal"),
    ("cs", "f32[1, N] const positive"),
    ("g", "f32[K] const normal"),
    ("gb", "f32[K] const normal"),
    ("g8", "f32[8] const normal"),
    ("cw", "f32[N, 2, 2, 2] const normal"),
    ("x", "f32[M, K]"),
    ("k", "f32[M, K]"),
    ("x0", "f32[K]"),
    ("x1", "f32[1, K]"),
    ("x8", "f32[M, 8]"),
    ("xd", "f64[M, K]"),
    ("r", "f32[M, N]"),
    ("i", "f32[1, 2, 4, 4]"),
    ("ir", "f32[1, N, 3, 3]"),
    ("q", "f32[1, M, 4]"),
    ("q1", "f32[1, 1, 4]"),
    ("kk", "f32[1, M, 2]"),
    ("v", "f32[1, M, 2]"),
    ("mask", "bool[M, M]"),
];

const UNARY: &[&str] = &[
    "neg",
    "abs",
    "sqrt",
    "recip",
    "exp",
    "erf",
    "tanh",
    "sigmoid",
    "relu",
    "gelu",
    "gelu_tanh",
    "silu",
    "hard_swish",
    "floor",
    "round",
];
const BINARY: &[&str] = &["add", "sub", "mul", "div", "min", "max"];

/// A module of a body with random sizes, functions and weights.
pub(super) fn fill(body: &str, rng: &mut Rng) -> String {
    let (m, k, n) = (1 + rng.below(4), 1 + rng.below(6), 1 + rng.below(5));
    let mut body = body.replace("QUANT", QUANT);
    for (word, list) in [
        ("<unary>", UNARY),
        ("<binary>", BINARY),
        ("<arith>", &BINARY[1..]),
        ("<int>", &["i8", "u8", "e4m3", "e5m2"]),
    ] {
        // Every occurrence of a format in one body is the same, functions vary.
        let same = word == "<int>";
        let first = rng.pick(list);
        while body.contains(word) {
            let pick = if same { first } else { rng.pick(list) };
            body = body.replacen(word, pick, 1);
        }
    }
    let sizes = |s: &str| -> String {
        s.replace("2N", &(2 * n).to_string())
            .replace('M', &m.to_string())
            .replace('K', &k.to_string())
            .replace('N', &n.to_string())
    };
    let body = sizes(&body);
    let (mut weights, mut consts, mut params) = (String::new(), String::new(), Vec::new());
    for (name, what) in DECLARED {
        let what = sizes(what);
        if !names(&body, name) {
            continue;
        }
        match what.split_once(" const ") {
            None => params.push(format!("%{name}: {what}")),
            Some((ty, data)) => {
                let (w, c) = constant(name, ty, data, rng);
                weights.push_str(&w);
                consts.push_str(&c);
            }
        }
    }
    let (ops, returned) = body.split_once("return").expect("a body returns something");
    let results: Vec<String> = returned
        .split(',')
        .enumerate()
        .map(|(i, v)| format!("r{i}: {}", type_of(ops, v.trim())))
        .collect();
    format!(
        "{weights}func @main({}) -> ({}) {{\n{consts}{ops}return{returned}\n}}\n",
        params.join(", "),
        results.join(", ")
    )
}

/// Whether a body reads a value and does not define it.
fn names(body: &str, name: &str) -> bool {
    let reads = |c: char| !(c.is_alphanumeric() || c == '_' || c == '.');
    body.match_indices(&format!("%{name}")).any(|(at, text)| {
        let rest = &body[at + text.len()..];
        rest.is_empty() || rest.starts_with(reads)
    }) && !body.contains(&format!("%{name}:"))
}

/// The type that a value is defined with.
fn type_of<'a>(ops: &'a str, v: &str) -> &'a str {
    let at = ops.find(&format!("{v}: ")).expect("a result is defined");
    let rest = &ops[at + v.len() + 2..];
    let mut depth = 0;
    let end = rest.find(|c: char| {
        depth += match c {
            '[' | '<' => 1,
            ']' | '>' => -1,
            _ => 0,
        };
        depth == 0 && (c == ' ' || c == ',')
    });
    rest[..end.expect("a type ends")].trim()
}

fn constant(name: &str, ty: &str, data: &str, rng: &mut Rng) -> (String, String) {
    let seed = rng.below(1 << 30);
    if let Some(rest) = ty.strip_prefix("q<i8, ") {
        let dims = &rest[rest.rfind('[').expect("a shape")..];
        let rows = dims
            .trim_start_matches('[')
            .split(',')
            .next()
            .unwrap_or("1");
        let scales = if rest.starts_with("[*") {
            "[]".into()
        } else {
            format!("[{rows}, 1]")
        };
        let weights = format!(
            "weight @{name}: i8{dims} = normal({seed}, 40.0)\n\
             weight @{name}.s: f32{scales} = splat({})\n",
            0.01 + rng.below(8) as f64 * 0.015625
        );
        return (
            weights,
            format!("%{name}: {ty} = const @{name}, @{name}.s\n"),
        );
    }
    let contents = match data {
        "positive" => format!("splat({})", 0.1 + rng.below(8) as f64 * 0.0625),
        _ => format!("normal({seed}, 1.0)"),
    };
    (
        format!("weight @{name}: {ty} = {contents}\n"),
        format!("%{name}: {ty} = const @{name}\n"),
    )
}
