//! `test opt PASS,PASS`: the module after these passes, or the error with which one refuses.
//!
//! With inputs, the results before and after are compared bit for bit, or up to the tolerance
//! that `// set tolerance=…` gives.

use super::data::{Outputs, inputs, results};
use super::options::Settings;
use super::{Command, Filetest, expect};
use qcc_passes::{Manager, PassContext, registry};

pub(super) struct Opt;

impl Command for Opt {
    fn name(&self) -> &'static str {
        "opt"
    }

    fn run(&self, file: &Filetest) -> Result<String, String> {
        let module = file.module()?;
        let settings = Settings::new(file.directive("set"))?;
        let args = inputs(file, &module)?;
        let before = match file.directive("input").next() {
            Some(_) => Some(results(&module, &args)?),
            None => None,
        };
        let passes = registry::parse_list(&file.args).map_err(|d| d.to_string())?;
        let mut ctx = PassContext::new(&settings.passes);
        let after = match Manager::new(passes).run(module, &mut ctx) {
            Ok(out) => out.module,
            Err(d) => {
                expect::compare(&file.errors, std::slice::from_ref(&d))?;
                return Ok(format!("{d}\n"));
            }
        };
        expect::compare(&file.errors, &[])?;
        if let Some(before) = before {
            compare(&before, &results(&after, &args)?, settings.tolerance)?;
        }
        Ok(after.to_string())
    }
}

fn compare(before: &Outputs, after: &Outputs, tolerance: f64) -> Result<(), String> {
    if before.len() != after.len() {
        return Err("the number of results changed".into());
    }
    for ((name, want), (_, got)) in before.iter().zip(after) {
        super::data::compare(name, got, want, tolerance)
            .map_err(|e| format!("the passes changed what is computed: {e}"))?;
    }
    Ok(())
}
