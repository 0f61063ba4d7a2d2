//! Bulk conversion between stored bytes and numbers.
//!
//! Storage is little endian. Formats of 4 and 2 bits are packed two and four in a byte, the first
//! element in the lowest bits, whatever the tensor's shape; the unused bits of a tail are 0 when
//! written and ignored when read (ONNX `TensorProto`, types `INT4`, `UINT4`, `INT2`, `UINT2`).
//!
//! Encoding reals to integers is `saturate(round_half_even(x))` with NaN to 0; a caller that
//! wants the truncation of ONNX `Cast` truncates first. Encoding to `bool` gives `x != 0`.
//! Encoding to floats follows [`super::encode_f16`] and its kin, and is correctly rounded from
//! both `f32` and `f64`. Decoding is exact except for 64-bit formats (and 32-bit integers as
//! `f32`), which round to nearest even.

use super::float::{
    decode_bf16, decode_e2m1, decode_e4m3, decode_e5m2, decode_f16, encode_bf16, encode_e2m1,
    encode_e4m3, encode_e5m2, encode_f16, round_to_odd,
};
use super::power::{decode_e8m0, encode_e8m0};
use super::table::{decode_nf4, encode_nf4};
use super::{DType, FormatError, Overflow};

/// The number types that tensors are decoded to: `f32` and `f64`.
pub trait Real: sealed::Convert {}

impl Real for f32 {}
impl Real for f64 {}

mod sealed {
    /// How a [`super::Real`] converts; sealed so that the set stays closed.
    pub trait Convert: Copy + PartialEq + Default {
        fn from_f32(v: f32) -> Self;
        fn from_f64(v: f64) -> Self;
        fn from_i64(v: i64) -> Self;
        fn from_u64(v: u64) -> Self;
        fn nearest_f32(self) -> f32;
        /// An `f32` that any narrower float rounds to the same code as `self`.
        fn narrow(self) -> f32;
        fn to_f64(self) -> f64;
    }
}

impl sealed::Convert for f32 {
    #[inline(always)]
    fn from_f32(v: f32) -> Self {
        v
    }
    #[inline(always)]
    fn from_f64(v: f64) -> Self {
        v as f32
    }
    #[inline(always)]
    fn from_i64(v: i64) -> Self {
        v as f32
    }
    #[inline(always)]
    fn from_u64(v: u64) -> Self {
        v as f32
    }
    #[inline(always)]
    fn nearest_f32(self) -> f32 {
        self
    }
    #[inline(always)]
    fn narrow(self) -> f32 {
        self
    }
    #[inline(always)]
    fn to_f64(self) -> f64 {
        f64::from(self)
    }
}

impl sealed::Convert for f64 {
    #[inline(always)]
    fn from_f32(v: f32) -> Self {
        f64::from(v)
    }
    #[inline(always)]
    fn from_f64(v: f64) -> Self {
        v
    }
    #[inline(always)]
    fn from_i64(v: i64) -> Self {
        v as f64
    }
    #[inline(always)]
    fn from_u64(v: u64) -> Self {
        v as f64
    }
    #[inline(always)]
    fn nearest_f32(self) -> f32 {
        self as f32
    }
    #[inline(always)]
    fn narrow(self) -> f32 {
        round_to_odd(self)
    }
    #[inline(always)]
    fn to_f64(self) -> f64 {
        self
    }
}

/// Decodes `out.len()` elements of `dtype` from `bytes`.
///
/// # Errors
/// [`FormatError::Length`] unless `bytes` has exactly [`DType::byte_len`] bytes.
pub fn decode_slice<T: Real>(dtype: DType, bytes: &[u8], out: &mut [T]) -> Result<(), FormatError> {
    check_bytes(dtype, out.len(), bytes.len())?;
    match dtype {
        DType::F64 => each(bytes, out, |c| T::from_f64(f64::from_le_bytes(c))),
        DType::F32 => each(bytes, out, |c| T::from_f32(f32::from_le_bytes(c))),
        DType::F16 => each(bytes, out, |c| {
            T::from_f32(decode_f16(u16::from_le_bytes(c)))
        }),
        DType::BF16 => each(bytes, out, |c| {
            T::from_f32(decode_bf16(u16::from_le_bytes(c)))
        }),
        DType::E4M3 => each(bytes, out, |[c]| T::from_f32(decode_e4m3(c))),
        DType::E5M2 => each(bytes, out, |[c]| T::from_f32(decode_e5m2(c))),
        DType::E8M0 => each(bytes, out, |[c]| T::from_f32(decode_e8m0(c))),
        DType::E2M1 => fields::<4, _>(bytes, out, |c| T::from_f32(decode_e2m1(c))),
        DType::NF4 => fields::<4, _>(bytes, out, |c| T::from_f32(decode_nf4(c))),
        DType::U64 => each(bytes, out, |c| T::from_u64(u64::from_le_bytes(c))),
        _ => each_int(dtype, bytes, out, T::from_i64),
    }
    Ok(())
}

