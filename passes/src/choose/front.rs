//! Pareto fronts over assignments of variables, by elimination of one variable after another.
//!
//! Costs and weights are sums of tables, each over a few variables (its *scope*):
//!
//! ```text
//! cost(a) = Σ_t cost_t(a restricted to scope t)        weight(a) = Σ_t weight_t(…)
//! ```
//!
//! A variable is eliminated by joining the tables that hold it into one over their other
//! variables, whose entries are fronts: the (cost, weight) pairs that no other choice of the
//! variable beats in both. A dominated pair stays dominated whatever is added to it, so every
//! point of the front of the whole survives. The work grows with the widest joint scope, not
//! with the number of variables. (Dechter, "Bucket elimination", 1999; with sets of Pareto-optimal
//! pairs as in Rollón and Larrosa, 2006.)

use std::collections::BTreeMap;
use std::rc::Rc;

/// Points that a front keeps at most; a longer one is thinned out evenly.
const MOST_POINTS: usize = 2_000;

/// An assignment by what it costs and weighs.
#[derive(Clone, Debug)]
pub(super) struct Point {
    pub(super) cost: f64,
    pub(super) weight: f64,
    picks: Option<Rc<Picks>>,
}

#[derive(Debug)]
enum Picks {
    One(usize, usize),
    Both(Rc<Picks>, Rc<Picks>),
}

impl Point {
    /// A cost and a weight that no variable has a part in.
    pub(super) fn new(cost: f64, weight: f64) -> Point {
        let picks = None;
        Point {
            cost,
            weight,
            picks,
        }
    }

    /// The same where a variable takes a value.
    #[must_use]
    pub(super) fn picking(mut self, variable: usize, value: usize) -> Point {
        let one = Rc::new(Picks::One(variable, value));
        self.picks = both(self.picks.take(), Some(one));
        self
    }

    /// Both together.
    pub(super) fn join(&self, other: &Point) -> Point {
        Point {
            cost: self.cost + other.cost,
            weight: self.weight + other.weight,
            picks: both(self.picks.clone(), other.picks.clone()),
        }
    }

    /// The value of each variable that has one.
    pub(super) fn values(&self, variables: usize) -> Vec<Option<usize>> {
        let mut out = vec![None; variables];
        let mut stack: Vec<&Picks> = self.picks.as_deref().into_iter().collect();
        while let Some(p) = stack.pop() {
            match p {
                Picks::One(variable, value) => out[*variable] = Some(*value),
                Picks::Both(a, b) => stack.extend([a.as_ref(), b.as_ref()]),
            }
        }
        out
    }
}

fn both(a: Option<Rc<Picks>>, b: Option<Rc<Picks>>) -> Option<Rc<Picks>> {
    match (a, b) {
        (Some(a), Some(b)) => Some(Rc::new(Picks::Both(a, b))),
        (a, b) => a.or(b),
    }
}

/// The points that none of the others beats, by rising cost and falling weight.
pub(super) fn undominated(mut points: Vec<Point>) -> Vec<Point> {
    points.sort_by(|a, b| {
        let by_cost = a.cost.total_cmp(&b.cost);
        by_cost.then(a.weight.total_cmp(&b.weight))
    });
    let mut least = f64::INFINITY;
    points.retain(|p| {
        let keep = p.weight < least;
        least = least.min(p.weight);
        keep
    });
    points
}

/// As [`undominated`], thinned out to a number of points.
fn pareto(points: Vec<Point>) -> Vec<Point> {
    let points = undominated(points);
    if points.len() <= MOST_POINTS {
        return points;
    }
    let last = points.len() - 1;
    let at = |i: usize| points[i * last / (MOST_POINTS - 1)].clone();
    (0..MOST_POINTS).map(at).collect()
}

/// A table over some variables: a front for each of their assignments, the last variable fastest.
#[derive(Clone, Debug)]
pub(super) struct Table {
    pub(super) scope: Vec<usize>,
    pub(super) fronts: Vec<Vec<Point>>,
}

