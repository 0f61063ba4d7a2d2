//! Which device runs a plan: `--device cpu | cuda[:N] | sim[:sm_NN]`, or the default.
//!
//! Without the flag a GPU runs the plan if there is one and the plan has a section for it, else
//! the processor. The simulated GPU is used only on request: it is made for judging kernels.

use qcc_codegen::target::{Machine, TARGETS};
use qcc_ir::diag::{Class, Diagnostic, Result};
use qcc_ir::plan::Plan;
use qcc_runtime::cuda::Gpu;
use qcc_runtime::{Device, Engine, SimOptions, Threads};
use std::str::FromStr;

/// What `--device` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DeviceArg {
    /// This machine's processor.
    Cpu,
    /// A CUDA GPU by its number.
    Cuda(usize),
    /// A simulated GPU, of this compute capability or that of the newest section.
    Sim(Option<u32>),
}

impl FromStr for DeviceArg {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let (kind, which) = match text.split_once(':') {
            Some((kind, which)) => (kind, Some(which)),
            None => (text, None),
        };
        let chip = |w: &str| w.strip_prefix("sm_").and_then(|n| n.parse().ok());
        let found = match (kind, which) {
            ("cpu", None) => Some(DeviceArg::Cpu),
            ("cuda", None) => Some(DeviceArg::Cuda(0)),
            ("cuda", Some(n)) => n.parse().ok().map(DeviceArg::Cuda),
            ("sim", None) => Some(DeviceArg::Sim(None)),
            ("sim", Some(w)) => chip(w).map(|sm| DeviceArg::Sim(Some(sm))),
            _ => None,
        };
        found.ok_or_else(|| "devices are cpu, cuda, cuda:N, sim and sim:sm_NN".into())
    }
}

impl DeviceArg {
    /// The target for which a model that is compiled in memory is built.
    ///
    /// # Errors
    /// A device error if it is a GPU that is not there, or older than every target.
    pub(crate) fn target(arg: Option<DeviceArg>) -> Result<String> {
        match arg {
            None | Some(DeviceArg::Cpu) => Ok("cpu".into()),
            Some(DeviceArg::Sim(Some(sm))) => Ok(format!("sm_{sm}")),
            Some(DeviceArg::Sim(None)) => Ok("sm_80".into()),
            Some(DeviceArg::Cuda(n)) => newest_target(Gpu::open(n)?.info().sm),
        }
    }
}

/// The device for a plan.
///
/// # Errors
/// A device error (exit code 6) if the plan needs a GPU and there is none.
pub(crate) fn choose(arg: Option<DeviceArg>, plan: &Plan, threads: usize) -> Result<Device> {
    match arg {
        Some(DeviceArg::Cpu) => Ok(Device::Cpu(Threads::new(threads)?)),
        Some(DeviceArg::Cuda(n)) => Ok(Device::Cuda(n)),
        Some(DeviceArg::Sim(sm)) => {
            let mut options = SimOptions::default();
            options.sm = sm;
            options.threads = threads;
            Ok(Device::Sim(options))
        }
        None if gpu().is_some_and(|sm| plan.section_for_gpu(sm).is_ok()) => Ok(Device::Cuda(0)),
        None => {
            let gpu = |t: &qcc_ir::plan::TargetSection| t.compute_capability().is_some();
            if !plan.targets.is_empty() && plan.targets.iter().all(gpu) {
                let built: Vec<&str> = plan.target_names().collect();
                return Err(no_gpu(format!(
                    "the plan was built for {}, and there is no CUDA device",
                    built.join(", ")
                )));
            }
            Ok(Device::Cpu(Threads::new(threads)?))
        }
    }
}

/// The compute capability of the first GPU, if there is one that can be used.
fn gpu() -> Option<u32> {
    Gpu::open(0).ok().map(|gpu| gpu.info().sm)
}

/// The newest target that a GPU of this compute capability runs.
///
/// # Errors
/// `Q0701` if it is older than all.
fn newest_target(sm: u32) -> Result<String> {
    let runs = TARGETS.iter().filter_map(|t| match t.machine {
        Machine::Gpu(cc) if cc <= sm => Some((cc, t.name)),
        _ => None,
    });
    let newest = runs.max().map(|(_, name)| name.to_string());
    newest.ok_or_else(|| no_gpu(format!("the GPU is sm_{sm}, older than every target")))
}

fn no_gpu(text: String) -> Diagnostic {
    Diagnostic::error(701, Class::Device, text)
        .hint("run on the simulated GPU (--device sim), or compile with --target cpu")
}

/// The device as messages and documents name it.
pub(crate) fn name(engine: &Engine) -> String {
    engine.device().to_string()
}

/// Whose numerics an engine runs: the scheme, and the section.
pub(crate) fn numerics(engine: &Engine) -> String {
    let options = &engine.plan().options;
    let option = |k: &str| options.get(k).map_or("?", String::as_str);
    let scheme = match options.get("auto") {
        Some(bound) => format!("chosen by {bound}"),
        None => option("scheme").to_string(),
    };
    format!(
        "{scheme} (act {}, smooth {}, float {}), section {}",
        option("act"),
        option("smooth"),
        option("float"),
        engine.target()
    )
}

/// Tells on stderr what was chosen.
pub(crate) fn announce(engine: &Engine) {
    eprintln!("device: {} ({})", name(engine), engine.target());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_named_by_kind_and_number() {
        let parse = |text: &str| text.parse::<DeviceArg>();
        assert_eq!(parse("cpu").unwrap(), DeviceArg::Cpu);
        assert_eq!(parse("cuda").unwrap(), DeviceArg::Cuda(0));
        assert_eq!(parse("cuda:3").unwrap(), DeviceArg::Cuda(3));
        assert_eq!(parse("sim:sm_90").unwrap(), DeviceArg::Sim(Some(90)));
        assert_eq!(newest_target(86).unwrap(), "sm_86");
        assert_eq!(newest_target(120).unwrap(), "sm_90");
        assert!(newest_target(60).is_err());
        for bad in ["gpu", "cpu:1", "cuda:x", "sim:90", "sim:sm_", ""] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
