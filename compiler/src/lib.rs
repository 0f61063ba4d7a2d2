//! The qcc quantization compiler: ONNX in, quantized plan out.
