//! `rotary`: rotation of each head's pairs of elements by position-dependent angles.
//!
//! ```text
//! (a, b) ↦ (a·cos − b·sin, b·cos + a·sin)     pairs (i, i + d/2), or (2i, 2i + 1)
//! ```

use super::Call;
use crate::pool::Numbers;
use qcc_ir::Bundle;
use qcc_ir::diag::Result;
use qcc_ir::graph::{RotaryAttrs, TensorType};

/// Elements that one task rotates, about.
const PIECE: usize = 1 << 14;

/// Where the row of angles of `(batch, position)` begins in a table `[s, p]` or `[b, s, p]`.
fn angle_row(dims: &[usize], batch: usize, at: usize) -> usize {
    let p = dims.last().copied().unwrap_or(0);
    let s = dims.iter().rev().nth(1).copied().unwrap_or(1);
    let b = dims.iter().rev().nth(2).copied().unwrap_or(1);
    let batch = if b == 1 { 0 } else { batch };
    let at = if s == 1 { 0 } else { at };
    (batch * s + at) * p
}

fn rotate(head: &mut [f32], cos: &[f32], sin: &[f32], interleaved: bool) {
    let half = cos.len();
    for i in 0..half {
        let (p, q) = if interleaved {
            (2 * i, 2 * i + 1)
        } else {
            (i, i + half)
        };
        let (a, b) = (head[p], head[q]);
        head[p] = a * cos[i] - b * sin[i];
        head[q] = b * cos[i] + a * sin[i];
    }
}

pub(super) fn rotary(c: &Call<'_>, attrs: RotaryAttrs) -> Result<Vec<Bundle>> {
    let width = c.arg(0)?.dims().last().copied().unwrap_or(0);
    let head = width / attrs.heads.max(1) as usize;
    // Results follow the tensors that are turned: operand 0, and operand 3 where there is one.
    (0..c.results.len())
        .map(|i| turned(c, 3 * i, &c.results[i], head, attrs.interleaved))
        .collect()
}

/// The tensor in operand `i` with its heads turned.
fn turned(
    c: &Call<'_>,
    i: usize,
    (ty, dims): &(&TensorType, Vec<u64>),
    head: usize,
    interleaved: bool,
) -> Result<Bundle> {
    let x = c.arg(i)?;
    let d = x.dims();
    let [_, s, width] = d[..] else {
        return Err(crate::internal("rotary needs three dimensions"));
    };
    let (cos_dims, sin_dims) = (c.arg(1)?.dims(), c.arg(2)?.dims());
    let (cos, sin) = (c.arg(1)?.floats(c.threads)?, c.arg(2)?.floats(c.threads)?);
    let x = x.floats(c.threads)?;
    let mut out = Numbers::new(c.pool, dims)?;
    if width > 0 {
        let rows = PIECE.div_ceil(width);
        c.threads
            .chunks(out.get_mut()?, rows * width, |at, piece| {
                piece.copy_from_slice(&x[at..at + piece.len()]);
                for (i, row) in piece.chunks_mut(width).enumerate() {
                    let (b, t) = ((at / width + i) / s, (at / width + i) % s);
                    let cos = &cos[angle_row(&cos_dims, b, t)..][..head / 2];
                    let sin = &sin[angle_row(&sin_dims, b, t)..][..head / 2];
                    row.chunks_mut(head)
                        .for_each(|h| rotate(h, cos, sin, interleaved));
                }
                Ok(())
            })?;
    }
    let dtype = ty.plain("the result of rotary")?;
    Ok(out.finish(dtype, c.threads)?.into())
}
