//! What the driver knows, and its configuration.

use ptxsim::{DevPtr, FaultKind, Launch, Memory, Module, Options, Simulator};
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::blas::Library;
use crate::product::Product;
use crate::{
    Code, ILLEGAL_ADDRESS, INVALID_CONTEXT, INVALID_HANDLE, LAUNCH_FAILED, MISALIGNED_ADDRESS,
    NO_DEVICE,
};

/// Everything that the environment decides.
pub(crate) struct Config {
    pub(crate) devices: i32,
    pub(crate) sm: i32,
    pub(crate) version: i32,
    pub(crate) memory: u64,
    /// Function, result, and which call of it.
    fail: Option<(String, Code, u64)>,
    seed: u64,
    report: Option<String>,
}

/// A kernel of a module.
#[derive(Clone)]
pub(crate) struct Function {
    pub(crate) module: usize,
    pub(crate) name: String,
    pub(crate) max_shared: u32,
    pub(crate) large_clusters: bool,
}

/// Work of a stream.
#[derive(Clone)]
pub(crate) enum Op {
    /// Host address, device address, bytes.
    CopyIn(usize, u64, usize),
    /// Host address, device address, bytes.
    CopyOut(usize, u64, usize),
    Launch {
        module: Arc<Module>,
        name: String,
        launch: Launch,
    },
    Product(Box<Product>),
    Replay(Arc<Vec<Op>>),
    Record(usize),
}

/// Work that waits, and what is being captured.
#[derive(Default)]
pub(crate) struct Stream {
    pub(crate) queue: Vec<Op>,
    pub(crate) capture: Option<Vec<Op>>,
}

/// The driver.
pub(crate) struct State {
    pub(crate) config: Config,
    pub(crate) initialized: bool,
    pub(crate) retained: u64,
    pub(crate) memory: Memory,
    /// Bytes of each allocation.
    pub(crate) live: BTreeMap<u64, u64>,
    pub(crate) used: u64,
    pub(crate) peak: u64,
    pub(crate) pinned: BTreeMap<usize, Box<[u64]>>,
    pub(crate) modules: BTreeMap<usize, Arc<Module>>,
    pub(crate) functions: BTreeMap<usize, Function>,
    pub(crate) streams: BTreeMap<usize, Stream>,
    /// Clock at the last record.
    pub(crate) events: BTreeMap<usize, u64>,
    pub(crate) graphs: BTreeMap<usize, Arc<Vec<Op>>>,
    pub(crate) execs: BTreeMap<usize, Arc<Vec<Op>>>,
    pub(crate) blas: Library,
    next: usize,
    /// Work done so far; the time that events tell.
    clock: u64,
    /// Kernels that ran.
    kernels: u64,
    /// Products that ran.
    products: u64,
    /// The first fault of a kernel: every later call gives it again.
    failed: Option<Code>,
    calls: BTreeMap<String, u64>,
}

impl State {
    pub(crate) fn from_environment() -> Self {
        let text = |name: &str| std::env::var(name).ok();
        let number = |name: &str, default: u64| {
            let given = text(name).and_then(|t| t.parse().ok());
            given.unwrap_or(default)
        };
        let fail = text("FAKECUDA_FAIL").and_then(|t| {
            let (function, rest) = t.split_once('=')?;
            let (code, nth) = rest.split_once('@')?;
            Some((function.to_string(), code.parse().ok()?, nth.parse().ok()?))
        });
        let config = Config {
            devices: number("FAKECUDA_DEVICES", 1) as i32,
            sm: number("FAKECUDA_SM", 90) as i32,
            version: number("FAKECUDA_VERSION", 13000) as i32,
            memory: number("FAKECUDA_MEMORY", 1 << 30),
            fail,
            seed: number("FAKECUDA_SEED", 0),
            report: text("FAKECUDA_REPORT"),
        };
        State {
            config,
            initialized: false,
            retained: 0,
            memory: Memory::new(),
            live: BTreeMap::new(),
            used: 0,
            peak: 0,
            pinned: BTreeMap::new(),
            modules: BTreeMap::new(),
            functions: BTreeMap::new(),
            streams: BTreeMap::new(),
            events: BTreeMap::new(),
            graphs: BTreeMap::new(),
            execs: BTreeMap::new(),
            blas: Library::default(),
            next: 1,
            clock: 0,
            kernels: 0,
            products: 0,
            failed: None,
            calls: BTreeMap::new(),
        }
    }

    /// Counts a call; gives the result that it shall have instead, if it shall fail.
    pub(crate) fn count(&mut self, name: &str) -> Result<(), Code> {
        let n = self.calls.entry(name.to_string()).or_default();
        *n += 1;
        match &self.config.fail {
            Some((function, code, nth)) if function == name && nth == n => Err(*code),
            _ => Ok(()),
        }
    }

