//! What equality saturation did: its part of the summary.

use qcc_passes::egraph::Stats;
use serde::Serialize;
use std::time::Duration;

/// The searches of one stage. The plan holds nothing of it, least of all the time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct SearchReport {
    /// Parts of modules whose cheapest form was asked for.
    pub regions: usize,
    /// Those that differ: each is searched once.
    pub distinct: usize,
    /// Searches that a limit cut off.
    pub cut: usize,
    /// Rounds of rule application in all searches.
    pub rounds: usize,
    /// E-nodes of all searches.
    pub nodes: usize,
    /// E-classes of all searches.
    pub classes: usize,
    /// Bytes of the largest e-graph, counted; one is held at a time.
    pub peak_bytes: usize,
    /// Wall time of the stage: saturation, extraction and what is built of them.
    pub seconds: f64,
}

impl SearchReport {
    /// Figures of searches, and how long they took.
    pub fn new(s: &Stats, time: Duration) -> Self {
        SearchReport {
            regions: s.regions,
            distinct: s.distinct,
            cut: s.cut,
            rounds: s.rounds,
            nodes: s.nodes,
            classes: s.classes,
            peak_bytes: s.peak_bytes,
            seconds: time.as_secs_f64(),
        }
    }
}
