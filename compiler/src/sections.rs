//! One section of a plan per target.

use qcc_codegen::target::{Machine, Target};
use qcc_ir::diag::{Class, Diagnostic, Result};
use qcc_ir::eval::weight_tensor;
use qcc_ir::graph::{Module, WeightBytes, WeightData};
use qcc_ir::plan::TargetSection;
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
) -> Result<(TargetSection, BTreeMap<String, String>)> {
    match target.machine {
        Machine::Cpu => Ok((
            TargetSection::cpu(target.name, "main", module)?,
            BTreeMap::new(),
        )),
        Machine::Gpu(_) => Err(Diagnostic::error(
            611,
            Class::Unsupported,
            format!("sections for {} are not emitted yet", target.name),
        )),
    }
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
