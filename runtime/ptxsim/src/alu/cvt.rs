//! `cvt` in its scalar, packed and saturating forms (PTX ISA §9.7.9.21).
//!
//! Every float source is exact in f64, so a conversion is one rounding into the destination format.
//! For `cvt.….x2 d, a, b` the first source is the upper half of `d`.

use super::lane;
use crate::isa::LaneFn;
use crate::isa::types::{Kind, Ty};
use crate::num::arith::flush;
use crate::num::format::{
    BF16, F16, F32, Format, Rnd, TF32, bf16_to_f32, f16_to_f32, f32_to_bf16, f32_to_f16,
    round_shift,
};

/// One conversion.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Cvt {
    pub(crate) from: Ty,
    pub(crate) to: Ty,
    /// Rounding of the significand, or to an integer when `to_int`.
    pub(crate) rnd: Rnd,
    /// `.rni`, `.rzi`, `.rmi`, `.rpi`
    pub(crate) to_int: bool,
    pub(crate) ftz: bool,
    pub(crate) sat: bool,
    pub(crate) relu: bool,
    pub(crate) satfinite: bool,
    /// Width of the destination register: narrower integer results are extended to it.
    pub(crate) dst_bits: u32,
}

/// A number on its way: integers keep 65 bits of range.
enum Value {
    Int(i128),
    Float(f64),
}

impl Cvt {
    /// The converted bits; `b` is the second source of the packing forms.
    pub(crate) fn apply(&self, a: u64, b: u64) -> u64 {
        if self.to.kind == Kind::Pair {
            return self.packed(a, b);
        }
        let v = load(self.from, a, self.ftz);
        if self.to.is_int() {
            self.integer(v)
        } else {
            self.float(v)
        }
    }

    fn packed(&self, a: u64, b: u64) -> u64 {
        let half = self.to.bits / 2;
        let (hi, lo) = if self.from.kind == Kind::Pair {
            let width = self.from.bits / 2;
            (a >> width & ((1 << width) - 1), a & ((1 << width) - 1))
        } else {
            (a, b)
        };
        let one = |bits: u64| {
            let x = match self.from.format {
                Some(f) => f.decode(bits as u32),
                None => f64::from_bits(bits),
            };
            u64::from(self.round(x, self.to.format))
        };
        one(hi) << half | one(lo)
    }

    fn round(&self, x: f64, format: Option<Format>) -> u32 {
        let Some(f) = format else { return 0 };
        let x = if self.relu && x <= 0.0 { 0.0 } else { x };
        let x = if self.sat {
            if x > 0.0 { x.min(1.0) } else { 0.0 }
        } else {
            x
        };
        if f == TF32 {
            return TF32.encode(x, self.rnd, self.satfinite) << 13;
        }
        f.encode(x, self.rnd, self.satfinite)
    }

    fn float(&self, v: Value) -> u64 {
        match (v, self.to.format) {
            (Value::Float(x), None) => {
                let x = if self.to_int {
                    integral(x, self.rnd)
                } else {
                    x
                };
                let x = if self.sat {
                    if x > 0.0 { x.min(1.0) } else { 0.0 }
                } else {
                    x
                };
                x.to_bits()
            }
            (Value::Float(x), f) => {
                let x = if self.to_int {
                    integral(x, self.rnd)
                } else {
                    x
                };
                let bits = self.round(x, f);
                let flushed = if self.ftz && f == Some(F32) {
                    flush(f32::from_bits(bits)).to_bits()
                } else {
                    bits
                };
                u64::from(flushed)
            }
            (Value::Int(i), f) => {
                // Rounding to odd at 62 bits keeps every later rounding exact.
                let x = int_to_f64_odd(i);
                match f {
                    Some(f) => u64::from(f.encode(x, self.rnd, false)),
                    None => int_to_f64(i, self.rnd).to_bits(),
                }
            }
        }
    }

    fn integer(&self, v: Value) -> u64 {
        let bits = self.to.bits;
        let (min, max) = if self.to.signed() {
            (-(1i128 << (bits - 1)), (1i128 << (bits - 1)) - 1)
        } else {
            (0, (1i128 << bits) - 1)
        };
        let i = match v {
            Value::Int(i) if self.sat => i.clamp(min, max),
            Value::Int(i) => i,
            Value::Float(x) if x.is_nan() => {
                let wide = self.from.format.is_none() || bits == 64;
                if wide { 1i128 << (bits - 1) } else { 0 }
            }
            Value::Float(x) => {
                let x = integral(x, self.rnd);
                // Float to integer always clamps; the cast saturates at the ends of i128.
                (x as i128).clamp(min, max)
            }
        };
        let low = i as u64 & self.to.mask();
        let dst = if self.dst_bits >= 64 {
            u64::MAX
        } else {
            (1 << self.dst_bits) - 1
        };
        if self.to.signed() && bits < 64 {
            ((low << (64 - bits)) as i64 >> (64 - bits)) as u64 & dst
        } else {
            low & dst
        }
    }
}

