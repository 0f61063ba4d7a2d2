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
pub use module::{EntryInfo, ParamInfo, PtxModule, emit};
pub(crate) use probe::Probe;
