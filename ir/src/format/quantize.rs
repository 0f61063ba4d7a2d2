//! Quantization of one number.
//!
//! ```text
//! quantize(x)      = saturate(round(x / scale) + zero)      all in f32, true division
//! dequantize(code) = (code - zero) * scale                  in f32, the difference is exact
//! ```
//!
//! This is ONNX `QuantizeLinear` and `DequantizeLinear` with an `f32` scale. Integer storages
//! round half to even and saturate to their [`IntRange`]. For the others `round` and `saturate`
//! are those of the format ([`super::Overflow::Saturate`]) and the zero point is 0. A NaN input
//! gives code 0 in an integer storage, NaN in an 8-bit float, 6 in e2m1 and 0 in nf4. A scale that is stored
//! in f16 or bf16 is decoded first; it is that rounded value that divides.

use super::float::{decode_e2m1, decode_e4m3, decode_e5m2, encode_e2m1, encode_e4m3, encode_e5m2};
use super::table::{NF4_VALUES, decode_nf4, encode_nf4};
use super::{DType, FormatError, Overflow};

/// Which codes of an integer storage are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Range {
    /// All of them, as ONNX defines: `[-128, 127]`, `[-8, 7]`, `[0, 255]`.
    #[default]
    Full,
    /// Signed integers without the lowest code: `[-127, 127]`, `[-7, 7]`.
    Narrow,
}

/// The least and the greatest code of an integer storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IntRange {
    /// The least code.
    pub min: i32,
    /// The greatest code.
    pub max: i32,
}

/// A storage of quantized codes with its range: one of i2, u2, i4, u4, i8, u8, i16, u16, i32,
/// e4m3, e5m2, e2m1, nf4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct QuantFormat {
    dtype: DType,
    range: Range,
    codes: Codes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Codes {
    /// An integer of at most 16 bits.
    Int(IntRange),
    /// A 32-bit integer: beyond the exact integers of `f32`.
    Int32(IntRange),
    E4M3,
    E5M2,
    E2M1,
    Nf4,
}

impl QuantFormat {
    /// The storage `dtype` limited to `range`.
    ///
    /// # Errors
    /// [`FormatError::NotQuantizable`]; [`FormatError::NoNarrowRange`] when `range` is narrow
    /// and `dtype` is not a signed integer.
    pub fn new(dtype: DType, range: Range) -> Result<Self, FormatError> {
        let int = |min: i32, max: i32| match range {
            Range::Full => IntRange { min, max },
            Range::Narrow => IntRange { min: -max, max },
        };
        let codes = match dtype {
            DType::I2 => Codes::Int(int(-2, 1)),
            DType::U2 => Codes::Int(int(0, 3)),
            DType::I4 => Codes::Int(int(-8, 7)),
            DType::U4 => Codes::Int(int(0, 15)),
            DType::I8 => Codes::Int(int(-128, 127)),
            DType::U8 => Codes::Int(int(0, 255)),
            DType::I16 => Codes::Int(int(-32768, 32767)),
            DType::U16 => Codes::Int(int(0, 65535)),
            DType::I32 => Codes::Int32(int(i32::MIN, i32::MAX)),
            DType::E4M3 => Codes::E4M3,
            DType::E5M2 => Codes::E5M2,
            DType::E2M1 => Codes::E2M1,
            DType::NF4 => Codes::Nf4,
            _ => return Err(FormatError::NotQuantizable(dtype)),
        };
        if range == Range::Narrow && dtype.kind() != super::Kind::Signed {
            return Err(FormatError::NoNarrowRange(dtype));
        }
        Ok(Self {
            dtype,
            range,
            codes,
        })
    }

    /// The storage with its full range.
    ///
    /// # Errors
    /// [`FormatError::NotQuantizable`].
    pub fn full(dtype: DType) -> Result<Self, FormatError> {
        Self::new(dtype, Range::Full)
    }

    /// The storage.
    pub fn dtype(self) -> DType {
        self.dtype
    }

    /// The range it is limited to.
    pub fn range(self) -> Range {
        self.range
    }

    /// The least and greatest code of an integer storage; `None` for the floats.
    pub fn int_range(self) -> Option<IntRange> {
        match self.codes {
            Codes::Int(range) | Codes::Int32(range) => Some(range),
            Codes::E4M3 | Codes::E5M2 | Codes::E2M1 | Codes::Nf4 => None,
        }
    }

    /// The value of the greatest finite code: 127, 7, 255, …, 448 for e4m3, 57344 for e5m2, 6 for
    /// e2m1, 1 for nf4.
    ///
    /// It is the usual denominator of [`super::scale_symmetric`]. Other conventions exist and are
    /// passed there instead, for instance 7.5 for i4 (half the width of `[-8, 7]`).
    pub fn max(self) -> f32 {
        match self.codes {
            Codes::Int(range) | Codes::Int32(range) => range.max as f32,
            Codes::E4M3 => 448.0,
            Codes::E5M2 => 57344.0,
            Codes::E2M1 => 6.0,
            Codes::Nf4 => 1.0,
        }
    }

