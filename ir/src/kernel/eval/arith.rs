//! Lane-wise operations on codes.

use super::super::{Cmp, Math, NanMode, Op, Round, Sat};
use super::number::{convert, from_f64, integral, odd_quotient, odd_sum, to_f64, to_int, wrap};
use super::{EvalError, Evaluated};
use crate::DType;
use crate::eval::erf;

/// One lane of an operation; `from` is the format of the operands, `to` of the result.
pub(super) fn lane(op: &Op, from: DType, to: DType, a: &[u64]) -> Evaluated<u64> {
    if let Op::Convert { round, sat } = op {
        return Ok(convert(from, to, a[0], *round, *sat));
    }
    if let Op::Cmp { cmp } = op {
        return Ok(u64::from(compare(*cmp, from, a[0], a[1])));
    }
    if to.is_float() {
        float(op, to, a)
    } else {
        int(op, to, a)
    }
}

fn compare(cmp: Cmp, dtype: DType, a: u64, b: u64) -> bool {
    let order = match dtype.is_float() {
        true => to_f64(dtype, a).partial_cmp(&to_f64(dtype, b)),
        false => Some(to_int(dtype, a).cmp(&to_int(dtype, b))),
    };
    match (cmp, order) {
        (Cmp::Ne, None) => true,
        (_, None) => false,
        (Cmp::Eq, Some(o)) => o.is_eq(),
        (Cmp::Ne, Some(o)) => o.is_ne(),
        (Cmp::Lt, Some(o)) => o.is_lt(),
        (Cmp::Le, Some(o)) => o.is_le(),
        (Cmp::Gt, Some(o)) => o.is_gt(),
        (Cmp::Ge, Some(o)) => o.is_ge(),
    }
}

fn int(op: &Op, dtype: DType, codes: &[u64]) -> Evaluated<u64> {
    let v = |i: usize| to_int(dtype, codes[i]);
    let bits = dtype.bits();
    let word = |i: usize| codes[i] as u32;
    let out = match op {
        Op::INeg => -v(0),
        Op::IAbs => v(0).abs(),
        Op::IAdd => v(0) + v(1),
        Op::ISub => v(0) - v(1),
        Op::IMul => v(0).wrapping_mul(v(1)),
        Op::IMulHi => v(0).wrapping_mul(v(1)) >> bits,
        Op::IMad => v(0).wrapping_mul(v(1)).wrapping_add(v(2)),
        Op::IDiv | Op::IRem if v(1) == 0 => return Err(EvalError::new("division by zero")),
        Op::IDiv => v(0) / v(1),
        Op::IRem => v(0) % v(1),
        Op::IMin => v(0).min(v(1)),
        Op::IMax => v(0).max(v(1)),
        Op::And => v(0) & v(1),
        Op::Or => v(0) | v(1),
        Op::Xor => v(0) ^ v(1),
        Op::Not if dtype == DType::Bool => 1 - v(0),
        Op::Not => !v(0),
        Op::Shl if codes[1] >= u64::from(bits) => 0,
        Op::Shl => v(0) << codes[1],
        Op::Shr => v(0) >> codes[1].min(u64::from(bits)),
        Op::Popc => i128::from(word(0).count_ones()),
        Op::Clz => i128::from(word(0).leading_zeros()),
        _ => {
            return Err(EvalError::new(format!(
                "no integer meaning of `{}`",
                op.name()
            )));
        }
    };
    Ok(wrap(dtype, out))
}

/// Operations on 32-bit words, whatever lanes they hold.
pub(super) fn word(op: &Op, a: u32, b: u32, c: u32) -> Option<u32> {
    Some(match op {
        Op::Lop3 { table } => (0..32).fold(0, |out, i| {
            let row = (a >> i & 1) << 2 | (b >> i & 1) << 1 | (c >> i & 1);
            out | (u32::from(*table) >> row & 1) << i
        }),
        Op::Prmt => (0..4).fold(0, |out, i| {
            let selector = c >> (4 * i) & 0xf;
            let byte = (u64::from(b) << 32 | u64::from(a)) >> (8 * (selector & 7)) & 0xff;
            let byte = if selector & 8 == 0 {
                byte as u32
            } else {
                0xff * (byte as u32 >> 7)
            };
            out | byte << (8 * i)
        }),
        Op::FunnelShl => ((u64::from(b) << 32 | u64::from(a)) << (c % 32) >> 32) as u32,
        Op::FunnelShr => ((u64::from(b) << 32 | u64::from(a)) >> (c % 32)) as u32,
        _ => return None,
    })
}

/// `c + Σ a_i b_i` over four bytes of these formats.
pub(super) fn dp4a(a: DType, b: DType, x: &[u64], y: &[u64], c: u64) -> u64 {
    let sum: i128 = x
        .iter()
        .zip(y)
        .map(|(&x, &y)| to_int(a, x) * to_int(b, y))
        .sum();
    (sum as u32).wrapping_add(c as u32).into()
}

