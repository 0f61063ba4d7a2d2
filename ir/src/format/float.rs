//! Conversions between `f32` and the narrow floats, one element at a time.
//!
//! Every narrow format is sign, exponent, mantissa:
//! `value = (-1)^s * 2^(e - bias) * (1 + m / 2^man)`, and `2^(1 - bias) * m / 2^man` when `e = 0`.
//!
//! | format | exponent, mantissa bits | bias | largest finite | infinities | NaN codes | source |
//! |---|---|---|---|---|---|---|
//! | f16 | 5, 10 | 15 | 65504 | yes | `7c01..=7fff` | IEEE 754-2019 binary16 |
//! | bf16 | 8, 7 | 127 | 3.3895e38 | yes | `7f81..=7fff` | upper half of binary32 |
//! | e4m3 | 4, 3 | 7 | 448 | no | `7f` | OCP OFP8 1.0, §5.1; ONNX `FLOAT8E4M3FN` |
//! | e5m2 | 5, 2 | 15 | 57344 | yes | `7d..=7f` | OCP OFP8 1.0, §5.2; ONNX `FLOAT8E5M2` |
//! | e2m1 | 2, 1 | 1 | 6 | no | none | OCP MX 1.0, §5.3.3; ONNX `FLOAT4E2M1` |
//!
//! Encoding rounds to nearest, ties to the even code, and keeps the sign of zero. A NaN becomes
//! the quiet NaN of the format with the sign kept (f16 `7e00`, bf16 `7fc0`, e4m3 `7f`, e5m2
//! `7e`). Whether a value has overflowed is decided after rounding: 464 is a tie between 448 and
//! the absent 480 and becomes 448 in e4m3 under either [`Overflow`]. f16 and bf16 overflow to
//! infinity, as IEEE 754 and the ONNX `Cast` operator define; e2m1 saturates always, and a NaN,
//! which it does not have, becomes 6 (PTX `cvt.satfinite`).
//!
//! Decoding is exact. A NaN keeps its sign; f16 and bf16 keep the payload too.

/// What encoding to e4m3 or e5m2 does with a value beyond the largest finite one, infinities
/// included (the `saturate` attribute of ONNX `Cast` and `QuantizeLinear`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Overflow {
    /// `saturate = 1`, the ONNX default: the largest finite value of that sign.
    #[default]
    Saturate,
    /// `saturate = 0`: NaN in e4m3, infinity in e5m2, with the sign kept.
    Special,
}

/// The constants of one narrow float; codes are without the sign bit.
#[derive(Clone, Copy)]
struct Layout {
    man: u32,
    bias: u32,
    /// Bits of the whole code, the sign bit included.
    bits: u32,
    /// The largest finite code.
    max: u32,
    /// The code for values that overflow when they may not saturate.
    overflow: u32,
    nan: u32,
}

const F16: Layout = Layout {
    man: 10,
    bias: 15,
    bits: 16,
    max: 0x7bff,
    overflow: 0x7c00,
    nan: 0x7e00,
};
const BF16: Layout = Layout {
    man: 7,
    bias: 127,
    bits: 16,
    max: 0x7f7f,
    overflow: 0x7f80,
    nan: 0x7fc0,
};
const E4M3: Layout = Layout {
    man: 3,
    bias: 7,
    bits: 8,
    max: 0x7e,
    overflow: 0x7f,
    nan: 0x7f,
};
const E5M2: Layout = Layout {
    man: 2,
    bias: 15,
    bits: 8,
    max: 0x7b,
    overflow: 0x7c,
    nan: 0x7e,
};

const E2M1: Layout = Layout {
    man: 1,
    bias: 1,
    bits: 4,
    max: 0x7,
    overflow: 0x7,
    nan: 0x7,
};

const SIGN: u32 = 0x8000_0000;
const INF: u32 = 0x7f80_0000;

/// Both ranges are computed and one is selected, so that loops over slices vectorise.
#[inline(always)]
const fn encode(x: f32, to: Layout, overflow: Overflow) -> u32 {
    let bits = x.to_bits();
    let abs = bits & !SIGN;
    let sign = (bits & SIGN) >> (32 - to.bits);
    let drop = 23 - to.man;

    // Normal codes: move the exponent to the new bias, then add just under half of the last
    // kept place (exactly half when that place is odd) and cut. Carries run into the exponent.
    let moved = abs.wrapping_sub((127 - to.bias) << 23);
    let half = (1 << (drop - 1)) - 1 + ((moved >> drop) & 1);
    let normal = moved.wrapping_add(half) >> drop;

    // Subnormal codes: in `abs + 2^k` the last place of the f32 sum is the smallest subnormal,
    // so the addition itself rounds to nearest even and leaves the code in the low bits. A
    // format with the bias of f32 needs no such path: its subnormals are cut like the rest.
    let code = if to.bias != 127 && abs < (128 - to.bias) << 23 {
        let anchor = (151 - to.bias - to.man) << 23;
        (f32::from_bits(abs) + f32::from_bits(anchor)).to_bits() - anchor
    } else {
        normal
    };

    let finite_or_over = if code <= to.max {
        code
    } else {
        match overflow {
            Overflow::Saturate => to.max,
            Overflow::Special => to.overflow,
        }
    };
    sign | if abs > INF { to.nan } else { finite_or_over }
}

