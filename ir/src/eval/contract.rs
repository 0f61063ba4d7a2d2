//! Contractions: matmul, linear, convolution, pooling, attention and rotary embedding.
//!
//! The accumulator of a linear or convolution over two quantized operands whose scales do not
//! vary along the contraction is exact: `f32(Σ (xq − zx)(wq − zw)) · sx · sw`, multiplied in f32
//! from left to right. In every other case it is the f64 sum of products of the real values,
//! rounded to f32.

use super::layout::{each_index, strides};
use super::quant;
use super::reduce::softmax_row;
use super::value::{Array, Nums, internal, load, load_tensor};
use crate::diag::Result;
use crate::graph::{AttentionAttrs, PoolFn, TensorType, Window};
use crate::tensor::Bundle;

pub(super) fn matmul(a: &Array, b: &Array) -> Result<Array> {
    let (ra, rb) = (a.dims.len(), b.dims.len());
    let (m, k, n) = (a.dims[ra - 2], a.dims[ra - 1], b.dims[rb - 1]);
    let batch = super::layout::broadcast_dims(&a.dims[..ra - 2], &b.dims[..rb - 2])?;
    let spread = |x: &Array, r: usize, tail: [usize; 2]| {
        let st = strides(&x.dims[..r - 2]);
        let skip = batch.len() - (r - 2);
        let dims = x.dims.clone();
        move |i: &[usize]| -> usize {
            (0..r - 2)
                .filter(|d| dims[*d] != 1)
                .map(|d| i[skip + d] * st[d])
                .sum::<usize>()
                * tail[0]
                * tail[1]
        }
    };
    let (pa, pb) = (spread(a, ra, [m, k]), spread(b, rb, [k, n]));
    let (va, vb) = (a.f()?, b.f()?);
    let mut out = Vec::new();
    each_index(&batch, |i| {
        let (oa, ob) = (pa(i), pb(i));
        for r in 0..m {
            for c in 0..n {
                out.push(
                    (0..k)
                        .map(|j| va[oa + r * k + j] * vb[ob + j * n + c])
                        .sum(),
                );
            }
        }
    });
    let mut dims = batch.clone();
    dims.extend([m, n]);
    Ok(Array::floats(dims, out))
}

/// One side of a contraction: numbers to multiply, and the scale of each of its rows.
struct Side {
    v: Vec<f64>,
    scale: Option<Vec<f32>>,
}

/// Codes minus zero points with one scale per row, if the scheme allows it; else real values.
fn side(b: &Bundle, t: &TensorType, rows: usize, exact: bool) -> Result<Side> {
    let real = |t: &TensorType| -> Result<Side> {
        Ok(Side {
            v: load(b, t)?.f()?.to_vec(),
            scale: None,
        })
    };
    let Some(q) = t.elem.quant().filter(|_| exact) else {
        return real(t);
    };
    let scale = b
        .scale
        .as_ref()
        .ok_or_else(|| internal("a quantized value has no scale"))?;
    let s = quant::f32s(scale)?;
    let k = b.codes.numel() / rows.max(1);
    let codes = load_tensor(&b.codes)?;
    let mut v = match codes.nums {
        Nums::F(v) => v,
        Nums::I(v) => v.into_iter().map(|c| c as f64).collect(),
    };
    if let Some(z) = quant::zeros(b.zero.as_ref())? {
        for (i, row) in v.chunks_mut(k.max(1)).enumerate() {
            let z = f64::from(z[if q.block.is_tensor() { 0 } else { i }]);
            row.iter_mut().for_each(|c| *c -= z);
        }
    }
    let scale = if s.len() == 1 { vec![s[0]; rows] } else { s };
    Ok(Side {
        v,
        scale: Some(scale),
    })
}

/// Whether the codes of an operand are summed, with its scales multiplied in afterwards.
fn one_scale_per_row(t: &TensorType, rows: usize) -> bool {
    t.elem.quant().is_some_and(|q| q.one_scale_per_row(rows))
}

fn combine(sum: f64, x: &Side, i: usize, w: &Side, j: usize) -> f64 {
    match (&x.scale, &w.scale) {
        (Some(sx), Some(sw)) => f64::from(sum as f32 * sx[i] * sw[j]),
        _ => f64::from(sum as f32),
    }
}

