//! Extraction: the cheapest set of ops that gives a region's outputs.
//!
//! Choose one e-node for every class that is needed, so that no class needs itself:
//!
//! ```text
//! minimise Σ cost(op)  over the distinct chosen ops        a shared op is paid once
//! ```
//!
//! It is solved exactly by branch and bound. Classes are decided from the outputs towards the
//! leaves, in an order of the ops that they stand for; the [bound](super::bound) says what is
//! still to be paid at least. What is left to decide depends on the needed undecided classes
//! alone, and on decided ones only where an operand comes later in the order than what reads it
//! (a *late* operand, of a kernel with several results); so a state that was reached at no
//! higher cost before is not searched again. When the number of steps reaches the limit, the
//! best choice so far stands and its gap to the bound is told.
//!
//! An op that the target cannot run is never chosen unless nothing else gives the value; equal
//! times are decided by the number of expression steps, then by the order of e-nodes.

use super::bound::{Action, landmark_cuts};
use super::cost::Costs;
use super::lang::Node;
use super::region::{Source, is_elementwise};
use super::space::Space;
use egg::{Id, Language};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Added per expression step, in microseconds: decides between equal times.
const STEP_MICROS: f64 = 1e-6;

/// Stands for the cost of an op without a kernel.
const IMPOSSIBLE_MICROS: f64 = 1e12;

/// Gains below this, in microseconds, are not searched for.
const TOLERANCE_MICROS: f64 = 1e-9;

/// The result of an extraction.
#[derive(Clone, Debug, Default)]
pub(super) struct Choice {
    /// The e-node chosen for each needed class.
    pub(super) nodes: BTreeMap<Id, Node>,
    /// Its cost in microseconds, tie-breaking parts included.
    pub(super) micros: f64,
    /// A lower bound on the cost of any choice.
    pub(super) bound: f64,
    /// Whether the step limit cut the search off: then the optimum lies between the two.
    pub(super) cut: bool,
}

struct Candidate<'s> {
    node: &'s Node,
    cost: f64,
    operands: Vec<usize>,
}

struct Problem<'s> {
    ids: Vec<Id>,
    candidates: Vec<Vec<Candidate<'s>>>,
    /// All candidates in one list, class by class.
    actions: Vec<Action>,
    rank: Vec<u32>,
    roots: Vec<usize>,
    /// Classes that are a late operand of some node.
    late: Vec<usize>,
}

/// Chooses among the forms of a space.
pub(super) fn extract(space: &Space<'_>, costs: &mut Costs<'_>, limit: usize) -> Choice {
    let p = Problem::new(space, costs);
    let undecided = vec![None; p.ids.len()];
    let best = p.greedy(&undecided);
    let mut s = Search {
        p: &p,
        best_cost: p.cost(&best),
        best,
        chosen: undecided,
        seen: HashMap::new(),
        steps: 0,
        limit,
    };
    let bound = p.bound(&s.chosen);
    let pending: BTreeSet<(u32, usize)> = p.roots.iter().map(|c| (p.rank[*c], *c)).collect();
    if bound < s.best_cost - TOLERANCE_MICROS {
        s.run(pending, 0.0);
    }
    let cut = s.steps >= limit;
    Choice {
        nodes: p.reachable(&s.best),
        micros: s.best_cost,
        bound: if cut {
            bound.min(s.best_cost)
        } else {
            s.best_cost
        },
        cut,
    }
}

/// The cost of an e-node, what it adds to break ties included.
pub(super) fn node_cost(space: &Space<'_>, costs: &mut Costs<'_>, node: &Node) -> f64 {
    let Some((data, operands)) = space.op(node) else {
        return 0.0;
    };
    let types: Vec<_> = operands.iter().map(|o| space.ty(*o)).collect();
    let micros = match costs.op(&data.kind, &types, &data.results) {
        Ok(m) => costs.mean(&m),
        Err(_) => IMPOSSIBLE_MICROS,
    };
    let steps = data.kind.expr().map_or(1, |e| e.nodes.len());
    micros + STEP_MICROS * steps as f64
}

