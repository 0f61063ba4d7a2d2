//! Codes and the numbers they mean: decoding, and encoding with any rounding.
//!
//! Encoding goes through f64 values that are exact or *rounded to odd* (an inexact result gets an
//! odd last bit). With 53 bits to at most 24 + 2, rounding such a value once more is the same as
//! rounding the exact number once.

use super::super::{Round, Sat};
use crate::DType;
use crate::format::{
    Kind, Overflow, decode_bf16, decode_e4m3, decode_e5m2, decode_f16, encode_bf16, encode_e4m3,
    encode_e5m2, encode_f16, round_to_odd,
};

/// The number that a float's code means.
pub(super) fn to_f64(dtype: DType, code: u64) -> f64 {
    match dtype {
        DType::F64 => f64::from_bits(code),
        DType::F32 => f64::from(f32::from_bits(code as u32)),
        DType::F16 => f64::from(decode_f16(code as u16)),
        DType::BF16 => f64::from(decode_bf16(code as u16)),
        DType::E4M3 => f64::from(decode_e4m3(code as u8)),
        DType::E5M2 => f64::from(decode_e5m2(code as u8)),
        _ => to_int(dtype, code) as f64,
    }
}

/// The number that an integer's or truth value's code means.
pub(super) fn to_int(dtype: DType, code: u64) -> i128 {
    let bits = dtype.bits();
    match dtype.kind() {
        Kind::Signed => i128::from(((code << (64 - bits)) as i64) >> (64 - bits)),
        _ => i128::from(code),
    }
}

/// The low bits of an integer as a code.
pub(super) fn wrap(dtype: DType, v: i128) -> u64 {
    let bits = dtype.bits();
    let low = v as u64;
    if bits == 64 {
        low
    } else {
        low & ((1 << bits) - 1)
    }
}

/// Least and greatest value of an integer format.
pub(super) fn int_range(dtype: DType) -> (i128, i128) {
    let bits = dtype.bits();
    match dtype.kind() {
        Kind::Signed => (-(1i128 << (bits - 1)), (1i128 << (bits - 1)) - 1),
        Kind::Bool => (0, 1),
        _ => (0, (1i128 << bits) - 1),
    }
}

fn nearest(dtype: DType, x: f64, sat: Sat) -> u64 {
    let overflow = if sat == Sat::Sat {
        Overflow::Saturate
    } else {
        Overflow::Special
    };
    let code = match dtype {
        DType::F64 => return x.to_bits(),
        DType::F32 => u64::from((x as f32).to_bits()),
        DType::F16 => u64::from(encode_f16(round_to_odd(x))),
        DType::BF16 => u64::from(encode_bf16(round_to_odd(x))),
        DType::E4M3 => u64::from(encode_e4m3(round_to_odd(x), overflow)),
        _ => u64::from(encode_e5m2(round_to_odd(x), overflow)),
    };
    let infinite = to_f64(dtype, code).is_infinite();
    if sat == Sat::Sat && infinite {
        code - 1
    } else {
        code
    }
}

/// The code of a float format for a number that is exact or rounded to odd.
pub(super) fn from_f64(dtype: DType, x: f64, round: Round, sat: Sat) -> u64 {
    let code = nearest(dtype, x, sat);
    let y = to_f64(dtype, code);
    if round == Round::Rn || x.is_nan() || y.is_nan() || x.is_infinite() || dtype == DType::F64 {
        return code;
    }
    let sign = 1u64 << (dtype.bits() - 1);
    let toward_zero = |code: u64| if code & !sign == 0 { code } else { code - 1 };
    let away = |code: u64| code + 1;
    let negative = x < 0.0 || (x == 0.0 && x.is_sign_negative());
    let grow = match round {
        Round::Rp => !negative,
        Round::Rm => negative,
        _ => false,
    };
    match (grow, y.abs() > x.abs(), y.abs() < x.abs()) {
        (false, true, _) => toward_zero(code),
        (true, _, true) => away(code),
        _ => code,
    }
}

/// `a + b` rounded to odd.
pub(super) fn odd_sum(a: f64, b: f64) -> f64 {
    let s = a + b;
    if !s.is_finite() {
        return s;
    }
    // TwoSum (Knuth): a + b = s + e exactly.
    let t = s - a;
    let e = (a - (s - t)) + (b - t);
    to_odd(s, e)
}

/// `a / b` rounded to odd, for finite quotients of numbers with at most 24 bits.
pub(super) fn odd_quotient(a: f64, b: f64) -> f64 {
    let q = a / b;
    if !q.is_finite() || b == 0.0 {
        return q;
    }
    let rest = (-q).mul_add(b, a);
    to_odd(q, if b < 0.0 { -rest } else { rest })
}

/// The nearest value `s` moved to the odd neighbour when the exact number is `s + e`, `e ≠ 0`.
fn to_odd(s: f64, e: f64) -> f64 {
    if e == 0.0 || s.to_bits() & 1 == 1 {
        return s;
    }
    let outward = (e > 0.0) == (s > 0.0) && s != 0.0;
    match outward {
        true => f64::from_bits(s.to_bits() + 1),
        false if s == 0.0 => e,
        false => f64::from_bits(s.to_bits() - 1),
    }
}

