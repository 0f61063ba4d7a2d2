//! Integer, logic and bit instructions (PTX ISA §9.7.1, §9.7.8).

use super::{compare, lane};
use crate::isa::types::Ty;
use crate::isa::{CmpFn, LaneFn};

/// Two- and three-source integer operations that exist at 16, 32 and 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IntOp {
    Add,
    Sub,
    MulLo,
    MulHi,
    MulWide,
    MadLo,
    MadHi,
    MadWide,
    Sad,
    Div,
    Rem,
    Abs,
    Neg,
    Min,
    Max,
    And,
    Or,
    Xor,
    Not,
    Cnot,
    Shl,
    Shr,
}

/// Evaluates for one width: `$u` and `$s` are its Rust types, `$w` and `$ws` those of twice the width.
macro_rules! width {
    ($op:expr, $signed:expr, $u:ty, $s:ty, $w:ty, $ws:ty) => {{
        const BITS: u32 = <$u>::BITS;
        Some(match ($op, $signed) {
            (IntOp::Add, _) => lane!(|a, b| (a as $u).wrapping_add(b as $u) as u64),
            (IntOp::Sub, _) => lane!(|a, b| (a as $u).wrapping_sub(b as $u) as u64),
            (IntOp::MulLo, _) => lane!(|a, b| (a as $u).wrapping_mul(b as $u) as u64),
            (IntOp::MadLo, _) => {
                lane!(|a, b, c| (a as $u).wrapping_mul(b as $u).wrapping_add(c as $u) as u64)
            }
            (IntOp::MulHi, false) => {
                lane!(|a, b| ((a as $u as $w * b as $u as $w) >> BITS) as $u as u64)
            }
            (IntOp::MulHi, true) => {
                lane!(|a, b| ((a as $s as $ws * b as $s as $ws) >> BITS) as $u as u64)
            }
            (IntOp::MadHi, false) => {
                lane!(|a, b, c| (((a as $u as $w * b as $u as $w) >> BITS) as $u)
                    .wrapping_add(c as $u) as u64)
            }
            (IntOp::MadHi, true) => {
                lane!(
                    |a, b, c| (((a as $s as $ws * b as $s as $ws) >> BITS) as $u)
                        .wrapping_add(c as $u) as u64
                )
            }
            (IntOp::MulWide, false) => lane!(|a, b| (a as $u as $w * b as $u as $w) as $w as u64),
            (IntOp::MulWide, true) => lane!(|a, b| (a as $s as $ws * b as $s as $ws) as $w as u64),
            (IntOp::MadWide, false) => {
                lane!(|a, b, c| (a as $u as $w * b as $u as $w).wrapping_add(c as $w) as u64)
            }
            (IntOp::MadWide, true) => {
                lane!(
                    |a, b, c| (a as $s as $ws * b as $s as $ws).wrapping_add(c as $ws) as $w as u64
                )
            }
            (IntOp::Sad, false) => {
                lane!(|a, b, c| (a as $u).abs_diff(b as $u).wrapping_add(c as $u) as u64)
            }
            (IntOp::Sad, true) => {
                lane!(|a, b, c| (a as $s).abs_diff(b as $s).wrapping_add(c as $u) as u64)
            }
            // Division by zero is unspecified in the ISA; the hardware routine yields all ones.
            (IntOp::Div, false) => {
                lane!(|a, b| (a as $u).checked_div(b as $u).unwrap_or(<$u>::MAX) as u64)
            }
            (IntOp::Div, true) => {
                lane!(|a, b| if b as $s == 0 {
                    <$u>::MAX as u64
                } else {
                    (a as $s).wrapping_div(b as $s) as $u as u64
                })
            }
            (IntOp::Rem, false) => {
                lane!(|a, b| (a as $u).checked_rem(b as $u).unwrap_or(a as $u) as u64)
            }
            (IntOp::Rem, true) => {
                lane!(|a, b| if b as $s == 0 {
                    a as $u as u64
                } else {
                    (a as $s).wrapping_rem(b as $s) as $u as u64
                })
            }
            (IntOp::Abs, _) => lane!(|a| (a as $s).wrapping_abs() as $u as u64),
            (IntOp::Neg, _) => lane!(|a| (a as $s).wrapping_neg() as $u as u64),
            (IntOp::Min, false) => lane!(|a, b| (a as $u).min(b as $u) as u64),
            (IntOp::Min, true) => lane!(|a, b| (a as $s).min(b as $s) as $u as u64),
            (IntOp::Max, false) => lane!(|a, b| (a as $u).max(b as $u) as u64),
            (IntOp::Max, true) => lane!(|a, b| (a as $s).max(b as $s) as $u as u64),
            (IntOp::And, _) => lane!(|a, b| (a & b) as $u as u64),
            (IntOp::Or, _) => lane!(|a, b| (a | b) as $u as u64),
            (IntOp::Xor, _) => lane!(|a, b| (a ^ b) as $u as u64),
            (IntOp::Not, _) => lane!(|a| !(a as $u) as u64),
            (IntOp::Cnot, _) => lane!(|a| (a as $u == 0) as u64),
            (IntOp::Shl, _) => lane!(|a, b| if b as u32 >= BITS {
                0
            } else {
                ((a as $u) << (b as u32)) as u64
            }),
            (IntOp::Shr, false) => lane!(|a, b| if b as u32 >= BITS {
                0
            } else {
                ((a as $u) >> (b as u32)) as u64
            }),
            (IntOp::Shr, true) => {
                lane!(|a, b| ((a as $s) >> (b as u32).min(BITS - 1)) as $u as u64)
            }
        })
    }};
}

