//! The `qcc` command: arguments in, results to stdout, progress and warnings to stderr.
//!
//! Each command is a file of its own: its flags, and what it prints. With `--json` a command
//! prints one JSON document, which carries `schema` and `qcc_version`.

mod args;
mod bar;
mod calibrate;
mod check;
mod choice;
mod compare;
mod compile;
mod device;
mod engine;
mod eval;
mod explain;
mod inspect;
mod opt;
mod run;
mod summary;
mod targets;
mod verify;

use clap::{Parser, Subcommand};
use qcc_ir::Diagnostic;
use qcc_ir::diag::Class;
use serde::Serialize;
use std::process::ExitCode;

/// Quantization compiler: ONNX in, quantized plan out.
#[derive(Debug, Parser)]
#[command(name = "qcc", version, max_term_width = 100)]
struct Cli {
    /// Print one JSON document instead of text.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Say for every node whether it can be compiled, without data or compiling.
    Check(check::Args),
    /// Quantize a model and write a plan.
    Compile(compile::Args),
    /// Gather statistics of a model on data, for later compilations.
    Calibrate(calibrate::Args),
    /// Run a plan or a model once.
    Run(run::Args),
    /// Measure the perplexity of a language model, and its divergence from a float baseline.
    Eval(eval::Args),
    /// Compare the outputs of a plan with those of a model on the same inputs.
    Compare(compare::Args),
    /// Judge every GPU kernel of a plan, alone, against the reference evaluator.
    Verify(verify::Args),
    /// Print what a plan holds.
    Inspect(inspect::Args),
    /// Print what was chosen for each layer, what it was chosen over, and why.
    Explain(explain::Args),
    /// Run passes on the text form of a module.
    Opt(opt::Args),
    /// List targets and the formats they execute.
    Targets(targets::Args),
}

/// What every command is told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    json: bool,
}

impl Output {
    /// Prints a document as JSON, or `text` of it.
    fn print<T: Serialize>(
        self,
        schema: &str,
        document: &T,
        text: impl FnOnce(&T) -> String,
    ) -> qcc_ir::diag::Result<()> {
        if !self.json {
            print!("{}", text(document));
            return Ok(());
        }
        #[derive(Serialize)]
        struct Envelope<'a, T> {
            schema: String,
            qcc_version: &'static str,
            #[serde(flatten)]
            document: &'a T,
        }
        let envelope = Envelope {
            schema: format!("qcc.{schema}/1"),
            qcc_version: env!("CARGO_PKG_VERSION"),
            document,
        };
        let text = serde_json::to_string_pretty(&envelope);
        let text = text.map_err(|e| Diagnostic::error(914, Class::Internal, e.to_string()))?;
        println!("{text}");
        Ok(())
    }
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            // Help and version are no errors; a failing write to a closed pipe changes nothing.
            let _ = e.print();
            return if e.use_stderr() {
                ExitCode::from(2)
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    let out = Output { json: cli.json };
    let result = match cli.command {
        Command::Check(a) => check::run(&a, out),
        Command::Compile(a) => compile::run(&a, out),
        Command::Calibrate(a) => calibrate::run(&a, out),
        Command::Run(a) => run::run(&a, out),
        Command::Eval(a) => eval::run(&a, out),
        Command::Compare(a) => compare::run(&a, out),
        Command::Verify(a) => verify::run(&a, out),
        Command::Inspect(a) => inspect::run(&a, out),
        Command::Explain(a) => explain::run(&a, out),
        Command::Opt(a) => opt::run(&a, out),
        Command::Targets(a) => targets::run(&a, out),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(d) => {
            report(&d, out);
            ExitCode::from(d.class().exit_code())
        }
    }
}

/// Prints an error: to stderr, or as the JSON document.
fn report(d: &Diagnostic, out: Output) {
    if !out.json {
        eprintln!("{d}");
        return;
    }
    let error = qcc::Notice::of(d);
    println!(
        "{}",
        serde_json::json!({ "schema": "qcc.error/1", "qcc_version": env!("CARGO_PKG_VERSION"), "error": error })
    );
}

/// Prints warnings to stderr.
pub(crate) fn warn(warnings: &[Diagnostic]) {
    for w in warnings {
        eprintln!("{w}");
    }
}

/// A mistake in the arguments.
pub(crate) fn usage(message: impl Into<String>) -> Diagnostic {
    Diagnostic::error(11, Class::Usage, message)
}

/// A file that cannot be read or written.
pub(crate) fn file_error(path: &std::path::Path, e: impl std::fmt::Display) -> Diagnostic {
    Diagnostic::error(12, Class::Input, e.to_string()).at(path.display().to_string())
}
