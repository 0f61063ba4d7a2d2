//! The qcc quantization compiler: ONNX in, quantized plan out.
#![warn(missing_docs)]

pub mod data;
pub mod evaluate;
pub mod onnx;
