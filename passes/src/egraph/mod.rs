//! Fusion by equality saturation.
//!
//! [`fuse`] cuts each function into regions, puts every region into an e-graph, lets
//! the rules add all legal forms, and extracts the cheapest set of ops under
//! the target's cost model. A union in the e-graph means bit-exact or equal in real arithmetic,
//! never "good enough".
//!
//! ```text
//! function ─ region ─► regions ─ saturate ─► e-graph ─ extract ─► recipe ─ replay ─► function
//!                        │ equal regions are solved once                 └ explain ─► ledger
//! ```
//!
//! | file | what it holds |
//! |---|---|
//! | `region` | which ops are considered together, and why the parts are independent |
//! | `lang`, `analysis`, `space` | e-nodes, types per class, the e-graph with its origins |
//! | `body`, `compose` | an op as head and expression; one expression put into another |
//! | `rules/` | the rules, one row each |
//! | `saturate`, `cost`, `extract`, `bound` | the search |
//! | `recipe`, `weights`, `replay`, `explain` | the result: ops, merged weights, reasons |
//! | `price`, `stats` | what a function would cost once fused, how large searches become |

mod analysis;
mod body;
mod bound;
mod compose;
mod cost;
mod explain;
mod extract;
mod lang;
mod price;
mod recipe;
mod region;
mod replay;
mod rules;
mod saturate;
mod space;
mod stats;
#[cfg(test)]
mod tests;
mod weights;

pub use cost::{Traffic, Workload};
pub(crate) use price::{Part, Price, Pricer, parts};
pub use rules::{Exactness, RuleInfo, table as rules};
pub use saturate::Limits;
pub use stats::Stats;

use crate::pass::{Pass, PassContext};
use cost::Costs;
use qcc_ir::diag::{Class, Diagnostic, Result};
use qcc_ir::exec::CostModel;
use qcc_ir::graph::Module;
use qcc_ir::ledger::Ledger;
use recipe::Recipe;
use region::Region;
use std::collections::HashMap;
use std::rc::Rc;

/// The pass `fuse`.
pub(crate) struct Fuse;

impl Pass for Fuse {
    fn name(&self) -> &'static str {
        "fuse"
    }

    fn summary(&self) -> &'static str {
        "fuses ops into kernels by equality saturation, cheapest under the target's cost model"
    }

    fn run(&self, module: &Module, ctx: &mut PassContext<'_>) -> Result<Module> {
        let traffic = Traffic::default();
        let cost = ctx.cost.unwrap_or(&traffic);
        let mut costs = Costs::new(cost, module, ctx.options.workload);
        if ctx.options.workload != Workload::Mixed && costs.buckets.len() < 2 {
            let message = "--workload has no effect: there is one set of sizes";
            ctx.warnings.push(
                Diagnostic::warning(48, Class::Usage, message)
                    .hint("name sizes with --dims NAME=MIN..MAX@SIZE,SIZE…"),
            );
        }
        let fused = fuse_with(module, &mut costs, Limits::default(), &rules::all())?;
        ctx.ledger.merge(fused.ledger);
        ctx.fusion = ctx.fusion.plus(&fused.stats);
        Ok(fused.module)
    }
}

/// A fused module and the reasons behind it.
#[derive(Clone, Debug)]
pub struct Fused {
    /// The module.
    pub module: Module,
    /// One decision per fused op and per op that could not be fused with a neighbour.
    pub ledger: Ledger,
    /// What the search did.
    pub stats: Stats,
}

/// Fuses the ops of every function, each bucket of sizes counting alike.
///
/// # Errors
/// Defects of the rules only (`Q092n`): every valid module has a result, if need be its own ops.
pub fn fuse(module: &Module, cost: &dyn CostModel, limits: Limits) -> Result<Fused> {
    let mut costs = Costs::new(cost, module, Workload::Mixed);
    fuse_with(module, &mut costs, limits, &rules::all())
}

fn fuse_with(
    module: &Module,
    costs: &mut Costs<'_>,
    limits: Limits,
    rules: &[&'static rules::Rule],
) -> Result<Fused> {
    let mut solved: HashMap<Region, Rc<Recipe>> = HashMap::new();
    let mut out = Module {
        symbols: module.symbols.clone(),
        weights: module.weights.clone(),
        funcs: Vec::new(),
    };
    let mut ledger = Ledger::new();
    let mut stats = Stats::default();
    for f in &module.funcs {
        let partition = region::partition(f);
        let mut recipes: Vec<Rc<Recipe>> = Vec::with_capacity(partition.regions.len());
        for (region, binding) in &partition.regions {
            let recipe = match solved.get(region) {
                Some(r) => r.clone(),
                None => {
                    let r = Rc::new(recipe::solve(region, rules, costs, limits)?);
                    stats = stats.plus(&r.search);
                    solved.insert(region.clone(), r.clone());
                    r
                }
            };
            let site = explain::Place {
                module,
                func: f,
                region,
                binding,
            };
            explain::record(&mut ledger, &site, &recipe, costs);
            recipes.push(recipe);
        }
        stats.regions += recipes.len();
        let func = replay::replay(&mut out, f, &partition, &recipes)?;
        out.funcs.push(func);
    }
    replay::prune_weights(&mut out);
    Ok(Fused {
        module: out,
        ledger,
        stats,
    })
}
