//! Plan files and the engine that runs them.
//!
//! [`PlanFile`] opens a compiled model and checks every byte of it, [`PlanWriter`] writes one.
//! An [`Engine`] prepares an open plan for a device; its [`Session`]s run it:
//!
//! ```no_run
//! use qcc_runtime::{Device, Engine, PlanFile, Tensor, Threads, Verify};
//! let plan = PlanFile::open("model.qplan", Verify::Lazy)?;
//! let engine = Engine::new(plan.into(), Device::Cpu(Threads::new(2)?))?;
//! let ids = Tensor::i64(&[1, 3], &[5, 6, 7])?;
//! let outputs = engine.session().run(&[("input_ids", &ids)])?;
//! println!("{}: {:?}", outputs[0].0, outputs[0].1.dims());
//! # Ok::<(), qcc_ir::Diagnostic>(())
//! ```
//!
//! Devices are cargo features, all on by default: [`Device::Cpu`] runs a plan's CPU section,
//! [`Device::Cuda`] runs an `sm_*` section on an NVIDIA GPU, [`Device::Sim`] executes its PTX on the
//! processor.
//!
//! Nothing here prints, reads the environment, opens a path that it was not given, or uses a
//! pool of threads that is not the caller's.
#![warn(missing_docs)]

mod engine;
#[cfg(any(feature = "cuda", feature = "sim"))]
mod gpu;
mod load;
mod memory;
pub mod plan_file;
mod session;

pub use engine::{Device, Engine};
#[cfg(feature = "cuda")]
pub use gpu::cuda;
#[cfg(feature = "sim")]
pub use gpu::sim::{Counters, Extras, SimOptions, Trial, TrialOptions, Trials};
pub use memory::Memory;
pub use plan_file::{PlanContents, PlanFile, PlanWriter, Verify};
#[cfg(feature = "cpu")]
pub use qcc_cpu::Threads;
pub use qcc_ir::Tensor;
pub use session::Session;
