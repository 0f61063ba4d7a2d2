//! Plans on GPUs, real and simulated.
//!
//! ```text
//! section ── resolve ──► Program ── bind(sizes) ──► Bound ── addresses ──► commands ──► Driver
//! ```
//!
//! A [`program::Program`] is the section with its names resolved and its expressions parsed, once
//! for each engine. Binding it to the sizes of an input gives numbers and picks one way to run each
//! step. The executor owns the memory, puts addresses in, and hands the list of commands to
//! a device through [`driver::Driver`]. The list stays valid while the memory stays where it is, so
//! a device may keep it in a form of its own, such as a CUDA graph.

mod bound;
mod command;
#[cfg(feature = "cuda")]
pub mod cuda;
mod driver;
mod error;
mod executor;
mod faults;
mod program;
#[cfg(feature = "sim")]
pub(crate) mod sim;

pub(crate) use driver::Driver;
pub(crate) use executor::{GpuEngine, GpuSession};
