//! Reductions over any dimensions, running sums, and softmax along any dimension.
//!
//! Floats: one block per output element, its threads stride over the reduced elements and
//! combine in a fixed order. Integers and lanes along one axis: one thread each.

use super::map::{THREADS, walk};
use super::rows::{Combine, add, block_reduce, max};
use crate::lower::frame::{Frame, Launched, Tensor, internal};
use crate::lower::index::{Position, coordinates, load_operand};
use crate::lower::store::store_result;
use qcc_ir::diag::Result;
use qcc_ir::expr::Compute;
use qcc_ir::graph::{Func, Module, Op, OpKind, ReduceFn};
use qcc_ir::kernel::{Cmp, KernelBuilder, Launch, Math, Special, Value};
use qcc_ir::{DType, DimExpr};

fn min(k: &mut KernelBuilder, a: Value, b: Value) -> Value {
    k.min_nan(a, b)
}

fn mul(k: &mut KernelBuilder, a: Value, b: Value) -> Value {
    k.mul(a, b)
}

fn int_min(k: &mut KernelBuilder, a: Value, b: Value) -> Value {
    k.min(a, b)
}

fn int_max(k: &mut KernelBuilder, a: Value, b: Value) -> Value {
    k.max(a, b)
}

/// What a reduction starts from and how it combines, for floats.
fn float_rule(f: ReduceFn) -> (f32, Combine) {
    match f {
        ReduceFn::Sum | ReduceFn::Mean => (0.0, add),
        ReduceFn::Prod => (1.0, mul),
        ReduceFn::Max => (f32::NEG_INFINITY, max),
        ReduceFn::Min => (f32::INFINITY, min),
    }
}

fn int_rule(f: ReduceFn) -> (i64, Combine) {
    match f {
        ReduceFn::Sum | ReduceFn::Mean => (0, add),
        ReduceFn::Prod => (1, mul),
        ReduceFn::Max => (i64::MIN, int_max),
        ReduceFn::Min => (i64::MAX, int_min),
    }
}

/// The kept dimensions of the operand, and the reduced ones.
struct Split {
    kept: Vec<usize>,
    reduced: Vec<usize>,
}

impl Split {
    /// The operand's position from coordinates of the kept and of the reduced dimensions.
    fn position(&self, t: &Tensor, kept: &[Value], reduced: &[Value]) -> Position {
        let mut at = vec![None; t.ty.shape.len()];
        let pairs = self.kept.iter().zip(kept);
        for (d, v) in pairs.chain(self.reduced.iter().zip(reduced)) {
            at[*d] = Some(*v);
        }
        Position {
            shape: t.ty.shape.clone(),
            at: at.into_iter().flatten().collect(),
        }
    }
}

/// Builds the kernel of a reduction.
///
/// # Errors
/// When the op is no reduction.
pub fn build(m: &Module, f: &Func, op: &Op) -> Result<Launched> {
    let OpKind::Reduce {
        f: func,
        axes,
        keep,
    } = &op.kind
    else {
        return Err(internal(format!("`{}` does not reduce", op.kind.name())));
    };
    let x = f.ty(op.operands[0]).clone();
    let split = Split {
        kept: (0..x.rank()).filter(|i| !axes.contains(i)).collect(),
        reduced: axes.clone(),
    };
    let shape = f.ty(op.results[0]).shape.clone();
    let kept_shape: Vec<DimExpr> = split.kept.iter().map(|i| x.shape[*i].clone()).collect();
    let inner: Vec<DimExpr> = axes.iter().map(|i| x.shape[*i].clone()).collect();
    let mut fr = Frame::open(m, f, op, Launch::threads(THREADS), &[])?;
    let (t, result) = (fr.operands[0].clone(), fr.results[0].clone());
    let place = |kept: &[Value], zero: Value| {
        let mut next = kept.iter();
        let at = (0..shape.len()).map(|i| match *keep && axes.contains(&i) {
            true => zero,
            // INVARIANT: the other dimensions of the result are the kept ones, in order.
            false => next.next().copied().unwrap_or(zero),
        });
        Position {
            shape: shape.clone(),
            at: at.collect(),
        }
    };
    if Compute::of(x.elem.storage()) == Compute::F32 {
        let shared = fr.k.shared("partial", DType::F32, THREADS / 32, 16);
        let block = fr.k.special(Special::CtaidX);
        let kept = coordinates(&mut fr, &kept_shape, block);
        let (start, combine) = float_rule(*func);
        let start = fr.k.f32(start);
        let (tid, end, step) = (fr.k.tid(), fr.product(&inner), fr.k.u32(THREADS));
        let part = fr.carry((tid, end, step), &[start], |fr, i, c| {
            let at = coordinates(fr, &inner, i);
            let p = split.position(&t, &kept, &at);
            let v = load_operand(fr, &t, &p);
            vec![combine(&mut fr.k, c[0], v)]
        });
        let mut total = block_reduce(&mut fr.k, shared, part[0], combine);
        if *func == ReduceFn::Mean {
            let n = fr.k.cvt(end, DType::F32);
            total = fr.k.div(total, n);
        }
        let zero = fr.k.u32(0);
        let first = fr.k.eq(tid, zero);
        let p = place(&kept, zero);
        fr.when(first, |fr| store_result(fr, &result, &p, total, None));
        let one = DimExpr::from(1);
        return fr.close([DimExpr::product(&kept_shape), one.clone(), one], 0);
    }
    let grid = walk(&mut fr, &kept_shape, |fr, p| {
        let total = integers(fr, &t, &split, &inner, *func, &p.at);
        let zero = fr.k.u32(0);
        let at = place(&p.at, zero);
        store_result(fr, &result, &at, total, None);
    });
    fr.close(grid, 0)
}

