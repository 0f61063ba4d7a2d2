//! Facts about functions that several passes need; they never change anything.

mod dataflow;
mod layers;

pub(crate) use dataflow::{DataFlow, live_ops};
pub(crate) use layers::{
    is_const, is_homogeneous, is_plain_linear, is_plain_norm, maker, projection, read_once, width,
};
