//! f32 and f64 instructions (PTX ISA §9.7.3).

use super::{compare, lane};
use crate::isa::{CmpFn, LaneFn};
use crate::num::arith::{
    add_odd, add32, add64, canon, div_odd, div64, flush, fma_odd, fma32, fma64, max32, min32,
    saturate, sqrt_odd, sqrt64, to_f32,
};
use crate::num::format::Rnd;

/// Operations with a rounding mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FloatOp {
    Add,
    Sub,
    Mul,
    Fma,
    Div,
    Rcp,
    Sqrt,
}

#[inline(always)]
fn arg<const FTZ: bool>(bits: u64) -> f32 {
    let x = f32::from_bits(bits as u32);
    if FTZ { flush(x) } else { x }
}

#[inline(always)]
fn result<const FTZ: bool, const SAT: bool>(x: f32) -> u64 {
    let x = if FTZ { flush(x) } else { x };
    u64::from(if SAT { saturate(x) } else { x }.to_bits())
}

#[inline(always)]
fn compute<const R: u8>(op: FloatOp, a: f32, b: f32, c: f32) -> f32 {
    let rnd = rounding::<R>();
    let near = rnd == Rnd::Near;
    let (x, y) = (f64::from(a), f64::from(b));
    match op {
        FloatOp::Add => add32(a, b, rnd),
        FloatOp::Sub => add32(a, -b, rnd),
        FloatOp::Mul if near => canon(a * b),
        FloatOp::Mul => to_f32(x * y, rnd),
        FloatOp::Fma => fma32(a, b, c, rnd),
        FloatOp::Div if near => canon(a / b),
        FloatOp::Div => to_f32(div_odd(x, y), rnd),
        FloatOp::Rcp if near => canon(1.0 / a),
        FloatOp::Rcp => to_f32(div_odd(1.0, x), rnd),
        FloatOp::Sqrt if near => canon(a.sqrt()),
        FloatOp::Sqrt => to_f32(sqrt_odd(x), rnd),
    }
}

#[inline(always)]
fn rounding<const R: u8>() -> Rnd {
    match R {
        0 => Rnd::Near,
        1 => Rnd::Zero,
        2 => Rnd::Down,
        _ => Rnd::Up,
    }
}

fn pick<const R: u8, const FTZ: bool, const SAT: bool>(op: FloatOp) -> LaneFn {
    macro_rules! f {
        ($op:expr) => {
            lane!(|a, b, c| result::<FTZ, SAT>(compute::<R>(
                $op,
                arg::<FTZ>(a),
                arg::<FTZ>(b),
                arg::<FTZ>(c)
            )))
        };
    }
    match op {
        FloatOp::Add => f!(FloatOp::Add),
        FloatOp::Sub => f!(FloatOp::Sub),
        FloatOp::Mul => f!(FloatOp::Mul),
        FloatOp::Fma => f!(FloatOp::Fma),
        FloatOp::Div => f!(FloatOp::Div),
        FloatOp::Rcp => f!(FloatOp::Rcp),
        FloatOp::Sqrt => f!(FloatOp::Sqrt),
    }
}

fn flags<const R: u8>(op: FloatOp, ftz: bool, sat: bool) -> LaneFn {
    match (ftz, sat) {
        (false, false) => pick::<R, false, false>(op),
        (false, true) => pick::<R, false, true>(op),
        (true, false) => pick::<R, true, false>(op),
        (true, true) => pick::<R, true, true>(op),
    }
}

/// f32 arithmetic.
pub(crate) fn f32_op(op: FloatOp, rnd: Rnd, ftz: bool, sat: bool) -> LaneFn {
    match rnd {
        Rnd::Near | Rnd::Away => flags::<0>(op, ftz, sat),
        Rnd::Zero => flags::<1>(op, ftz, sat),
        Rnd::Down => flags::<2>(op, ftz, sat),
        Rnd::Up => flags::<3>(op, ftz, sat),
    }
}

