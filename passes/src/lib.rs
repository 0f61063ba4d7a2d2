//! Graph passes of the qcc quantization compiler.
