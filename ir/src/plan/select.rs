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
        let name = format!("sm_{sm}");
        self.newest(sm).ok_or_else(|| self.no_section(&name, &name))
    }

    /// The section for the newest GPU that the plan was built for.
    ///
    /// # Errors
    /// `Q0406` if it was built for none.
    pub fn section_for_newest_gpu(&self) -> Result<&TargetSection> {
        let found = self.newest(u32::MAX);
        found.ok_or_else(|| self.no_section("a GPU", "sm_80"))
    }

    fn newest(&self, most: u32) -> Option<&TargetSection> {
        let known = self.targets.iter();
        let known = known.filter_map(|t| Some((t.compute_capability()?, t)));
        let runs = known.filter(|(built_for, _)| *built_for <= most);
        runs.max_by_key(|(built_for, _)| *built_for).map(|(_, t)| t)
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

impl TargetSection {
    /// The compute capability of a GPU target, 90 for `sm_90`; none for a CPU.
    pub fn compute_capability(&self) -> Option<u32> {
        self.target.strip_prefix("sm_")?.parse().ok()
    }
}
