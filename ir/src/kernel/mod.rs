//! Kernel IR: how one kernel computes, in typed scalars and short vectors.
//!
//! A [`Kernel`] is `spmd` (a grid of thread blocks, lowered to PTX) or `serial` (one CPU thread
//! over rows `begin..end`, lowered by the CPU emitters). Its body is a [`Region`] of statements;
//! loops and branches hold regions of their own, and values are defined once. Operations are the
//! rows of [`Op`]. Effects happen in program order.
//!
//! # Building a kernel
//! [`KernelBuilder`] has a method for each operation. It checks types at once and keeps the first
//! mistake for [`KernelBuilder::finish`], so building code needs no error handling:
//!
//! ```
//! use qcc_ir::DType;
//! use qcc_ir::kernel::{KernelBuilder, Launch, parse_kernel};
//!
//! // y[i] = a * x[i] for i < n, each thread one element; blocks of 128 threads.
//! let mut k = KernelBuilder::spmd("scale", Launch::threads(128));
//! let x = k.param_ro("x", DType::F32); // pointer to read-only memory
//! let y = k.param_ptr("y", DType::F32);
//! let a = k.param("a", DType::F32.into());
//! let n = k.param("n", DType::U32.into());
//! let block = k.block_id();
//! let first = k.mul_imm(block, 128);
//! let tid = k.tid();
//! let i = k.add(first, tid);
//! let inside = k.lt(i, n);
//! k.if_then(inside, |k| {
//!     let xi = k.ptr_add(x, i);
//!     let v = k.load(xi);
//!     let scaled = k.mul(v, a); // rounded to nearest even; `fmul.rn` in the text
//!     let yi = k.ptr_add(y, i);
//!     k.store(yi, scaled);
//! });
//! let kernel = k.finish().unwrap();
//! assert_eq!(parse_kernel(&kernel.to_string()).unwrap(), kernel);
//!
//! // Loops carry values: the sum of rows begin..end of a column, on the CPU.
//! let (mut k, begin, end) = KernelBuilder::serial("column_sum");
//! let x = k.param_ro("x", DType::F32);
//! let out = k.param_ptr("out", DType::F32);
//! let one = k.i64(1);
//! let zero = k.f32(0.0);
//! let sum = k.for_range(begin, end, one, &[zero], |k, row, carried| {
//!     let p = k.ptr_add(x, row);
//!     let v = k.load(p);
//!     vec![k.add(carried[0], v)]
//! });
//! k.store(out, sum[0]);
//! assert!(k.finish().is_ok());
//! ```
//!
//! Things to know:
//! - Unrolling is a Rust `for` around builder calls; a register array is a `Vec<Value>`, carried
//!   through loops as a list.
//! - `add`, `mul`, `div`, … choose the integer or the float operation by type. Every float
//!   operation states its rounding; `div` is a true division; nothing is ever contracted.
//! - A vector (`f16x2`, `f32x4`, `e4m3x4`, `i4x8`) is its lanes concatenated, lane 0 lowest;
//!   [`pack`](KernelBuilder::pack), [`unpack`](KernelBuilder::unpack) and
//!   [`bitcast`](KernelBuilder::bitcast) reinterpret, [`cvt`](KernelBuilder::cvt) converts.
//! - Floats below 16 bits are only loaded, stored, moved and converted. Build with the conversion
//!   that is meant; what a target lacks is expanded before emission.
//! - Shared memory is declared with [`shared`](KernelBuilder::shared), which returns its address.
//! - Accumulators of `wgmma` are *in flight* between [`wgmma_begin`](KernelBuilder::wgmma_begin)
//!   and [`wgmma_wait`](KernelBuilder::wgmma_wait): nothing else can read or write them, and the
//!   verifier sees to it.
//! - There is no floating-point atomic.

pub mod attr;
mod body;
mod builder;
mod canonical;
mod check;
pub mod eval;
mod from_expr;
pub mod mma;
mod op;
mod problem;
mod rewrite;
mod text;
mod ty;
mod verify;
mod word;

pub use attr::*;
pub use body::{Kernel, Kind, Launch, Param, Region, SharedArray, Stmt, Value};
pub use builder::KernelBuilder;
pub use from_expr::{
    bool_to_i64, load_type, lower_expr, lower_expr_lanes, quantize_code, to_compute, to_storage,
};
pub use op::Op;
pub use problem::Problem;
pub use rewrite::{Replace, rewrite};
pub use text::{TextError, parse_kernel, parse_kernels};
pub use ty::{Space, Ty};
pub use verify::verify;
