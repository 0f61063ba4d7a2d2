//! A plan on a device: weights and code, shared by any number of sessions.

use qcc_ir::diag::Result;
#[cfg(feature = "cpu")]
use qcc_ir::graph::Module;
use qcc_ir::plan::{Plan, Port, TargetSection};
use std::sync::Arc;

#[cfg(feature = "cuda")]
use crate::gpu::cuda::{CudaDriver, Gpu};
#[cfg(feature = "sim")]
use crate::gpu::sim::{SimDriver, SimOptions};
#[cfg(any(feature = "cuda", feature = "sim"))]
use crate::gpu::{Driver, GpuEngine};
use crate::load::load_module;
use crate::memory::Memory;
use crate::{PlanFile, Session};
#[cfg(feature = "cpu")]
use qcc_cpu::{CpuOptions, CpuProgram, Threads};

/// Where a plan runs.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Device {
    /// The processor, on these threads.
    #[cfg(feature = "cpu")]
    Cpu(Threads),
    /// The NVIDIA GPU of this number, counted from 0: it runs the newest section that is not newer
    /// than the GPU.
    #[cfg(feature = "cuda")]
    Cuda(usize),
    /// A GPU that is simulated on the processor: it executes the PTX of the newest section that
    /// the simulated chip runs.
    #[cfg(feature = "sim")]
    Sim(SimOptions),
}

/// A plan that is ready to run: its code is loaded, its weights are at hand.
///
/// An engine may be shared between threads; each thread runs a [`Session`] of its own.
pub struct Engine {
    file: Arc<PlanFile>,
    /// Position of the section in the manifest's list of targets.
    section: usize,
    device: &'static str,
    pub(crate) backend: Backend,
}

/// A device's form of the plan.
pub(crate) enum Backend {
    #[cfg(feature = "cpu")]
    Cpu(Arc<Module>, CpuProgram),
    #[cfg(any(feature = "cuda", feature = "sim"))]
    Gpu(GpuEngine),
}

impl Engine {
    /// Prepares a plan for a device: parses and checks the section's module, links its weights
    /// and compiles or loads its kernels.
    ///
    /// # Errors
    /// `Q0406` if the plan has no section for the device, `Q0405` and `Q0408` if its module or
    /// section is malformed or does not fit the manifest, `Q0403` if a weight is damaged, `Q0733`,
    /// `Q0734` and `Q0740` to `Q0743` of a GPU, and what the device cannot run.
    pub fn new(file: Arc<PlanFile>, device: Device) -> Result<Arc<Self>> {
        let (device, section, backend) = match device {
            #[cfg(feature = "cpu")]
            Device::Cpu(threads) => {
                let section = file.plan().section_for_cpu(&host_levels())?;
                ("cpu", section, cpu(&file, section, threads)?)
            }
            #[cfg(feature = "cuda")]
            Device::Cuda(ordinal) => {
                let gpu = Gpu::open(ordinal)?;
                let section = file.plan().section_for_gpu(gpu.info().sm)?;
                let driver = Arc::new(CudaDriver::new(gpu));
                ("cuda", section, self::gpu(&file, section, driver)?)
            }
            #[cfg(feature = "sim")]
            Device::Sim(options) => {
                let plan = file.plan();
                let section = match options.sm {
                    Some(sm) => plan.section_for_gpu(sm)?,
                    None => plan.section_for_newest_gpu()?,
                };
                let sm = options.sm.or(section.compute_capability()).unwrap_or(0);
                let driver = Arc::new(SimDriver::new(sm, &options));
                ("sim", section, gpu(&file, section, driver)?)
            }
        };
        let name = &section.target;
        let at = file.plan().targets.iter().position(|t| t.target == *name);
        Ok(Arc::new(Engine {
            section: at.unwrap_or(0),
            device,
            backend,
            file,
        }))
    }

    /// The manifest of the plan.
    pub fn plan(&self) -> &Plan {
        self.file.plan()
    }

    /// The kind of device: `cpu`, `cuda` or `sim`.
    pub fn device(&self) -> &'static str {
        self.device
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
    /// `Q0720` if a symbol has no size or one outside its range, `Q0721` on overflow; of a GPU also
    /// `Q0730` and `Q0731` if it cannot run these sizes.
    pub fn memory(&self, sizes: &[(&str, u64)]) -> Result<Memory> {
        match &self.backend {
            #[cfg(feature = "cpu")]
            Backend::Cpu(module, _) => crate::memory::memory(module, sizes),
            #[cfg(any(feature = "cuda", feature = "sim"))]
            Backend::Gpu(gpu) => gpu.memory(sizes),
        }
    }

    /// A session, which runs on its own.
    pub fn session(self: &Arc<Self>) -> Session {
        Session::new(self.clone())
    }
}

#[cfg(feature = "cpu")]
fn cpu(file: &Arc<PlanFile>, section: &TargetSection, threads: Threads) -> Result<Backend> {
    let module = Arc::new(load_module(file, section)?);
    crate::load::check_cpu_steps(section, &module)?;
    let program = CpuProgram::new(&module, &CpuOptions::new(threads))?;
    Ok(Backend::Cpu(module, program))
}

#[cfg(any(feature = "cuda", feature = "sim"))]
fn gpu(file: &Arc<PlanFile>, section: &TargetSection, driver: Arc<dyn Driver>) -> Result<Backend> {
    let module = Arc::new(load_module(file, section)?);
    GpuEngine::new(file, section, module, driver).map(Backend::Gpu)
}

/// The CPU targets that this machine runs, the best first.
#[cfg(feature = "cpu")]
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
