//! Runs a program on a device: weights once for each engine, the other memory for each session.
//!
//! A session allocates an arena, and memory for each input and output, when it first needs them,
//! and again only when a run needs more. The commands of a run depend on the sizes alone as long
//! as that memory stays, so they are recorded once for each set of sizes.

use qcc_ir::Tensor;
use qcc_ir::bind::{Sizes, bind_inputs};
use qcc_ir::diag::{Class, Diagnostic, Result};
use qcc_ir::graph::Module;
use qcc_ir::plan::{TargetSection, VENDOR};
use std::sync::Arc;

use super::bound::{Addresses, Bound};
use super::driver::{Address, Driver, Recording, Stream};
use super::faults::{self, Faults};
use super::program::{Place, Program};
use crate::memory::Memory;
use crate::plan_file::error::contradicts;
use crate::{PlanFile, memory};

/// Bytes that are copied to the device at a time.
const CHUNK: usize = 64 << 20;
/// Sets of sizes whose commands a session keeps.
const RECORDINGS: usize = 32;

/// An allocation, freed with its owner.
struct Block {
    driver: Arc<dyn Driver>,
    at: Address,
    bytes: u64,
}

impl Block {
    fn new(driver: &Arc<dyn Driver>, bytes: u64) -> Result<Self> {
        Ok(Block {
            at: driver.alloc(bytes.max(1))?,
            driver: driver.clone(),
            bytes,
        })
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.driver.free(self.at);
    }
}

/// A plan's GPU section on a device.
pub(crate) struct GpuEngine {
    module: Arc<Module>,
    program: Program,
    /// The device's numbers of the program's kernels.
    kernels: Vec<usize>,
    weights: Vec<Block>,
    driver: Arc<dyn Driver>,
}

impl GpuEngine {
    /// Resolves the section, loads its kernels and copies its weights to the device.
    ///
    /// # Errors
    /// `Q0408` if the section contradicts itself, `Q0403` if a weight is damaged, and what the
    /// device refuses.
    pub(crate) fn new(
        file: &PlanFile,
        section: &TargetSection,
        module: Arc<Module>,
        driver: Arc<dyn Driver>,
    ) -> Result<Self> {
        let ways = section.steps.iter().flat_map(|s| &s.run);
        let vendor = ways.flat_map(|w| &w.requires).any(|r| r == VENDOR);
        let program = Program::resolve(file.plan(), section, driver.capability(vendor))?;
        let kernels = load_kernels(file, section, &program, &*driver)?;
        let mut weights = Vec::with_capacity(program.weights.len());
        for at in &program.weights {
            weights.push(upload_weight(file, *at, &driver)?);
        }
        Ok(GpuEngine {
            module,
            program,
            kernels,
            weights,
            driver,
        })
    }

    /// What a run needs at these sizes.
    ///
    /// # Errors
    /// `Q0720` if a symbol has no size or one outside its range, and as [`Program::bind`].
    pub(crate) fn memory(&self, sizes: &[(&str, u64)]) -> Result<Memory> {
        let bound = self
            .program
            .bind(&memory::checked_sizes(&self.module, sizes)?)?;
        Ok(Memory {
            weights: sum(self.weights.iter().map(|w| w.bytes))?,
            intermediates: bound.arena,
            workspace: sum([self.program.workspace, self.fault_bytes()].into_iter())?,
            inputs: sum(bound.inputs.iter().copied())?,
            outputs: sum(bound.outputs.iter().map(|(_, bytes)| *bytes))?,
        })
    }

    /// Bytes of all fault words.
    fn fault_bytes(&self) -> u64 {
        self.program.faults.len() as u64 * faults::BYTES
    }

    /// A session's part of the device.
    ///
    /// # Errors
    /// Those of the device.
    pub(crate) fn session(&self) -> Result<GpuSession> {
        let words = Block::new(&self.driver, self.fault_bytes())?;
        Ok(GpuSession {
            recorded: Vec::new(),
            faults: Faults::new(words.at),
            words,
            arena: None,
            workspace: None,
            inputs: Vec::new(),
            outputs: Vec::new(),
            stream: self.driver.stream()?,
        })
    }
}

