//! Kernels that move elements: each output element is one input element, or a number.
//!
//! ```text
//! transpose  y[i] = x[i ∘ perm]           slice  y[i] = x[start + i·step]
//! pad        y[i] = x[i − lo] or value    gather y[o, j, n] = x[o, index[j], n]
//! concat     y[i] = the operand that holds position i of the axis
//! iota       y[i] = i[axis]               dim    y = a size
//! ```
//!
//! A gather counts negative indices from the end. One that lies outside reads nothing and gives 0,
//! and the kernel reports the first of them in the fault words of the step (`Arg::Faults`), of which
//! the host makes the error (`Q0705`) when the results are read.

use super::map::{THREADS, walk};
use crate::lower::faults::report;
use crate::lower::frame::{Frame, Launched, Tensor, internal};
use crate::lower::index::{Position, load_plain_if, offset};
use crate::lower::store::store_result;
use qcc_ir::diag::Result;
use qcc_ir::graph::{Func, Module, Op, OpKind};
use qcc_ir::kernel::{Cmp, Launch, Value};
use qcc_ir::{DType, DimExpr};

/// Builds the kernel of an op that moves elements.
///
/// # Errors
/// When the op is none of these.
pub fn build(m: &Module, f: &Func, op: &Op) -> Result<Launched> {
    let shape = f.ty(op.results[0]).shape.clone();
    let extra: Vec<DimExpr> = match &op.kind {
        OpKind::Slice { starts, .. } => starts.clone(),
        OpKind::Dim { value } => vec![value.clone()],
        _ => Vec::new(),
    };
    let mut fr = Frame::open(m, f, op, Launch::threads(THREADS), &extra)?;
    let result = fr.results[0].clone();
    let faults = match &op.kind {
        OpKind::Gather { .. } => Some(fr.faults(&f.ty(op.operands[1]).shape)),
        _ => None,
    };
    let mut problem = None;
    let grid = walk(&mut fr, &shape, |fr, p| match value(fr, op, p, faults) {
        Ok(v) => store_result(fr, &result, p, v, None),
        Err(e) => problem = Some(e),
    });
    match problem {
        Some(e) => Err(e),
        None => fr.close(grid, 0),
    }
}

/// The element at `p` of the result, in its compute type.
fn value(fr: &mut Frame, op: &Op, p: &Position, faults: Option<Value>) -> Result<Value> {
    let x = fr.operands.first().cloned();
    let here = |fr: &mut Frame, at: Vec<Value>| {
        let t = fr.operands[0].clone();
        load_at(fr, &t, at, None)
    };
    Ok(match &op.kind {
        OpKind::Iota { axis } => {
            let i = p.at[*axis];
            fr.k.cvt(i, DType::I64)
        }
        OpKind::Dim { value } => {
            let n = fr.dim(value);
            fr.k.cvt(n, DType::I64)
        }
        OpKind::Transpose { perm } => {
            let mut at = p.at.clone();
            for (i, source) in perm.iter().enumerate() {
                at[*source] = p.at[i];
            }
            here(fr, at)
        }
        OpKind::Slice { starts, steps, .. } => {
            let mut at = Vec::new();
            for (i, (start, step)) in starts.iter().zip(steps).enumerate() {
                let start = fr.dim(start);
                let step = i64::try_from(*step).unwrap_or(i64::MAX);
                let moved = fr.k.mul_imm(p.at[i], step);
                at.push(fr.k.add(moved, start));
            }
            here(fr, at)
        }
        OpKind::Pad { lo, value, .. } => {
            let Some(x) = x else {
                return Err(internal("pad without an operand"));
            };
            pad(fr, &x, lo, f64::from_bits(*value), p)
        }
        OpKind::Concat { axis } => concat(fr, *axis, p),
        OpKind::Gather { axis } => gather(fr, *axis, p, faults),
        other => return Err(internal(format!("`{}` moves no elements", other.name()))),
    })
}

/// Loads the element at these coordinates where `inside` holds, else 0.
pub(super) fn load_at(fr: &mut Frame, t: &Tensor, at: Vec<Value>, inside: Option<Value>) -> Value {
    let shape = t.ty.shape.clone();
    let p = Position { shape, at };
    let at = offset(fr, &t.ty.shape, &p);
    load_plain_if(&mut fr.k, t.codes, t.ty.elem.storage(), at, inside)
}

