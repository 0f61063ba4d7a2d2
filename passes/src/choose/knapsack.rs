//! One point of each front, the cheapest whose weights keep within a budget.
//!
//! ```text
//! minimise Σ cost    subject to    Σ weight ≤ B        (multiple-choice knapsack)
//! L(λ) = Σ min (cost + λ·weight) − λ·B  ≤  optimum     for every λ ≥ 0
//! ```
//!
//! The multiplier λ* is the least slope of the fronts' lower hulls at which the minimisers keep
//! within the budget. Then fronts are joined one after another, and of the partial sums only those
//! are kept that no other beats, that can still keep within the budget, and whose bound by λ* is
//! below the best solution known. Where that leaves more than a limit, those with the lowest
//! bounds stay and the gap to `L(λ*)` is told. (Pisinger, "A minimal algorithm for the
//! multiple-choice knapsack problem", 1995.)

use super::front::{Point, undominated};

/// Partial sums that are kept at most.
const MOST_SUMS: usize = 5_000;

/// What was found.
#[derive(Clone, Debug)]
pub(super) struct Solution {
    /// Cost, weight and picks.
    pub(super) point: Point,
    /// No solution costs less.
    pub(super) bound: f64,
    /// Whether the budget is kept. If none does, the solution is that of the least weight.
    pub(super) feasible: bool,
}

/// The best choice of one point from each front; `None` where a front is empty.
pub(super) fn solve(fronts: &[Vec<Point>], budget: f64) -> Option<Solution> {
    let lightest: Option<Vec<&Point>> = fronts.iter().map(|f| f.last()).collect();
    let least = sum(&lightest?);
    if least.weight > budget {
        return Some(Solution {
            bound: least.cost,
            point: least,
            feasible: false,
        });
    }
    let lambda = multiplier(fronts, budget);
    let least = minimisers(fronts, lambda);
    let at = sum(&least);
    let relaxed = at.cost + lambda * (at.weight - budget);
    let best = sum(&filled(fronts, least, budget));
    let (best, complete) = search(fronts, budget, lambda, best);
    Some(Solution {
        bound: if complete { best.cost } else { relaxed },
        point: best,
        feasible: true,
    })
}

fn sum(points: &[&Point]) -> Point {
    let zero = Point::new(0.0, 0.0);
    points.iter().fold(zero, |sum, p| sum.join(p))
}

fn at(p: &Point, lambda: f64) -> f64 {
    p.cost + lambda * p.weight
}

/// For each front its point of least `cost + λ·weight`, the lightest of equals.
fn minimisers(fronts: &[Vec<Point>], lambda: f64) -> Vec<&Point> {
    let by = |a: &&Point, b: &&Point| {
        let value = at(a, lambda).total_cmp(&at(b, lambda));
        value.then(a.weight.total_cmp(&b.weight))
    };
    // No front is empty: `solve` has seen to that.
    fronts.iter().filter_map(|f| f.iter().min_by(by)).collect()
}

/// Spends what is left of the budget: again and again the front that gains most by a heavier point.
fn filled<'f>(fronts: &'f [Vec<Point>], mut picked: Vec<&'f Point>, budget: f64) -> Vec<&'f Point> {
    loop {
        let left = budget - sum(&picked).weight;
        let mut best: Option<(f64, usize, &Point)> = None;
        for (i, (f, now)) in fronts.iter().zip(&picked).enumerate() {
            for q in f.iter().filter(|q| q.weight - now.weight <= left) {
                let gain = now.cost - q.cost;
                if gain > best.map_or(0.0, |(most, ..)| most) {
                    best = Some((gain, i, q));
                }
            }
        }
        let Some((_, i, q)) = best else { break };
        let before = std::mem::replace(&mut picked[i], q);
        // Rounding may tell the sum from what was left.
        if sum(&picked).weight > budget {
            picked[i] = before;
            break;
        }
    }
    picked
}

/// The least slope of a hull at which the minimisers keep within the budget.
fn multiplier(fronts: &[Vec<Point>], budget: f64) -> f64 {
    let mut slopes = vec![0.0];
    for f in fronts {
        for (i, p) in f.iter().enumerate() {
            // A hull's slopes are among the steepest towards each later point.
            let slope = |q: &Point| (q.cost - p.cost) / (p.weight - q.weight);
            slopes.extend(f[i + 1..].iter().map(slope).min_by(f64::total_cmp));
        }
    }
    slopes.sort_by(f64::total_cmp);
    slopes.dedup();
    // At a slope its two ends are equal and the lighter one counts; rounding may tell them apart.
    let fits = |l: &f64| sum(&minimisers(fronts, l * (1.0 + 1e-12))).weight <= budget;
    let first = slopes.partition_point(|l| !fits(l));
    let steepest = slopes.last().copied().unwrap_or(0.0);
    slopes.get(first).copied().unwrap_or(steepest * 2.0 + 1.0) * (1.0 + 1e-12)
}

