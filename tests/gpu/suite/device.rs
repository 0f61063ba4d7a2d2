//! The device layer on whatever driver is there: copies, accounting, launches, graphs, errors.
//!
//! Each check is small, says what it expected, and leaves nothing allocated.

use ptxsim::Options;
use qcc_ir::Diagnostic;
use qcc_ir::diag::Result;
use qcc_runtime::cuda::{Gpu, Launch};
use std::sync::Arc;

use crate::probe::{Input, Probe, bytes, words};

const TEXT_80: &str = include_str!("../probes/device_80.ptx");
const TEXT_90: &str = include_str!("../probes/device_90.ptx");

type Check = fn(&Arc<Gpu>) -> Result<(), Failure>;

/// Name, oldest architecture, what is done.
pub(crate) const CHECKS: &[(&str, u32, Check)] = &[
    ("copies", 0, copies),
    ("accounting", 0, accounting),
    ("launch", 80, launch),
    ("shared_memory", 80, shared_memory),
    ("graph", 80, graph),
    ("failed_capture", 80, failed_capture),
    ("arguments", 80, arguments),
    ("bad_text", 0, bad_text),
    ("clusters", 90, clusters),
    ("dependent", 90, dependent),
    ("tensor_map", 90, tensor_map),
    ("wild_write", 80, wild_write),
];

/// Why a check failed.
#[derive(Debug)]
pub(crate) struct Failure(pub(crate) String);

impl From<Diagnostic> for Failure {
    fn from(d: Diagnostic) -> Self {
        Failure(d.to_string())
    }
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, found: T, expected: T) -> Result<(), Failure> {
    if found == expected {
        return Ok(());
    }
    let (mut found, mut expected) = (format!("{found:?}"), format!("{expected:?}"));
    found.truncate(200);
    expected.truncate(200);
    Err(Failure(format!("{what}: {found}, expected {expected}")))
}

fn refused<T>(what: &str, result: Result<T>, code: u16) -> Result<Diagnostic, Failure> {
    match result {
        Ok(_) => Err(Failure(format!("{what} was not refused"))),
        Err(d) if d.number() == code => Ok(d),
        Err(d) => Err(Failure(format!("{what}: expected Q{code:04}, found {d}"))),
    }
}

/// Bytes that are different everywhere.
fn pattern(len: usize) -> Vec<u8> {
    let byte = |i: usize| (i.wrapping_mul(2_654_435_761) >> 13) as u8;
    (0..len).map(byte).collect()
}

fn copies(gpu: &Arc<Gpu>) -> Result<(), Failure> {
    // More than two buffers of an upload, and of a stream; no multiple of anything.
    let long = pattern((17 << 20) + 13);
    let at = gpu.alloc(long.len() as u64)?;
    gpu.upload(at, &long)?;
    let mut stream = gpu.stream()?;
    let mut back = vec![0; long.len()];
    stream.download(at, &mut back)?;
    same("upload", back == long, true)?;
    let turned: Vec<u8> = long.iter().rev().copied().collect();
    let mut given = turned.clone();
    stream.upload(at, &given)?;
    given.fill(0);
    for i in 0..5 {
        // Small ones in between share the stage.
        stream.upload(at + i, &[i as u8])?;
    }
    stream.download(at, &mut back)?;
    same("small copies", &back[..5], &[0, 1, 2, 3, 4][..])?;
    same("stream's copy", back[5..] == turned[5..], true)?;
    gpu.free(at);
    Ok(())
}

fn accounting(gpu: &Arc<Gpu>) -> Result<(), Failure> {
    let before = gpu.used();
    let (free, total) = gpu.memory()?;
    same("free memory is at most all", free <= total, true)?;
    let d = refused("all memory and more", gpu.alloc(total + 1), 733)?;
    let says = d.message().contains(&total.to_string());
    same("the error names what there is", says, true)?;
    let at = gpu.alloc(1000)?;
    same("alignment", at % 256, 0)?;
    same("used", gpu.used(), before + 1000)?;
    gpu.free(at);
    same("used after free", gpu.used(), before)
}

