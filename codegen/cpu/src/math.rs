//! Scalar functions in f32, written without branches so that loops over them vectorise.
//!
//! `exp` reduces by `x = n·ln 2 + r`, `|r| ≤ ½ln 2`, and evaluates a polynomial of degree 7.
//! `erf` below 1 and `tanh` below 0.625 are odd polynomials; `erfc` is
//! `t·e^(−z²)·P(t)`, `t = 1/(1 + z/2)`. The coefficients interpolate at Chebyshev nodes; each
//! fit is below 6e-9 relative, so the error of a result is that of f32 arithmetic: a few units
//! in the last place, and for `erfc` up to 2e-6 relative near `z = 9`.

// Coefficients stand as they were fitted; rounding them is the compiler's.
#![allow(clippy::excessive_precision)]

use qcc_ir::expr::{BinaryFn, UnaryFn};

/// Evaluates `Σ c[i]·xⁱ`.
#[inline(always)]
fn poly<const N: usize>(x: f32, c: [f32; N]) -> f32 {
    let mut sum = 0.0;
    let mut i = N;
    while i > 0 {
        i -= 1;
        sum = sum * x + c[i];
    }
    sum
}

/// Beyond these the result of `exp` is 0 or infinite.
pub(crate) const EXP_BOUNDS: (f32, f32) = (-105.0, 89.0);
/// Adding 1.5·2²³ rounds to an integer that then stands in the low bits.
pub(crate) const ROUNDER: f32 = 12_582_912.0;
/// ln 2 = first − second; products of the first with small integers are exact.
pub(crate) const LN2: (f32, f32) = (0.693_359_4, 2.121_944_4e-4);
/// `eˣ` on |x| ≤ ½ln 2.
pub(crate) const EXP: [f32; 8] = [
    1.0,
    1.0,
    0.500_000_001_4,
    0.166_666_666_8,
    0.041_666_456_81,
    0.008_333_310_024,
    0.001_393_454_193,
    0.000_198_919_813_1,
];
/// `tanh x / x` in x², |x| ≤ 0.625.
pub(crate) const TANH: [f32; 7] = [
    1.0,
    -0.333_333_331_7,
    0.133_333_035_6,
    -0.053_959_259_58,
    0.021_768_918_65,
    -0.008_343_945_516,
    0.002_292_744_816,
];
/// `erf x / x` in x², |x| ≤ 1.
pub(crate) const ERF_SMALL: [f32; 7] = [
    1.128_379_166,
    -0.376_126_266_7,
    0.112_835_947_2,
    -0.026_854_212_01,
    0.005_189_087_423,
    -0.000_801_686_428_7,
    7.875_875_063e-5,
];
/// `erfc z · e^(z²) / t` in `t = 1/(1 + z/2)`.
pub(crate) const ERF_LARGE: [f32; 11] = [
    0.282_087_641_1,
    0.282_276_969_3,
    0.244_890_454_2,
    0.187_482_032_8,
    0.047_244_886_31,
    0.055_463_272_01,
    -0.056_796_813_65,
    -0.249_925_144_4,
    0.352_962_856_2,
    -0.179_374_647_5,
    0.033_688_495_88,
];

/// `eˣ`; subnormal results, infinities and NaN as IEEE 754 has them.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    // `clamp` keeps NaN.
    let x = x.clamp(EXP_BOUNDS.0, EXP_BOUNDS.1);
    let shifted = x * std::f32::consts::LOG2_E + ROUNDER;
    let n = shifted - ROUNDER;
    let r = (x - n * LN2.0) + n * LN2.1;
    let p = poly(r, EXP);
    // 2ⁿ in two factors, for neither overflows where the product does not.
    let n = shifted.to_bits() as i32 - ROUNDER.to_bits() as i32;
    let half = n >> 1;
    let power = |e: i32| f32::from_bits(((e + 127) << 23) as u32);
    p * power(half) * power(n - half)
}

