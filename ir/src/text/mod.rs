//! Below the grammar of the graph IR: names, numbers, the lexer and a cursor over its tokens.
//!
//! ```text
//! %x.scale  %"x:0"      values          @fc.w  @"fc w"   weights, functions, source nodes
//! relu  f32  n          words           "MatMul_3"       strings, with \" \\ \n \r \t \u{…}
//! 12  0.5  1e-5  0x7fc00000             numbers          -> .. // and single characters
//! ```
//!
//! `//` begins a comment and `%` a value, except inside a `[` opened on the same line, because
//! sizes are written in brackets: there `%` takes the remainder, and `//` divides unless a space
//! follows it.

mod cursor;
mod lexer;
mod name;
mod number;

pub(crate) use cursor::{Cursor, Pos, codes};
pub(crate) use lexer::Tok;
pub(crate) use name::{Ident, Name, Quoted};
pub(crate) use number::{f32_text, f64_text, real_text};
