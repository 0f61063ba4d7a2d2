//! Special functions of f32 in elementary operations, to within 2 ulp.
//!
//! | function | method |
//! |---|---|
//! | exp, exp2 | `2^n · e^r`, n the nearest integer, Taylor polynomial of `e^r`; the power applied in two halves so that subnormal results round once |
//! | log, log2 | mantissa in `[√½, √2)`, `2 artanh(f / (2 + f))` |
//! | tanh | `e / (e + 2)` with `e = exp(2\|x\|) − 1` from the same polynomial |
//! | erf | below 1 `x · P(x²)`, then `1 − 2^Q(\|x\| − 2.5)`; P and Q interpolate at Chebyshev points |
//! | sin, cos | argument reduced in f64, Taylor polynomials; good for `\|x\| < 2^30` |
//! | rsqrt | true division by the square root |

use std::f64::consts::{FRAC_2_PI, FRAC_PI_2, LN_2, LOG2_E};

use qcc_ir::DType;
use qcc_ir::kernel::{Approx, Cmp, KernelBuilder, Math, Op, Ty, Value};

use super::Site;

/// Replaces an exact special function of an f32.
pub(super) fn expand(k: &mut KernelBuilder, site: &Site) -> Option<Value> {
    let Op::Math {
        func,
        approx: Approx::Exact,
    } = site.op
    else {
        return None;
    };
    let x = site.args[0];
    if k.ty(x) != Ty::F32 {
        return None;
    }
    Some(match func {
        Math::Exp => exp(k, x),
        Math::Exp2 => exp2(k, x),
        Math::Log => log(k, x, 1.0),
        Math::Log2 => log(k, x, LOG2_E),
        Math::Tanh => tanh(k, x),
        Math::Erf => erf(k, x),
        Math::Sin => sine(k, x, 0),
        Math::Cos => sine(k, x, 1),
        Math::Rsqrt => {
            let (one, root) = (k.f32(1.0), k.math(Math::Sqrt, x));
            k.div(one, root)
        }
        Math::Sqrt | Math::Rcp => return None,
    })
}

/// Horner's scheme, coefficients from the constant term up.
fn polynomial(k: &mut KernelBuilder, x: Value, coefficients: &[f64]) -> Value {
    let mut terms = coefficients.iter().rev().map(|&c| c as f32);
    let last = terms.next().unwrap_or(0.0);
    let last = k.f32(last);
    terms.fold(last, |sum, c| {
        let c = k.f32(c);
        k.fma(sum, x, c)
    })
}

/// `1/0!, 1/1!, …`
fn inverse_factorials(n: usize) -> Vec<f64> {
    (0..n)
        .scan(1.0, |f, i| {
            *f *= f64::max(i as f64, 1.0);
            Some(1.0 / *f)
        })
        .collect()
}

/// `x` limited to a range; a NaN stays one.
fn clamp(k: &mut KernelBuilder, x: Value, low: f32, high: f32) -> Value {
    let (low, high) = (k.f32(low), k.f32(high));
    let above = k.cmp(Cmp::Gt, x, high);
    let x = k.select(above, high, x);
    let below = k.lt(x, low);
    k.select(below, low, x)
}

/// `v · 2^n` for an integral f32 `n` in -252..=252.
fn scale(k: &mut KernelBuilder, v: Value, n: Value) -> Value {
    let n = k.cvt(n, DType::I32);
    let half = k.shr_imm(n, 1);
    let rest = k.sub(n, half);
    [half, rest].into_iter().fold(v, |v, n| {
        let biased = k.add_imm(n, 127);
        let bits = k.shl_imm(biased, 23);
        let power = k.bitcast(bits, DType::F32);
        k.mul(v, power)
    })
}

/// `n ln 2` in two parts: the first has few bits, so that products with n are exact.
const LN2_HIGH: f64 = 0.693_359_375;

/// `(n, r)` with `x = n ln 2 + r`, `|r| ≤ ln 2 / 2`.
fn reduce(k: &mut KernelBuilder, x: Value) -> (Value, Value) {
    let log2_e = k.f32(LOG2_E as f32);
    let n = k.mul(x, log2_e);
    let n = k.round_even(n);
    let high = k.f32(-LN2_HIGH as f32);
    let r = k.fma(n, high, x);
    let low = k.f32((LN2_HIGH - LN_2) as f32);
    (n, k.fma(n, low, r))
}

