//! Queries and keys turn by the same angles: one kernel reads the tables once for both.

use super::{Declined, Exactness::BitExact, Found, Rule};
use crate::egraph::lang::Node;
use crate::egraph::space::{Arg, NewOp, Origin, Proposal, Space};
use egg::Id;
use qcc_ir::graph::{OpKind, RotaryAttrs};
use std::collections::BTreeMap;

/// The rules of this family.
pub(super) const RULES: &[Rule] = &[Rule {
    name: "merge-rotary",
    class: BitExact,
    equation: "rotary(x, cos, sin), rotary(y, cos, sin) = rotary(x, cos, sin, y)",
    find: pairs,
}];

/// A rotation of one tensor.
struct Turned {
    class: Id,
    x: Id,
    attrs: RotaryAttrs,
    origin: Origin,
}

fn pairs(rule: &Rule, space: &Space<'_>, found: &mut Found) {
    let mut groups: BTreeMap<[Id; 2], Vec<Turned>> = BTreeMap::new();
    for (class, node) in space.op_nodes() {
        if let Some((tables, t)) = turned(space, class, node) {
            groups.entry(tables).or_default().push(t);
        }
    }
    for (tables, mut group) in groups {
        group.sort_by_key(|t| t.origin.ops.first().copied());
        for pair in group.windows(2) {
            match merge(rule, space, tables, &pair[0], &pair[1]) {
                Ok(p) => found.proposals.push(p),
                Err(reason) => found.declined.push(Declined {
                    readers: pair[1].origin.ops.clone(),
                    producers: pair[0].origin.ops.clone(),
                    rule: rule.name,
                    reason,
                }),
            }
        }
    }
}

/// The tables and the rotation of an e-node that turns one tensor.
fn turned(space: &Space<'_>, class: Id, node: &Node) -> Option<([Id; 2], Turned)> {
    let (data, operands) = space.op(node)?;
    let OpKind::Rotary(attrs) = data.kind else {
        return None;
    };
    let [x, cos, sin] = operands else {
        return None;
    };
    let tables = [*cos, *sin].map(|t| space.graph.find(t));
    let origin = space.origin(node);
    Some((
        tables,
        Turned {
            class,
            x: *x,
            attrs,
            origin,
        },
    ))
}

fn merge(
    rule: &Rule,
    space: &Space<'_>,
    tables: [Id; 2],
    a: &Turned,
    b: &Turned,
) -> Result<Proposal, String> {
    if a.attrs.interleaved != b.attrs.interleaved {
        return Err("one turns halves of a head, the other neighbours".into());
    }
    let (ta, tb) = (space.ty(a.x), space.ty(b.x));
    let rows = ta.rank() - 1;
    if ta.shape[..rows] != tb.shape[..rows] {
        return Err(format!("the rows of {ta} and {tb} differ"));
    }
    let operands = [a.x, tables[0], tables[1], b.x];
    Ok(Proposal::Op(Box::new(NewOp {
        kind: OpKind::Rotary(a.attrs),
        operands: operands.map(Arg::Class).to_vec(),
        results: [a, b].map(|t| space.ty(t.class).clone()).to_vec(),
        equals: vec![a.class, b.class],
        origin: a.origin.join(&b.origin, rule.name),
    })))
}
