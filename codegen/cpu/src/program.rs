//! Programs: modules prepared for the CPU.

use crate::clif::Jit;
use crate::constants::Constants;
use crate::ops::{self, Call, Prepared, Site};
use crate::pool::Pool;
use crate::threads::Threads;
use crate::value::View;
use qcc_ir::bind::{Sizes, bind_inputs};
use qcc_ir::diag::Result;
use qcc_ir::exec::{self, Executor};
use qcc_ir::graph::{Func, Module, Op, OpKind, TensorType, ValueId, verify};
use qcc_ir::{Bundle, Tensor};
use std::sync::{Arc, Mutex, PoisonError};

/// How a program is prepared.
#[derive(Clone, Debug)]
pub struct CpuOptions {
    /// Threads that run it.
    pub threads: Threads,
    /// Whether constants stay in memory between runs. If not, each is read from its source when
    /// an op needs it and dropped after the op, in every run: memory does not grow with the
    /// number of layers.
    pub held: bool,
    /// Bytes of held weights that may be decoded to f32 once; further ones are decoded panel by
    /// panel in every run.
    pub decoded_bytes: u64,
}

impl CpuOptions {
    /// These threads, constants in memory, and up to 1 GiB of decoded weights.
    pub fn new(threads: Threads) -> Self {
        CpuOptions {
            threads,
            held: true,
            decoded_bytes: 1 << 30,
        }
    }

    /// These threads, and constants that are read in every run.
    pub fn streamed(threads: Threads) -> Self {
        CpuOptions {
            held: false,
            ..CpuOptions::new(threads)
        }
    }
}

/// One op of a program.
struct Step {
    op: Op,
    kernel: Prepared,
    /// Values that nothing reads after this step.
    dead: Vec<ValueId>,
}

/// The entry function of a module, ready to run any number of times.
///
/// [Held](CpuOptions::held) constants are read when the program is made. Quantized and narrow
/// weights of linears and convolutions are then decoded to f32, within
/// [`CpuOptions::decoded_bytes`], and their stored form is dropped. The memory of an intermediate value is used again after its last use, and
/// kept for the next run as long as the sizes stay the same.
pub struct CpuProgram {
    /// Symbols and the entry function; no weights.
    module: Module,
    steps: Vec<Step>,
    consts: Constants,
    threads: Threads,
    pool: Pool,
    /// Sizes of the last run, for which the pool holds memory.
    last: Mutex<Sizes>,
}

impl std::fmt::Debug for CpuProgram {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CpuProgram")
            .field("func", &self.func().name)
            .field("steps", &self.steps.len())
            .field("threads", &self.threads.count())
            .finish()
    }
}

/// A value during a run.
enum Slot<'a> {
    Owned(Box<Bundle>),
    Const(Arc<Bundle>),
    Input(&'a Tensor),
}

impl<'a> Slot<'a> {
    fn view<'s>(&'s self, ty: &'s TensorType) -> View<'s> {
        match self {
            Slot::Owned(b) => View::new(ty, b),
            Slot::Const(b) => View::new(ty, b),
            Slot::Input(t) => View {
                ty,
                codes: t,
                scale: None,
                zero: None,
                global: None,
            },
        }
    }

    fn into_bundle(self) -> Bundle {
        match self {
            Slot::Owned(b) => *b,
            Slot::Const(b) => (*b).clone(),
            Slot::Input(t) => t.clone().into(),
        }
    }
}

