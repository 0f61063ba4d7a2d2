//! `test verify`: exactly the errors that the comments name, from the parser or the verifier.

use super::{Command, Filetest, expect};
use qcc_ir::graph::{parse, verify};

pub(super) struct Verify;

impl Command for Verify {
    fn name(&self) -> &'static str {
        "verify"
    }

    fn run(&self, file: &Filetest) -> Result<String, String> {
        let errors = match parse(&file.text) {
            Ok(m) => verify(&m),
            Err(e) => e,
        };
        expect::compare(&file.errors, &errors)?;
        Ok(match errors.as_slice() {
            [] => "valid\n".into(),
            e => expect::show(e),
        })
    }
}
