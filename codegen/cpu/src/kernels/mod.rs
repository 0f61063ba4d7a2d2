//! Builders of serial kernels.

pub(crate) mod rows;
mod stats;
