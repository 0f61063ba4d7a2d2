//! Figures of searches, for summaries: how large the e-graphs became.
//!
//! Memory is counted, not measured, so that it is the same in every run:
//!
//! ```text
//! bytes = Σ over e-nodes: 3·(node + operands) + ids of the node and of its operands' readers
//!       + Σ over e-classes: class + Σ over distinct ops: 2·(kind and result types)
//! ```
//!
//! An e-node lies in the list of all, in its class and in the table that finds it; an op in its list
//! and its index. What attributes and shapes hold beyond that is left out.

use super::analysis::{Graph, Types};
use super::lang::{Node, OpData};
use egg::{EClass, Id, Language};

/// What searches did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Regions of all functions.
    pub regions: usize,
    /// Regions that differ, each searched once.
    pub distinct: usize,
    /// Searches that a limit cut off; their gap is in the ledger.
    pub cut: usize,
    /// Rounds of rule application, in all of them.
    pub rounds: usize,
    /// E-nodes of all e-graphs.
    pub nodes: usize,
    /// E-classes of all e-graphs.
    pub classes: usize,
    /// Bytes of the largest e-graph; one is held at a time.
    pub peak_bytes: usize,
}

impl Stats {
    /// Both together.
    #[must_use]
    pub fn plus(&self, other: &Stats) -> Stats {
        Stats {
            regions: self.regions + other.regions,
            distinct: self.distinct + other.distinct,
            cut: self.cut + other.cut,
            rounds: self.rounds + other.rounds,
            nodes: self.nodes + other.nodes,
            classes: self.classes + other.classes,
            peak_bytes: self.peak_bytes.max(other.peak_bytes),
        }
    }

    /// One searched region with this e-graph; it is not counted among the regions.
    pub(super) fn of(graph: &Graph, rounds: usize, cut: bool) -> Stats {
        Stats {
            regions: 0,
            distinct: 1,
            cut: usize::from(cut),
            rounds,
            nodes: graph.total_number_of_nodes(),
            classes: graph.number_of_classes(),
            peak_bytes: bytes(graph),
        }
    }
}

fn bytes(graph: &Graph) -> usize {
    let id = size_of::<Id>();
    let node = |n: &Node| {
        let operands = size_of_val(n.children());
        3 * (size_of::<Node>() + operands) + id + operands
    };
    let nodes: usize = graph.nodes().iter().map(node).sum();
    let classes = graph.number_of_classes() * size_of::<EClass<Node, Types>>();
    nodes + classes + 2 * graph.analysis.ops.len() * size_of::<OpData>()
}
