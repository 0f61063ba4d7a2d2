//! Plan file and sessions of the qcc quantization compiler.