/// The lane function of `op` on type `ty`, none where the ISA has no such form.
pub(crate) fn int_op(op: IntOp, ty: Ty) -> Option<LaneFn> {
    match ty.bits {
        16 => width!(op, ty.signed(), u16, i16, u32, i32),
        32 => width!(op, ty.signed(), u32, i32, u64, i64),
        64 if matches!(op, IntOp::MulWide | IntOp::MadWide) => None,
        64 => width!(op, ty.signed(), u64, i64, u128, i128),
        _ => None,
    }
}

/// `add.sat.s32`, `sub.sat.s32`, and `mad.hi.sat.s32`.
pub(crate) fn saturating(op: IntOp) -> Option<LaneFn> {
    Some(match op {
        IntOp::Add => lane!(|a, b| u64::from((a as i32).saturating_add(b as i32) as u32)),
        IntOp::Sub => lane!(|a, b| u64::from((a as i32).saturating_sub(b as i32) as u32)),
        IntOp::MadHi => lane!(|a, b, c| {
            let hi = (i64::from(a as i32) * i64::from(b as i32)) >> 32;
            u64::from((hi as i32).saturating_add(c as i32) as u32)
        }),
        _ => return None,
    })
}

fn mul24(a: u64, b: u64, signed: bool) -> i64 {
    if signed {
        i64::from((a as i32) << 8 >> 8) * i64::from((b as i32) << 8 >> 8)
    } else {
        ((a & 0xff_ffff) * (b & 0xff_ffff)) as i64
    }
}

/// `mul24` and `mad24`: (high, signed).
pub(crate) fn mul24_op(high: bool, signed: bool) -> LaneFn {
    match (high, signed) {
        (false, false) => {
            lane!(|a, b, c| u64::from((mul24(a, b, false) as u32).wrapping_add(c as u32)))
        }
        (false, true) => {
            lane!(|a, b, c| u64::from((mul24(a, b, true) as u32).wrapping_add(c as u32)))
        }
        (true, false) => {
            lane!(|a, b, c| u64::from(((mul24(a, b, false) >> 16) as u32).wrapping_add(c as u32)))
        }
        (true, true) => {
            lane!(|a, b, c| u64::from(((mul24(a, b, true) >> 16) as u32).wrapping_add(c as u32)))
        }
    }
}

/// Bit operations with a form of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BitOp {
    Popc,
    Clz,
    Brev,
    Bfe,
    Bfi,
    Bfind { shift: bool },
    ShfL { wrap: bool },
    ShfR { wrap: bool },
    Lop3,
    Szext { wrap: bool },
    Bmsk { wrap: bool },
    Fns,
}

