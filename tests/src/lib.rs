//! Tests of the qcc quantization compiler.
//!
//! Text in, text out: [`filetest`] runs every `.qir` file below `tests/filetests`, and its result
//! is the snapshot beside it. `tests/tidy` checks the laws of the project that a program can
//! check. [`ptxas`] provisions the assembler, [`launches`] shows what a GPU section does, [`llama`]
//! has the shape of a large model.

pub mod example;
pub mod filetest;
pub mod launches;
pub mod llama;
pub mod on_sim;
pub mod plans;
pub mod ptxas;
pub mod random;
