//! E8M0: powers of two, the scales of MX blocks (OCP MX 1.0, §5.4).
//!
//! Code `c` is `2^(c − 127)`; 255 is NaN. There is no zero, no sign and no infinity.
//!
//! A block's scale is the exponent of its largest magnitude over that of the greatest code. Public
//! tools differ in what they do with the mantissa, so that is a choice ([`PowerRound`]) and part
//! of the type. With `2^e ≤ absmax < 2^(e+1)`, `2^p` the power of two in the greatest code (p = 2
//! for e2m1, 8 for e4m3, 15 for e5m2):
//!
//! | name | scale | known from |
//! |---|---|---|
//! | `floor` | `2^(e − p)`: values beyond the greatest code saturate | OCP MX |
//! | `rceil` | the least power of two that is at least `absmax / qmax`: nothing saturates | cuBLAS, torchao |
//! | `even` | as `floor`, after `absmax` is rounded (half up) to the mantissa of the codes | torchao, compressed-tensors |
//!
//! Scales below 2^-127 are 2^-127.

use super::{DType, QuantFormat};
use std::fmt;
use std::str::FromStr;

/// How the scale of a block becomes a power of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PowerRound {
    /// `floor`: by the exponent of the largest magnitude.
    Floor,
    /// `rceil`: the next power of two from the exact scale on.
    Ceil,
    /// `even`: by the exponent of the largest magnitude as the codes round it.
    Even,
}

/// The e8m0 code of the power of two nearest to `x`, ties to the greater. What is not positive and
/// finite, or rounds to 2^128, is NaN. Of the numbers below 2^-126, those above 2^-127 round up, as
/// in ml_dtypes.
#[inline]
pub const fn encode_e8m0(x: f32) -> u8 {
    match x.to_bits() {
        _ if !(x > 0.0 && x.is_finite()) => 255,
        // 2^-127 is a subnormal f32.
        bits if bits <= 0x0040_0000 => 0,
        bits => ((bits + 0x0040_0000) >> 23) as u8,
    }
}

/// The value of an e8m0 code.
#[inline]
pub const fn decode_e8m0(code: u8) -> f32 {
    f32::from_bits(match code {
        0 => 0x0040_0000,
        255 => 0x7fc0_0000,
        c => (c as u32) << 23,
    })
}

impl PowerRound {
    /// Every way, in declaration order.
    pub const ALL: [PowerRound; 3] = [PowerRound::Floor, PowerRound::Ceil, PowerRound::Even];

    /// The name in the text form.
    pub const fn name(self) -> &'static str {
        match self {
            PowerRound::Floor => "floor",
            PowerRound::Ceil => "rceil",
            PowerRound::Even => "even",
        }
    }

    /// The scale of a block with this finite `absmax`; 1 where that is 0.
    pub(super) fn scale(self, absmax: f32, format: QuantFormat) -> f32 {
        if absmax == 0.0 {
            return 1.0;
        }
        let top = exponent(format.max());
        let e = match self {
            PowerRound::Floor => exponent(absmax) - top,
            PowerRound::Even => {
                let half = 1 << (22 - mantissa(format.dtype()));
                exponent(f32::from_bits(absmax.to_bits() + half)) - top
            }
            PowerRound::Ceil => {
                let exact = f64::from(absmax) / f64::from(format.max());
                let bits = exact.to_bits();
                let whole = bits & ((1 << 52) - 1) == 0;
                (bits >> 52) as i32 - 1023 + i32::from(!whole)
            }
        };
        decode_e8m0((e + 127).clamp(0, 254) as u8)
    }
}

/// `⌊log2 x⌋` of a positive number, also a subnormal one.
fn exponent(x: f32) -> i32 {
    // Every f32 is a normal f64.
    (f64::from(x).to_bits() >> 52) as i32 - 1023
}

/// Bits of a code behind the leading one.
fn mantissa(d: DType) -> u32 {
    match d {
        DType::E4M3 => 3,
        DType::E5M2 => 2,
        DType::E2M1 => 1,
        // Codes without exponents: the leading bit decides.
        _ => 0,
    }
}

impl fmt::Display for PowerRound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for PowerRound {
    type Err = ();

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|r| r.name() == s).ok_or(())
    }
}