/// `shf`: a is the low and b the high word.
fn funnel(a: u64, b: u64, c: u64, wrap: bool, left: bool) -> u64 {
    let n = if wrap {
        c as u32 & 31
    } else {
        (c as u32).min(32)
    };
    let v = (b & 0xffff_ffff) << 32 | a & 0xffff_ffff;
    if left {
        ((u128::from(v) << n) >> 32) as u32 as u64
    } else {
        u64::from((v >> n) as u32)
    }
}

fn bfe(a: u64, b: u64, c: u64, bits: u32, signed: bool) -> u64 {
    let (pos, len) = ((b & 0xff) as u32, (c & 0xff) as u32);
    let top = bits - 1;
    let sign = if !signed || len == 0 {
        0
    } else {
        a >> (pos + len - 1).min(top) & 1
    };
    let field = if pos > top {
        0
    } else {
        (a & (u64::MAX >> (64 - bits))) >> pos
    };
    let have = if pos > top { 0 } else { len.min(bits - pos) };
    let low = if have >= 64 {
        u64::MAX
    } else {
        (1u64 << have) - 1
    };
    let value = field & low | if sign == 1 { !low } else { 0 };
    value & (u64::MAX >> (64 - bits))
}

fn bfi(a: u64, b: u64, c: u64, d: u64, bits: u32) -> u64 {
    let (pos, len) = ((c & 0xff) as u32, (d & 0xff) as u32);
    if pos >= bits {
        return b;
    }
    let len = len.min(bits - pos);
    let low = if len >= 64 {
        u64::MAX
    } else {
        (1u64 << len) - 1
    };
    b & !(low << pos) | (a & low) << pos
}

fn bfind(a: u64, bits: u32, signed: bool, shift: bool) -> u64 {
    let ext = if bits == 32 {
        i64::from(a as u32 as i32)
    } else {
        a as i64
    };
    let v = if signed && ext < 0 { !a } else { a } & (u64::MAX >> (64 - bits));
    if v == 0 {
        return 0xffff_ffff;
    }
    let pos = 63 - v.leading_zeros();
    u64::from(if shift { bits - 1 - pos } else { pos })
}

fn lop3(a: u64, b: u64, c: u64, lut: u64) -> u64 {
    let mut out = 0;
    for i in 0..8 {
        if lut >> i & 1 == 1 {
            let x = if i & 4 != 0 { a } else { !a };
            let y = if i & 2 != 0 { b } else { !b };
            let z = if i & 1 != 0 { c } else { !c };
            out |= x & y & z;
        }
    }
    out & 0xffff_ffff
}

fn szext(a: u64, b: u64, wrap: bool, signed: bool) -> u64 {
    let n = if wrap {
        b as u32 & 31
    } else {
        (b as u32).min(32)
    };
    if n == 0 {
        return 0;
    }
    let sh = 32 - n;
    u64::from(if signed {
        ((a as i32) << sh >> sh) as u32
    } else {
        (a as u32) << sh >> sh
    })
}

fn bmsk(a: u64, b: u64, wrap: bool) -> u64 {
    let (pos, len) = if wrap {
        (a as u32 & 31, b as u32 & 31)
    } else {
        (a as u32, b as u32)
    };
    if pos >= 32 {
        return 0;
    }
    let low = if len >= 32 {
        u32::MAX
    } else {
        (1u32 << len) - 1
    };
    u64::from(low << pos)
}

fn fns(mask: u64, base: u64, offset: u64) -> u64 {
    let (mask, base, mut offset) = (mask as u32, base as u32 as i64, offset as u32 as i32);
    if !(0..32).contains(&base) {
        return 0xffff_ffff;
    }
    if offset == 0 {
        return if mask >> base & 1 == 1 {
            base as u64
        } else {
            0xffff_ffff
        };
    }
    let step: i64 = if offset > 0 { 1 } else { -1 };
    let mut at = base;
    while (0..32).contains(&at) {
        if mask >> at & 1 == 1 {
            offset -= step as i32;
            if offset == 0 {
                return at as u64;
            }
        }
        at += step;
    }
    0xffff_ffff
}

