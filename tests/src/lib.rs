//! Tests of the qcc quantization compiler.

pub mod ptxas;
