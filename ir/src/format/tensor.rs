//! Quantization of whole tensors in row-major order, for any block shape.
//!
//! Dimensions that a block covers are folded into their neighbours first, so that
//! per-tensor, per-channel and per-token forms become one or few long runs of elements with one
//! scale, and a block of one element in the last dimension becomes a run with one scale per
//! element. The inner loops hold no index arithmetic.

use std::ops::Range as Span;

use super::block::product;
use super::float::{decode_e2m1, decode_e4m3, decode_e5m2, encode_e2m1};
use super::quantize::{
    Codes, dequantize_int, quantize_e4m3, quantize_e5m2, quantize_i32, quantize_int,
};
use super::slice::{bytes_for, fields, sign_extend};
use super::table::{decode_nf4, encode_nf4};
use super::{BlockShape, DType, FormatError, IntRange, QuantFormat};

/// Scales and zero points of a tensor, row-major in the shape [`BlockShape::scale_shape`].
#[derive(Clone, Copy, Debug)]
pub struct QuantParams<'a> {
    /// One scale per block.
    pub scales: &'a [f32],
    /// One zero point per block; `None` is 0 everywhere (symmetric).
    pub zeros: Option<&'a [i32]>,
}

impl<'a> QuantParams<'a> {
    /// Scales without zero points.
    pub fn symmetric(scales: &'a [f32]) -> Self {
        Self {
            scales,
            zeros: None,
        }
    }

    /// Scales with zero points.
    pub fn asymmetric(scales: &'a [f32], zeros: &'a [i32]) -> Self {
        Self {
            scales,
            zeros: Some(zeros),
        }
    }

    fn check(&self, blocks: usize, format: QuantFormat) -> Result<(), FormatError> {
        check_len("scales", blocks, self.scales.len())?;
        let zeros = self.zeros.unwrap_or(&[]);
        if self.zeros.is_some() {
            check_len("zero points", blocks, zeros.len())?;
        }
        match zeros.iter().find(|&&zero| !format.allows_zero(zero)) {
            Some(&zero) => Err(FormatError::ZeroPoint {
                storage: format.dtype(),
                zero,
            }),
            None => Ok(()),
        }
    }

    fn zero(&self, block: usize) -> i32 {
        self.zeros.map_or(0, |zeros| zeros[block])
    }
}

/// The codes of `x` (shape `dims`), as stored bytes: [`DType::byte_len`] of them, little endian,
/// codes of 4 and 2 bits packed with the first element in the lowest bits.
///
/// Each element is [`QuantFormat::quantize`] with the scale and zero point of its block.
///
/// # Errors
/// [`FormatError::Rank`], [`FormatError::TooLarge`], [`FormatError::Length`] (of `x`, scales or
/// zero points), [`FormatError::ZeroPoint`].
pub fn quantize_nd(
    x: &[f32],
    dims: &[usize],
    block: &BlockShape,
    format: QuantFormat,
    params: QuantParams<'_>,
) -> Result<Vec<u8>, FormatError> {
    check_len("tensor elements", product(dims)?, x.len())?;
    params.check(block.scale_count(dims)?, format)?;
    let wide = format.dtype().bits().div_ceil(8) as usize;
    let mut out = vec![0; x.len().checked_mul(wide).ok_or(FormatError::TooLarge)?];
    let runs = Runs::new(dims, block);
    match (format.codes(), wide) {
        (Codes::Int(r), 1) => runs.map(x, &mut out, params, |x, s, z| {
            [quantize_int(x, s, z, r) as u8]
        }),
        (Codes::Int(r), _) => runs.map(x, &mut out, params, |x, s, z| {
            (quantize_int(x, s, z, r) as u16).to_le_bytes()
        }),
        (Codes::Int32(r), _) => runs.map(x, &mut out, params, |x, s, z| {
            quantize_i32(x, s, z, r).to_le_bytes()
        }),
        (Codes::E4M3, _) => runs.map(x, &mut out, params, |x, s, _| [quantize_e4m3(x, s)]),
        (Codes::E5M2, _) => runs.map(x, &mut out, params, |x, s, _| [quantize_e5m2(x, s)]),
        (Codes::E2M1, _) => runs.map(x, &mut out, params, |x, s, _| [encode_e2m1(x / s)]),
        (Codes::Nf4, _) => runs.map(x, &mut out, params, |x, s, _| [encode_nf4(x / s)]),
    }
    pack(&mut out, format.dtype());
    Ok(out)
}