/// An integer as f64, rounded to odd.
fn odd_int(v: i128) -> f64 {
    let magnitude = v.unsigned_abs();
    let extra = (128 - magnitude.leading_zeros()).saturating_sub(53);
    let kept = magnitude >> extra;
    let lost = magnitude & ((1 << extra) - 1) != 0;
    let odd = (kept | u128::from(lost)) << extra;
    // At most 53 significant bits: exact.
    if v < 0 { -(odd as f64) } else { odd as f64 }
}

/// An integral number nearest to `x` in this direction.
pub(super) fn integral(x: f64, round: Round) -> f64 {
    match round {
        Round::Rn => x.round_ties_even(),
        Round::Rz => x.trunc(),
        Round::Rm => x.floor(),
        Round::Rp => x.ceil(),
    }
}

/// Converts a code between formats, as the operation `cvt` does.
pub(super) fn convert(from: DType, to: DType, code: u64, round: Round, sat: Sat) -> u64 {
    if from == to {
        return code;
    }
    match (from.is_float(), to.kind()) {
        (true, Kind::Float) => from_f64(to, to_f64(from, code), round, sat),
        (false, Kind::Float) => from_f64(to, odd_int(to_int(from, code)), round, sat),
        (true, Kind::Bool) => u64::from(to_f64(from, code) != 0.0),
        (false, Kind::Bool) => u64::from(code != 0),
        (true, _) => {
            let x = integral(to_f64(from, code), round);
            let (low, high) = int_range(to);
            // `as` clamps and sends NaN to 0.
            wrap(to, (x as i128).clamp(low, high))
        }
        (false, _) => {
            let v = to_int(from, code);
            let (low, high) = int_range(to);
            wrap(
                to,
                if sat == Sat::Sat {
                    v.clamp(low, high)
                } else {
                    v
                },
            )
        }
    }
}

/// The numbers that consecutive elements mean; empty bytes of a last element count as zero.
pub fn decode(dtype: DType, bytes: &[u8]) -> Vec<f64> {
    let width = (dtype.bits() / 8).max(1) as usize;
    let code = |chunk: &[u8]| chunk.iter().rev().fold(0u64, |v, &b| v << 8 | u64::from(b));
    bytes
        .chunks(width)
        .map(|chunk| to_f64(dtype, code(chunk)))
        .collect()
}

/// Numbers as consecutive elements, rounded to nearest even, saturating.
pub fn encode(dtype: DType, values: &[f64]) -> Vec<u8> {
    let width = (dtype.bits() / 8).max(1) as usize;
    let code = |x: f64| match dtype.kind() {
        Kind::Float => from_f64(dtype, x, Round::Rn, Sat::Sat),
        _ => convert(DType::F64, dtype, x.to_bits(), Round::Rn, Sat::Sat),
    };
    values
        .iter()
        .flat_map(|&x| code(x).to_le_bytes().into_iter().take(width))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directed_rounding_brackets_the_number() {
        for x in [1.0 + 1e-9, 3.3e-42, -7.7, 65519.9, 1e-50, 3.5e38] {
            for dtype in [DType::F32, DType::F16] {
                let at = |round| to_f64(dtype, from_f64(dtype, x, round, Sat::Wrap));
                assert!(at(Round::Rm) <= x && x <= at(Round::Rp), "{dtype} {x}");
                assert!(at(Round::Rz).abs() <= x.abs(), "{dtype} {x}");
                let steps = from_f64(dtype, x.abs(), Round::Rp, Sat::Wrap)
                    - from_f64(dtype, x.abs(), Round::Rm, Sat::Wrap);
                assert!(steps <= 1, "{dtype} {x}: neighbours");
            }
        }
    }

    #[test]
    fn sums_and_quotients_round_once() {
        // 1 + 2^-60 is above 1: odd keeps that, so rounding up sees it.
        let odd = odd_sum(1.0, 2f64.powi(-60));
        assert!(odd > 1.0);
        assert_eq!(
            from_f64(DType::F32, odd, Round::Rp, Sat::Wrap),
            u64::from((1.0f32.to_bits()) + 1)
        );
        let third = odd_quotient(1.0, 3.0);
        assert_eq!(
            from_f64(DType::F32, third, Round::Rn, Sat::Wrap),
            u64::from((1.0f32 / 3.0).to_bits())
        );
    }

    #[test]
    fn integers_round_once() {
        let v = (1u64 << 62) + (1 << 54) + 1;
        let code = convert(DType::U64, DType::BF16, v, Round::Rn, Sat::Wrap);
        assert_eq!(code, 0x5e81, "just above the tie");
        assert_eq!(
            convert(
                DType::F32,
                DType::I8,
                u64::from(f32::NAN.to_bits()),
                Round::Rn,
                Sat::Wrap
            ),
            0
        );
        assert_eq!(
            convert(
                DType::F32,
                DType::I8,
                u64::from(1e9f32.to_bits()),
                Round::Rn,
                Sat::Wrap
            ),
            127
        );
        assert_eq!(
            convert(DType::I32, DType::U8, 0xffff_ffff, Round::Rn, Sat::Sat),
            0
        );
    }
}
