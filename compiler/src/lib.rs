//! The qcc quantization compiler: ONNX in, quantized plan out.
//!
//! [`Compiler`] turns an [`onnx::Model`] into a [`Compiled`] plan; `qcc_runtime` opens and runs
//! it. The `qcc` command is a thin layer over this library.
#![warn(missing_docs)]

mod compile;
mod cost;
pub mod data;
pub mod evaluate;
pub mod onnx;
mod options;
pub mod report;
mod sections;
mod sensitivity;
pub mod verify;

pub use compile::{Compiled, Compiler, Prepared, Progress, interface};
pub use options::{Float, Options};
pub use qcc_passes::{ActMode, Algo, Grid, Scheme, Statistics};
pub use report::{LayerReport, Notice, Report, TargetReport};
pub use sensitivity::{OutputReport, Sensitivity};
