//! Targets, kernel builders and emitters of the qcc quantization compiler.