fn all(fr: &mut Frame, conditions: &[Value]) -> Option<Value> {
    let (first, rest) = conditions.split_first()?;
    Some(rest.iter().fold(*first, |a, b| fr.k.and(a, *b)))
}

fn pad(fr: &mut Frame, x: &Tensor, lo: &[u64], value: f64, p: &Position) -> Value {
    let (mut at, mut conditions) = (Vec::new(), Vec::new());
    for (i, d) in x.ty.shape.iter().enumerate() {
        let n = fr.dim(d);
        // Before the tensor the difference wraps and is larger than any extent.
        let lo = i64::try_from(lo[i]).unwrap_or(i64::MAX);
        let here = fr.k.add_imm(p.at[i], lo.wrapping_neg());
        if x.ty.shape[i] != p.shape[i] {
            conditions.push(fr.k.lt(here, n));
        }
        // `offset` leaves out extents of 1, so their coordinate does not matter.
        at.push(here);
    }
    let inside = all(fr, &conditions);
    let v = load_at(fr, x, at, inside);
    let Some(inside) = inside else {
        return v;
    };
    let d = x.ty.elem.storage();
    let other = load_plain_if(
        &mut fr.k,
        crate::lower::frame::Source::Number(value),
        d,
        v,
        None,
    );
    fr.k.select(inside, v, other)
}

fn concat(fr: &mut Frame, axis: usize, p: &Position) -> Value {
    let parts = fr.operands.clone();
    let mut begin = fr.k.u32(0);
    let mut chosen: Option<Value> = None;
    for t in &parts {
        let n = fr.dim(&t.ty.shape[axis]);
        let mut at = p.at.clone();
        at[axis] = fr.k.sub(p.at[axis], begin);
        let inside = fr.k.lt(at[axis], n);
        let v = load_at(fr, t, at, Some(inside));
        chosen = Some(match chosen {
            None => v,
            // A position before this part wraps around to beyond its end.
            Some(earlier) => fr.k.select(inside, v, earlier),
        });
        begin = fr.k.add(begin, n);
    }
    // INVARIANT: the shape rule asks for at least one operand.
    chosen.unwrap_or(begin)
}

fn gather(fr: &mut Frame, axis: usize, p: &Position, faults: Option<Value>) -> Value {
    let (data, indices) = (fr.operands[0].clone(), fr.operands[1].clone());
    let rank = indices.ty.shape.len();
    let which = Position {
        shape: indices.ty.shape.clone(),
        at: p.at[axis..axis + rank].to_vec(),
    };
    let (i, inside) = named(fr, &indices, &which, &data.ty.shape[axis], faults);
    let mut at = p.at[..axis].to_vec();
    at.push(i);
    at.extend(&p.at[axis + rank..]);
    load_at(fr, &data, at, Some(inside))
}

/// Which of `n` entries the index at `which` names, as u32, and whether there is such an entry; if
/// not, that is reported.
pub(super) fn named(
    fr: &mut Frame,
    indices: &Tensor,
    which: &Position,
    n: &DimExpr,
    faults: Option<Value>,
) -> (Value, Value) {
    let position = offset(fr, &indices.ty.shape, which);
    let d = indices.ty.elem.storage();
    let given = load_plain_if(&mut fr.k, indices.codes, d, position, None);
    let n = fr.dim(n);
    let n = fr.k.cvt(n, DType::I64);
    let zero = fr.k.i64(0);
    let negative = fr.k.lt(given, zero);
    let wrapped = fr.k.add(given, n);
    let i = fr.k.select(negative, wrapped, given);
    let from_zero = fr.k.cmp(Cmp::Ge, i, zero);
    let below = fr.k.lt(i, n);
    let inside = fr.k.and(from_zero, below);
    if let Some(faults) = faults {
        let outside = fr.k.not(inside);
        fr.when(outside, |fr| report(fr, faults, position, given));
    }
    (fr.k.cvt(i, DType::U32), inside)
}
