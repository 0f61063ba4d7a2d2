//! `qcc compare`: outputs of a plan against those of a float model on the same inputs.

use super::Output;
use super::args::SchemeArgs;
use super::device::{self, DeviceArg};
use super::engine;
use qcc::data::Dataset;
use qcc::evaluate::{Difference, Differences};
use qcc_ir::diag::Result;
use serde::Serialize;
use std::path::PathBuf;

/// Arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A plan.
    plan: PathBuf,
    /// The float model.
    model: PathBuf,
    /// Inputs: an .npz with an array for each, or a .npy for the only one; the first axis counts
    /// samples.
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    /// Where to run the plan (the model runs on cpu): cpu, cuda[:N] or sim[:sm_NN] [default: a
    /// GPU that the plan was built for, else cpu].
    #[arg(long, value_name = "DEVICE")]
    device: Option<DeviceArg>,
    /// Threads [default: one per core].
    #[arg(long)]
    threads: Option<usize>,
}

#[derive(Serialize)]
struct Compared {
    device: String,
    numerics: String,
    samples: usize,
    outputs: Vec<Difference>,
}

pub(crate) fn run(a: &Args, out: Output) -> Result<()> {
    let float = SchemeArgs::float(super::args::threads(a.threads));
    let mut plan = engine::open(&a.plan, &float, None, a.device)?;
    device::announce(plan.engine());
    let mut model = engine::open(&a.model, &float, None, Some(DeviceArg::Cpu))?;
    let ports = plan.engine().inputs().to_vec();
    let data = Dataset::open(&a.data, &plan.engine().plan().interface())?;
    let mut differences = Differences::new();
    let mut samples = 0;
    for (first, count) in data.batches(data.len()) {
        let batch = data.batch(first, count)?;
        samples += count;
        let ours = engine::run(&mut plan, &ports, &batch)?;
        let base = engine::run(&mut model, &ports, &batch)?;
        differences.add(&ours, &base)?;
    }
    let compared = Compared {
        device: device::name(plan.engine()),
        numerics: device::numerics(plan.engine()),
        samples,
        outputs: differences.finish(),
    };
    out.print("compare", &compared, |c| {
        let line = |d: &Difference| {
            format!(
                "{}: relative error {:.3e}, cosine {:.8}, top-1 {:.4}, largest difference {:.3e}\n",
                d.name, d.relative_error, d.cosine, d.top1, d.max_abs
            )
        };
        format!("{} samples\n", c.samples) + &c.outputs.iter().map(line).collect::<String>()
    })
}