    /// Whether calls that need a context may go on.
    pub(crate) fn usable(&self) -> Result<(), Code> {
        if !self.initialized {
            return Err(NO_DEVICE);
        }
        if self.retained == 0 {
            return Err(INVALID_CONTEXT);
        }
        self.failed.map_or(Ok(()), Err)
    }

    /// A handle that nothing else has.
    pub(crate) fn handle(&mut self) -> usize {
        self.next += 1;
        self.next * 16
    }

    /// Adds work to a stream, or to what it captures.
    pub(crate) fn push(&mut self, stream: usize, op: Op) -> Result<(), Code> {
        let s = self.streams.get_mut(&stream).ok_or(INVALID_HANDLE)?;
        match &mut s.capture {
            Some(captured) => captured.push(op),
            None => s.queue.push(op),
        }
        Ok(())
    }

    /// Does all work of a stream.
    pub(crate) fn drain(&mut self, stream: usize) -> Result<(), Code> {
        let s = self.streams.get_mut(&stream).ok_or(INVALID_HANDLE)?;
        let queue = std::mem::take(&mut s.queue);
        queue.iter().try_for_each(|op| self.run(op))
    }

    /// Does all work of all streams.
    pub(crate) fn drain_all(&mut self) -> Result<(), Code> {
        let all: Vec<usize> = self.streams.keys().copied().collect();
        all.into_iter().try_for_each(|s| self.drain(s))
    }

    fn run(&mut self, op: &Op) -> Result<(), Code> {
        self.clock += 1;
        let done = match op {
            Op::CopyIn(host, at, len) => {
                // SAFETY: the caller of the copy keeps the memory until it waited for the stream.
                let bytes = unsafe { std::slice::from_raw_parts(*host as *const u8, *len) };
                self.memory
                    .write(DevPtr(*at), bytes)
                    .map_err(|_| ILLEGAL_ADDRESS)
            }
            Op::CopyOut(host, at, len) => {
                // SAFETY: as above, and nobody else uses it.
                let bytes = unsafe { std::slice::from_raw_parts_mut(*host as *mut u8, *len) };
                self.memory
                    .read(DevPtr(*at), bytes)
                    .map_err(|_| ILLEGAL_ADDRESS)
            }
            Op::Launch {
                module,
                name,
                launch,
            } => self.kernel(module, name, launch),
            Op::Product(p) => {
                self.products += 1;
                p.run(&mut self.memory).ok_or(ILLEGAL_ADDRESS)
            }
            Op::Replay(ops) => ops.iter().try_for_each(|op| self.run(op)),
            Op::Record(event) => {
                self.events.insert(*event, self.clock);
                Ok(())
            }
        };
        if let Err(code) = done {
            self.failed.get_or_insert(code);
        }
        done
    }

    fn kernel(&mut self, module: &Module, name: &str, launch: &Launch) -> Result<(), Code> {
        self.kernels += 1;
        let options = Options {
            schedule_seed: self.config.seed,
            count: false,
            ..Options::default()
        };
        let ran = Simulator::new(options).launch(module, name, launch, &mut self.memory);
        ran.map(|_| ()).map_err(|fault| {
            eprintln!("fakecuda: {fault}");
            match fault.kind {
                FaultKind::OutOfBounds => ILLEGAL_ADDRESS,
                FaultKind::Misaligned => MISALIGNED_ADDRESS,
                _ => LAUNCH_FAILED,
            }
        })
    }

    /// Writes the report: a line `name value` for each count.
    pub(crate) fn report(&self) {
        let Some(path) = &self.config.report else {
            return;
        };
        let mut text = String::new();
        let counts = [
            ("live_allocations", self.live.len() as u64),
            ("live_bytes", self.used),
            ("peak_bytes", self.peak),
            ("live_pinned", self.pinned.len() as u64),
            ("live_modules", self.modules.len() as u64),
            ("live_streams", self.streams.len() as u64),
            ("live_events", self.events.len() as u64),
            ("live_graphs", (self.graphs.len() + self.execs.len()) as u64),
            ("live_cublas", self.blas.live() as u64),
            ("retained", self.retained),
            ("kernels", self.kernels),
            ("products", self.products),
        ];
        for (name, value) in counts {
            text += &format!("{name} {value}\n");
        }
        for (name, n) in &self.calls {
            text += &format!("{name} {n}\n");
        }
        if let Err(e) = std::fs::write(path, text) {
            eprintln!("fakecuda: {path}: {e}");
        }
    }
}