impl Table {
    fn front(&self, sizes: &[usize], values: &[usize]) -> &[Point] {
        let at = self
            .scope
            .iter()
            .fold(0, |at, v| at * sizes[*v] + values[*v]);
        &self.fronts[at]
    }
}

/// Calls `f` with every assignment of a scope, the last variable fastest. Other variables keep
/// their values.
pub(super) fn assignments(
    scope: &[usize],
    sizes: &[usize],
    values: &mut [usize],
    f: &mut dyn FnMut(&mut [usize]),
) {
    match scope.split_first() {
        None => f(values),
        Some((v, rest)) => {
            for value in 0..sizes[*v] {
                values[*v] = value;
                assignments(rest, sizes, values, f);
            }
        }
    }
}

/// The front of each set of variables that tables connect; `sizes` are those of the domains.
///
/// An empty front says that no assignment is possible.
pub(super) fn fronts(sizes: &[usize], tables: Vec<Table>) -> Vec<Vec<Point>> {
    let (constant, tables): (Vec<Table>, Vec<Table>) =
        tables.into_iter().partition(|t| t.scope.is_empty());
    let mut done: Vec<Vec<Point>> = constant.into_iter().flat_map(|t| t.fronts).collect();
    for (variables, tables) in connected(sizes.len(), tables) {
        done.extend(component(variables, sizes, tables));
    }
    done
}

/// Variables that tables connect, with those tables; by the least variable of each.
fn connected(variables: usize, tables: Vec<Table>) -> Vec<(Vec<usize>, Vec<Table>)> {
    let mut least: Vec<usize> = (0..variables).collect();
    fn root(least: &[usize], mut v: usize) -> usize {
        while least[v] != v {
            v = least[v];
        }
        v
    }
    for t in &tables {
        for v in &t.scope[1..] {
            let (a, b) = (root(&least, t.scope[0]), root(&least, *v));
            least[a.max(b)] = a.min(b);
        }
    }
    let mut out: BTreeMap<usize, (Vec<usize>, Vec<Table>)> = BTreeMap::new();
    for v in 0..variables {
        out.entry(root(&least, v)).or_default().0.push(v);
    }
    for t in tables {
        out.entry(root(&least, t.scope[0])).or_default().1.push(t);
    }
    out.into_values().collect()
}

/// The front of connected variables.
fn component(mut left: Vec<usize>, sizes: &[usize], mut tables: Vec<Table>) -> Vec<Vec<Point>> {
    let mut done = Vec::new();
    while let Some(at) = next(&left, sizes, &tables) {
        let v = left.remove(at);
        let (joined, rest) = tables.into_iter().partition(|t| t.scope.contains(&v));
        tables = rest;
        let table = eliminate(v, sizes, joined);
        match table.scope.is_empty() {
            true => done.extend(table.fronts),
            false => tables.push(table),
        }
    }
    done
}

/// The variable whose elimination makes the smallest table.
fn next(left: &[usize], sizes: &[usize], tables: &[Table]) -> Option<usize> {
    let work = |v: usize| -> f64 {
        let joined: Vec<&Table> = tables.iter().filter(|t| t.scope.contains(&v)).collect();
        union(&joined).iter().map(|v| sizes[*v] as f64).product()
    };
    let by = |a: &usize, b: &usize| work(left[*a]).total_cmp(&work(left[*b]));
    (0..left.len()).min_by(by)
}

fn union(tables: &[&Table]) -> Vec<usize> {
    let mut all: Vec<usize> = tables
        .iter()
        .flat_map(|t| t.scope.iter().copied())
        .collect();
    all.sort_unstable();
    all.dedup();
    all
}

