//! `qcc inspect`: what a plan holds, read from its manifest.

use super::Output;
use qcc_ir::diag::Result;
use qcc_ir::plan::{Plan, Port, WeightEntry};
use qcc_runtime::{PlanFile, Verify};
use serde::Serialize;
use std::path::PathBuf;

/// Arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The plan.
    plan: PathBuf,
}

#[derive(Serialize)]
struct Inspected<'a> {
    file_bytes: u64,
    root: String,
    plan: &'a Plan,
}

pub(crate) fn run(a: &Args, out: Output) -> Result<()> {
    let file = PlanFile::open(&a.plan, Verify::Lazy)?;
    let inspected = Inspected {
        file_bytes: file.file_len(),
        root: file.root().0.iter().map(|b| format!("{b:02x}")).collect(),
        plan: file.plan(),
    };
    out.print("inspect", &inspected, text)
}

fn port(kind: &str, p: &Port) -> String {
    format!("{kind:9} {}: {}[{}]\n", p.name, p.dtype, p.dims.join(", "))
}

fn text(i: &Inspected<'_>) -> String {
    let p = i.plan;
    let mut t = format!(
        "plan      format {}, made by qcc {}, {} bytes\n",
        p.format, p.qcc_version, i.file_bytes
    );
    t += &format!("root      {}\nmodel     {}\n", i.root, p.model_hash);
    let options: Vec<String> = p.options.iter().map(|(k, v)| format!("{k}={v}")).collect();
    t += &format!("options   {}\n", options.join(" "));
    t += &p
        .inputs
        .iter()
        .map(|x| port("input", x))
        .collect::<String>();
    t += &p
        .outputs
        .iter()
        .map(|x| port("output", x))
        .collect::<String>();
    for s in &p.symbols {
        t += &format!("dim       {} = {}..{}\n", s.name, s.min, s.max);
    }
    for s in &p.targets {
        t += &format!(
            "target    {}: module {}, {} steps, {} kernels",
            s.target,
            s.module,
            s.steps.len(),
            s.kernels.len()
        );
        if let Some(d) = &s.min_driver {
            t += &format!(", driver {d} or newer");
        }
        t += "\n";
    }
    let mut formats: Vec<(String, usize, u64)> = Vec::new();
    for w in &p.weights {
        let name = match w.layout.as_str() {
            WeightEntry::ROW_MAJOR => w.dtype.to_string(),
            layout => format!("{} as {layout}", w.dtype),
        };
        match formats.iter_mut().find(|(n, ..)| *n == name) {
            Some((_, count, bytes)) => {
                *count += 1;
                *bytes += w.bytes;
            }
            None => formats.push((name, 1, w.bytes)),
        }
    }
    for (name, count, bytes) in formats {
        t += &format!("weights   {count} × {name}, {bytes} bytes\n");
    }
    t
}
