//! A compiled model: the plan, its texts, and the module that weights are made from.

use crate::report::Report;
use qcc_ir::Tensor;
use qcc_ir::diag::{Class, Diagnostic, Result};
use qcc_ir::eval::weight_tensor;
use qcc_ir::graph::Module;
use qcc_ir::ledger::Ledger;
use qcc_ir::plan::{Plan, Port, WeightEntry};
use qcc_runtime::plan_file::{AlignedBytes, Written, plan_in_memory};
use qcc_runtime::{PlanContents, PlanWriter};
use std::collections::BTreeMap;
use std::path::Path;

/// A compiled model, ready to be written or run.
pub struct Compiled {
    /// The manifest.
    pub plan: Plan,
    /// Every choice.
    pub ledger: Ledger,
    /// What was compiled, layer by layer and target by target.
    pub report: Report,
    pub(crate) texts: BTreeMap<String, String>,
    pub(crate) module: Module,
}

impl Compiled {
    fn contents(&self) -> PlanContents<'_> {
        PlanContents {
            plan: &self.plan,
            ledger: &self.ledger,
            texts: &self.texts,
        }
    }

    /// The module that the sections execute.
    pub fn module(&self) -> &Module {
        &self.module
    }

    /// The texts of the plan: modules and kernels, by entry name.
    pub fn texts(&self) -> &BTreeMap<String, String> {
        &self.texts
    }

    /// Inputs of the model.
    pub fn inputs(&self) -> &[Port] {
        &self.plan.inputs
    }

    /// Writes the plan file: weights are made and written one after another.
    ///
    /// # Errors
    /// When the file system refuses, or a weight's source fails.
    pub fn write(&self, path: &Path) -> Result<Written> {
        let mut w = PlanWriter::create(path, &self.contents())?;
        for entry in &self.plan.weights {
            w.write(&entry.entry, &entry.pack(self.weight(entry)?.bytes())?)?;
        }
        w.finish()
    }

    /// The plan file in memory.
    ///
    /// # Errors
    /// When a weight's source fails.
    pub fn to_bytes(&self) -> Result<AlignedBytes> {
        let fill = |entry: &WeightEntry, put: &mut dyn FnMut(&[u8]) -> Result<()>| {
            put(&entry.pack(self.weight(entry)?.bytes())?)
        };
        Ok(plan_in_memory(&self.contents(), fill)?.0)
    }

    fn weight(&self, entry: &WeightEntry) -> Result<Tensor> {
        let id = self.module.find_weight(&entry.source);
        let id = id.ok_or_else(|| {
            Diagnostic::error(
                913,
                Class::Internal,
                format!("no weight `{}`", entry.source),
            )
        })?;
        weight_tensor(self.module.weight(id))
    }
}
