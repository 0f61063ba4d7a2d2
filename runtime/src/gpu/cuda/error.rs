//! The errors of NVIDIA GPUs beside those of all GPUs, one function per code.
//!
//! | code | meaning |
//! |---|---|
//! | Q0740 | there is no driver |
//! | Q0741 | there is no such GPU |
//! | Q0742 | the driver is too old |
//! | Q0743 | a call of the driver failed |
//! | Q0744 | cuBLASLt is missing or refuses a product |

use qcc_ir::diag::{Class, Diagnostic};
use std::fmt::Display;

pub(super) use crate::gpu::error::{cannot_load, fault, impossible, no_memory};

fn device(number: u16, text: String) -> Diagnostic {
    Diagnostic::error(number, Class::Device, text)
}

pub(super) fn no_driver() -> Diagnostic {
    let text = "there is no NVIDIA driver: the library libcuda cannot be loaded";
    device(740, text.into()).hint("run with --device cpu, or with --device sim for a GPU section")
}

pub(super) fn no_gpu(asked: usize, found: usize) -> Diagnostic {
    let text = match found {
        0 => "there is no NVIDIA GPU".to_string(),
        1 => format!("there is no GPU {asked}, only GPU 0"),
        n => format!("there is no GPU {asked}, only 0 to {}", n - 1),
    };
    device(741, text)
        .hint("choose another one with --device cuda:N, or run with --device cpu or --device sim")
}

pub(super) fn old_driver(why: impl Display) -> Diagnostic {
    device(742, format!("the NVIDIA driver is too old: {why}"))
        .hint("install a driver for CUDA 12.0 or newer (525.60 or newer)")
}

pub(super) fn failed(call: &str, why: impl Display) -> Diagnostic {
    device(743, format!("{call} failed: {why}"))
}

pub(super) fn vendor(why: impl Display) -> Diagnostic {
    device(744, format!("cuBLASLt: {why}"))
        .hint("compile the model with --vendor-gemm off, or install cuBLAS")
}
