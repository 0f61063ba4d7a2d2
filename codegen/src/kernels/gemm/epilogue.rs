//! What happens to a tile of accumulators: scales, the expression, stores to the results.

use super::feed::{Feed, Kind};
use crate::lower::frame::{Frame, Tensor};
use crate::lower::index::{Position, block_offset, coordinates, load_scale};
use crate::lower::steps::steps_at;
use crate::lower::store::store_result;
use qcc_ir::expr::{BinaryFn, Expr, Node};
use qcc_ir::graph::{Op, OpKind};
use qcc_ir::kernel::Value;
use qcc_ir::{DType, DimExpr};

/// Operands whose scales are multiplied into the accumulators, the left one first.
#[derive(Clone, Default)]
pub struct Scales {
    x: Option<Tensor>,
    w: Option<Tensor>,
}

impl Scales {
    /// Those of both operands of a product of codes.
    pub(super) fn both(fr: &Frame) -> Scales {
        Scales {
            x: Some(fr.operands[0].clone()),
            w: Some(fr.operands[1].clone()),
        }
    }

    /// Those that the feeds have left.
    pub(super) fn of(x: &Feed, w: &Feed, acc: DType) -> Scales {
        let left = |f: &Feed| {
            let codes = f.kind == Kind::Codes || acc == DType::I32;
            (codes && f.t.ty.elem.quant().is_some()).then(|| f.t.clone())
        };
        Scales {
            x: left(x),
            w: left(w),
        }
    }
}

/// The epilogue of a product `[lead…, k] × [n, k]`.
pub struct Epilogue<'a> {
    /// The linear layer or product.
    pub op: &'a Op,
    /// Dimensions of the output but the last.
    pub lead: &'a [DimExpr],
    /// Columns of the output.
    pub n: &'a DimExpr,
    /// Rows of the output: the product of `lead`.
    pub rows: Value,
    /// The value of `n`.
    pub columns: Value,
    /// What the accumulators are multiplied by.
    pub scales: Scales,
    /// The number of this thread among those that run it.
    pub thread: Value,
}

/// The offset of the scale (or zero point) of a row of an operand.
pub(super) fn row_block(fr: &mut Frame, t: &Tensor, row: Value) -> Value {
    let lead = &t.ty.shape[..t.ty.shape.len() - 1];
    let mut at = coordinates(fr, lead, row);
    at.push(fr.k.u32(0));
    let shape = t.ty.shape.clone();
    block_offset(fr, t, &Position { shape, at })
}

impl Epilogue<'_> {
    /// Runs over a tile of `rows × columns` at `(row, column)` with this many threads; `acc`
    /// yields the accumulators at a row and column of the tile.
    pub fn run(
        &self,
        fr: &mut Frame,
        (row, column): (Value, Value),
        (rows, columns, threads): (u32, u32, u32),
        acc: &mut dyn FnMut(&mut Frame, Value, Value) -> Vec<Value>,
    ) {
        let e = self.expr();
        let (end, step) = (fr.k.u32(rows * columns), fr.k.u32(threads));
        fr.each(self.thread, end, step, |fr, i| {
            let r = fr.k.div_imm(i, i64::from(columns));
            let c = fr.k.rem_imm(i, i64::from(columns));
            let (at_row, at_column) = (fr.k.add(row, r), fr.k.add(column, c));
            let (inside, exists) = (fr.k.lt(at_row, self.rows), fr.k.lt(at_column, self.columns));
            let inside = fr.k.and(inside, exists);
            fr.when(inside, |fr| {
                let accs = acc(fr, r, c);
                let accs = self.scaled(fr, accs, at_row, at_column);
                self.element(fr, &e, &accs, at_row, at_column);
            });
        });
    }

    /// `acc·sx·sw`, multiplied from left to right.
    fn scaled(&self, fr: &mut Frame, accs: Vec<Value>, row: Value, column: Value) -> Vec<Value> {
        let mut accs = accs;
        if let Some(t) = &self.scales.x
            && let Some(s) = t.scale
        {
            let at = row_block(fr, t, row);
            let s = load_scale(&mut fr.k, t, s, at);
            accs = accs.into_iter().map(|a| fr.k.mul(a, s)).collect();
        }
        if let Some(t) = &self.scales.w
            && let Some(s) = t.scale
        {
            let mut first = column;
            for a in &mut accs {
                let at = row_block(fr, t, first);
                let s = load_scale(&mut fr.k, t, s, at);
                *a = fr.k.mul(*a, s);
                first = fr.k.add(first, self.columns);
            }
        }
        accs
    }

    /// What is stored: the op's expression, or `acc0 + bias`.
    fn expr(&self) -> Expr {
        if let Some(e) = self.op.kind.expr() {
            return e.clone();
        }
        let mut e = Expr::default();
        let mut v = e.push(Node::Acc(0));
        let is_linear = matches!(self.op.kind, OpKind::Linear { .. });
        if is_linear && self.op.operands.len() > 2 {
            let b = e.push(Node::Input(2));
            v = e.push(Node::Binary(BinaryFn::Add, v, b));
        }
        e.store(v);
        e
    }

    fn element(&self, fr: &mut Frame, e: &Expr, accs: &[Value], row: Value, column: Value) {
        let mut shape = self.lead.to_vec();
        let mut at = coordinates(fr, &shape, row);
        shape.push(self.n.clone());
        at.push(column);
        let p = Position { shape, at };
        let steps = steps_at(fr, e, accs, &p);
        self.store(fr, e, &steps, &p);
    }

    fn store(&self, fr: &mut Frame, e: &Expr, steps: &[Value], p: &Position) {
        let results = fr.results.clone();
        let segments: &[u64] = match &self.op.kind {
            OpKind::Linear { segments, .. } => segments,
            _ => &[],
        };
        if segments.is_empty() {
            for (s, t) in e.stores.iter().zip(&results) {
                store_result(fr, t, p, steps[s.value.0 as usize], None);
            }
            return;
        }
        // One store serves all segments; each column belongs to one of them.
        let Some(v) = e.stores.first().map(|s| steps[s.value.0 as usize]) else {
            return;
        };
        let column = p.at[p.at.len() - 1];
        let mut begin = 0i64;
        for (width, t) in segments.iter().zip(&results) {
            let width = i64::try_from(*width).unwrap_or(i64::MAX);
            let here = fr.k.add_imm(column, -begin);
            let end = fr.k.int_like(column, width);
            // Columns before the segment wrap around to beyond its end.
            let mine = fr.k.lt(here, end);
            fr.when(mine, |fr| {
                let mut p = p.clone();
                p.shape = t.ty.shape.clone();
                if let Some(last) = p.at.last_mut() {
                    *last = here;
                }
                store_result(fr, t, &p, v, None);
            });
            begin += width;
        }
    }
}
