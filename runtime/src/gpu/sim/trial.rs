//! One step of a plan alone on the simulator: what a judge of kernels needs.
//!
//! Every value that the step's launches mention has an allocation of its own between gaps, so an
//! access outside of a value is found even where the plan's arena would hide it. Races and reads
//! of memory that nothing wrote are looked for.

use ptxsim::{DevPtr, Memory, Module, Options, Report, Simulator};
use qcc_ir::bind::Sizes;
use qcc_ir::diag::{Diagnostic, Result};
use qcc_ir::graph;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::bound::{Addresses, Bound, Call, Placed, PlacedArg};
use super::super::driver::{Address, Work};
use super::super::error::{cannot_load, fault, no_memory};
use super::super::faults;
use super::super::program::{Place, Program};
use super::{SimDriver, SimOptions, gemm, launch};
use crate::PlanFile;
use crate::load::load_module;
use crate::plan_file::error::contradicts;

/// A GPU section whose steps can be run one at a time.
pub struct Trials {
    file: Arc<PlanFile>,
    section: usize,
    module: graph::Module,
    program: Program,
    texts: Vec<Arc<Module>>,
    driver: SimDriver,
}

/// What a simulated chip has beyond its portable instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Extras {
    /// Instructions of its own architecture, and the vendor's library.
    #[default]
    All,
    /// Instructions of its own architecture, as `sm_90a`.
    Instructions,
    /// Nothing: it runs what newer chips run.
    Nothing,
}

/// How a step is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct TrialOptions {
    /// As [`SimOptions::schedule`].
    pub schedule: u64,
    /// Tensor cores truncate sums as Hopper's do, instead of adding exactly.
    pub truncate: bool,
}

impl TrialOptions {
    /// A schedule and a model of tensor cores.
    pub fn new(schedule: u64, truncate: bool) -> Self {
        TrialOptions { schedule, truncate }
    }
}

/// What a step did.
#[derive(Clone, Debug, Default)]
pub struct Trial {
    /// The memory, by name, of each value that was not given.
    pub values: BTreeMap<String, Vec<u8>>,
    /// Those of them that were not written to the end.
    pub unwritten: Vec<String>,
    /// One entry for each launch.
    pub launches: Vec<Counters>,
    /// The first index that lies outside of its table, if the step reported one.
    pub outside: Option<i64>,
}

/// What a launch of a kernel did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counters {
    /// The kernel's name in the plan.
    pub kernel: String,
    /// Blocks.
    pub blocks: u64,
    /// Instructions of warps.
    pub instructions: u64,
    /// Multiply-adds of tensor cores.
    pub tensor_macs: u64,
    /// Bytes read from memory, each once.
    pub read: u64,
    /// Bytes written to memory, each once.
    pub written: u64,
    /// Bytes between L2 and the multiprocessors, each request counted.
    pub moved: u64,
    /// Share of the moved bytes that was asked for.
    pub coalescing: f64,
    /// Wavefronts of shared memory beyond those without bank conflicts.
    pub conflicts: u64,
}

impl Counters {
    fn new(kernel: &str, r: &Report) -> Self {
        Counters {
            kernel: kernel.to_string(),
            blocks: r.blocks,
            instructions: r.total_warp_instructions(),
            tensor_macs: r.tensor_macs,
            read: r.dram_read,
            written: r.dram_written,
            moved: r.l2_read + r.l2_written,
            coalescing: r.coalescing(),
            conflicts: r.wavefronts.saturating_sub(r.ideal_wavefronts),
        }
    }
}

