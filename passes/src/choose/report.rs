//! What was chosen, what else was considered, and how the choice compares.

use super::knapsack::Solution;
use super::menu::{Item, Menu};
use super::{Budget, Items, Search};
use crate::egraph::Stats;
use crate::quantize::Scheme;
use qcc_ir::diag::Result;
use qcc_ir::ledger::Candidate;
use std::collections::{BTreeMap, BTreeSet};

/// The predicted figures of a choice.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Totals {
    /// Microseconds of a run for each bucket of sizes.
    pub micros: Vec<(String, f64)>,
    /// Their mean over all calls of the workload.
    pub mean_micros: f64,
    /// Divergence from float in nats, the sum over layers.
    pub divergence: f64,
    /// Bits per element of the layers' weights.
    pub bits: f64,
}

/// How a choice compares.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// What was chosen.
    pub chosen: Totals,
    /// Whether it keeps the budget.
    pub feasible: bool,
    /// What no choice of the enumerated can be better than, in the unit that was minimised:
    /// microseconds, or nats under a budget of bits.
    pub bound: f64,
    /// The same unit for what was chosen.
    pub cost: f64,
    /// The options as they are.
    pub base: Totals,
    /// The best scheme for all layers that keeps the budget.
    pub uniform: Option<(String, Totals)>,
    /// Schemes layer by layer first, fusion after; `None` where that misses the budget.
    pub precision_first: Option<Totals>,
    /// Groups of layers that read one value.
    pub groups: usize,
    /// Parts of the function that are fused independently.
    pub factors: usize,
    /// What was searched for prices, in all choices of the study so far.
    pub search: Stats,
}

/// A choice.
#[derive(Clone, Debug)]
pub struct Chosen {
    /// Schemes of layers, as overrides of the options.
    pub overrides: Vec<(String, Scheme)>,
    /// By layer, all candidates with time, divergence and the constraint that rules them out.
    pub considered: BTreeMap<String, Vec<Candidate>>,
    /// How it compares.
    pub summary: Summary,
}

impl Search<'_, '_> {
    /// Puts a choice into words.
    pub(super) fn report(
        &mut self,
        items: &[usize],
        solution: &Solution,
        precision_first: &[usize],
    ) -> Result<Chosen> {
        let one_by_one = self.totals(precision_first)?.filter(|t| self.keeps(t));
        let base = vec![0; self.menus.len()];
        let summary = Summary {
            chosen: self.totals(items)?.unwrap_or_default(),
            feasible: solution.feasible,
            bound: solution.bound,
            cost: solution.point.cost,
            base: self.totals(&base)?.unwrap_or_default(),
            uniform: self.best_uniform()?,
            precision_first: one_by_one,
            groups: self.graph.groups.len(),
            factors: self.graph.factors.len(),
            search: self.pricer.searched(),
        };
        Ok(Chosen {
            overrides: overrides(self.menus, items)?,
            considered: self.considered(items)?,
            summary,
        })
    }

    /// The figures of a choice; `None` where the target cannot run it.
    fn totals(&mut self, items: &[usize]) -> Result<Option<Totals>> {
        let names = self.pricer.buckets();
        let mut sum = vec![0.0; names.len()];
        for factor in 0..self.graph.factors.len() {
            match self.price(factor, items)? {
                Ok(us) => sum.iter_mut().zip(us.iter()).for_each(|(s, u)| *s += u),
                Err(_) => return Ok(None),
            }
        }
        let chosen = self.items(items);
        let bits: f64 = chosen.iter().map(|i| i.bits).sum();
        Ok(Some(Totals {
            mean_micros: self.pricer.mean(&sum),
            micros: names.into_iter().zip(sum).collect(),
            divergence: chosen.iter().map(|i| i.error).sum(),
            bits: bits / self.elements().max(1.0),
        }))
    }

