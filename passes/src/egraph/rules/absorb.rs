//! What the epilogue rules share: an elementwise reader goes into the kernel that computes what
//! it reads.
//!
//! ```text
//! v₁ … vₘ = head { e₁ … eₘ } (a…)     y = f(v_i, b…)
//! ⇒  y = head { f(e_i, b…) } (a…, b…)                      v_i has no other reader
//! ⇒  v_i, y = head { e_i; f(e_i, b…) } (a…, b…)            v_i has other readers
//! ```

use super::{Declined, Found, Rule};
use crate::egraph::body::Body;
use crate::egraph::compose::compose;
use crate::egraph::lang::Node;
use crate::egraph::region::is_elementwise;
use crate::egraph::space::{Arg, Origin, Proposal, Space};
use egg::Id;
use qcc_ir::graph::OpKind;
use std::collections::BTreeSet;

/// What happens to a value that has readers besides the one that is taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Others {
    /// The rule does not apply.
    None,
    /// The kernel stores the value as well.
    Stored,
    /// The value is computed again elsewhere.
    Recomputed,
}

/// An e-node seen as a reader: what it computes, for which classes, and which ops that covers.
pub(super) struct Reader<'s> {
    pub(super) kind: &'s OpKind,
    pub(super) body: Body,
    pub(super) results: Vec<Id>,
    pub(super) origin: Origin,
}

/// An e-node seen as a kernel that may take readers in.
pub(super) struct Producer<'s> {
    pub(super) kind: &'s OpKind,
    pub(super) node: &'s Node,
    pub(super) stores: Vec<Id>,
    pub(super) origin: Origin,
}

/// Tries every pair of a producer and a reader that both predicates accept.
pub(super) fn absorb(
    rule: &Rule,
    space: &Space<'_>,
    found: &mut Found,
    others: Others,
    fits: fn(&Space<'_>, &Producer<'_>, &Reader<'_>) -> bool,
) {
    for (class, node) in space.op_nodes() {
        let Some(reader) = reader(space, class, node) else {
            continue;
        };
        for p in producers(space, &reader) {
            if fits(space, &p, &reader) {
                pair(rule, space, found, others, &p, &reader);
            }
        }
    }
}

fn reader<'s>(space: &'s Space<'_>, class: Id, node: &'s Node) -> Option<Reader<'s>> {
    let (data, _) = space.op(node)?;
    if !is_elementwise(&data.kind) {
        return None;
    }
    Some(Reader {
        kind: &data.kind,
        body: Body::of(space, node).ok()?,
        results: space.results(class, node),
        origin: space.origin(node),
    })
}

/// The kernels whose values a reader reads element by element, each once.
fn producers<'s>(space: &'s Space<'_>, reader: &Reader<'_>) -> Vec<Producer<'s>> {
    let mut seen: BTreeSet<(Id, &Node)> = BTreeSet::new();
    for (j, class) in reader.body.operands.iter().enumerate() {
        if reader.body.reads(j) {
            seen.extend(space.producers(*class));
        }
    }
    let one = |(class, node): (Id, &'s Node)| {
        let (data, _) = space.op(node)?;
        let stores = space.results(class, node);
        // A kernel that computes the reader's own value takes nothing in.
        let own = stores.iter().any(|s| reader.results.contains(s));
        (!own).then(|| Producer {
            kind: &data.kind,
            node,
            stores,
            origin: space.origin(node),
        })
    };
    seen.into_iter().filter_map(one).collect()
}

fn pair(
    rule: &Rule,
    space: &Space<'_>,
    found: &mut Found,
    others: Others,
    p: &Producer<'_>,
    reader: &Reader<'_>,
) {
    let from: Vec<Option<usize>> = (0..reader.body.operands.len())
        .map(|j| {
            let class = space.graph.find(reader.body.operands[j]);
            let at = p.stores.iter().position(|s| space.graph.find(*s) == class);
            at.filter(|_| reader.body.reads(j))
        })
        .collect();
    let absorbed: BTreeSet<usize> = from.iter().flatten().copied().collect();
    let other_readers: Vec<bool> = (0..p.stores.len())
        .map(|i| !absorbed.contains(&i) || !space.read_only_by(p.stores[i], &reader.origin.ops))
        .collect();
    let shared = absorbed.iter().any(|i| other_readers[*i]);
    let keep = match (others, shared) {
        (Others::None, true) | (Others::Stored | Others::Recomputed, false) => return,
        (Others::Recomputed, true) => {
            (0..p.stores.len()).map(|i| !absorbed.contains(&i)).collect()
        }
        _ => other_readers,
    };
    let outcome = Body::of(space, p.node)
        .and_then(|body| compose(&reader.body, &body, &from, &keep))
        .and_then(|body| {
            let kept = p.stores.iter().zip(&keep).filter(|(_, k)| **k);
            let equals = kept.map(|(s, _)| *s).chain(reader.results.iter().copied());
            proposal(space, body, equals.collect(), p.origin.join(&reader.origin, rule.name))
        });
    match outcome {
        Ok(proposal) => found.proposals.push(proposal),
        Err(reason) => found.declined.push(Declined {
            readers: reader.origin.ops.clone(),
            producers: p.origin.ops.clone(),
            rule: rule.name,
            reason,
        }),
    }
}

/// The op that a body is, its results in the order of their classes.
pub(super) fn proposal(
    space: &Space<'_>,
    mut body: Body,
    equals: Vec<Id>,
    origin: Origin,
) -> Result<Proposal, String> {
    let mut order: Vec<usize> = (0..equals.len()).collect();
    order.sort_by_key(|i| space.graph.find(equals[*i]));
    body.expr.stores = order.iter().map(|i| body.expr.stores[*i]).collect();
    body.results = order.iter().map(|i| body.results[*i].clone()).collect();
    let body = body.tidy();
    let types: Vec<_> = body.operands.iter().map(|o| space.ty(*o)).collect();
    let kind = body.kind(&types)?;
    Ok(Proposal::Op {
        kind,
        operands: body.operands.into_iter().map(Arg::Class).collect(),
        results: body.results,
        equals: order.into_iter().map(|i| equals[i]).collect(),
        origin,
    })
}
