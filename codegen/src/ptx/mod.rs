//! Prints kernels as PTX text.
//!
//! Tables give each operation its mnemonic; registers are untyped and virtual (ptxas allocates);
//! the text carries the lowest `.version` and `.target` that its instructions need. Equal kernels
//! give equal bytes. Nothing is converted or expanded here: an operation that the instruction set
//! lacks is an error that names it, and [`crate::legalize`] removes it beforehand.
//!
//! Every float instruction states its rounding, so ptxas contracts nothing.

mod arch;
mod convert;
mod copy;
mod emit;
mod flow;
mod memory;
mod module;
mod probe;
mod regs;
mod scalar;
mod sync;
mod tensor;

pub use arch::{Arch, PtxVersion};
use qcc_ir::diag::Diagnostic;
use qcc_ir::kernel::Kernel;

use crate::legalize::legalize;

pub use module::{EntryInfo, ParamInfo, PtxModule, emit};
pub(crate) use probe::Probe;

/// Legalizes kernels for an architecture and prints them as one module, whose `.target` is the
/// architecture's generation (`sm_90`) unless a kernel needs its specific instructions (`sm_90a`).
///
/// # Errors
/// As [`legalize`] and [`emit`].
pub fn compile(kernels: &[Kernel], arch: Arch) -> Result<PtxModule, Diagnostic> {
    let legal: Result<Vec<Kernel>, Diagnostic> = kernels
        .iter()
        .map(|kernel| legalize(kernel, arch))
        .collect();
    emit(&legal?, arch.sm)
}
