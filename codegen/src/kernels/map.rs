//! Elementwise kernels: `y = f(operands)` with NumPy broadcasting, any number of results.
//!
//! The output is walked as rows × columns; the columns are its last dimension, or several short
//! ones. A block covers [`THREADS`] columns of one row at a time.

use crate::lower::frame::{Frame, Launched};
use crate::lower::index::{Position, coordinates};
use crate::lower::steps::steps_at;
use crate::lower::store::store_result;
use qcc_ir::DimExpr;
use qcc_ir::diag::Result;
use qcc_ir::expr::Expr;
use qcc_ir::graph::{Func, Module, Op};
use qcc_ir::kernel::{Launch, Special, Value};

/// Threads of a block.
pub const THREADS: u32 = 256;
/// Blocks along the columns at most; further columns are reached by a loop.
const COLUMN_BLOCKS: i64 = 1024;

/// Builds the kernel of an elementwise op, whose meaning is `e`.
///
/// # Errors
/// When an operand has no place.
pub fn build(m: &Module, f: &Func, op: &Op, e: &Expr) -> Result<Launched> {
    let shape = f.ty(op.results[0]).shape.clone();
    let mut fr = Frame::open(m, f, op, Launch::threads(THREADS), &[])?;
    fr.watch(e, &shape);
    let grid = walk(&mut fr, &shape, |fr, p| element(fr, e, &[], p));
    fr.close(grid, 0)
}

/// Visits every position of `shape`, each in one thread; returns the grid that this needs.
pub fn walk(
    fr: &mut Frame,
    shape: &[DimExpr],
    body: impl FnOnce(&mut Frame, &Position),
) -> [DimExpr; 3] {
    let (outer, inner) = shape.split_at(columns_from(shape));
    let cols = DimExpr::product(inner);
    let row = fr.k.special(Special::CtaidX);
    let lead = coordinates(fr, outer, row);
    let by = fr.k.special(Special::CtaidY);
    let first = fr.k.mul_imm(by, i64::from(THREADS));
    let tid = fr.k.tid();
    let first = fr.k.add(first, tid);
    let blocks = fr.k.special(Special::NctaidY);
    let step = fr.k.mul_imm(blocks, i64::from(THREADS));
    let end = fr.product(inner);
    fr.each(first, end, step, |fr, col| {
        let mut at = lead.clone();
        at.extend(coordinates(fr, inner, col));
        let shape = shape.to_vec();
        body(fr, &Position { shape, at });
    });
    let threads = i64::from(THREADS);
    let covered = (cols + DimExpr::from(threads - 1)).floor_div(&DimExpr::from(threads));
    [
        DimExpr::product(outer),
        covered.min_with(&DimExpr::from(COLUMN_BLOCKS)),
        DimExpr::from(1),
    ]
}

/// The first of the dimensions that are walked as columns: the last one, and known ones before
/// it as long as a block's threads are more than the columns.
fn columns_from(shape: &[DimExpr]) -> usize {
    let mut from = shape.len().saturating_sub(1);
    while from > 0
        && DimExpr::product(&shape[from..])
            .as_const()
            .is_some_and(|n| n < i64::from(THREADS))
        && shape[from - 1].as_const().is_some()
    {
        from -= 1;
    }
    from
}

/// Computes the expression at one position and stores every result.
pub fn element(fr: &mut Frame, e: &Expr, accs: &[Value], p: &Position) {
    let values = steps_at(fr, e, accs, p);
    let results = fr.results.clone();
    for (s, t) in e.stores.iter().zip(&results) {
        store_result(fr, t, p, values[s.value.0 as usize], None);
    }
}
