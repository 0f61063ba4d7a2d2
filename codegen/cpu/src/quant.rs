//! Quantization and dequantization of whole values on all threads, by the definitions of
//! [`qcc_ir::format`].
//!
//! A value is cut along its leading dimension where each piece has scales of its own, and
//! anywhere where one scale serves the whole value.

use crate::threads::Threads;
use crate::value::{View, sizes};
use qcc_ir::diag::{Diagnostic, Result};
use qcc_ir::eval::{global_scale, real_scales};
use qcc_ir::format::{
    Block, BlockShape, QuantFormat, QuantParams, Range, absmax_nd, decode_slice, dequantize_nd,
    dequantize_table_nd, encode_slice, minmax_nd, quantize_nd, scale_asymmetric,
};
use qcc_ir::graph::QuantType;
use qcc_ir::{Bundle, Tensor};
use std::ops::Range as Span;

/// The storage and range of a quantized type.
pub(crate) fn format_of(q: &QuantType) -> Result<QuantFormat> {
    let range = if q.narrow { Range::Narrow } else { Range::Full };
    QuantFormat::new(q.storage, range).map_err(crate::format_error)
}

/// Scales and zero points of a value as numbers.
pub(crate) struct Params {
    pub(crate) scales: Vec<f32>,
    pub(crate) zeros: Option<Vec<i32>>,
}

impl Params {
    pub(crate) fn read(q: &QuantType, params: [Option<&Tensor>; 3]) -> Result<Self> {
        let [scale, zero, global] = params;
        let scale = scale.ok_or_else(|| crate::internal("a quantized value has no scale"))?;
        let zeros =
            zero.map(|z| Ok::<_, Diagnostic>(numbers(z)?.into_iter().map(|z| z as i32).collect()));
        Ok(Params {
            scales: real_scales(q, scale, global)?,
            zeros: zeros.transpose()?,
        })
    }

    fn part(&self, s: &Span<usize>) -> QuantParams<'_> {
        QuantParams {
            scales: &self.scales[s.clone()],
            zeros: self.zeros.as_ref().map(|z| &z[s.clone()]),
        }
    }
}

fn numbers(t: &Tensor) -> Result<Vec<f32>> {
    let mut v = vec![0f32; t.numel()];
    decode_slice(t.dtype(), t.bytes(), &mut v).map_err(crate::format_error)?;
    Ok(v)
}

/// A part of a value with the scales that serve it.
struct Piece {
    elems: Span<usize>,
    scales: Span<usize>,
    dims: Vec<usize>,
    block: BlockShape,
}

/// Elements in a piece, at least.
const PIECE: usize = 1 << 15;

/// Cuts a value into pieces that begin on a byte.
fn pieces(dims: &[usize], block: &BlockShape) -> Result<Vec<Piece>> {
    let len: usize = dims.iter().product();
    if len == 0 {
        return Ok(Vec::new());
    }
    let count = block.scale_count(dims).map_err(crate::format_error)?;
    if block.is_tensor() {
        return Ok((0..len)
            .step_by(PIECE)
            .map(|at| {
                let n = PIECE.min(len - at);
                Piece {
                    elems: at..at + n,
                    scales: 0..1,
                    dims: vec![n],
                    block: BlockShape(vec![Block::All]),
                }
            })
            .collect());
    }
    // Leading dimensions that are split singly count as rows.
    let lead = block
        .0
        .iter()
        .take_while(|b| **b == Block::Fixed(1))
        .count();
    let rows: usize = dims[..lead].iter().product();
    if lead == 0 {
        return Ok(vec![Piece {
            elems: 0..len,
            scales: 0..count,
            dims: dims.to_vec(),
            block: block.clone(),
        }]);
    }
    let (row, per_row) = (len / rows, count / rows);
    // A multiple of four rows keeps packed codes on bytes.
    let step = PIECE.div_ceil(row).next_multiple_of(4);
    let mut part_block = vec![Block::Fixed(1)];
    part_block.extend(&block.0[lead..]);
    Ok((0..rows)
        .step_by(step)
        .map(|at| {
            let n = step.min(rows - at);
            let mut part = vec![n];
            part.extend(&dims[lead..]);
            Piece {
                elems: at * row..(at + n) * row,
                scales: at * per_row..(at + n) * per_row,
                dims: part,
                block: BlockShape(part_block.clone()),
            }
        })
        .collect())
}

/// The real values of a quantized operand.
pub(crate) fn dequantize(q: &QuantType, v: &View<'_>, threads: &Threads) -> Result<Vec<f32>> {
    let params = Params::read(q, v.params())?;
    let dims = v.dims();
    if q.scale.is_table() {
        let (codes, tables) = (v.codes.bytes(), &params.scales);
        return dequantize_table_nd(codes, &dims, &q.block, q.storage, tables)
            .map_err(crate::format_error);
    }
    let format = format_of(q)?;
    let pieces = pieces(&dims, &q.block)?;
    let mut out = vec![0f32; v.codes.numel()];
    let to = crate::threads::Scatter::new(&mut out);
    let bytes = v.codes.bytes();
    threads.each(pieces.len(), |i| {
        let p = &pieces[i];
        let codes = &bytes[crate::value::span(q.storage, p.elems.start, p.elems.len())];
        let real = dequantize_nd(codes, &p.dims, &p.block, format, params.part(&p.scales))
            .map_err(crate::format_error)?;
        // SAFETY: pieces do not overlap.
        unsafe { to.slice(p.elems.clone()) }?.copy_from_slice(&real);
        Ok(())
    })?;
    Ok(out)
}

