//! Plans on the CPU and on the simulated GPU, judged by the oracle.

mod gpu;
mod gpu_refusals;
mod model;
mod refusals;
mod runs;
