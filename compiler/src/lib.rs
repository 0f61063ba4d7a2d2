//! The qcc quantization compiler: ONNX in, quantized plan out.
//!
//! [`Compiler`] turns an [`onnx::Model`] into a [`Compiled`] plan; `qcc_runtime` opens and runs
//! it. The `qcc` command is a thin layer over this library.
#![warn(missing_docs)]

mod auto;
mod calibrator;
mod compile;
mod compiled;
mod cost;
pub mod data;
pub mod evaluate;
pub mod onnx;
mod options;
pub mod report;
mod scratch;
mod sections;
mod sensitivity;
mod statistics;
pub mod verify;

pub use auto::{AutoReport, Predicted};
pub use calibrator::Calibrator;
pub use compile::{Compiler, Prepared, Progress, interface};
pub use compiled::Compiled;
pub use options::{Bound, Float, Options, SpillTo};
pub use qcc_passes::{ActMode, Algo, CalibMethod, Grid, Scheme, Smooth, Statistics, Workload};
pub use report::{LayerReport, Notice, Report, SearchReport, TargetReport};
pub use sensitivity::{OutputReport, Sensitivity};
pub use statistics::ModelStatistics;
