//! Row kernels: one block per row, reductions over the last dimension.
//!
//! They serve normalizations, softmax over the last dimension and quantization with scales of
//! the data (per token). A thread visits columns `tid, tid + T, …`; partial results are combined
//! by shuffles within a warp and through shared memory between warps, in a fixed order:
//!
//! ```text
//! layer_norm   acc = (x − mean)/√(mean((x − mean)²) + eps)
//! rms_norm     acc = x/√(mean(x²) + eps)
//! softmax      acc = e^(x − max) / Σ e^(x − max)
//! quantize     scale = max|v| / code_max,  code = quantize(v, scale)
//! ```

use super::map::element;
use super::reduce::{exp_of_difference, finite_top, share};
use super::unsupported;
use crate::lower::frame::{Frame, Launched, Source, Tensor, internal};
use crate::lower::index::{Position, block_offset, coordinates, load_operand};
use crate::lower::steps::steps_at;
use crate::lower::store::store_result;
use qcc_ir::diag::Result;
use qcc_ir::expr::{BinaryFn, Expr, Node};
use qcc_ir::format::{QuantFormat, Range};
use qcc_ir::graph::{Func, Module, Op, OpKind, QuantType, TensorType};
use qcc_ir::kernel::{KernelBuilder, Launch, Math, Special, Value, to_storage};
use qcc_ir::{DType, DimExpr};

/// Threads of a block.
pub const THREADS: u32 = 256;

/// How a warp and a block combine two partial results.
pub type Combine = fn(&mut KernelBuilder, Value, Value) -> Value;

pub(super) fn add(k: &mut KernelBuilder, a: Value, b: Value) -> Value {
    k.add(a, b)
}

pub(super) fn max(k: &mut KernelBuilder, a: Value, b: Value) -> Value {
    k.max_nan(a, b)
}

/// The combination of `v` over all threads of the block, in every thread.
pub fn block_reduce(k: &mut KernelBuilder, shared: Value, mut v: Value, f: Combine) -> Value {
    for mask in [16, 8, 4, 2, 1] {
        let other = k.shuffle_xor(v, mask);
        v = f(k, v, other);
    }
    let tid = k.tid();
    let lane = k.and_imm(tid, 31);
    let warp = k.shr_imm(tid, 5);
    let zero = k.u32(0);
    let first = k.eq(lane, zero);
    // The previous reduction's readers must be done before its slots are written again.
    k.barrier();
    let slot = k.ptr_add(shared, warp);
    k.store_if(slot, v, first);
    k.barrier();
    let mut all = k.load(shared);
    for w in 1..THREADS / 32 {
        let at = k.u32(w);
        let p = k.ptr_add(shared, at);
        let x = k.load(p);
        all = f(k, all, x);
    }
    all
}

/// One row being processed: who the threads are and how a column becomes a position.
struct Row {
    shape: Vec<DimExpr>,
    lead: Vec<Value>,
    tid: Value,
    end: Value,
    step: Value,
    shared: Value,
}

impl Row {
    fn open(fr: &mut Frame, shape: &[DimExpr]) -> Row {
        let shared = fr.k.shared("partial", DType::F32, THREADS / 32, 16);
        let (cols, lead) = match shape.split_last() {
            Some((c, l)) => (c.clone(), l),
            None => (DimExpr::from(1), shape),
        };
        let row = fr.k.special(Special::CtaidX);
        let lead = coordinates(fr, lead, row);
        let tid = fr.k.tid();
        let end = fr.dim(&cols);
        let step = fr.k.u32(THREADS);
        Row {
            shape: shape.to_vec(),
            lead,
            tid,
            end,
            step,
            shared,
        }
    }

    fn at(&self, col: Value) -> Position {
        let mut at = self.lead.clone();
        at.push(col);
        Position {
            shape: self.shape.clone(),
            at,
        }
    }