/// Decodes `out.len()` elements of an integer format or `bool` from `bytes`. `u64` values keep
/// their 64 bits, so those from 2^63 on come out negative.
///
/// # Errors
/// [`FormatError::NotInteger`] for a float; [`FormatError::Length`] as in [`decode_slice`].
pub fn decode_slice_i64(dtype: DType, bytes: &[u8], out: &mut [i64]) -> Result<(), FormatError> {
    if dtype.is_float() {
        return Err(FormatError::NotInteger(dtype));
    }
    check_bytes(dtype, out.len(), bytes.len())?;
    each_int(dtype, bytes, out, |v| v);
    Ok(())
}

/// Encodes `src` as `dtype` into `bytes`; 8-bit floats saturate.
///
/// # Errors
/// [`FormatError::Length`] unless `bytes` has exactly [`DType::byte_len`] bytes.
pub fn encode_slice<T: Real>(dtype: DType, src: &[T], bytes: &mut [u8]) -> Result<(), FormatError> {
    encode_slice_with(dtype, Overflow::Saturate, src, bytes)
}

/// [`encode_slice`] with the choice of what 8-bit floats do on overflow.
///
/// # Errors
/// As [`encode_slice`].
pub fn encode_slice_with<T: Real>(
    dtype: DType,
    overflow: Overflow,
    src: &[T],
    bytes: &mut [u8],
) -> Result<(), FormatError> {
    check_bytes(dtype, src.len(), bytes.len())?;
    match dtype {
        DType::F64 => write(src, bytes, |v| v.to_f64().to_le_bytes()),
        DType::F32 => write(src, bytes, |v| v.nearest_f32().to_le_bytes()),
        DType::F16 => write(src, bytes, |v| encode_f16(v.narrow()).to_le_bytes()),
        DType::BF16 => write(src, bytes, |v| encode_bf16(v.narrow()).to_le_bytes()),
        DType::E4M3 => write(src, bytes, |v| [encode_e4m3(v.narrow(), overflow)]),
        DType::E5M2 => write(src, bytes, |v| [encode_e5m2(v.narrow(), overflow)]),
        DType::E8M0 => write(src, bytes, |v| [encode_e8m0(v.narrow())]),
        DType::E2M1 => write_fields::<4, _>(src, bytes, |v| encode_e2m1(v.narrow())),
        DType::NF4 => write_fields::<4, _>(src, bytes, |v| encode_nf4(v.narrow())),
        // The casts to an integer saturate and send NaN to 0.
        DType::I64 => write(src, bytes, |v| (round(v) as i64).to_le_bytes()),
        DType::I32 => write(src, bytes, |v| (round(v) as i32).to_le_bytes()),
        DType::I16 => write(src, bytes, |v| (round(v) as i16).to_le_bytes()),
        DType::I8 => write(src, bytes, |v| (round(v) as i8).to_le_bytes()),
        DType::U64 => write(src, bytes, |v| (round(v) as u64).to_le_bytes()),
        DType::U32 => write(src, bytes, |v| (round(v) as u32).to_le_bytes()),
        DType::U16 => write(src, bytes, |v| (round(v) as u16).to_le_bytes()),
        DType::U8 => write(src, bytes, |v| [round(v) as u8]),
        DType::I4 => write_fields::<4, _>(src, bytes, |v| (round(v) as i8).clamp(-8, 7) as u8),
        DType::U4 => write_fields::<4, _>(src, bytes, |v| (round(v) as u8).min(15)),
        DType::I2 => write_fields::<2, _>(src, bytes, |v| (round(v) as i8).clamp(-2, 1) as u8),
        DType::U2 => write_fields::<2, _>(src, bytes, |v| (round(v) as u8).min(3)),
        DType::Bool => write(src, bytes, |v| [u8::from(v != T::default())]),
    }
    Ok(())
}

/// Encodes integers as an integer format by keeping the low bits (two's complement, as ONNX
/// `Cast` between integers), or as `bool` (`x != 0`).
///
/// # Errors
/// [`FormatError::NotInteger`] for a float; [`FormatError::Length`] as in [`encode_slice`].
pub fn encode_slice_i64(dtype: DType, src: &[i64], bytes: &mut [u8]) -> Result<(), FormatError> {
    if dtype.is_float() {
        return Err(FormatError::NotInteger(dtype));
    }
    check_bytes(dtype, src.len(), bytes.len())?;
    match (dtype, dtype.bits()) {
        (DType::Bool, _) => write(src, bytes, |v| [u8::from(v != 0)]),
        (_, 64) => write(src, bytes, i64::to_le_bytes),
        (_, 32) => write(src, bytes, |v| (v as u32).to_le_bytes()),
        (_, 16) => write(src, bytes, |v| (v as u16).to_le_bytes()),
        (_, 8) => write(src, bytes, |v| [v as u8]),
        (_, 4) => write_fields::<4, _>(src, bytes, |v| v as u8),
        _ => write_fields::<2, _>(src, bytes, |v| v as u8),
    }
    Ok(())
}

