//! From an open plan to a module that can be executed.
//!
//! The text of the section's module is parsed and verified, compared with what the manifest
//! says of it, and its `extern` weights are linked to the entries of the file, without copies.

use qcc_ir::diag::{Diagnostic, Result};
use qcc_ir::graph::{Module, WeightBytes, WeightData, parse, verify};
#[cfg(feature = "cpu")]
use qcc_ir::plan::{Action, Step, step_names};
use qcc_ir::plan::{Interface, Layout, TargetSection, WeightEntry};
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use crate::PlanFile;
use crate::plan_file::error::{contradicts, malformed};

/// A weight in an open plan file.
struct PlanWeight {
    file: Arc<PlanFile>,
    /// Position in the manifest's list of weights.
    index: usize,
}

impl WeightBytes for PlanWeight {
    fn bytes(&self) -> Result<Cow<'_, [u8]>> {
        let entry = &self.file.plan().weights[self.index];
        entry.unpack(self.file.weight(entry)?)
    }
}

impl fmt::Debug for PlanWeight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entry = &self.file.plan().weights[self.index].entry;
        write!(f, "PlanWeight({entry} in {:?})", self.file)
    }
}

/// The module that a section executes, its weights linked to the file.
///
/// # Errors
/// `Q0405` if its text is not a valid module, `Q0408` if module and manifest differ.
pub(crate) fn load_module(file: &Arc<PlanFile>, section: &TargetSection) -> Result<Module> {
    let plan = file.plan();
    let entry = plan
        .module(&section.module)
        .ok_or_else(|| contradicts(format!("module `{}` does not exist", section.module)))?;
    let place = |d: Diagnostic| d.or_at(format!("module {}", entry.id));
    let mut module = parse_module(file.text(&entry.entry)?).map_err(place)?;
    if Interface::of(&module).map_err(place)? != plan.interface() {
        let text = "inputs, outputs or symbols of the module are not those of the manifest";
        return Err(place(contradicts(text)));
    }
    link_weights(file, &mut module).map_err(place)?;
    Ok(module)
}

fn parse_module(text: &str) -> Result<Module> {
    let module = parse(text).map_err(|errors| first(&errors))?;
    match verify(&module).as_slice() {
        [] => Ok(module),
        errors => Err(first(errors)),
    }
}

/// One error for a text that qcc wrote itself: the first of them says enough.
fn first(errors: &[Diagnostic]) -> Diagnostic {
    match errors.first() {
        Some(d) => malformed(format!("module: {d}")),
        None => malformed("module"),
    }
}

fn link_weights(file: &Arc<PlanFile>, module: &mut Module) -> Result<()> {
    let listed = &file.plan().weights;
    for w in &mut module.weights {
        if !matches!(w.data, WeightData::Extern) {
            continue;
        }
        let index = listed
            .iter()
            .position(|e| e.name == w.name && e.layout == WeightEntry::ROW_MAJOR);
        // Without one in rows, one that can be unpacked.
        let packed = || {
            let known = |e: &WeightEntry| e.name == w.name && Layout::named(&e.layout).is_some();
            listed.iter().position(known)
        };
        let Some(index) = index.or_else(packed) else {
            return Err(contradicts(format!(
                "weight `{}` is not in the file",
                w.name
            )));
        };
        let entry = &listed[index];
        if (entry.dtype, &entry.dims) != (w.dtype, &w.dims) {
            return Err(contradicts(format!(
                "weight `{}` is {}{:?} in the module and {}{:?} in the manifest",
                w.name, w.dtype, w.dims, entry.dtype, entry.dims
            )));
        }
        w.data = WeightData::Bytes(Arc::new(PlanWeight {
            file: file.clone(),
            index,
        }));
    }
    Ok(())
}

/// Checks that the steps of a CPU section run every op of the module in order.
///
/// # Errors
/// `Q0408` if a step is missing, out of place, or nothing that a CPU runs.
#[cfg(feature = "cpu")]
pub(crate) fn check_cpu_steps(section: &TargetSection, module: &Module) -> Result<()> {
    let names: Vec<&str> = module
        .funcs
        .first()
        .map(step_names)
        .into_iter()
        .flatten()
        .collect();
    let place = |d: Diagnostic| d.or_at(format!("target {}", section.target));
    if names.len() != section.steps.len() {
        let text = format!("{} steps run {} ops", section.steps.len(), names.len());
        return Err(place(contradicts(text)));
    }
    for (name, step) in names.iter().zip(&section.steps) {
        if step.op != *name {
            let text = format!("step `{}` stands where op `{name}` must run", step.op);
            return Err(place(contradicts(text)));
        }
        if !runs_on_cpu(step) {
            return Err(place(contradicts(format!(
                "step `{name}` has nothing that a CPU runs"
            ))));
        }
    }
    Ok(())
}

#[cfg(feature = "cpu")]
fn runs_on_cpu(step: &Step) -> bool {
    let cpu = |c: &qcc_ir::plan::Choice| {
        c.requires.is_none() && c.when.is_empty() && c.actions == [Action::Cpu]
    };
    step.run.iter().any(cpu)
}
