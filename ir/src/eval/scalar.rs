//! Scalar functions in f64 and i64: the mathematical definition of each [`UnaryFn`] and
//! [`BinaryFn`]. The caller rounds the result to its format, once.

use super::value::{Nums, internal};
use crate::diag::{Class, Diagnostic, Result};
use crate::expr::{BinaryFn, UnaryFn};
use std::f64::consts::{FRAC_2_SQRT_PI, PI, SQRT_2};

/// Error function, to within a few units in the last place.
///
/// For `|x| < 3` the series `erf x = 2/√π · e^(−x²) · Σ 2ⁿ x^(2n+1) / (2n+1)!!`, whose terms are
/// all of one sign; beyond, the continued fraction of `erfc` (Abramowitz and Stegun 7.1.6, 7.1.14).
pub fn erf(x: f64) -> f64 {
    let a = x.abs();
    if a.is_nan() {
        return x;
    }
    if a > 6.0 {
        return 1f64.copysign(x);
    }
    if a < 3.0 {
        let (mut term, mut sum, mut n) = (x, x, 0.0);
        while term.abs() > sum.abs() * 1e-18 {
            n += 1.0;
            term *= 2.0 * x * x / (2.0 * n + 1.0);
            sum += term;
        }
        return FRAC_2_SQRT_PI * (-x * x).exp() * sum;
    }
    let tail = (1..=60)
        .rev()
        .fold(0.0, |t, k| f64::from(k) / 2.0 / (a + t));
    let erfc = (-a * a).exp() / PI.sqrt() / (a + tail);
    (1.0 - erfc).copysign(x)
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// `f(x)` in f64. `Not` is defined for truth values only and gives NaN here.
pub fn unary_f64(f: UnaryFn, x: f64) -> f64 {
    match f {
        UnaryFn::Neg => -x,
        UnaryFn::Abs => x.abs(),
        UnaryFn::Sqrt => x.sqrt(),
        UnaryFn::Rsqrt => 1.0 / x.sqrt(),
        UnaryFn::Recip => 1.0 / x,
        UnaryFn::Exp => x.exp(),
        UnaryFn::Log => x.ln(),
        UnaryFn::Erf => erf(x),
        UnaryFn::Tanh => x.tanh(),
        UnaryFn::Sin => x.sin(),
        UnaryFn::Cos => x.cos(),
        UnaryFn::Sigmoid => sigmoid(x),
        UnaryFn::Relu => {
            if x < 0.0 {
                0.0
            } else {
                x
            }
        }
        UnaryFn::Gelu => x * 0.5 * (1.0 + erf(x / SQRT_2)),
        UnaryFn::GeluTanh => {
            let inner = (2.0 / PI).sqrt() * (x + 0.044715 * x * x * x);
            x * 0.5 * (1.0 + inner.tanh())
        }
        UnaryFn::Silu => x * sigmoid(x),
        UnaryFn::HardSwish => x * (x / 6.0 + 0.5).clamp(0.0, 1.0),
        UnaryFn::Floor => x.floor(),
        UnaryFn::Ceil => x.ceil(),
        UnaryFn::Round => x.round_ties_even(),
        UnaryFn::Not => f64::NAN,
    }
}

/// `f(a, b)` in f64; comparisons give 1 or 0.
pub fn binary_f64(f: BinaryFn, a: f64, b: f64) -> f64 {
    let truth = |t: bool| f64::from(u8::from(t));
    match f {
        BinaryFn::Add => a + b,
        BinaryFn::Sub => a - b,
        BinaryFn::Mul => a * b,
        BinaryFn::Div => a / b,
        BinaryFn::Pow => a.powf(b),
        BinaryFn::Min if a.is_nan() || b.is_nan() => f64::NAN,
        BinaryFn::Max if a.is_nan() || b.is_nan() => f64::NAN,
        BinaryFn::Min => a.min(b),
        BinaryFn::Max => a.max(b),
        BinaryFn::Mod => {
            let r = a % b;
            if r != 0.0 && (r < 0.0) != (b < 0.0) {
                r + b
            } else {
                r
            }
        }
        BinaryFn::Eq => truth(a == b),
        BinaryFn::Ne => truth(a != b),
        BinaryFn::Lt => truth(a < b),
        BinaryFn::Le => truth(a <= b),
        BinaryFn::Gt => truth(a > b),
        BinaryFn::Ge => truth(a >= b),
        BinaryFn::And | BinaryFn::Or | BinaryFn::Xor => f64::NAN,
    }
}

/// `f(a, b)` on integers, wrapping; `None` for a division by zero and a negative power.
#[inline]
pub fn binary_i64(f: BinaryFn, a: i64, b: i64) -> Option<i64> {
    Some(match f {
        BinaryFn::Add => a.wrapping_add(b),
        BinaryFn::Sub => a.wrapping_sub(b),
        BinaryFn::Mul => a.wrapping_mul(b),
        BinaryFn::Div if b == 0 => return None,
        BinaryFn::Mod if b == 0 => return None,
        BinaryFn::Div => a.wrapping_div(b),
        BinaryFn::Mod => {
            let r = a.wrapping_rem(b);
            if r != 0 && (r < 0) != (b < 0) {
                r + b
            } else {
                r
            }
        }
        BinaryFn::Pow => {
            let e = u32::try_from(b).ok()?;
            a.wrapping_pow(e)
        }
        BinaryFn::Min => a.min(b),
        BinaryFn::Max => a.max(b),
        BinaryFn::And => a & b,
        BinaryFn::Or => a | b,
        BinaryFn::Xor => a ^ b,
        BinaryFn::Eq => i64::from(a == b),
        BinaryFn::Ne => i64::from(a != b),
        BinaryFn::Lt => i64::from(a < b),
        BinaryFn::Le => i64::from(a <= b),
        BinaryFn::Gt => i64::from(a > b),
        BinaryFn::Ge => i64::from(a >= b),
    })
}

/// The error of integers for which [`binary_i64`] is not defined: those of the user's data.
pub fn undefined(f: BinaryFn, a: i64, b: i64) -> Diagnostic {
    let message = format!("integer {} of {a} and {b} is not defined", f.name());
    Diagnostic::error(704, Class::Input, message)
}

pub(super) fn unary(f: UnaryFn, a: &Nums) -> Result<Nums> {
    Ok(match a {
        Nums::F(v) => Nums::F(v.iter().map(|x| unary_f64(f, *x)).collect()),
        Nums::I(v) => {
            let g: fn(i64) -> i64 = match f {
                UnaryFn::Neg => i64::wrapping_neg,
                UnaryFn::Abs => i64::wrapping_abs,
                UnaryFn::Relu => |x| x.max(0),
                UnaryFn::Not => |x| i64::from(x == 0),
                _ => {
                    return Err(internal(format!(
                        "{} is not defined for integers",
                        f.name()
                    )));
                }
            };
            Nums::I(v.iter().map(|x| g(*x)).collect())
        }
    })
}

pub(super) fn binary(f: BinaryFn, a: &Nums, b: &Nums) -> Result<Nums> {
    match (a, b) {
        (Nums::F(a), Nums::F(b)) if f.is_compare() => Ok(Nums::I(
            a.iter()
                .zip(b)
                .map(|(a, b)| binary_f64(f, *a, *b) as i64)
                .collect(),
        )),
        (Nums::F(a), Nums::F(b)) => Ok(Nums::F(
            a.iter()
                .zip(b)
                .map(|(a, b)| binary_f64(f, *a, *b))
                .collect(),
        )),
        (Nums::I(a), Nums::I(b)) => {
            let one =
                |(a, b): (&i64, &i64)| binary_i64(f, *a, *b).ok_or_else(|| undefined(f, *a, *b));
            let v: Result<Vec<i64>> = a.iter().zip(b).map(one).collect();
            Ok(Nums::I(v?))
        }
        _ => Err(internal(format!("{} of a float and an integer", f.name()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn erf_agrees_with_tabulated_values() {
        // Python's math.erf.
        for (x, want) in [
            (0.5, 0.520_499_877_813_046_5),
            (1.0, 0.842_700_792_949_714_9),
            (2.0, 0.995_322_265_018_952_7),
            (2.999, 0.9999777698314002),
            (3.5, 0.999_999_256_901_627_7),
            (5.0, 0.999_999_999_998_462_5),
        ] {
            assert!((erf(x) - want).abs() < 1e-12, "erf({x}) = {}", erf(x));
            assert_eq!(erf(-x), -erf(x));
        }
        assert!(erf(f64::NAN).is_nan());
    }

    #[test]
    fn mod_takes_the_sign_of_the_divisor() {
        assert_eq!(binary_i64(BinaryFn::Mod, -7, 3), Some(2));
        assert_eq!(binary_i64(BinaryFn::Mod, 7, -3), Some(-2));
        assert_eq!(binary_f64(BinaryFn::Mod, -7.0, 3.0), 2.0);
        assert_eq!(binary_i64(BinaryFn::Div, 1, 0), None);
    }
}
