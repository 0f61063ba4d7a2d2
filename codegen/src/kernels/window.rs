//! Convolutions and poolings: one thread per output element, loops over the window.
//!
//! ```text
//! conv  acc[b, n, o] = Σ over c, k of x[b, g·C + c, o·stride + k·dilation − pad] · w[n, c, k]
//! pool  max or mean over the window's elements that lie inside
//! ```
//!
//! Over integer codes whose scales do not vary along the sum, `acc = f32(Σ (x − zx)(w − zw))·sx·sw`
//! with the sum exact in i32; otherwise real values are summed in f32.

use super::map::{THREADS, element, walk};
use crate::lower::frame::{Frame, Launched, Tensor, internal};
use crate::lower::index::{
    Position, block_offset, load_int_code, load_operand, load_scale, offset,
};
use crate::lower::store::store_result;
use qcc_ir::diag::Result;
use qcc_ir::expr::{BinaryFn, Expr, Node};
use qcc_ir::graph::{Func, Module, Op, OpKind, PoolFn, TensorType, Window};
use qcc_ir::kernel::{KernelBuilder, Launch, Value};
use qcc_ir::{DType, DimExpr};

/// What is done with a tap: input coordinates, tap coordinates, carried values.
type TapBody<'b> = dyn FnMut(&mut Frame, &[Value], &[Value], &[Value]) -> Vec<Value> + 'b;

/// Where the taps of one output element lie.
struct Taps<'a> {
    window: &'a Window,
    /// The output element.
    p: &'a Position,
    /// Spatial extents of the input.
    extents: &'a [DimExpr],
}

impl Taps<'_> {
    /// Runs `body(frame, input coordinates, tap coordinates, carried)` on every tap that is not
    /// padding.
    fn each(&self, fr: &mut Frame, init: &[Value], body: &mut TapBody<'_>) -> Vec<Value> {
        self.dimension(fr, &mut Vec::new(), &mut Vec::new(), init, body)
    }

    fn dimension(
        &self,
        fr: &mut Frame,
        at: &mut Vec<Value>,
        taps: &mut Vec<Value>,
        init: &[Value],
        body: &mut TapBody<'_>,
    ) -> Vec<Value> {
        let d = taps.len();
        if d == self.extents.len() {
            return body(fr, at, taps, init);
        }
        let w = self.window;
        let (lo, n, one) = (fr.k.u32(0), fr.k.u32(w.kernel[d] as u32), fr.k.u32(1));
        let start = fr.k.mul_imm(self.p.at[2 + d], w.strides[d] as i64);
        let start = fr.k.add_imm(start, -(w.pad_lo[d] as i64));
        let extent = fr.dim(&self.extents[d]);
        fr.carry((lo, n, one), init, |fr, tap, c| {
            let moved = fr.k.mul_imm(tap, w.dilations[d] as i64);
            // Before the input the sum wraps around to beyond its end.
            let here = fr.k.add(start, moved);
            let inside = fr.k.lt(here, extent);
            at.push(here);
            taps.push(tap);
            let r = fr.choose(inside, c, |fr| self.dimension(fr, at, taps, c, body));
            at.pop();
            taps.pop();
            r
        })
    }
}

/// Whether products of two operands can be summed exactly as integers, with scales afterwards.
fn exact(x: &TensorType, w: &TensorType) -> bool {
    let (Some(x), Some(w)) = (x.elem.quant(), w.elem.quant()) else {
        return false;
    };
    let ints = x.storage.is_int() && w.storage.is_int();
    ints && x.one_scale_per_row(0) && w.one_scale_per_row(1)
}

/// Builds the kernel of a convolution.
///
/// # Errors
/// When a result has a scheme that needs more than its own element.
pub fn build_conv(m: &Module, f: &Func, op: &Op) -> Result<Launched> {
    let OpKind::Conv {
        window,
        groups,
        expr,
    } = &op.kind
    else {
        return Err(internal(format!("`{}` is no convolution", op.kind.name())));
    };
    let shape = f.ty(op.results[0]).shape.clone();
    let (xt, wt) = (f.ty(op.operands[0]), f.ty(op.operands[1]));
    let exact = exact(xt, wt);
    let extents = xt.shape[2..].to_vec();
    let group_channels = wt.shape[1].clone();
    let per_group = wt.shape[0].floor_div(&DimExpr::extent(*groups));
    let e = expr.clone().unwrap_or_else(|| plus_bias(op.operands.len()));
    let spatial = extents.len();
    let mut fr = Frame::open(
        m,
        f,
        op,
        Launch::threads(THREADS),
        std::slice::from_ref(&per_group),
    )?;
    let grid = walk(&mut fr, &shape, |fr, p| {
        let (x, w) = (fr.operands[0].clone(), fr.operands[1].clone());
        let init = if exact { fr.k.i32(0) } else { fr.k.f32(0.0) };
        let per_group = fr.dim(&per_group);
        let channels = fr.dim(&group_channels);
        let group = fr.k.div(p.at[1], per_group);
        let first = fr.k.mul(group, channels);
        let (lo, one) = (fr.k.u32(0), fr.k.u32(1));
        let acc = fr.carry((lo, channels, one), &[init], |fr, c, sum| {
            let channel = fr.k.add(first, c);
            let taps = Taps {
                window,
                p,
                extents: &extents,
            };
            taps.each(fr, sum, &mut |fr, at, taps, sum| {
                let xp = coordinate(&x, &[p.at[0], channel], at);
                let wp = coordinate(&w, &[p.at[1], c], taps);
                vec![multiply(fr, exact, (&x, &xp), (&w, &wp), sum[0])]
            })
        })[0];
        let acc = if exact {
            scaled(fr, &x, &w, p, acc)
        } else {
            acc
        };
        bias_view(fr, expr.is_none(), spatial);
        element(fr, &e, &[acc], p);
    });
    fr.close(grid, 0)
}