fn sum(mut bytes: impl Iterator<Item = u64>) -> Result<u64> {
    let sum = bytes.try_fold(0u64, |sum, b| sum.checked_add(b));
    sum.ok_or_else(memory::too_large)
}

/// Loads each kernel that the program uses, each text once.
fn load_kernels(
    file: &PlanFile,
    section: &TargetSection,
    program: &Program,
    driver: &dyn Driver,
) -> Result<Vec<usize>> {
    let mut modules: Vec<(&str, usize)> = Vec::new();
    let mut kernels = Vec::with_capacity(program.kernels.len());
    for at in &program.kernels {
        let k = &section.kernels[*at];
        let place = |d: Diagnostic| d.or_at(format!("kernel {}", k.name));
        let module = match modules.iter().find(|(entry, _)| *entry == k.entry) {
            Some((_, module)) => *module,
            None => {
                let module = driver.load(file.text(&k.entry)?).map_err(place)?;
                modules.push((&k.entry, module));
                module
            }
        };
        kernels.push(driver.kernel(module, &k.symbol).map_err(place)?);
    }
    Ok(kernels)
}

fn upload_weight(file: &PlanFile, at: usize, driver: &Arc<dyn Driver>) -> Result<Block> {
    let bytes = file.weight(&file.plan().weights[at])?;
    let block = Block::new(driver, bytes.len() as u64)?;
    for (i, chunk) in bytes.chunks(CHUNK).enumerate() {
        driver.upload(block.at + (i * CHUNK) as u64, chunk)?;
    }
    Ok(block)
}

/// One session's memory and recorded commands. The fields are dropped in this order: nothing that
/// is recorded outlives the memory that it mentions.
pub(crate) struct GpuSession {
    /// The last used at the end.
    recorded: Vec<Recorded>,
    faults: Faults,
    /// The memory of `faults`.
    words: Block,
    arena: Option<Block>,
    workspace: Option<Block>,
    inputs: Vec<Block>,
    outputs: Vec<Block>,
    stream: Box<dyn Stream>,
}

struct Recorded {
    sizes: Sizes,
    outputs: Vec<Vec<u64>>,
    recording: Box<dyn Recording>,
}

impl GpuSession {
    /// Runs on inputs in the order of the model.
    ///
    /// # Errors
    /// `Q0505` if an input's type or shape does not fit or a size lies outside its range, `Q0705`
    /// for an index outside of its table, errors of [`Program::bind`], and those of the device.
    pub(crate) fn run(&mut self, engine: &GpuEngine, inputs: &[&Tensor]) -> Result<Vec<Tensor>> {
        let Some(func) = engine.module.funcs.first() else {
            return Err(contradicts("the module has no function"));
        };
        let sizes = bind_inputs(&engine.module, func, inputs)?;
        self.prepare(engine, sizes)?;
        for (block, tensor) in self.inputs.iter().zip(inputs) {
            self.stream.upload(block.at, tensor.bytes())?;
        }
        for block in self.arena.iter().chain(&self.outputs) {
            self.stream.discard(block.at)?;
        }
        let checks = engine.program.faults.len();
        self.faults.arm(checks, &mut *self.stream)?;
        // INVARIANT: `prepare` leaves the commands for these sizes at the end.
        let Some(ready) = self.recorded.last_mut() else {
            return Err(Diagnostic::error(
                916,
                Class::Internal,
                "nothing is recorded",
            ));
        };
        ready.recording.play()?;
        let ports = engine.program.outputs.iter().zip(&ready.outputs);
        let mut results = Vec::with_capacity(self.outputs.len());
        for ((port, dims), block) in ports.zip(&self.outputs) {
            let mut t = Tensor::zeros(port.dtype, dims)?;
            self.stream.download(block.at, t.bytes_mut())?;
            results.push(t);
        }
        match self.faults.read(checks, &mut *self.stream)? {
            None => Ok(results),
            Some(f) => Err(f.diagnostic(&engine.program, &engine.module, &ready.sizes)),
        }
    }

