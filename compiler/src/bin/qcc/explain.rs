//! `qcc explain`: the ledger of a plan, printed.

use super::{Output, file_error, usage};
use qcc::report::describe;
use qcc_ir::diag::Result;
use qcc_ir::graph::{OpKind, ValueId, parse};
use qcc_ir::ledger::Decision;
use qcc_runtime::{PlanFile, Verify};
use regex::Regex;
use serde::Serialize;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The plan.
    plan: PathBuf,
    /// Only decisions about nodes or weights in whose names this is found, or whose kernel computes
    /// such a node or reads such a weight.
    #[arg(long, value_name = "REGEX")]
    layer: Option<String>,
}

#[derive(Serialize)]
struct Explained {
    decisions: Vec<Decision>,
}

pub(crate) fn run(a: &Args, out: Output) -> Result<()> {
    let regex = match &a.layer {
        None => None,
        Some(r) => Some(Regex::new(r).map_err(|e| usage(format!("--layer: {e}")))?),
    };
    if !a.plan.exists() {
        return Err(file_error(&a.plan, "there is no such file"));
    }
    let file = PlanFile::open(&a.plan, Verify::Lazy)?;
    let readers = regex.as_ref().map(|r| readers(&file, r)).transpose()?;
    let readers = readers.unwrap_or_default();
    let computes = |d: &Decision| names(d).any(|n| readers.contains(n));
    let wanted = |d: &&Decision| regex.as_ref().is_none_or(|r| concerns(d, r)) || computes(d);
    let decisions: Vec<Decision> = file
        .ledger()?
        .decisions()
        .iter()
        .filter(wanted)
        .cloned()
        .collect();
    if let (true, Some(r)) = (decisions.is_empty(), &a.layer) {
        eprintln!(
            "no decision is about `{r}`: it is searched in names of nodes and weights; of what was \
             folded into constants nothing was decided"
        );
    }
    out.print("explain", &Explained { decisions }, |e| {
        let mut t = String::new();
        for (i, d) in e.decisions.iter().enumerate() {
            let same = i > 0 && e.decisions[i - 1].site == d.site;
            t += &text(d, same);
        }
        t
    })
}

/// Whether a pattern is found in the decision's node or weight, in one of several nodes that are
/// one op, or in one that its kernel computes.
fn concerns(d: &Decision, pattern: &Regex) -> bool {
    let mut all = names(d).chain(d.weight.as_deref());
    all.any(|n| pattern.is_match(n))
}

/// The nodes of a decision: those that are one op, and those that its kernel computes.
fn names(d: &Decision) -> impl Iterator<Item = &str> {
    let site = [d.site.as_str()].into_iter().chain(d.site.split(", "));
    site.chain(d.fused.iter().map(String::as_str))
}

/// The first nodes of ops that read a constant in whose name a pattern is found: a bias, a gain, a
/// table. Further nodes may be those that an op makes codes for.
fn readers(file: &PlanFile, pattern: &Regex) -> Result<BTreeSet<String>> {
    let mut nodes = BTreeSet::new();
    for entry in &file.plan().modules {
        let broken = |_| file_error(Path::new(&entry.entry), "it is no module");
        let m = parse(file.text(&entry.entry)?).map_err(broken)?;
        for (f, op) in m
            .funcs
            .iter()
            .flat_map(|f| f.ops.iter().map(move |o| (f, o)))
        {
            let constant = |v: &ValueId| match f.def_op(*v).map(|o| &o.kind) {
                Some(OpKind::Const { weight, .. }) => pattern.is_match(&m.weight(*weight).name),
                _ => false,
            };
            if op.operands.iter().any(constant) {
                nodes.extend(op.loc.nodes.first().cloned());
            }
        }
    }
    Ok(nodes)
}

/// The site, unless it is that of the decision before, the decision, and a line for each reason.
fn text(d: &Decision, same_site: bool) -> String {
    let mut t = match same_site {
        true => String::new(),
        false => format!("{}\n", describe::site(d)),
    };
    t += &format!("  {}: {}\n", describe::topic(d), d.chosen);
    for line in describe::reasons(d) {
        t += &format!("    {line}\n");
    }
    t
}