fn add(n: u32) -> Probe {
    let ramp = |k: u32| Input::Memory(bytes((0..n).map(|i| i.wrapping_mul(k))));
    Probe {
        grid: [n.div_ceil(128), 1, 1],
        block: [128, 1, 1],
        ..Probe::block(TEXT_80, "add", 1, vec![ramp(3), ramp(5), Input::U32(n)])
    }
}

fn launch(gpu: &Arc<Gpu>) -> Result<(), Failure> {
    let found = add(1000).on_gpu(gpu)?;
    let expected: Vec<u32> = (0..1000).map(|i| i * 8).collect();
    same("sums", words(&found[1]), expected)
}

fn shared_memory(gpu: &Arc<Gpu>) -> Result<(), Failure> {
    let n = 1024;
    let mut probe = Probe::block(
        TEXT_80,
        "reverse",
        n,
        vec![Input::Memory(bytes(0..n)), Input::U32(n)],
    );
    // Above the 48 KiB that a kernel has without asking.
    probe.shared = n * 64;
    let found = probe.on_gpu(gpu)?;
    same("reversed", words(&found[0]), (0..n).rev().collect())?;
    probe.shared = gpu.info().shared_per_block + 1;
    refused("more shared memory than there is", probe.on_gpu(gpu), 734)?;
    Ok(())
}

/// Two buffers of 256 words and the arguments that add the first to the second.
struct Sum {
    x: u64,
    y: u64,
    kernel: qcc_runtime::cuda::Kernel,
}

impl Sum {
    fn new(gpu: &Arc<Gpu>) -> Result<Sum> {
        let (x, y) = (gpu.alloc(1024)?, gpu.alloc(1024)?);
        gpu.upload(x, &bytes(0..256))?;
        gpu.upload(y, &bytes([0; 256]))?;
        let kernel = gpu.kernel(gpu.load(TEXT_80)?, "add")?;
        Ok(Sum { x, y, kernel })
    }

    fn launch(&self, stream: &mut qcc_runtime::cuda::Stream, grid: u32) -> Result<()> {
        let (x, y) = (self.x.to_le_bytes(), self.y.to_le_bytes());
        stream.launch(&Launch {
            kernel: self.kernel,
            grid: [grid, 1, 1],
            block: [128, 1, 1],
            cluster: None,
            shared: 0,
            args: &[&x, &y, &256u32.to_le_bytes()],
        })
    }

    fn free(self, gpu: &Arc<Gpu>) {
        gpu.free(self.x);
        gpu.free(self.y);
    }
}

fn graph(gpu: &Arc<Gpu>) -> Result<(), Failure> {
    let sum = Sum::new(gpu)?;
    let mut stream = gpu.stream()?;
    let mut graph = stream.capture(|s| {
        sum.launch(s, 2)?;
        sum.launch(s, 2)
    })?;
    let mut back = vec![0; 1024];
    stream.download(sum.y, &mut back)?;
    same("capturing does nothing", words(&back), vec![0; 256])?;
    for round in 1..=3 {
        graph.replay()?;
        stream.download(sum.y, &mut back)?;
        let expected = (0..256).map(|i| i * 2 * round).collect();
        same("replays add up", words(&back), expected)?;
    }
    let micros = stream.time(|_| graph.replay())?;
    same("time goes on", micros > 0.0, true)?;
    drop(graph);
    sum.free(gpu);
    Ok(())
}

fn failed_capture(gpu: &Arc<Gpu>) -> Result<(), Failure> {
    let sum = Sum::new(gpu)?;
    let mut stream = gpu.stream()?;
    let failed = stream.capture(|s| {
        sum.launch(s, 2)?;
        sum.launch(s, 0)
    });
    refused("a grid without blocks", failed, 743)?;
    // The stream is as before.
    sum.launch(&mut stream, 2)?;
    let mut back = vec![0; 1024];
    stream.download(sum.y, &mut back)?;
    same("after a failed capture", words(&back), (0..256).collect())?;
    sum.free(gpu);
    Ok(())
}

