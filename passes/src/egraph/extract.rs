//! Extraction: the cheapest set of ops that gives a region's outputs.
//!
//! Choose one e-node for every class that is needed, so that no class needs itself:
//!
//! ```text
//! minimise Σ cost(op)  over the distinct chosen ops        a shared op is paid once
//! ```
//!
//! It is solved exactly by branch and bound. Classes are decided from the outputs towards the
//! leaves, in the order of the ops that they stand for. The bound on what is still to be paid
//! lets every class hand each of its `p(c)` possible readers an equal part of its least cost,
//!
//! ```text
//! least(c) = min over nodes n of c: cost(n) + Σ over operands d: least(d) / p(d)
//! still to pay ≥ Σ over classes c needed and undecided: least(c) / p(c)
//! ```
//!
//! so that no cost is counted twice. It is exact where nothing is shared. When the number of
//! steps reaches the limit, the best choice so far stands and its gap to the bound is told.
//!
//! An op that the target cannot run is never chosen unless nothing else gives the value; equal
//! times are decided by the number of expression steps, then by the order of e-nodes.

use super::cost::Costs;
use super::lang::Node;
use super::space::Space;
use egg::{Id, Language};
use std::collections::{BTreeMap, BTreeSet};

/// Added per expression step, in microseconds: decides between equal times.
const STEP_MICROS: f64 = 1e-6;

/// Stands for the cost of an op without a kernel.
const IMPOSSIBLE_MICROS: f64 = 1e12;

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
    rank: Vec<u32>,
    roots: Vec<usize>,
    /// `least(c) / p(c)`
    share: Vec<f64>,
}

/// Chooses among the forms of a space.
pub(super) fn extract(space: &Space<'_>, costs: &mut Costs<'_>, limit: usize) -> Choice {
    let p = Problem::new(space, costs);
    let mut s = Search {
        p: &p,
        chosen: vec![None; p.ids.len()],
        best: p.greedy(),
        best_cost: f64::INFINITY,
        steps: 0,
        limit,
    };
    s.best_cost = p.cost(&s.best);
    let pending: BTreeSet<(u32, usize)> = p.roots.iter().map(|c| (p.rank[*c], *c)).collect();
    s.run(pending, 0.0, u32::MAX);
    let cut = s.steps >= limit;
    let root_bound = p.distinct_roots().iter().map(|c| p.share[*c]).sum();
    Choice {
        nodes: p.reachable(&s.best),
        micros: s.best_cost,
        bound: if cut { root_bound } else { s.best_cost },
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
        Ok(m) => m.iter().sum(),
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
        let mut p = Problem {
            share: vec![0.0; ids.len()],
            ids,
            candidates,
            rank,
            roots,
        };
        p.shares();
        p
    }

    fn distinct_roots(&self) -> &[usize] {
        &self.roots
    }

    /// Fills `share`, from the lowest rank up.
    fn shares(&mut self) {
        let mut readers: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); self.ids.len()];
        for (c, list) in self.candidates.iter().enumerate() {
            for d in list.iter().flat_map(|n| &n.operands) {
                readers[*d].insert(c);
            }
        }
        let mut order: Vec<usize> = (0..self.ids.len()).collect();
        order.sort_by_key(|c| (self.rank[*c], *c));
        for c in order {
            let least = self.candidates[c]
                .iter()
                .map(|n| n.cost + self.parts(c, n).sum::<f64>())
                .fold(f64::INFINITY, f64::min);
            let p = readers[c].len() + usize::from(self.roots.contains(&c));
            self.share[c] = least / p.max(1) as f64;
        }
    }

    /// What the operands of a node hand it; those that are decided before it count nothing.
    fn parts<'a>(&'a self, c: usize, n: &'a Candidate<'s>) -> impl Iterator<Item = f64> + 'a {
        let lower = move |d: &&usize| self.rank[**d] < self.rank[c];
        n.operands.iter().filter(lower).map(|d| self.share[*d])
    }

    /// The best choice if nothing were shared: a first solution.
    fn greedy(&self) -> Vec<Option<usize>> {
        let n = self.ids.len();
        let mut cost = vec![f64::INFINITY; n];
        let mut best = vec![None; n];
        // Costs only fall, and a round without a change is the last.
        for _ in 0..=n {
            let mut changed = false;
            for c in 0..n {
                for (i, cand) in self.candidates[c].iter().enumerate() {
                    let total: f64 = cand.cost + cand.operands.iter().map(|d| cost[*d]).sum::<f64>();
                    if total < cost[c] {
                        (cost[c], best[c], changed) = (total, Some(i), true);
                    }
                }
            }
            if !changed {
                break;
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
    list.into_iter().filter(|_| keep.next() == Some(true)).collect()
}

/// Positions in the order of decision: `2·op + 1` for a value of `op`, just below it for a tuple
/// that gives the value, 0 for what is there already.
fn ranks(space: &Space<'_>, ids: &[Id], at: &dyn Fn(Id) -> usize) -> Vec<u32> {
    let mut rank = vec![0; ids.len()];
    let mut tuple: Vec<Option<u32>> = vec![None; ids.len()];
    for (c, id) in ids.iter().enumerate() {
        let Some(first) = space.values(*id).iter().map(|v| v.0).min() else {
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

struct Search<'p, 's> {
    p: &'p Problem<'s>,
    chosen: Vec<Option<usize>>,
    best: Vec<Option<usize>>,
    best_cost: f64,
    steps: usize,
    limit: usize,
}

impl Search<'_, '_> {
    /// Decides the undecided class of the highest rank. `frontier` is the lowest rank decided so
    /// far: below it, nothing is decided, so the parts of what is pending there are owed in full.
    fn run(&mut self, mut pending: BTreeSet<(u32, usize)>, paid: f64, frontier: u32) {
        if self.steps >= self.limit {
            return;
        }
        self.steps += 1;
        let Some((rank, c)) = pending.pop_last() else {
            if paid < self.best_cost {
                self.best_cost = paid;
                self.best = self.chosen.clone();
            }
            return;
        };
        let frontier = frontier.min(rank);
        let mut order: Vec<(f64, usize)> = Vec::new();
        for (i, cand) in self.p.candidates[c].iter().enumerate() {
            let parts: f64 = self.p.parts(c, cand).sum();
            order.push((cand.cost + parts, i));
        }
        order.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        for (_, i) in order {
            let cand = &self.p.candidates[c][i];
            if cand.operands.iter().any(|d| self.needs(*d, c)) {
                continue;
            }
            let mut next = pending.clone();
            for d in &cand.operands {
                if self.chosen[*d].is_none() {
                    next.insert((self.p.rank[*d], *d));
                }
            }
            let paid = paid + cand.cost;
            let owed: f64 = next
                .iter()
                .take_while(|(r, _)| *r < frontier)
                .map(|(_, d)| self.p.share[*d])
                .sum();
            if paid + owed >= self.best_cost {
                continue;
            }
            self.chosen[c] = Some(i);
            self.run(next, paid, frontier);
            self.chosen[c] = None;
        }
    }

    /// Whether deciding for an operand `d` of `c` would make `c` need itself.
    fn needs(&self, d: usize, c: usize) -> bool {
        let mut seen = BTreeSet::new();
        let mut stack = vec![d];
        while let Some(x) = stack.pop() {
            if x == c {
                return true;
            }
            if let (true, Some(i)) = (seen.insert(x), self.chosen[x]) {
                stack.extend(&self.p.candidates[x][i].operands);
            }
        }
        false
    }
}
