//! Plans on the CPU device, judged by the oracle.

mod model;
mod refusals;
mod runs;
