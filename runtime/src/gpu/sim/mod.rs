//! The simulated GPU: executes the plan's PTX on this machine's processor.
//!
//! It runs kernels one after the other, finds accesses outside of memory, and with
//! [`SimOptions::checks`] also races and reads of memory that nothing wrote. Products of the
//! vendor's library are computed by their definition.

mod gemm;
mod trial;

use ptxsim::{Arg, DevPtr, ElementType, Launch, Memory, Module, OobFill, Options, Simulator};
use ptxsim::{Swizzle, TensorMap};
use qcc_ir::DType;
use qcc_ir::diag::Result;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use trial::{Counters, Extras, Trial, TrialOptions, Trials};

use super::driver::*;
use super::error::{cannot_load, fault, impossible, no_memory};

/// How a GPU is simulated.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SimOptions {
    /// Compute capability, 90 for sm_90; none takes that of the plan's newest section.
    pub sm: Option<u32>,
    /// Threads of the operating system; results do not depend on them.
    pub threads: usize,
    /// Find races and reads of memory that nothing wrote: slower by several times.
    pub checks: bool,
    /// The order in which warps and copies take turns: 0 as early as possible, 1 as late as
    /// possible, others at random.
    pub schedule: u64,
}

impl Default for SimOptions {
    fn default() -> Self {
        SimOptions {
            sm: None,
            threads: 1,
            checks: false,
            schedule: 0,
        }
    }
}

impl SimOptions {
    pub(super) fn simulator(&self) -> Options {
        let base = match self.checks {
            true => Options::default(),
            false => Options::fast(),
        };
        Options {
            schedule_seed: self.schedule,
            threads: self.threads.max(1),
            ..base
        }
    }
}

/// A simulated GPU.
pub(crate) struct SimDriver {
    shared: Arc<Shared>,
}

struct Shared {
    capability: Capability,
    options: Options,
    state: Mutex<State>,
}

/// What is on the device.
#[derive(Default)]
struct State {
    memory: Memory,
    modules: Vec<Arc<Module>>,
    kernels: Vec<(Arc<Module>, Arc<str>)>,
}

impl Shared {
    /// A launch that panicked in another thread leaves the memory usable.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SimDriver {
    /// A simulated chip of compute capability `sm`.
    pub(crate) fn new(sm: u32, options: &SimOptions) -> Self {
        SimDriver {
            shared: Arc::new(Shared {
                capability: Capability {
                    sm,
                    specific: true,
                    vendor: true,
                },
                options: options.simulator(),
                state: Mutex::default(),
            }),
        }
    }
}

impl Driver for SimDriver {
    fn capability(&self, _vendor: bool) -> Capability {
        self.shared.capability
    }

    fn alloc(&self, bytes: u64) -> Result<Address> {
        let found = self.shared.state().memory.alloc(bytes);
        found.map(|p| p.0).map_err(|e| no_memory(bytes, e))
    }

    fn free(&self, at: Address) {
        // INVARIANT: the executor frees what it allocated, once.
        let _ = self.shared.state().memory.free(DevPtr(at));
    }

    fn upload(&self, at: Address, bytes: &[u8]) -> Result<()> {
        self.shared
            .state()
            .memory
            .write(DevPtr(at), bytes)
            .map_err(fault)
    }

    fn load(&self, text: &str) -> Result<usize> {
        let module = Module::parse(text).map_err(cannot_load)?;
        let mut state = self.shared.state();
        state.modules.push(Arc::new(module));
        Ok(state.modules.len() - 1)
    }

    fn kernel(&self, module: usize, symbol: &str) -> Result<usize> {
        let mut state = self.shared.state();
        let found = state.modules.get(module).cloned();
        match found.filter(|m| m.params(symbol).is_some()) {
            Some(m) => {
                state.kernels.push((m, symbol.into()));
                Ok(state.kernels.len() - 1)
            }
            None => Err(cannot_load(format!("the text has no `{symbol}`"))),
        }
    }

    fn tensor_map(&self, map: &TensorMapNumbers<Address>) -> Result<[u8; 128]> {
        let map = TensorMap {
            address: map.address,
            element: element(map.dtype).map_err(impossible)?,
            dims: map.dims.clone(),
            strides: map.strides.clone(),
            box_dims: map.tile.clone(),
            swizzle: match map.swizzle {
                0 => Swizzle::None,
                32 => Swizzle::B32,
                64 => Swizzle::B64,
                128 => Swizzle::B128,
                n => return Err(impossible(format!("a swizzle of {n} bytes"))),
            },
            fill: OobFill::Zero,
        };
        map.encode().map_err(impossible)
    }

    fn stream(&self) -> Result<Box<dyn Stream>> {
        Ok(Box::new(SimStream(self.shared.clone())))
    }
}

fn element(dtype: DType) -> std::result::Result<ElementType, String> {
    Ok(match dtype {
        DType::F16 => ElementType::F16,
        DType::BF16 => ElementType::Bf16,
        DType::F32 => ElementType::F32,
        DType::I32 => ElementType::S32,
        DType::U32 => ElementType::U32,
        DType::I16 | DType::U16 => ElementType::U16,
        DType::I8 | DType::U8 | DType::E4M3 | DType::E5M2 => ElementType::U8,
        other => return Err(format!("a tensor map of {other}")),
    })
}

struct SimStream(Arc<Shared>);

impl Stream for SimStream {
    fn upload(&mut self, at: Address, bytes: &[u8]) -> Result<()> {
        self.0
            .state()
            .memory
            .write(DevPtr(at), bytes)
            .map_err(fault)
    }

    fn download(&mut self, at: Address, bytes: &mut [u8]) -> Result<()> {
        self.0.state().memory.read(DevPtr(at), bytes).map_err(fault)
    }

    fn discard(&mut self, at: Address) -> Result<()> {
        self.0.state().memory.mark_uninit(DevPtr(at)).map_err(fault)
    }

    fn record(&mut self, commands: Vec<Command>) -> Result<Box<dyn Recording>> {
        Ok(Box::new(SimRecording {
            shared: self.0.clone(),
            commands,
        }))
    }
}

struct SimRecording {
    shared: Arc<Shared>,
    commands: Vec<Command>,
}

impl Recording for SimRecording {
    fn play(&mut self) -> Result<()> {
        for command in &self.commands {
            self.shared
                .execute(&command.work)
                .map_err(|d| d.or_at(format!("step {}", command.step)))?;
        }
        Ok(())
    }
}

impl Shared {
    fn execute(&self, work: &Work) -> Result<()> {
        let mut state = self.state();
        match work {
            Work::Launch(l) => {
                let (module, symbol) = state.kernels[l.kernel].clone();
                let simulator = Simulator::new(self.options.clone());
                let launched = simulator.launch(&module, &symbol, &launch(l), &mut state.memory);
                launched.map(drop).map_err(fault)
            }
            Work::Gemm(g) => gemm::run(g, &mut state.memory),
        }
    }
}

/// The launch as the simulator takes it.
pub(super) fn launch(l: &LaunchNumbers<ArgBytes>) -> Launch {
    let arg = |a: &ArgBytes| Arg::Bytes(a.bytes().to_vec());
    Launch {
        cluster: l.cluster.unwrap_or([0; 3]),
        shared_bytes: l.shared,
        ..Launch::new(l.grid, l.block, l.args.iter().map(arg).collect())
    }
}