fn coordinate(t: &Tensor, lead: &[Value], rest: &[Value]) -> Position {
    Position {
        shape: t.ty.shape.clone(),
        at: lead.iter().chain(rest).copied().collect(),
    }
}

/// One product added to the sum.
fn multiply(
    fr: &mut Frame,
    exact: bool,
    (x, xp): (&Tensor, &Position),
    (w, wp): (&Tensor, &Position),
    sum: Value,
) -> Value {
    if exact {
        let (a, b) = (difference(fr, x, xp), difference(fr, w, wp));
        return fr.k.fma(a, b, sum);
    }
    let (a, b) = (load_operand(fr, x, xp), load_operand(fr, w, wp));
    fr.k.fma(a, b, sum)
}

/// `code − zero` as i32.
fn difference(fr: &mut Frame, t: &Tensor, p: &Position) -> Value {
    let at = offset(fr, &t.ty.shape, p);
    let code = load_int_code(&mut fr.k, t.codes, t.ty.elem.storage(), at);
    let Some(zero) = t.zero else {
        return code;
    };
    let d = t.ty.elem.quant().and_then(|q| q.zero).unwrap_or(DType::I32);
    let at = block_offset(fr, t, p);
    let zero = load_int_code(&mut fr.k, zero, d, at);
    fr.k.sub(code, zero)
}

/// `f32(acc)·sx·sw`, multiplied from left to right.
fn scaled(fr: &mut Frame, x: &Tensor, w: &Tensor, p: &Position, acc: Value) -> Value {
    let mut v = fr.k.cvt(acc, DType::F32);
    let zero = fr.k.u32(0);
    for (t, channel) in [(x, zero), (w, p.at[1])] {
        let mut at = vec![zero; t.ty.shape.len()];
        at[0] = channel;
        let shape = t.ty.shape.clone();
        let at = block_offset(fr, t, &Position { shape, at });
        if let Some(s) = t.scale {
            let s = load_scale(&mut fr.k, t, s, at);
            v = fr.k.mul(v, s);
        }
    }
    v
}

/// `acc0 + bias`, if there is a bias.
fn plus_bias(operands: usize) -> Expr {
    let mut e = Expr::default();
    let mut v = e.push(Node::Acc(0));
    if operands > 2 {
        let b = e.push(Node::Input(2));
        v = e.push(Node::Binary(BinaryFn::Add, v, b));
    }
    e.store(v);
    e
}

/// The bias lies along the channels: read it as `[n, 1, …]`.
fn bias_view(fr: &mut Frame, default: bool, spatial: usize) {
    if !default {
        return;
    }
    if let Some(b) = fr.operands.get_mut(2).filter(|b| b.ty.shape.len() == 1) {
        b.ty.shape.extend(vec![DimExpr::from(1); spatial]);
    }
}

fn longest(k: &mut KernelBuilder, a: Value, b: Value) -> Value {
    k.max_nan(a, b)
}

/// Builds the kernel of a pooling.
///
/// # Errors
/// When the op is no pooling of floats.
pub fn build_pool(m: &Module, f: &Func, op: &Op) -> Result<Launched> {
    let OpKind::Pool { f: func, window } = &op.kind else {
        return Err(internal(format!("`{}` is no pooling", op.kind.name())));
    };
    let xt = f.ty(op.operands[0]);
    let shape = f.ty(op.results[0]).shape.clone();
    let extents = xt.shape[2..].to_vec();
    let mut fr = Frame::open(m, f, op, Launch::threads(THREADS), &[])?;
    let grid = walk(&mut fr, &shape, |fr, p| {
        let (x, y) = (fr.operands[0].clone(), fr.results[0].clone());
        let start = match func {
            PoolFn::Max => f32::NEG_INFINITY,
            _ => 0.0,
        };
        let init = [fr.k.f32(start), fr.k.f32(0.0)];
        let taps = Taps {
            window,
            p,
            extents: &extents,
        };
        let r = taps.each(fr, &init, &mut |fr, at, _, c| {
            let xp = coordinate(&x, &p.at[..2], at);
            let v = load_operand(fr, &x, &xp);
            let one = fr.k.f32(1.0);
            let sum = match func {
                PoolFn::Max => longest(&mut fr.k, c[0], v),
                _ => fr.k.add(c[0], v),
            };
            vec![sum, fr.k.add(c[1], one)]
        });
        let v = match func {
            PoolFn::Max => r[0],
            PoolFn::Mean => fr.k.div(r[0], r[1]),
            PoolFn::MeanPadded => {
                let n = window.kernel.iter().product::<u64>();
                let n = fr.k.f32(n as f32);
                fr.k.div(r[0], n)
            }
        };
        store_result(fr, &y, p, v, None);
    });
    fr.close(grid, 0)
}
