//! `reduce` over any dimensions and `cumsum` along one.
//!
//! Floats accumulate in f64, integers in i64 (wrapping), and are rounded once.

use super::Call;
use crate::value::View;
use qcc_ir::diag::{Class, Diagnostic, Result};
use qcc_ir::format::{decode_slice, decode_slice_i64, encode_slice, encode_slice_i64};
use qcc_ir::graph::ReduceFn;
use qcc_ir::{Bundle, Tensor};

/// Elements that one task reads, about.
const PIECE: usize = 1 << 15;

/// The numbers of a tensor.
enum Numbers {
    Float(Vec<f64>),
    Int(Vec<i64>),
}

fn numbers(v: &View<'_>) -> Result<Numbers> {
    let (d, n) = (v.codes.dtype(), v.codes.numel());
    if d.is_float() {
        let mut x = vec![0f64; n];
        decode_slice(d, v.codes.bytes(), &mut x).map_err(crate::format_error)?;
        return Ok(Numbers::Float(x));
    }
    let mut x = vec![0i64; n];
    decode_slice_i64(d, v.codes.bytes(), &mut x).map_err(crate::format_error)?;
    Ok(Numbers::Int(x))
}

/// A result of the numbers in the given format: integers wrap, floats round.
fn encode(c: &Call<'_>, x: Numbers) -> Result<Vec<Bundle>> {
    let (ty, dims) = c.result()?;
    let mut t = Tensor::zeros(ty.plain("the result of a reduction")?, dims)?;
    let d = t.dtype();
    match x {
        Numbers::Float(x) => encode_slice(d, &x, t.bytes_mut()),
        Numbers::Int(x) => encode_slice_i64(d, &x, t.bytes_mut()),
    }
    .map_err(crate::format_error)?;
    Ok(vec![t.into()])
}

/// Positions of the elements that are reduced, relative to the first of a group, and the first
/// element of each group.
struct Groups {
    starts: Vec<usize>,
    members: Vec<usize>,
}

impl Groups {
    fn new(dims: &[usize], axes: &[usize]) -> Self {
        let mut starts = vec![0];
        let mut members = vec![0];
        let mut step: usize = dims.iter().product();
        for (d, n) in dims.iter().enumerate() {
            step /= (*n).max(1);
            let list = if axes.contains(&d) {
                &mut members
            } else {
                &mut starts
            };
            *list = list
                .iter()
                .flat_map(|at| (0..*n).map(move |i| at + i * step))
                .collect();
        }
        Groups { starts, members }
    }

    fn fold<T: Copy + Send + Sync + Default>(
        &self,
        c: &Call<'_>,
        x: &[T],
        f: impl Fn(&mut dyn Iterator<Item = T>) -> T + Sync,
    ) -> Result<Vec<T>> {
        let mut out = vec![T::default(); self.starts.len()];
        let piece = PIECE.div_ceil(self.members.len().max(1));
        c.threads.chunks(&mut out, piece, |at, part| {
            for (o, start) in part.iter_mut().zip(&self.starts[at..]) {
                *o = f(&mut self.members.iter().map(|m| x[start + m]));
            }
            Ok(())
        })?;
        Ok(out)
    }
}

pub(super) fn reduce(c: &Call<'_>, f: ReduceFn, axes: &[usize]) -> Result<Vec<Bundle>> {
    let v = c.arg(0)?;
    let groups = Groups::new(&v.dims(), axes);
    let n = groups.members.len();
    let out = match numbers(&v)? {
        Numbers::Float(x) => Numbers::Float(groups.fold(c, &x, |i| float(f, i, n))?),
        Numbers::Int(x) => {
            let empty = n == 0 && !groups.starts.is_empty();
            if empty && !matches!(f, ReduceFn::Sum | ReduceFn::Prod) {
                return Err(Diagnostic::error(
                    704,
                    Class::Input,
                    format!("the {} of no integers is not defined", f.name()),
                ));
            }
            Numbers::Int(groups.fold(c, &x, |i| int(f, i, n))?)
        }
    };
    encode(c, out)
}

fn float(f: ReduceFn, i: &mut dyn Iterator<Item = f64>, n: usize) -> f64 {
    let pick = |better: fn(f64, f64) -> bool| {
        move |a: f64, b: f64| if a.is_nan() || better(a, b) { a } else { b }
    };
    match f {
        ReduceFn::Sum => i.sum(),
        ReduceFn::Mean => i.sum::<f64>() / n as f64,
        ReduceFn::Prod => i.product(),
        ReduceFn::Max => i.fold(f64::NEG_INFINITY, pick(|a, b| a > b)),
        ReduceFn::Min => i.fold(f64::INFINITY, pick(|a, b| a < b)),
    }
}

/// A mean truncates towards zero; `n` is not 0 where it or an extremum is asked for.
fn int(f: ReduceFn, i: &mut dyn Iterator<Item = i64>, n: usize) -> i64 {
    match f {
        ReduceFn::Sum => i.fold(0, i64::wrapping_add),
        ReduceFn::Mean => i.fold(0, i64::wrapping_add) / n.max(1) as i64,
        ReduceFn::Prod => i.fold(1, i64::wrapping_mul),
        ReduceFn::Max => i.fold(i64::MIN, i64::max),
        ReduceFn::Min => i.fold(i64::MAX, i64::min),
    }
}

/// Inclusive running sum along `axis`.
pub(super) fn cumsum(c: &Call<'_>, axis: usize) -> Result<Vec<Bundle>> {
    let v = c.arg(0)?;
    let groups = Groups::new(&v.dims(), &[axis]);
    let mut x = numbers(&v)?;
    for start in &groups.starts {
        match &mut x {
            Numbers::Float(x) => run(x, *start, &groups.members, |a, b| a + b),
            Numbers::Int(x) => run(x, *start, &groups.members, i64::wrapping_add),
        }
    }
    encode(c, x)
}

fn run<T: Copy + Default>(x: &mut [T], start: usize, members: &[usize], add: fn(T, T) -> T) {
    let mut sum = T::default();
    for m in members {
        sum = add(sum, x[start + m]);
        x[start + m] = sum;
    }
}
