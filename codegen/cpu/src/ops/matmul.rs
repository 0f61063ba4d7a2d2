//! `matmul`: batched products with NumPy broadcasting of the batch dimensions.

use super::Call;
use super::operand::batch;
use crate::gemm::{Mat, gemm};
use crate::pool::Numbers;
use crate::threads::Scatter;
use crate::value::{View, sizes};
use qcc_ir::diag::Result;
use qcc_ir::format::{decode_slice_i64, encode_slice_i64};
use qcc_ir::{Bundle, Tensor};

/// Rows of a result matrix that one task computes.
const TILE_ROWS: usize = 128;

/// For each matrix of the result, the position of the operand's matrix that it uses.
fn batches(from: &[usize], to: &[usize]) -> Result<Vec<usize>> {
    let cut = |d: &[usize]| d[..d.len().saturating_sub(2)].to_vec();
    let (from, to) = (cut(from), cut(to));
    let steps = crate::expr::broadcast_steps(&from, &to)?;
    let count: usize = to.iter().product();
    Ok((0..count)
        .map(|mut i| {
            let mut at = 0;
            for (n, s) in to.iter().zip(&steps).rev() {
                at += i % n * s;
                i /= n;
            }
            at
        })
        .collect())
}

pub(super) fn matmul(c: &Call<'_>) -> Result<Vec<Bundle>> {
    let (ty, dims) = c.result()?;
    let dtype = ty.plain("the result of matmul")?;
    let (a, b) = (c.arg(0)?, c.arg(1)?);
    let to = sizes(dims);
    let (at, bt) = (batches(&a.dims(), &to)?, batches(&b.dims(), &to)?);
    if !dtype.is_float() {
        return integers(c, &a, &b, &at, &bt);
    }
    let (x, y) = (a.floats(c.threads)?, b.floats(c.threads)?);
    let (_, m, k) = batch(&a.dims());
    let n = batch(&b.dims()).2;
    let mut out = Numbers::new(c.pool, dims)?;
    let to = Scatter::new(out.get_mut()?);
    let tiles = m.div_ceil(TILE_ROWS);
    c.threads.each(at.len() * tiles, |task| {
        let (i, tile) = (task / tiles, task % tiles);
        let rows = tile * TILE_ROWS..m.min((tile + 1) * TILE_ROWS);
        let x = Mat::rows(&x, (at[i] * m + rows.start) * k, k);
        let y = Mat::rows(&y, bt[i] * k * n, n);
        // SAFETY: every task has rows of its own.
        let z = unsafe { to.slice((i * m + rows.start) * n..(i * m + rows.end) * n) }?;
        gemm([rows.len(), n, k], x, y, z, n, false)
    })?;
    Ok(vec![out.finish(dtype, c.threads)?.into()])
}

fn ints(v: &View<'_>) -> Result<Vec<i64>> {
    let mut out = vec![0i64; v.codes.numel()];
    decode_slice_i64(v.codes.dtype(), v.codes.bytes(), &mut out).map_err(crate::format_error)?;
    Ok(out)
}

/// Integers: wrapping sums in i64.
fn integers(
    c: &Call<'_>,
    a: &View<'_>,
    b: &View<'_>,
    at: &[usize],
    bt: &[usize],
) -> Result<Vec<Bundle>> {
    let (ty, dims) = c.result()?;
    let (x, y) = (ints(a)?, ints(b)?);
    let (_, m, k) = batch(&a.dims());
    let n = batch(&b.dims()).2;
    let mut t = Tensor::zeros(ty.plain("the result of matmul")?, dims)?;
    let mut out = vec![0i64; t.numel()];
    c.threads.chunks(&mut out, n.max(1), |first, row| {
        let flat = first / n;
        let (i, r) = (flat / m, flat % m);
        for l in 0..k {
            let v = x[(at[i] * m + r) * k + l];
            let line = &y[(bt[i] * k + l) * n..][..n];
            for (o, w) in row.iter_mut().zip(line) {
                *o = o.wrapping_add(v.wrapping_mul(*w));
            }
        }
        Ok(())
    })?;
    encode_slice_i64(t.dtype(), &out, t.bytes_mut()).map_err(crate::format_error)?;
    Ok(vec![t.into()])
}
