//! Ops that move elements without looking at them: reshape, transpose, expand, slice, concat,
//! pad. All but reshape are one strided copy into a dense result.

use super::Call;
use crate::threads::Threads;
use crate::value::{sizes, unpack, unpacked};
use qcc_ir::diag::{Class, Diagnostic, Result};
use qcc_ir::{Bundle, DType, DimExpr, Tensor};

/// Elements that one task copies, about.
const PIECE: usize = 1 << 15;

/// A tensor of the unpacked format as a value of the format itself.
pub(super) fn finish(dtype: DType, t: Tensor) -> Result<Bundle> {
    if dtype.per_byte() > 1 {
        return Ok(crate::value::pack(dtype, &t)?.into());
    }
    Ok(t.into())
}

/// The same elements in another shape.
pub(super) fn reshape(c: &Call<'_>) -> Result<Vec<Bundle>> {
    let (_, dims) = c.result()?;
    let x = c.arg(0)?;
    Ok(vec![reshaped(x.codes.clone(), dims)?.into()])
}

/// The tensor with other extents, which must hold the same number of elements.
///
/// # Errors
/// When a symbolic size makes the numbers differ.
pub(crate) fn reshaped(t: Tensor, dims: &[u64]) -> Result<Tensor> {
    let have = t.numel();
    if dims.iter().try_fold(1u64, |p, d| p.checked_mul(*d)) != Some(have as u64) {
        return Err(Diagnostic::error(
            707,
            Class::Input,
            format!(
                "{:?} has {have} elements and does not reshape to {dims:?}",
                t.dims()
            ),
        )
        .hint("give inputs whose sizes fit the model"));
    }
    t.reshape(dims)
}

/// Where the result's elements are in the source.
struct Walk {
    /// Extents of the result.
    dims: Vec<usize>,
    /// Step in the source per dimension of the result, in elements.
    steps: Vec<usize>,
    /// Source element of the result's first one.
    start: usize,
}

/// Copies elements of `N` bytes, the result's rows in pieces.
fn copy<const N: usize>(w: &Walk, from: &[u8], to: &mut [u8], threads: &Threads) -> Result<()> {
    let from = from.as_chunks::<N>().0;
    let to = to.as_chunks_mut::<N>().0;
    let (outer, last) = match w.dims.split_last() {
        Some((n, outer)) => (outer, *n),
        None => (&[][..], 1),
    };
    let step = w.steps.last().copied().unwrap_or(1);
    if last == 0 || to.is_empty() {
        return Ok(());
    }
    let rows = PIECE.div_ceil(last).max(1);
    threads.chunks(to, rows * last, |at, piece| {
        for (row, out) in (at / last..).zip(piece.chunks_mut(last)) {
            let (mut rest, mut src) = (row, w.start);
            for (n, s) in outer.iter().zip(&w.steps).rev() {
                src += rest % n * s;
                rest /= n;
            }
            if step == 1 {
                out.copy_from_slice(&from[src..src + last]);
            } else {
                out.iter_mut()
                    .enumerate()
                    .for_each(|(i, o)| *o = from[src + i * step]);
            }
        }
        Ok(())
    })
}

/// The dense result of a walk over `x`.
fn gather_walk(c: &Call<'_>, x: &Tensor, w: &Walk) -> Result<Vec<Bundle>> {
    let dtype = x.dtype();
    let x = unpack(x)?;
    let dims: Vec<u64> = w.dims.iter().map(|d| *d as u64).collect();
    let mut t = Tensor::zeros(x.dtype(), &dims)?;
    let (from, to) = (x.bytes(), t.bytes_mut());
    match x.dtype().bits() {
        8 => copy::<1>(w, from, to, c.threads),
        16 => copy::<2>(w, from, to, c.threads),
        32 => copy::<4>(w, from, to, c.threads),
        _ => copy::<8>(w, from, to, c.threads),
    }?;
    Ok(vec![finish(dtype, t)?])
}

/// Steps of a dense tensor.
fn dense_steps(dims: &[usize]) -> Vec<usize> {
    let mut steps = vec![1; dims.len()];
    for i in (1..dims.len()).rev() {
        steps[i - 1] = steps[i] * dims[i];
    }
    steps
}

/// Result dimension `i` is operand dimension `perm[i]`.
pub(super) fn transpose(c: &Call<'_>, perm: &[usize]) -> Result<Vec<Bundle>> {
    let x = c.arg(0)?;
    let from = x.dims();
    let steps = dense_steps(&from);
    let w = Walk {
        dims: perm.iter().map(|p| from[*p]).collect(),
        steps: perm.iter().map(|p| steps[*p]).collect(),
        start: 0,
    };
    gather_walk(c, x.codes, &w)
}

