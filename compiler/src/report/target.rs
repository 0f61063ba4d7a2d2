//! One target: what its section takes and how long a run is predicted to be.

use qcc_codegen::cost::{Launching, Roofline};
use qcc_codegen::target::Target;
use qcc_ir::DimExpr;
use qcc_ir::diag::Result;
use qcc_ir::exec::CostModel;
use qcc_ir::graph::{Module, TensorType};
use qcc_ir::plan::{Plan, TargetSection};
use qcc_passes::{Bucket, buckets};
use serde::Serialize;
use std::collections::BTreeMap;

/// One target. Maps are over the sizes that the plan was optimised for.
#[derive(Clone, Debug, Serialize)]
pub struct TargetReport {
    /// Bytes of the weights.
    pub weight_bytes: u64,
    /// Bytes of intermediate values; empty where the device plans its memory itself.
    pub arena_bytes: BTreeMap<String, u64>,
    /// Bytes of the arena that hold no value of the module.
    pub workspace_bytes: BTreeMap<String, u64>,
    /// The arena for any size, an expression in the model's dimensions.
    pub arena: Option<String>,
    /// Oldest driver.
    pub min_driver: Option<String>,
    /// Steps.
    pub steps: usize,
    /// Distinct kernels.
    pub kernels: usize,
    /// Predicted microseconds of a run; on a GPU of the replay of a recorded graph, as sessions do.
    pub predicted_us: BTreeMap<String, f64>,
    /// The same where the host launches kernel after kernel; of GPUs.
    pub unrecorded_us: BTreeMap<String, f64>,
}

impl TargetReport {
    /// The numbers of a section.
    ///
    /// # Errors
    /// When a size of the section is no expression.
    pub(crate) fn of(
        plan: &Plan,
        s: &TargetSection,
        module: &Module,
        target: &'static Target,
    ) -> Result<TargetReport> {
        let mut out = TargetReport {
            weight_bytes: plan.weights.iter().map(|w| w.bytes).sum(),
            arena_bytes: BTreeMap::new(),
            workspace_bytes: BTreeMap::new(),
            arena: Some(s.arena.bytes.clone()).filter(|a| !a.is_empty()),
            min_driver: s.min_driver.clone(),
            steps: s.steps.len(),
            kernels: s.kernels.len(),
            predicted_us: BTreeMap::new(),
            unrecorded_us: BTreeMap::new(),
        };
        let model = Roofline::new(target);
        for b in buckets(module) {
            let size = |text: &str| -> Result<Option<u64>> {
                let n = text.parse::<DimExpr>()?.eval(&|name| b.size(name));
                Ok(n.and_then(|n| u64::try_from(n).ok()))
            };
            if let Some(arena) = &out.arena {
                let bytes = size(arena)?;
                out.arena_bytes.extend(bytes.map(|n| (b.name.clone(), n)));
                let mut work = 0;
                for x in s.arena.buffers.iter().filter(|x| !holds(module, &x.value)) {
                    work += size(&x.bytes)?.unwrap_or(0);
                }
                out.workspace_bytes.insert(b.name.clone(), work);
            }
            let micros = predicted(module, &model, &b);
            out.predicted_us.extend(micros.map(|t| (b.name.clone(), t)));
            if target.is_gpu() {
                let single = model.launching(Launching::Stream);
                let micros = predicted(module, &single, &b);
                out.unrecorded_us
                    .extend(micros.map(|t| (b.name.clone(), t)));
            }
        }
        Ok(out)
    }
}

/// Whether a buffer holds a value of the module.
fn holds(module: &Module, value: &str) -> bool {
    module
        .funcs
        .first()
        .is_some_and(|f| f.find(value).is_some())
}

/// The sum over all ops; `None` if the model knows no time of one.
fn predicted(module: &Module, model: &dyn CostModel, b: &Bucket) -> Option<f64> {
    let f = module.funcs.first()?;
    let mut sum = 0.0;
    for op in &f.ops {
        let types = |vs: &[qcc_ir::graph::ValueId]| -> Vec<&TensorType> {
            vs.iter().map(|v| f.ty(*v)).collect()
        };
        let (operands, results) = (types(&op.operands), types(&op.results));
        let t = model.op_micros(&op.kind, &operands, &results, &|s| b.size(s));
        sum += t.ok()?;
    }
    Some(sum)
}