    /// Whether `zero` may be a zero point: within the full range of an integer storage, 0 for
    /// the floats.
    pub fn allows_zero(self, zero: i32) -> bool {
        match (self.codes, self.range) {
            (Codes::Int(range), Range::Full) => (range.min..=range.max).contains(&zero),
            (Codes::Int(range), Range::Narrow) => (range.min - 1..=range.max).contains(&zero),
            (Codes::Int32(_), _) => true,
            (Codes::E4M3 | Codes::E5M2 | Codes::E2M1 | Codes::Nf4, _) => zero == 0,
        }
    }

    /// The least and the greatest `x / scale + zero` that round to a code without saturation:
    /// half a step beyond the outermost codes, of which `levels` may leave fewer.
    pub fn unclipped(self, levels: Option<IntRange>) -> (f32, f32) {
        match (self.codes, levels) {
            (Codes::Int(r) | Codes::Int32(r), None) | (_, Some(r)) => {
                (r.min as f32 - 0.5, r.max as f32 + 0.5)
            }
            // The steps below 448, 57344 and 6 are 32, 8192 and 2.
            (Codes::E4M3, None) => (-464.0, 464.0),
            (Codes::E5M2, None) => (-61440.0, 61440.0),
            (Codes::E2M1, None) => (-7.0, 7.0),
            (Codes::Nf4, None) => {
                let v = &NF4_VALUES;
                (1.5 * v[0] - 0.5 * v[1], 1.5 * v[15] - 0.5 * v[14])
            }
        }
    }

    pub(super) fn codes(self) -> Codes {
        self.codes
    }

    /// `saturate(round(x / scale) + zero)`: an integer code, or the bits of a narrow float. `zero` must satisfy [`Self::allows_zero`]; the floats ignore it.
    pub fn quantize(self, x: f32, scale: f32, zero: i32) -> i32 {
        match self.codes {
            Codes::Int(range) => quantize_int(x, scale, zero, range),
            Codes::Int32(range) => quantize_i32(x, scale, zero, range),
            Codes::E4M3 => i32::from(quantize_e4m3(x, scale)),
            Codes::E5M2 => i32::from(quantize_e5m2(x, scale)),
            Codes::E2M1 => i32::from(encode_e2m1(x / scale)),
            Codes::Nf4 => i32::from(encode_nf4(x / scale)),
        }
    }

    /// `(code - zero) * scale` for a code as [`Self::quantize`] gives it. Of a float's code the
    /// low bits count, and `zero` is ignored.
    pub fn dequantize(self, code: i32, scale: f32, zero: i32) -> f32 {
        match self.codes {
            Codes::Int(_) | Codes::Int32(_) => dequantize_int(code, scale, zero),
            Codes::E4M3 => decode_e4m3(code as u8) * scale,
            Codes::E5M2 => decode_e5m2(code as u8) * scale,
            Codes::E2M1 => decode_e2m1(code as u8) * scale,
            Codes::Nf4 => decode_nf4(code as u8) * scale,
        }
    }
}

/// For storages of at most 16 bits.
#[inline(always)]
pub(super) fn quantize_int(x: f32, scale: f32, zero: i32, range: IntRange) -> i32 {
    // Past 2^18 every code and zero point saturates, so the clamp changes nothing. It makes
    // `q + 1.5 * 2^23` exact to the unit: the sum rounds half to even and leaves the integer in
    // its low bits. Unlike `round_ties_even` this needs no SSE4.1 to vectorise.
    const LIMIT: f32 = 262_144.0;
    const ANCHOR: f32 = 12_582_912.0;
    let q = x / scale;
    let rounded = (q.clamp(-LIMIT, LIMIT) + ANCHOR).to_bits() as i32 - ANCHOR.to_bits() as i32;
    let code = rounded.saturating_add(zero).clamp(range.min, range.max);
    if q.is_nan() { 0 } else { code }
}

#[inline(always)]
pub(super) fn quantize_i32(x: f32, scale: f32, zero: i32, range: IntRange) -> i32 {
    let sum = f64::from((x / scale).round_ties_even()) + f64::from(zero);
    (sum as i32).clamp(range.min, range.max)
}

#[inline(always)]
pub(super) fn quantize_e4m3(x: f32, scale: f32) -> u8 {
    encode_e4m3(x / scale, Overflow::Saturate)
}

#[inline(always)]
pub(super) fn quantize_e5m2(x: f32, scale: f32) -> u8 {
    encode_e5m2(x / scale, Overflow::Saturate)
}

#[inline(always)]
pub(super) fn dequantize_int(code: i32, scale: f32, zero: i32) -> f32 {
    (i64::from(code) - i64::from(zero)) as f32 * scale
}
