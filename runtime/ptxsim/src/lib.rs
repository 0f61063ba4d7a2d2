//! Executes PTX text on the CPU, finds races and counts traffic.
