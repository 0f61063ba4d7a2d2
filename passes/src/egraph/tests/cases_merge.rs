//! The cases of rules that merge and cancel.

use super::cases::{BASE, Case};

pub(super) const CASES: &[Case] = &[
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
        rule: "linear-split",
        fires: &[
            "%l: f32[M, 16] = linear %x, %w16
             %y: f32[M, 4] = slice %l { starts = [0, 0], ends = [M, 4] }
             %z: f32[M, 12] = slice %l { starts = [0, 4], ends = [M, 16] }
             return %z, %y",
            "%l: f32[M, 16] = linear %x, %w16 { expr = { t0 = acc0; t1 = <unary> t0; store t1 } }
             %y: f32[M, 1] = slice %l { starts = [0, 0], ends = [M, 1] }
             %t: f32[M, 7] = slice %l { starts = [0, 1], ends = [M, 8] }
             %z: f32[M, 8] = slice %l { starts = [0, 8], ends = [M, 16] }
             return %z, %y, %t",
        ],
        declines: &[
            (
                "%l: f32[M, 16] = linear %x, %w16
                 %y: f32[M, 4] = slice %l { starts = [0, 0], ends = [M, 4] }
                 %z: f32[M, 13] = slice %l { starts = [0, 3], ends = [M, 16] }
                 return %z, %y",
                "overlap at column 3",
            ),
            (
                "%l: f32[M, 16] = linear %x, %w16
                 %y: f32[M, 4] = slice %l { starts = [0, 0], ends = [M, 4] }
                 return %y",
                "leave columns out at column 4",
            ),
            (
                "%l: f32[M, 16] = linear %x, %w16
                 %y: f32[M, 16] = slice %l { starts = [0, 0], ends = [M, 16] }
                 return %y, %l",
                "uncut value",
            ),
        ],
        ..BASE
    },
    Case {
        rule: "merge-rotary",
        fires: &[
            "%t: f32[1, M, 4] = rotary %q, %cos, %sin { heads = 2 }
             %u: f32[1, M, 2] = rotary %kk, %cos, %sin { heads = 1 }
             return %t, %u",
            "%t: f32[1, M, 2] = rotary %kk, %cos, %sin { heads = 1, interleaved }
             %u: f32[1, M, 4] = rotary %q, %cos, %sin { heads = 2, interleaved }
             return %t, %u",
        ],
        declines: &[
            (
                "%t: f32[1, M, 4] = rotary %q, %cos, %sin { heads = 2 }
                 %u: f32[1, M, 2] = rotary %kk, %cos, %sin { heads = 1, interleaved }
                 return %t, %u",
                "the other neighbours",
            ),
            (
                "%t: f32[1, M, 4] = rotary %q, %cos1, %sin1 { heads = 2 }
                 %u: f32[1, 1, 4] = rotary %q1, %cos1, %sin1 { heads = 2 }
                 return %t, %u",
                "rows of",
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