fn exp(k: &mut KernelBuilder, x: Value) -> Value {
    let x = clamp(k, x, -105.0, 90.0);
    let (n, r) = reduce(k, x);
    let power = polynomial(k, r, &inverse_factorials(8));
    scale(k, power, n)
}

fn exp2(k: &mut KernelBuilder, x: Value) -> Value {
    let x = clamp(k, x, -152.0, 130.0);
    let n = k.round_even(x);
    let r = k.sub(x, n);
    let powers = inverse_factorials(8);
    let coefficients: Vec<f64> = powers
        .iter()
        .enumerate()
        .map(|(i, c)| c * LN_2.powi(i as i32))
        .collect();
    let power = polynomial(k, r, &coefficients);
    scale(k, power, n)
}

/// `log x · factor`; the factor turns the natural logarithm into another.
fn log(k: &mut KernelBuilder, x: Value, factor: f64) -> Value {
    // Subnormal numbers are scaled up by 2^23.
    let least = k.f32(f32::MIN_POSITIVE);
    let tiny = k.lt(x, least);
    let up = k.f32(8_388_608.0);
    let scaled = k.mul(x, up);
    let (none, shift) = (k.i32(0), k.i32(-23));
    let extra = k.select(tiny, shift, none);
    let y = k.select(tiny, scaled, x);
    // The exponent relative to √½, so that the mantissa lies around 1.
    let bits = k.bitcast(y, DType::I32);
    let from_root = k.add_imm(bits, -0x3f35_04f3);
    let exponent = k.shr_imm(from_root, 23);
    let shifted = k.shl_imm(exponent, 23);
    let mantissa = k.sub(bits, shifted);
    let mantissa = k.bitcast(mantissa, DType::F32);
    let exponent = k.add(exponent, extra);
    let n = k.cvt(exponent, DType::F32);
    let one = k.f32(1.0);
    let f = k.sub(mantissa, one);
    let tail = log1p_tail(k, f);
    let value = if factor == 1.0 {
        let high = k.f32(LN2_HIGH as f32);
        let low = k.f32((LN_2 - LN2_HIGH) as f32);
        let small = k.fma(n, low, tail);
        let small = k.add(small, f);
        k.fma(n, high, small)
    } else {
        // f · factor exactly enough: the factor's rounding error times f goes to the small part.
        let (c, rest) = (factor as f32, (factor - f64::from(factor as f32)) as f32);
        let (c, rest) = (k.f32(c), k.f32(rest));
        let product = k.mul(f, c);
        let minus = k.neg(product);
        let error = k.fma(f, c, minus);
        let small = k.fma(f, rest, error);
        let small = k.fma(tail, c, small);
        let sum = k.add(product, n);
        let back = k.sub(sum, n);
        let lost = k.sub(product, back);
        let small = k.add(small, lost);
        k.add(sum, small)
    };
    log_special(k, x, value)
}

/// `log(1 + f) − f` for `√½ − 1 ≤ f < √2 − 1`: with `s = f / (2 + f)`,
/// `log(1 + f) = f − f²/2 + s (f²/2 + 2 s² (1/3 + s²/5 + s⁴/7 + …))`.
fn log1p_tail(k: &mut KernelBuilder, f: Value) -> Value {
    let two = k.f32(2.0);
    let below = k.add(two, f);
    let s = k.div(f, below);
    let z = k.mul(s, s);
    let series = polynomial(
        k,
        z,
        &[2.0 / 3.0, 2.0 / 5.0, 2.0 / 7.0, 2.0 / 9.0, 2.0 / 11.0],
    );
    let half = k.f32(0.5);
    let h = k.mul(half, f);
    let h = k.mul(h, f);
    let inner = k.fma(z, series, h);
    let minus = k.neg(h);
    k.fma(s, inner, minus)
}

/// log 0 = -∞, log ∞ = ∞, NaN for negative numbers and NaN.
fn log_special(k: &mut KernelBuilder, x: Value, value: Value) -> Value {
    let zero = k.f32(0.0);
    let infinity = k.f32(f32::INFINITY);
    let minus_infinity = k.f32(f32::NEG_INFINITY);
    let nan = k.f32(f32::NAN);
    let positive = k.cmp(Cmp::Gt, x, zero);
    let value = k.select(positive, value, nan);
    let is_zero = k.eq(x, zero);
    let value = k.select(is_zero, minus_infinity, value);
    let is_infinite = k.eq(x, infinity);
    k.select(is_infinite, infinity, value)
}

