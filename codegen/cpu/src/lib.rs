//! CPU code for the qcc quantization compiler: runs graph modules on host tensors.
//!
//! - [`CpuProgram`] is a module prepared once (constants read and decoded, expressions compiled,
//!   lifetimes known) that runs any number of times, from any number of threads.
//! - [`CpuExecutor`] is the [`Executor`](qcc_ir::exec::Executor) of calibration and of
//!   constant checks: the same program with taps on its values.
//!
//! Floats compute in f32 and are rounded once where an op stores its result; integer products
//! are exact. Results are the same bits for any number of [`Threads`].
#![warn(missing_docs)]

mod clif;
mod constants;
mod expr;
mod gemm;
mod kernels;
mod math;
mod ops;
mod pool;
mod program;
mod quant;
mod threads;
mod value;

pub use program::{CpuExecutor, CpuOptions, CpuProgram};
pub use threads::Threads;

use qcc_ir::diag::{Class, Diagnostic};
use qcc_ir::format::FormatError;

/// A broken invariant of this crate.
pub(crate) fn internal(message: impl Into<String>) -> Diagnostic {
    Diagnostic::error(710, Class::Internal, message)
}

/// Numbers that a format refuses, such as a scale computed from NaN.
pub(crate) fn format_error(e: FormatError) -> Diagnostic {
    Diagnostic::error(507, Class::Input, e.to_string())
}
