//! Float arithmetic in every rounding direction, from exact residuals.
//!
//! A result rounded to odd in f64 (the last bit is set when anything was lost) rounds correctly to any
//! format of at most 51 bits in any direction afterwards, so f32, f16 and bf16 all go through it.

use super::format::{F32, Rnd};

/// `hi` moved to the odd neighbour on the side of the lost part `err`.
fn odd(hi: f64, err: f64) -> f64 {
    if err == 0.0 || !hi.is_finite() || hi.to_bits() & 1 == 1 {
        return hi;
    }
    let towards_zero = (err < 0.0) == (hi > 0.0);
    let bits = hi.to_bits();
    f64::from_bits(if towards_zero { bits - 1 } else { bits + 1 })
}

/// a + b rounded to odd.
pub(crate) fn add_odd(a: f64, b: f64) -> f64 {
    let s = a + b;
    if !s.is_finite() || s == 0.0 {
        return s;
    }
    let bb = s - a;
    odd(s, (a - (s - bb)) + (b - bb))
}

/// a · b + c rounded to odd, when a · b is exact in f64 (both of at most 26 bits).
pub(crate) fn fma_odd(a: f64, b: f64, c: f64) -> f64 {
    add_odd(a * b, c)
}

/// a / b rounded to odd.
pub(crate) fn div_odd(a: f64, b: f64) -> f64 {
    let q = a / b;
    if !q.is_finite() || q == 0.0 {
        return q;
    }
    let r = (-q).mul_add(b, a);
    odd(q, if b < 0.0 { -r } else { r })
}

/// Square root rounded to odd.
pub(crate) fn sqrt_odd(a: f64) -> f64 {
    let q = a.sqrt();
    if !q.is_finite() || q == 0.0 {
        return q;
    }
    odd(q, (-q).mul_add(q, a))
}

/// f64 to f32 in a direction, NaN made canonical.
pub(crate) fn to_f32(x: f64, rnd: Rnd) -> f32 {
    f32::from_bits(F32.encode(x, rnd, false))
}

/// The sign of an exact zero sum: minus only when rounding down or both are minus zero.
fn zero_sum(a: f64, b: f64, rnd: Rnd) -> f64 {
    let minus = if a.is_sign_negative() == b.is_sign_negative() {
        a.is_sign_negative()
    } else {
        rnd == Rnd::Down
    };
    if minus { -0.0 } else { 0.0 }
}

/// f32 a · b + c in a direction.
pub(crate) fn fma32(a: f32, b: f32, c: f32, rnd: Rnd) -> f32 {
    if rnd == Rnd::Near {
        return canon(a.mul_add(b, c));
    }
    let (p, c) = (f64::from(a) * f64::from(b), f64::from(c));
    let s = add_odd(p, c);
    if s == 0.0 {
        zero_sum(p, c, rnd) as f32
    } else {
        to_f32(s, rnd)
    }
}

/// f32 a + b in a direction.
pub(crate) fn add32(a: f32, b: f32, rnd: Rnd) -> f32 {
    if rnd == Rnd::Near {
        return canon(a + b);
    }
    let (a, b) = (f64::from(a), f64::from(b));
    let s = add_odd(a, b);
    if s == 0.0 {
        zero_sum(a, b, rnd) as f32
    } else {
        to_f32(s, rnd)
    }
}

/// f64 a + b in a direction.
pub(crate) fn add64(a: f64, b: f64, rnd: Rnd) -> f64 {
    let s = a + b;
    if rnd == Rnd::Near || !s.is_finite() {
        return directed_limit(s, a.is_finite() && b.is_finite(), rnd);
    }
    if s == 0.0 {
        return zero_sum(a, b, rnd);
    }
    let bb = s - a;
    directed(s, (a - (s - bb)) + (b - bb), rnd)
}

/// f64 a · b + c in a direction. The residual is that of the product and that of the sum.
pub(crate) fn fma64(a: f64, b: f64, c: f64, rnd: Rnd) -> f64 {
    let s = a.mul_add(b, c);
    if rnd == Rnd::Near || !s.is_finite() {
        return directed_limit(s, a.is_finite() && b.is_finite() && c.is_finite(), rnd);
    }
    let p = a * b;
    if s == 0.0 {
        return zero_sum(p, c, rnd);
    }
    let low = a.mul_add(b, -p);
    // p + low + c - s, largest terms first: p + c - s is exact by Sterbenz or small against low.
    let t = p + c;
    let tt = t - p;
    let err = (t - s) + (((p - (t - tt)) + (c - tt)) + low);
    directed(s, err, rnd)
}

/// f64 a / b in a direction.
pub(crate) fn div64(a: f64, b: f64, rnd: Rnd) -> f64 {
    let q = a / b;
    if rnd == Rnd::Near || !q.is_finite() || q == 0.0 {
        return directed_limit(q, a.is_finite() && b.is_finite() && b != 0.0, rnd);
    }
    let r = (-q).mul_add(b, a);
    directed(q, if b < 0.0 { -r } else { r }, rnd)
}