    /// Combines `value(column)` over the row.
    fn reduce(
        &self,
        fr: &mut Frame,
        init: f32,
        f: Combine,
        value: impl FnOnce(&mut Frame, &Position) -> Value,
    ) -> Value {
        let init = fr.k.f32(init);
        let part = fr.carry((self.tid, self.end, self.step), &[init], |fr, col, c| {
            let v = value(fr, &self.at(col));
            vec![f(&mut fr.k, c[0], v)]
        });
        block_reduce(&mut fr.k, self.shared, part[0], f)
    }

    fn each(&self, fr: &mut Frame, body: impl FnOnce(&mut Frame, &Position)) {
        fr.each(self.tid, self.end, self.step, |fr, col| {
            body(fr, &self.at(col))
        });
    }
}

/// Builds the kernel of a normalization, a softmax over the last dimension, or a quantization
/// per row.
///
/// # Errors
/// When the op is none of these, or a result's scheme needs more than whole rows.
pub fn build(m: &Module, f: &Func, op: &Op) -> Result<Launched> {
    let shape = f.ty(op.results[0]).shape.clone();
    let mut fr = Frame::open(m, f, op, Launch::threads(THREADS), &[])?;
    let row = Row::open(&mut fr, &shape);
    let x = fr.operands[0].clone();
    let e = default_expr(&op.kind);
    match &op.kind {
        OpKind::LayerNorm { eps, .. } => {
            let mean = mean(&mut fr, &row, &x, None);
            let denom = denominator(&mut fr, &row, &x, Some(mean), *eps);
            store_rows(&mut fr, &row, &e, &|fr, p| {
                let v = load_operand(fr, &x, p);
                let v = fr.k.sub(v, mean);
                fr.k.div(v, denom)
            });
        }
        OpKind::RmsNorm { eps, .. } => {
            let denom = denominator(&mut fr, &row, &x, None, *eps);
            store_rows(&mut fr, &row, &e, &|fr, p| {
                let v = load_operand(fr, &x, p);
                fr.k.div(v, denom)
            });
        }
        OpKind::Softmax { .. } => {
            let top = row.reduce(&mut fr, f32::NEG_INFINITY, max, |fr, p| {
                load_operand(fr, &x, p)
            });
            let top = finite_top(&mut fr.k, top);
            let sum = row.reduce(&mut fr, 0.0, add, |fr, p| {
                let v = load_operand(fr, &x, p);
                exp_of_difference(&mut fr.k, v, top)
            });
            store_rows(&mut fr, &row, &e, &|fr, p| {
                let v = load_operand(fr, &x, p);
                let v = exp_of_difference(&mut fr.k, v, top);
                share(&mut fr.k, v, sum)
            });
        }
        OpKind::Quantize => store_rows(&mut fr, &row, &e, &|fr, p| load_operand(fr, &x, p)),
        other => return Err(internal(format!("`{}` is not a row kernel", other.name()))),
    }
    let rows = DimExpr::product(&shape[..shape.len().saturating_sub(1)]);
    fr.close([rows, DimExpr::from(1), DimExpr::from(1)], 0)
}

/// What is stored when the op has no expression of its own.
fn default_expr(kind: &OpKind) -> Expr {
    if let Some(e) = kind.expr() {
        return e.clone();
    }
    let mut e = Expr::default();
    let mut v = e.push(Node::Acc(0));
    if matches!(kind, OpKind::LayerNorm { .. } | OpKind::RmsNorm { .. }) {
        let gain = e.push(Node::Input(1));
        v = e.push(Node::Binary(BinaryFn::Mul, v, gain));
    }
    if matches!(kind, OpKind::LayerNorm { .. }) {
        let bias = e.push(Node::Input(2));
        v = e.push(Node::Binary(BinaryFn::Add, v, bias));
    }
    e.store(v);
    e
}

/// `Σ x / n`, or the mean square of `x − center`.
fn mean(fr: &mut Frame, row: &Row, x: &Tensor, center: Option<Option<Value>>) -> Value {
    let sum = row.reduce(fr, 0.0, add, |fr, p| {
        let v = load_operand(fr, x, p);
        match center {
            None => v,
            Some(c) => {
                let d = c.map_or(v, |c| fr.k.sub(v, c));
                fr.k.mul(d, d)
            }
        }
    });
    let n = fr.k.cvt(row.end, DType::F32);
    fr.k.div(sum, n)
}