/// The lane function of a bit operation on type `ty`.
pub(crate) fn bit_op(op: BitOp, ty: Ty) -> Option<LaneFn> {
    let wide = match ty.bits {
        32 => false,
        64 => true,
        _ => return None,
    };
    Some(match (op, wide) {
        (BitOp::Popc, false) => lane!(|a| u64::from((a as u32).count_ones())),
        (BitOp::Popc, true) => lane!(|a| u64::from(a.count_ones())),
        (BitOp::Clz, false) => lane!(|a| u64::from((a as u32).leading_zeros())),
        (BitOp::Clz, true) => lane!(|a| u64::from(a.leading_zeros())),
        (BitOp::Brev, false) => lane!(|a| u64::from((a as u32).reverse_bits())),
        (BitOp::Brev, true) => lane!(|a| a.reverse_bits()),
        (BitOp::Bfe, false) if ty.signed() => lane!(|a, b, c| bfe(a, b, c, 32, true)),
        (BitOp::Bfe, false) => lane!(|a, b, c| bfe(a, b, c, 32, false)),
        (BitOp::Bfe, true) if ty.signed() => lane!(|a, b, c| bfe(a, b, c, 64, true)),
        (BitOp::Bfe, true) => lane!(|a, b, c| bfe(a, b, c, 64, false)),
        (BitOp::Bfi, false) => lane!(|a, b, c, d| bfi(a, b, c, d, 32)),
        (BitOp::Bfi, true) => lane!(|a, b, c, d| bfi(a, b, c, d, 64)),
        (BitOp::Bfind { shift }, wide) => match (shift, wide, ty.signed()) {
            (false, false, false) => lane!(|a| bfind(a, 32, false, false)),
            (false, false, true) => lane!(|a| bfind(a, 32, true, false)),
            (false, true, false) => lane!(|a| bfind(a, 64, false, false)),
            (false, true, true) => lane!(|a| bfind(a, 64, true, false)),
            (true, false, false) => lane!(|a| bfind(a, 32, false, true)),
            (true, false, true) => lane!(|a| bfind(a, 32, true, true)),
            (true, true, false) => lane!(|a| bfind(a, 64, false, true)),
            (true, true, true) => lane!(|a| bfind(a, 64, true, true)),
        },
        (BitOp::ShfL { wrap: true }, false) => lane!(|a, b, c| funnel(a, b, c, true, true)),
        (BitOp::ShfL { wrap: false }, false) => lane!(|a, b, c| funnel(a, b, c, false, true)),
        (BitOp::ShfR { wrap: true }, false) => lane!(|a, b, c| funnel(a, b, c, true, false)),
        (BitOp::ShfR { wrap: false }, false) => lane!(|a, b, c| funnel(a, b, c, false, false)),
        (BitOp::Lop3, false) => lane!(|a, b, c, lut| lop3(a, b, c, lut)),
        (BitOp::Szext { wrap: true }, false) if ty.signed() => {
            lane!(|a, b| szext(a, b, true, true))
        }
        (BitOp::Szext { wrap: false }, false) if ty.signed() => {
            lane!(|a, b| szext(a, b, false, true))
        }
        (BitOp::Szext { wrap: true }, false) => lane!(|a, b| szext(a, b, true, false)),
        (BitOp::Szext { wrap: false }, false) => lane!(|a, b| szext(a, b, false, false)),
        (BitOp::Bmsk { wrap: true }, false) => lane!(|a, b| bmsk(a, b, true)),
        (BitOp::Bmsk { wrap: false }, false) => lane!(|a, b| bmsk(a, b, false)),
        (BitOp::Fns, false) => lane!(|a, b, c| fns(a, b, c)),
        _ => return None,
    })
}

/// `prmt` selection mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Prmt {
    Index,
    F4e,
    B4e,
    Rc8,
    Ecl,
    Ecr,
    Rc16,
}

