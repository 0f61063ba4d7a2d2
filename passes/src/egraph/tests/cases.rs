//! One case per rule: texts in which it fires and texts in which it declines, with the reason.
//!
//! Capitals stand for sizes and words in angle brackets for random choices; see `fill.rs`.
//! Cases of merges and cancellations are in `cases_merge.rs`.

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
pub(super) const BASE: Case = Case {
    rule: "",
    with: &[],
    fires: &[],
    declines: &[],
    tolerance: 0.0,
};

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
];
