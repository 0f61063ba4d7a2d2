//! `pool`: windows over one or two spatial dimensions.

use super::Call;
use crate::pool::Numbers;
use crate::value::sizes;
use qcc_ir::Bundle;
use qcc_ir::diag::{Class, Diagnostic, Result};
use qcc_ir::graph::{PoolFn, Window};

/// For each output position along one dimension, the input positions in its window.
pub(super) fn taps(w: &Window, axis: usize, size: usize, out: usize) -> Vec<Vec<Option<usize>>> {
    let at = |o: usize, k: u64| {
        let pos = o as u64 * w.strides[axis] + k * w.dilations[axis];
        let pos = usize::try_from(pos.checked_sub(w.pad_lo[axis])?).ok()?;
        (pos < size).then_some(pos)
    };
    (0..out)
        .map(|o| (0..w.kernel[axis]).map(|k| at(o, k)).collect())
        .collect()
}

/// The geometry as two spatial dimensions: a single one becomes a height of 1.
pub(super) fn two_dims(w: &Window) -> Result<Window> {
    let lift = |v: &[u64], fill: u64| match v {
        [a] => Ok(vec![fill, *a]),
        [a, b] => Ok(vec![*a, *b]),
        _ => Err(Diagnostic::error(
            702,
            Class::Unsupported,
            format!("windows over {} dimensions do not run on the CPU", v.len()),
        )),
    };
    Ok(Window {
        kernel: lift(&w.kernel, 1)?,
        strides: lift(&w.strides, 1)?,
        dilations: lift(&w.dilations, 1)?,
        pad_lo: lift(&w.pad_lo, 0)?,
        pad_hi: lift(&w.pad_hi, 0)?,
    })
}

/// Extents `[b, c, h, w]` of a tensor with one or two spatial dimensions.
pub(super) fn four_dims(d: &[usize]) -> Result<[usize; 4]> {
    match d {
        [b, c, w] => Ok([*b, *c, 1, *w]),
        [b, c, h, w] => Ok([*b, *c, *h, *w]),
        _ => Err(crate::internal("an image of other than 1 or 2 dimensions")),
    }
}

pub(super) fn pool(c: &Call<'_>, f: PoolFn, window: &Window) -> Result<Vec<Bundle>> {
    let (ty, dims) = c.result()?;
    let v = c.arg(0)?;
    let window = two_dims(window)?;
    let [_, _, h, w] = four_dims(&v.dims())?;
    let [_, _, oh, ow] = four_dims(&sizes(dims))?;
    let (rows, cols) = (taps(&window, 0, h, oh), taps(&window, 1, w, ow));
    let x = v.floats(c.threads)?;
    let full = (window.kernel[0] * window.kernel[1]) as f64;
    let mut out = Numbers::new(c.pool, dims)?;
    c.threads.chunks(out.get_mut()?, oh * ow, |at, plane| {
        let image = &x[at / (oh * ow) * h * w..][..h * w];
        for (o, v) in plane.iter_mut().enumerate() {
            let (ys, xs) = (&rows[o / ow], &cols[o % ow]);
            let inside = ys
                .iter()
                .flatten()
                .flat_map(|y| xs.iter().flatten().map(move |x| (y, x)));
            *v = pooled(f, inside.map(|(y, x)| image[y * w + x]), full);
        }
        Ok(())
    })?;
    let dtype = ty.plain("the result of pool")?;
    Ok(vec![out.finish(dtype, c.threads)?.into()])
}

/// One window; `full` counts the padding too.
fn pooled(f: PoolFn, inside: impl Iterator<Item = f32>, full: f64) -> f32 {
    let (mut sum, mut count, mut max) = (0f64, 0f64, f32::NEG_INFINITY);
    for v in inside {
        sum += f64::from(v);
        count += 1.0;
        max = if max.is_nan() || max > v { max } else { v };
    }
    match f {
        PoolFn::Max => max,
        PoolFn::Mean => (sum / count) as f32,
        PoolFn::MeanPadded => (sum / full) as f32,
    }
}