/// The values of stored codes, as [`quantize_nd`] writes them, of a tensor of shape `dims`.
///
/// Each element is [`QuantFormat::dequantize`] with the scale and zero point of its block.
///
/// # Errors
/// As [`quantize_nd`], with [`FormatError::Length`] also for `codes`.
pub fn dequantize_nd(
    codes: &[u8],
    dims: &[usize],
    block: &BlockShape,
    format: QuantFormat,
    params: QuantParams<'_>,
) -> Result<Vec<f32>, FormatError> {
    let elems = product(dims)?;
    let dtype = format.dtype();
    check_len("encoded bytes", bytes_for(dtype, elems)?, codes.len())?;
    params.check(block.scale_count(dims)?, format)?;
    let runs = Runs::new(dims, block);
    let mut out = vec![0.0; elems];
    match dtype {
        DType::I4 | DType::U4 | DType::I2 | DType::U2 => {
            let wide = integers(dtype, codes, elems);
            runs.unmap(&wide, &mut out, params, |&c, s, z| {
                small(i32::from(c), s, z)
            });
        }
        DType::E2M1 | DType::NF4 => {
            let value = if dtype == DType::E2M1 {
                decode_e2m1
            } else {
                decode_nf4
            };
            let mut wide = vec![0f32; elems];
            fields::<4, _>(codes, &mut wide, value);
            runs.unmap(&wide, &mut out, params, |c, s, _| c * s);
        }
        DType::I8 => runs.unmap(codes, &mut out, params, |&c, s, z| {
            small(i32::from(c as i8), s, z)
        }),
        DType::U8 => runs.unmap(codes, &mut out, params, |&c, s, z| {
            small(i32::from(c), s, z)
        }),
        DType::I16 => runs.unmap(codes.as_chunks().0, &mut out, params, |&c, s, z| {
            small(i32::from(i16::from_le_bytes(c)), s, z)
        }),
        DType::U16 => runs.unmap(codes.as_chunks().0, &mut out, params, |&c, s, z| {
            small(i32::from(u16::from_le_bytes(c)), s, z)
        }),
        DType::E4M3 => runs.unmap(codes, &mut out, params, |&c, s, _| decode_e4m3(c) * s),
        DType::E5M2 => runs.unmap(codes, &mut out, params, |&c, s, _| decode_e5m2(c) * s),
        _ => runs.unmap(codes.as_chunks().0, &mut out, params, |&c, s, z| {
            dequantize_int(i32::from_le_bytes(c), s, z)
        }),
    }
    Ok(out)
}

/// How many elements saturate: their `x / scale + zero` lies more than half a step beyond the
/// outermost code. `levels` are the codes that are used, where they are fewer than the format has.
///
/// # Errors
/// As [`quantize_nd`].
pub fn clipped_nd(
    x: &[f32],
    dims: &[usize],
    block: &BlockShape,
    (format, levels): (QuantFormat, Option<IntRange>),
    params: QuantParams<'_>,
) -> Result<u64, FormatError> {
    check_len("tensor elements", product(dims)?, x.len())?;
    params.check(block.scale_count(dims)?, format)?;
    let (lo, hi) = format.unclipped(levels);
    let mut out = vec![0; x.len()];
    Runs::new(dims, block).map(x, &mut out, params, |x, s, z| {
        let q = x / s + z as f32;
        [u8::from(q < lo || q > hi)]
    });
    Ok(out.iter().map(|c| u64::from(*c)).sum())
}

/// [`dequantize_int`] where the difference cannot overflow: codes and zero points of 16 bits.
#[inline(always)]
fn small(code: i32, scale: f32, zero: i32) -> f32 {
    (code - zero) as f32 * scale
}

/// The values of stored codes that index tables: `table[block][code]`, one table of
/// `2^bits` values for each block of a tensor of shape `dims`, row-major.
///
/// # Errors
/// [`FormatError::NotQuantizable`] unless `storage` is u2, u4 or u8; [`FormatError::Rank`],
/// [`FormatError::TooLarge`], [`FormatError::Length`].
pub fn dequantize_table_nd(
    codes: &[u8],
    dims: &[usize],
    block: &BlockShape,
    storage: DType,
    tables: &[f32],
) -> Result<Vec<f32>, FormatError> {
    let elems = product(dims)?;
    let mut index = vec![0u8; elems];
    check_len("encoded bytes", bytes_for(storage, elems)?, codes.len())?;
    match storage {
        DType::U2 => fields::<2, _>(codes, &mut index, |c| c),
        DType::U4 => fields::<4, _>(codes, &mut index, |c| c),
        DType::U8 => index.copy_from_slice(codes),
        d => return Err(FormatError::NotQuantizable(d)),
    }
    let size = 1 << storage.bits();
    let blocks = block.scale_count(dims)?;
    let all = blocks.checked_mul(size).ok_or(FormatError::TooLarge)?;
    check_len("table entries", all, tables.len())?;
    let mut out = vec![0.0; elems];
    Runs::new(dims, block).visit(|run| {
        let first = run.scale;
        for (i, at) in run.elems.enumerate() {
            let table = first + if run.each { i } else { 0 };
            out[at] = tables[table * size + usize::from(index[at])];
        }
    });
    Ok(out)
}