#[inline(always)]
fn d(bits: u64) -> f64 {
    f64::from_bits(bits)
}

fn f64_pick<const R: u8>(op: FloatOp) -> LaneFn {
    match op {
        FloatOp::Add => lane!(|a, b| add64(d(a), d(b), rounding::<R>()).to_bits()),
        FloatOp::Sub => lane!(|a, b| add64(d(a), -d(b), rounding::<R>()).to_bits()),
        FloatOp::Mul => {
            lane!(
                |a, b| fma64(d(a), d(b), -0.0f64.copysign(d(a) * d(b)), rounding::<R>()).to_bits()
            )
        }
        FloatOp::Fma => lane!(|a, b, c| fma64(d(a), d(b), d(c), rounding::<R>()).to_bits()),
        FloatOp::Div => lane!(|a, b| div64(d(a), d(b), rounding::<R>()).to_bits()),
        FloatOp::Rcp => lane!(|a| div64(1.0, d(a), rounding::<R>()).to_bits()),
        FloatOp::Sqrt => lane!(|a| sqrt64(d(a), rounding::<R>()).to_bits()),
    }
}

/// f64 arithmetic.
pub(crate) fn f64_op(op: FloatOp, rnd: Rnd) -> LaneFn {
    if op == FloatOp::Mul && matches!(rnd, Rnd::Near | Rnd::Away) {
        return lane!(|a, b| (d(a) * d(b)).to_bits());
    }
    match rnd {
        Rnd::Near | Rnd::Away => f64_pick::<0>(op),
        Rnd::Zero => f64_pick::<1>(op),
        Rnd::Down => f64_pick::<2>(op),
        Rnd::Up => f64_pick::<3>(op),
    }
}

/// Sign and selection operations of f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SelectOp {
    Abs,
    Neg,
    Min { nan: bool, xorsign: bool },
    Max { nan: bool, xorsign: bool },
    Min3 { nan: bool },
    Max3 { nan: bool },
    Copysign,
}

fn nan_or(a: f32, b: f32, x: f32, nan: bool) -> f32 {
    if nan && (a.is_nan() || b.is_nan()) {
        canon(f32::NAN)
    } else {
        x
    }
}

/// Minimum or maximum with its variants.
fn extreme(a: f32, b: f32, max: bool, nan: bool, xorsign: bool) -> f32 {
    let sign = (a.to_bits() ^ b.to_bits()) & 0x8000_0000;
    let (x, y) = if xorsign { (a.abs(), b.abs()) } else { (a, b) };
    let m = nan_or(x, y, if max { max32(x, y) } else { min32(x, y) }, nan);
    if xorsign {
        f32::from_bits(m.to_bits() & 0x7fff_ffff | sign)
    } else {
        m
    }
}

fn select<const FTZ: bool>(op: SelectOp) -> LaneFn {
    macro_rules! two {
        ($max:literal, $nan:literal, $x:literal) => {
            lane!(|a, b| result::<FTZ, false>(extreme(
                arg::<FTZ>(a),
                arg::<FTZ>(b),
                $max,
                $nan,
                $x
            )))
        };
    }
    macro_rules! three {
        ($max:literal, $nan:literal) => {
            lane!(|a, b, c| {
                let x = extreme(arg::<FTZ>(a), arg::<FTZ>(b), $max, $nan, false);
                result::<FTZ, false>(extreme(x, arg::<FTZ>(c), $max, $nan, false))
            })
        };
    }
    match op {
        SelectOp::Abs => lane!(|a| u64::from(arg::<FTZ>(a).to_bits() & 0x7fff_ffff)),
        SelectOp::Neg => lane!(|a| u64::from(arg::<FTZ>(a).to_bits() ^ 0x8000_0000)),
        SelectOp::Min {
            nan: false,
            xorsign: false,
        } => two!(false, false, false),
        SelectOp::Min {
            nan: false,
            xorsign: true,
        } => two!(false, false, true),
        SelectOp::Min {
            nan: true,
            xorsign: false,
        } => two!(false, true, false),
        SelectOp::Min {
            nan: true,
            xorsign: true,
        } => two!(false, true, true),
        SelectOp::Max {
            nan: false,
            xorsign: false,
        } => two!(true, false, false),
        SelectOp::Max {
            nan: false,
            xorsign: true,
        } => two!(true, false, true),
        SelectOp::Max {
            nan: true,
            xorsign: false,
        } => two!(true, true, false),
        SelectOp::Max {
            nan: true,
            xorsign: true,
        } => two!(true, true, true),
        SelectOp::Min3 { nan: false } => three!(false, false),
        SelectOp::Min3 { nan: true } => three!(false, true),
        SelectOp::Max3 { nan: false } => three!(true, false),
        SelectOp::Max3 { nan: true } => three!(true, true),
        SelectOp::Copysign => lane!(|a, b| b & 0x7fff_ffff | a & 0x8000_0000),
    }
}

