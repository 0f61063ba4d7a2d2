//! Examples for embedders of the qcc quantization compiler.
