//! Number formats: what a stored code means.
//!
//! [`DType`] names every storage format that a tensor, a scale or a kernel register may have.
//! The codecs beside it are the only definition of each format in the project: constant
//! folding, CPU kernels and emitted PTX are all tested against them, code by code.

mod block;
mod error;
mod float;
mod power;
mod quantize;
mod scale;
mod slice;
mod table;
mod tensor;

pub use block::{Block, BlockShape};
pub use error::FormatError;
pub use float::{
    Overflow, decode_bf16, decode_e2m1, decode_e4m3, decode_e5m2, decode_f16, encode_bf16,
    encode_e2m1, encode_e4m3, encode_e5m2, encode_f16, round_to_odd,
};
pub use power::{PowerRound, decode_e8m0, encode_e8m0};
pub use quantize::{IntRange, QuantFormat, Range};
pub use scale::{
    scale_asymmetric, scale_asymmetric_in, scale_global, scale_power, scale_symmetric,
    scale_two_level,
};
pub use slice::{
    Real, decode_slice, decode_slice_i64, encode_slice, encode_slice_i64, encode_slice_with,
    round_slice,
};
pub use table::{NF4_VALUES, decode_nf4, encode_nf4};
pub use tensor::{
    QuantParams, absmax_nd, clipped_nd, dequantize_nd, dequantize_table_nd, minmax_nd, quantize_nd,
};

use std::fmt;
use std::str::FromStr;

/// A storage format: how one element is encoded in bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DType {
    /// IEEE 754 binary64.
    F64,
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary16.
    F16,
    /// bfloat16: the upper half of binary32.
    BF16,
    /// OCP FP8 E4M3 (`float8_e4m3fn`): bias 7, no infinities, largest value 448.
    E4M3,
    /// OCP FP8 E5M2: bias 15, infinities, largest finite value 57344.
    E5M2,
    /// OCP MX E2M1 (`float4_e2m1fn`): 0, 0.5, 1, 1.5, 2, 3, 4, 6 and their negatives, packed as
    /// `i4`.
    E2M1,
    /// OCP MX E8M0: the powers of two from 2^-127 to 2^127, and NaN. Only scales have it.
    E8M0,
    /// 4-bit NormalFloat: 16 values from -1 to 1 ([`NF4_VALUES`]), packed as `i4`.
    NF4,
    /// Signed 64-bit integer.
    I64,
    /// Signed 32-bit integer.
    I32,
    /// Signed 16-bit integer.
    I16,
    /// Signed 8-bit integer.
    I8,
    /// Signed 4-bit integer, two in a byte, the first element in the low nibble.
    I4,
    /// Signed 2-bit integer, four in a byte, the first element in the lowest bits.
    I2,
    /// Unsigned 64-bit integer.
    U64,
    /// Unsigned 32-bit integer.
    U32,
    /// Unsigned 16-bit integer.
    U16,
    /// Unsigned 8-bit integer.
    U8,
    /// Unsigned 4-bit integer, two in a byte, the first element in the low nibble.
    U4,
    /// Unsigned 2-bit integer, four in a byte, the first element in the lowest bits.
    U2,
    /// Truth value, one byte, 0 or 1.
    Bool,
}

/// The kind of number a [`DType`] encodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Floating point.
    Float,
    /// Two's complement integer.
    Signed,
    /// Unsigned integer.
    Unsigned,
    /// Truth value.
    Bool,
}

impl DType {
    /// Every format, in declaration order.
    pub const ALL: [DType; 22] = [
        DType::F64,
        DType::F32,
        DType::F16,
        DType::BF16,
        DType::E4M3,
        DType::E5M2,
        DType::E2M1,
        DType::E8M0,
        DType::NF4,
        DType::I64,
        DType::I32,
        DType::I16,
        DType::I8,
        DType::I4,
        DType::I2,
        DType::U64,
        DType::U32,
        DType::U16,
        DType::U8,
        DType::U4,
        DType::U2,
        DType::Bool,
    ];

    /// The name in the text form: `f32`, `e4m3`, `i4`, …
    pub const fn name(self) -> &'static str {
        match self {
            DType::F64 => "f64",
            DType::F32 => "f32",
            DType::F16 => "f16",
            DType::BF16 => "bf16",
            DType::E4M3 => "e4m3",
            DType::E5M2 => "e5m2",
            DType::E2M1 => "e2m1",
            DType::E8M0 => "e8m0",
            DType::NF4 => "nf4",
            DType::I64 => "i64",
            DType::I32 => "i32",
            DType::I16 => "i16",
            DType::I8 => "i8",
            DType::I4 => "i4",
            DType::I2 => "i2",
            DType::U64 => "u64",
            DType::U32 => "u32",
            DType::U16 => "u16",
            DType::U8 => "u8",
            DType::U4 => "u4",
            DType::U2 => "u2",
            DType::Bool => "bool",
        }
    }

    /// Size of one element in bits (2 or 4 for the packed formats).
    pub const fn bits(self) -> u32 {
        match self {
            DType::F64 | DType::I64 | DType::U64 => 64,
            DType::F32 | DType::I32 | DType::U32 => 32,
            DType::F16 | DType::BF16 | DType::I16 | DType::U16 => 16,
            DType::E4M3 | DType::E5M2 | DType::E8M0 => 8,
            DType::I8 | DType::U8 | DType::Bool => 8,
            DType::I4 | DType::U4 | DType::E2M1 | DType::NF4 => 4,
            DType::I2 | DType::U2 => 2,
        }
    }

    /// Whether this is a float, a signed or unsigned integer, or a truth value.
    pub const fn kind(self) -> Kind {
        match self {
            DType::F64 | DType::F32 | DType::F16 | DType::BF16 => Kind::Float,
            DType::E4M3 | DType::E5M2 | DType::E2M1 | DType::E8M0 | DType::NF4 => Kind::Float,
            DType::I64 | DType::I32 | DType::I16 | DType::I8 | DType::I4 | DType::I2 => {
                Kind::Signed
            }
            DType::U64 | DType::U32 | DType::U16 | DType::U8 | DType::U4 | DType::U2 => {
                Kind::Unsigned
            }
            DType::Bool => Kind::Bool,
        }
    }

    /// `true` for the floating-point formats.
    pub const fn is_float(self) -> bool {
        matches!(self.kind(), Kind::Float)
    }

    /// `true` for the signed and unsigned integers (not for `bool`).
    pub const fn is_int(self) -> bool {
        matches!(self.kind(), Kind::Signed | Kind::Unsigned)
    }

    /// Codes in a byte of a packed format; 1 where an element takes a byte or more.
    pub const fn per_byte(self) -> usize {
        match self.bits() {
            bits @ 1..8 => 8 / bits as usize,
            _ => 1,
        }
    }

    /// Bytes that `elems` consecutive elements occupy, the last byte padded; `None` on overflow.
    pub fn byte_len(self, elems: u64) -> Option<u64> {
        let bits = elems.checked_mul(u64::from(self.bits()))?;
        Some(bits.div_ceil(8))
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for DType {
    type Err = UnknownDType;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        DType::ALL
            .into_iter()
            .find(|d| d.name() == s)
            .ok_or_else(|| UnknownDType(s.to_string()))
    }
}

/// The text names no number format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownDType(pub String);

impl fmt::Display for UnknownDType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown number format `{}`", self.0)
    }
}

impl std::error::Error for UnknownDType {}
