//! Why ops are fused and why others are not, as decisions of the ledger.
//!
//! A decision belongs to the op that a kernel is named after: the one that accumulates, or the
//! last of elementwise ones. It lists the form that was chosen, forms that lost with their times,
//! and for every neighbour that stayed apart the first reason.

use super::cost::Costs;
use super::recipe::{Recipe, Step};
use super::region::{Binding, Region, Source, has_expression, is_elementwise};
use super::rules::Declined;
use qcc_ir::graph::{Def, Func, Module, Op, OpKind, ValueId};
use qcc_ir::ledger::{Candidate, Decision, Ledger, Topic};
use std::collections::{BTreeMap, BTreeSet};

/// A region where it occurs.
pub(super) struct Place<'a> {
    pub(super) module: &'a Module,
    pub(super) func: &'a Func,
    pub(super) region: &'a Region,
    pub(super) binding: &'a Binding,
}

impl<'a> Place<'a> {
    fn op(&self, at: u32) -> &'a Op {
        &self.func.ops[self.binding.ops[at as usize].index()]
    }

    /// The name by which users know an op: its source nodes, else its value. A quantize comes
    /// from the node that it feeds, and is told from it by its value.
    fn site(&self, op: &Op) -> String {
        let value = || {
            let r = op.results.first();
            r.map_or(String::new(), |r| self.func.value(*r).name.clone())
        };
        match op.loc.nodes.is_empty() || op.kind == OpKind::Quantize {
            true => value(),
            false => op.loc.to_string(),
        }
    }

    /// `linear + add + gelu`, in the order of execution.
    fn kinds(&self, ops: &BTreeSet<u32>) -> String {
        let names: Vec<&str> = ops.iter().map(|o| self.op(*o).kind.name()).collect();
        names.join(" + ")
    }

    /// The op after which a kernel that computes these is named.
    fn main(&self, ops: &BTreeSet<u32>) -> Option<u32> {
        let heavy = |o: &&u32| !is_elementwise(&self.op(**o).kind);
        ops.iter().find(heavy).or(ops.last()).copied()
    }

    fn weight(&self, op: &Op) -> Option<String> {
        let v: ValueId = *op.operands.get(1)?;
        match &self.func.def_op(v)?.kind {
            OpKind::Const { weight, .. } => Some(self.module.weight(*weight).name.clone()),
            _ => None,
        }
    }
}

/// Records the decisions of one occurrence of a region.
pub(super) fn record(ledger: &mut Ledger, place: &Place<'_>, recipe: &Recipe, costs: &Costs<'_>) {
    let mut step_of: BTreeMap<u32, usize> = BTreeMap::new();
    for (i, s) in recipe.steps.iter().enumerate() {
        for op in &s.origin.ops {
            step_of.entry(*op).or_insert(i);
        }
    }
    for (i, step) in recipe.steps.iter().enumerate() {
        let Some(main) = place.main(&step.origin.ops) else {
            continue;
        };
        let mut considered = vec![candidate(
            place.kinds(&step.origin.ops),
            &step.micros,
            costs,
        )];
        considered.extend(lost(place, recipe, step, main, costs));
        considered.extend(apart(place, recipe, &step_of, i));
        if recipe.cut {
            considered.push(Candidate::refused(
                "other forms",
                format!(
                    "the search was cut off: cost {:.3} µs, no form can cost less than {:.3} µs",
                    recipe.micros, recipe.bound
                ),
            ));
        }
        let op = place.op(main);
        let free = matches!(op.kind, OpKind::Reshape | OpKind::Splat { .. });
        if free && step.origin.ops.len() < 2 && considered.len() < 2 {
            continue;
        }
        let mut d = Decision::new(place.site(op), Topic::Fusion, place.kinds(&step.origin.ops))
            .target(costs.target());
        d.weight = place.weight(op);
        d.considered = considered;
        d.rules = step.origin.rules.iter().map(ToString::to_string).collect();
        d.fused = fused(place, &step.origin.ops);
        ledger.record(d);
    }
}

fn fused(place: &Place<'_>, ops: &BTreeSet<u32>) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    for op in ops.iter().map(|o| place.op(*o)) {
        // The nodes of a quantize are those that it feeds, which are not computed here.
        let names = match op.loc.nodes.as_slice() {
            nodes if nodes.is_empty() || op.kind == OpKind::Quantize => vec![place.site(op)],
            nodes => nodes.to_vec(),
        };
        out.extend(
            names
                .into_iter()
                .filter(|n| !out.contains(n))
                .collect::<Vec<_>>(),
        );
    }
    out
}

