//! `test kernel`: the canonical text of kernels, which reads back as itself, or the errors that
//! the comments name, from the parser or the verifier.

use super::{Command, Filetest, expect};
use qcc_ir::kernel::{Kernel, parse_kernels, verify};

pub(super) struct KernelText;

impl Command for KernelText {
    fn name(&self) -> &'static str {
        "kernel"
    }

    fn run(&self, file: &Filetest) -> Result<String, String> {
        let parsed = match parse_kernels(&file.text) {
            Ok(k) => k,
            Err(e) => {
                expect::compare(&file.errors, &e)?;
                return Ok(expect::show(&e));
            }
        };
        let problems: Vec<_> = parsed.iter().flat_map(verify).collect();
        expect::compare(&file.errors, &problems)?;
        if !problems.is_empty() {
            return Ok(expect::show(&problems));
        }
        let text = print(&parsed);
        let again = parse_kernels(&text).map_err(|e| expect::show(&e))?;
        if print(&again) != text {
            return Err(format!("printed\n{text}\nand read back differently"));
        }
        Ok(text)
    }
}

fn print(kernels: &[Kernel]) -> String {
    let texts: Vec<String> = kernels.iter().map(ToString::to_string).collect();
    texts.join("\n")
}

/// The kernels in a file, which must be valid.
pub(super) fn valid(file: &Filetest) -> Result<Vec<Kernel>, String> {
    let kernels = parse_kernels(&file.text).map_err(|e| expect::show(&e))?;
    let problems: Vec<_> = kernels.iter().flat_map(verify).collect();
    if problems.is_empty() {
        Ok(kernels)
    } else {
        Err(expect::show(&problems))
    }
}
