//! A fused module lowered: one section of the plan per target.

use crate::report::TargetReport;
use qcc_codegen::lower::{LowerOptions, emit_section_with};
use qcc_codegen::target::{Machine, Target};
use qcc_ir::diag::{Class, Diagnostic, Result};
use qcc_ir::eval::weight_tensor;
use qcc_ir::graph::{Module, WeightBytes, WeightData};
use qcc_ir::plan::{Action, Plan, TargetSection};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A plan with its sections, and what its file holds besides.
pub(crate) struct Lowered {
    /// The module that the sections execute.
    pub(crate) module: Module,
    pub(crate) plan: Plan,
    /// Modules and kernels by entry name.
    pub(crate) texts: BTreeMap<String, String>,
    pub(crate) reports: BTreeMap<String, TargetReport>,
}

impl Lowered {
    /// Adds the module and a section for each target to a plan. `step` is told how many targets of
    /// how many are done.
    ///
    /// # Errors
    /// Every op that a target has no kernel for; what `step` reports.
    pub(crate) fn new(
        mut plan: Plan,
        module: Module,
        targets: &[&'static Target],
        lowering: LowerOptions,
        step: &mut dyn FnMut(usize, usize) -> Result<()>,
    ) -> Result<Lowered> {
        let module = store_constants(module)?;
        plan.add_module("main", &module)?;
        let mut texts = BTreeMap::from([("text/main".to_string(), module.to_string())]);
        let mut reports = BTreeMap::new();
        for (i, target) in targets.iter().enumerate() {
            step(i, targets.len())?;
            let (section, kernels) = section(&module, target, lowering)?;
            let report = TargetReport::of(&plan, &section, &module, target)?;
            reports.insert(target.name.to_string(), report);
            texts.extend(kernels);
            plan.targets.push(section);
        }
        plan.lay_out_weights();
        Ok(Lowered {
            module,
            plan,
            texts,
            reports,
        })
    }
}

/// A section and the texts of its kernels by entry name.
fn section(
    module: &Module,
    target: &Target,
    lowering: LowerOptions,
) -> Result<(TargetSection, BTreeMap<String, String>)> {
    match target.machine {
        Machine::Cpu => Ok((
            TargetSection::cpu(target.name, "main", module)?,
            BTreeMap::new(),
        )),
        Machine::Gpu(_) => {
            emit_section_with(module, "main", target, lowering).map_err(|e| unserved(e, target))
        }
    }
}

/// Whether a section runs products of the vendor's library.
pub(crate) fn has_products(plan: &Plan) -> bool {
    let steps = plan.targets.iter().flat_map(|t| &t.steps);
    let mut actions = steps.flat_map(|s| &s.run).flat_map(|w| &w.actions);
    actions.any(|a| matches!(a, Action::Vendor(_)))
}

/// The first op that the target cannot run, with the others in the hint.
fn unserved(mut errors: Vec<Diagnostic>, target: &Target) -> Diagnostic {
    let rest = errors.split_off(errors.len().min(1));
    let first = errors.pop().unwrap_or_else(|| {
        Diagnostic::error(
            915,
            Class::Internal,
            format!("no section for {}", target.name),
        )
    });
    if rest.is_empty() {
        return first;
    }
    let others: Vec<String> = rest.iter().map(ToString::to_string).collect();
    first.hint(format!("and: {}", others.join("\n")))
}

/// Bytes that are held in memory: a small constant.
#[derive(Debug)]
struct Held(Vec<u8>);

impl WeightBytes for Held {
    fn bytes(&self) -> Result<Cow<'_, [u8]>> {
        Ok(Cow::Borrowed(&self.0))
    }
}

/// Gives every constant that the text form could list inline bytes of its own, so that a kernel
/// finds it among the plan's weights.
///
/// # Errors
/// When a constant's bytes cannot be made.
fn store_constants(mut module: Module) -> Result<Module> {
    for w in &mut module.weights {
        if !matches!(w.data, WeightData::Bytes(_) | WeightData::Extern) {
            w.data = WeightData::Bytes(Arc::new(Held(weight_tensor(w)?.bytes().to_vec())));
        }
    }
    Ok(module)
}
