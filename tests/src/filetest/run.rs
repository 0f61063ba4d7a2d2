//! `test run`: the results of the entry function on the oracle.

use super::data::{Outputs, compare, inputs, results, show, tensor};
use super::{Command, Filetest, expect};

pub(super) struct Run;

impl Command for Run {
    fn name(&self) -> &'static str {
        "run"
    }

    fn run(&self, file: &Filetest) -> Result<String, String> {
        let module = file.module()?;
        let args = inputs(file, &module)?;
        let got = match qcc_ir::eval::run(&module, &args) {
            Ok(_) => results(&module, &args)?,
            Err(d) => {
                expect::compare(&file.errors, std::slice::from_ref(&d))?;
                return Ok(format!("{d}\n"));
            }
        };
        expect::compare(&file.errors, &[])?;
        outputs(file, &got)?;
        Ok(got
            .iter()
            .map(|(n, t)| format!("{n}: {}\n", show(t)))
            .collect())
    }
}

/// Compares with the results that the file expects.
fn outputs(file: &Filetest, got: &Outputs) -> Result<(), String> {
    for line in file.directive("output") {
        let (data, tolerance) = match line.rsplit_once(" ~ ") {
            Some((data, t)) => (data, t.parse().map_err(|_| format!("tolerance `{t}`"))?),
            None => (line, 0.0),
        };
        let (name, want) = tensor(data)?;
        let (_, got) = got
            .iter()
            .find(|(n, _)| *n == name)
            .ok_or_else(|| format!("there is no result `{name}`"))?;
        compare(&name, got, &want, tolerance)?;
    }
    Ok(())
}
