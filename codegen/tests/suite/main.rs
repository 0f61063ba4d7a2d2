//! Generated kernels on the simulator and what the generator refuses; one program, so that it is linked once.

mod attention_sim;
mod common;
mod gemm_sim;
mod layout_sim;
mod legalize;
mod nibbles_sim;
mod refusals;
mod wgmma_sim;