/// NumPy broadcast to the result's shape.
pub(super) fn expand(c: &Call<'_>) -> Result<Vec<Bundle>> {
    let (_, dims) = c.result()?;
    let x = c.arg(0)?;
    let dims = sizes(dims);
    let w = Walk {
        steps: crate::expr::broadcast_steps(&x.dims(), &dims)?,
        dims,
        start: 0,
    };
    gather_walk(c, x.codes, &w)
}

/// Elements `start, start + step, …` of each dimension.
pub(super) fn slice(c: &Call<'_>, starts: &[DimExpr], by: &[u64]) -> Result<Vec<Bundle>> {
    let (_, dims) = c.result()?;
    let x = c.arg(0)?;
    let from = x.dims();
    let dense = dense_steps(&from);
    let dims = sizes(dims);
    let mut start = 0;
    for (i, s) in starts.iter().enumerate() {
        let at = s
            .eval(&|n| c.sizes.get(n))
            .and_then(|v| usize::try_from(v).ok());
        let last = at.map(|a| a + dims[i].saturating_sub(1) * by[i] as usize);
        match (at, last) {
            (Some(a), Some(l)) if dims[i] == 0 || l < from[i] => start += a * dense[i],
            _ => {
                return Err(Diagnostic::error(
                    708,
                    Class::Input,
                    format!(
                        "a slice of {} elements from {s} on leaves {:?}",
                        dims[i],
                        x.codes.dims()
                    ),
                ));
            }
        }
    }
    let steps = dense.iter().zip(by).map(|(d, b)| d * *b as usize).collect();
    gather_walk(c, x.codes, &Walk { dims, steps, start })
}

/// Copies blocks of `len` bytes, one for each index of the outer dimensions.
fn place(from: &[u8], len: usize, to: &mut [u8], stride: usize, at: usize) {
    if len == 0 {
        return;
    }
    for (i, block) in from.chunks(len).enumerate() {
        to[i * stride + at..i * stride + at + len].copy_from_slice(block);
    }
}

/// Concatenation along `axis`.
pub(super) fn concat(c: &Call<'_>, axis: usize) -> Result<Vec<Bundle>> {
    let (ty, dims) = c.result()?;
    let dtype = ty.plain("the result of concat")?;
    let mut t = Tensor::zeros(unpacked(dtype), dims)?;
    let inner: usize = sizes(&dims[axis + 1..]).iter().product();
    let width = inner * t.dtype().bits() as usize / 8;
    let stride = dims[axis] as usize * width;
    let mut at = 0;
    for i in 0..c.args.len() {
        let x = unpack(c.arg(i)?.codes)?;
        let len = x.dims()[axis] as usize * width;
        place(x.bytes(), len, t.bytes_mut(), stride, at);
        at += len;
    }
    Ok(vec![finish(dtype, t)?])
}

/// Constant padding: every element is `value`, then the operand's rows are put in place.
pub(super) fn pad(c: &Call<'_>, lo: &[u64], value: f64) -> Result<Vec<Bundle>> {
    let (ty, dims) = c.result()?;
    let dtype = ty.plain("the result of pad")?;
    let x = unpack(c.arg(0)?.codes)?;
    let mut t = Tensor::zeros(x.dtype(), dims)?;
    let one = super::constant::element(dtype, value)?;
    let one = unpack(&one)?;
    let width = one.bytes().len();
    if value.to_bits() != 0 {
        t.bytes_mut()
            .chunks_mut(width)
            .for_each(|e| e.copy_from_slice(one.bytes()));
    }
    let from = sizes(x.dims());
    let (rows, cols) = crate::value::rows_cols(&from);
    let steps = dense_steps(&sizes(dims));
    let out = t.bytes_mut();
    if cols == 0 {
        return Ok(vec![finish(dtype, t)?]);
    }
    for row in 0..rows {
        let mut rest = row;
        let mut at = lo.last().copied().unwrap_or(0) as usize;
        for (d, n) in from.iter().enumerate().rev().skip(1) {
            at += (rest % n + lo[d] as usize) * steps[d];
            rest /= n;
        }
        let src = &x.bytes()[row * cols * width..(row + 1) * cols * width];
        out[at * width..(at + cols) * width].copy_from_slice(src);
    }
    Ok(vec![finish(dtype, t)?])
}