/// The accumulators of `x·wᵀ`: one array, or two for a weight of `[2n, k]`.
pub(super) fn linear(
    x: (&Bundle, &TensorType),
    w: (&Bundle, &TensorType),
    accs: u8,
) -> Result<Vec<Array>> {
    let dims: Vec<usize> = x.0.codes.dims().iter().map(|d| *d as usize).collect();
    let (&k, lead) = dims
        .split_last()
        .ok_or_else(|| internal("linear on a scalar"))?;
    let rows: usize = lead.iter().product();
    let n = w.0.codes.dims()[0] as usize;
    let exact = one_scale_per_row(x.1, lead.len()) && one_scale_per_row(w.1, 1);
    let (xs, ws) = (side(x.0, x.1, rows, exact)?, side(w.0, w.1, n, exact)?);
    let half = n / usize::from(accs);
    let part = |first: usize| {
        let mut out = Vec::with_capacity(rows * half);
        for i in 0..rows {
            for j in first..first + half {
                let sum = (0..k).map(|c| xs.v[i * k + c] * ws.v[j * k + c]).sum();
                out.push(combine(sum, &xs, i, &ws, j));
            }
        }
        let mut d = lead.to_vec();
        d.push(half);
        Array::floats(d, out)
    };
    Ok((0..usize::from(accs)).map(|a| part(a * half)).collect())
}

/// Source position of a window's tap along one dimension, if it is not padding.
fn tap(w: &Window, d: usize, out: usize, k: usize, extent: usize) -> Option<usize> {
    let at = out * w.strides[d] as usize + k * w.dilations[d] as usize;
    at.checked_sub(w.pad_lo[d] as usize).filter(|p| *p < extent)
}

/// Output extents of the window over spatial extents.
fn window_out(w: &Window, spatial: &[usize]) -> Vec<usize> {
    (0..spatial.len())
        .map(|d| {
            let reach = w.dilations[d] * (w.kernel[d] - 1) + 1;
            let padded = spatial[d] as u64 + w.pad_lo[d] + w.pad_hi[d];
            padded
                .checked_sub(reach)
                .map_or(0, |f| (f / w.strides[d] + 1) as usize)
        })
        .collect()
}

pub(super) fn conv(
    x: (&Bundle, &TensorType),
    w: (&Bundle, &TensorType),
    win: &Window,
    groups: u64,
) -> Result<Array> {
    let xd: Vec<usize> = x.0.codes.dims().iter().map(|d| *d as usize).collect();
    let wd: Vec<usize> = w.0.codes.dims().iter().map(|d| *d as usize).collect();
    let exact = x.1.elem.quant().is_some_and(|q| q.block.is_tensor()) && one_scale_per_row(w.1, 1);
    let (xs, ws) = (side(x.0, x.1, xd[0], exact)?, side(w.0, w.1, wd[0], exact)?);
    let (n, cg) = (wd[0], wd[1]);
    let per_group = n / groups.max(1) as usize;
    let out_sp = window_out(win, &xd[2..]);
    let kernel: Vec<usize> = wd[2..].to_vec();
    let (xst, wst) = (strides(&xd), strides(&wd));
    let mut dims = vec![xd[0], n];
    dims.extend(&out_sp);
    let mut out = Vec::with_capacity(dims.iter().product());
    each_index(&dims, |o| {
        let group = o[1] / per_group.max(1);
        let mut sum = 0.0;
        for c in 0..cg {
            each_index(&kernel, |k| {
                let mut at = o[0] * xst[0] + (group * cg + c) * xst[1];
                for d in 0..k.len() {
                    match tap(win, d, o[2 + d], k[d], xd[2 + d]) {
                        Some(p) => at += p * xst[2 + d],
                        None => return,
                    }
                }
                let wat: usize = o[1] * wst[0]
                    + c * wst[1]
                    + k.iter().zip(&wst[2..]).map(|(k, s)| k * s).sum::<usize>();
                sum += xs.v[at] * ws.v[wat];
            });
        }
        out.push(combine(sum, &xs, o[0], &ws, o[1]));
    });
    Ok(Array::floats(dims, out))
}

