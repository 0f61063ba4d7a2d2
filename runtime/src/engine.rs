//! A plan on a device: weights and code, shared by any number of sessions.

use qcc_cpu::{CpuOptions, CpuProgram, Threads};
use qcc_ir::diag::Result;
use qcc_ir::graph::Module;
use qcc_ir::plan::{Plan, Port};
use std::sync::Arc;

use crate::load::{check_cpu_steps, load_module};
use crate::memory::{self, Memory};
use crate::{PlanFile, Session};

/// Where a plan runs.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Device {
    /// The processor, on these threads.
    Cpu(Threads),
}

/// A plan that is ready to run: its code is compiled, its weights are at hand.
///
/// An engine may be shared between threads; each thread runs a [`Session`] of its own.
pub struct Engine {
    file: Arc<PlanFile>,
    /// Position of the section in the manifest's list of targets.
    section: usize,
    module: Arc<Module>,
    program: CpuProgram,
}

impl Engine {
    /// Prepares a plan for a device: parses and checks the section's module, links its weights
    /// and compiles its kernels.
    ///
    /// # Errors
    /// `Q0406` if the plan has no section for the device, `Q0405` and `Q0408` if its module is
    /// malformed or does not fit the manifest, `Q0403` if a weight is damaged, and what the
    /// device cannot run.
    pub fn new(file: Arc<PlanFile>, device: Device) -> Result<Arc<Self>> {
        let Device::Cpu(threads) = device;
        let section = file.plan().section_for_cpu(&host_levels())?;
        let index = file
            .plan()
            .targets
            .iter()
            .position(|t| t.target == section.target);
        let module = Arc::new(load_module(&file, section)?);
        check_cpu_steps(section, &module)?;
        let program = CpuProgram::new(&module, &CpuOptions::new(threads))?;
        Ok(Arc::new(Engine {
            section: index.unwrap_or(0),
            module,
            program,
            file,
        }))
    }

    /// The manifest of the plan.
    pub fn plan(&self) -> &Plan {
        self.file.plan()
    }

    /// The target whose section runs: whose numerics these are.
    pub fn target(&self) -> &str {
        &self.plan().targets[self.section].target
    }

    /// The inputs, in the order of the model.
    pub fn inputs(&self) -> &[Port] {
        &self.plan().inputs
    }

    /// The outputs, in the order of the model.
    pub fn outputs(&self) -> &[Port] {
        &self.plan().outputs
    }

    /// What a run needs if the symbols have these sizes.
    ///
    /// # Errors
    /// `Q0720` if a symbol has no size or one outside its range, `Q0721` on overflow.
    pub fn memory(&self, sizes: &[(&str, u64)]) -> Result<Memory> {
        memory::memory(&self.module, sizes)
    }

    /// A session, which runs on its own.
    pub fn session(self: &Arc<Self>) -> Session {
        Session::new(self.clone())
    }

    pub(crate) fn program(&self) -> &CpuProgram {
        &self.program
    }
}

/// The CPU targets that this machine runs, the best first.
fn host_levels() -> Vec<&'static str> {
    let mut levels = vec!["cpu"];
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::is_x86_feature_detected as has;
        let v3 = has!("avx2")
            && has!("fma")
            && has!("bmi1")
            && has!("bmi2")
            && has!("f16c")
            && has!("lzcnt")
            && has!("movbe");
        let v4 = has!("avx512f")
            && has!("avx512bw")
            && has!("avx512cd")
            && has!("avx512dq")
            && has!("avx512vl");
        if v3 {
            levels.insert(0, "x86-64-v3");
        }
        if v3 && v4 {
            levels.insert(0, "x86-64-v4");
        }
    }
    levels
}
