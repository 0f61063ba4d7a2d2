//! Data files: `.npy` and `.npz` in, `.npy` out, and datasets of samples for a model's inputs.

mod dataset;
mod npy;

pub use dataset::Dataset;
pub use npy::{read_npy, read_npz, write_npy};

use qcc_ir::diag::{Class, Diagnostic};
use std::path::Path;

/// A data file that cannot be read or does not hold what it should.
pub(crate) fn data_error(path: &Path, message: impl std::fmt::Display) -> Diagnostic {
    Diagnostic::error(520, Class::Input, message.to_string()).at(path.display().to_string())
}