/// The largest magnitude in each block, NaN where the block holds a NaN.
///
/// # Errors
/// [`FormatError::Rank`], [`FormatError::TooLarge`], [`FormatError::Length`].
pub fn absmax_nd(x: &[f32], dims: &[usize], block: &BlockShape) -> Result<Vec<f32>, FormatError> {
    check_len("tensor elements", product(dims)?, x.len())?;
    // Magnitudes order like their bits, infinity above the finite ones and NaN above infinity.
    let mut bits = vec![0u32; block.scale_count(dims)?];
    let magnitude = |v: &f32| v.to_bits() & 0x7fff_ffff;
    Runs::new(dims, block).fold(x, &mut bits, |a, v| a.max(magnitude(v)));
    Ok(bits.into_iter().map(f32::from_bits).collect())
}

/// The smallest and the largest value in each block; one of them is NaN where the block holds a
/// NaN.
///
/// # Errors
/// [`FormatError::Rank`], [`FormatError::TooLarge`], [`FormatError::Length`].
pub fn minmax_nd(
    x: &[f32],
    dims: &[usize],
    block: &BlockShape,
) -> Result<(Vec<f32>, Vec<f32>), FormatError> {
    check_len("tensor elements", product(dims)?, x.len())?;
    // No block is empty, so these are always replaced.
    let mut bounds = vec![(i32::MAX, i32::MIN); block.scale_count(dims)?];
    Runs::new(dims, block).fold(x, &mut bounds, |(low, high), v| {
        let key = order(v.to_bits() as i32);
        (low.min(key), high.max(key))
    });
    let value = |key: i32| f32::from_bits(order(key) as u32);
    Ok(bounds
        .into_iter()
        .map(|(l, h)| (value(l), value(h)))
        .unzip())
}

/// Maps f32 bits to an integer of the same order (IEEE 754 totalOrder), and back: NaNs lie
/// outside the infinities, so they win a minimum or a maximum.
#[inline(always)]
const fn order(bits: i32) -> i32 {
    bits ^ ((bits >> 31) & 0x7fff_ffff)
}

fn check_len(what: &'static str, expected: usize, found: usize) -> Result<(), FormatError> {
    if expected == found {
        return Ok(());
    }
    Err(FormatError::Length {
        what,
        expected,
        found,
    })
}

/// Packs one code per byte into as many as the format has in a byte, in place.
fn pack(codes: &mut Vec<u8>, dtype: DType) {
    let (per, bits) = (dtype.per_byte(), dtype.bits());
    if per == 1 {
        return;
    }
    let packed = codes.len().div_ceil(per);
    for i in 0..packed {
        let all = &codes[i * per..codes.len().min((i + 1) * per)];
        let low = |c: u8| c & ((1 << bits) - 1);
        let parts = all.iter().enumerate();
        codes[i] = parts.fold(0, |byte, (j, c)| byte | low(*c) << (j as u32 * bits));
    }
    codes.truncate(packed);
}

/// Packed integers, one in a byte.
fn integers(dtype: DType, codes: &[u8], elems: usize) -> Vec<i8> {
    let mut wide = vec![0i8; elems];
    match dtype {
        DType::I4 => fields::<4, _>(codes, &mut wide, sign_extend::<4>),
        DType::U4 => fields::<4, _>(codes, &mut wide, |c| c as i8),
        DType::I2 => fields::<2, _>(codes, &mut wide, sign_extend::<2>),
        _ => fields::<2, _>(codes, &mut wide, |c| c as i8),
    }
    wide
}

/// Consecutive elements whose scales are the same one, or consecutive too.
struct Run {
    elems: Span<usize>,
    /// The scale of the first element.
    scale: usize,
    /// Whether each further element has the next scale.
    each: bool,
}

