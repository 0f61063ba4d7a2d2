//! Targets, kernel builders and emitters of the qcc quantization compiler.
#![warn(missing_docs)]

pub mod arena;
pub mod cost;
pub mod kernels;
pub mod legalize;
pub mod lower;
pub mod ptx;
pub mod target;
