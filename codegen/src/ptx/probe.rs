//! Asks the emitter's tables whether an architecture has an instruction for a statement.

use qcc_ir::kernel::{Kernel, Stmt};

use super::arch::{Arch, PtxVersion};
use super::emit::Emitter;

/// Tries the statements of one kernel.
pub(crate) struct Probe<'k>(Emitter<'k>);

impl<'k> Probe<'k> {
    pub(crate) fn new(kernel: &'k Kernel) -> Probe<'k> {
        Probe(Emitter::for_trial(kernel))
    }

    /// Whether `arch` runs a statement without regions.
    pub(crate) fn runs_on(&mut self, stmt: &'k Stmt, arch: Arch) -> bool {
        self.0.try_alone(stmt).is_ok_and(|needs| {
            let specific = needs.specific.is_none_or(|sm| arch == Arch::specific(sm));
            specific && needs.sm <= arch.sm && needs.version <= PtxVersion::MAX
        })
    }
}