/// Joins the fronts; gives the best solution and whether none was left out.
fn search(fronts: &[Vec<Point>], budget: f64, lambda: f64, mut best: Point) -> (Point, bool) {
    // What the fronts from each position on weigh and come to at least.
    let mut rest = vec![(0.0, 0.0)];
    for (f, least) in fronts.iter().zip(minimisers(fronts, lambda)).rev() {
        let (weight, value) = rest[rest.len() - 1];
        let lightest = f.last().map_or(0.0, |p| p.weight);
        rest.push((weight + lightest, value + at(least, lambda)));
    }
    let mut sums = vec![Point::new(0.0, 0.0)];
    let mut complete = true;
    for (i, f) in fronts.iter().enumerate() {
        let (weight, value) = rest[fronts.len() - 1 - i];
        let bound = |p: &Point| at(p, lambda) + value - lambda * budget;
        // Most pairs are ruled out by their numbers alone.
        let alive = |(a, b): &(&Point, &Point)| {
            let pair = Point::new(a.cost + b.cost, a.weight + b.weight);
            pair.weight + weight <= budget && bound(&pair) < best.cost
        };
        let pairs = sums.iter().flat_map(|a| f.iter().map(move |b| (a, b)));
        let pairs = pairs.filter(alive).map(|(a, b)| a.join(b));
        sums = undominated(pairs.collect());
        if sums.len() > MOST_SUMS {
            complete = false;
            sums.sort_by(|a, b| bound(a).total_cmp(&bound(b)));
            sums.truncate(MOST_SUMS);
        }
    }
    for p in sums {
        if p.weight <= budget && p.cost < best.cost {
            best = p;
        }
    }
    (best, complete)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random_fronts(count: usize, mut state: u64) -> Vec<Vec<Point>> {
        let mut next = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            1.0 + (state % 997) as f64
        };
        let point = |v: usize, i: usize, c, w| Point::new(c, w).picking(v, i);
        (0..count)
            .map(|v| undominated((0..6).map(|i| point(v, i, next(), next())).collect()))
            .collect()
    }

    fn exhaustive(fronts: &[Vec<Point>], budget: f64, sum: Point) -> f64 {
        match fronts.split_first() {
            None if sum.weight <= budget => sum.cost,
            None => f64::INFINITY,
            Some((f, rest)) => {
                let tried = f.iter().map(|p| exhaustive(rest, budget, sum.join(p)));
                tried.fold(f64::INFINITY, f64::min)
            }
        }
    }

    #[test]
    fn the_solution_is_the_best_of_all() {
        for seed in 1..40 {
            let fronts = random_fronts(6, seed);
            for budget in [100.0, 600.0, 1200.0, 2500.0, 1e9] {
                let best = exhaustive(&fronts, budget, Point::new(0.0, 0.0));
                let s = solve(&fronts, budget).unwrap();
                assert_eq!(s.feasible, best.is_finite(), "{seed} {budget}");
                if s.feasible {
                    assert_eq!(s.point.cost, best, "{seed} {budget}");
                    assert!(s.point.weight <= budget && s.bound == best);
                    assert!(s.point.values(6).iter().all(Option::is_some));
                }
            }
        }
    }

    #[test]
    fn the_multiplier_bounds_from_below() {
        for seed in 1..40 {
            let fronts = random_fronts(5, seed);
            let budget = 1500.0;
            let best = exhaustive(&fronts, budget, Point::new(0.0, 0.0));
            let lambda = multiplier(&fronts, budget);
            let relaxed = sum(&minimisers(&fronts, lambda));
            assert!(relaxed.cost + lambda * (relaxed.weight - budget) <= best + 1e-9);
        }
    }

    #[test]
    fn a_budget_that_nothing_keeps_gives_the_lightest() {
        let fronts = random_fronts(4, 3);
        let s = solve(&fronts, 0.5).unwrap();
        let least: f64 = fronts.iter().map(|f| f[f.len() - 1].weight).sum();
        assert!(!s.feasible && s.point.weight == least);
        assert!(solve(&[Vec::new()], 1.0).is_none());
    }

    #[test]
    fn many_fronts_are_joined_quickly_and_exactly() {
        // 240 parts, as an 80-layer model has: the bound leaves few sums.
        let fronts = random_fronts(240, 9);
        let s = solve(&fronts, 60_000.0).unwrap();
        assert!(s.feasible && s.bound == s.point.cost);
    }
}