impl Trials {
    /// Prepares the section of a target for such a chip.
    ///
    /// # Errors
    /// `Q0406` if the plan has no such section, and as
    /// [`Engine::new`](crate::Engine::new) for a section that contradicts itself.
    pub fn new(file: Arc<PlanFile>, target: &str, extras: Extras) -> Result<Self> {
        let section = file.plan().section(target)?;
        let sm = section.compute_capability().ok_or_else(|| {
            contradicts(format!("{target} is no GPU target")).at(format!("target {target}"))
        })?;
        let driver = SimDriver::new(sm, &SimOptions::default());
        let mut chip = super::Driver::capability(&driver, true);
        chip.vendor = extras == Extras::All;
        chip.specific = extras != Extras::Nothing;
        let program = Program::resolve(file.plan(), section, chip)?;
        let mut texts = Vec::new();
        for at in &program.kernels {
            let k = &section.kernels[*at];
            let place = |d: Diagnostic| d.or_at(format!("kernel {}", k.name));
            let text = Module::parse(file.text(&k.entry)?);
            texts.push(Arc::new(text.map_err(|e| place(cannot_load(e)))?));
        }
        let module = load_module(&file, section)?;
        let at = file.plan().targets.iter().position(|t| t.target == target);
        Ok(Trials {
            section: at.unwrap_or(0),
            file,
            module,
            program,
            texts,
            driver,
        })
    }

    /// The module whose ops the steps execute.
    pub fn module(&self) -> &graph::Module {
        &self.module
    }

    /// The ops in execution order, each with its ways to run as lists of kernels.
    pub fn steps(&self) -> impl Iterator<Item = (&str, Vec<Vec<&str>>)> {
        self.program.steps.iter().map(|s| {
            let ways = s.choices.iter().map(|c| {
                let launched = c.actions.iter().filter_map(|a| match a {
                    super::super::program::Action::Launch(l) => Some(self.name(l.kernel)),
                    super::super::program::Action::Gemm(_) => None,
                });
                launched.collect()
            });
            (&*s.op, ways.collect())
        })
    }

    /// The kernels that a step launches at these sizes.
    ///
    /// # Errors
    /// `Q0721`, `Q0730` and `Q0731` if the section cannot run at them.
    pub fn launched(&self, op: &str, sizes: &Sizes) -> Result<Vec<&str>> {
        let bound = self.program.bind(sizes)?;
        let calls = bound.calls.iter().filter(|c| &*c.op == op);
        let kernels = calls.filter_map(|c| match &c.work {
            Placed::Launch(l) => Some(self.name(l.kernel)),
            Placed::Gemm(_) => None,
        });
        Ok(kernels.collect())
    }

    /// Runs the step of an op on the given values, by name: inputs, intermediate values and their
    /// scales. Weights are those of the plan; other values begin unwritten.
    ///
    /// # Errors
    /// `Q0732` for a fault, with the kernel's name and line, and those of [`Trials::launched`].
    pub fn run(
        &self,
        op: &str,
        sizes: &Sizes,
        values: &BTreeMap<String, Vec<u8>>,
        options: TrialOptions,
    ) -> Result<Trial> {
        let bound = self.program.bind(sizes)?;
        let mut device = Device {
            trials: self,
            memory: Memory::new(),
            places: BTreeMap::new(),
        };
        let calls: Vec<&Call> = bound.calls.iter().filter(|c| &*c.op == op).collect();
        for place in calls.iter().flat_map(|c| mentioned(c)) {
            device.put(place, &bound, values)?;
        }
        let mut trial = Trial::default();
        for call in calls {
            if let Some(counters) = device.execute(call, options)? {
                trial.launches.push(counters);
            }
        }
        for (place, at) in &device.places {
            if let Place::Faults(_) = place {
                let mut words = faults::clear(1);
                device.memory.read(*at, &mut words).map_err(fault)?;
                trial.outside = faults::first(&words).map(|f| f.number);
            }
            let Some(name) = self.value(*place).filter(|n| !values.contains_key(*n)) else {
                continue;
            };
            let mut bytes = vec![0; size(*place, &bound) as usize];
            device.memory.read(*at, &mut bytes).map_err(fault)?;
            let whole = device.memory.is_written(*at, bytes.len() as u64);
            if !whole.map_err(fault)? {
                trial.unwritten.push(name.to_string());
            }
            trial.values.insert(name.to_string(), bytes);
        }
        Ok(trial)
    }

