//! What was compiled: the numbers behind the summary and `--json`.

use crate::auto::AutoReport;
use qcc_ir::diag::Diagnostic;
use qcc_ir::ledger::{Ledger, Topic};
use qcc_ir::plan::{Plan, TargetSection};
use qcc_passes::LayerError;
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
    /// Every quantizable layer.
    pub layers: Vec<LayerReport>,
    /// Every target.
    pub targets: BTreeMap<String, TargetReport>,
    /// How schemes were chosen, if they were.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auto: Option<AutoReport>,
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

/// One layer.
#[derive(Clone, Debug, Serialize)]
pub struct LayerReport {
    /// Source node.
    pub name: String,
    /// Its weight.
    pub weight: Option<String>,
    /// The scheme that was chosen.
    pub scheme: String,
    /// Terms of each sum; known for measured layers.
    pub k: Option<u64>,
    /// Output channels.
    pub n: Option<u64>,
    /// Signal to quantization noise of its output on calibration data, in dB.
    pub sqnr_db: Option<f64>,
    /// Why it stayed float, if it did.
    pub fallback: Option<String>,
}

/// One target.
#[derive(Clone, Debug, Serialize)]
pub struct TargetReport {
    /// Bytes of the weights.
    pub weight_bytes: u64,
    /// Bytes of intermediate values, an expression in the model's dimensions.
    pub arena_bytes: String,
    /// Oldest driver.
    pub min_driver: Option<String>,
    /// Steps.
    pub steps: usize,
    /// Distinct kernels.
    pub kernels: usize,
}

impl LayerReport {
    /// The layers that the ledger knows a scheme of, with their measured errors.
    pub fn of(ledger: &Ledger, errors: &[LayerError]) -> Vec<LayerReport> {
        let schemes = ledger
            .decisions()
            .iter()
            .filter(|d| d.topic == Topic::Scheme);
        schemes
            .map(|d| {
                let e = errors.iter().find(|e| e.layer == d.site);
                let refused = d.considered.iter().find_map(|c| c.refused_by.clone());
                LayerReport {
                    name: d.site.clone(),
                    weight: d.weight.clone(),
                    scheme: d.chosen.clone(),
                    k: e.map(|e| e.k),
                    n: e.map(|e| e.n),
                    sqnr_db: e.map(|e| e.sqnr_db).filter(|s| s.is_finite()),
                    fallback: if d.chosen == "float" { refused } else { None },
                }
            })
            .collect()
    }
}

impl TargetReport {
    /// The numbers of a section.
    pub fn of(plan: &Plan, s: &TargetSection) -> TargetReport {
        TargetReport {
            weight_bytes: plan.weights.iter().map(|w| w.bytes).sum(),
            arena_bytes: s.arena.bytes.clone(),
            min_driver: s.min_driver.clone(),
            steps: s.steps.len(),
            kernels: s.kernels.len(),
        }
    }
}
