//! ONNX: hostile files, operators against onnxruntime, refusals.

mod fixtures;
mod hostile;
mod refusals;
mod writer;
