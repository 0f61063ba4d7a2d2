//! The choice of a scheme for every layer, together with fusion, under a budget.
//!
//! ```text
//! minimise    Σ over factors of the function: time of the cheapest fused form, given the schemes
//! subject to  Σ over layers: error of its scheme ≤ budget
//! ```
//!
//! | file | what it holds |
//! |---|---|
//! | `menu` | the schemes that options and target allow for each layer |
//! | `measure`, `reference` | what each does to the model's output, on data |
//! | `graph` | which choices meet in which kernels: groups and factors |
//! | `front` | Pareto fronts of (time, error) by elimination |
//! | `knapsack` | one point of each front within the budget, and the bound |
//! | `report` | what was considered, for the ledger and the summary |
//!
//! **Why not inside of one e-graph.** A union there means equal, and schemes are not: each would
//! need classes of its own for everything after it, and a product's schemes reach over the
//! boundaries of regions (its input is quantized where that is made). But a scheme changes the
//! price of few regions, and a region's cheapest form is exact for given schemes. So schemes are
//! enumerated around each region, the e-graph answers what each assignment costs when it is fused
//! as well as it can be, and the sum over regions is minimised exactly by elimination. That is the
//! optimum over all enumerated assignments: every layer of a group has the same scheme (so that
//! products may merge), or the one that it would get by itself.
//!
//! The result is a list of overrides for the passes that exist, and reasons for the ledger.

mod front;
mod graph;
mod knapsack;
mod measure;
mod menu;
mod reference;
mod report;
#[cfg(test)]
mod tests;

pub use measure::{Step, logits};
pub use reference::Reference;
pub use report::{Chosen, Summary, Totals};

use crate::egraph::{Price, Pricer, Traffic};
use crate::manager::Manager;
use crate::pass::PassContext;
use crate::quantize::sites;
use crate::registry::parse_list;
use front::{Point, Table, assignments, fronts};
use graph::Graph;
use knapsack::solve;
use menu::{Item, Menu, menus};
use qcc_ir::Tensor;
use qcc_ir::diag::{Class, Diagnostic, Result};
use qcc_ir::graph::Module;

/// What a choice has to keep.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Budget {
    /// The model's divergence from float, in nats per row of the output; the least time wins.
    Divergence(f64),
    /// Bits per element of the layers' weights; the least divergence wins.
    Bits(f64),
}

/// Weight of a microsecond beside a nat where divergence is what is minimised.
const NATS_PER_MICRO: f64 = 1e-9;

/// Layers, what may be done to them, and what that costs.
pub struct Study<'a> {
    /// The module with floats as they will be stored.
    narrowed: Module,
    menus: Vec<Menu>,
    pricer: Pricer<'a>,
}

impl<'a> Study<'a> {
    /// Looks at the layers of a float module in normal form and measures on batches what each
    /// scheme does to the output.
    ///
    /// # Errors
    /// `Q0525` without an executor; what passes and the executor report.
    pub fn new(
        m: &Module,
        ctx: &PassContext<'a>,
        batches: &[Vec<Tensor>],
        step: Step<'_>,
    ) -> Result<Self> {
        let mut study = Study::without_errors(m, ctx)?;
        let executor = ctx.executor.ok_or_else(|| {
            let message = "schemes are weighed on calibration data";
            Diagnostic::error(525, Class::Usage, message).hint("give --calib")
        })?;
        measure::measure(m, ctx, executor, batches, &mut study.menus, step)?;
        Ok(study)
    }

    /// As [`Study::new`] with errors that are known, by layer and scheme: they depend neither on the
    /// target nor on sizes, so that a choice for others needs no measurement.
    ///
    /// # Errors
    /// What passes report.
    pub fn with_errors(
        m: &Module,
        ctx: &PassContext<'a>,
        error: &dyn Fn(&str, &str) -> f64,
    ) -> Result<Self> {
        let mut study = Study::without_errors(m, ctx)?;
        for menu in &mut study.menus {
            let name = &menu.site.name;
            for item in &mut menu.items[1..] {
                item.error = error(name, &item.scheme);
            }
        }
        Ok(study)
    }

