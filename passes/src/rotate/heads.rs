//! Values of attention, rotated head by head.
//!
//! ```text
//! attention(q, k, v·R) = attention(q, k, v)·R     for each head: it is P·(v·R) = (P·v)·R
//! ```
//!
//! The rows of the values' projection take the rotation, the columns of the output projection its
//! inverse. Query heads that share a value head share its rotation. Preconditions: the values
//! come from a plain linear layer, perhaps as a part of its columns, and only attention reads
//! them; only one linear layer reads what attention gives, as it is.

use super::rule::{Columns, Plan, Rows};
use super::{op_name, readers};
use crate::analysis::{is_plain_linear, projection, read_once};
use crate::weights::Rotation;
use qcc_ir::graph::{Func, Module, Op, OpId, OpKind};
use std::ops::Range;
use std::sync::Arc;

/// Plans the rotation of the values of every attention of the entry function.
pub(super) fn plan(m: &Module, seed: u64, plan: &mut Plan) {
    let f = &m.funcs[0];
    for (_, op) in f.ops() {
        let OpKind::Attention { attrs, expr: None } = &op.kind else {
            continue;
        };
        match ends(f, op, attrs.kv_heads, seed, plan) {
            Err(reason) => plan.refuse(&op_name(f, op), "merged", reason),
            Ok(e) => {
                let chosen = format!("merged by head, hadamard {}", e.rotation.size());
                let names = [e.values, e.output].map(|id| op_name(f, &f.ops[id.index()]));
                plan.decide(&op_name(f, op), &chosen, names.into());
                let rotation = Arc::new(e.rotation);
                let span = Some(e.span);
                plan.rows(
                    e.values,
                    Rows {
                        rotation: rotation.clone(),
                        center: false,
                        span,
                    },
                );
                plan.columns(e.output, Columns::of(rotation));
            }
        }
    }
}

/// The layers that take the rotation of an attention's values.
struct Ends {
    values: OpId,
    /// Which of its columns are the values.
    span: Range<usize>,
    output: OpId,
    rotation: Rotation,
}

fn ends(f: &Func, op: &Op, heads: u64, seed: u64, plan: &Plan) -> Result<Ends, String> {
    let (v, y) = (op.operands[2], op.results[0]);
    if !read_once(f, v) || !read_once(f, y) {
        return Err("more than one op reads its values or its result".into());
    }
    let (values, span) = projection(f, v).ok_or("no linear layer makes its values for it alone")?;
    if plan.has_rows(values) {
        return Err("what makes its values is rotated already".into());
    }
    let output = readers(f, y).find(|(_, o)| o.operands[0] == y && is_plain_linear(f, o));
    let Some((output, _)) = output.filter(|(id, _)| !plan.has_columns(*id)) else {
        return Err("no linear layer that is not rotated already reads its result".into());
    };
    let head = usize::try_from(heads).ok().filter(|h| *h > 0);
    let head = head.map(|h| span.len() / h);
    let rotation = head.and_then(|n| Rotation::new(n, n, seed));
    let rotation = rotation.ok_or("there is no Hadamard matrix for any part of a head")?;
    Ok(Ends {
        values,
        span,
        output,
        rotation,
    })
}
