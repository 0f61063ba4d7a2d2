//! f16, bf16 and their packed forms (PTX ISA §9.7.4). Sums and products of two halves are exact enough
//! in f32 to round once more without harm; fused multiply-add rounds to odd in f64 first.

use super::float::{FloatOp, SelectOp};
use super::lane;
use crate::isa::{CmpFn, LaneFn};
use crate::num::arith::fma_odd;
use crate::num::format::{
    BF16, F16, Format, Rnd, bf16_to_f32, f16_to_f32, f32_to_bf16, f32_to_f16,
};

/// One of the two half formats.
pub(crate) trait Half {
    const FORMAT: Format;
    fn load(code: u16) -> f32;
    fn store(x: f32) -> u16;
}

/// IEEE half.
pub(crate) struct IeeeHalf;
/// Brain float.
pub(crate) struct BrainHalf;

impl Half for IeeeHalf {
    const FORMAT: Format = F16;
    #[inline(always)]
    fn load(code: u16) -> f32 {
        f16_to_f32(code)
    }
    #[inline(always)]
    fn store(x: f32) -> u16 {
        f32_to_f16(x)
    }
}

impl Half for BrainHalf {
    const FORMAT: Format = BF16;
    #[inline(always)]
    fn load(code: u16) -> f32 {
        bf16_to_f32(code)
    }
    #[inline(always)]
    fn store(x: f32) -> u16 {
        f32_to_bf16(x)
    }
}

/// Result modifiers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct HalfMods {
    pub(crate) ftz: bool,
    pub(crate) sat: bool,
    pub(crate) relu: bool,
}

/// Applies a function to one or both halves of a register.
#[inline(always)]
fn halves<const PAIR: bool>(a: u64, b: u64, c: u64, f: impl Fn(u16, u16, u16) -> u16) -> u64 {
    let low = u64::from(f(a as u16, b as u16, c as u16));
    if !PAIR {
        return low;
    }
    low | u64::from(f((a >> 16) as u16, (b >> 16) as u16, (c >> 16) as u16)) << 16
}

fn flush16<H: Half>(h: u16) -> u16 {
    if u32::from(h) & H::FORMAT.inf_code() == 0 {
        h & 0x8000
    } else {
        h
    }
}

fn finish<H: Half>(h: u16, ftz: bool, sat: bool, relu: bool) -> u16 {
    let h = if ftz { flush16::<H>(h) } else { h };
    let x = H::load(h);
    if relu {
        return if x.is_nan() {
            0x7fff
        } else if x > 0.0 {
            h
        } else {
            0
        };
    }
    if sat {
        return if x >= 1.0 {
            H::store(1.0)
        } else if x > 0.0 {
            h
        } else {
            0
        };
    }
    h
}

fn compute<H: Half>(op: FloatOp, a: u16, b: u16, c: u16) -> u16 {
    let (x, y) = (H::load(a), H::load(b));
    match op {
        FloatOp::Add => H::store(x + y),
        FloatOp::Sub => H::store(x - y),
        FloatOp::Mul => {
            let p = f64::from(x) * f64::from(y);
            H::FORMAT.encode(p, Rnd::Near, false) as u16
        }
        _ => {
            let s = fma_odd(f64::from(x), f64::from(y), f64::from(H::load(c)));
            H::FORMAT.encode(s, Rnd::Near, false) as u16
        }
    }
}

fn arith_with<H: Half, const PAIR: bool, const FTZ: bool, const SAT: bool, const RELU: bool>(
    op: FloatOp,
) -> Option<LaneFn> {
    macro_rules! f {
        ($op:expr) => {
            lane!(|a, b, c| halves::<PAIR>(a, b, c, |x, y, z| {
                let (x, y, z) = if FTZ {
                    (flush16::<H>(x), flush16::<H>(y), flush16::<H>(z))
                } else {
                    (x, y, z)
                };
                finish::<H>(compute::<H>($op, x, y, z), FTZ, SAT, RELU)
            }))
        };
    }
    Some(match op {
        FloatOp::Add => f!(FloatOp::Add),
        FloatOp::Sub => f!(FloatOp::Sub),
        FloatOp::Mul => f!(FloatOp::Mul),
        FloatOp::Fma => f!(FloatOp::Fma),
        _ => return None,
    })
}

fn arith_pair<H: Half, const PAIR: bool>(op: FloatOp, m: HalfMods) -> Option<LaneFn> {
    match (m.ftz, m.sat, m.relu) {
        (false, false, false) => arith_with::<H, PAIR, false, false, false>(op),
        (false, true, false) => arith_with::<H, PAIR, false, true, false>(op),
        (false, false, true) => arith_with::<H, PAIR, false, false, true>(op),
        (true, false, false) => arith_with::<H, PAIR, true, false, false>(op),
        (true, true, false) => arith_with::<H, PAIR, true, true, false>(op),
        (true, false, true) => arith_with::<H, PAIR, true, false, true>(op),
        _ => None,
    }
}

