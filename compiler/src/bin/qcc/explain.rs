//! `qcc explain`: the ledger of a plan, printed.

use super::{Output, file_error, usage};
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
    /// Only decisions whose node or weight name matches.
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
    let wanted = |d: &&Decision| {
        regex.as_ref().is_none_or(|r| {
            r.is_match(&d.site) || d.weight.as_deref().is_some_and(|w| r.is_match(w))
        })
    };
    let decisions: Vec<Decision> = file
        .ledger()?
        .decisions()
        .iter()
        .filter(wanted)
        .cloned()
        .collect();
    out.print("explain", &Explained { decisions }, |e| {
        e.decisions.iter().map(text).collect()
    })
}

fn text(d: &Decision) -> String {
    let topic = serde_json::to_value(d.topic).ok();
    let topic = topic
        .as_ref()
        .and_then(|t| t.as_str())
        .unwrap_or("decision");
    let mut t = format!("{topic} of {}", d.site);
    if let Some(w) = &d.weight {
        t += &format!(" ({w})");
    }
    if let Some(x) = &d.target {
        t += &format!(" on {x}");
    }
    t += &format!(": {}\n", d.chosen);
    for c in d
        .considered
        .iter()
        .filter(|c| c.candidate != d.chosen || c.refused_by.is_some())
    {
        t += &format!("  considered {}", c.candidate);
        for (bucket, us) in &c.predicted_us {
            t += &format!(", {us:.2} µs at {bucket}");
        }
        if let Some(e) = c.error {
            t += &format!(", error {e:.3e}");
        }
        if let Some(r) = &c.refused_by {
            t += &format!(": refused, {r}");
        }
        t += "\n";
    }
    if !d.rules.is_empty() {
        t += &format!("  by {}\n", d.rules.join(", "));
    }
    if !d.fused.is_empty() {
        t += &format!("  together with {}\n", d.fused.join(", "));
    }
    t
}
