//! The `qcc` command from the outside.

mod auto;
mod browser;
mod calibration;
mod errors;
mod flags;
mod report;
mod support;
mod warnings;
mod whole;
#[path = "../onnx/writer.rs"]
#[allow(dead_code)]
mod writer;
