//! A lower bound on what is still to be paid: landmark cuts.
//!
//! A *landmark* is a set of e-nodes of which every choice contains at least one, so the cheapest
//! of them must be paid. Landmarks are found one after the other; each one's least cost is taken
//! off all of its nodes before the next, so that nothing is counted twice, and the bound is the
//! sum. To find one, let
//!
//! ```text
//! h(c) = min over nodes n of c: cost(n) + max over operands d: h(d)
//! ```
//!
//! and let each node depend only on its most expensive operand. In that graph, the nodes that
//! enter the set of classes from which the outputs are reached at no cost are a landmark.
//! (Helmert and Domshlak, "Landmarks, Critical Paths and Abstractions", ICAPS 2009: extraction
//! of a DAG is planning without delete lists.)

/// An e-node: what it gives and what it needs.
#[derive(Clone, Debug)]
pub(super) struct Action {
    pub(super) class: usize,
    pub(super) operands: Vec<usize>,
}

/// Costs below this are rounding errors of subtraction.
const NOTHING: f64 = 1e-12;

/// A lower bound on the cost of deriving all of `goals` by `actions`; infinite if they cannot be.
/// `costs` are those of the actions, an infinite one forbids its action; it is used up.
pub(super) fn landmark_cuts(
    classes: usize,
    actions: &[Action],
    costs: &mut [f64],
    goals: &[usize],
) -> f64 {
    let mut total = 0.0;
    loop {
        let h = depths(classes, actions, costs);
        let worst = |list: &[usize]| {
            let by = |a: &&usize, b: &&usize| h[**a].total_cmp(&h[**b]).then(b.cmp(a));
            list.iter().max_by(by).copied()
        };
        let Some(goal) = worst(goals) else {
            return total;
        };
        if h[goal].is_infinite() {
            return f64::INFINITY;
        }
        if h[goal] <= NOTHING {
            return total;
        }
        let needs: Vec<Option<usize>> = actions.iter().map(|a| worst(&a.operands)).collect();
        let cut = cut(classes, actions, costs, &needs, goal);
        let least = cut.iter().map(|a| costs[*a]).fold(f64::INFINITY, f64::min);
        if !least.is_finite() {
            return total;
        }
        total += least;
        for a in cut {
            costs[a] = (costs[a] - least).max(0.0);
        }
    }
}

/// `h` of every class.
fn depths(classes: usize, actions: &[Action], costs: &[f64]) -> Vec<f64> {
    let mut h = vec![f64::INFINITY; classes];
    loop {
        let mut changed = false;
        for (a, cost) in actions.iter().zip(costs) {
            let deepest = a.operands.iter().map(|d| h[*d]).fold(0.0, f64::max);
            if cost + deepest < h[a.class] - NOTHING {
                h[a.class] = cost + deepest;
                changed = true;
            }
        }
        if !changed {
            return h;
        }
    }
}

/// The actions that lead from what is reached without them into the zone around the goal.
fn cut(
    classes: usize,
    actions: &[Action],
    costs: &[f64],
    needs: &[Option<usize>],
    goal: usize,
) -> Vec<usize> {
    let mut zone = vec![false; classes];
    zone[goal] = true;
    let mut grown = true;
    while grown {
        grown = false;
        for (i, a) in actions.iter().enumerate() {
            if let Some(d) = needs[i]
                && zone[a.class]
                && costs[i] <= NOTHING
                && !zone[d]
            {
                zone[d] = true;
                grown = true;
            }
        }
    }
    let mut reached = vec![false; classes];
    let from =
        |i: usize, reached: &[bool]| costs[i].is_finite() && needs[i].is_none_or(|d| reached[d]);
    grown = true;
    while grown {
        grown = false;
        for (i, a) in actions.iter().enumerate() {
            if !zone[a.class] && !reached[a.class] && from(i, &reached) {
                reached[a.class] = true;
                grown = true;
            }
        }
    }
    let enters = |i: &usize| zone[actions[*i].class] && from(*i, &reached);
    (0..actions.len()).filter(enters).collect()
}