impl CpuProgram {
    /// Prepares the entry function of a module.
    ///
    /// # Errors
    /// When the module breaks an invariant (the first violation), a weight's contents cannot be
    /// read, or a scheme does not run on the CPU.
    pub fn new(module: &Module, options: &CpuOptions) -> Result<Self> {
        if let Some(d) = verify(module).into_iter().next() {
            return Err(d);
        }
        let func = module
            .funcs
            .first()
            .ok_or_else(|| crate::internal("the module has no function"))?;
        let mut consts = Constants::new(module, func);
        if options.held {
            consts.hold()?;
        }
        let mut jit = Jit::new()?;
        let mut budget = options.decoded_bytes;
        let mut steps = Vec::with_capacity(func.ops.len());
        // How many operands still need the stored form of a constant.
        let mut needed = vec![0usize; func.values.len()];
        func.results
            .iter()
            .for_each(|(_, v)| needed[v.index()] += 1);
        for op in &func.ops {
            let mut site = Site {
                func,
                op,
                threads: &options.threads,
                consts: op.operands.iter().map(|v| consts.held(*v)).collect(),
                jit: &mut jit,
                budget: &mut budget,
            };
            let kernel = ops::prepare(&mut site).map_err(|d| d.or_at(op.loc.to_string()))?;
            let Some(kernel) = kernel else { continue };
            for (i, v) in op.operands.iter().enumerate() {
                needed[v.index()] += usize::from(!kernel.absorbed.contains(&i));
            }
            steps.push(Step {
                op: op.clone(),
                kernel,
                dead: Vec::new(),
            });
        }
        for (i, _) in needed.iter().enumerate().filter(|(_, n)| **n == 0) {
            consts.drop(ValueId(i as u32));
        }
        mark_dead(func, &mut steps);
        Ok(CpuProgram {
            module: Module {
                symbols: module.symbols.clone(),
                weights: Vec::new(),
                funcs: vec![func.clone()],
            },
            steps,
            consts,
            threads: options.threads.clone(),
            pool: Pool::default(),
            last: Mutex::default(),
        })
    }

    /// The function that is run.
    pub fn func(&self) -> &Func {
        // INVARIANT: `new` puts exactly one function there.
        &self.module.funcs[0]
    }

    /// Runs on inputs in parameter order; gives the results in order.
    ///
    /// # Errors
    /// When an input's format, shape or extent does not fit its parameter, or the data breaks
    /// an op's rule (an index outside its dimension, an integer division by zero).
    pub fn run(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>> {
        self.run_with(inputs, &mut |_, _| {})
    }

    /// As [`CpuProgram::run`]; calls `see` with every value and its codes as soon as it is
    /// computed, parameters first, in execution order.
    ///
    /// # Errors
    /// As [`CpuProgram::run`].
    pub fn run_with(
        &self,
        inputs: &[&Tensor],
        see: &mut dyn FnMut(ValueId, &Tensor),
    ) -> Result<Vec<Tensor>> {
        let func = self.func();
        let sizes = bind_inputs(&self.module, func, inputs)?;
        self.keep_memory_for(&sizes);
        let mut slots: Vec<Option<Slot<'_>>> = Vec::new();
        let values = (0..func.values.len()).map(|i| ValueId(i as u32));
        slots.extend(values.map(|v| self.consts.held(v).map(Slot::Const)));
        for (p, t) in func.params.iter().zip(inputs) {
            slots[p.index()] = Some(Slot::Input(t));
            see(*p, t);
        }
        for step in &self.steps {
            let out = self.step(step, &mut slots, &sizes);
            let out = out.map_err(|d| d.or_at(step.op.loc.to_string()))?;
            for (r, b) in step.op.results.iter().zip(out) {
                see(*r, &b.codes);
                slots[r.index()] = Some(Slot::Owned(Box::new(b)));
            }
            for v in &step.dead {
                if let Some(Slot::Owned(b)) = slots[v.index()].take() {
                    self.pool.give_all(*b);
                }
            }
        }
        self.results(slots)
    }

    /// Frees the memory of earlier runs when the sizes are new.
    fn keep_memory_for(&self, sizes: &Sizes) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if *last != *sizes {
            self.pool.clear();
            *last = sizes.clone();
        }
    }