    /// Microseconds that the device needs for the last run again, without the copies of inputs and
    /// outputs: the mean of some repetitions. None before the first run, and where time has no
    /// meaning.
    ///
    /// # Errors
    /// Those of the device.
    pub(crate) fn micros(&mut self, repetitions: u32) -> Result<Option<f64>> {
        match self.recorded.last_mut() {
            Some(r) => r.recording.micros(repetitions),
            None => Ok(None),
        }
    }

    /// Makes the commands for these sizes the last of the list.
    fn prepare(&mut self, engine: &GpuEngine, sizes: Sizes) -> Result<()> {
        if let Some(at) = self.recorded.iter().position(|r| r.sizes == sizes) {
            self.recorded[at..].rotate_left(1);
            return Ok(());
        }
        let bound = engine.program.bind(&sizes)?;
        self.reserve(engine, &bound)?;
        let addresses = Addresses {
            driver: &*engine.driver,
            kernels: &engine.kernels,
            at: &|place| self.address(engine, &bound, place),
        };
        let commands = bound
            .calls
            .iter()
            .map(|call| {
                let place = |d: Diagnostic| d.or_at(format!("step {}", call.op));
                addresses.command(call).map_err(place)
            })
            .collect::<Result<_>>()?;
        if self.recorded.len() == RECORDINGS {
            self.recorded.remove(0);
        }
        self.recorded.push(Recorded {
            sizes,
            recording: self.stream.record(commands)?,
            outputs: bound.outputs.into_iter().map(|(dims, _)| dims).collect(),
        });
        Ok(())
    }

    /// Allocates what is missing. Recordings of memory that moves are dropped before it is freed.
    fn reserve(&mut self, engine: &GpuEngine, bound: &Bound) -> Result<()> {
        let outputs: Vec<u64> = bound.outputs.iter().map(|(_, bytes)| *bytes).collect();
        let driver = &engine.driver;
        let one = |block: &Option<Block>, bytes| block.as_ref().is_some_and(|b| b.bytes >= bytes);
        let all = |blocks: &[Block], bytes: &[u64]| {
            blocks.len() == bytes.len() && blocks.iter().zip(bytes).all(|(b, n)| b.bytes >= *n)
        };
        let enough = one(&self.arena, bound.arena)
            && one(&self.workspace, engine.program.workspace)
            && all(&self.inputs, &bound.inputs)
            && all(&self.outputs, &outputs);
        if enough {
            return Ok(());
        }
        self.recorded.clear();
        grow(driver, &mut self.arena, bound.arena)?;
        grow(driver, &mut self.workspace, engine.program.workspace)?;
        grow_all(driver, &mut self.inputs, &bound.inputs)?;
        grow_all(driver, &mut self.outputs, &outputs)
    }

    fn address(&self, engine: &GpuEngine, bound: &Bound, place: Place) -> Address {
        // INVARIANT: `reserve` allocated everything that `bound` mentions.
        let at = |block: &Option<Block>| block.as_ref().map_or(0, |b| b.at);
        match place {
            Place::Input(i) => self.inputs[i].at,
            Place::Output(i) => self.outputs[i].at,
            Place::Buffer(i) => at(&self.arena) + bound.buffers[i].0,
            Place::Weight(i) => engine.weights[i].at,
            Place::Workspace => at(&self.workspace),
            Place::Faults(i) => self.words.at + i as u64 * faults::BYTES,
        }
    }
}

/// Makes a block large enough; its contents are lost if it moves.
fn grow(driver: &Arc<dyn Driver>, block: &mut Option<Block>, bytes: u64) -> Result<()> {
    if block.as_ref().is_none_or(|b| b.bytes < bytes) {
        *block = None;
        *block = Some(Block::new(driver, bytes)?);
    }
    Ok(())
}

fn grow_all(driver: &Arc<dyn Driver>, blocks: &mut Vec<Block>, bytes: &[u64]) -> Result<()> {
    let mut old = std::mem::take(blocks).into_iter();
    for bytes in bytes {
        let mut block = old.next();
        grow(driver, &mut block, *bytes)?;
        blocks.extend(block);
    }
    Ok(())
}
