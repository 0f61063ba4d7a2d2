//! `qcc verify`: each kernel of a plan alone on the simulated GPU, against the evaluator.

use super::{Output, file_error};
use qcc::verify::{Verdict, verify};
use qcc_ir::diag::{Class, Diagnostic, Result};
use qcc_ir::plan::{Kernel, TargetSection};
use qcc_runtime::{Counters, PlanFile, Verify};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

/// Arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A plan with a section for a GPU.
    plan: PathBuf,
    /// Only this target's section.
    #[arg(long, value_name = "T")]
    target: Option<String>,
    /// Also assemble every kernel with NVIDIA's ptxas: this one, or that of PATH. Nothing is
    /// downloaded.
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true,
        default_missing_value = "ptxas")]
    ptxas: Option<PathBuf>,
    /// Threads [default: one per core].
    #[arg(long)]
    threads: Option<usize>,
}

#[derive(Serialize)]
struct Verified {
    kernels: Vec<Judged>,
    failed: usize,
}

#[derive(Serialize)]
struct Judged {
    target: String,
    kernel: String,
    op: String,
    cases: usize,
    refused: usize,
    error: f64,
    failure: Option<String>,
    counters: Counted,
    /// Bytes that ptxas spilled, if it was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    spills: Option<u64>,
}

#[derive(Serialize)]
struct Counted {
    blocks: u64,
    instructions: u64,
    tensor_macs: u64,
    read: u64,
    written: u64,
    moved: u64,
    coalescing: f64,
    conflicts: u64,
}

impl From<Counters> for Counted {
    fn from(c: Counters) -> Self {
        Counted {
            blocks: c.blocks,
            instructions: c.instructions,
            tensor_macs: c.tensor_macs,
            read: c.read,
            written: c.written,
            moved: c.moved,
            coalescing: c.coalescing,
            conflicts: c.conflicts,
        }
    }
}

pub(crate) fn run(a: &Args, out: Output) -> Result<()> {
    let file = Arc::new(PlanFile::open(&a.plan, Verify::Full)?);
    let plan = file.plan();
    let wanted = |t: &&TargetSection| match &a.target {
        Some(name) => t.target == *name,
        None => t.compute_capability().is_some(),
    };
    let sections: Vec<&TargetSection> = plan.targets.iter().filter(wanted).collect();
    if sections.is_empty() {
        // Says which targets there are.
        plan.section(a.target.as_deref().unwrap_or("sm_80"))?;
    }
    let mut kernels = Vec::new();
    for section in sections {
        let verdicts = verify(
            file.clone(),
            &section.target,
            super::args::threads(a.threads),
        )?;
        let mut spills = BTreeMap::new();
        if let Some(ptxas) = &a.ptxas {
            for k in &section.kernels {
                let found = assemble(ptxas, file.text(&k.entry)?, k, &section.target)?;
                spills.insert(k.name.as_str(), found);
            }
        }
        let judged = |v: Verdict| judged(v, &section.target, &spills);
        kernels.extend(verdicts.into_iter().map(judged));
    }
    let failed = kernels.iter().filter(|k| k.failure.is_some()).count();
    let all = kernels.len();
    out.print("verify", &Verified { kernels, failed }, text)?;
    if failed == 0 {
        return Ok(());
    }
    let text = format!("{failed} of {all} kernels are wrong");
    Err(Diagnostic::error(918, Class::Internal, text).at(a.plan.display().to_string()))
}

/// What one assembly said: bytes spilled, or why the text was refused.
type Assembled = std::result::Result<u64, String>;

fn judged(v: Verdict, target: &str, spills: &BTreeMap<&str, Assembled>) -> Judged {
    let assembled = spills.get(v.kernel.as_str());
    let refusal = match assembled {
        Some(Err(why)) => Some(format!("ptxas: {why}")),
        Some(Ok(bytes)) if *bytes > 0 => Some(format!("ptxas spills {bytes} bytes")),
        _ => None,
    };
    Judged {
        target: target.to_string(),
        kernel: v.kernel,
        op: v.op,
        cases: v.cases,
        refused: v.refused,
        error: v.error,
        failure: v.failure.or(refusal),
        counters: v.counters.into(),
        spills: assembled.and_then(|a| a.as_ref().ok().copied()),
    }
}

/// Assembles a kernel for its own architecture and for the section's.
fn assemble(ptxas: &Path, text: &str, kernel: &Kernel, target: &str) -> Result<Assembled> {
    let dir = std::env::temp_dir();
    let input = dir.join(format!("qcc-{}.ptx", std::process::id()));
    let output = dir.join(format!("qcc-{}.cubin", std::process::id()));
    std::fs::write(&input, text).map_err(|e| file_error(&input, e))?;
    let mut spilled = 0;
    let mut result = Ok(());
    let mut architectures = vec![kernel.arch.as_str()];
    if !kernel.arch.ends_with('a') && kernel.arch != target {
        architectures.push(target);
    }
    for arch in architectures {
        let mut command = Command::new(ptxas);
        command
            .args(["-v", "-arch", arch, "-o"])
            .arg(&output)
            .arg(&input);
        let ran = match command.output() {
            Ok(ran) => ran,
            Err(e) => {
                result = Err(
                    Diagnostic::error(702, Class::Device, format!("no ptxas: {e}"))
                        .at(ptxas.display().to_string())
                        .hint("name it: --ptxas=FILE"),
                );
                break;
            }
        };
        let log = String::from_utf8_lossy(&ran.stderr).into_owned();
        if !ran.status.success() {
            let line = log.lines().next().unwrap_or("it failed without a word");
            let _ = (std::fs::remove_file(&input), std::fs::remove_file(&output));
            return Ok(Err(format!("{arch}: {line}")));
        }
        spilled += spills(&log);
    }
    // Files that are gone already need no removing.
    let _ = (std::fs::remove_file(&input), std::fs::remove_file(&output));
    result.map(|()| Ok(spilled))
}

/// The bytes in `… 8 bytes spill stores, 8 bytes spill loads`.
fn spills(log: &str) -> u64 {
    let words: Vec<&str> = log.split_whitespace().collect();
    let bytes = |w: &[&str]| match w {
        [n, "bytes", "spill", ..] => n.parse().unwrap_or(0),
        _ => 0,
    };
    words.windows(3).map(bytes).sum::<u64>()
}

fn text(v: &Verified) -> String {
    let mut s = String::new();
    for k in &v.kernels {
        let c = &k.counters;
        let verdict = match &k.failure {
            None => "ok".to_string(),
            Some(why) => format!("WRONG: {why}"),
        };
        s += &format!(
            "{:<6} {:<28} {:>2} cases  error {:.1e}  {:>7} instructions  {:>8} macs  {:>7} B read  \
             {:>7} B written  coalescing {:.2}  {:>4} conflicts  {verdict}\n",
            k.target,
            k.kernel,
            k.cases,
            k.error,
            c.instructions,
            c.tensor_macs,
            c.read,
            c.written,
            c.coalescing,
            c.conflicts,
        );
    }
    s + &format!("{} kernels, {} wrong\n", v.kernels.len(), v.failed)
}

#[cfg(test)]
mod tests {
    #[test]
    fn spilled_bytes_are_added() {
        let log = "ptxas info : 0 bytes stack frame, 8 bytes spill stores, 12 bytes spill loads\n";
        assert_eq!(super::spills(log), 20);
        assert_eq!(super::spills("ptxas info    : 0 bytes gmem"), 0);
    }
}
