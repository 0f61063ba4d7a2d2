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
    let (data, idx) = (unpack(c.arg(0)?.codes)?, c.arg(1)?.codes);
    let mut indices = vec![0i64; idx.numel()];
    decode_slice_i64(idx.dtype(), idx.bytes(), &mut indices).map_err(crate::format_error)?;
    let n = data.dims()[axis];
    let rows = indices
        .into_iter()
        .map(|i| row(i, axis, n))
        .collect::<Result<Vec<usize>>>()?;
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

/// The slice that an index names; a negative one counts from the end.
fn row(i: i64, axis: usize, n: u64) -> Result<usize> {
    let extent = i64::try_from(n).unwrap_or(i64::MAX);
    let at = if i < 0 { i.saturating_add(extent) } else { i };
    match (0..extent).contains(&at) {
        true => Ok(at as usize),
        false => Err(index_outside(i, axis, n)),
    }
}
