//! One section of a plan per target.

use qcc_codegen::lower::{LowerOptions, emit_section_with};
use qcc_codegen::target::{Machine, Target};
use qcc_ir::diag::{Class, Diagnostic, Result};
use qcc_ir::eval::weight_tensor;
use qcc_ir::graph::{Module, WeightBytes, WeightData};
use qcc_ir::plan::{Action, Plan, TargetSection};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A section and the texts of its kernels by entry name.
///
/// # Errors
/// Every op that the target has no kernel for.
pub(crate) fn section(
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
pub(crate) fn store_constants(mut module: Module) -> Result<Module> {
    for w in &mut module.weights {
        if !matches!(w.data, WeightData::Bytes(_) | WeightData::Extern) {
            w.data = WeightData::Bytes(Arc::new(Held(weight_tensor(w)?.bytes().to_vec())));
        }
    }
    Ok(module)
}
