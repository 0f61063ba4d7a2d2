//! `qcc explain`: the ledger of a plan, printed.

use super::{Output, file_error, usage};
use qcc::report::describe;
use qcc_ir::diag::Result;
use qcc_ir::ledger::Decision;
use qcc_runtime::{PlanFile, Verify};
use regex::Regex;
use serde::Serialize;
use std::path::PathBuf;

/// Arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The plan.
    plan: PathBuf,
    /// Only decisions about nodes or weights in whose names this is found, or whose kernel computes
    /// such a node.
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
    let wanted = |d: &&Decision| regex.as_ref().is_none_or(|r| concerns(d, r));
    let decisions: Vec<Decision> = file
        .ledger()?
        .decisions()
        .iter()
        .filter(wanted)
        .cloned()
        .collect();
    if let (true, Some(r)) = (decisions.is_empty(), &a.layer) {
        eprintln!("no decision is about `{r}`: it is searched in names of nodes and weights");
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
    let names = [d.site.as_str()].into_iter().chain(d.site.split(", "));
    let mut all = names
        .chain(d.weight.as_deref())
        .chain(d.fused.iter().map(String::as_str));
    all.any(|n| pattern.is_match(n))
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
