//! Quantize and dequantize of whole bundles, by the definitions in `format`.

use super::value::{Array, format_error, internal};
use crate::DType;
use crate::diag::{Class, Diagnostic, Result};
use crate::format::{
    QuantFormat, QuantParams, Range, absmax_nd, decode_slice, dequantize_nd, encode_slice,
    minmax_nd, quantize_nd, scale_asymmetric, scale_symmetric,
};
use crate::graph::{QuantType, ScaleType};
use crate::tensor::{Bundle, Tensor};

pub(super) fn format_of(q: &QuantType) -> Result<QuantFormat> {
    let range = if q.narrow { Range::Narrow } else { Range::Full };
    QuantFormat::new(q.storage, range).map_err(format_error)
}

fn scale_dtype(q: &QuantType) -> Result<DType> {
    match q.scale {
        ScaleType::Plain(d) => Ok(d),
        ScaleType::TwoLevel(..) => Err(Diagnostic::error(
            601,
            Class::Unsupported,
            format!("scales stored as {} are not executed yet", q.scale),
        )),
    }
}

pub(super) fn f32s(t: &Tensor) -> Result<Vec<f32>> {
    let mut v = vec![0f32; t.numel()];
    decode_slice(t.dtype(), t.bytes(), &mut v).map_err(format_error)?;
    Ok(v)
}

fn usizes(t: &Tensor) -> Vec<usize> {
    t.dims().iter().map(|d| *d as usize).collect()
}

pub(super) fn zeros(t: Option<&Tensor>) -> Result<Option<Vec<i32>>> {
    let ints = |t: &Tensor| Ok(f32s(t)?.into_iter().map(|z| z as i32).collect());
    t.map(ints).transpose()
}

/// `(code − zero) · scale` for every element.
pub(super) fn dequantize(q: &QuantType, b: &Bundle) -> Result<Vec<f32>> {
    scale_dtype(q)?;
    let scale = b
        .scale
        .as_ref()
        .ok_or_else(|| internal("a quantized value has no scale"))?;
    if b.codes.numel() == 0 {
        return Ok(Vec::new());
    }
    let (scales, zeros) = (f32s(scale)?, zeros(b.zero.as_ref())?);
    let params = QuantParams {
        scales: &scales,
        zeros: zeros.as_deref(),
    };
    dequantize_nd(
        b.codes.bytes(),
        &usizes(&b.codes),
        &q.block,
        format_of(q)?,
        params,
    )
    .map_err(format_error)
}

/// Quantizes with the given scales, or for a dynamic type with scales of the data.
pub(super) fn quantize(
    q: &QuantType,
    a: &Array,
    scale: Option<&Tensor>,
    zero: Option<&Tensor>,
) -> Result<Bundle> {
    let format = format_of(q)?;
    let x: Vec<f32> = a.f()?.iter().map(|v| *v as f32).collect();
    let (scale, zero) = match (scale, q.dynamic) {
        (Some(s), false) => (s.clone(), zero.cloned()),
        _ => dynamic_params(q, format, &x, &a.dims)?,
    };
    let (scales, zs) = (f32s(&scale)?, zeros(zero.as_ref())?);
    let params = QuantParams {
        scales: &scales,
        zeros: zs.as_deref(),
    };
    // A tensor without elements has no blocks, but its tensor-wide scale is there.
    let codes = match x.is_empty() {
        true => Vec::new(),
        false => quantize_nd(&x, &a.dims, &q.block, format, params).map_err(format_error)?,
    };
    let dims: Vec<u64> = a.dims.iter().map(|d| *d as u64).collect();
    Ok(Bundle {
        codes: Tensor::from_bytes(q.storage, &dims, &codes)?,
        scale: Some(scale),
        zero,
    })
}

/// Parameters of a tensor-wide scale when there are no elements: 1 and 0.
fn empty_params(q: &QuantType) -> Result<(Tensor, Option<Tensor>)> {
    let mut scale = Tensor::zeros(scale_dtype(q)?, &[])?;
    encode_slice(scale.dtype(), &[1f32], scale.bytes_mut()).map_err(format_error)?;
    let zero = q.zero.map(|z| Tensor::zeros(z, &[])).transpose()?;
    Ok((scale, zero))
}

/// Scales (and zero points) of each block of the data, rounded to the type's scale format.
fn dynamic_params(
    q: &QuantType,
    format: QuantFormat,
    x: &[f32],
    dims: &[usize],
) -> Result<(Tensor, Option<Tensor>)> {
    let mut shape = q.block.scale_shape(dims).map_err(format_error)?;
    if q.block.is_tensor() {
        shape.clear();
        if x.is_empty() {
            return empty_params(q);
        }
    }
    let shape: Vec<u64> = shape.into_iter().map(|d| d as u64).collect();
    let mut scale = Tensor::zeros(scale_dtype(q)?, &shape)?;
    let Some(zd) = q.zero else {
        let max = absmax_nd(x, dims, &q.block).map_err(format_error)?;
        let s: Vec<f32> = max
            .into_iter()
            .map(|m| scale_symmetric(m, format.max()).map_err(format_error))
            .collect::<Result<_>>()?;
        encode_slice(scale.dtype(), &s, scale.bytes_mut()).map_err(format_error)?;
        return Ok((scale, None));
    };
    let (lo, hi) = minmax_nd(x, dims, &q.block).map_err(format_error)?;
    let pairs: Vec<(f32, i32)> = lo
        .into_iter()
        .zip(hi)
        .map(|(l, h)| scale_asymmetric(l, h, format).map_err(format_error))
        .collect::<Result<_>>()?;
    let (s, z): (Vec<f32>, Vec<f32>) = pairs.into_iter().map(|(s, z)| (s, z as f32)).unzip();
    encode_slice(scale.dtype(), &s, scale.bytes_mut()).map_err(format_error)?;
    let mut zero = Tensor::zeros(zd, &shape)?;
    encode_slice(zd, &z, zero.bytes_mut()).map_err(format_error)?;
    Ok((scale, Some(zero)))
}