fn permute(a: u64, b: u64, picks: [u64; 4]) -> u64 {
    let v = a & 0xffff_ffff | b << 32;
    let mut out = 0;
    for (i, pick) in picks.into_iter().enumerate() {
        let byte = v >> (8 * (pick & 7)) & 0xff;
        // Bit 3 of a selector replicates the sign of the byte.
        let byte = if pick & 8 != 0 {
            if byte & 0x80 != 0 { 0xff } else { 0 }
        } else {
            byte
        };
        out |= byte << (8 * i);
    }
    out
}

/// The lane function of `prmt.b32`.
pub(crate) fn prmt(mode: Prmt) -> LaneFn {
    match mode {
        Prmt::Index => {
            lane!(|a, b, c| permute(a, b, [c & 15, c >> 4 & 15, c >> 8 & 15, c >> 12 & 15]))
        }
        Prmt::F4e => lane!(|a, b, c| {
            let i = c & 3;
            permute(a, b, [i, i + 1, i + 2, i + 3])
        }),
        Prmt::B4e => lane!(|a, b, c| {
            let i = c & 3;
            permute(a, b, [i, (i + 7) & 7, (i + 6) & 7, (i + 5) & 7])
        }),
        Prmt::Rc8 => lane!(|a, b, c| permute(a, b, [c & 3; 4])),
        Prmt::Ecl => lane!(|a, b, c| {
            let i = c & 3;
            permute(a, b, [i, i.max(1), i.max(2), 3])
        }),
        Prmt::Ecr => lane!(|a, b, c| {
            let i = c & 3;
            permute(a, b, [0, i.min(1), i.min(2), i])
        }),
        Prmt::Rc16 => lane!(|a, b, c| {
            let i = (c & 1) * 2;
            permute(a, b, [i, i + 1, i, i + 1])
        }),
    }
}

fn byte(v: u64, i: u32, signed: bool) -> i32 {
    let b = (v >> (8 * i)) as u8;
    if signed {
        i32::from(b as i8)
    } else {
        i32::from(b)
    }
}

fn half_word(v: u64, i: u32, signed: bool) -> i32 {
    let b = (v >> (16 * i)) as u16;
    if signed {
        i32::from(b as i16)
    } else {
        i32::from(b)
    }
}

fn dp4a(a: u64, b: u64, c: u64, sa: bool, sb: bool) -> u64 {
    let sum = (0..4)
        .map(|i| byte(a, i, sa).wrapping_mul(byte(b, i, sb)))
        .fold(c as i32, i32::wrapping_add);
    u64::from(sum as u32)
}

fn dp2a(a: u64, b: u64, c: u64, sa: bool, sb: bool, hi: u32) -> u64 {
    let sum = (0..2)
        .map(|i| half_word(a, i, sa).wrapping_mul(byte(b, i + 2 * hi, sb)))
        .fold(c as i32, i32::wrapping_add);
    u64::from(sum as u32)
}

/// `dp4a` by the signs of its factors.
pub(crate) fn dp4a_op(sa: bool, sb: bool) -> LaneFn {
    match (sa, sb) {
        (false, false) => lane!(|a, b, c| dp4a(a, b, c, false, false)),
        (false, true) => lane!(|a, b, c| dp4a(a, b, c, false, true)),
        (true, false) => lane!(|a, b, c| dp4a(a, b, c, true, false)),
        (true, true) => lane!(|a, b, c| dp4a(a, b, c, true, true)),
    }
}

/// `dp2a.lo` and `.hi` by the signs of its factors.
pub(crate) fn dp2a_op(sa: bool, sb: bool, hi: bool) -> LaneFn {
    match (sa, sb, hi) {
        (false, false, false) => lane!(|a, b, c| dp2a(a, b, c, false, false, 0)),
        (false, true, false) => lane!(|a, b, c| dp2a(a, b, c, false, true, 0)),
        (true, false, false) => lane!(|a, b, c| dp2a(a, b, c, true, false, 0)),
        (true, true, false) => lane!(|a, b, c| dp2a(a, b, c, true, true, 0)),
        (false, false, true) => lane!(|a, b, c| dp2a(a, b, c, false, false, 1)),
        (false, true, true) => lane!(|a, b, c| dp2a(a, b, c, false, true, 1)),
        (true, false, true) => lane!(|a, b, c| dp2a(a, b, c, true, false, 1)),
        (true, true, true) => lane!(|a, b, c| dp2a(a, b, c, true, true, 1)),
    }
}