    /// What a scheme of a layer adds to the divergence of the output, in nats per row; `None` where
    /// the layer cannot have it.
    pub fn error(&self, layer: &str, scheme: &str) -> Option<f64> {
        let menu = self.menus.iter().find(|m| m.site.name == layer)?;
        menu.find(scheme).map(|i| menu.items[i].error)
    }

    /// As [`Study::new`], but every error is 0.
    fn without_errors(m: &Module, ctx: &PassContext<'a>) -> Result<Self> {
        static TRAFFIC: Traffic = Traffic::USUAL;
        let mut own = ctx.with_options(ctx.options);
        let passes = parse_list("narrow-floats,cse,dce")?;
        let narrowed = Manager::new(passes).run(m.clone(), &mut own)?.module;
        let menus = menus(m, ctx)?;
        if sites(&narrowed).len() != menus.len() {
            let message = "16-bit floats change the number of layers";
            return Err(Diagnostic::error(917, Class::Internal, message));
        }
        let cost = ctx.cost.unwrap_or(&TRAFFIC);
        Ok(Study {
            pricer: Pricer::new(cost, m, ctx.options.workload),
            narrowed,
            menus,
        })
    }

    /// The best choice within a budget. If no choice keeps it, the one that comes nearest.
    ///
    /// # Errors
    /// Defects of fusion only.
    pub fn choose(&mut self, budget: Budget) -> Result<Chosen> {
        let sites = sites(&self.narrowed);
        let f = self.narrowed.funcs.first();
        let f =
            f.ok_or_else(|| Diagnostic::error(917, Class::Internal, "the module has no function"))?;
        let mut search = Search {
            graph: Graph::new(f, &sites),
            menus: &self.menus,
            pricer: &mut self.pricer,
            budget,
        };
        let precision_first = search.precision_first()?;
        let options = search.candidates(&precision_first);
        let (items, solution) = search.solve(&options)?;
        search.report(&items, &solution, &precision_first)
    }
}

/// For each layer the position of its item.
type Items = Vec<usize>;

/// For each group its candidates: an item for each of its layers.
type Candidates = Vec<Vec<Items>>;

struct Search<'s, 'a> {
    graph: Graph<'s>,
    menus: &'s [Menu],
    pricer: &'s mut Pricer<'a>,
    budget: Budget,
}

impl Search<'_, '_> {
    fn items(&self, at: &[usize]) -> Vec<&Item> {
        self.menus
            .iter()
            .zip(at)
            .map(|(m, i)| &m.items[*i])
            .collect()
    }

    /// Elements of all weights.
    fn elements(&self) -> f64 {
        self.menus.iter().map(|m| m.elements).sum()
    }

    fn limit(&self) -> f64 {
        match self.budget {
            Budget::Divergence(x) | Budget::Bits(x) => x,
        }
    }

    /// A time, a divergence and bits of weights as cost and weight under the budget.
    fn point(&self, micros: f64, item: Option<&Item>) -> Point {
        let (error, bits) = item.map_or((0.0, 0.0), |i| (i.error, i.bits / self.elements()));
        match self.budget {
            Budget::Divergence(_) => Point::new(micros, error),
            Budget::Bits(_) => Point::new(error + NATS_PER_MICRO * micros, bits),
        }
    }

    /// The choice of a tool that looks at layers one by one, each with a kernel of its own and
    /// one for its activation; what is fused comes after.
    fn precision_first(&mut self) -> Result<Items> {
        let menus = self.menus;
        let mut fronts = Vec::new();
        for (site, menu) in menus.iter().enumerate() {
            let mut points = Vec::new();
            for (i, item) in menu.items.iter().enumerate() {
                if let Ok(us) = self.pricer.price(&self.graph.alone(site, item))? {
                    let micros = self.pricer.mean(&us);
                    points.push(self.point(micros, Some(item)).picking(site, i));
                }
            }
            fronts.push(front::undominated(points));
        }
        let solution = solve(&fronts, self.limit());
        let picked = solution.map(|s| s.point.values(self.menus.len()));
        Ok(picked.map_or(vec![0; self.menus.len()], |p| {
            p.into_iter().map(Option::unwrap_or_default).collect()
        }))
    }

