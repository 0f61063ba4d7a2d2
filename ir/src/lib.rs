//! Number formats, graph IR and kernel IR of the qcc quantization compiler.
#![warn(missing_docs)]

pub mod bind;
pub mod diag;
pub mod dim;
pub mod eval;
pub mod exec;
pub mod expr;
pub mod format;
pub mod graph;
pub mod kernel;
pub mod ledger;
pub mod plan;
pub mod tensor;
mod text;

pub use diag::Diagnostic;
pub use dim::DimExpr;
pub use format::DType;
pub use tensor::{Bundle, Tensor};