/// Rounds every value to the nearest one that `dtype` holds: `decode(encode(x))` without the
/// detour through bytes for the caller.
pub fn round_slice<T: Real>(dtype: DType, values: &mut [T]) {
    const CHUNK: usize = 1024;
    let mut bytes = [0; CHUNK * 8];
    for chunk in values.chunks_mut(CHUNK) {
        let used = (chunk.len() * dtype.bits() as usize).div_ceil(8);
        let bytes = &mut bytes[..used];
        // Both lengths agree by construction, and there is no other error.
        if encode_slice(dtype, chunk, bytes).is_ok() {
            let _ = decode_slice(dtype, bytes, chunk);
        }
    }
}

fn round<T: Real>(v: T) -> f64 {
    v.to_f64().round_ties_even()
}

fn check_bytes(dtype: DType, elems: usize, found: usize) -> Result<(), FormatError> {
    let expected = bytes_for(dtype, elems)?;
    if expected == found {
        return Ok(());
    }
    Err(FormatError::Length {
        what: "encoded bytes",
        expected,
        found,
    })
}

/// Bytes of `elems` elements of `dtype`.
pub(super) fn bytes_for(dtype: DType, elems: usize) -> Result<usize, FormatError> {
    u64::try_from(elems)
        .ok()
        .and_then(|n| dtype.byte_len(n))
        .and_then(|n| usize::try_from(n).ok())
        .ok_or(FormatError::TooLarge)
}

fn each_int<T>(dtype: DType, bytes: &[u8], out: &mut [T], f: impl Fn(i64) -> T) {
    match dtype {
        DType::U64 | DType::I64 => each(bytes, out, |c| f(i64::from_le_bytes(c))),
        DType::I32 => each(bytes, out, |c| f(i64::from(i32::from_le_bytes(c)))),
        DType::I16 => each(bytes, out, |c| f(i64::from(i16::from_le_bytes(c)))),
        DType::I8 => each(bytes, out, |c| f(i64::from(i8::from_le_bytes(c)))),
        DType::U32 => each(bytes, out, |c| f(i64::from(u32::from_le_bytes(c)))),
        DType::U16 => each(bytes, out, |c| f(i64::from(u16::from_le_bytes(c)))),
        DType::U8 => each(bytes, out, |[c]| f(i64::from(c))),
        DType::Bool => each(bytes, out, |[c]| f(i64::from(c != 0))),
        DType::I4 => fields::<4, _>(bytes, out, |c| f(i64::from(sign_extend::<4>(c)))),
        DType::U4 => fields::<4, _>(bytes, out, |c| f(i64::from(c))),
        DType::I2 => fields::<2, _>(bytes, out, |c| f(i64::from(sign_extend::<2>(c)))),
        DType::U2 => fields::<2, _>(bytes, out, |c| f(i64::from(c))),
        // Floats are decoded or refused by the callers.
        DType::F64 | DType::F32 | DType::F16 | DType::BF16 => {}
        DType::E4M3 | DType::E5M2 | DType::E2M1 | DType::E8M0 | DType::NF4 => {}
    }
}

/// The value of a two's complement code of `BITS` bits, which must have no higher ones.
#[inline(always)]
pub(super) const fn sign_extend<const BITS: u32>(code: u8) -> i8 {
    ((code << (8 - BITS)) as i8) >> (8 - BITS)
}

/// Splits packed bytes into codes of `BITS` bits, the lowest first: `out.len()` of them.
pub(super) fn fields<const BITS: u32, T>(bytes: &[u8], out: &mut [T], f: impl Fn(u8) -> T) {
    for (codes, &byte) in out.chunks_mut(8 / BITS as usize).zip(bytes) {
        for (i, to) in codes.iter_mut().enumerate() {
            *to = f(byte >> (i as u32 * BITS) & ((1 << BITS) - 1));
        }
    }
}

fn each<const N: usize, T>(bytes: &[u8], out: &mut [T], f: impl Fn([u8; N]) -> T) {
    for (to, &code) in out.iter_mut().zip(bytes.as_chunks().0) {
        *to = f(code);
    }
}

fn write<const N: usize, T: Copy>(src: &[T], bytes: &mut [u8], f: impl Fn(T) -> [u8; N]) {
    for (to, &v) in bytes.as_chunks_mut().0.iter_mut().zip(src) {
        *to = f(v);
    }
}

fn write_fields<const BITS: u32, T: Copy>(src: &[T], bytes: &mut [u8], f: impl Fn(T) -> u8) {
    for (to, codes) in bytes.iter_mut().zip(src.chunks(8 / BITS as usize)) {
        *to = 0;
        for (i, &v) in codes.iter().enumerate() {
            *to |= (f(v) & ((1 << BITS) - 1)) << (i as u32 * BITS);
        }
    }
}