    fn step(
        &self,
        step: &Step,
        slots: &mut [Option<Slot<'_>>],
        sizes: &Sizes,
    ) -> Result<Vec<Bundle>> {
        let func = self.func();
        let mut results = Vec::with_capacity(step.op.results.len());
        for r in &step.op.results {
            let ty = func.ty(*r);
            results.push((ty, sizes.dims(ty)?));
        }
        if step.op.kind == OpKind::Reshape
            && let [v] = step.op.operands[..]
            && step.dead.contains(&v)
            && let Some(Slot::Owned(b)) = slots[v.index()].take_if(|s| matches!(s, Slot::Owned(_)))
        {
            // The operand dies here: its bytes become the result.
            return Ok(vec![ops::reshaped(b.codes, &results[0].1)?.into()]);
        }
        let operands = || step.op.operands.iter().enumerate();
        let read: Vec<Option<Arc<Bundle>>> = operands()
            .map(|(i, v)| match step.kernel.absorbed.contains(&i) {
                true => Ok(None),
                false => self.consts.read(*v),
            })
            .collect::<Result<_>>()?;
        let args: Vec<Option<View<'_>>> = operands()
            .map(|(i, v)| {
                let keep = !step.kernel.absorbed.contains(&i);
                let slot = slots[v.index()].as_ref().filter(|_| keep);
                let read = read[i].as_ref().map(|b| View::new(func.ty(*v), b));
                slot.map(|s| s.view(func.ty(*v))).or(read)
            })
            .collect();
        (step.kernel.run)(&Call {
            threads: &self.threads,
            pool: &self.pool,
            args: &args,
            results: &results,
            sizes,
        })
    }

    fn results(&self, mut slots: Vec<Option<Slot<'_>>>) -> Result<Vec<Tensor>> {
        let results = &self.func().results;
        let mut out = Vec::with_capacity(results.len());
        for (i, (name, v)) in results.iter().enumerate() {
            if let Some(b) = self.consts.read(*v)? {
                out.push(Arc::unwrap_or_clone(b).codes);
                continue;
            }
            let again = results[i + 1..].iter().any(|(_, w)| w == v);
            let missing = || crate::internal(format!("result {name} was not computed"));
            let b = if again {
                let ty = self.func().ty(*v);
                slots[v.index()]
                    .as_ref()
                    .ok_or_else(missing)?
                    .view(ty)
                    .codes
                    .clone()
            } else {
                slots[v.index()]
                    .take()
                    .ok_or_else(missing)?
                    .into_bundle()
                    .codes
            };
            out.push(b);
        }
        Ok(out)
    }
}

/// Notes at each step which values it is the last to read; results live to the end.
fn mark_dead(func: &Func, steps: &mut [Step]) {
    let mut seen = vec![false; func.values.len()];
    func.results
        .iter()
        .for_each(|(_, v)| seen[v.index()] = true);
    for step in steps.iter_mut().rev() {
        for v in step.op.operands.iter().chain(&step.op.results) {
            if !std::mem::replace(&mut seen[v.index()], true) {
                step.dead.push(*v);
            }
        }
    }
}

/// Runs modules on the CPU for calibration and constant checks.
#[derive(Clone, Debug)]
pub struct CpuExecutor {
    options: CpuOptions,
}

impl CpuExecutor {
    /// An executor that prepares programs with these options.
    pub fn new(options: CpuOptions) -> Self {
        CpuExecutor { options }
    }

    /// A program with taps.
    fn tapped<'m>(
        module: &'m Module,
        taps: &[ValueId],
        options: &CpuOptions,
    ) -> Result<Box<dyn exec::Prepared + 'm>> {
        let program = CpuProgram::new(module, options)?;
        for t in taps {
            let ty = program.func().values.get(t.index()).map(|v| &v.ty);
            let plain = ty.and_then(|t| t.elem.plain());
            if !plain.is_some_and(qcc_ir::DType::is_float) {
                return Err(crate::internal(format!(
                    "value {} is no plain float to tap",
                    t.0
                )));
            }
        }
        Ok(Box::new(Tapped {
            program,
            taps: taps.to_vec(),
        }))
    }
}

impl Executor for CpuExecutor {
    fn prepare<'m>(
        &self,
        module: &'m Module,
        taps: &[ValueId],
    ) -> Result<Box<dyn exec::Prepared + 'm>> {
        Self::tapped(module, taps, &self.options)
    }

    fn hold<'m>(
        &self,
        module: &'m Module,
        taps: &[ValueId],
    ) -> Result<Box<dyn exec::Prepared + 'm>> {
        let held = CpuOptions {
            held: true,
            ..self.options.clone()
        };
        Self::tapped(module, taps, &held)
    }
}

/// A program with the values that its caller wants to see.
struct Tapped {
    program: CpuProgram,
    taps: Vec<ValueId>,
}

impl exec::Prepared for Tapped {
    fn run(
        &mut self,
        inputs: &[Tensor],
        tap: &mut dyn FnMut(usize, &Tensor),
    ) -> Result<Vec<Tensor>> {
        let inputs: Vec<&Tensor> = inputs.iter().collect();
        let taps = &self.taps;
        self.program.run_with(&inputs, &mut |v, t| {
            for (i, _) in taps.iter().enumerate().filter(|(_, w)| **w == v) {
                tap(i, t);
            }
        })
    }
}
