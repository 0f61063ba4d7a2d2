//! `softmax` along one axis.

use super::{Call, Prepared, Site};
use crate::expr::{Fused, Plan, Sink, Spec};
use crate::kernels::rows::Reduction;
use crate::pool::Numbers;
use crate::threads::Scatter;
use qcc_ir::diag::Result;
use qcc_ir::expr::Expr;
use qcc_ir::graph::TensorType;
use qcc_ir::{Bundle, DType, DimExpr};

/// Elements that one task handles, about.
const PIECE: usize = 1 << 13;

/// A row kernel over rows of the length of the axis.
pub(super) fn prepare(site: &mut Site<'_>, axis: usize) -> Result<Prepared> {
    let n = site.operand_types()[0].shape[axis].clone();
    let shape = [DimExpr::sym("rows"), n];
    let rows = TensorType::new(DType::F32, shape.clone());
    let spec = Spec {
        expr: &Expr::identity(),
        operands: &[],
        results: &[&rows],
        shape: &shape,
        accs: 1,
        reduction: Reduction::Softmax,
        rows: true,
        segmented: false,
    };
    let plan = Plan::new(&spec, site.jit)?;
    super::plain(move |c| softmax(c, axis, &plan))
}

fn softmax(c: &Call<'_>, axis: usize, plan: &Plan) -> Result<Vec<Bundle>> {
    let (ty, dims) = c.result()?;
    let x = c.arg(0)?;
    let d = x.dims();
    let n = d[axis];
    let inner: usize = d[axis + 1..].iter().product();
    let data = x.floats(c.threads)?;
    let mut result = Numbers::new(c.pool, dims)?;
    let out = result.get_mut()?;
    if inner == 1 {
        rows(c, plan, &data, out, n)?;
    } else {
        // Elements of a row lie `inner` apart: they are brought together, and put back.
        let mut lines = vec![0f32; data.len()];
        exchange(c, &data, &mut lines, [n, inner])?;
        let mut done = vec![0f32; data.len()];
        rows(c, plan, &lines, &mut done, n)?;
        exchange(c, &done, out, [inner, n])?;
    }
    let dtype = ty.plain("the result of softmax")?;
    Ok(vec![result.finish(dtype, c.threads)?.into()])
}

fn rows(c: &Call<'_>, plan: &Plan, x: &[f32], out: &mut [f32], n: usize) -> Result<()> {
    let dims = [x.len() / n.max(1), n];
    let fused = Fused::new(plan, &[], &dims, None, c.threads)?;
    let sinks = [Sink::Floats(Scatter::new(out))];
    c.threads.ranges(x.len(), fused.grain(PIECE), |r| {
        let part = &x[r.clone()];
        fused.run(&mut fused.scratch(), r.start, r.len(), [part, &[]], &sinks)
    })
}

/// Transposes each `[rows, cols]` matrix.
fn exchange(c: &Call<'_>, from: &[f32], to: &mut [f32], [rows, cols]: [usize; 2]) -> Result<()> {
    c.threads.chunks(to, rows * cols, |at, out| {
        let block = &from[at..at + out.len()];
        for (i, o) in out.iter_mut().enumerate() {
            *o = block[i % rows * cols + i / rows];
        }
        Ok(())
    })
}
