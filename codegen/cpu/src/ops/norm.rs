//! `layer_norm` and `rms_norm`: a row is normalized, then an expression is applied.
//!
//! ```text
//! layer_norm  acc0 = (x − mean)/√(var + eps)      mean, var of the row, in f64
//! rms_norm    acc0 = x/√(mean(x²) + eps)
//! ```

use super::{Call, Prepared, Site};
use crate::expr::{Fused, Outputs, Plan, Sink, Spec};
use crate::kernels::rows::Reduction;
use crate::threads::Scatter;
use qcc_ir::diag::Result;
use qcc_ir::expr::{BinaryFn, Expr, Node};
use qcc_ir::graph::{OpKind, TensorType};
use qcc_ir::{Bundle, DType};

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

/// One kernel, or one that normalizes and an expression on what it gives.
struct Norm {
    rows: Plan,
    rest: Option<Plan>,
}

pub(super) fn prepare(site: &mut Site<'_>) -> Result<Prepared> {
    let (operands, results) = (site.operand_types(), site.result_types());
    let (reduction, centred) = match &site.op.kind {
        OpKind::LayerNorm { eps, .. } => (Reduction::LayerNorm(f32::from_bits(*eps)), true),
        OpKind::RmsNorm { eps, .. } => (Reduction::RmsNorm(f32::from_bits(*eps)), false),
        _ => return Err(crate::internal("a norm was expected")),
    };
    let default = || default_expr(centred && operands.len() > 2);
    let expr = site.op.kind.expr().cloned().unwrap_or_else(default);
    let whole = Spec {
        expr: &expr,
        operands: &operands,
        results: &results,
        shape: &operands[0].shape,
        accs: 1,
        reduction,
        rows: true,
        segmented: false,
    };
    let norm = if Plan::is_native(&whole) {
        Norm {
            rows: Plan::new(&whole, site.jit)?,
            rest: None,
        }
    } else {
        let plain = TensorType::new(DType::F32, operands[0].shape.iter().cloned());
        let alone = Spec {
            expr: &Expr::identity(),
            results: &[&plain],
            ..whole
        };
        let rest = Spec {
            reduction: Reduction::None,
            ..whole
        };
        Norm {
            rows: Plan::new(&alone, site.jit)?,
            rest: Some(Plan::new(&rest, site.jit)?),
        }
    };
    super::plain(move |c| norm.run(c))
}

impl Norm {
    fn run(&self, c: &Call<'_>) -> Result<Vec<Bundle>> {
        let x = c.arg(0)?;
        let dims = x.dims();
        let x = x.floats(c.threads)?;
        let rows = Fused::new(&self.rows, c.args, &dims, None, c.threads)?;
        let grain = rows.grain(PIECE);
        let last = self.rest.as_ref().unwrap_or(&self.rows);
        let mut out = Outputs::new(last, c.results, c.args, c.pool)?;
        let sinks = out.sinks()?;
        match &self.rest {
            None => c.threads.ranges(x.len(), grain, |r| {
                let part = &x[r.clone()];
                rows.run(&mut rows.scratch(), r.start, r.len(), [part, &[]], &sinks)
            })?,
            Some(rest) => {
                let rest = Fused::new(rest, c.args, &dims, None, c.threads)?;
                let mut acc = vec![0f32; x.len()];
                {
                    let sink = [Sink::Floats(Scatter::new(&mut acc))];
                    c.threads.ranges(x.len(), grain, |r| {
                        let part = &x[r.clone()];
                        rows.run(&mut rows.scratch(), r.start, r.len(), [part, &[]], &sink)
                    })?;
                }
                c.threads.ranges(x.len(), grain, |r| {
                    let part = &acc[r.clone()];
                    rest.run(&mut rest.scratch(), r.start, r.len(), [part, &[]], &sinks)
                })?;
            }
        }
        drop(sinks);
        out.finish(c.threads)
    }
}
