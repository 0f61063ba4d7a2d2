//! The `qcc` command from the outside.

mod browser;
mod errors;
mod flags;
mod report;
mod support;
mod warnings;
mod whole;
#[path = "../onnx/writer.rs"]
#[allow(dead_code)]
mod writer;
