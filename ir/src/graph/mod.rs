//! Graph IR: what is computed.
//!
//! A [`Module`] holds symbols (sizes that are known only at run time), weights and functions. A
//! [`Func`] is a list of [`Op`]s over SSA values; a value's [`TensorType`] carries its format,
//! its quantization scheme and its symbolic shape. In text:
//!
//! ```text
//! qir 1
//! dim n = 1..4096 @ 1, 16
//! weight @fc.w: e4m3[128, 784] = extern
//! weight @fc.scale: f32[128, 1] = splat(0.5)
//! weight @fc.b: f32[128] = normal(7, 0.1)
//!
//! func @main(%x: f32[n, 784], %x.scale: f32[]) -> (logits: f32[n, 128]) {
//!   %xq: q<e4m3, [*, *], scale=f32>[n, 784] = quantize %x, %x.scale
//!   %w: q<e4m3, [1, *], scale=f32>[128, 784] = const @fc.w, @fc.scale
//!   %b: f32[128] = const @fc.b
//!   %y: f32[n, 128] = linear %xq, %w, %b @"MatMul_3"
//!   return %y
//! }
//! ```
//!
//! A result has the name that callers know it by and the value that is returned under it; the
//! `return` line gives the values in the order of the signature. The printer (`Display`) is
//! canonical and [`parse()`] is its inverse, up to weight bytes that have a source of their own.
//!
//! - [`Builder`] is the only way to make ops; passes build new functions.
//! - [`verify`] checks every invariant and reports all violations.
//! - `eval` is the oracle: the meaning of every op, slow and exact.

mod attrs;
mod builder;
mod infer;
mod module;
mod op;
mod parse;
mod print;
mod types;
mod verify;

pub use builder::Builder;
pub use infer::{broadcast, infer_shapes};
pub use module::{
    Def, Func, Loc, Module, Op, OpId, Symbol, Value, ValueId, Weight, WeightBytes, WeightData,
    WeightId,
};
pub use op::{AttentionAttrs, OpKind, PoolFn, ReduceFn, RotaryAttrs, Window};
pub use parse::parse;
pub use types::{Elem, QuantType, ScaleType, TensorType};
pub use verify::verify;