/// The sign of `x` on a magnitude.
fn with_sign(k: &mut KernelBuilder, magnitude: Value, x: Value) -> Value {
    let bits = k.bitcast(x, DType::U32);
    let sign = k.and_imm(bits, 0x8000_0000);
    let bits = k.bitcast(magnitude, DType::U32);
    let bits = k.or(bits, sign);
    k.bitcast(bits, DType::F32)
}

fn tanh(k: &mut KernelBuilder, x: Value) -> Value {
    let size = k.abs(x);
    let size = clamp(k, size, 0.0, 20.0);
    let double = k.add(size, size);
    let (n, r) = reduce(k, double);
    // exp(r) − 1 = r + r² (1/2 + r/6 + …)
    let inner = polynomial(k, r, &inverse_factorials(9)[2..]);
    let square = k.mul(r, r);
    let less = k.fma(square, inner, r);
    let one = k.f32(1.0);
    let power = scale(k, one, n);
    let rest = k.sub(power, one);
    let e = k.fma(less, power, rest);
    let two = k.f32(2.0);
    let below = k.add(e, two);
    let value = k.div(e, below);
    with_sign(k, value, x)
}

/// `erf(x) / x` in `x²` on [0, 1].
const ERF_SMALL: [f64; 8] = [
    1.128_379_225_730_896,
    -0.376_126_378_774_642_94,
    0.112_837_821_245_193_48,
    -0.026_865_430_176_258_087,
    0.005_221_031_606_197_357,
    -0.000_848_408_031_743_019_8,
    0.000_112_659_588_921_815_16,
    -9.667_044_650_996_104e-6,
];

/// `log2(1 − erf(x))` in `x − 2.5` on [1, 4].
const ERF_LARGE: [f64; 10] = [
    -11.262_854,
    -7.722_285_7,
    -1.361_750_7,
    -0.015_664_946,
    0.003_123_68,
    -0.000_607_074,
    0.000_111_646_71,
    -1.864_783_7e-5,
    2.330_791e-6,
    -1.093_949_75e-7,
];

fn erf(k: &mut KernelBuilder, x: Value) -> Value {
    let square = k.mul(x, x);
    let ratio = polynomial(k, square, &ERF_SMALL);
    let near = k.mul(x, ratio);
    let size = k.abs(x);
    let capped = clamp(k, size, 0.0, 4.0);
    let middle = k.f32(2.5);
    let u = k.sub(capped, middle);
    let exponent = polynomial(k, u, &ERF_LARGE);
    let complement = exp2(k, exponent);
    let one = k.f32(1.0);
    let far = k.sub(one, complement);
    let far = with_sign(k, far, x);
    let is_near = k.lt(size, one);
    k.select(is_near, near, far)
}

/// `sin(x + quarter · π/2)`.
fn sine(k: &mut KernelBuilder, x: Value, quarter: i64) -> Value {
    let f64_const = |k: &mut KernelBuilder, v: f64| k.const_bits(DType::F64.into(), v.to_bits());
    let wide = k.cvt(x, DType::F64);
    let inverse = f64_const(k, FRAC_2_PI);
    let n = k.mul(wide, inverse);
    let n = k.round_even(n);
    let high = f64_const(k, -FRAC_PI_2);
    let r = k.fma(n, high, wide);
    // π/2 beyond its f64.
    let low = f64_const(k, -6.123_233_995_736_766e-17);
    let r = k.fma(n, low, r);
    let r = k.cvt(r, DType::F32);
    let quadrant = k.cvt(n, DType::I64);
    let quadrant = k.cvt(quadrant, DType::I32);
    let quadrant = k.add_imm(quadrant, quarter);
    let z = k.mul(r, r);
    let f = inverse_factorials(11);
    let odd = polynomial(k, z, &[-f[3], f[5], -f[7], f[9]]);
    let cube = k.mul(z, r);
    let sin = k.fma(cube, odd, r);
    let even = polynomial(k, z, &[f[4], -f[6], f[8], -f[10]]);
    let (one, minus_half) = (k.f32(1.0), k.f32(-0.5));
    let z2 = k.mul(z, z);
    let rest = k.fma(z, minus_half, one);
    let cos = k.fma(z2, even, rest);
    let odd_quadrant = k.and_imm(quadrant, 1);
    let zero = k.i32(0);
    let is_cos = k.cmp(Cmp::Ne, odd_quadrant, zero);
    let value = k.select(is_cos, cos, sin);
    let back = k.and_imm(quadrant, 2);
    let negative = k.cmp(Cmp::Ne, back, zero);
    let minus = k.neg(value);
    k.select(negative, minus, value)
}