fn load(ty: Ty, bits: u64, ftz: bool) -> Value {
    if ty.is_int() {
        let v = bits & ty.mask();
        let negative = ty.signed() && v >> (ty.bits - 1) & 1 == 1;
        return Value::Int(i128::from(v) - if negative { 1i128 << ty.bits } else { 0 });
    }
    Value::Float(match ty.format {
        None => f64::from_bits(bits),
        Some(F32) if ftz => f64::from(flush(f32::from_bits(bits as u32))),
        Some(F32) => f64::from(f32::from_bits(bits as u32)),
        Some(f) => f.decode(bits as u32),
    })
}

/// Rounds to an integer, keeping infinities, NaN and the sign of zero.
fn integral(x: f64, rnd: Rnd) -> f64 {
    match rnd {
        Rnd::Near => x.round_ties_even(),
        Rnd::Away => x.round(),
        Rnd::Zero => x.trunc(),
        Rnd::Down => x.floor(),
        Rnd::Up => x.ceil(),
    }
}

fn int_to_f64(i: i128, rnd: Rnd) -> f64 {
    let mag = i.unsigned_abs() as u64;
    if mag == 0 {
        return 0.0;
    }
    let shift = (64 - mag.leading_zeros() as i32 - 53).max(0);
    let n = round_shift(mag, shift, rnd, i < 0);
    let x = n as f64 * (1u64 << shift) as f64;
    if i < 0 { -x } else { x }
}

/// The f64 whose last bit is set when anything was lost, so that a second rounding is exact.
fn int_to_f64_odd(i: i128) -> f64 {
    let mag = i.unsigned_abs() as u64;
    let shift = (64 - mag.leading_zeros() as i32 - 53).max(0);
    let sticky = mag & ((1u64 << shift) - 1) != 0;
    let n = mag >> shift | u64::from(sticky);
    let x = n as f64 * (1u64 << shift) as f64;
    if i < 0 { -x } else { x }
}

/// A specialised lane function for the conversions that kernels spend time in.
pub(crate) fn quick(c: &Cvt) -> Option<LaneFn> {
    if c.ftz || c.sat || c.relu || c.satfinite {
        return None;
    }
    if c.from.is_int() && c.to.is_int() {
        return integer(c);
    }
    let near = c.rnd == Rnd::Near;
    let from_pair = c.from.kind == Kind::Pair;
    Some(match (c.from.format, c.to.format) {
        (Some(F32), Some(F16)) if near && !c.to_int && c.to.kind == Kind::Float => {
            lane!(|a| u64::from(f32_to_f16(f32::from_bits(a as u32))))
        }
        (Some(F32), Some(F16)) if near && !from_pair && c.to.kind == Kind::Pair => {
            lane!(|a, b| u64::from(f32_to_f16(f32::from_bits(a as u32))) << 16
                | u64::from(f32_to_f16(f32::from_bits(b as u32))))
        }
        (Some(F32), Some(BF16)) if near && !c.to_int && c.to.kind == Kind::Float => {
            lane!(|a| u64::from(f32_to_bf16(f32::from_bits(a as u32))))
        }
        (Some(F32), Some(BF16)) if near && !from_pair && c.to.kind == Kind::Pair => {
            lane!(
                |a, b| u64::from(f32_to_bf16(f32::from_bits(a as u32))) << 16
                    | u64::from(f32_to_bf16(f32::from_bits(b as u32)))
            )
        }
        (Some(F16), Some(F32)) if !c.to_int => {
            lane!(|a| u64::from(crate::num::arith::canon(f16_to_f32(a as u16)).to_bits()))
        }
        (Some(BF16), Some(F32)) if !c.to_int => {
            lane!(|a| u64::from(crate::num::arith::canon(bf16_to_f32(a as u16)).to_bits()))
        }
        (None, Some(F32)) if near && c.from.is_int() && c.from.bits == 32 && c.from.signed() => {
            lane!(|a| u64::from((a as i32 as f32).to_bits()))
        }
        (None, Some(F32)) if near && c.from.is_int() && c.from.bits == 32 => {
            lane!(|a| u64::from((a as u32 as f32).to_bits()))
        }
        _ => return None,
    })
}