/// f32 sign and selection operations.
pub(crate) fn f32_select(op: SelectOp, ftz: bool) -> LaneFn {
    if ftz {
        select::<true>(op)
    } else {
        select::<false>(op)
    }
}

/// f64 sign and selection operations.
pub(crate) fn f64_select(op: SelectOp) -> Option<LaneFn> {
    const SIGN: u64 = 1 << 63;
    fn pick(a: u64, b: u64, max: bool) -> u64 {
        let (x, y) = (d(a), d(b));
        match (x.is_nan(), y.is_nan()) {
            (true, _) => b,
            (_, true) => a,
            _ if x == y => {
                if max {
                    a & b
                } else {
                    a | b
                }
            }
            _ => {
                if (x > y) == max {
                    a
                } else {
                    b
                }
            }
        }
    }
    Some(match op {
        SelectOp::Abs => lane!(|a| a & !SIGN),
        SelectOp::Neg => lane!(|a| a ^ SIGN),
        SelectOp::Min {
            nan: false,
            xorsign: false,
        } => lane!(|a, b| pick(a, b, false)),
        SelectOp::Max {
            nan: false,
            xorsign: false,
        } => lane!(|a, b| pick(a, b, true)),
        SelectOp::Copysign => lane!(|a, b| b & !SIGN | a & SIGN),
        _ => return None,
    })
}

/// `testp.f32` and `.f64` classes.
pub(crate) fn testp(class: &str, wide: bool) -> Option<CmpFn> {
    macro_rules! at {
        ($f:ident, $t:ty) => {
            Some(match class {
                "finite" => compare!(|a, _b| $f::from_bits(a as $t).is_finite()),
                "infinite" => compare!(|a, _b| $f::from_bits(a as $t).is_infinite()),
                "number" => compare!(|a, _b| !$f::from_bits(a as $t).is_nan()),
                "notanumber" => compare!(|a, _b| $f::from_bits(a as $t).is_nan()),
                "normal" => compare!(
                    |a, _b| $f::from_bits(a as $t).is_normal() || $f::from_bits(a as $t) == 0.0
                ),
                "subnormal" => compare!(|a, _b| $f::from_bits(a as $t).is_subnormal()),
                _ => return None,
            })
        };
    }
    if wide { at!(f64, u64) } else { at!(f32, u32) }
}

