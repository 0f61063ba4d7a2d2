//! `layer_norm` and `rms_norm`: a row is normalized, then an expression is applied.
//!
//! ```text
//! layer_norm  acc0 = (x − mean)/√(var + eps)      mean, var of the row, in f64
//! rms_norm    acc0 = x/√(mean(x²) + eps)
//! ```

use super::{Call, Prepared, Site};
use crate::expr::{Fused, Outputs, Plan, Regs};
use crate::math;
use qcc_ir::Bundle;
use qcc_ir::diag::Result;
use qcc_ir::expr::{BinaryFn, Expr, Node};
use qcc_ir::graph::OpKind;

/// Elements that one task normalizes, about.
const PIECE: usize = 1 << 13;

/// `acc0·gain`, plus bias if there is one.
fn default_expr(bias: bool) -> Expr {
    let mut e = Expr::default();
    let (a, g) = (e.push(Node::Acc(0)), e.push(Node::Input(1)));
    let mut v = e.push(Node::Binary(BinaryFn::Mul, a, g));
    if bias {
        let b = e.push(Node::Input(2));
        v = e.push(Node::Binary(BinaryFn::Add, v, b));
    }
    e.store(v);
    e
}

pub(super) fn prepare(site: &mut Site<'_>) -> Result<Prepared> {
    let types = site.operand_types();
    let (eps, centred) = match &site.op.kind {
        OpKind::LayerNorm { eps, .. } => (*eps, true),
        OpKind::RmsNorm { eps, .. } => (*eps, false),
        _ => return Err(crate::internal("a norm was expected")),
    };
    let default = || default_expr(centred && types.len() > 2);
    let expr = site.op.kind.expr().cloned().unwrap_or_else(default);
    let plan = Plan::new(&expr, &types)?;
    super::plain(move |c| run(c, &plan, f32::from_bits(eps), centred))
}

fn run(c: &Call<'_>, plan: &Plan, eps: f32, centred: bool) -> Result<Vec<Bundle>> {
    let x = c.arg(0)?;
    let dims = x.dims();
    let (rows, n) = x.rows_cols();
    let x = x.floats(c.threads)?;
    let fused = Fused::new(plan, c.args, &dims, None, c.threads)?;
    let mut out = Outputs::new(c.results)?;
    let sinks = out.sinks()?;
    let rows = if n == 0 { 0 } else { rows };
    c.threads.ranges(rows, PIECE.div_ceil(n.max(1)), |r| {
        let mut regs = Regs::new(plan);
        let mut acc = vec![0f32; r.len() * n];
        let from = x[r.start * n..r.end * n].chunks(n);
        for (row, acc) in from.zip(acc.chunks_mut(n)) {
            let mean = if centred {
                math::sum(row) / n as f64
            } else {
                0.0
            };
            let var = math::sum_squares(row, mean) / n as f64;
            math::normalise(row, mean, 1.0 / (var + f64::from(eps)).sqrt(), acc);
        }
        fused.run(&mut regs, r.start * n, r.len() * n, [&acc, &[]], &sinks)
    })?;
    drop(sinks);
    out.finish(&|i| plan.params(i, c.args), c.threads)
}