fn candidate(name: String, micros: &Result<Vec<f64>, String>, costs: &Costs<'_>) -> Candidate {
    match micros {
        Err(reason) => Candidate::refused(name, format!("no kernel: {reason}")),
        Ok(list) => costs
            .buckets
            .iter()
            .zip(list)
            .fold(Candidate::new(name), |c, (b, us)| c.predicted(&b.name, *us)),
    }
}

/// Forms around the main op that compute more together, or other things, but were not chosen.
fn lost(
    place: &Place<'_>,
    recipe: &Recipe,
    step: &Step,
    main: u32,
    costs: &Costs<'_>,
) -> Vec<Candidate> {
    let mut seen = BTreeSet::new();
    recipe
        .lost
        .iter()
        .filter(|(o, _)| o.ops.contains(&main) && !o.ops.is_subset(&step.origin.ops))
        .filter(|(o, _)| seen.insert(o.ops.clone()))
        .map(|(o, micros)| candidate(place.kinds(&o.ops), micros, costs))
        .collect()
}

/// Neighbours whose value the step reads, or that were candidates for merging with it, and why
/// they are apart.
fn apart(
    place: &Place<'_>,
    recipe: &Recipe,
    step_of: &BTreeMap<u32, usize>,
    at: usize,
) -> Vec<Candidate> {
    let ops = &recipe.steps[at].origin.ops;
    let elsewhere = |o: &u32| step_of.get(o).is_some_and(|s| *s != at);
    let mut out: Vec<Candidate> = Vec::new();
    let mut add = |name: String, reason: String| {
        if !out.iter().any(|c| c.candidate == name) {
            out.push(Candidate::refused(name, reason));
        }
    };
    // The smallest forms say it best.
    let mut declined: Vec<&Declined> = recipe.declined.iter().collect();
    declined.sort_by_key(|d| d.readers.len() + d.producers.len());
    for d in declined {
        let reads = !d.readers.is_disjoint(ops) && d.producers.is_disjoint(ops);
        if let (true, Some(p)) = (reads, d.producers.iter().find(|o| elsewhere(o))) {
            let name = format!(
                "with {} {}",
                place.op(*p).kind.name(),
                place.site(place.op(*p))
            );
            add(name, format!("{}: {}", d.rule, d.reason));
        }
    }
    for op in ops {
        for s in &place.region.ops[*op as usize].operands {
            let producer = match s {
                Source::Op(p, _) if elsewhere(p) => place.op(*p),
                Source::Leaf(l) => match producer(place, place.binding.leaves[*l as usize]) {
                    Some(p) => p,
                    None => continue,
                },
                Source::Op(..) => continue,
            };
            if let Some(reason) = boundary(place.op(*op), producer, matches!(s, Source::Leaf(_))) {
                let name = format!("with {} {}", producer.kind.name(), place.site(producer));
                add(name, reason);
            }
        }
    }
    out
}

fn producer<'a>(place: &Place<'a>, v: ValueId) -> Option<&'a Op> {
    match place.func.value(v).def {
        Def::Param(_) => None,
        Def::Result(id, _) => Some(&place.func.ops[id.index()]),
    }
}

/// Why an op is not fused with the one that computes its operand; `None` where nobody would
/// expect it.
fn boundary(reader: &Op, producer: &Op, outside: bool) -> Option<String> {
    if !has_expression(&producer.kind) {
        let expected = is_elementwise(&reader.kind) && !producer.operands.is_empty();
        return expected.then(|| format!("`{}` carries no expression", producer.kind.name()));
    }
    if !has_expression(&reader.kind) {
        return None;
    }
    if !outside {
        return Some("costs more together than apart".into());
    }
    Some(match &reader.kind {
        OpKind::Linear { .. } | OpKind::Conv { .. } => format!(
            "`{}` reads each element of its input many times: computing them in its prologue \
             repeats the work and loses",
            reader.kind.name()
        ),
        OpKind::LayerNorm { .. } | OpKind::RmsNorm { .. } => format!(
            "`{}` needs its whole row before it gives the first element",
            reader.kind.name()
        ),
        OpKind::Attention { .. } => "`attention` reads each key and value once per query".into(),
        _ => format!(
            "`{}` also waits for another operand that is computed later",
            reader.kind.name()
        ),
    })
}
