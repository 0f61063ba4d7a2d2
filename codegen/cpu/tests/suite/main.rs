//! Modules on the processor against the evaluator; one program, so that it is linked once.

mod common;
mod elementwise;
mod products;
mod program;
mod random;
