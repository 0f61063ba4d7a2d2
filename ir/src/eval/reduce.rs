//! Reductions, running sums, softmax and the normalizations. Sums are in f64.

use super::layout::{each_index, strides};
use super::value::{Array, Nums, internal};
use crate::diag::Result;
use crate::graph::ReduceFn;

/// Runs along `axis`: for each, the position of the first element and the stride.
fn lanes(dims: &[usize], axis: usize) -> (Vec<usize>, usize, usize) {
    let st = strides(dims);
    let mut outer = dims.to_vec();
    outer[axis] = 1;
    let mut starts = Vec::new();
    each_index(&outer, |i| {
        starts.push(i.iter().zip(&st).map(|(i, s)| i * s).sum())
    });
    (starts, st[axis], dims[axis])
}

pub(super) fn reduce(a: &Array, f: ReduceFn, axes: &[usize], keep: bool) -> Result<Array> {
    let st = strides(&a.dims);
    let kept: Vec<usize> = (0..a.dims.len()).filter(|i| !axes.contains(i)).collect();
    let inner: Vec<usize> = axes.iter().map(|i| a.dims[*i]).collect();
    let outer: Vec<usize> = kept.iter().map(|i| a.dims[*i]).collect();
    let mut starts = Vec::new();
    each_index(&outer, |i| {
        starts.push(i.iter().zip(&kept).map(|(i, k)| i * st[*k]).sum::<usize>())
    });
    let mut offsets = Vec::new();
    each_index(&inner, |i| {
        offsets.push(i.iter().zip(axes).map(|(i, k)| i * st[*k]).sum::<usize>())
    });
    let nums = match &a.nums {
        Nums::F(v) => Nums::F(
            starts
                .iter()
                .map(|s| fold_f(f, offsets.iter().map(|o| v[s + o])))
                .collect(),
        ),
        Nums::I(v) => {
            let out = starts
                .iter()
                .map(|s| fold_i(f, offsets.iter().map(|o| v[s + o])));
            Nums::I(
                out.collect::<Option<_>>()
                    .ok_or_else(|| internal("mean or extremum of no integers"))?,
            )
        }
    };
    let dims = match keep {
        true => (0..a.dims.len())
            .map(|i| if axes.contains(&i) { 1 } else { a.dims[i] })
            .collect(),
        false => outer,
    };
    Ok(Array { dims, nums })
}

fn fold_f(f: ReduceFn, it: impl ExactSizeIterator<Item = f64>) -> f64 {
    let n = it.len() as f64;
    let worst = |a: f64, b: f64, pick: fn(f64, f64) -> f64| {
        if a.is_nan() || b.is_nan() {
            f64::NAN
        } else {
            pick(a, b)
        }
    };
    match f {
        ReduceFn::Sum => it.sum(),
        ReduceFn::Mean => it.sum::<f64>() / n,
        ReduceFn::Prod => it.product(),
        ReduceFn::Max => it.fold(f64::NEG_INFINITY, |a, b| worst(a, b, f64::max)),
        ReduceFn::Min => it.fold(f64::INFINITY, |a, b| worst(a, b, f64::min)),
    }
}

fn fold_i(f: ReduceFn, it: impl ExactSizeIterator<Item = i64>) -> Option<i64> {
    let n = it.len() as i64;
    match f {
        ReduceFn::Sum => Some(it.fold(0, i64::wrapping_add)),
        ReduceFn::Prod => Some(it.fold(1, i64::wrapping_mul)),
        ReduceFn::Mean => it.fold(0, i64::wrapping_add).checked_div(n),
        ReduceFn::Max => it.reduce(i64::max),
        ReduceFn::Min => it.reduce(i64::min),
    }
}

pub(super) fn cumsum(a: &Array, axis: usize) -> Array {
    let (starts, st, n) = lanes(&a.dims, axis);
    let mut out = a.clone();
    for s in starts {
        for k in 1..n {
            let (prev, here) = (s + (k - 1) * st, s + k * st);
            match &mut out.nums {
                Nums::F(v) => v[here] += v[prev],
                Nums::I(v) => v[here] = v[here].wrapping_add(v[prev]),
            }
        }
    }
    out
}

pub(super) fn softmax(a: &Array, axis: usize) -> Result<Array> {
    let mut v = a.f()?.to_vec();
    let (starts, st, n) = lanes(&a.dims, axis);
    for s in starts {
        let mut row: Vec<f64> = (0..n).map(|k| v[s + k * st]).collect();
        softmax_row(&mut row);
        row.iter().enumerate().for_each(|(k, x)| v[s + k * st] = *x);
    }
    Ok(Array::floats(a.dims.clone(), v))
}

/// Softmax in place; a row of −∞ only becomes zeros.
pub(super) fn softmax_row(row: &mut [f64]) {
    let max = fold_f(ReduceFn::Max, row.iter().copied());
    if max == f64::NEG_INFINITY {
        row.fill(0.0);
        return;
    }
    row.iter_mut().for_each(|x| *x = (*x - max).exp());
    let sum: f64 = row.iter().sum();
    row.iter_mut().for_each(|x| *x /= sum);
}

/// `(x − mean)/√(var + eps)` of each row, or `x/√(mean(x²) + eps)` without centering.
pub(super) fn normalize(x: &Array, eps: f32, center: bool) -> Result<Array> {
    let n = x.dims.last().copied().unwrap_or(1).max(1);
    let mut v = x.f()?.to_vec();
    for row in v.chunks_mut(n) {
        let mean = if center {
            row.iter().sum::<f64>() / n as f64
        } else {
            0.0
        };
        let var = row.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / n as f64;
        let denom = (var + f64::from(eps)).sqrt();
        row.iter_mut().for_each(|x| *x = (*x - mean) / denom);
    }
    Ok(Array::floats(x.dims.clone(), v))
}