impl<'s> Problem<'s> {
    fn new(space: &'s Space<'_>, costs: &mut Costs<'_>) -> Self {
        let mut ids: Vec<Id> = space.graph.classes().map(|c| c.id).collect();
        ids.sort_unstable();
        let at = |id: Id| {
            // INVARIANT: every operand of an e-node is in a class, and all are listed.
            ids.binary_search(&space.graph.find(id)).unwrap_or(0)
        };
        let candidates: Vec<Vec<Candidate<'s>>> = ids
            .iter()
            .map(|id| {
                let list = space.graph[*id].nodes.iter().map(|node| Candidate {
                    node,
                    cost: node_cost(space, costs, node),
                    operands: distinct(node.children().iter().map(|c| at(*c))),
                });
                undominated(list.collect())
            })
            .collect();
        let outputs = space.outputs();
        let roots = distinct(outputs.iter().map(|v| at(space.class(*v))));
        let rank = ranks(space, &ids, &at);
        let is_late = |d: &usize| {
            let reads = |c: usize| {
                rank[*d] >= rank[c] && candidates[c].iter().any(|n| n.operands.contains(d))
            };
            (0..ids.len()).any(reads)
        };
        let late = (0..ids.len()).filter(is_late).collect();
        let all = candidates.iter().enumerate();
        let action = |c: usize, n: &Candidate<'_>| Action {
            class: c,
            operands: n.operands.clone(),
        };
        let actions = all
            .flat_map(|(c, list)| list.iter().map(move |n| action(c, n)))
            .collect();
        Problem {
            late,
            ids,
            candidates,
            actions,
            rank,
            roots,
        }
    }

    /// The costs of all candidates after some decisions: what is decided is paid for, and
    /// excludes the others of its class.
    fn costs_left(&self, chosen: &[Option<usize>]) -> Vec<f64> {
        let left = |(c, list): (usize, &Vec<Candidate<'_>>)| -> Vec<f64> {
            let cost = |(i, n): (usize, &Candidate<'_>)| match chosen[c] {
                None => n.cost,
                Some(j) if i == j => 0.0,
                Some(_) => f64::INFINITY,
            };
            list.iter().enumerate().map(cost).collect()
        };
        self.candidates.iter().enumerate().flat_map(left).collect()
    }

    /// What is still to be paid at least; infinite where the decisions need themselves.
    fn bound(&self, chosen: &[Option<usize>]) -> f64 {
        let mut costs = self.costs_left(chosen);
        landmark_cuts(self.ids.len(), &self.actions, &mut costs, &self.roots)
    }

    /// The best completion of some decisions if nothing were shared.
    fn greedy(&self, chosen: &[Option<usize>]) -> Vec<Option<usize>> {
        let n = self.ids.len();
        let left = self.costs_left(chosen);
        let mut cost = vec![f64::INFINITY; n];
        let mut best = vec![None; n];
        // Costs only fall, and a round without a change is the last.
        let mut changed = true;
        while std::mem::take(&mut changed) {
            let mut at = 0;
            for c in 0..n {
                for (i, cand) in self.candidates[c].iter().enumerate() {
                    let operands = cand.operands.iter().map(|d| cost[*d]).sum::<f64>();
                    let total = left[at] + operands;
                    if total < cost[c] - TOLERANCE_MICROS {
                        (cost[c], best[c], changed) = (total, Some(i), true);
                    }
                    at += 1;
                }
            }
        }
        best
    }

    fn reachable(&self, chosen: &[Option<usize>]) -> BTreeMap<Id, Node> {
        let mut out = BTreeMap::new();
        let mut stack = self.roots.clone();
        while let Some(c) = stack.pop() {
            let Some(i) = chosen[c] else { continue };
            let cand = &self.candidates[c][i];
            if out.insert(self.ids[c], cand.node.clone()).is_none() {
                stack.extend(&cand.operands);
            }
        }
        out
    }

    fn cost(&self, chosen: &[Option<usize>]) -> f64 {
        let needed = self.reachable(chosen);
        let of = |c: usize| chosen[c].map_or(0.0, |i| self.candidates[c][i].cost);
        (0..self.ids.len())
            .filter(|c| needed.contains_key(&self.ids[*c]))
            .map(of)
            .sum()
    }
}

fn distinct(list: impl Iterator<Item = usize>) -> Vec<usize> {
    list.collect::<BTreeSet<_>>().into_iter().collect()
}

