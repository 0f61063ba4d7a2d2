//! Products with a sparse weight: one thread per output element, in a loop over its row.
//!
//! ```text
//! y[…, j] = Σ_t values[j, t] · x[…, columns[j, t]]
//! ```
//!
//! Sums are in f32 and in the order of a row's elements. Every row holds as many, so that the
//! threads of a block take equally long. A column that lies outside of `x` counts as 0 and is
//! reported as an index of a gather is ([`layout`](super::layout)).

use super::layout::{load_at, named};
use super::map::{THREADS, walk};
use crate::lower::frame::{Frame, Launched};
use crate::lower::index::Position;
use crate::lower::store::store_result;
use qcc_ir::diag::Result;
use qcc_ir::graph::{Func, Module, Op};
use qcc_ir::kernel::Launch;

/// Builds the kernel of a `sparse_linear`.
///
/// # Errors
/// When the result's scheme needs more than its own element.
pub fn build(m: &Module, f: &Func, op: &Op) -> Result<Launched> {
    let (shape, held) = (
        f.ty(op.results[0]).shape.clone(),
        f.ty(op.operands[1]).shape.clone(),
    );
    let mut fr = Frame::open(m, f, op, Launch::threads(THREADS), &[])?;
    let faults = fr.faults(&held);
    let result = fr.results[0].clone();
    let last = shape.len() - 1;
    let grid = walk(&mut fr, &shape, |fr, p| {
        let [x, columns, values] = [0, 1, 2].map(|i| fr.operands[i].clone());
        let (zero, one, each) = (fr.k.u32(0), fr.k.u32(1), fr.dim(&held[1]));
        let none = fr.k.f32(0.0);
        let sum = fr.carry((zero, each, one), &[none], |fr, t, sum| {
            let which = Position {
                shape: held.clone(),
                at: vec![p.at[last], t],
            };
            let (i, inside) = named(fr, &columns, &which, &x.ty.shape[last], Some(faults));
            let mut at = p.at.clone();
            at[last] = i;
            let x = load_at(fr, &x, at, Some(inside));
            let v = load_at(fr, &values, which.at, None);
            vec![fr.k.fma(v, x, sum[0])]
        })[0];
        store_result(fr, &result, p, sum, None);
    });
    fr.close(grid, 0)
}