fn denominator(fr: &mut Frame, row: &Row, x: &Tensor, center: Option<Value>, eps: u32) -> Value {
    let var = mean(fr, row, x, Some(center));
    let eps = fr.k.f32(f32::from_bits(eps));
    let sum = fr.k.add(var, eps);
    fr.k.math(Math::Sqrt, sum)
}

/// Stores every result; those with a dynamic scale after a pass that finds the row's maximum.
fn store_rows(fr: &mut Frame, row: &Row, e: &Expr, acc: &dyn Fn(&mut Frame, &Position) -> Value) {
    let results = fr.results.clone();
    let dynamic: Vec<usize> = (0..results.len())
        .filter(|i| is_dynamic(&results[*i].ty))
        .collect();
    if dynamic.is_empty() {
        row.each(fr, |fr, p| {
            let a = acc(fr, p);
            element(fr, e, &[a], p);
        });
        return;
    }
    let value = |fr: &mut Frame, p: &Position, i: usize| {
        let a = acc(fr, p);
        expr_value(fr, e, a, p, i)
    };
    let mut scales: Vec<Option<Value>> = vec![None; results.len()];
    for i in dynamic {
        let top = row.reduce(fr, 0.0, max, |fr, p| {
            let v = value(fr, p, i);
            fr.k.abs(v)
        });
        scales[i] = Some(row_scale(fr, row, &results[i], top));
    }
    row.each(fr, |fr, p| {
        for (i, t) in results.iter().enumerate() {
            let v = value(fr, p, i);
            store_result(fr, t, p, v, scales[i]);
        }
    });
}

/// The value that the expression stores in result `i`.
fn expr_value(fr: &mut Frame, e: &Expr, acc: Value, p: &Position, i: usize) -> Value {
    let steps = steps_at(fr, e, &[acc], p);
    steps[e.stores[i].value.0 as usize]
}

fn is_dynamic(t: &TensorType) -> bool {
    t.elem.quant().is_some_and(|q| q.dynamic)
}

/// `max / code_max` rounded to the scale's format (1 for a row of zeros), stored by thread 0.
fn row_scale(fr: &mut Frame, row: &Row, t: &Tensor, top: Value) -> Value {
    let Some(q) = t.ty.elem.quant().cloned() else {
        return top;
    };
    let most = fr.k.f32(code_max(&q));
    let scale = fr.k.div(top, most);
    let (zero, one) = (fr.k.f32(0.0), fr.k.f32(1.0));
    let none = fr.k.eq(scale, zero);
    let scale = fr.k.select(none, one, scale);
    let d = crate::lower::index::scale_format(t);
    let stored = to_storage(&mut fr.k, d, scale);
    let col = fr.k.u32(0);
    let at = block_offset(fr, t, &row.at(col));
    if let Some(Source::Pointer(p)) = t.scale {
        let tid = fr.k.tid();
        let first = fr.k.eq(tid, col);
        let p = fr.k.ptr_add(p, at);
        fr.k.store_if(p, stored, first);
    }
    qcc_ir::kernel::to_compute(&mut fr.k, d, stored)
}

/// The largest code of a symmetric scheme, as a float.
fn code_max(q: &QuantType) -> f32 {
    let range = if q.narrow { Range::Narrow } else { Range::Full };
    // The verifier has admitted the storage and its range.
    QuantFormat::new(q.storage, range).map_or(1.0, QuantFormat::max)
}

/// Refuses schemes that a row kernel cannot store.
pub(super) fn row_scheme(t: &TensorType) -> Result<()> {
    match t.elem.quant() {
        Some(q) if q.dynamic && (!q.block.is_row() || q.zero.is_some()) => Err(unsupported(
            format!("dynamic scales of {t} are not one symmetric scale per row"),
        )),
        Some(q) if q.storage.bits() < 8 => Err(unsupported(format!(
            "{t} packs codes in a byte, which several threads would write"
        ))),
        Some(q) => super::plain_scales(q),
        None => Ok(()),
    }
}
