//! Facts about functions that several passes need; they never change anything.

mod dataflow;

pub(crate) use dataflow::{DataFlow, live_ops};