/// Integers in one thread; truth values count as 0 and 1.
fn integers(
    fr: &mut Frame,
    t: &Tensor,
    split: &Split,
    inner: &[DimExpr],
    f: ReduceFn,
    kept: &[Value],
) -> Value {
    let (start, combine) = int_rule(f);
    let start = fr.k.i64(start);
    let (lo, end, step) = (fr.k.u32(0), fr.product(inner), fr.k.u32(1));
    let total = fr.carry((lo, end, step), &[start], |fr, i, c| {
        let at = coordinates(fr, inner, i);
        let p = split.position(t, kept, &at);
        let v = load_operand(fr, t, &p);
        let v = as_i64(fr, v);
        vec![combine(&mut fr.k, c[0], v)]
    })[0];
    if f != ReduceFn::Mean {
        return total;
    }
    let n = fr.k.cvt(end, DType::I64);
    fr.k.div(total, n)
}

fn as_i64(fr: &mut Frame, v: Value) -> Value {
    match fr.k.ty(v).dtype() {
        Some(DType::Bool) => qcc_ir::kernel::bool_to_i64(&mut fr.k, v),
        _ => v,
    }
}

/// Builds the kernel of a running sum, or of a softmax along any dimension: one thread per lane.
///
/// # Errors
/// When the op is neither.
pub fn build_lanes(m: &Module, f: &Func, op: &Op) -> Result<Launched> {
    let (axis, is_sum) = match &op.kind {
        OpKind::CumSum { axis } => (*axis, true),
        OpKind::Softmax { axis } => (*axis, false),
        other => return Err(internal(format!("`{}` has no lanes", other.name()))),
    };
    let shape = f.ty(op.results[0]).shape.clone();
    let mut lanes = shape.clone();
    lanes[axis] = DimExpr::from(1);
    let mut fr = Frame::open(m, f, op, Launch::threads(THREADS), &[])?;
    let grid = walk(&mut fr, &lanes, |fr, p| {
        let lane = Lane {
            axis,
            p: Position {
                shape: shape.clone(),
                at: p.at.clone(),
            },
        };
        match is_sum {
            true => lane.running_sum(fr),
            false => lane.softmax(fr),
        }
    });
    fr.close(grid, 0)
}

/// The elements along one dimension.
struct Lane {
    axis: usize,
    p: Position,
}

impl Lane {
    fn at(&self, i: Value) -> Position {
        let mut p = self.p.clone();
        p.at[self.axis] = i;
        p
    }

    fn fold(
        &self,
        fr: &mut Frame,
        start: Value,
        body: impl FnOnce(&mut Frame, &Position, Value) -> Value,
    ) -> Value {
        let end = fr.dim(&self.p.shape[self.axis]);
        let (lo, step) = (fr.k.u32(0), fr.k.u32(1));
        fr.carry((lo, end, step), &[start], |fr, i, c| {
            vec![body(fr, &self.at(i), c[0])]
        })[0]
    }

    fn running_sum(&self, fr: &mut Frame) {
        let (x, y) = (fr.operands[0].clone(), fr.results[0].clone());
        let float = Compute::of(x.ty.elem.storage()) == Compute::F32;
        let zero = if float { fr.k.f32(0.0) } else { fr.k.i64(0) };
        self.fold(fr, zero, |fr, p, sum| {
            let v = load_operand(fr, &x, p);
            let sum = fr.k.add(sum, v);
            store_result(fr, &y, p, sum, None);
            sum
        });
    }

    fn softmax(&self, fr: &mut Frame) {
        let (x, y) = (fr.operands[0].clone(), fr.results[0].clone());
        let low = fr.k.f32(f32::NEG_INFINITY);
        let top = self.fold(fr, low, |fr, p, c| {
            let v = load_operand(fr, &x, p);
            fr.k.max_nan(c, v)
        });
        let top = finite_top(&mut fr.k, top);
        let zero = fr.k.f32(0.0);
        let sum = self.fold(fr, zero, |fr, p, c| {
            let v = load_operand(fr, &x, p);
            let e = exp_of_difference(&mut fr.k, v, top);
            fr.k.add(c, e)
        });
        self.fold(fr, zero, |fr, p, c| {
            let v = load_operand(fr, &x, p);
            let e = exp_of_difference(&mut fr.k, v, top);
            let v = share(&mut fr.k, e, sum);
            store_result(fr, &y, p, v, None);
            c
        });
    }
}

/// The maximum, or 0 where everything is −∞: `e^(x − 0)` is then 0 for all.
pub(super) fn finite_top(k: &mut KernelBuilder, top: Value) -> Value {
    let (low, zero) = (k.f32(f32::NEG_INFINITY), k.f32(0.0));
    let none = k.eq(top, low);
    k.select(none, zero, top)
}

/// `e^(v − top)`
pub(super) fn exp_of_difference(k: &mut KernelBuilder, v: Value, top: Value) -> Value {
    let d = k.sub(v, top);
    k.math(Math::Exp, d)
}

/// `e / sum`, 0 where the sum is 0.
pub(super) fn share(k: &mut KernelBuilder, e: Value, sum: Value) -> Value {
    let zero = k.f32(0.0);
    let some = k.cmp(Cmp::Ne, sum, zero);
    let q = k.div(e, sum);
    k.select(some, q, zero)
}
