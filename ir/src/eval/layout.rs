//! Moving elements: every layout op is a gather of source positions.

use super::value::{Array, Nums, internal};
use crate::diag::{Class, Diagnostic, Result, index_outside};

/// Row-major strides.
pub(super) fn strides(dims: &[usize]) -> Vec<usize> {
    let mut s = vec![1; dims.len()];
    for i in (0..dims.len().saturating_sub(1)).rev() {
        s[i] = s[i + 1] * dims[i + 1];
    }
    s
}

/// Calls `f` with every index of `dims`, row-major.
pub(super) fn each_index(dims: &[usize], mut f: impl FnMut(&[usize])) {
    if dims.contains(&0) {
        return;
    }
    let mut at = vec![0; dims.len()];
    loop {
        f(&at);
        let Some(i) = (0..dims.len()).rev().find(|i| at[*i] + 1 < dims[*i]) else {
            return;
        };
        at[i] += 1;
        at[i + 1..].fill(0);
    }
}

/// An array of `dims` whose element at `i` is that of `a` at position `src(i)`.
pub(super) fn gather_by(a: &Array, dims: &[usize], src: impl Fn(&[usize]) -> usize) -> Array {
    fn take<T: Copy>(v: &[T], dims: &[usize], src: impl Fn(&[usize]) -> usize) -> Vec<T> {
        let mut out = Vec::with_capacity(dims.iter().product());
        each_index(dims, |i| out.push(v[src(i)]));
        out
    }
    let nums = match &a.nums {
        Nums::F(v) => Nums::F(take(v, dims, src)),
        Nums::I(v) => Nums::I(take(v, dims, src)),
    };
    Array {
        dims: dims.to_vec(),
        nums,
    }
}

/// NumPy broadcast to `dims`.
pub(super) fn broadcast_to(a: &Array, dims: &[usize]) -> Result<Array> {
    if a.dims == dims {
        return Ok(a.clone());
    }
    let skip = dims.len().checked_sub(a.dims.len());
    let fits = |skip: usize| {
        a.dims
            .iter()
            .zip(&dims[skip..])
            .all(|(a, d)| *a == 1 || a == d)
    };
    let Some(skip) = skip.filter(|s| fits(*s)) else {
        return Err(internal(format!(
            "{:?} does not broadcast to {dims:?}",
            a.dims
        )));
    };
    let st: Vec<usize> = strides(&a.dims)
        .into_iter()
        .zip(&a.dims)
        .map(|(s, d)| if *d == 1 { 0 } else { s })
        .collect();
    Ok(gather_by(a, dims, |i| {
        i[skip..].iter().zip(&st).map(|(i, s)| i * s).sum()
    }))
}

/// The extents that two arrays broadcast to.
pub(super) fn broadcast_dims(a: &[usize], b: &[usize]) -> Result<Vec<usize>> {
    let rank = a.len().max(b.len());
    let at = |s: &[usize], i: usize| (i + s.len()).checked_sub(rank).map_or(1, |j| s[j]);
    (0..rank)
        .map(|i| match (at(a, i), at(b, i)) {
            (x, y) if x == y || y == 1 => Ok(x),
            (1, y) => Ok(y),
            _ => Err(internal(format!("{a:?} and {b:?} do not broadcast"))),
        })
        .collect()
}

pub(super) fn transpose(a: &Array, perm: &[usize]) -> Array {
    let dims: Vec<usize> = perm.iter().map(|p| a.dims[*p]).collect();
    let st = strides(&a.dims);
    gather_by(a, &dims, |i| {
        i.iter().zip(perm).map(|(i, p)| i * st[*p]).sum()
    })
}

/// Elements `starts + i·steps`; the extents are those of the result.
pub(super) fn slice(a: &Array, starts: &[usize], steps: &[u64], dims: &[usize]) -> Result<Array> {
    let last = |k: usize| starts[k] + (dims[k].max(1) - 1) * steps[k] as usize;
    if (0..dims.len()).any(|k| dims[k] > 0 && last(k) >= a.dims[k]) {
        return Err(Diagnostic::error(
            508,
            Class::Input,
            format!(
                "slice from {starts:?} by {steps:?} to {dims:?} leaves {:?}",
                a.dims
            ),
        ));
    }
    let st = strides(&a.dims);
    Ok(gather_by(a, dims, |i| {
        (0..i.len())
            .map(|k| (starts[k] + i[k] * steps[k] as usize) * st[k])
            .sum()
    }))
}

