//! `qcc opt`: passes on the text form of a module.

use super::{Output, file_error};
use qcc_ir::diag::{Class, Diagnostic, Result};
use qcc_passes::{Manager, PassContext, registry};
use serde::Serialize;
use std::path::PathBuf;

/// Arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The module.
    file: PathBuf,
    /// Passes, in order, separated by commas.
    #[arg(long = "pass", value_name = "NAME[,NAME…]", required = true)]
    passes: String,
}

#[derive(Serialize)]
struct Optimized {
    module: String,
}

pub(crate) fn run(a: &Args, out: Output) -> Result<()> {
    let text = std::fs::read_to_string(&a.file).map_err(|e| file_error(&a.file, e))?;
    let module = qcc_ir::graph::parse(&text).map_err(|errors| first(errors, &a.file))?;
    let options = qcc_passes::Options::default();
    let mut ctx = PassContext::new(&options);
    let outcome = Manager::new(registry::parse_list(&a.passes)?).run(module, &mut ctx)?;
    let optimized = Optimized {
        module: outcome.module.to_string(),
    };
    out.print("opt", &optimized, |o| o.module.clone())
}

/// Prints all but the last error, and returns that.
fn first(mut errors: Vec<Diagnostic>, file: &std::path::Path) -> Diagnostic {
    let last = errors.pop();
    for e in &errors {
        eprintln!("{e}");
    }
    last.unwrap_or_else(|| {
        Diagnostic::error(300, Class::Input, "the text is no module").at(file.display().to_string())
    })
}