fn integer(c: &Cvt) -> Option<LaneFn> {
    // Truncation to the narrower of both, then extension by the sign of the narrower type.
    let keep = c.from.bits.min(c.to.bits);
    let signed = if c.from.bits < c.to.bits {
        c.from.signed()
    } else {
        c.to.signed()
    };
    let widen_to = if c.to.signed() { c.dst_bits } else { c.to.bits };
    Some(match (keep, signed, widen_to) {
        (8, false, _) => lane!(|a| a & 0xff),
        (16, false, _) => lane!(|a| a & 0xffff),
        (32, false, _) => lane!(|a| a & 0xffff_ffff),
        (64, _, _) => lane!(|a| a),
        (8, true, 16) => lane!(|a| a as i8 as u16 as u64),
        (8, true, 32) => lane!(|a| a as i8 as u32 as u64),
        (8, true, 64) => lane!(|a| a as i8 as u64),
        (16, true, 16) => lane!(|a| a & 0xffff),
        (16, true, 32) => lane!(|a| a as i16 as u32 as u64),
        (16, true, 64) => lane!(|a| a as i16 as u64),
        (32, true, 32) => lane!(|a| a & 0xffff_ffff),
        (32, true, 64) => lane!(|a| a as i32 as u64),
        _ => return None,
    })
}

/// `cvt.pack.sat.<to>.s32[.b32] d, a, b, c`: two saturated words above the low part of c.
pub(crate) fn pack(bits: u32, signed: bool) -> Option<LaneFn> {
    fn sat(a: u64, bits: u32, signed: bool) -> u64 {
        let (min, max) = if signed {
            (-(1i64 << (bits - 1)), (1i64 << (bits - 1)) - 1)
        } else {
            (0, (1 << bits) - 1)
        };
        i64::from(a as i32).clamp(min, max) as u64 & ((1 << bits) - 1)
    }
    fn join(a: u64, b: u64, c: u64, bits: u32, signed: bool) -> u64 {
        let upper = if bits == 16 { 0 } else { c << (2 * bits) };
        (sat(a, bits, signed) << bits | sat(b, bits, signed) | upper) & 0xffff_ffff
    }
    Some(match (bits, signed) {
        (16, true) => lane!(|a, b, c| join(a, b, c, 16, true)),
        (16, false) => lane!(|a, b, c| join(a, b, c, 16, false)),
        (8, true) => lane!(|a, b, c| join(a, b, c, 8, true)),
        (8, false) => lane!(|a, b, c| join(a, b, c, 8, false)),
        (4, true) => lane!(|a, b, c| join(a, b, c, 4, true)),
        (4, false) => lane!(|a, b, c| join(a, b, c, 4, false)),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::types;

    fn cvt(from: Ty, to: Ty, rnd: Rnd) -> Cvt {
        Cvt {
            from,
            to,
            rnd,
            to_int: to.is_int(),
            ftz: false,
            sat: false,
            relu: false,
            satfinite: false,
            dst_bits: to.bits.max(16),
        }
    }

    #[test]
    fn the_first_source_of_a_packing_form_is_the_upper_half() {
        let c = Cvt {
            satfinite: true,
            ..cvt(types::F32, types::E4M3X2, Rnd::Near)
        };
        let bits = c.apply(u64::from(1f32.to_bits()), u64::from(500f32.to_bits()));
        assert_eq!(bits, 0x38_7e);
    }

    #[test]
    fn float_to_integer_clamps_and_maps_nan() {
        let s32 = types::S32;
        let c = cvt(types::F32, s32, Rnd::Near);
        let f = |x: f32| c.apply(u64::from(x.to_bits()), 0) as u32 as i32;
        assert_eq!(
            (f(2.5), f(3.5), f(-2.5), f(1e20), f(-1e20), f(f32::NAN)),
            (2, 4, -2, i32::MAX, i32::MIN, 0)
        );
        let u64_ty = Ty::named("u64").unwrap();
        let c = cvt(types::F32, u64_ty, Rnd::Zero);
        assert_eq!(c.apply(u64::from(f32::NAN.to_bits()), 0), 1 << 63);
        assert_eq!(c.apply(u64::from((-3f32).to_bits()), 0), 0);
    }

    #[test]
    fn wide_integers_round_once() {
        let c = cvt(Ty::named("u64").unwrap(), types::F32, Rnd::Near);
        for v in [
            u64::MAX,
            (1 << 40) + (1 << 16) + 1,
            0x8000_0080_0000_0001,
            12_345_678_901_234_567,
        ] {
            assert_eq!(c.apply(v, 0) as u32, (v as f32).to_bits());
        }
    }

    #[test]
    fn quick_paths_equal_the_general_one() {
        let names = [
            "u16", "s16", "u32", "s32", "u64", "s64", "s8", "u8", "f16", "bf16", "f32",
        ];
        for from in names {
            for to in names {
                let c = cvt(Ty::named(from).unwrap(), Ty::named(to).unwrap(), Rnd::Near);
                let Some(f) = quick(&c) else { continue };
                let mut x = 0x9e37_79b9_7f4a_7c15u64;
                for _ in 0..2000 {
                    x ^= x << 7;
                    x ^= x >> 9;
                    let v = x & c.from.mask();
                    let mut d = [0; 32];
                    f(&mut d, [&[v; 32], &[0; 32], &[0; 32], &[0; 32]], u32::MAX);
                    assert_eq!(d[0], c.apply(v, 0), "{from} to {to} of {v:x}");
                }
            }
        }
    }
}