/// Ordered and unordered comparisons; `load` gives the number that a lane holds.
macro_rules! float_compare {
    ($op:expr, |$x:ident| $load:expr) => {
        match $op {
            "eq" => Some(compare!(|a, b| {
                let $x = a;
                let p = $load;
                let $x = b;
                p == $load
            })),
            "ne" => Some(compare!(|a, b| {
                let $x = a;
                let p = $load;
                let $x = b;
                let q = $load;
                p != q && !p.is_nan() && !q.is_nan()
            })),
            "lt" => Some(compare!(|a, b| {
                let $x = a;
                let p = $load;
                let $x = b;
                p < $load
            })),
            "le" => Some(compare!(|a, b| {
                let $x = a;
                let p = $load;
                let $x = b;
                p <= $load
            })),
            "gt" => Some(compare!(|a, b| {
                let $x = a;
                let p = $load;
                let $x = b;
                p > $load
            })),
            "ge" => Some(compare!(|a, b| {
                let $x = a;
                let p = $load;
                let $x = b;
                p >= $load
            })),
            "equ" => Some(compare!(|a, b| {
                let $x = a;
                let p = $load;
                let $x = b;
                let q = $load;
                p == q || p.is_nan() || q.is_nan()
            })),
            "neu" => Some(compare!(|a, b| {
                let $x = a;
                let p = $load;
                let $x = b;
                p != $load
            })),
            "ltu" => Some(compare!(|a, b| {
                let $x = a;
                let p = $load;
                let $x = b;
                !(p >= $load)
            })),
            "leu" => Some(compare!(|a, b| {
                let $x = a;
                let p = $load;
                let $x = b;
                !(p > $load)
            })),
            "gtu" => Some(compare!(|a, b| {
                let $x = a;
                let p = $load;
                let $x = b;
                !(p <= $load)
            })),
            "geu" => Some(compare!(|a, b| {
                let $x = a;
                let p = $load;
                let $x = b;
                !(p < $load)
            })),
            "num" => Some(compare!(|a, b| {
                let $x = a;
                let p = $load;
                let $x = b;
                !p.is_nan() && !$load.is_nan()
            })),
            "nan" => Some(compare!(|a, b| {
                let $x = a;
                let p = $load;
                let $x = b;
                p.is_nan() || $load.is_nan()
            })),
            _ => None,
        }
    };
}
pub(crate) use float_compare;

/// f32 or f64 comparison by its modifier.
#[allow(clippy::neg_cmp_op_on_partial_ord)]
pub(crate) fn compare(op: &str, wide: bool, ftz: bool) -> Option<CmpFn> {
    if wide {
        float_compare!(op, |x| f64::from_bits(x))
    } else if ftz {
        float_compare!(op, |x| flush(f32::from_bits(x as u32)))
    } else {
        float_compare!(op, |x| f32::from_bits(x as u32))
    }
}

/// `add{.rnd}.f32.f16` style mixed precision is computed in f64 and rounded once.
pub(crate) fn mixed(op: FloatOp, bf16: bool, rnd: Rnd) -> Option<LaneFn> {
    use crate::num::format::{bf16_to_f32, f16_to_f32};
    macro_rules! m {
        ($load:ident, $rnd:expr) => {
            match op {
                FloatOp::Add => lane!(|a, c| u64::from(
                    to_f32(
                        add_odd(
                            f64::from($load(a as u16)),
                            f64::from(f32::from_bits(c as u32))
                        ),
                        $rnd
                    )
                    .to_bits()
                )),
                FloatOp::Sub => lane!(|a, c| u64::from(
                    to_f32(
                        add_odd(
                            f64::from($load(a as u16)),
                            -f64::from(f32::from_bits(c as u32))
                        ),
                        $rnd
                    )
                    .to_bits()
                )),
                FloatOp::Fma => lane!(|a, b, c| u64::from(
                    to_f32(
                        fma_odd(
                            f64::from($load(a as u16)),
                            f64::from($load(b as u16)),
                            f64::from(f32::from_bits(c as u32))
                        ),
                        $rnd
                    )
                    .to_bits()
                )),
                _ => return None,
            }
        };
    }
    Some(match (bf16, rnd) {
        (false, Rnd::Near) => m!(f16_to_f32, Rnd::Near),
        (false, Rnd::Zero) => m!(f16_to_f32, Rnd::Zero),
        (true, Rnd::Near) => m!(bf16_to_f32, Rnd::Near),
        (true, Rnd::Zero) => m!(bf16_to_f32, Rnd::Zero),
        _ => return None,
    })
}
