//! The errors of GPU devices, one function per code.
//!
//! | code | meaning |
//! |---|---|
//! | Q0408 | the section contradicts itself (see the plan file's errors) |
//! | Q0721 | a size is larger than 2^64, or negative |
//! | Q0730 | a launch is impossible at these sizes |
//! | Q0731 | no way to run a step applies |
//! | Q0732 | a kernel was at fault |
//! | Q0733 | the device has not enough memory |
//! | Q0734 | the device cannot load a kernel |

use qcc_ir::DimExpr;
use qcc_ir::diag::{Class, Diagnostic};
use std::fmt::Display;

pub(crate) fn no_size(expr: &DimExpr) -> Diagnostic {
    let text = format!("`{expr}` has no value from 0 to 2^63 at these sizes");
    Diagnostic::error(721, Class::Input, text)
}

pub(crate) fn impossible(what: impl Display) -> Diagnostic {
    let text = format!("the launch is impossible at these sizes: {what}");
    Diagnostic::error(730, Class::Unsupported, text)
        .hint("compile the model with a smaller range (--dims)")
}

pub(crate) fn no_choice(sm: u32) -> Diagnostic {
    let text = format!("none of the step's kernels runs on sm_{sm} at these sizes");
    Diagnostic::error(731, Class::Unsupported, text)
        .hint("compile the model again, for this device")
}

pub(crate) fn fault(what: impl Display) -> Diagnostic {
    Diagnostic::error(732, Class::Device, format!("a kernel failed: {what}"))
}

pub(crate) fn no_memory(bytes: u64, why: impl Display) -> Diagnostic {
    let text = format!("the device cannot give {bytes} bytes: {why}");
    Diagnostic::error(733, Class::Device, text)
}

pub(crate) fn cannot_load(why: impl Display) -> Diagnostic {
    Diagnostic::error(734, Class::Device, format!("cannot load the kernel: {why}"))
}
