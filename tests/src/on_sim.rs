//! Runs a kernel twice: by the kernel evaluator, and as PTX text in the simulator.

use ptxsim::{Arg as SimArg, Launch, Memory, Module, Options, ParseOptions, Report, Simulator};
use qcc_ir::kernel::Kernel;
use qcc_ir::kernel::eval;

/// An argument for both.
#[derive(Clone, Debug)]
pub enum Input {
    /// The bits of a scalar parameter of 4 or 8 bytes.
    Scalar(u64),
    /// Memory with this content.
    Memory(Vec<u8>),
    /// 128 bytes of a tensor map.
    Map([u8; 128]),
}

/// The grid and dynamic shared memory of a launch.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Blocks in x, y, z.
    pub grid: [u32; 3],
    /// Bytes.
    pub shared: u32,
}

/// Reads emitted text, which states the rounding of all its float arithmetic.
///
/// # Errors
/// What the simulator's reader says.
pub fn strict(text: &str) -> Result<Module, ptxsim::ParseError> {
    let options = ParseOptions {
        require_rounding: true,
    };
    Module::parse_with(text, options)
}

/// Contents of all memory inputs after the evaluator ran the kernel.
///
/// # Errors
/// What the evaluator says.
pub fn evaluate(kernel: &Kernel, shape: Shape, inputs: &[Input]) -> Result<Vec<Vec<u8>>, String> {
    let mut memory: Vec<Vec<u8>> = inputs
        .iter()
        .filter_map(|i| {
            if let Input::Memory(m) = i {
                Some(m.clone())
            } else {
                None
            }
        })
        .collect();
    let mut slots = memory.iter_mut();
    let mut args = Vec::new();
    for input in inputs {
        args.push(match input {
            Input::Scalar(bits) => eval::Arg::Scalar(*bits),
            Input::Memory(_) => match slots.next() {
                Some(m) => eval::Arg::Write(m),
                None => return Err("one slot for each memory input".into()),
            },
            Input::Map(_) => return Err("the evaluator has no tensor maps".into()),
        });
    }
    eval::run(kernel, shape.grid, shape.shared, &mut args).map_err(|e| e.to_string())?;
    drop(args);
    Ok(memory)
}

/// A simulated launch whose memory can be prepared piece by piece.
#[derive(Debug)]
pub struct OnSim {
    module: Module,
    entry: String,
    block: [u32; 3],
    sizes: Vec<u32>,
    /// Device memory.
    pub memory: Memory,
}

impl OnSim {
    /// Prints the kernel and reads the text.
    ///
    /// # Errors
    /// What the emitter or the simulator's reader says.
    pub fn new(kernel: &Kernel, floor: u32) -> Result<OnSim, String> {
        let printed = qcc_codegen::ptx::emit(std::slice::from_ref(kernel), floor)
            .map_err(|e| e.to_string())?;
        let module = strict(&printed.text).map_err(|e| format!("{e}\n{}", printed.text))?;
        let entry = &printed.entries[0];
        Ok(OnSim {
            module,
            entry: entry.name.clone(),
            block: entry.launch.block,
            sizes: entry.params.iter().map(|p| p.bytes).collect(),
            memory: Memory::new(),
        })
    }

    /// Runs on inputs and returns the contents of the memory inputs and the report.
    ///
    /// # Errors
    /// The fault that the simulator found.
    pub fn run(
        &mut self,
        shape: Shape,
        inputs: &[Input],
        options: Options,
    ) -> Result<(Vec<Vec<u8>>, Report), String> {
        let (mut args, mut places) = (Vec::new(), Vec::new());
        for (input, &bytes) in inputs.iter().zip(&self.sizes) {
            args.push(match input {
                Input::Scalar(v) if bytes == 4 => SimArg::U32(*v as u32),
                Input::Scalar(v) => SimArg::U64(*v),
                Input::Map(map) => SimArg::Bytes(map.to_vec()),
                Input::Memory(content) => {
                    let p = self
                        .memory
                        .alloc(content.len() as u64)
                        .map_err(|e| e.to_string())?;
                    self.memory.write(p, content).map_err(|e| e.to_string())?;
                    places.push((p, content.len()));
                    SimArg::Ptr(p)
                }
            });
        }
        let mut launch = Launch::new(shape.grid, self.block, args);
        launch.shared_bytes = shape.shared;
        let report = Simulator::new(options)
            .launch(&self.module, &self.entry, &launch, &mut self.memory)
            .map_err(|fault| fault.to_string())?;
        let mut out = Vec::new();
        for (p, len) in places {
            let mut content = vec![0; len];
            self.memory
                .read(p, &mut content)
                .map_err(|e| e.to_string())?;
            out.push(content);
        }
        Ok((out, report))
    }
}

/// Asserts that evaluator and simulator leave the same bytes, under several schedules and with the
/// simulator's race and initialization checks on; returns them.
///
/// # Panics
/// When they differ, or one reports a fault.
#[track_caller]
pub fn assert_same(kernel: &Kernel, floor: u32, shape: Shape, inputs: &[Input]) -> Vec<Vec<u8>> {
    let expected = match evaluate(kernel, shape, inputs) {
        Ok(memory) => memory,
        Err(e) => panic!("{e}\n{kernel}"),
    };
    for schedule_seed in [0, 1, 2] {
        let options = Options {
            schedule_seed,
            ..Options::default()
        };
        match OnSim::new(kernel, floor).and_then(|mut sim| sim.run(shape, inputs, options)) {
            Ok((found, _)) => {
                for (i, (e, f)) in expected.iter().zip(&found).enumerate() {
                    let at = e.iter().zip(f).position(|(a, b)| a != b);
                    assert!(
                        at.is_none(),
                        "memory {i} differs at byte {at:?}, schedule {schedule_seed}\n{kernel}"
                    );
                }
            }
            Err(e) => panic!("schedule {schedule_seed}: {e}\n{kernel}"),
        }
    }
    expected
}
