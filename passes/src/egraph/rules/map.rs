//! Elementwise ops become one map.
//!
//! From each elementwise op the rules look up through operands that nothing else reads and take
//! in all of them at once: an op fused with a part of what it could be fused with is never
//! better than with all of it, and the parts of a tree would be exponentially many. Where a
//! larger map does not fit a kernel, each value still has the map that ends at it.

use super::absorb::{Others, Producer, Reader, absorb, proposal};
use super::{Declined, Exactness::BitExact, Found, Rule};
use crate::egraph::body::{Body, Head};
use crate::egraph::compose::compose;
use crate::egraph::lang::Node;
use crate::egraph::region::is_elementwise;
use crate::egraph::space::{Origin, Space};
use egg::Id;
use qcc_ir::graph::OpKind;
use std::collections::BTreeSet;

/// The rules of this family.
pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "map-map",
        class: BitExact,
        equation: "f(g(a…), b…) = map { f(g(a…), b…) }",
        find: |r, s, f| cones(r, s, f, |k| !matches!(k, OpKind::Quantize)),
    },
    Rule {
        name: "map-quantize",
        class: BitExact,
        equation: "quantize(f(a…), [s]) = map { store f(a…) [scale s] }",
        find: |r, s, f| cones(r, s, f, |k| matches!(k, OpKind::Quantize)),
    },
    Rule {
        name: "map-two-results",
        class: BitExact,
        equation: "v = f(a…); y = g(v, b…)  =  v, y = map { f(a…); g(f(a…), b…) }",
        find: |r, s, f| {
            absorb(r, s, f, Others::Stored, |s, p, c| {
                largest(s, p) && single(c)
            })
        },
    },
    Rule {
        name: "map-recompute",
        class: BitExact,
        equation: "v = f(a); y = g(v, b…)  =  y = map { g(f(a), b…) }, v elsewhere",
        find: |r, s, f| {
            absorb(r, s, f, Others::Recomputed, |s, p, c| {
                largest(s, p) && single(c) && p.stores.len() == 1 && is_cheap(s, p.node)
            });
        },
    },
];

/// Most steps of an expression that is worth computing twice.
const CHEAP_STEPS: usize = 4;

/// Whether an e-node is an elementwise op of the region itself.
fn original(space: &Space<'_>, node: &Node) -> bool {
    let elementwise = space.op(node).is_some_and(|(d, _)| is_elementwise(&d.kind));
    elementwise && space.origin(node).rules.is_empty()
}

fn single(c: &Reader<'_>) -> bool {
    c.origin.rules.is_empty()
}

/// Whether a producer is a map, and the one with the most steps that stores the same values.
fn largest(space: &Space<'_>, p: &Producer<'_>) -> bool {
    if !is_elementwise(p.kind) {
        return false;
    }
    let size = |n: &Node| {
        let body = space.body(n);
        let body = body
            .as_ref()
            .as_ref()
            .ok()
            .filter(|b| b.head == Head::Map)?;
        Some((body.results.len(), body.expr.nodes.len()))
    };
    let own = size(p.node);
    space
        .producers(p.stores[0])
        .iter()
        .all(|(_, n)| size(n) <= own || space.op(n).is_none())
}

fn is_cheap(space: &Space<'_>, node: &Node) -> bool {
    let body = space.body(node);
    let small = |b: &Body| b.operands.len() == 1 && b.expr.nodes.len() <= CHEAP_STEPS;
    body.as_ref().as_ref().is_ok_and(small)
}

fn cones(rule: &Rule, space: &Space<'_>, found: &mut Found, top: fn(&OpKind) -> bool) {
    for (class, node) in space.op_nodes() {
        let wanted = space.op(node).is_some_and(|(d, _)| top(&d.kind));
        if !wanted || !original(space, node) {
            continue;
        }
        let Ok(body) = Body::of(space, node) else {
            continue;
        };
        let cone = cone(rule, space, found, body, space.origin(node));
        let changed = !cone.origin.rules.is_empty() || cone.inlined(space, node);
        if changed {
            let results = space.results(class, node);
            let origin = Origin::default().join(&cone.origin, rule.name);
            match proposal(space, cone.body, results, origin) {
                Ok(p) => found.proposals.push(p),
                Err(reason) => found.declined.push(Declined {
                    readers: space.origin(node).ops,
                    producers: cone.origin.ops,
                    rule: rule.name,
                    reason,
                }),
            }
        }
    }
}

struct Cone {
    body: Body,
    origin: Origin,
}

impl Cone {
    /// Whether an operand became a constant of the expression.
    fn inlined(&self, space: &Space<'_>, node: &Node) -> bool {
        let operands = space.op(node).map_or(0, |(_, o)| o.len());
        self.body.operands.len() < operands
            && space
                .op(node)
                .is_some_and(|(_, o)| o.iter().any(|c| space.splat(*c).is_some()))
    }
}

/// Takes in operands that only the growing map reads, until there are no more.
fn cone(rule: &Rule, space: &Space<'_>, found: &mut Found, body: Body, origin: Origin) -> Cone {
    let own = origin.ops.clone();
    let mut cone = Cone { body, origin };
    let mut refused: BTreeSet<Id> = BTreeSet::new();
    while let Some((class, node)) = next(space, &cone, &refused) {
        let from: Vec<Option<usize>> = (cone.body.operands.iter().enumerate())
            .map(|(j, o)| (*o == class && cone.body.reads(j)).then_some(0))
            .collect();
        let producer = space.origin(node);
        let step = Body::of(space, node).and_then(|p| compose(&cone.body, &p, &from, &[false]));
        match step {
            Ok(body) => {
                cone.body = body;
                cone.origin = cone.origin.join(&producer, rule.name);
            }
            Err(reason) => {
                refused.insert(class);
                found.declined.push(Declined {
                    readers: own.clone(),
                    producers: producer.ops,
                    rule: rule.name,
                    reason,
                });
            }
        }
    }
    cone
}

/// An operand that is an elementwise op with no reader outside of the cone.
fn next<'s>(space: &'s Space<'_>, cone: &Cone, refused: &BTreeSet<Id>) -> Option<(Id, &'s Node)> {
    let reads = |(j, class): (usize, &Id)| {
        let free = cone.body.reads(j)
            && !refused.contains(class)
            && space.read_only_by(*class, &cone.origin.ops);
        let nodes = &space.graph[*class].nodes;
        let node = nodes.iter().find(|n| original(space, n))?;
        free.then_some((*class, node))
    };
    let operands = cone.body.operands.iter().enumerate();
    operands.into_iter().find_map(reads)
}