pub(super) fn concat(parts: &[Array], axis: usize) -> Result<Array> {
    let mut dims = parts[0].dims.clone();
    dims[axis] = parts.iter().map(|p| p.dims[axis]).sum();
    let outer: usize = dims[..axis].iter().product();
    fn join<T: Copy>(parts: &[(&[T], usize)], outer: usize) -> Vec<T> {
        (0..outer)
            .flat_map(|o| {
                parts
                    .iter()
                    .flat_map(move |(v, run)| v[o * run..(o + 1) * run].iter().copied())
            })
            .collect()
    }
    let run = |p: &Array| p.dims[axis..].iter().product::<usize>();
    let nums = match &parts[0].nums {
        Nums::F(_) => {
            let v: Vec<_> = parts
                .iter()
                .map(|p| Ok((p.f()?, run(p))))
                .collect::<Result<_>>()?;
            Nums::F(join(&v, outer))
        }
        Nums::I(_) => {
            let v: Vec<_> = parts
                .iter()
                .map(|p| Ok((p.i()?, run(p))))
                .collect::<Result<_>>()?;
            Nums::I(join(&v, outer))
        }
    };
    Ok(Array { dims, nums })
}

pub(super) fn pad(a: &Array, lo: &[u64], hi: &[u64], value: f64) -> Array {
    let dims: Vec<usize> = (0..a.dims.len())
        .map(|k| a.dims[k] + (lo[k] + hi[k]) as usize)
        .collect();
    let st = strides(&a.dims);
    fn fill<T: Copy>(
        v: &[T],
        a: &[usize],
        dims: &[usize],
        st: &[usize],
        lo: &[u64],
        value: T,
    ) -> Vec<T> {
        let mut out = Vec::with_capacity(dims.iter().product());
        each_index(dims, |i| {
            let inside =
                (0..i.len()).all(|k| i[k] >= lo[k] as usize && i[k] - (lo[k] as usize) < a[k]);
            let at = |k: usize| (i[k] - lo[k] as usize) * st[k];
            out.push(if inside {
                v[(0..i.len()).map(at).sum::<usize>()]
            } else {
                value
            });
        });
        out
    }
    let nums = match &a.nums {
        Nums::F(v) => Nums::F(fill(v, &a.dims, &dims, &st, lo, value)),
        Nums::I(v) => Nums::I(fill(v, &a.dims, &dims, &st, lo, value as i64)),
    };
    Array { dims, nums }
}

/// The position that an index names among `extent` of them; a negative one counts from the end.
pub(super) fn position(i: i64, axis: usize, extent: usize) -> Result<usize> {
    let j = if i < 0 { i + extent as i64 } else { i };
    usize::try_from(j)
        .ok()
        .filter(|j| *j < extent)
        .ok_or_else(|| index_outside(i, axis, extent as u64))
}

/// `data` indexed along `axis`; a negative index counts from the end.
pub(super) fn gather(data: &Array, idx: &Array, axis: usize) -> Result<Array> {
    let extent = data.dims[axis];
    let at: Vec<usize> = idx
        .i()?
        .iter()
        .map(|i| position(*i, axis, extent))
        .collect::<Result<_>>()?;
    let dims = [
        &data.dims[..axis],
        idx.dims.as_slice(),
        &data.dims[axis + 1..],
    ]
    .concat();
    let (st, ist) = (strides(&data.dims), strides(&idx.dims));
    let r = idx.dims.len();
    Ok(gather_by(data, &dims, |i| {
        let which: usize = (0..r).map(|k| i[axis + k] * ist[k]).sum();
        let outer: usize = (0..axis).map(|k| i[k] * st[k]).sum();
        let inner: usize = (axis + 1..data.dims.len())
            .map(|k| i[k + r - 1] * st[k])
            .sum();
        outer + at[which] * st[axis] + inner
    }))
}
