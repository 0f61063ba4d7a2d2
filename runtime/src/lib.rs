//! Plan file and sessions of the qcc quantization compiler.
//!
//! [`plan_file`] writes and opens compiled models.
#![warn(missing_docs)]

pub mod plan_file;

pub use plan_file::{PlanContents, PlanFile, PlanWriter, Verify};
