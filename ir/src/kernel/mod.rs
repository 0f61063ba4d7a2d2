//! Kernel IR: how one kernel computes.

pub mod attr;
mod builder;
mod canonical;
mod check;
mod kernel;
pub mod mma;
mod op;
mod problem;
mod text;
mod ty;
mod verify;
mod word;

pub use attr::*;
pub use builder::KernelBuilder;
pub use kernel::{Kernel, Kind, Launch, Param, Region, SharedArray, Stmt, Value};
pub use op::Op;
pub use problem::Problem;
pub use text::{TextError, parse_kernel, parse_kernels};
pub use ty::{Space, Ty};
pub use verify::verify;
