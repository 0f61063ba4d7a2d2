//! Dequantizing and quantizing that is not needed.

use super::{Declined, Exactness::EqualInReals, Found, Rule};
use crate::egraph::lang::Node;
use crate::egraph::space::{Arg, NewOp, Proposal, Space};
use egg::Id;
use qcc_ir::graph::{OpKind, TensorType};

/// The rules of this family.
pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "quantize-dequantize",
        class: EqualInReals,
        equation: "quantize(dequantize(q), s) = q                 q has scale s and the same type",
        find: cancel,
    },
    Rule {
        name: "linear-dequantize",
        class: EqualInReals,
        equation: "linear(dequantize(q), w) = linear(q, w); the same for w",
        find: sink,
    },
];

fn cancel(rule: &Rule, space: &Space<'_>, found: &mut Found) {
    for (class, node) in space.op_nodes() {
        let Some((data, operands)) = space.op(node) else {
            continue;
        };
        if data.kind != OpKind::Quantize {
            continue;
        }
        for (dequantize, q) in dequantized(space, operands[0]) {
            match same_scheme(space, q, &data.results[0], &operands[1..]) {
                Ok(()) => found.proposals.push(Proposal::Same {
                    class,
                    known: q,
                    origin: space
                        .origin(dequantize)
                        .join(&space.origin(node), rule.name),
                }),
                Err(reason) => found.declined.push(Declined {
                    readers: space.origin(node).ops,
                    producers: space.origin(dequantize).ops,
                    rule: rule.name,
                    reason,
                }),
            }
        }
    }
}

/// Whether quantizing the real values of `q` to type `ty` with these parameters gives `q` back.
///
/// In reals `round((c − z)·s / s) + z = c` for every code `c`. In f32 the quotient is off by at
/// most two units in the last place, which rounding to a code removes.
fn same_scheme(space: &Space<'_>, q: Id, ty: &TensorType, params: &[Id]) -> Result<(), String> {
    let scheme = ty.elem.quant().ok_or("the result is not quantized")?;
    if space.ty(q) != ty {
        return Err(format!("the schemes differ: {} and {ty}", space.ty(q)));
    }
    if scheme.dynamic {
        return Err("a dynamic scale is computed again, from rounded values".into());
    }
    let params: Vec<Id> = params.iter().map(|p| space.graph.find(*p)).collect();
    let stored_with = |(class, n): (Id, &Node)| -> Option<Vec<Id>> {
        let (data, operands) = space.op(n)?;
        let ids: Vec<Id> = if data.kind == OpKind::Quantize {
            operands[1..].to_vec()
        } else {
            let results = space.results(class, n);
            let at = results
                .iter()
                .position(|r| space.graph.find(*r) == space.graph.find(q))?;
            let store = data.kind.expr()?.stores.get(at)?;
            let list = [store.scale, store.zero].into_iter().flatten();
            list.filter_map(|k| operands.get(usize::from(k)).copied())
                .collect()
        };
        Some(ids.into_iter().map(|p| space.graph.find(p)).collect())
    };
    let known: Vec<Vec<Id>> = space
        .producers(q)
        .into_iter()
        .filter_map(stored_with)
        .collect();
    if known.contains(&params) {
        Ok(())
    } else if known.is_empty() {
        Err("the scale that the codes were made with is not known".into())
    } else {
        Err("the scales differ".into())
    }
}

/// The dequantize e-nodes in a class, each with the class of the codes.
fn dequantized<'s>(space: &'s Space<'_>, class: Id) -> Vec<(&'s Node, Id)> {
    space.graph[class]
        .nodes
        .iter()
        .filter_map(|n| match space.op(n) {
            Some((d, o)) if d.kind == OpKind::Dequantize => Some((n, space.graph.find(o[0]))),
            _ => None,
        })
        .collect()
}

fn sink(rule: &Rule, space: &Space<'_>, found: &mut Found) {
    for (class, node) in space.op_nodes() {
        let Some((data, operands)) = space.op(node) else {
            continue;
        };
        if !matches!(data.kind, OpKind::Linear { .. } | OpKind::Conv { .. }) {
            continue;
        }
        for i in 0..2 {
            for (dequantize, q) in dequantized(space, operands[i]) {
                let mut operands = operands.to_vec();
                operands[i] = q;
                found.proposals.push(Proposal::Op(Box::new(NewOp {
                    kind: data.kind.clone(),
                    operands: operands.into_iter().map(Arg::Class).collect(),
                    results: data.results.clone(),
                    equals: space.results(class, node),
                    origin: space
                        .origin(dequantize)
                        .join(&space.origin(node), rule.name),
                })));
            }
        }
    }
}
