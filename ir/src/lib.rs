//! Number formats, graph IR and kernel IR of the qcc quantization compiler.
#![warn(missing_docs)]

pub mod format;

pub use format::DType;
