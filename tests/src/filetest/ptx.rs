//! `test ptx 80`: the PTX of kernels for GPUs of at least this compute capability.
//!
//! The text must assemble for the architecture that it claims, without spills, where there is an
//! assembler; so must a refusal be the one that the comments name.

use super::{Command, Filetest, expect, kernel};
use crate::ptxas;

pub(super) struct Ptx;

impl Command for Ptx {
    fn name(&self) -> &'static str {
        "ptx"
    }

    fn run(&self, file: &Filetest) -> Result<String, String> {
        let kernels = kernel::valid(file)?;
        let floor = file
            .args
            .parse()
            .map_err(|_| format!("`{}` is no compute capability such as 80", file.args))?;
        let module = match qcc_codegen::ptx::emit(&kernels, floor) {
            Ok(m) => m,
            Err(d) => {
                expect::compare(&file.errors, std::slice::from_ref(&d))?;
                return Ok(format!("{d}\n"));
            }
        };
        expect::nothing(&file.errors)?;
        for assembler in ptxas::for_test("filetests/ptx").unwrap_or_default() {
            let info = assembler.assemble(&module.text, &module.arch.to_string())?;
            if let Some(complaint) = info.complaint() {
                return Err(format!("ptxas {}: {complaint}", assembler.name));
            }
        }
        Ok(module.text)
    }
}