/// `1/(1+e⁻ˣ)`
#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// Hyperbolic tangent.
#[inline(always)]
pub(crate) fn tanh(x: f32) -> f32 {
    let a = x.abs();
    let u = x * x;
    let small = x * poly(u, TANH);
    let large = (1.0 - 2.0 / (exp(2.0 * a) + 1.0)).copysign(x);
    if a < 0.625 { small } else { large }
}

/// `1 − erf z` for `z ≥ 0`, with a small relative error also where it is tiny.
#[inline(always)]
fn erfc(z: f32) -> f32 {
    let t = 1.0 / (1.0 + 0.5 * z);
    t * exp(-z * z) * poly(t, ERF_LARGE)
}

/// Error function.
#[inline(always)]
pub(crate) fn erf(x: f32) -> f32 {
    let a = x.abs();
    let small = x * poly(x * x, ERF_SMALL);
    // Beyond 6 the result is 1; `min` would lose NaN, `clamp` keeps it.
    let large = (1.0 - erfc(a.clamp(0.0, 6.0))).copysign(x);
    if a < 1.0 { small } else { large }
}

/// `x·½(1+erf(x/√2))`
#[inline(always)]
pub(crate) fn gelu(x: f32) -> f32 {
    // −∞·0 would be NaN, and the limit is 0; beyond 14 the tail underflows.
    let a = x.abs().clamp(0.0, 20.0);
    let tail = 0.5 * a * erfc(a * std::f32::consts::FRAC_1_SQRT_2);
    if x > 0.0 { x - tail } else { -tail }
}

