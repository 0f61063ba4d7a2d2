//! `qcc check`: a verdict for every node, without data or compiling.

use super::{Output, usage};
use qcc::onnx::{ImportOptions, Model, check};
use qcc::{Compiler, Options};
use qcc_codegen::kernels::build;
use qcc_codegen::target::Target;
use qcc_ir::diag::{Class, Diagnostic, Result};
use serde::Serialize;
use std::path::PathBuf;

/// Arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The model.
    model: PathBuf,
    /// The target.
    #[arg(long, value_name = "T")]
    target: String,
}

#[derive(Serialize)]
struct Checked {
    target: String,
    nodes: Vec<Verdict>,
    unsupported: usize,
}

#[derive(Serialize)]
struct Verdict {
    node: String,
    op: String,
    supported: bool,
    code: Option<String>,
    reason: Option<String>,
    hint: Option<String>,
}

pub(crate) fn run(a: &Args, out: Output) -> Result<()> {
    let target = Target::find(&a.target).ok_or_else(|| {
        usage(format!("there is no target `{}`", a.target)).hint("`qcc targets` lists them")
    })?;
    let model = Model::open(&a.model)?;
    let mut nodes: Vec<Verdict> = check(&model, &ImportOptions::default())?
        .into_iter()
        .map(|v| Verdict {
            supported: v.refused.is_none(),
            code: v.refused.as_ref().map(Diagnostic::code),
            reason: v.refused.as_ref().map(|d| d.message().to_string()),
            hint: v
                .refused
                .as_ref()
                .and_then(|d| d.advice().map(str::to_string)),
            node: v.node,
            op: v.op,
        })
        .collect();
    if nodes.iter().all(|v| v.supported) {
        kernels(&model, target, &mut nodes)?;
    }
    let checked = Checked {
        target: target.name.to_string(),
        unsupported: nodes.iter().filter(|v| !v.supported).count(),
        nodes,
    };
    out.print("check", &checked, text)?;
    match checked.unsupported {
        0 => Ok(()),
        n => Err(Diagnostic::error(
            612,
            Class::Unsupported,
            format!(
                "{n} of {} nodes are not supported on {}",
                checked.nodes.len(),
                checked.target
            ),
        )),
    }
}

/// Refuses the nodes of ops that no kernel of the target serves.
fn kernels(model: &Model, target: &Target, nodes: &mut [Verdict]) -> Result<()> {
    if !target.is_gpu() {
        return Ok(());
    }
    let prepared = Compiler::new(Options::default()).prepare(model)?;
    let Some(f) = prepared.module.funcs.first() else {
        return Ok(());
    };
    for (_, op) in f.ops() {
        let Err(d) = build(&prepared.module, f, op, target) else {
            continue;
        };
        for v in nodes.iter_mut().filter(|v| op.loc.nodes.contains(&v.node)) {
            v.supported = false;
            v.code = Some(d.code());
            v.reason = Some(d.message().to_string());
            v.hint = d.advice().map(str::to_string);
        }
    }
    Ok(())
}

fn text(c: &Checked) -> String {
    let mut t = String::new();
    let mut good: Vec<(&str, usize)> = Vec::new();
    for v in c.nodes.iter().filter(|v| v.supported) {
        match good.iter_mut().find(|(op, _)| *op == v.op) {
            Some((_, n)) => *n += 1,
            None => good.push((&v.op, 1)),
        }
    }
    for (op, n) in good {
        t += &format!("supported    {n:5} × {op}\n");
    }
    for v in c.nodes.iter().filter(|v| !v.supported) {
        t += &format!(
            "unsupported  {} ({}): {}\n",
            v.node,
            v.op,
            v.reason.as_deref().unwrap_or("")
        );
        if let Some(h) = &v.hint {
            t += &format!("             {h}\n");
        }
    }
    t + &format!(
        "{} nodes, {} unsupported on {}\n",
        c.nodes.len(),
        c.unsupported,
        c.target
    )
}