    fn name(&self, kernel: usize) -> &str {
        let section = &self.file.plan().targets[self.section];
        &section.kernels[self.program.kernels[kernel]].name
    }

    /// The name of the value in a place.
    fn value(&self, place: Place) -> Option<&str> {
        let plan = self.file.plan();
        match place {
            Place::Input(i) => Some(&plan.inputs[i].name),
            Place::Output(i) => Some(&plan.targets[self.section].outputs[i]),
            Place::Buffer(i) => Some(&self.program.buffers[i].name),
            Place::Weight(_) | Place::Workspace | Place::Faults(_) => None,
        }
    }
}

/// Bytes of a value.
fn size(place: Place, bound: &Bound) -> u64 {
    match place {
        Place::Input(i) => bound.inputs[i],
        Place::Output(i) => bound.outputs[i].1,
        Place::Buffer(i) => bound.buffers[i].1,
        Place::Weight(_) | Place::Workspace | Place::Faults(_) => 0,
    }
}

/// The memory that a call uses.
fn mentioned(call: &Call) -> Vec<Place> {
    match &call.work {
        Placed::Launch(l) => {
            let place = |a: &PlacedArg| match a {
                PlacedArg::Pointer(p) => Some(*p),
                PlacedArg::Map(m) => Some(m.address),
                PlacedArg::Number(_) => None,
            };
            l.args.iter().filter_map(place).collect()
        }
        Placed::Gemm(g) => {
            let optional = [g.a_scale, g.b_scale, g.bias].into_iter().flatten();
            [g.a, g.b, g.d].into_iter().chain(optional).collect()
        }
    }
}

/// Memory with what one step needs.
struct Device<'a> {
    trials: &'a Trials,
    memory: Memory,
    places: BTreeMap<Place, DevPtr>,
}

impl Device<'_> {
    fn put(
        &mut self,
        place: Place,
        bound: &Bound,
        values: &BTreeMap<String, Vec<u8>>,
    ) -> Result<()> {
        if self.places.contains_key(&place) {
            return Ok(());
        }
        let clear = faults::clear(1);
        let given = match place {
            Place::Weight(i) => {
                let plan = self.trials.file.plan();
                let weight = &plan.weights[self.trials.program.weights[i]];
                Some(self.trials.file.weight(weight)?)
            }
            Place::Faults(_) => Some(clear.as_slice()),
            _ => {
                let name = self.trials.value(place);
                name.and_then(|n| values.get(n)).map(Vec::as_slice)
            }
        };
        let bytes = given.map_or(size(place, bound), |b| b.len() as u64);
        let at = self.memory.alloc(bytes).map_err(|e| no_memory(bytes, e))?;
        if let Some(given) = given {
            self.memory.write(at, given).map_err(fault)?;
        }
        self.places.insert(place, at);
        Ok(())
    }

    fn execute(&mut self, call: &Call, options: TrialOptions) -> Result<Option<Counters>> {
        let trials = self.trials;
        let numbers: Vec<usize> = (0..trials.texts.len()).collect();
        let at = |place: Place| -> Address { self.places.get(&place).map_or(0, |p| p.0) };
        let addresses = Addresses {
            driver: &trials.driver,
            kernels: &numbers,
            at: &at,
        };
        let command = addresses.command(call)?;
        match &command.work {
            Work::Gemm(g) => gemm::run(g, &mut self.memory).map(|()| None),
            Work::Launch(l) => {
                let section = &trials.file.plan().targets[trials.section];
                let kernel = &section.kernels[trials.program.kernels[l.kernel]];
                let simulator = Simulator::new(Options {
                    schedule_seed: options.schedule,
                    accumulate: match options.truncate {
                        true => ptxsim::Accumulate::Hopper,
                        false => ptxsim::Accumulate::Exact,
                    },
                    ..Options::default()
                });
                let text = &trials.texts[l.kernel];
                let report = simulator.launch(text, &kernel.symbol, &launch(l), &mut self.memory);
                let report = report.map_err(fault)?;
                Ok(Some(Counters::new(&kernel.name, &report)))
            }
        }
    }
}
