//! Number formats, graph IR and kernel IR of the qcc quantization compiler.
#![warn(missing_docs)]

pub mod diag;
pub mod format;

pub use diag::Diagnostic;
pub use format::DType;
