//! Recipes: what was chosen for a region, in a form that is replayed wherever it occurs.

use super::analysis::Tables;
use super::cost::Costs;
use super::extract::{Choice, extract};
use super::lang::{DerivedData, Node};
use super::region::Region;
use super::rules::{Declined, Rule};
use super::saturate::{Limits, saturate};
use super::space::{Origin, Space, Value};
use super::stats::Stats;
use egg::Id;
use qcc_ir::Diagnostic;
use qcc_ir::diag::{Class, Result};
use qcc_ir::graph::{OpKind, TensorType};
use std::collections::{BTreeMap, BTreeSet};

/// An operand of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Ref {
    /// A value from outside of the region.
    Leaf(u32),
    /// A constant made of leaves; an index into [`Recipe::derived`].
    Derived(u32),
    /// A result of an earlier step.
    Step(u32, u32),
}

/// An op to build.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) kind: OpKind,
    pub(super) operands: Vec<Ref>,
    pub(super) results: Vec<TensorType>,
    /// The value of the region that each result is.
    pub(super) values: Vec<Option<Value>>,
    pub(super) origin: Origin,
    /// Microseconds per bucket, or why the target cannot run it.
    pub(super) micros: std::result::Result<Vec<f64>, String>,
}

/// How a region is computed, and what else was considered.
#[derive(Clone, Debug, Default)]
pub(super) struct Recipe {
    pub(super) derived: Vec<DerivedData>,
    pub(super) steps: Vec<Step>,
    /// Where each value that leaves the region comes from.
    pub(super) outputs: BTreeMap<Value, Ref>,
    pub(super) declined: BTreeSet<Declined>,
    /// Forms that exist but lost: the ops each computes together, its rules, and its cost or
    /// why the target cannot run it.
    pub(super) lost: Vec<(Origin, std::result::Result<Vec<f64>, String>)>,
    /// Cost of the choice and the bound below which none can be; equal if the search was complete.
    pub(super) micros: f64,
    pub(super) bound: f64,
    /// Whether a limit ended saturation or extraction.
    pub(super) cut: bool,
    /// What the search did.
    pub(super) search: Stats,
}

/// Solves a region.
///
/// # Errors
/// When a rule is unsound, or an output of the region has no form; both are defects.
pub(super) fn solve(
    region: &Region,
    rules: &[&'static Rule],
    costs: &mut Costs<'_>,
    limits: Limits,
) -> Result<Recipe> {
    let (space, outcome) = saturate(region, rules, limits)?;
    let choice = extract(&space, costs, limits.steps);
    let cut = outcome.cut || choice.cut;
    let mut w = Writer {
        space: &space,
        costs,
        choice: &choice,
        recipe: Recipe {
            declined: outcome.declined,
            micros: choice.micros,
            bound: choice.bound,
            search: Stats::of(&space.graph, outcome.rounds, cut),
            cut,
            ..Recipe::default()
        },
        placed: BTreeMap::new(),
    };
    for v in space.outputs() {
        let at = w.value(space.class(v))?;
        w.recipe.outputs.insert(v, at);
    }
    w.lost();
    Ok(w.recipe)
}

fn defect(message: &str) -> Diagnostic {
    Diagnostic::error(921, Class::Internal, format!("fusion: {message}"))
}

struct Writer<'a, 'r, 'c> {
    space: &'a Space<'r>,
    costs: &'a mut Costs<'c>,
    choice: &'a Choice,
    recipe: Recipe,
    /// The step of each op class.
    placed: BTreeMap<Id, u32>,
}

impl Writer<'_, '_, '_> {
    fn node(&self, class: Id) -> Result<(Id, Node)> {
        let class = self.space.graph.find(class);
        match self.choice.nodes.get(&class) {
            Some(n) => Ok((class, n.clone())),
            None => Err(defect("no form was chosen for a value that is needed")),
        }
    }

    fn value(&mut self, class: Id) -> Result<Ref> {
        let (class, node) = self.node(class)?;
        Ok(match node {
            Node::Leaf(l) => Ref::Leaf(l),
            Node::Derived(k) => self.derived(k),
            Node::Proj(i, [tuple]) => {
                let (tuple, node) = self.node(tuple)?;
                Ref::Step(self.step(tuple, &node)?, i)
            }
            Node::Op(..) => Ref::Step(self.step(class, &node)?, 0),
        })
    }

    fn derived(&mut self, k: u32) -> Ref {
        let tables: &Tables = &self.space.graph.analysis;
        let data = tables.derived.get(k);
        let list = &mut self.recipe.derived;
        let at = list.iter().position(|d| d == data).unwrap_or_else(|| {
            list.push(data.clone());
            list.len() - 1
        });
        Ref::Derived(at as u32)
    }

    fn step(&mut self, class: Id, node: &Node) -> Result<u32> {
        if let Some(at) = self.placed.get(&class) {
            return Ok(*at);
        }
        let space = self.space;
        let (data, classes) = space
            .op(node)
            .ok_or_else(|| defect("a tuple was chosen that is no op"))?;
        let operands: Vec<Ref> = classes
            .iter()
            .map(|c| self.value(*c))
            .collect::<Result<_>>()?;
        let (kind, results) = (data.kind.clone(), data.results.clone());
        let types: Vec<&TensorType> = classes.iter().map(|c| space.ty(*c)).collect();
        let values = self.space.results(class, node).into_iter();
        self.recipe.steps.push(Step {
            micros: self.costs.op(&kind, &types, &results),
            values: values
                .map(|c| self.space.values(c).first().copied())
                .collect(),
            origin: self.space.origin(node),
            kind,
            operands,
            results,
        });
        let at = self.recipe.steps.len() as u32 - 1;
        self.placed.insert(class, at);
        Ok(at)
    }

    /// Lists the forms of more than one op that were not chosen.
    fn lost(&mut self) {
        let chosen: BTreeSet<Id> = self.placed.keys().copied().collect();
        for (class, node) in self.space.op_nodes() {
            let origin = self.space.origin(node);
            let taken = chosen.contains(&class) && self.choice.nodes.get(&class) == Some(node);
            if taken || origin.rules.is_empty() {
                continue;
            }
            let Some((data, operands)) = self.space.op(node) else {
                continue;
            };
            let types: Vec<&TensorType> = operands.iter().map(|c| self.space.ty(*c)).collect();
            let micros = self.costs.op(&data.kind, &types, &data.results);
            self.recipe.lost.push((origin, micros));
        }
    }
}
