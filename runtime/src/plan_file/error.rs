//! The errors of plan files, one function per code.
//!
//! | code | meaning |
//! |---|---|
//! | Q0400 | the file system refused to read |
//! | Q0401 | not a plan file |
//! | Q0402 | the file is longer or shorter than its header says |
//! | Q0403 | bytes do not match their hash |
//! | Q0404 | written in another major version of the format |
//! | Q0405 | malformed header, manifest or text |
//! | Q0406 | no section for the wanted target |
//! | Q0407 | a size is over the limits |
//! | Q0408 | the manifest contradicts itself or the entries of the file |
//! | Q0409 | the file system refused to write |
//! | Q0410 | the bytes written do not fit what was declared |

use qcc_ir::diag::{Class, Diagnostic};
use qcc_ir::plan::FormatVersion;
use std::fmt::Display;
use std::io;
use std::path::Path;

const COMPILE_AGAIN: &str = "compile the model again, or copy the file again from its source";

pub(super) fn cannot_read(path: &Path, e: &io::Error) -> Diagnostic {
    let text = format!("cannot read the plan: {e}");
    Diagnostic::error(400, Class::Input, text).at(path.display().to_string())
}

pub(super) fn not_a_plan(why: impl Display) -> Diagnostic {
    Diagnostic::error(401, Class::Input, format!("this is not a plan file: {why}"))
        .hint("a plan is what `qcc compile` writes")
}

pub(super) fn wrong_length(promised: u64, found: u64) -> Diagnostic {
    let what = if found < promised {
        "cut off"
    } else {
        "too long"
    };
    Diagnostic::error(
        402,
        Class::Input,
        format!("the plan is {what}: its header promises {promised} bytes, it has {found}"),
    )
    .hint(COMPILE_AGAIN)
}

pub(super) fn damaged(entry: &str, offset: u64) -> Diagnostic {
    let text = format!("the plan is damaged: `{entry}` does not match its hash near byte {offset}");
    Diagnostic::error(403, Class::Input, text).hint(COMPILE_AGAIN)
}

pub(super) fn other_version(found: FormatVersion) -> Diagnostic {
    let ours = FormatVersion::CURRENT;
    let text = format!("the plan has format version {found}, this qcc reads {ours}");
    let hint = if found.major > ours.major {
        "update qcc, or compile the model again with this one"
    } else {
        "compile the model again with this qcc"
    };
    Diagnostic::error(404, Class::Input, text).hint(hint)
}

pub(crate) fn malformed(what: impl Display) -> Diagnostic {
    Diagnostic::error(405, Class::Input, format!("the plan is malformed: {what}"))
        .hint(COMPILE_AGAIN)
}

pub(super) fn over_limit(what: &str, found: u64, limit: u64) -> Diagnostic {
    let text = format!("the plan's {what} is too large: {found} bytes, the limit is {limit}");
    Diagnostic::error(407, Class::Input, text)
}

pub(crate) fn contradicts(what: impl Display) -> Diagnostic {
    let text = format!("the plan contradicts itself: {what}");
    Diagnostic::error(408, Class::Input, text).hint(COMPILE_AGAIN)
}

pub(super) fn cannot_write(path: &Path, needed: u64, e: &io::Error) -> Diagnostic {
    let text = format!("cannot write the plan ({needed} bytes): {e}");
    Diagnostic::error(409, Class::Input, text)
        .at(path.display().to_string())
        .hint("an older file of that name, if there was one, is as it was")
}

pub(super) fn misfit(what: impl Display) -> Diagnostic {
    let text = format!("the plan cannot be written: {what}");
    Diagnostic::error(410, Class::Internal, text)
}