/// Packed 16-bit `add`, `min`, `max` of PTX 8.0 (sm_90).
pub(crate) fn packed16(op: IntOp, signed: bool) -> Option<LaneFn> {
    fn both(a: u64, b: u64, f: impl Fn(u16, u16) -> u16) -> u64 {
        u64::from(f(a as u16, b as u16)) | u64::from(f((a >> 16) as u16, (b >> 16) as u16)) << 16
    }
    Some(match (op, signed) {
        (IntOp::Add, _) => lane!(|a, b| both(a, b, u16::wrapping_add)),
        (IntOp::Min, false) => lane!(|a, b| both(a, b, u16::min)),
        (IntOp::Min, true) => lane!(|a, b| both(a, b, |x, y| (x as i16).min(y as i16) as u16)),
        (IntOp::Max, false) => lane!(|a, b| both(a, b, u16::max)),
        (IntOp::Max, true) => lane!(|a, b| both(a, b, |x, y| (x as i16).max(y as i16) as u16)),
        _ => return None,
    })
}

/// Integer comparison by its modifier; `lo`/`ls`/`hi`/`hs` are the unsigned names.
pub(crate) fn compare(op: &str, ty: Ty) -> Option<CmpFn> {
    macro_rules! at {
        ($t:ty) => {
            Some(match op {
                "eq" => compare!(|a, b| a as $t == b as $t),
                "ne" => compare!(|a, b| a as $t != b as $t),
                "lt" | "lo" => compare!(|a, b| (a as $t) < b as $t),
                "le" | "ls" => compare!(|a, b| a as $t <= b as $t),
                "gt" | "hi" => compare!(|a, b| a as $t > b as $t),
                "ge" | "hs" => compare!(|a, b| a as $t >= b as $t),
                _ => return None,
            })
        };
    }
    match (ty.bits, ty.signed()) {
        (16, false) => at!(u16),
        (16, true) => at!(i16),
        (32, false) => at!(u32),
        (32, true) => at!(i32),
        (64, false) => at!(u64),
        (64, true) => at!(i64),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bit_fields_follow_the_definition() {
        assert_eq!(bfe(0x8000_0000, 31, 1, 32, true), 0xffff_ffff);
        assert_eq!(bfe(0xabcd, 4, 8, 32, false), 0xbc);
        assert_eq!(bfe(0x80, 0, 8, 32, true), 0xffff_ff80);
        assert_eq!(bfi(0xff, 0, 28, 8, 32), 0xf000_0000);
        assert_eq!(bfind(0xffff_ffff, 32, true, false), 0xffff_ffff);
        assert_eq!(bfind(0x10, 32, false, true), 27);
        assert_eq!(lop3(0xf0, 0xcc, 0xaa, 0xe8), 0xe8);
        assert_eq!(lop3(0xf0, 0xcc, 0xaa, 0x96) & 0xff, 0x96);
        assert_eq!(funnel(0x8000_0001, 0x7, 1, true, true), 0xf);
        assert_eq!(funnel(0x8000_0001, 0x7, 40, false, false), 7);
        assert_eq!(permute(0x8765_4321, 0, [0, 1, 2, 0xb]), 0xff65_4321);
        assert_eq!(fns(0b1010_1000, 3, 2), 5);
    }

    #[test]
    fn dot_products_use_the_sign_of_each_factor() {
        assert_eq!(dp4a(0xff, 0xff, 1, true, false) as u32 as i32, -254);
        assert_eq!(dp4a(0xff, 0xff, 1, false, false), 255 * 255 + 1);
        assert_eq!(dp2a(0xffff, 0x0200, 0, true, true, 0) as u32, 0);
        assert_eq!(
            dp2a(0xffff_0000, 0x0200, 0, true, true, 0) as u32 as i32,
            -2
        );
    }
}
