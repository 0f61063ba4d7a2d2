//! What was compiled: the numbers behind the summary, `--json` and the page of `--emit report`.

mod culprits;
pub mod describe;
mod diagram;
mod html;
mod layer;
mod search;
mod target;
#[cfg(test)]
mod testing;

pub use culprits::{Culprits, ranked};
pub use diagram::{Diagram, Shape};
pub use html::{Heading, page};
pub use layer::{LayerReport, Plots};
pub use search::SearchReport;
pub use target::TargetReport;

use crate::auto::AutoReport;
use crate::sensitivity::OutputReport;
use qcc_ir::diag::Diagnostic;
use serde::{Serialize, Serializer};
use std::collections::BTreeMap;

/// The result of a compilation, in numbers.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Hash of the model.
    pub model_hash: String,
    /// Bytes of the model's file.
    pub source_bytes: u64,
    /// Resolved options.
    pub options: BTreeMap<String, String>,
    /// Every layer that can be quantized, in execution order.
    pub layers: Vec<LayerReport>,
    /// The layers that cost most accuracy, and how to keep them float; with calibration data.
    pub culprits: Option<Culprits>,
    /// The outputs against those of the float model; with calibration data.
    pub output: Option<OutputReport>,
    /// Every target.
    pub targets: BTreeMap<String, TargetReport>,
    /// How schemes were chosen, if they were.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auto: Option<AutoReport>,
    /// Equality saturation by stage: `choose` for the prices of schemes, `fuse` for the plan.
    pub search: BTreeMap<String, SearchReport>,
    /// A block before and after fusion; of the page only.
    #[serde(skip)]
    pub diagram: Option<Diagram>,
    /// What the user should know.
    #[serde(serialize_with = "notices")]
    pub warnings: Vec<Diagnostic>,
}

/// A diagnostic as JSON has it.
#[derive(Clone, Debug, Serialize)]
pub struct Notice<'a> {
    /// Such as `Q0104`.
    pub code: String,
    /// What is wrong.
    pub message: &'a str,
    /// The node or file.
    pub node: Option<&'a str>,
    /// What to do.
    pub hint: Option<&'a str>,
}

impl<'a> Notice<'a> {
    /// The parts of a diagnostic.
    pub fn of(d: &'a Diagnostic) -> Self {
        Notice {
            code: d.code(),
            message: d.message(),
            node: d.place(),
            hint: d.advice(),
        }
    }
}

fn notices<S: Serializer>(list: &[Diagnostic], s: S) -> Result<S::Ok, S::Error> {
    s.collect_seq(list.iter().map(Notice::of))
}