/// `add`, `sub`, `mul`, `fma` of halves.
pub(crate) fn arith(op: FloatOp, bf16: bool, pair: bool, m: HalfMods) -> Option<LaneFn> {
    match (bf16, pair) {
        (false, false) => arith_pair::<IeeeHalf, false>(op, m),
        (false, true) => arith_pair::<IeeeHalf, true>(op, m),
        (true, false) => arith_pair::<BrainHalf, false>(op, m),
        (true, true) => arith_pair::<BrainHalf, true>(op, m),
    }
}

/// Minimum or maximum of two codes.
fn extreme<H: Half>(a: u16, b: u16, max: bool, nan: bool, xorsign: bool) -> u16 {
    let sign = (a ^ b) & 0x8000;
    let (a, b) = if xorsign {
        (a & 0x7fff, b & 0x7fff)
    } else {
        (a, b)
    };
    let (x, y) = (H::load(a), H::load(b));
    let m = match (x.is_nan(), y.is_nan()) {
        (true, true) => 0x7fff,
        (true, _) | (_, true) if nan => 0x7fff,
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
    };
    if xorsign { m & 0x7fff | sign } else { m }
}

fn select_with<H: Half, const PAIR: bool, const FTZ: bool>(op: SelectOp) -> Option<LaneFn> {
    macro_rules! two {
        ($max:literal, $nan:literal, $x:literal) => {
            lane!(|a, b| halves::<PAIR>(a, b, 0, |x, y, _| {
                let (x, y) = if FTZ {
                    (flush16::<H>(x), flush16::<H>(y))
                } else {
                    (x, y)
                };
                extreme::<H>(x, y, $max, $nan, $x)
            }))
        };
    }
    Some(match op {
        SelectOp::Abs => {
            lane!(
                |a| halves::<PAIR>(a, 0, 0, |x, _, _| (if FTZ { flush16::<H>(x) } else { x })
                    & 0x7fff)
            )
        }
        SelectOp::Neg => {
            lane!(
                |a| halves::<PAIR>(a, 0, 0, |x, _, _| (if FTZ { flush16::<H>(x) } else { x })
                    ^ 0x8000)
            )
        }
        SelectOp::Min {
            nan: false,
            xorsign: false,
        } => two!(false, false, false),
        SelectOp::Min {
            nan: true,
            xorsign: false,
        } => two!(false, true, false),
        SelectOp::Min {
            nan: false,
            xorsign: true,
        } => two!(false, false, true),
        SelectOp::Min {
            nan: true,
            xorsign: true,
        } => two!(false, true, true),
        SelectOp::Max {
            nan: false,
            xorsign: false,
        } => two!(true, false, false),
        SelectOp::Max {
            nan: true,
            xorsign: false,
        } => two!(true, true, false),
        SelectOp::Max {
            nan: false,
            xorsign: true,
        } => two!(true, false, true),
        SelectOp::Max {
            nan: true,
            xorsign: true,
        } => two!(true, true, true),
        _ => return None,
    })
}

/// `abs`, `neg`, `min`, `max` of halves.
pub(crate) fn select(op: SelectOp, bf16: bool, pair: bool, ftz: bool) -> Option<LaneFn> {
    match (bf16, pair, ftz) {
        (false, false, false) => select_with::<IeeeHalf, false, false>(op),
        (false, false, true) => select_with::<IeeeHalf, false, true>(op),
        (false, true, false) => select_with::<IeeeHalf, true, false>(op),
        (false, true, true) => select_with::<IeeeHalf, true, true>(op),
        (true, false, _) => select_with::<BrainHalf, false, false>(op),
        (true, true, _) => select_with::<BrainHalf, true, false>(op),
    }
}

/// Comparison of halves; `high` compares the upper halves of a pair.
#[allow(clippy::neg_cmp_op_on_partial_ord)]
pub(crate) fn compare(op: &str, bf16: bool, high: bool, ftz: bool) -> Option<CmpFn> {
    use super::compare;
    use super::float::float_compare;
    match (bf16, high, ftz) {
        (false, false, false) => float_compare!(op, |x| f16_to_f32(x as u16)),
        (false, true, false) => float_compare!(op, |x| f16_to_f32((x >> 16) as u16)),
        (false, false, true) => float_compare!(op, |x| f16_to_f32(flush16::<IeeeHalf>(x as u16))),
        (false, true, true) => {
            float_compare!(op, |x| f16_to_f32(flush16::<IeeeHalf>((x >> 16) as u16)))
        }
        (true, false, _) => float_compare!(op, |x| bf16_to_f32(x as u16)),
        (true, true, _) => float_compare!(op, |x| bf16_to_f32((x >> 16) as u16)),
    }
}
