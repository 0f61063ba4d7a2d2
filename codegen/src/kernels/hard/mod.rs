//! Kernels for the tensor cores at full speed: asynchronous copies, rings of stages, specialised
//! warps.

pub mod fp8_gemm;
pub mod w4a16;
