//! What the epilogue rules share: an elementwise reader goes into the kernel that computes what
//! it reads.
//!
//! ```text
//! v₁ … vₘ = head { e₁ … eₘ } (a…)     y = f(v_i, b…)
//! ⇒  y = head { f(e_i, b…) } (a…, b…)                      v_i has no other reader
//! ⇒  v_i, y = head { e_i; f(e_i, b…) } (a…, b…)            v_i has other readers
//! ```

use super::{Declined, Found, Rule};
use crate::egraph::body::{Body, Reason};
use crate::egraph::compose::compose;
use crate::egraph::lang::Node;
use crate::egraph::region::is_elementwise;
use crate::egraph::space::{Arg, NewOp, Origin, Proposal, Space};
use egg::Id;
use qcc_ir::graph::{OpKind, TensorType};
use std::collections::BTreeSet;
use std::rc::Rc;

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
    pub(super) operands: &'s [Id],
    pub(super) types: &'s [TensorType],
    /// The class of each result.
    pub(super) results: Vec<Id>,
    pub(super) origin: Origin,
    node: &'s Node,
    body: Rc<Result<Body, Reason>>,
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
    let (data, operands) = space.op(node)?;
    is_elementwise(&data.kind).then(|| Reader {
        kind: &data.kind,
        operands,
        types: &data.results,
        results: space.results(class, node),
        origin: space.origin(node),
        node,
        body: space.body(node),
    })
}

impl Reader<'_> {
    /// The classes that are read at each position.
    fn data(&self) -> Vec<Id> {
        match self.body.as_ref() {
            Ok(b) => {
                let read = b.operands.iter().enumerate().filter(|(j, _)| b.reads(*j));
                read.map(|(_, c)| *c).collect()
            }
            Err(_) => self.operands.to_vec(),
        }
    }
}

/// The kernels whose values a reader reads element by element, each once.
fn producers<'s>(space: &'s Space<'_>, reader: &Reader<'_>) -> Vec<Producer<'s>> {
    let mut seen: BTreeSet<(Id, &Node)> = BTreeSet::new();
    for class in reader.data() {
        seen.extend(space.producers(class));
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
    let read: Vec<Id> = reader.data().iter().map(|c| space.graph.find(*c)).collect();
    let absorbed: Vec<bool> = p
        .stores
        .iter()
        .map(|s| read.contains(&space.graph.find(*s)))
        .collect();
    let other_readers: Vec<bool> = p
        .stores
        .iter()
        .zip(&absorbed)
        .map(|(s, absorbed)| !absorbed || !space.read_only_by(*s, &reader.origin.ops))
        .collect();
    let shared = absorbed.iter().zip(&other_readers).any(|(a, o)| *a && *o);
    let keep: Vec<bool> = match (others, shared) {
        (Others::None, true) | (Others::Stored | Others::Recomputed, false) => return,
        (Others::Recomputed, true) => absorbed.iter().map(|a| !a).collect(),
        _ => other_readers,
    };
    if !space.first_try(rule.name, p.node, reader.node, &keep) {
        return;
    }
    match take_in(rule, space, p, reader, &keep) {
        Ok(proposal) => found.proposals.push(proposal),
        Err(reason) => found.declined.push(Declined {
            readers: reader.origin.ops.clone(),
            producers: p.origin.ops.clone(),
            rule: rule.name,
            reason,
        }),
    }
}

fn take_in(
    rule: &Rule,
    space: &Space<'_>,
    p: &Producer<'_>,
    reader: &Reader<'_>,
    keep: &[bool],
) -> Result<Proposal, Reason> {
    let body = reader.body.as_ref().as_ref().map_err(Clone::clone)?;
    let producer = space.body(p.node);
    let producer = producer.as_ref().as_ref().map_err(Clone::clone)?;
    let from: Vec<Option<usize>> = (0..body.operands.len())
        .map(|j| {
            let class = space.graph.find(body.operands[j]);
            let at = p.stores.iter().position(|s| space.graph.find(*s) == class);
            at.filter(|_| body.reads(j))
        })
        .collect();
    let both = compose(body, producer, &from, keep)?;
    let kept = p.stores.iter().zip(keep).filter(|(_, k)| **k);
    let equals = kept.map(|(s, _)| *s).chain(reader.results.iter().copied());
    let origin = p.origin.join(&reader.origin, rule.name);
    proposal(space, both, equals.collect(), origin)
}

/// The op that a body is, its results in the order of their classes.
pub(super) fn proposal(
    space: &Space<'_>,
    mut body: Body,
    equals: Vec<Id>,
    origin: Origin,
) -> Result<Proposal, Reason> {
    let mut order: Vec<usize> = (0..equals.len()).collect();
    order.sort_by_key(|i| space.graph.find(equals[*i]));
    body.expr.stores = order.iter().map(|i| body.expr.stores[*i]).collect();
    body.results = order.iter().map(|i| body.results[*i].clone()).collect();
    let body = body.tidy();
    let types: Vec<_> = body.operands.iter().map(|o| space.ty(*o)).collect();
    let kind = body.kind(&types)?;
    Ok(Proposal::Op(Box::new(NewOp {
        kind,
        operands: body.operands.into_iter().map(Arg::Class).collect(),
        results: body.results,
        equals: order.into_iter().map(|i| equals[i]).collect(),
        origin,
    })))
}
