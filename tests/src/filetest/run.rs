//! `test run`: the results of the entry function.
//!
//! The oracle defines them. Every other backend must agree: bit for bit in integers, in floats up
//! to the format's own precision. What a backend cannot run is said in the file, with the code of
//! its refusal (`// cpu: Q0711`); a file that says so although it runs is wrong.

use super::data::{Outputs, Tolerance, compare, inputs, names, results, show, tensor};
use super::{Command, Filetest, expect};
use qcc_cpu::{CpuExecutor, CpuOptions, Threads};
use qcc_ir::exec::Executor;
use qcc_ir::graph::Module;
use qcc_ir::{Diagnostic, Tensor};

pub(super) struct Run;

/// The CPU backend on one thread.
pub(super) fn cpu() -> CpuExecutor {
    CpuExecutor::new(CpuOptions::new(Threads::single()))
}

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
                return match run_cpu(&module, &args) {
                    Ok(_) => Err("the CPU backend runs what the oracle refuses".into()),
                    Err(_) => Ok(format!("{d}\n")),
                };
            }
        };
        expect::nothing(&file.errors)?;
        outputs(file, &got)?;
        agree(file, &module, &args, &got)?;
        Ok(got
            .iter()
            .map(|(n, t)| format!("{n}: {}\n", show(t)))
            .collect())
    }
}

fn run_cpu(m: &Module, args: &[Tensor]) -> Result<Vec<Tensor>, Diagnostic> {
    cpu().prepare(m, &[])?.run(args, &mut |_, _| ())
}

/// Compares the CPU backend with the oracle.
fn agree(file: &Filetest, m: &Module, args: &[Tensor], want: &Outputs) -> Result<(), String> {
    let excuse = file.directive("cpu:").next();
    match (run_cpu(m, args), excuse) {
        (Ok(_), Some(_)) => Err("the CPU backend runs this, although the file says not".into()),
        (Err(d), Some(code)) if d.code() == code => Ok(()),
        (Err(d), _) => Err(format!("the CPU backend refuses: {d}")),
        (Ok(got), None) => {
            for ((name, want), got) in want.iter().zip(&got) {
                compare(name, got, want, Tolerance::Format)
                    .map_err(|e| format!("the CPU backend differs from the oracle: {e}"))?;
            }
            Ok(())
        }
    }
}

/// Compares with the results that the file expects.
fn outputs(file: &Filetest, got: &Outputs) -> Result<(), String> {
    for line in file.directive("output") {
        let (data, tolerance) = match line.rsplit_once(" ~ ") {
            Some((data, t)) => {
                let t = t.parse().map_err(|_| format!("`{t}` is no tolerance"))?;
                (data, Tolerance::Real(t))
            }
            None => (line, Tolerance::Bits),
        };
        let (name, want) = tensor(data)?;
        let (_, got) = got
            .iter()
            .find(|(n, _)| *n == name)
            .ok_or_else(|| format!("there is no result `{name}` but {}", names(got)))?;
        compare(&name, got, &want, tolerance)?;
    }
    Ok(())
}
