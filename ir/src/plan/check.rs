//! What must hold inside a manifest, whatever the file around it looks like.
//!
//! Names are unique, every name that something refers to exists, ranges are not empty, an entry
//! holds a text or one weight and does not use the file's own names, and a row-major weight is
//! exactly as long as its type and dims say. Dimension expressions are parsed by the device
//! that evaluates them.

use std::collections::BTreeSet;

use super::{Action, Arg, Layout, Plan, Step, TargetSection, WeightEntry};
use crate::diag::{Class, Diagnostic, Result};

impl Plan {
    /// Checks the manifest against itself.
    ///
    /// # Errors
    /// `Q0408`: names the first thing that is missing, doubled or contradictory.
    pub fn validate(&self) -> Result<()> {
        unique("symbol", self.symbols.iter().map(|s| s.name.as_str()))?;
        unique("input", self.inputs.iter().map(|p| p.name.as_str()))?;
        unique("output", self.outputs.iter().map(|p| p.name.as_str()))?;
        unique("module", self.modules.iter().map(|m| m.id.as_str()))?;
        unique("target", self.target_names())?;
        for s in &self.symbols {
            if s.min > s.max {
                return bad(format!(
                    "symbol `{}` ranges from {} to {}, which is empty",
                    s.name, s.min, s.max
                ));
            }
        }
        self.validate_entries()?;
        self.validate_weights()?;
        self.targets
            .iter()
            .try_for_each(|t| self.validate_section(t))
    }

    fn validate_entries(&self) -> Result<()> {
        let weights = || self.weights.iter().map(|w| w.entry.as_str());
        let texts: BTreeSet<&str> = self.text_entries().collect();
        unique("weight entry", weights())?;
        for name in weights().chain(texts.iter().copied()) {
            if name.is_empty() || name == "__metadata__" || name.starts_with("qcc.") {
                return bad(format!("`{name}` is no name for an entry"));
            }
        }
        match weights().find(|name| texts.contains(name)) {
            Some(both) => bad(format!("entry `{both}` is a text and a weight")),
            None => Ok(()),
        }
    }

    fn validate_weights(&self) -> Result<()> {
        let mut seen = BTreeSet::new();
        for w in &self.weights {
            if !seen.insert((w.name.as_str(), w.layout.as_str())) {
                return bad(format!(
                    "weight `{}` appears twice in layout `{}`",
                    w.name, w.layout
                ));
            }
            let Some(layout) = Layout::named(&w.layout) else {
                continue;
            };
            if !layout.takes(w.dtype, &w.dims) {
                return bad(format!(
                    "weight `{}` of type {}{:?} cannot lie as `{}`",
                    w.name, w.dtype, w.dims, w.layout
                ));
            }
            match WeightEntry::dense_bytes(w.dtype, &w.dims) {
                Some(bytes) if bytes == w.bytes => {}
                Some(bytes) => {
                    return bad(format!(
                        "weight `{}` of type {}{:?} needs {bytes} bytes, its entry has {}",
                        w.name, w.dtype, w.dims, w.bytes
                    ));
                }
                None => {
                    return bad(format!(
                        "weight `{}` of type {}{:?} is larger than 2^64 bytes",
                        w.name, w.dtype, w.dims
                    ));
                }
            }
        }
        Ok(())
    }

    fn validate_section(&self, section: &TargetSection) -> Result<()> {
        let place = |d: Diagnostic| d.or_at(format!("target {}", section.target));
        if self.module(&section.module).is_none() {
            let text = format!("module `{}` does not exist", section.module);
            return bad(text).map_err(place);
        }
        if !section.outputs.is_empty() && section.outputs.len() != self.outputs.len() {
            let text = format!(
                "{} outputs are written, the plan has {}",
                section.outputs.len(),
                self.outputs.len()
            );
            return bad(text).map_err(place);
        }
        unique("kernel", section.kernels.iter().map(|k| k.name.as_str())).map_err(place)?;
        let buffers = section.arena.buffers.iter().map(|b| b.value.as_str());
        unique("buffer", buffers).map_err(place)?;
        for step in &section.steps {
            self.validate_step(section, step)
                .map_err(|d| d.or_at(format!("target {}, step {}", section.target, step.op)))?;
        }
        Ok(())
    }

    fn validate_step(&self, section: &TargetSection, step: &Step) -> Result<()> {
        if step.run.is_empty() {
            return bad("there is no way to run it");
        }
        for action in step.run.iter().flat_map(|choice| &choice.actions) {
            match action {
                Action::Cpu => {}
                Action::Launch(launch) => {
                    if section.kernel(&launch.kernel).is_none() {
                        return bad(format!("kernel `{}` does not exist", launch.kernel));
                    }
                    self.validate_args(section, launch.args.iter())?;
                }
                Action::Vendor(g) => {
                    let optional = [&g.a_scale, &g.b_scale, &g.bias];
                    let args = [&g.a, &g.b, &g.d].into_iter();
                    self.validate_args(section, args.chain(optional.into_iter().flatten()))?;
                }
            }
        }
        Ok(())
    }

    fn validate_args<'a>(
        &self,
        section: &TargetSection,
        args: impl Iterator<Item = &'a Arg>,
    ) -> Result<()> {
        for arg in args {
            match arg {
                Arg::Value(name) => {
                    let found = section.arena.buffers.iter().any(|b| b.value == *name)
                        || self.inputs.iter().any(|p| p.name == *name)
                        || section.outputs.contains(name);
                    if !found {
                        return bad(format!("value `{name}` has no buffer"));
                    }
                }
                Arg::Weight { name, layout } => {
                    if self.weight(name, layout).is_none() {
                        return bad(format!("no weight `{name}` in layout `{layout}`"));
                    }
                }
                Arg::Dim { .. } | Arg::Faults => {}
                Arg::TensorMap { of, .. } => match &**of {
                    Arg::Value(_) | Arg::Weight { .. } => {
                        self.validate_args(section, std::iter::once(&**of))?;
                    }
                    _ => return bad("a tensor map describes a value or a weight"),
                },
            }
        }
        Ok(())
    }
}

fn unique<'a>(what: &str, names: impl Iterator<Item = &'a str>) -> Result<()> {
    let mut seen = BTreeSet::new();
    for name in names {
        if !seen.insert(name) {
            return bad(format!("{what} `{name}` appears twice"));
        }
    }
    Ok(())
}

fn bad<T>(message: impl Into<String>) -> Result<T> {
    Err(Diagnostic::error(408, Class::Input, message)
        .hint("the plan contradicts itself: compile the model again"))
}