/// Quantizes `x`; a dynamic type computes its scales from the blocks of `x`.
pub(crate) fn quantize(
    q: &QuantType,
    x: &[f32],
    dims: &[u64],
    [scale, zero, global]: [Option<&Tensor>; 3],
    threads: &Threads,
) -> Result<Bundle> {
    let format = format_of(q)?;
    let shape = sizes(dims);
    let pieces = pieces(&shape, &q.block)?;
    let (scale, zero) = if q.dynamic {
        dynamic_params(q, x, (&shape, &pieces), global, threads)?
    } else {
        let s = scale.ok_or_else(|| crate::internal("a static scheme needs a scale"))?;
        (s.clone(), zero.cloned())
    };
    let params = Params::read(q, [Some(&scale), zero.as_ref(), global])?;
    let mut codes = Tensor::zeros(q.storage, dims)?;
    let to = crate::threads::Scatter::new(codes.bytes_mut());
    threads.each(pieces.len(), |i| {
        let p = &pieces[i];
        let part = params.part(&p.scales);
        let bytes = quantize_nd(&x[p.elems.clone()], &p.dims, &p.block, format, part)
            .map_err(crate::format_error)?;
        let span = crate::value::span(q.storage, p.elems.start, p.elems.len());
        // SAFETY: pieces begin on a byte of their own and do not overlap.
        unsafe { to.slice(span) }?.copy_from_slice(&bytes);
        Ok(())
    })?;
    Ok(Bundle {
        codes,
        scale: Some(scale),
        zero,
        global: global.cloned(),
    })
}

/// Smallest and largest value of each block.
fn bounds(
    x: &[f32],
    dims: &[usize],
    q: &QuantType,
    pieces: &[Piece],
    threads: &Threads,
) -> Result<(Vec<f32>, Vec<f32>)> {
    let count = q.block.scale_count(dims).map_err(crate::format_error)?;
    let parts: Vec<std::sync::OnceLock<(Vec<f32>, Vec<f32>)>> =
        pieces.iter().map(|_| Default::default()).collect();
    threads.each(pieces.len(), |i| {
        let p = &pieces[i];
        let part = &x[p.elems.clone()];
        let b = if q.zero.is_some() {
            minmax_nd(part, &p.dims, &p.block)
        } else {
            absmax_nd(part, &p.dims, &p.block).map(|m| (m.clone(), m))
        };
        // Each index is computed once, so the cell is empty.
        let _ = parts[i].set(b.map_err(crate::format_error)?);
        Ok(())
    })?;
    let mut lo = vec![f32::INFINITY; count];
    let mut hi = vec![f32::NEG_INFINITY; count];
    for (p, cell) in pieces.iter().zip(parts) {
        let (l, h) = cell.into_inner().unwrap_or_default();
        for (i, (l, h)) in p.scales.clone().zip(l.into_iter().zip(h)) {
            lo[i] = if l < lo[i] || l.is_nan() { l } else { lo[i] };
            hi[i] = if h > hi[i] || h.is_nan() { h } else { hi[i] };
        }
    }
    Ok((lo, hi))
}

/// Scales (and zero points) of each block, rounded to the type's scale format.
fn dynamic_params(
    q: &QuantType,
    x: &[f32],
    (dims, pieces): (&[usize], &[Piece]),
    global: Option<&Tensor>,
    threads: &Threads,
) -> Result<(Tensor, Option<Tensor>)> {
    let format = format_of(q)?;
    let mut shape = q.block.scale_shape(dims).map_err(crate::format_error)?;
    if q.block.is_tensor() {
        shape.clear();
        if x.is_empty() {
            return empty_params(q);
        }
    }
    let shape: Vec<u64> = shape.into_iter().map(|d| d as u64).collect();
    let (lo, hi) = bounds(x, dims, q, pieces, threads)?;
    let mut scale = Tensor::zeros(q.scale.stored(), &shape)?;
    let Some(zd) = q.zero else {
        let above = global.map_or(Ok(1.0), global_scale)?;
        let s: Result<Vec<f32>> = hi
            .into_iter()
            .map(|m| {
                q.scale
                    .of_block(m, format, above)
                    .map_err(crate::format_error)
            })
            .collect();
        encode_slice(scale.dtype(), &s?, scale.bytes_mut()).map_err(crate::format_error)?;
        return Ok((scale, None));
    };
    let pairs: Result<Vec<(f32, i32)>> = lo
        .into_iter()
        .zip(hi)
        .map(|(l, h)| scale_asymmetric(l, h, format).map_err(crate::format_error))
        .collect();
    let (s, z): (Vec<f32>, Vec<f32>) = pairs?.into_iter().map(|(s, z)| (s, z as f32)).unzip();
    encode_slice(scale.dtype(), &s, scale.bytes_mut()).map_err(crate::format_error)?;
    let mut zero = Tensor::zeros(zd, &shape)?;
    encode_slice(zd, &z, zero.bytes_mut()).map_err(crate::format_error)?;
    Ok((scale, Some(zero)))
}

/// Parameters of a tensor-wide scale when there are no elements.
fn empty_params(q: &QuantType) -> Result<(Tensor, Option<Tensor>)> {
    let mut scale = Tensor::zeros(q.scale.stored(), &[])?;
    encode_slice(scale.dtype(), &[1f32], scale.bytes_mut()).map_err(crate::format_error)?;
    let zero = q.zero.map(|z| Tensor::zeros(z, &[])).transpose()?;
    Ok((scale, zero))
}
