//! What a function costs once it is fused, without building the result.
//!
//! ```text
//! price(f) = Σ over regions r of f: cost of the cheapest form of r
//! ```
//!
//! The sum is exact, for regions are fused independently of each other, and each one's cheapest
//! form is extracted exactly. Equal regions are solved once, whatever functions they are from.

use super::cost::{Costs, Workload};
use super::region::{Region, partition};
use super::stats::Stats;
use super::{Limits, recipe, rules};
use qcc_ir::diag::Result;
use qcc_ir::exec::CostModel;
use qcc_ir::graph::{Func, Module, OpId, ValueId};
use std::collections::HashMap;
use std::rc::Rc;

/// A part of a function that is fused independently of the others.
pub(crate) struct Part {
    /// Its ops, in no particular order.
    pub(crate) ops: Vec<OpId>,
    /// Its values that something outside of it needs.
    pub(crate) needed: Vec<ValueId>,
}

/// The parts of a function, and for each value the first one that is equal to it.
pub(crate) fn parts(f: &Func) -> (Vec<Part>, Vec<ValueId>) {
    let p = partition(f);
    let part = |(region, binding): &(Region, super::region::Binding)| {
        let ops = region.ops.iter().zip(&binding.ops);
        let needed = ops.flat_map(|(op, id)| {
            let results = f.ops[id.index()].results.iter().zip(&op.escapes);
            results.filter(|(_, e)| **e).map(|(v, _)| *v)
        });
        Part {
            needed: needed.collect(),
            ops: binding.ops.clone(),
        }
    };
    (p.regions.iter().map(part).collect(), p.same)
}

/// Microseconds per bucket, or the first constraint for which the target cannot run a part.
pub(crate) type Price = std::result::Result<Rc<[f64]>, Rc<str>>;

/// Prices functions.
pub(crate) struct Pricer<'a> {
    costs: Costs<'a>,
    limits: Limits,
    solved: HashMap<Region, Price>,
    search: Stats,
}

impl<'a> Pricer<'a> {
    /// Prices at the sizes that a module names.
    pub(crate) fn new(model: &'a dyn CostModel, m: &Module, workload: Workload) -> Self {
        Pricer {
            costs: Costs::new(model, m, workload),
            limits: Limits::default(),
            solved: HashMap::new(),
            search: Stats::default(),
        }
    }

    /// The price of a function.
    ///
    /// # Errors
    /// Defects of the rules only.
    pub(crate) fn price(&mut self, f: &Func) -> Result<Price> {
        let mut sum = vec![0.0; self.costs.buckets.len()];
        for (region, _) in partition(f).regions {
            self.search.regions += 1;
            match self.region(region)? {
                Ok(us) => sum.iter_mut().zip(us.iter()).for_each(|(s, u)| *s += u),
                Err(reason) => return Ok(Err(reason)),
            }
        }
        Ok(Ok(sum.into()))
    }

    fn region(&mut self, region: Region) -> Result<Price> {
        if let Some(known) = self.solved.get(&region) {
            return Ok(known.clone());
        }
        let recipe = recipe::solve(&region, &rules::all(), &mut self.costs, self.limits)?;
        self.search = self.search.plus(&recipe.search);
        let mut sum = vec![0.0; self.costs.buckets.len()];
        let mut price: Price = Ok([].into());
        for step in &recipe.steps {
            match &step.micros {
                Ok(us) => sum.iter_mut().zip(us).for_each(|(s, u)| *s += u),
                Err(reason) => price = Err(reason.as_str().into()),
            }
        }
        let price = price.map(|_| sum.into());
        self.solved.insert(region, price.clone());
        Ok(price)
    }

    /// The mean over all calls of microseconds per bucket.
    pub(crate) fn mean(&self, micros: &[f64]) -> f64 {
        self.costs.mean(micros)
    }

    /// The names of the buckets.
    pub(crate) fn buckets(&self) -> Vec<String> {
        self.costs.buckets.iter().map(|b| b.name.clone()).collect()
    }

    /// What the searches did so far.
    pub(crate) fn searched(&self) -> Stats {
        self.search
    }
}