fn eliminate(v: usize, sizes: &[usize], joined: Vec<Table>) -> Table {
    let mut scope = union(&joined.iter().collect::<Vec<_>>());
    scope.retain(|s| *s != v);
    let mut fronts = Vec::new();
    assignments(&scope, sizes, &mut vec![0; sizes.len()], &mut |values| {
        let mut all = Vec::new();
        for value in 0..sizes[v] {
            values[v] = value;
            let mut points = vec![Point::new(0.0, 0.0).picking(v, value)];
            for t in &joined {
                points = product(&points, t.front(sizes, values));
            }
            all.extend(points);
        }
        fronts.push(pareto(all));
    });
    Table { scope, fronts }
}

/// The front of all sums of a point of each.
fn product(a: &[Point], b: &[Point]) -> Vec<Point> {
    if let [only] = b {
        return a.iter().map(|p| p.join(only)).collect();
    }
    let pairs = a.iter().flat_map(|p| b.iter().map(|q| p.join(q)));
    pareto(pairs.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A small generator of numbers (xorshift).
    fn numbers(mut state: u64) -> impl FnMut() -> f64 {
        move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % 1000) as f64
        }
    }

    fn random_tables(sizes: &[usize], scopes: &[&[usize]], seed: u64) -> Vec<Table> {
        let mut next = numbers(seed);
        let table = |scope: &&[usize]| {
            let entries = scope.iter().map(|v| sizes[*v]).product();
            let point = |_| vec![Point::new(next(), next())];
            Table {
                scope: scope.to_vec(),
                fronts: (0..entries).map(point).collect(),
            }
        };
        scopes.iter().map(table).collect()
    }

    #[test]
    fn elimination_finds_the_front_of_all_assignments() {
        let sizes = [3, 2, 4, 3, 2];
        let scopes: [&[usize]; 7] = [&[0], &[0, 1], &[1, 2], &[0, 2], &[3], &[3, 4], &[]];
        for seed in 1..20 {
            let tables = random_tables(&sizes, &scopes, seed);
            let mut all = Vec::new();
            let every: Vec<usize> = (0..sizes.len()).collect();
            assignments(&every, &sizes, &mut [0; 5], &mut |values| {
                let parts = tables.iter().map(|t| &t.front(&sizes, values)[0]);
                all.push(parts.fold(Point::new(0.0, 0.0), |sum, p| sum.join(p)));
            });
            let expected = pareto(all);
            let parts = fronts(&sizes, tables.clone());
            assert_eq!(parts.len(), 3, "two connected sets and a constant");
            let whole = parts
                .iter()
                .fold(vec![Point::new(0.0, 0.0)], |a, b| product(&a, b));
            let pairs =
                |l: &[Point]| -> Vec<(f64, f64)> { l.iter().map(|p| (p.cost, p.weight)).collect() };
            assert_eq!(pairs(&whole), pairs(&expected));
            for p in &whole {
                // What a point says it picked is what it costs.
                let picked: Vec<usize> = p.values(5).into_iter().map(Option::unwrap).collect();
                let cost: f64 = tables
                    .iter()
                    .map(|t| t.front(&sizes, &picked)[0].cost)
                    .sum();
                assert_eq!(cost, p.cost);
            }
        }
    }

    #[test]
    fn long_fronts_keep_their_ends() {
        let line = (0..5000).map(|i| Point::new(f64::from(i), f64::from(5000 - i)));
        let front = pareto(line.collect());
        assert_eq!(front.len(), MOST_POINTS);
        assert_eq!((front[0].cost, front[MOST_POINTS - 1].cost), (0.0, 4999.0));
    }

    #[test]
    fn what_is_impossible_has_no_point() {
        let t = |fronts| Table {
            scope: vec![0],
            fronts,
        };
        let one = || vec![Point::new(1.0, 1.0)];
        let parts = fronts(
            &[2],
            vec![t(vec![one(), Vec::new()]), t(vec![Vec::new(), one()])],
        );
        assert!(parts[0].is_empty());
    }
}
