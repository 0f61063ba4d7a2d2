//! From graph ops to kernel launches.
//!
//! [`lower()`] walks the entry function and asks the registry of `kernels` for each op. Values get
//! their memory from the arena; equal kernels are built once and named after their text, so the
//! layers of a model share them.

mod emit;
pub mod faults;
pub mod frame;
pub mod index;
pub mod places;
pub mod section;
pub mod steps;
pub mod store;

pub use emit::{emit_section, emit_section_with};
pub use section::{LowerOptions, Section, lower};
