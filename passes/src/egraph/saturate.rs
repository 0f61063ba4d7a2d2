//! Saturation: rules add equal forms until they find nothing new or a limit is reached.
//!
//! A round asks every rule for equalities in the same e-graph, then adds them all and restores
//! congruence. Rules, classes and nodes are visited in a fixed order and only numbers of nodes
//! and rounds limit the search, never time, so the result is the same on every machine.

use super::region::Region;
use super::rules::{Declined, Found, Rule};
use super::space::Space;
use qcc_ir::Diagnostic;
use qcc_ir::diag::{Class, Result};
use std::collections::BTreeSet;

/// How far a search goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Rounds of rule application per region.
    pub rounds: usize,
    /// E-nodes per region.
    pub nodes: usize,
    /// Steps of the extraction per region.
    pub steps: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            rounds: 30,
            nodes: 10_000,
            steps: 200_000,
        }
    }
}

/// What saturation left besides the space.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) declined: BTreeSet<Declined>,
    /// Whether a limit ended it before nothing new was found.
    pub(super) cut: bool,
    /// Rounds that were begun.
    pub(super) rounds: usize,
}

/// Applies the rules to a region.
///
/// # Errors
/// When a rule equated values of different types, which is a defect of the rule.
pub(super) fn saturate<'r>(
    region: &'r Region,
    rules: &[&'static Rule],
    limits: Limits,
) -> Result<(Space<'r>, Outcome)> {
    let mut space = Space::new(region);
    let mut outcome = Outcome::default();
    for round in 0.. {
        if round == limits.rounds {
            outcome.cut = true;
            break;
        }
        outcome.rounds = round + 1;
        let mut found = Found::default();
        for r in rules {
            (r.find)(r, &space, &mut found);
        }
        let before = size(&space);
        for p in found.proposals {
            if space.graph.total_number_of_nodes() >= limits.nodes {
                outcome.cut = true;
                break;
            }
            space.apply(p);
        }
        space.rebuild();
        outcome.declined.extend(found.declined);
        if let Some(fault) = &space.graph.analysis.fault {
            let message = format!("a fusion rule is unsound: {fault}");
            return Err(Diagnostic::error(920, Class::Internal, message));
        }
        if outcome.cut || size(&space) == before {
            break;
        }
    }
    Ok((space, outcome))
}

fn size(space: &Space<'_>) -> (usize, usize) {
    let g = &space.graph;
    (g.total_number_of_nodes(), g.number_of_classes())
}