    fn keeps(&self, t: &Totals) -> bool {
        match self.budget {
            Budget::Divergence(most) => t.divergence <= most,
            Budget::Bits(most) => t.bits <= most,
        }
    }

    /// The scheme that is best within the budget when every layer that can have it does.
    fn best_uniform(&mut self) -> Result<Option<(String, Totals)>> {
        let menus = self.menus;
        let schemes = menus
            .iter()
            .flat_map(|m| m.items.iter().map(|i| i.scheme.as_str()));
        let schemes: BTreeSet<&str> = schemes.collect();
        let mut best: Option<(String, Totals)> = None;
        for scheme in schemes {
            let items: Items = menus.iter().map(|m| m.find(scheme).unwrap_or(0)).collect();
            let Some(t) = self.totals(&items)?.filter(|t| self.keeps(t)) else {
                continue;
            };
            let worth = |t: &Totals| self.worth(t);
            if best.as_ref().is_none_or(|(_, b)| worth(&t) < worth(b)) {
                best = Some((scheme.to_string(), t));
            }
        }
        Ok(best)
    }

    /// What is minimised.
    fn worth(&self, t: &Totals) -> f64 {
        match self.budget {
            Budget::Divergence(_) => t.mean_micros,
            Budget::Bits(_) => t.divergence,
        }
    }

    /// All candidates of all layers. The time of one is that of the factors around the layer when
    /// its group has the scheme and all others stay as chosen.
    fn considered(&mut self, items: &[usize]) -> Result<BTreeMap<String, Vec<Candidate>>> {
        let menus = self.menus;
        let mut out = BTreeMap::new();
        for g in 0..self.graph.groups.len() {
            let sites = self.graph.groups[g].sites.clone();
            for site in &sites {
                let menu = &menus[*site];
                let mut list = Vec::new();
                for (i, item) in menu.items.iter().enumerate() {
                    let mut other = items.to_vec();
                    for s in &sites {
                        let same = menus[*s].find(&item.scheme);
                        other[*s] = if s == site {
                            i
                        } else {
                            same.unwrap_or(items[*s])
                        };
                    }
                    list.push(self.candidate(g, item, &other)?);
                }
                let refused = menu.refused.iter();
                list.extend(refused.map(|(name, why)| Candidate::refused(name, why)));
                out.insert(menu.site.name.clone(), list);
            }
        }
        Ok(out)
    }

    fn candidate(&mut self, group: usize, item: &Item, items: &[usize]) -> Result<Candidate> {
        let names = self.pricer.buckets();
        let mut sum = vec![0.0; names.len()];
        for factor in self.graph.around[group].clone() {
            match self.price(factor, items)? {
                Ok(us) => sum.iter_mut().zip(us.iter()).for_each(|(s, u)| *s += u),
                Err(reason) => {
                    let reason = format!("no kernel: {reason}");
                    return Ok(Candidate::refused(&item.scheme, reason).error(item.error));
                }
            }
        }
        let mut c = Candidate::new(&item.scheme).error(item.error);
        for (name, us) in names.into_iter().zip(sum) {
            c = c.predicted(name, us);
        }
        if let Budget::Divergence(most) = self.budget
            && item.error > most
        {
            let text = format!(
                "its divergence of {:.3e} alone is over the budget",
                item.error
            );
            c.refused_by = Some(text);
        }
        Ok(c)
    }
}

/// The items as overrides; none for a layer that has no choice.
fn overrides(menus: &[Menu], items: &[usize]) -> Result<Vec<(String, Scheme)>> {
    let pattern = |m: &Menu| {
        let alone = menus.iter().filter(|o| o.site.name == m.site.name).count() == 1;
        let name = if alone { &m.site.name } else { &m.site.weight };
        format!("^{}$", regex::escape(name))
    };
    let open = menus.iter().zip(items).filter(|(m, _)| m.items.len() > 1);
    open.map(|(m, i)| Ok((pattern(m), Scheme::named(&m.items[*i].scheme)?)))
        .collect()
}