fn arguments(gpu: &Arc<Gpu>) -> Result<(), Failure> {
    let mut probe = add(4);
    probe.inputs.pop();
    refused("an argument too few", probe.on_gpu(gpu), 734)?;
    probe.inputs.push(Input::Memory(vec![0; 4]));
    refused("an argument too large", probe.on_gpu(gpu), 734)?;
    let mut probe = add(4);
    probe.entry = "subtract".into();
    refused("a kernel that is not there", probe.on_gpu(gpu), 734)?;
    Ok(())
}

fn bad_text(gpu: &Arc<Gpu>) -> Result<(), Failure> {
    let text =
        ".version 7.0\n.target sm_75\n.address_size 64\n.visible .entry k() { frob.u32; ret; }";
    let d = refused("no PTX", gpu.load(text), 734)?;
    let log = d.message().contains("frob") || d.message().contains('4');
    same("the compiler's log is in the error", log, true)
}

fn clusters(gpu: &Arc<Gpu>) -> Result<(), Failure> {
    let probe = Probe {
        grid: [8, 1, 1],
        cluster: Some([4, 1, 1]),
        ..Probe::block(TEXT_90, "ranks", 1, vec![Input::Memory(vec![0; 32])])
    };
    let found = probe.on_gpu(gpu)?;
    let expected = (0..8).map(|b| 64 + b % 4).collect();
    same("ranks", words(&found[0]), expected)
}

fn dependent(gpu: &Arc<Gpu>) -> Result<(), Failure> {
    let x = gpu.alloc(256)?;
    let kernel = gpu.kernel(gpu.load(TEXT_90)?, "dependent")?;
    let mut stream = gpu.stream()?;
    let launch = |s: &mut qcc_runtime::cuda::Stream| {
        s.launch(&Launch {
            kernel,
            grid: [1; 3],
            block: [64, 1, 1],
            cluster: None,
            shared: 0,
            args: &[&x.to_le_bytes()],
        })
    };
    let mut graph = stream.capture(|s| (0..4).try_for_each(|_| launch(s)))?;
    stream.upload(x, &bytes(0..64))?;
    (0..4).try_for_each(|_| launch(&mut stream))?;
    graph.replay()?;
    let mut back = vec![0; 256];
    stream.download(x, &mut back)?;
    // Eight times x -> 2 x + 1.
    let expected = (0..64).map(|i| (i + 1) * 256 - 1).collect();
    same("a chain of dependent launches", words(&back), expected)?;
    drop(graph);
    gpu.free(x);
    Ok(())
}

/// A copy by tensor map, at the edge and with each swizzle, as the simulator does it.
fn tensor_map(gpu: &Arc<Gpu>) -> Result<(), Failure> {
    for (swizzle, column, row) in [(0, 0, 0), (128, 32, 5), (0, 40, 60), (128, 40, 60)] {
        let map = Input::Map {
            content: bytes((0..64 * 72).map(|i| 0x1000 + i)),
            dims: vec![64, 72],
            tile: vec![32, 32],
            swizzle,
        };
        let out = Input::Memory(vec![0xff; 4096]);
        let inputs = vec![map, out, Input::U32(column), Input::U32(row)];
        let probe = Probe::block(TEXT_90, "fetch", 128, inputs);
        let expected = probe.on_sim(Options::default()).map_err(Failure)?;
        let what = format!("swizzle {swizzle} at {column}, {row}");
        same(&what, probe.on_gpu(gpu)?, expected)?;
    }
    let bad = qcc_runtime::cuda::TensorMap {
        address: 8,
        element: qcc_runtime::cuda::TensorElement::F16,
        dims: vec![64, 64],
        strides: vec![128],
        tile: vec![8, 8],
        swizzle: 0,
    };
    refused("a tensor that begins anywhere", gpu.tensor_map(&bad), 730)?;
    Ok(())
}

/// The last check: after it the context is of no more use.
fn wild_write(gpu: &Arc<Gpu>) -> Result<(), Failure> {
    let kernel = gpu.kernel(gpu.load(TEXT_80)?, "wild")?;
    let mut stream = gpu.stream()?;
    let nowhere = 64u64.to_le_bytes();
    stream.launch(&Launch {
        kernel,
        grid: [1; 3],
        block: [1; 3],
        cluster: None,
        shared: 0,
        args: &[&nowhere],
    })?;
    refused("a wild write", stream.finish(), 732)?;
    Ok(())
}
