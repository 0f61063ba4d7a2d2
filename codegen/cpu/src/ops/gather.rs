//! `gather`: slices of a tensor by integer indices.

use super::Call;
use crate::value::{unpack, unpacked};
use qcc_ir::diag::{Result, index_outside};
use qcc_ir::format::decode_slice_i64;
use qcc_ir::{Bundle, Tensor};

/// `data` sliced along `axis`; the indices' shape replaces that dimension.
///
/// # Errors
/// When an index lies outside the dimension.
pub(super) fn gather(c: &Call<'_>, axis: usize) -> Result<Vec<Bundle>> {
    let (ty, dims) = c.result()?;
    let dtype = ty.plain("the result of gather")?;
    let data = unpack(c.arg(0)?.codes)?;
    let n = data.dims()[axis];
    let rows = named(c.arg(1)?.codes, axis, n)?;
    let mut t = Tensor::zeros(unpacked(dtype), dims)?;
    let inner: u64 = data.dims()[axis + 1..].iter().product();
    let width = inner as usize * data.dtype().bits() as usize / 8;
    if width == 0 || rows.is_empty() {
        return Ok(vec![super::layout::finish(dtype, t)?]);
    }
    let block = n as usize * width;
    // Whole slices, about 32 KiB of them in a task.
    let piece = (1usize << 15).div_ceil(width) * width;
    let from = data.bytes();
    c.threads.chunks(t.bytes_mut(), piece, |at, out| {
        for (i, slice) in out.chunks_mut(width).enumerate() {
            let flat = at / width + i;
            let src = flat / rows.len() * block + rows[flat % rows.len()] * width;
            slice.copy_from_slice(&from[src..src + width]);
        }
        Ok(())
    })?;
    Ok(vec![super::layout::finish(dtype, t)?])
}

/// Which of the `n` entries of a dimension these indices name.
///
/// # Errors
/// When an index lies outside the dimension.
pub(super) fn named(indices: &Tensor, axis: usize, n: u64) -> Result<Vec<usize>> {
    let mut given = vec![0i64; indices.numel()];
    let (dtype, bytes) = (indices.dtype(), indices.bytes());
    decode_slice_i64(dtype, bytes, &mut given).map_err(crate::format_error)?;
    given.into_iter().map(|i| entry(i, axis, n)).collect()
}

/// The entry that an index names; a negative one counts from the end.
fn entry(i: i64, axis: usize, n: u64) -> Result<usize> {
    let extent = i64::try_from(n).unwrap_or(i64::MAX);
    let at = if i < 0 { i.saturating_add(extent) } else { i };
    match (0..extent).contains(&at) {
        true => Ok(at as usize),
        false => Err(index_outside(i, axis, n)),
    }
}
