//! The simulator on kernels of others and of its own; one program, so that it is linked once.

mod clusters;
mod command;
mod counters;
mod determinism;
mod faults;
mod foreign;
mod fuzz;
mod host_conversions;
mod matrix;
mod mutants;
mod reading;
mod schedules;
mod support;
