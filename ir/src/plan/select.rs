//! Which section a device runs.

use super::{Plan, TargetSection};
use crate::diag::{Class, Diagnostic, Result};

impl Plan {
    /// The section of exactly that target.
    ///
    /// # Errors
    /// `Q0406` if the plan was not built for it.
    pub fn section(&self, target: &str) -> Result<&TargetSection> {
        let found = self.targets.iter().find(|t| t.target == target);
        found.ok_or_else(|| self.no_section(target, target))
    }

    /// The section for a CPU that can run the given targets, the best first.
    ///
    /// # Errors
    /// `Q0406` if the plan has none of them.
    pub fn section_for_cpu(&self, levels: &[&str]) -> Result<&TargetSection> {
        let found = levels
            .iter()
            .find_map(|level| self.targets.iter().find(|t| t.target == *level));
        found.ok_or_else(|| self.no_section("a CPU", "cpu"))
    }

    /// The section for a GPU of compute capability `sm` (90 for sm_90): the newest one that is
    /// not newer than the GPU.
    ///
    /// # Errors
    /// `Q0406` if there is none.
    pub fn section_for_gpu(&self, sm: u32) -> Result<&TargetSection> {
        let runs = self
            .targets
            .iter()
            .filter_map(|t| Some((capability(&t.target)?, t)))
            .filter(|(built_for, _)| *built_for <= sm);
        let best = runs.max_by_key(|(built_for, _)| *built_for).map(|(_, t)| t);
        best.ok_or_else(|| self.no_section(&format!("sm_{sm}"), &format!("sm_{sm}")))
    }

    fn no_section(&self, device: &str, rebuild_for: &str) -> Diagnostic {
        let built: Vec<_> = self.target_names().collect();
        let built = if built.is_empty() {
            "no target".to_string()
        } else {
            built.join(", ")
        };
        let text = format!("the plan was built for {built}, the device is {device}");
        Diagnostic::error(406, Class::Input, text)
            .hint(format!("rebuild with --target {rebuild_for}"))
    }
}

/// The number in `sm_90`; none for other targets.
fn capability(target: &str) -> Option<u32> {
    target.strip_prefix("sm_")?.parse().ok()
}
