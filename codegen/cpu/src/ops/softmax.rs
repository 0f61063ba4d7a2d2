//! `softmax` along one axis.

use super::Call;
use crate::math;
use crate::value::encode_floats;
use qcc_ir::Bundle;
use qcc_ir::diag::Result;

/// Elements that one task handles, about.
const PIECE: usize = 1 << 13;

/// `e^(x−m)/Σ e^(x−m)` in place; a row of −∞ only becomes zeros.
fn row(x: &mut [f32]) {
    let max = math::maximum(x);
    if max == f32::NEG_INFINITY {
        return x.fill(0.0);
    }
    math::exp_shifted(x, max);
    let sum = math::sum(x);
    math::scale(x, (1.0 / sum) as f32);
}

pub(super) fn softmax(c: &Call<'_>, axis: usize) -> Result<Vec<Bundle>> {
    let (ty, dims) = c.result()?;
    let x = c.arg(0)?;
    let d = x.dims();
    let n = d[axis];
    let inner: usize = d[axis + 1..].iter().product();
    let mut data = x.floats(c.threads)?.into_owned();
    if !data.is_empty() && inner == 1 {
        let rows = PIECE.div_ceil(n);
        c.threads.chunks(&mut data, rows * n, |_, piece| {
            piece.chunks_mut(n).for_each(row);
            Ok(())
        })?;
    } else if !data.is_empty() {
        strided(c, &mut data, n, inner)?;
    }
    let t = encode_floats(ty.plain("the result of softmax")?, dims, &data, c.threads)?;
    Ok(vec![t.into()])
}

/// Rows whose elements lie `inner` apart: each is copied out, computed and put back.
fn strided(c: &Call<'_>, data: &mut [f32], n: usize, inner: usize) -> Result<()> {
    // Every `n·inner` elements hold `inner` rows and belong to one task.
    c.threads.chunks(data, n * inner, |_, block| {
        let mut line = vec![0f32; n];
        for at in 0..inner {
            line.iter_mut()
                .enumerate()
                .for_each(|(i, v)| *v = block[i * inner + at]);
            row(&mut line);
            line.iter()
                .enumerate()
                .for_each(|(i, v)| block[i * inner + at] = *v);
        }
        Ok(())
    })
}