/// Drops a node when another of its class costs no more and needs no other classes.
fn undominated(list: Vec<Candidate<'_>>) -> Vec<Candidate<'_>> {
    let beaten = |i: usize| {
        list.iter().enumerate().any(|(j, other)| {
            let a = &list[i];
            let subset = other.operands.iter().all(|d| a.operands.contains(d));
            let equal = other.cost == a.cost && other.operands.len() == a.operands.len();
            i != j && subset && other.cost <= a.cost && (!equal || j < i)
        })
    };
    let keep: Vec<bool> = (0..list.len()).map(|i| !beaten(i)).collect();
    let mut keep = keep.into_iter();
    list.into_iter()
        .filter(|_| keep.next() == Some(true))
        .collect()
}

/// Positions in the order of decision: `2·at + 1` for a value of the op at this place of the
/// order, just below it for a tuple that gives the value, 0 for what is there already.
fn ranks(space: &Space<'_>, ids: &[Id], at: &dyn Fn(Id) -> usize) -> Vec<u32> {
    let place = places(space);
    let mut rank = vec![0; ids.len()];
    let mut tuple: Vec<Option<u32>> = vec![None; ids.len()];
    for (c, id) in ids.iter().enumerate() {
        let Some(first) = space.values(*id).iter().map(|v| place[v.0 as usize]).min() else {
            continue;
        };
        rank[c] = 2 * first + 1;
        for n in &space.graph[*id].nodes {
            if let Node::Proj(_, [t]) = n {
                let r = &mut tuple[at(*t)];
                *r = Some(r.map_or(2 * first, |r| r.min(2 * first)));
            }
        }
    }
    for (r, t) in rank.iter_mut().zip(tuple) {
        *r = t.unwrap_or(*r);
    }
    rank
}

/// A topological order of the region's ops, kernels that may take others in as late as possible:
/// then what those others read comes before.
fn places(space: &Space<'_>) -> Vec<u32> {
    let ops = &space.region.ops;
    let mut place: Vec<Option<u32>> = vec![None; ops.len()];
    for next in 0..ops.len() as u32 {
        let ready = |i: &usize| {
            let known = |s: &Source| match s {
                Source::Leaf(_) => true,
                Source::Op(o, _) => place[*o as usize].is_some(),
            };
            place[*i].is_none() && ops[*i].operands.iter().all(known)
        };
        let order = |i: &usize| (!is_elementwise(&ops[*i].kind), *i);
        if let Some(i) = (0..ops.len()).filter(ready).min_by_key(order) {
            place[i] = Some(next);
        }
    }
    place.into_iter().map(|p| p.unwrap_or(0)).collect()
}

struct Search<'p, 's> {
    p: &'p Problem<'s>,
    chosen: Vec<Option<usize>>,
    best: Vec<Option<usize>>,
    best_cost: f64,
    /// The least cost at which each state was reached.
    seen: HashMap<State, f64>,
    steps: usize,
    limit: usize,
}

/// What the rest of a search depends on: the pending classes, and for each decided class that may
/// be needed again the pending classes that it needs itself.
type State = (Vec<usize>, Vec<(usize, Vec<usize>)>);

impl Search<'_, '_> {
    /// Decides the pending class of the highest rank.
    fn run(&mut self, mut pending: BTreeSet<(u32, usize)>, paid: f64) {
        let known = self
            .seen
            .entry(self.state(&pending))
            .or_insert(f64::INFINITY);
        if *known <= paid {
            return;
        }
        *known = paid;
        let Some((_, c)) = pending.pop_last() else {
            return;
        };
        let mut order: Vec<(f64, usize)> = Vec::new();
        for i in 0..self.p.candidates[c].len() {
            self.chosen[c] = Some(i);
            let bound = self.look(paid + self.p.candidates[c][i].cost);
            order.push((bound, i));
        }
        self.chosen[c] = None;
        order.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        for (bound, i) in order {
            if bound >= self.best_cost - TOLERANCE_MICROS || self.steps >= self.limit {
                break;
            }
            self.chosen[c] = Some(i);
            let cand = &self.p.candidates[c][i];
            let mut next = pending.clone();
            for d in cand.operands.iter().filter(|d| self.chosen[**d].is_none()) {
                next.insert((self.p.rank[*d], *d));
            }
            self.run(next, paid + cand.cost);
            self.chosen[c] = None;
        }
    }

    /// The bound on any completion of the decisions; a good completion becomes the best.
    fn look(&mut self, paid: f64) -> f64 {
        self.steps += 1;
        let bound = paid + self.p.bound(&self.chosen);
        if bound < self.best_cost - TOLERANCE_MICROS {
            let full = self.p.greedy(&self.chosen);
            let cost = self.p.cost(&full);
            if cost < self.best_cost - TOLERANCE_MICROS {
                (self.best, self.best_cost) = (full, cost);
            }
        }
        bound
    }

    fn state(&self, pending: &BTreeSet<(u32, usize)>) -> State {
        let open: Vec<usize> = pending.iter().map(|(_, c)| *c).collect();
        let decided = self.p.late.iter().filter(|d| self.chosen[**d].is_some());
        let needs = |d: &usize| {
            let reached = self.reached(*d);
            let open = open.iter().filter(|c| reached.contains(c));
            (*d, open.copied().collect())
        };
        let late = decided.map(needs).collect();
        (open, late)
    }

    /// What a class needs by the decisions so far, itself included.
    fn reached(&self, d: usize) -> BTreeSet<usize> {
        let mut seen = BTreeSet::new();
        let mut stack = vec![d];
        while let Some(x) = stack.pop() {
            if let (true, Some(i)) = (seen.insert(x), self.chosen[x]) {
                stack.extend(&self.p.candidates[x][i].operands);
            }
        }
        seen
    }
}