fn float(op: &Op, dtype: DType, codes: &[u64]) -> Evaluated<u64> {
    let x = |i: usize| to_f64(dtype, codes[i]);
    let sign = 1u64 << (dtype.bits() - 1);
    let put = |v: f64, round: Round| from_f64(dtype, v, round, Sat::Wrap);
    let wide = |round: Round| match (dtype, round) {
        (DType::F64, Round::Rn) | (DType::F32 | DType::F16 | DType::BF16, _) => Ok(()),
        _ => Err(EvalError::new("directed rounding of f64 is not executed")),
    };
    Ok(match *op {
        Op::FNeg => codes[0] ^ sign,
        Op::FAbs => codes[0] & !sign,
        Op::FAdd { round }
        | Op::FSub { round }
        | Op::FMul { round }
        | Op::FDiv { round }
        | Op::Fma { round } => {
            wide(round)?;
            put(
                arithmetic(op, dtype, &[x(0), x(1), codes.get(2).map_or(0.0, |_| x(2))]),
                round,
            )
        }
        Op::FMin { nan } => extremum(dtype, codes, nan, true),
        Op::FMax { nan } => extremum(dtype, codes, nan, false),
        Op::FRound { round } => put(integral(x(0), round), Round::Rn),
        Op::Math { func, .. } => put(math(func, x(0)), Round::Rn),
        _ => {
            return Err(EvalError::new(format!(
                "no float meaning of `{}`",
                op.name()
            )));
        }
    })
}

/// The result exactly or rounded to odd (f64: rounded to nearest).
fn arithmetic(op: &Op, dtype: DType, x: &[f64; 3]) -> f64 {
    let wide = dtype == DType::F64;
    match op {
        Op::FAdd { .. } if wide => x[0] + x[1],
        Op::FSub { .. } if wide => x[0] - x[1],
        Op::FDiv { .. } if wide => x[0] / x[1],
        Op::Fma { .. } if wide => x[0].mul_add(x[1], x[2]),
        Op::FAdd { .. } => odd_sum(x[0], x[1]),
        Op::FSub { .. } => odd_sum(x[0], -x[1]),
        Op::FDiv { .. } => odd_quotient(x[0], x[1]),
        // Products of 24-bit numbers are exact.
        Op::Fma { .. } => odd_sum(x[0] * x[1], x[2]),
        _ => x[0] * x[1],
    }
}

fn extremum(dtype: DType, codes: &[u64], nan: NanMode, min: bool) -> u64 {
    let (a, b) = (to_f64(dtype, codes[0]), to_f64(dtype, codes[1]));
    match (a.is_nan(), b.is_nan()) {
        (true, true) => return codes[0],
        (true, false) | (false, true) if nan == NanMode::Propagate => {
            return if a.is_nan() { codes[0] } else { codes[1] };
        }
        (true, false) => return codes[1],
        (false, true) => return codes[0],
        _ => {}
    }
    // Equal numbers differ at most in the sign of zero.
    let first = if a == b {
        a.is_sign_negative() == min
    } else {
        (a < b) == min
    };
    codes[usize::from(!first)]
}

fn math(func: Math, x: f64) -> f64 {
    match func {
        Math::Sqrt => x.sqrt(),
        Math::Rsqrt => 1.0 / x.sqrt(),
        Math::Rcp => 1.0 / x,
        Math::Exp2 => x.exp2(),
        Math::Log2 => x.log2(),
        Math::Exp => x.exp(),
        Math::Log => x.ln(),
        Math::Sin => x.sin(),
        Math::Cos => x.cos(),
        Math::Tanh => x.tanh(),
        Math::Erf => erf(x),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        assert_eq!(
            word(&Op::Lop3 { table: 0xea }, 0b1100, 0b1010, 0b0001),
            Some(0b1001)
        );
        assert_eq!(
            word(&Op::Prmt, 0x3322_1180, 0x7766_5544, 0x5480),
            Some(0x5544_ff80)
        );
        assert_eq!(word(&Op::FunnelShl, 0x8000_0000, 0x1, 1), Some(3));
        assert_eq!(word(&Op::FunnelShr, 0x8000_0000, 0x1, 31), Some(3));
    }

    #[test]
    fn signed_zeros_are_ordered() {
        let (plus, minus) = (0u64, 0x8000_0000);
        for codes in [[plus, minus], [minus, plus]] {
            assert_eq!(extremum(DType::F32, &codes, NanMode::Number, true), minus);
            assert_eq!(extremum(DType::F32, &codes, NanMode::Number, false), plus);
        }
    }
}