    /// The schemes that all layers of a group have, the layers' first items, and what they would
    /// get one by one.
    fn candidates(&self, one_by_one: &[usize]) -> Candidates {
        let of = |sites: &Vec<usize>| {
            let mut out: Vec<Items> = vec![vec![0; sites.len()]];
            let first = &self.menus[sites[0]];
            for item in &first.items[1..] {
                let all = sites.iter().map(|s| self.menus[*s].find(&item.scheme));
                out.extend(all.collect::<Option<Items>>());
            }
            out.push(sites.iter().map(|s| one_by_one[*s]).collect());
            let mut seen = Vec::new();
            out.retain(|c| {
                let new = !seen.contains(c);
                seen.push(c.clone());
                new
            });
            out
        };
        self.graph.groups.iter().map(|g| of(&g.sites)).collect()
    }

    /// The best combination of candidates.
    fn solve(&mut self, candidates: &Candidates) -> Result<(Items, knapsack::Solution)> {
        let sizes: Vec<usize> = candidates.iter().map(Vec::len).collect();
        let mut tables: Vec<Table> = (0..sizes.len())
            .map(|g| self.errors(g, &candidates[g]))
            .collect();
        for i in 0..self.graph.factors.len() {
            tables.push(self.times(i, candidates, &sizes)?);
        }
        let fronts = fronts(&sizes, tables);
        let solution = solve(&fronts, self.limit()).ok_or_else(|| {
            let message = "no choice of schemes can run on the target";
            Diagnostic::error(610, Class::Unsupported, message)
        })?;
        let picked = solution.point.values(sizes.len());
        let mut items = vec![0; self.menus.len()];
        for (g, candidate) in picked.into_iter().enumerate() {
            let chosen = &candidates[g][candidate.unwrap_or_default()];
            self.place(g, chosen, &mut items);
        }
        Ok((items, solution))
    }

    /// Gives the layers of a group their items.
    fn place(&self, group: usize, chosen: &[usize], items: &mut [usize]) {
        for (site, item) in self.graph.groups[group].sites.iter().zip(chosen) {
            items[*site] = *item;
        }
    }

    /// What the candidates of a group add to error and size.
    fn errors(&self, group: usize, candidates: &[Items]) -> Table {
        let sites = &self.graph.groups[group].sites;
        let front = |c: &Items| {
            let items = sites.iter().zip(c).map(|(s, i)| &self.menus[*s].items[*i]);
            let points = items.map(|item| self.point(0.0, Some(item)));
            vec![points.fold(Point::new(0.0, 0.0), |sum, p| sum.join(&p))]
        };
        Table {
            scope: vec![group],
            fronts: candidates.iter().map(front).collect(),
        }
    }

    /// The time of a factor for all candidates of its groups.
    fn times(&mut self, factor: usize, candidates: &Candidates, sizes: &[usize]) -> Result<Table> {
        let scope = self.graph.factors[factor].scope();
        let mut every: Vec<Items> = Vec::new();
        let mut items = vec![0; self.menus.len()];
        assignments(&scope, sizes, &mut vec![0; sizes.len()], &mut |values| {
            for g in &scope {
                self.place(*g, &candidates[*g][values[*g]], &mut items);
            }
            every.push(items.clone());
        });
        let mut fronts = Vec::with_capacity(every.len());
        for items in every {
            let micros = self.price(factor, &items)?.ok();
            let point = micros.map(|us| self.point(self.pricer.mean(&us), None));
            fronts.push(point.into_iter().collect());
        }
        Ok(Table { scope, fronts })
    }

    fn price(&mut self, factor: usize, items: &[usize]) -> Result<Price> {
        let f = self
            .graph
            .sketch(&self.graph.factors[factor], &self.items(items));
        self.pricer.price(&f)
    }
}