/// f64 square root in a direction.
pub(crate) fn sqrt64(a: f64, rnd: Rnd) -> f64 {
    let q = a.sqrt();
    if rnd == Rnd::Near || !q.is_finite() || q == 0.0 {
        return q;
    }
    directed(q, (-q).mul_add(q, a), rnd)
}

fn directed_limit(s: f64, finite_inputs: bool, rnd: Rnd) -> f64 {
    let inward = match rnd {
        Rnd::Zero => true,
        Rnd::Down => s > 0.0,
        Rnd::Up => s < 0.0,
        Rnd::Near | Rnd::Away => false,
    };
    if s.is_infinite() && finite_inputs && inward {
        f64::MAX.copysign(s)
    } else {
        s
    }
}

/// `s` was rounded to nearest and `err` was lost: move it one step when the direction asks for it.
fn directed(s: f64, err: f64, rnd: Rnd) -> f64 {
    if err == 0.0 {
        return s;
    }
    let up = err > 0.0;
    match rnd {
        Rnd::Down if !up => s.next_down(),
        Rnd::Up if up => s.next_up(),
        Rnd::Zero if up && s < 0.0 => s.next_up(),
        Rnd::Zero if !up && s > 0.0 => s.next_down(),
        _ => s,
    }
}

/// The NaN of f32 arithmetic is 0x7fffffff whatever the inputs.
#[inline]
pub(crate) fn canon(x: f32) -> f32 {
    if x.is_nan() {
        f32::from_bits(0x7fff_ffff)
    } else {
        x
    }
}

/// Subnormals to zero of the same sign.
#[inline]
pub(crate) fn flush(x: f32) -> f32 {
    if x.to_bits() & 0x7f80_0000 == 0 {
        f32::from_bits(x.to_bits() & 0x8000_0000)
    } else {
        x
    }
}

/// `.sat`: into [0, 1], NaN to +0.
#[inline]
pub(crate) fn saturate(x: f32) -> f32 {
    if x > 0.0 { x.min(1.0) } else { 0.0 }
}

/// `min` of the ISA: the number when one is NaN, -0 below +0.
#[inline]
pub(crate) fn min32(a: f32, b: f32) -> f32 {
    if a.is_nan() || b.is_nan() {
        return if a.is_nan() { canon(b) } else { a };
    }
    if a == b {
        f32::from_bits(a.to_bits() | b.to_bits() & 0x8000_0000)
    } else if a < b {
        a
    } else {
        b
    }
}

/// `max` of the ISA: the number when one is NaN, +0 above -0.
#[inline]
pub(crate) fn max32(a: f32, b: f32) -> f32 {
    if a.is_nan() || b.is_nan() {
        return if a.is_nan() { canon(b) } else { a };
    }
    if a == b {
        f32::from_bits(a.to_bits() & (b.to_bits() | 0x7fff_ffff))
    } else if a > b {
        a
    } else {
        b
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Vec<f32> {
        let mut x = 0x1234_5678u32;
        let mut out = vec![0.0, -0.0, 1.0, -1.0, 1e-40, -3e-45, 3.4e38, f32::INFINITY];
        for _ in 0..300 {
            x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            out.push(f32::from_bits(x));
            out.push(f32::from_bits(x & 0x00ff_ffff | 0x3f00_0000));
        }
        out
    }

    #[test]
    fn odd_rounding_to_nearest_equals_the_hardware() {
        let v = samples();
        for w in v.windows(3) {
            let (a, b, c) = (f64::from(w[0]), f64::from(w[1]), f64::from(w[2]));
            let same =
                |x: f32, y: f32| assert!(x == y || x.is_nan() && y.is_nan(), "{x:e} {y:e} {w:?}");
            same(to_f32(add_odd(a, b), Rnd::Near), w[0] + w[1]);
            same(
                to_f32(fma_odd(a, b, c), Rnd::Near),
                w[0].mul_add(w[1], w[2]),
            );
            same(to_f32(div_odd(a, b), Rnd::Near), w[0] / w[1]);
            same(to_f32(sqrt_odd(a), Rnd::Near), w[0].sqrt());
        }
    }

    #[test]
    fn directions_bracket_the_nearest() {
        for w in samples().windows(3) {
            let [near, zero, down, up] =
                [Rnd::Near, Rnd::Zero, Rnd::Down, Rnd::Up].map(|r| fma32(w[0], w[1], w[2], r));
            if near.is_finite() {
                assert!(down <= near && near <= up && zero.abs() <= near.abs());
                assert!(down == up || down.next_up() == up, "{w:?}");
            }
            let (a, b) = (f64::from(w[0]), f64::from(w[1]));
            let (lo, hi) = (div64(a, b, Rnd::Down), div64(a, b, Rnd::Up));
            assert!(lo.is_nan() || lo == hi || lo.next_up() == hi);
        }
    }
}