/// A tensor's dimensions, folded as far as the block shape allows, with the block sizes.
struct Runs {
    axes: Vec<Axis>,
}

struct Axis {
    extent: usize,
    size: usize,
}

impl Runs {
    /// `dims` and `block` have the same rank, and their element count fits `usize`.
    fn new(dims: &[usize], block: &BlockShape) -> Self {
        if dims.contains(&0) {
            return Self { axes: Vec::new() };
        }
        let mut axes = vec![Axis { extent: 1, size: 1 }];
        for (&extent, block) in dims.iter().zip(&block.0) {
            let size = block.elements(extent);
            match axes.last_mut() {
                // The blocks cover this dimension, so they stay contiguous in the product; or
                // both dimensions have one scale per index, and so has the product.
                Some(last) if size >= extent || (last.size == 1 && size == 1) => {
                    last.extent *= extent;
                    last.size *= size;
                }
                _ => axes.push(Axis { extent, size }),
            }
        }
        Self { axes }
    }

    /// Visits every element once, in order.
    fn visit(&self, mut f: impl FnMut(Run)) {
        let Some((last, outer)) = self.axes.split_last() else {
            return;
        };
        let rows: usize = outer.iter().map(|a| a.extent).product();
        let blocks = last.extent.div_ceil(last.size);
        for row in 0..rows {
            let start = row * last.extent;
            let scale = scale_row(outer, row) * blocks;
            if last.size == 1 {
                f(Run {
                    elems: start..start + last.extent,
                    scale,
                    each: true,
                });
                continue;
            }
            for b in 0..blocks {
                let from = b * last.size;
                let to = last.extent.min(from + last.size);
                f(Run {
                    elems: start + from..start + to,
                    scale: scale + b,
                    each: false,
                });
            }
        }
    }

    fn map<const N: usize>(
        &self,
        x: &[f32],
        out: &mut [u8],
        params: QuantParams<'_>,
        f: impl Fn(f32, f32, i32) -> [u8; N],
    ) {
        let out = out.as_chunks_mut().0;
        self.visit(|run| {
            let pairs = out[run.elems.clone()].iter_mut().zip(&x[run.elems]);
            apply(pairs, run.scale, run.each, params, |x, s, z| f(*x, s, z));
        });
    }

    fn unmap<C>(
        &self,
        codes: &[C],
        out: &mut [f32],
        params: QuantParams<'_>,
        f: impl Fn(&C, f32, i32) -> f32,
    ) {
        self.visit(|run| {
            let pairs = out[run.elems.clone()].iter_mut().zip(&codes[run.elems]);
            apply(pairs, run.scale, run.each, params, &f);
        });
    }

    /// Reduces each block into its accumulator.
    fn fold<A: Copy>(&self, x: &[f32], blocks: &mut [A], f: impl Fn(A, &f32) -> A) {
        self.visit(|run| {
            let x = &x[run.elems];
            if run.each {
                for (a, v) in blocks[run.scale..].iter_mut().zip(x) {
                    *a = f(*a, v);
                }
            } else {
                blocks[run.scale] = x.iter().fold(blocks[run.scale], &f);
            }
        });
    }
}

/// The row-major index, among the blocks of `outer`, of the block that holds row `row`.
fn scale_row(outer: &[Axis], mut row: usize) -> usize {
    let (mut index, mut stride) = (0, 1);
    for axis in outer.iter().rev() {
        index += row % axis.extent / axis.size * stride;
        row /= axis.extent;
        stride *= axis.extent.div_ceil(axis.size);
    }
    index
}

/// One run of a map: with one scale and zero point, or with the next ones per element.
#[inline(always)]
fn apply<'a, I: 'a, O: 'a>(
    pairs: impl Iterator<Item = (&'a mut O, &'a I)>,
    scale: usize,
    each: bool,
    params: QuantParams<'_>,
    f: impl Fn(&I, f32, i32) -> O,
) {
    if !each {
        let (s, z) = (params.scales[scale], params.zero(scale));
        pairs.for_each(|(o, x)| *o = f(x, s, z));
        return;
    }
    let scales = &params.scales[scale..];
    match params.zeros {
        Some(zeros) => pairs
            .zip(scales.iter().zip(&zeros[scale..]))
            .for_each(|((o, x), (&s, &z))| *o = f(x, s, z)),
        None => pairs.zip(scales).for_each(|((o, x), &s)| *o = f(x, s, 0)),
    }
}
