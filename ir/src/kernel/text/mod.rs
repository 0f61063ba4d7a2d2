//! The text form of kernels.
//!
//! ```text
//! kernel spmd @scale(%x: ptr<f32,readonly>, %y: ptr<f32,global>, %n: u32) block(256,1,1) {
//!   shared @tile: f32[256] align 16
//!   %3: u32 = sreg.tid_x
//!   %4: bool = cmp.lt %3, %n
//!   if %4 {
//!     %5: ptr<f32,readonly> = ptradd %x, %3
//!     %6: f32 = ld %5
//!     %7: f32 = const 2.0
//!     %8: f32 = fmul.rn %6, %7
//!     %9: ptr<f32,global> = ptradd %y, %3
//!     st %9, %8
//!   }
//! }
//! ```
//!
//! A region's parameters stand between bars, `{ |%i: u32, %acc: f32| … yield %sum }`. Constants
//! of f32 and f64 are decimal, all others are the bits of a lane in hexadecimal or, for integers
//! and truth values, their value. Parameters carry their names, other values their numbers.

mod lexer;
mod literal;
mod parse;
mod print;

pub use parse::{TextError, parse_kernel, parse_kernels};
pub(crate) use print::stmt_line;
