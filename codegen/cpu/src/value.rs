//! Graph values as kernels see them, and their decoding to f32.

use crate::threads::Threads;
use qcc_ir::diag::Result;
use qcc_ir::format::{Kind, decode_slice, encode_slice};
use qcc_ir::graph::{Elem, TensorType};
use qcc_ir::{Bundle, DType, Tensor};
use std::borrow::Cow;

/// An operand of an op, lent.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) ty: &'a TensorType,
    pub(crate) codes: &'a Tensor,
    pub(crate) scale: Option<&'a Tensor>,
    pub(crate) zero: Option<&'a Tensor>,
    pub(crate) global: Option<&'a Tensor>,
}

impl<'a> View<'a> {
    pub(crate) fn new(ty: &'a TensorType, b: &'a Bundle) -> Self {
        View {
            ty,
            codes: &b.codes,
            scale: b.scale.as_ref(),
            zero: b.zero.as_ref(),
            global: b.global.as_ref(),
        }
    }

    /// Scales, zero points and the global scale of a quantized value.
    pub(crate) fn params(&self) -> [Option<&'a Tensor>; 3] {
        [self.scale, self.zero, self.global]
    }

    /// The extents.
    pub(crate) fn dims(&self) -> Vec<usize> {
        sizes(self.codes.dims())
    }

    /// The real values: a quantized operand is dequantized, a narrow float decoded.
    pub(crate) fn floats(&self, threads: &Threads) -> Result<Cow<'a, [f32]>> {
        match &self.ty.elem {
            Elem::Plain(_) => tensor_floats(self.codes, threads),
            Elem::Quant(q) => Ok(Cow::Owned(crate::quant::dequantize(q, self, threads)?)),
        }
    }
}

/// Extents as `usize`: they count elements of tensors that exist.
pub(crate) fn sizes(dims: &[u64]) -> Vec<usize> {
    dims.iter().map(|d| *d as usize).collect()
}

/// The number of rows before the last dimension, and its extent.
pub(crate) fn rows_cols(dims: &[usize]) -> (usize, usize) {
    match dims.split_last() {
        Some((cols, outer)) => (outer.iter().product(), *cols),
        None => (1, 1),
    }
}

/// Elements that one task decodes or encodes.
const PIECE: usize = 1 << 15;

/// The elements of a plain tensor as f32.
pub(crate) fn tensor_floats<'a>(t: &'a Tensor, threads: &Threads) -> Result<Cow<'a, [f32]>> {
    if t.dtype() == DType::F32 {
        return Ok(Cow::Borrowed(t.as_slice()?));
    }
    let mut out = vec![0f32; t.numel()];
    threads.chunks(&mut out, PIECE, |at, piece| {
        decode(t.dtype(), t.bytes(), at, piece)
    })?;
    Ok(Cow::Owned(out))
}

/// Bytes of elements `at..at + len`; `at` begins on a byte.
pub(crate) fn span(dtype: DType, at: usize, len: usize) -> std::ops::Range<usize> {
    let bits = dtype.bits() as usize;
    at * bits / 8..(at + len) * bits / 8 + usize::from(!((at + len) * bits).is_multiple_of(8))
}

/// Decodes `out.len()` elements from the element `at` on.
pub(crate) fn decode(dtype: DType, bytes: &[u8], at: usize, out: &mut [f32]) -> Result<()> {
    let s = span(dtype, at, out.len());
    let bytes = bytes
        .get(s)
        .ok_or_else(|| crate::internal("elements past the end of a tensor"))?;
    decode_slice(dtype, bytes, out).map_err(crate::format_error)
}

/// An f32 tensor of these extents that takes over `data`.
pub(crate) fn f32_tensor(dims: &[u64], data: &[f32]) -> Result<Tensor> {
    Tensor::f32(dims, data)
}

/// The f32 numbers rounded to a float format.
pub(crate) fn encode_floats(
    dtype: DType,
    dims: &[u64],
    data: &[f32],
    threads: &Threads,
) -> Result<Tensor> {
    if dtype == DType::F32 {
        return f32_tensor(dims, data);
    }
    let mut t = Tensor::zeros(dtype, dims)?;
    let width = dtype.bits() as usize / 8;
    threads.chunks(t.bytes_mut(), PIECE * width, |at, bytes| {
        let at = at / width;
        encode_slice(dtype, &data[at..at + bytes.len() / width], bytes).map_err(crate::format_error)
    })?;
    Ok(t)
}

/// A packed tensor with one code to a byte; any other as it is.
pub(crate) fn unpack(t: &Tensor) -> Result<Cow<'_, Tensor>> {
    let (per, bits) = (t.dtype().per_byte(), t.dtype().bits());
    if per == 1 {
        return Ok(Cow::Borrowed(t));
    }
    let signed = t.dtype().kind() == Kind::Signed;
    let mut out = Tensor::zeros(unpacked(t.dtype()), t.dims())?;
    for (codes, byte) in out.bytes_mut().chunks_mut(per).zip(t.bytes()) {
        for (i, to) in codes.iter_mut().enumerate() {
            let high = byte << (8 - bits * (i as u32 + 1));
            *to = match signed {
                true => (high as i8 >> (8 - bits)) as u8,
                false => high >> (8 - bits),
            };
        }
    }
    Ok(Cow::Owned(out))
}

/// The reverse of [`unpack`]: one byte per code to the packed form of `dtype`.
pub(crate) fn pack(dtype: DType, t: &Tensor) -> Result<Tensor> {
    let (per, bits) = (dtype.per_byte(), dtype.bits());
    let mut out = Tensor::zeros(dtype, t.dims())?;
    for (to, codes) in out.bytes_mut().iter_mut().zip(t.bytes().chunks(per)) {
        for (i, c) in codes.iter().enumerate() {
            *to |= (c & ((1 << bits) - 1)) << (bits * i as u32);
        }
    }
    Ok(out)
}

/// The format in which kernels compute elements of `dtype`: packed ones take a byte each.
pub(crate) fn unpacked(dtype: DType) -> DType {
    match (dtype.per_byte(), dtype.kind()) {
        (1, _) => dtype,
        (_, Kind::Signed) => DType::I8,
        _ => DType::U8,
    }
}