/// `x·sigmoid(x)`
#[inline(always)]
pub(crate) fn silu(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

/// `x·½(1+tanh u) = x·sigmoid(2u)` with `u = √(2/π)(x+0.044715x³)`
#[inline(always)]
pub(crate) fn gelu_tanh(x: f32) -> f32 {
    const TWICE: f32 = 1.595_769_1;
    x / (1.0 + exp(-TWICE * (x + 0.044_715 * x * x * x)))
}

/// Nearest integer, ties to even.
#[inline(always)]
fn round(x: f32) -> f32 {
    x.round_ties_even()
}

/// Calls `$body` on slices, compiled for the widest vectors that the processor has.
///
/// Only the width differs: no variant contracts products and sums, so all give the same bits.
macro_rules! vectorised {
    ($(#[$m:meta])* fn $name:ident($($a:ident: $t:ty),*) $(-> $r:ty)? $body:block) => {
        $(#[$m])*
        pub(crate) fn $name($($a: $t),*) $(-> $r)? {
            #[inline(always)]
            fn body($($a: $t),*) $(-> $r)? $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2")]
                fn avx2($($a: $t),*) $(-> $r)? { body($($a),*) }
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
                fn avx512($($a: $t),*) $(-> $r)? { body($($a),*) }
                if is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
                {
                    // SAFETY: the processor has these features.
                    return unsafe { avx512($($a),*) };
                }
                if is_x86_feature_detected!("avx2") {
                    // SAFETY: the processor has this feature.
                    return unsafe { avx2($($a),*) };
                }
            }
            body($($a),*)
        }
    };
}
pub(crate) use vectorised;

vectorised! {
    /// `out[i] = f(x[i])`. `Not` belongs to truth values and gives NaN.
    fn unary(f: UnaryFn, x: &[f32], out: &mut [f32]) {
        macro_rules! each {
            ($g:expr) => { for (o, v) in out.iter_mut().zip(x) { *o = $g(*v); } };
        }
        match f {
            UnaryFn::Neg => each!(|v: f32| -v),
            UnaryFn::Abs => each!(f32::abs),
            UnaryFn::Sqrt => each!(f32::sqrt),
            UnaryFn::Rsqrt => each!(|v: f32| 1.0 / v.sqrt()),
            UnaryFn::Recip => each!(|v: f32| 1.0 / v),
            UnaryFn::Exp => each!(exp),
            UnaryFn::Log => each!(f32::ln),
            UnaryFn::Erf => each!(erf),
            UnaryFn::Tanh => each!(tanh),
            UnaryFn::Sin => each!(f32::sin),
            UnaryFn::Cos => each!(f32::cos),
            UnaryFn::Sigmoid => each!(sigmoid),
            UnaryFn::Relu => each!(|v: f32| if v < 0.0 { 0.0 } else { v }),
            UnaryFn::Gelu => each!(gelu),
            UnaryFn::GeluTanh => each!(gelu_tanh),
            UnaryFn::Silu => each!(silu),
            UnaryFn::HardSwish => each!(|v: f32| v * (v / 6.0 + 0.5).clamp(0.0, 1.0)),
            UnaryFn::Floor => each!(f32::floor),
            UnaryFn::Ceil => each!(f32::ceil),
            UnaryFn::Round => each!(round),
            UnaryFn::Not => each!(|_| f32::NAN),
        }
    }
}

/// Remainder with the sign of the divisor.
#[inline(always)]
fn modulo(a: f32, b: f32) -> f32 {
    let r = a % b;
    if r != 0.0 && (r < 0.0) != (b < 0.0) {
        r + b
    } else {
        r
    }
}

#[inline(always)]
fn min(a: f32, b: f32) -> f32 {
    if a.is_nan() || b.is_nan() {
        f32::NAN
    } else {
        a.min(b)
    }
}

#[inline(always)]
fn max(a: f32, b: f32) -> f32 {
    if a.is_nan() || b.is_nan() {
        f32::NAN
    } else {
        a.max(b)
    }
}

vectorised! {
    /// `out[i] = f(a[i], b[i])` for the functions that give numbers; the others give NaN.
    fn binary(f: BinaryFn, a: &[f32], b: &[f32], out: &mut [f32]) {
        macro_rules! each {
            ($g:expr) => {
                for ((o, x), y) in out.iter_mut().zip(a).zip(b) { *o = $g(*x, *y); }
            };
        }
        match f {
            BinaryFn::Add => each!(|x: f32, y: f32| x + y),
            BinaryFn::Sub => each!(|x: f32, y: f32| x - y),
            BinaryFn::Mul => each!(|x: f32, y: f32| x * y),
            BinaryFn::Div => each!(|x: f32, y: f32| x / y),
            BinaryFn::Pow => each!(f32::powf),
            BinaryFn::Min => each!(min),
            BinaryFn::Max => each!(max),
            BinaryFn::Mod => each!(modulo),
            _ => each!(|_, _| f32::NAN),
        }
    }
}

vectorised! {
    /// `out[i] = f(a[i], b[i])`, 1 where true, for the comparisons; the others give 0.
    fn compare(f: BinaryFn, a: &[f32], b: &[f32], out: &mut [i64]) {
        macro_rules! each {
            ($g:expr) => {
                for ((o, x), y) in out.iter_mut().zip(a).zip(b) { *o = i64::from($g(x, y)); }
            };
        }
        match f {
            BinaryFn::Eq => each!(|x: &f32, y: &f32| x == y),
            BinaryFn::Ne => each!(|x: &f32, y: &f32| x != y),
            BinaryFn::Lt => each!(|x: &f32, y: &f32| x < y),
            BinaryFn::Le => each!(|x: &f32, y: &f32| x <= y),
            BinaryFn::Gt => each!(|x: &f32, y: &f32| x > y),
            BinaryFn::Ge => each!(|x: &f32, y: &f32| x >= y),
            _ => out.fill(0),
        }
    }
}

/// Lanes of the partial sums; their order is part of the result.
const LANES: usize = 16;

vectorised! {
    /// `Σ x[i]`, accumulated in f64 over 16 interleaved partial sums.
    fn sum(x: &[f32]) -> f64 {
        let mut acc = [0.0f64; LANES];
        let (body, tail) = x.as_chunks::<LANES>();
        for c in body {
            for (a, v) in acc.iter_mut().zip(c) { *a += f64::from(*v); }
        }
        acc.iter().sum::<f64>() + tail.iter().map(|v| f64::from(*v)).sum::<f64>()
    }
}

vectorised! {
    /// The largest element; NaN if any is, −∞ if there is none.
    fn maximum(x: &[f32]) -> f32 {
        let mut acc = [f32::NEG_INFINITY; LANES];
        let mut nan = [false; LANES];
        let (body, tail) = x.as_chunks::<LANES>();
        for c in body {
            for ((a, n), v) in acc.iter_mut().zip(&mut nan).zip(c) {
                *n |= v.is_nan();
                *a = if *v > *a { *v } else { *a };
            }
        }
        let all = acc.iter().chain(tail).fold(f32::NEG_INFINITY, |a, v| max(a, *v));
        if nan.contains(&true) { f32::NAN } else { all }
    }
}

vectorised! {
    /// `x[i] ← e^(x[i] − shift)`
    fn exp_shifted(x: &mut [f32], shift: f32) {
        for v in x { *v = exp(*v - shift); }
    }
}

vectorised! {
    /// `x[i] ← x[i]·factor`
    fn scale(x: &mut [f32], factor: f32) {
        for v in x { *v *= factor; }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Largest relative error of `f` against `g` over `n` points of `[lo, hi]`.
    fn worst(f: impl Fn(f32) -> f32, g: impl Fn(f64) -> f64, lo: f32, hi: f32) -> f64 {
        (0..=20_000)
            .map(|i| lo + (hi - lo) * i as f32 / 20_000.0)
            .map(|x| {
                let want = g(f64::from(x));
                (f64::from(f(x)) - want).abs() / want.abs().max(1e-37)
            })
            .fold(0.0, f64::max)
    }

    #[test]
    fn functions_are_accurate_to_a_few_units_in_the_last_place() {
        assert!(worst(exp, f64::exp, -87.0, 88.0) < 4e-7);
        assert!(worst(tanh, f64::tanh, -9.0, 9.0) < 4e-7);
        assert!(worst(sigmoid, |x| 1.0 / (1.0 + (-x).exp()), -80.0, 80.0) < 4e-7);
        assert!(worst(silu, |x| x / (1.0 + (-x).exp()), -80.0, 80.0) < 4e-7);
    }

    #[test]
    fn erf_and_gelu_agree_with_the_series() {
        // erf x = 2/√π Σ (−1)ⁿ x^(2n+1) / (n! (2n+1)), good in f64 up to 2.5.
        let erf64 = |x: f64| {
            let (mut term, mut sum) = (x, x);
            for n in 1..80 {
                term *= -x * x / f64::from(n);
                sum += term / f64::from(2 * n + 1);
            }
            sum * std::f64::consts::FRAC_2_SQRT_PI
        };
        assert!(worst(erf, erf64, -2.5, 2.5) < 4e-7);
        let gelu64 = |x: f64| x * 0.5 * (1.0 + erf64(x * std::f64::consts::FRAC_1_SQRT_2));
        assert!(worst(gelu, gelu64, -3.0, 3.0) < 2e-6);
        assert_eq!(erf(7.0), 1.0);
        assert_eq!(gelu(30.0), 30.0);
    }

    #[test]
    fn special_values() {
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(f32::INFINITY), f32::INFINITY);
        assert_eq!(exp(90.0), f32::INFINITY);
        assert!(exp(-100.0) > 0.0 && exp(-100.0) < 1e-43);
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(gelu(f32::NEG_INFINITY), 0.0);
        assert_eq!(tanh(f32::INFINITY), 1.0);
        assert_eq!(tanh(-0.0).to_bits(), (-0.0f32).to_bits());
        for f in [exp, sigmoid, tanh, erf, gelu, silu, gelu_tanh] {
            assert!(f(f32::NAN).is_nan());
        }
    }
}
