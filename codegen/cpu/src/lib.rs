//! CPU code for the qcc quantization compiler.
