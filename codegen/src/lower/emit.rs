//! A lowered section as a plan holds it: steps, arena, and one PTX text per kernel.
//!
//! Each kernel is legalized for the section's target, printed for the lowest architecture that
//! has its instructions, and named after its text, so that equal layers share one entry.
//! Constants must be stored weights of the plan: a caller gives listed and splat weights bytes
//! first. Splats that are ops need nothing, they are numbers in the kernels.

use super::section::{LowerOptions, lower};
use crate::legalize::legalize;
use crate::ptx::{Arch, PtxVersion, emit};
use crate::target::{Machine, Target};
use qcc_ir::diag::{Class, Diagnostic};
use qcc_ir::graph::Module;
use qcc_ir::plan::{Action, Arena, Buffer, Kernel, Step, TargetSection};
use std::collections::BTreeMap;

/// The oldest compute capability whose PTX sections hold.
const FLOOR: u32 = 80;

/// The section of a module for a GPU target, with the kernels' PTX by entry name. `module` is the
/// identifier under which the plan holds the module.
///
/// # Errors
/// Every op that no kernel of the target serves, each with its reason.
pub fn emit_section(
    m: &Module,
    module: &str,
    target: &Target,
) -> Result<(TargetSection, BTreeMap<String, String>), Vec<Diagnostic>> {
    emit_section_with(m, module, target, LowerOptions::default())
}

/// As [`emit_section`], with options.
///
/// # Errors
/// As [`emit_section`].
pub fn emit_section_with(
    m: &Module,
    module: &str,
    target: &Target,
    options: LowerOptions,
) -> Result<(TargetSection, BTreeMap<String, String>), Vec<Diagnostic>> {
    let Machine::Gpu(sm) = target.machine else {
        let text = format!("{} is no GPU target", target.name);
        return Err(vec![Diagnostic::error(612, Class::Internal, text)]);
    };
    let section = lower(m, target, options)?;
    let mut texts = BTreeMap::new();
    let mut kernels = Vec::new();
    let mut version = PtxVersion(0);
    for (name, kernel) in &section.kernels {
        let arch = required(&section.steps, name).unwrap_or(Arch::sm(sm));
        let text = legalize(kernel, arch).and_then(|k| emit(&[k], FLOOR));
        let text = text.map_err(|e| vec![e])?;
        version = version.max(text.version);
        let entry = format!("kernel/{}/{name}.ptx", target.name);
        kernels.push(Kernel {
            name: name.clone(),
            arch: text.arch.to_string(),
            entry: entry.clone(),
            symbol: name.clone(),
        });
        texts.insert(entry, text.text);
    }
    let buffers = section.arena.values.iter().map(|v| Buffer {
        value: v.name.clone(),
        offset: v.offset.to_string(),
        bytes: v.bytes.to_string(),
    });
    let out = TargetSection {
        target: target.name.to_string(),
        module: module.to_string(),
        min_driver: Some(min_driver(version).to_string()),
        steps: section.steps,
        arena: Arena {
            bytes: section.arena.bytes.to_string(),
            buffers: buffers.collect(),
        },
        outputs: section.outputs,
        kernels,
    };
    Ok((out, texts))
}

/// The architecture that the ways to launch a kernel ask for; all ask for the same.
fn required(steps: &[Step], kernel: &str) -> Option<Arch> {
    let choices = steps.iter().flat_map(|s| &s.run);
    let mut with = choices.filter(|c| {
        let launches = |a: &Action| matches!(a, Action::Launch(l) if l.kernel == kernel);
        c.actions.iter().any(launches)
    });
    with.find_map(|c| c.requires.as_ref()?.parse().ok())
}

/// The oldest driver that loads PTX of a version (CUDA release notes, minimum driver versions).
fn min_driver(v: PtxVersion) -> &'static str {
    match v.0 {
        ..=70 => "450.36",
        71 => "455.23",
        72 => "460.27",
        73 => "465.19",
        74 => "470.42",
        75 => "495.29",
        76 => "510.39",
        77 => "515.43",
        78 => "520.61",
        80 => "525.60",
        81 => "530.30",
        82 => "535.54",
        83 => "545.23",
        84 => "550.54",
        85 => "555.42",
        86 => "565.57",
        87 => "570.26",
        88 => "575.51",
        _ => "580.65",
    }
}
