//! `qcc targets`: formats × targets, with the rates that the cost model uses.

use super::Output;
use qcc_codegen::target::{Support, TARGETS};
use qcc_ir::DType;
use qcc_ir::diag::Result;
use serde::Serialize;

/// Arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// Formats of matrix operands that are listed.
const FORMATS: [DType; 7] = [
    DType::F32,
    DType::F16,
    DType::BF16,
    DType::E4M3,
    DType::I8,
    DType::I4,
    DType::E2M1,
];

#[derive(Serialize)]
struct Targets {
    targets: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    name: &'static str,
    summary: &'static str,
    device: &'static str,
    gbps: f64,
    formats: Vec<Format>,
}

#[derive(Serialize)]
struct Format {
    format: &'static str,
    support: &'static str,
    tera_ops: f64,
}

pub(crate) fn run(_: &Args, out: Output) -> Result<()> {
    let row = |t: &'static qcc_codegen::target::Target| Row {
        name: t.name,
        summary: t.summary,
        device: t.device().name,
        gbps: t.device().gbps,
        formats: FORMATS
            .iter()
            .map(|d| Format {
                format: d.name(),
                support: match t.matrix_support(*d) {
                    Support::Native => "native",
                    Support::Emulated => "emulated",
                    Support::None => "none",
                },
                tera_ops: t.matrix_rate(*d) / 1e12,
            })
            .collect(),
    };
    let all = Targets {
        targets: TARGETS.iter().map(row).collect(),
    };
    out.print("targets", &all, text)
}

fn text(all: &Targets) -> String {
    let mut t = format!("{:8} {:14} {:>6}", "target", "device", "GB/s");
    for d in FORMATS {
        t += &format!("  {:>14}", d.name());
    }
    t += "\n";
    for r in &all.targets {
        t += &format!("{:8} {:14} {:>6}", r.name, r.device, r.gbps);
        for f in &r.formats {
            t += &format!("  {:>14}", format!("{} {}", f.support, f.tera_ops));
        }
        t += "\n";
    }
    t + "\nEach format: how matrix products run (none: weights only), and the dense rate in TFLOP/s or TOP/s.\n"
}
