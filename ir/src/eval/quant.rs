//! Quantize and dequantize of whole bundles, by the definitions in `format`.

use super::value::{Array, format_error, internal};
use crate::diag::Result;
use crate::format::{
    QuantFormat, QuantParams, Range, absmax_nd, decode_slice, dequantize_nd, dequantize_table_nd,
    encode_slice, minmax_nd, quantize_nd, scale_asymmetric,
};
use crate::graph::QuantType;
use crate::tensor::{Bundle, Tensor};

pub(super) fn format_of(q: &QuantType) -> Result<QuantFormat> {
    let range = if q.narrow { Range::Narrow } else { Range::Full };
    QuantFormat::new(q.storage, range).map_err(format_error)
}

/// The factors of the blocks (or the values of tables) that a scheme stores as `scale`: decoded,
/// and below a global scale multiplied by it, in f32.
///
/// # Errors
/// `Q0910` when the global scale is missing or too much.
pub fn real_scales(q: &QuantType, scale: &Tensor, global: Option<&Tensor>) -> Result<Vec<f32>> {
    let mut scales = f32s(scale)?;
    match (q.scale.global(), global) {
        (None, None) => {}
        (Some(_), Some(g)) => {
            let above = global_scale(g)?;
            scales.iter_mut().for_each(|s| *s *= above);
        }
        _ => return Err(internal("a global scale is missing, or one too much")),
    }
    Ok(scales)
}

/// The number of a global scale.
///
/// # Errors
/// `Q0910` when it is none.
pub fn global_scale(global: &Tensor) -> Result<f32> {
    let one = f32s(global)?;
    one.first()
        .copied()
        .ok_or_else(|| internal("a global scale has no number"))
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
    let scale = b
        .scale
        .as_ref()
        .ok_or_else(|| internal("a quantized value has no scale"))?;
    if b.codes.numel() == 0 {
        return Ok(Vec::new());
    }
    let scales = real_scales(q, scale, b.global.as_ref())?;
    let (codes, dims) = (b.codes.bytes(), usizes(&b.codes));
    if q.scale.is_table() {
        return dequantize_table_nd(codes, &dims, &q.block, q.storage, &scales)
            .map_err(format_error);
    }
    let zeros = zeros(b.zero.as_ref())?;
    let params = QuantParams {
        scales: &scales,
        zeros: zeros.as_deref(),
    };
    dequantize_nd(codes, &dims, &q.block, format_of(q)?, params).map_err(format_error)
}

/// Quantizes with the given scales, or for a dynamic type with scales of the data.
pub(super) fn quantize(
    q: &QuantType,
    a: &Array,
    [scale, zero, global]: [Option<&Tensor>; 3],
) -> Result<Bundle> {
    let format = format_of(q)?;
    let x: Vec<f32> = a.f()?.iter().map(|v| *v as f32).collect();
    let (scale, zero) = match (scale, q.dynamic) {
        (Some(s), false) => (s.clone(), zero.cloned()),
        _ => dynamic_params(q, format, &x, &a.dims, global)?,
    };
    let (scales, zs) = (real_scales(q, &scale, global)?, zeros(zero.as_ref())?);
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
        global: global.cloned(),
    })
}

/// Parameters of a tensor-wide scale when there are no elements: 1 and 0.
fn empty_params(q: &QuantType) -> Result<(Tensor, Option<Tensor>)> {
    let mut scale = Tensor::zeros(q.scale.stored(), &[])?;
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
    global: Option<&Tensor>,
) -> Result<(Tensor, Option<Tensor>)> {
    let mut shape = q.block.scale_shape(dims).map_err(format_error)?;
    if q.block.is_tensor() {
        shape.clear();
        if x.is_empty() {
            return empty_params(q);
        }
    }
    let shape: Vec<u64> = shape.into_iter().map(|d| d as u64).collect();
    let mut scale = Tensor::zeros(q.scale.stored(), &shape)?;
    let Some(zd) = q.zero else {
        let max = absmax_nd(x, dims, &q.block).map_err(format_error)?;
        let above = global.map_or(Ok(1.0), global_scale)?;
        let s: Vec<f32> = max
            .into_iter()
            .map(|m| q.scale.of_block(m, format, above).map_err(format_error))
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
