//! Tests of the qcc quantization compiler.
