//! Whole models and whole kernels, from text to numbers; one program, so that it is linked once.

mod broken;
mod conformance;
mod data_errors;
mod device_sim;
mod gpu_rates;
mod kernel_hard;
mod neighbouring_codes;
mod plan_gpu;
mod ptx_broken;
mod ptx_forms;
mod ptx_hard;
mod ptx_kernels;
mod ptx_legal;
mod ptx_ops;
mod ptx_sim;
