//! A linear that is cut into columns stores them apart in the first place.

use super::{Declined, Exactness::BitExact, Found, Rule};
use crate::egraph::lang::Node;
use crate::egraph::region::columns;
use crate::egraph::space::{Arg, NewOp, Origin, Proposal, Space};
use egg::Id;
use qcc_ir::DimExpr;
use qcc_ir::graph::{OpKind, TensorType};
use std::collections::BTreeMap;

/// The rules of this family.
pub(super) const RULES: &[Rule] = &[Rule {
    name: "linear-split",
    class: BitExact,
    equation: "slice(linear(x, w, b), columns nᵢ…nᵢ₊₁) = result i of linear(x, w, b) in segments",
    find: split,
}];

/// A slice of columns: the class it gives and where it came from, by its first and last column.
type Slices = BTreeMap<(u64, u64), (Id, Origin)>;

fn split(rule: &Rule, space: &Space<'_>, found: &mut Found) {
    for (class, node) in space.op_nodes() {
        let slices = slices(space, class);
        let Some((data, operands)) = space.op(node).filter(|_| !slices.is_empty()) else {
            continue;
        };
        let OpKind::Linear {
            segments,
            accs,
            expr,
        } = &data.kind
        else {
            continue;
        };
        if !segments.is_empty() || data.results.len() != 1 {
            continue;
        }
        match widths(space, class, &data.results[0], &slices) {
            Ok(widths) => {
                let results = widths.iter().map(|w| columns_type(&data.results[0], *w));
                let join = |o: Origin, s: &(Id, Origin)| o.join(&s.1, rule.name);
                found.proposals.push(Proposal::Op(Box::new(NewOp {
                    results: results.collect(),
                    kind: OpKind::Linear {
                        segments: widths,
                        accs: *accs,
                        expr: expr.clone(),
                    },
                    operands: operands.iter().map(|o| Arg::Class(*o)).collect(),
                    equals: slices.values().map(|s| s.0).collect(),
                    origin: slices.values().fold(space.origin(node), join),
                })));
            }
            Err(reason) => found.declined.push(Declined {
                readers: slices.values().flat_map(|s| s.1.ops.clone()).collect(),
                producers: space.origin(node).ops,
                rule: rule.name,
                reason,
            }),
        }
    }
}

/// The slices of columns of a value.
fn slices(space: &Space<'_>, class: Id) -> Slices {
    let one = |(c, n): (Id, &Node)| {
        let (data, operands) = space.op(n)?;
        let reads = operands.first().map(|o| space.graph.find(*o)) == Some(class);
        let range = columns(&data.kind, space.ty(*operands.first()?))?;
        reads.then(|| (range, (c, space.origin(n))))
    };
    space.op_nodes().into_iter().filter_map(one).collect()
}

/// The widths of the slices, if they are the whole value side by side.
fn widths(
    space: &Space<'_>,
    class: Id,
    ty: &TensorType,
    slices: &Slices,
) -> Result<Vec<u64>, String> {
    let ops = slices.values().flat_map(|s| s.1.ops.clone()).collect();
    if !space.read_only_by(class, &ops) {
        return Err("the uncut value is needed, too".into());
    }
    let mut at = 0;
    let mut widths = Vec::new();
    for (first, last) in slices.keys() {
        if *first != at {
            let how = if *first < at {
                "overlap"
            } else {
                "leave columns out"
            };
            return Err(format!("the slices {how} at column {}", at.min(*first)));
        }
        widths.push(last - first);
        at = *last;
    }
    let all = ty.shape.last().and_then(DimExpr::as_const);
    if all != i64::try_from(at).ok() {
        return Err(format!("the slices leave columns out at column {at}"));
    }
    Ok(widths)
}

fn columns_type(ty: &TensorType, width: u64) -> TensorType {
    let mut ty = ty.clone();
    if let Some(last) = ty.shape.last_mut() {
        *last = DimExpr::from(width as i64);
    }
    ty
}