pub(super) fn pool(x: &Array, f: PoolFn, win: &Window) -> Result<Array> {
    let kernel: Vec<usize> = win.kernel.iter().map(|k| *k as usize).collect();
    let st = strides(&x.dims);
    let v = x.f()?;
    let mut dims = x.dims[..2].to_vec();
    dims.extend(window_out(win, &x.dims[2..]));
    let mut out = Vec::with_capacity(dims.iter().product());
    each_index(&dims, |o| {
        let (mut sum, mut max, mut count) = (0.0, f64::NEG_INFINITY, 0usize);
        each_index(&kernel, |k| {
            let mut at = o[0] * st[0] + o[1] * st[1];
            for d in 0..k.len() {
                match tap(win, d, o[2 + d], k[d], x.dims[2 + d]) {
                    Some(p) => at += p * st[2 + d],
                    None => return,
                }
            }
            sum += v[at];
            max = if v[at].is_nan() || max.is_nan() {
                f64::NAN
            } else {
                max.max(v[at])
            };
            count += 1;
        });
        out.push(match f {
            PoolFn::Max => max,
            PoolFn::Mean => sum / count as f64,
            PoolFn::MeanPadded => sum / kernel.iter().product::<usize>() as f64,
        });
    });
    Ok(Array::floats(dims, out))
}

/// Scores, mask, softmax and the weighted sum of values, head by head.
pub(super) fn attention(
    q: &Array,
    k: &Array,
    v: &Array,
    mask: Option<&Array>,
    a: &AttentionAttrs,
) -> Result<Array> {
    let (h, g) = (a.heads as usize, a.kv_heads as usize);
    let (b, s, t) = (q.dims[0], q.dims[1], k.dims[1]);
    let (d, dv) = (q.dims[2] / h, v.dims[2] / g);
    let (qv, kv, vv) = (q.f()?, k.f()?, v.f()?);
    let mask = mask
        .map(|m| super::layout::broadcast_to(m, &[b, h, s, t]))
        .transpose()?;
    let scale = f64::from(f32::from_bits(a.scale));
    let mut out = vec![0.0; b * s * h * dv];
    for (bi, hi, si) in
        (0..b).flat_map(|b| (0..h).flat_map(move |h| (0..s).map(move |s| (b, h, s))))
    {
        let gi = hi / (h / g);
        let mut row: Vec<f64> = (0..t)
            .map(|ti| {
                if a.causal && ti + s > si + t {
                    return f64::NEG_INFINITY;
                }
                let dot: f64 = (0..d)
                    .map(|c| {
                        qv[((bi * s + si) * h + hi) * d + c] * kv[((bi * t + ti) * g + gi) * d + c]
                    })
                    .sum();
                match mask
                    .as_ref()
                    .map(|m| (&m.nums, ((bi * h + hi) * s + si) * t + ti))
                {
                    Some((Nums::I(m), at)) if m[at] == 0 => f64::NEG_INFINITY,
                    Some((Nums::F(m), at)) => dot * scale + m[at],
                    _ => dot * scale,
                }
            })
            .collect();
        softmax_row(&mut row);
        for c in 0..dv {
            let sum: f64 = (0..t)
                .map(|ti| row[ti] * vv[((bi * t + ti) * g + gi) * dv + c])
                .sum();
            out[((bi * s + si) * h + hi) * dv + c] = sum;
        }
    }
    Ok(Array::floats(vec![b, s, h * dv], out))
}

/// Rotates the pairs of every head: `(x, y) → (x·cos − y·sin, y·cos + x·sin)`.
pub(super) fn rotary(
    x: &Array,
    cos: &Array,
    sin: &Array,
    d: usize,
    interleaved: bool,
) -> Result<Array> {
    let (b, s, h) = (x.dims[0], x.dims[1], x.dims[2] / d.max(1));
    let table = |t: &Array| super::layout::broadcast_to(t, &[b, s, d / 2]);
    let (cos, sin) = (table(cos)?, table(sin)?);
    let (v, c, sn) = (x.f()?, cos.f()?, sin.f()?);
    let mut out = v.to_vec();
    for (row, base) in (0..b * s).flat_map(|r| (0..h).map(move |hi| (r, (r * h + hi) * d))) {
        for p in 0..d / 2 {
            let (i, j) = if interleaved {
                (2 * p, 2 * p + 1)
            } else {
                (p, p + d / 2)
            };
            let (cp, sp) = (c[row * (d / 2) + p], sn[row * (d / 2) + p]);
            out[base + i] = v[base + i] * cp - v[base + j] * sp;
            out[base + j] = v[base + j] * cp + v[base + i] * sp;
        }
    }
    Ok(Array::floats(x.dims.clone(), out))
}