/// The f32 bits of a finite code (of any but bf16, whose codes are f32 bits already).
#[inline(always)]
const fn decode_finite(code: u32, from: Layout) -> u32 {
    let abs = code & ((1 << (from.bits - 1)) - 1);
    let sign = (code >> (from.bits - 1)) << 31;
    let wide = abs << (23 - from.man);
    let offset = (127 - from.bias) << 23;
    sign | if abs >> from.man == 0 {
        // 2^(1-bias) * (1 + m) - 2^(1-bias): exact, and free of f32 subnormals.
        let least = offset + (1 << 23);
        (f32::from_bits(least + wide) - f32::from_bits(least)).to_bits()
    } else {
        offset + wide
    }
}

/// Encodes to f16 (binary16); overflow gives infinity.
#[inline]
pub const fn encode_f16(x: f32) -> u16 {
    encode(x, F16, Overflow::Special) as u16
}

/// Encodes to bf16; overflow gives infinity.
#[inline]
pub const fn encode_bf16(x: f32) -> u16 {
    encode(x, BF16, Overflow::Special) as u16
}

/// Encodes to e4m3 (`FLOAT8E4M3FN`).
#[inline]
pub const fn encode_e4m3(x: f32, overflow: Overflow) -> u8 {
    encode(x, E4M3, overflow) as u8
}

/// Encodes to e5m2 (`FLOAT8E5M2`).
#[inline]
pub const fn encode_e5m2(x: f32, overflow: Overflow) -> u8 {
    encode(x, E5M2, overflow) as u8
}

/// Encodes to e2m1 (`FLOAT4E2M1`), in the low nibble; saturates.
#[inline]
pub const fn encode_e2m1(x: f32) -> u8 {
    if x.is_nan() {
        return E2M1.nan as u8;
    }
    encode(x, E2M1, Overflow::Saturate) as u8
}

/// The value of an f16 code.
#[inline]
pub const fn decode_f16(code: u16) -> f32 {
    let finite = decode_finite(code as u32, F16);
    // Exponent 31 is reserved: its image under the rebias is 143, f32's is 255.
    let special = if code & 0x7c00 == 0x7c00 {
        112 << 23
    } else {
        0
    };
    f32::from_bits(finite + special)
}

/// The value of a bf16 code.
#[inline]
pub const fn decode_bf16(code: u16) -> f32 {
    f32::from_bits((code as u32) << 16)
}

/// The value of an e4m3 code.
#[inline]
pub const fn decode_e4m3(code: u8) -> f32 {
    E4M3_VALUES[code as usize]
}

/// The value of an e5m2 code.
#[inline]
pub const fn decode_e5m2(code: u8) -> f32 {
    E5M2_VALUES[code as usize]
}

/// The value of an e2m1 code, of which the low nibble counts.
#[inline]
pub const fn decode_e2m1(code: u8) -> f32 {
    f32::from_bits(decode_finite(code as u32 & 15, E2M1))
}

static E4M3_VALUES: [f32; 256] = table(E4M3);
static E5M2_VALUES: [f32; 256] = table(E5M2);

/// The values of all codes of an 8-bit float.
const fn table(of: Layout) -> [f32; 256] {
    let mut values = [0.0; 256];
    let mut code = 0;
    while code < 256 {
        let abs = code & 0x7f;
        let bits = if abs <= of.max {
            decode_finite(code, of)
        } else {
            let special = if abs == of.overflow && of.overflow != of.nan {
                INF
            } else {
                0x7fc0_0000
            };
            (code >> 7) << 31 | special
        };
        values[code as usize] = f32::from_bits(bits);
        code += 1;
    }
    values
}

/// Narrows to `f32` by rounding to odd: the last bit of an inexact result is set.
///
/// Rounding the result once more, to any narrower format of this module, then equals rounding
/// `x` directly (Boldo and Melquiond 2008, "Emulation of FMA and correctly rounded sums"), so
/// `encode_f16(round_to_odd(x))` has no double rounding. Finite values stay finite.
#[inline]
pub fn round_to_odd(x: f64) -> f32 {
    let nearest = x as f32;
    let back = f64::from(nearest);
    if back == x || x.is_nan() {
        return nearest;
    }
    let bits = nearest.to_bits();
    let toward_zero = if back.abs() > x.abs() { bits - 1 } else { bits };
    f32::from_bits(toward_zero | 1)
}
