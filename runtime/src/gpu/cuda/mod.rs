//! NVIDIA GPUs through the driver API, which is loaded when the first GPU is opened.
//!
//! A build needs no CUDA and a program that never opens a GPU needs no driver. [`Gpu`] is one GPU:
//! memory, modules, kernels. A [`Stream`] runs work in order: copies, launches, products of
//! cuBLASLt, and [`Graph`]s, which are launches that were captured once and are replayed with one
//! call.
//!
//! Kernels take sizes as plain parameters, so a graph holds for one set of sizes; whoever replays
//! keeps one graph for each. Reading sizes from a device buffer instead would let one graph serve
//! a range of sizes, but its grids would be those of the largest, and a decode step of a
//! language model is launch-bound: empty blocks are what it cannot afford.
//!
//! Addresses are numbers, and a kernel may be given any of them. A kernel that reads or writes
//! where it must not is stopped by the GPU (`Q0732`); it cannot reach memory of the host, which is
//! never mapped into the GPU's address space here. The number and the sizes of arguments are
//! compared with what the kernel declares before every launch, because the driver reads as many
//! as are declared.

mod api;
mod blas;
mod driver;
mod entry;
mod error;
mod event;
mod gpu;
mod graph;
mod launch;
mod memory;
mod module;
mod stream;
mod tensor_map;

pub use blas::{Gemm, MatrixType};
pub(crate) use driver::CudaDriver;
pub use gpu::{Gpu, GpuInfo};
pub use graph::Graph;
pub use launch::Launch;
pub use module::Kernel;
pub use stream::Stream;
pub use tensor_map::{TensorElement, TensorMap};
