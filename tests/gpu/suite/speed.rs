//! Stage 4: how fast memory is read, by size, bytes in flight and copy mechanism, and what lies
//! between two launches.
//!
//! Every time is that of a graph whose nodes read different parts of a pool several times as large
//! as the second-level cache, divided by the number of nodes: reads are cold. Beside each time stands
//! the prediction of the simulator's time model for the same kernel, made before anything runs.

use ptxsim::Options;
use qcc_ir::diag::Result;
use qcc_runtime::cuda::{Gemm, Gpu, Kernel, Launch, MatrixType, Stream};
use serde_json::{Value, json};
use std::sync::Arc;

use crate::probe::{Input, Probe};

/// Threads of a block.
const THREADS: u32 = 256;
/// Nodes of a graph, at most.
const NODES: u64 = 64;

/// How bytes get from memory to a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mechanism {
    /// Plain loads of 16 bytes.
    Load,
    /// `cp.async` of 16 bytes into shared memory.
    Async,
    /// `cp.async.bulk` of 4 KiB into shared memory (sm_90).
    Bulk,
}

pub(crate) const MECHANISMS: &[(&str, u32, Mechanism)] = &[
    ("load", 80, Mechanism::Load),
    ("async", 80, Mechanism::Async),
    ("bulk", 90, Mechanism::Bulk),
];

/// A kernel in which each block reads `flight` times 4 KiB at once, `rounds` times over, one after
/// the other, and adds all words into one per thread.
fn text(mechanism: Mechanism, flight: u32) -> String {
    let (version, target) = match mechanism {
        Mechanism::Bulk => ("8.0", "sm_90"),
        _ => ("7.0", "sm_80"),
    };
    let mut t = format!(
        ".version {version}\n.target {target}\n.address_size 64\n.shared .align 128 .b8 ring[{}];\n\
         .shared .align 8 .b64 full;\n\
         .visible .entry read(.param .u64 x, .param .u64 y, .param .u32 rounds)\n{{\n\
         .reg .pred %p, %q;\n.reg .b64 %rd<8>;\n.reg .b32 %r<12>, %v<{}>;\n\
         ld.param.u64 %rd1, [x];\nld.param.u64 %rd2, [y];\nld.param.u32 %r1, [rounds];\n\
         mov.u32 %r2, %tid.x;\nmov.u32 %r3, %ctaid.x;\nmul.lo.u32 %r4, %r3, %r1;\n\
         mul.wide.u32 %rd3, %r4, {};\nadd.s64 %rd1, %rd1, %rd3;\nmul.wide.u32 %rd4, %r2, 16;\n\
         add.s64 %rd5, %rd1, %rd4;\nmov.u32 %r5, 0;\nmov.u32 %r6, 0;\nmov.u32 %r7, ring;\nshl.b32 %r8, %r2, 4;\n\
         add.s32 %r8, %r7, %r8;\nmov.u32 %r9, full;\nsetp.eq.u32 %p, %r2, 0;\n",
        if mechanism == Mechanism::Load {
            16
        } else {
            flight * 4096
        },
        4 * flight,
        flight * 4096
    );
    if mechanism == Mechanism::Bulk {
        t += "@%p mbarrier.init.shared.b64 [%r9], 1;\nfence.proxy.async;\nbar.sync 0;\n";
    }
    t += "next:\n";
    let four = |i: u32| {
        let v = |j: u32| format!("%v{}", 4 * i + j);
        format!("{{{}, {}, {}, {}}}", v(0), v(1), v(2), v(3))
    };
    for i in 0..flight {
        let at = i * 4096;
        t += &match mechanism {
            Mechanism::Load => format!("ld.global.v4.u32 {}, [%rd5+{at}];\n", four(i)),
            Mechanism::Async => {
                format!("cp.async.cg.shared.global [%r8+{at}], [%rd5+{at}], 16;\n")
            }
            Mechanism::Bulk if i == 0 => {
                format!(
                    "@%p mbarrier.arrive.expect_tx.shared.b64 %rd6, [%r9], {};\n{}",
                    flight * 4096,
                    bulk(at)
                )
            }
            Mechanism::Bulk => bulk(at),
        };
    }
    match mechanism {
        Mechanism::Load => {}
        Mechanism::Async => t += "cp.async.commit_group;\ncp.async.wait_group 0;\n",
        Mechanism::Bulk => {
            t += "and.b32 %r10, %r6, 1;\nwait:\nmbarrier.try_wait.parity.shared.b64 %q, [%r9], %r10;\n@!%q bra wait;\n";
        }
    }
    for i in 0..flight {
        if mechanism != Mechanism::Load {
            t += &format!("ld.shared.v4.u32 {}, [%r8+{}];\n", four(i), i * 4096);
        }
        for j in 0..4 {
            t += &format!("add.s32 %r5, %r5, %v{};\n", 4 * i + j);
        }
    }
    if mechanism == Mechanism::Bulk {
        t += "bar.sync 0;\n";
    }
    t += &format!(
        "add.s64 %rd5, %rd5, {0};\nadd.s64 %rd1, %rd1, {0};\nadd.s32 %r6, %r6, 1;\nsetp.lt.u32 %q, %r6, %r1;\n@%q bra next;\n\
         mad.lo.u32 %r11, %r3, {THREADS}, %r2;\nmul.wide.u32 %rd7, %r11, 4;\nadd.s64 %rd7, %rd2, %rd7;\n\
         st.global.u32 [%rd7], %r5;\nret;\n}}\n",
        flight * 4096
    );
    t
}

fn bulk(at: u32) -> String {
    format!(
        "add.s64 %rd6, %rd1, {at};\nadd.s32 %r11, %r7, {at};\n\
         @%p cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r11], [%rd6], 4096, [%r9];\n"
    )
}

/// Blocks and rounds that read so many bytes with so many in flight in a block.
fn shape(gpu: &Gpu, bytes: u64, flight: u32) -> (u32, u32) {
    let piece = u64::from(flight) * 4096;
    let pieces = (bytes / piece).max(1);
    let resident = u64::from(gpu.info().multiprocessors) * 4;
    let blocks = pieces.min(resident);
    (blocks as u32, pieces.div_ceil(blocks) as u32)
}

/// Reads are right: the sums of a small launch are those of the simulator.
pub(crate) fn check(gpu: &Arc<Gpu>, mechanism: Mechanism) -> std::result::Result<(), String> {
    let (flight, blocks, rounds) = (2, 3, 3);
    let words = (0..flight * blocks * rounds * 1024u32).map(|i| i.wrapping_mul(2_654_435_761));
    let inputs = vec![
        Input::Memory(crate::probe::bytes(words)),
        Input::Memory(vec![0; (blocks * THREADS * 4) as usize]),
        Input::U32(rounds),
    ];
    let probe = Probe {
        grid: [blocks, 1, 1],
        ..Probe::block(&text(mechanism, flight), "read", THREADS, inputs)
    };
    let expected = probe.on_sim(Options::default())?;
    let found = probe.on_gpu(gpu).map_err(|d| d.to_string())?;
    match found == expected {
        true => Ok(()),
        false => Err(format!("{mechanism:?}: the sums are wrong")),
    }
}

/// Times of reads by size and bytes in flight.
pub(crate) fn bandwidth(
    gpu: &Arc<Gpu>,
    mechanism: Mechanism,
    sizes: &[u64],
    most: u64,
) -> std::result::Result<Value, String> {
    check(gpu, mechanism)?;
    let mut rows = Vec::new();
    for flight in [1, 2, 4, 8] {
        for size in sizes {
            let micros = read(gpu, mechanism, flight, *size, most).map_err(|d| d.to_string())?;
            let (blocks, rounds) = shape(gpu, *size, flight);
            let bytes = u64::from(blocks) * u64::from(rounds) * u64::from(flight) * 4096;
            rows.push(json!({
                "bytes": bytes,
                "in_flight_per_block": flight * 4096,
                "blocks": blocks,
                "us": micros,
                "gb_per_s": bytes as f64 / micros / 1e3,
            }));
        }
    }
    Ok(json!({ "rows": rows }))
}

fn read(gpu: &Arc<Gpu>, mechanism: Mechanism, flight: u32, size: u64, most: u64) -> Result<f64> {
    let kernel = gpu.kernel(gpu.load(&text(mechanism, flight))?, "read")?;
    let (blocks, rounds) = shape(gpu, size, flight);
    let bytes = u64::from(blocks) * u64::from(rounds) * u64::from(flight) * 4096;
    let pool = (4 * gpu.info().l2).max(bytes).min(most.max(bytes));
    let nodes = (pool / bytes).clamp(1, NODES);
    let x = gpu.alloc(nodes * bytes)?;
    let y = gpu.alloc(u64::from(blocks) * u64::from(THREADS) * 4)?;
    let mut stream = gpu.stream()?;
    fill(gpu, x, nodes * bytes)?;
    let graph = stream.capture(|s| {
        (0..nodes).try_for_each(|i| {
            let at = (x + i * bytes).to_le_bytes();
            one(
                s,
                kernel,
                blocks,
                &[&at, &y.to_le_bytes(), &rounds.to_le_bytes()],
            )
        })
    });
    let micros = graph.and_then(|mut g| {
        g.replay()?;
        let mut samples = Vec::new();
        for _ in 0..9 {
            samples.push(stream.time(|_| g.replay())? / nodes as f64);
        }
        samples.sort_by(f64::total_cmp);
        Ok(samples[4])
    });
    gpu.free(x);
    gpu.free(y);
    micros
}

/// Fresh memory may share physical pages of zeros; it is written once.
fn fill(gpu: &Arc<Gpu>, at: u64, bytes: u64) -> Result<()> {
    let block = vec![0x5a; (16 << 20).min(bytes as usize)];
    let mut done = 0;
    while done < bytes {
        let n = (bytes - done).min(block.len() as u64);
        gpu.upload(at + done, &block[..n as usize])?;
        done += n;
    }
    Ok(())
}

fn one(s: &mut Stream, kernel: Kernel, blocks: u32, args: &[&[u8]]) -> Result<()> {
    s.launch(&Launch {
        kernel,
        grid: [blocks, 1, 1],
        block: [THREADS, 1, 1],
        cluster: None,
        shared: 0,
        args,
    })
}

/// Microseconds from one empty kernel to the next: in a stream, in a graph, and dependent.
pub(crate) fn gaps(gpu: &Arc<Gpu>) -> std::result::Result<Value, String> {
    let mut rows = vec![gap(gpu, "empty", false)?, gap(gpu, "empty", true)?];
    if gpu.info().sm >= 90 {
        rows.push(gap(gpu, "waiting", false)?);
        rows.push(gap(gpu, "waiting", true)?);
    }
    Ok(json!({ "rows": rows }))
}

fn gap(gpu: &Arc<Gpu>, entry: &str, graph: bool) -> std::result::Result<Value, String> {
    let wait = "griddepcontrol.launch_dependents;\ngriddepcontrol.wait;\n";
    let (version, target, body) = match entry {
        "waiting" => ("7.8", "sm_90", wait),
        _ => ("7.0", "sm_80", ""),
    };
    let text = format!(
        ".version {version}\n.target {target}\n.address_size 64\n.visible .entry {entry}() {{\n{body}ret;\n}}\n"
    );
    let measure = || -> Result<f64> {
        let kernel = gpu.kernel(gpu.load(&text)?, entry)?;
        let blocks = gpu.info().multiprocessors;
        let mut stream = gpu.stream()?;
        let all = |s: &mut Stream| (0..200).try_for_each(|_| one(s, kernel, blocks, &[]));
        let mut samples = Vec::new();
        let mut captured = match graph {
            true => Some(stream.capture(all)?),
            false => None,
        };
        for _ in 0..9 {
            let micros = stream.time(|s| match &mut captured {
                Some(g) => g.replay(),
                None => all(s),
            })?;
            samples.push(micros / 200.0);
        }
        samples.sort_by(f64::total_cmp);
        Ok(samples[4])
    };
    let micros = measure().map_err(|d| d.to_string())?;
    Ok(json!({ "kernel": entry, "graph": graph, "us": micros }))
}

/// Microseconds of one product of cuBLASLt for each number of rows, over distinct weights: the
/// library's first proposal, and the best of all of them by its time.
pub(crate) fn vendor(
    gpu: &Arc<Gpu>,
    kind: &str,
    k: u64,
    layers: u64,
    rows: &[u64],
) -> std::result::Result<Value, String> {
    let (input, output, bytes) = match kind {
        "f16" => (MatrixType::F16, MatrixType::F16, 2),
        "fp8" => (MatrixType::E4m3, MatrixType::F16, 1),
        "int8" => (MatrixType::I8, MatrixType::I32, 1),
        _ => return Err(format!("there is no type `{kind}`")),
    };
    let most = rows.iter().copied().max().unwrap_or(1);
    let product = Gemm {
        m: 0,
        n: k,
        k,
        input,
        output,
        a: 0,
        b: 0,
        d: 0,
        a_scale: None,
        b_scale: None,
        bias: None,
        gelu: false,
        workspace: 0,
        workspace_bytes: 32 << 20,
        proposal: 0,
    };
    let measure = || -> Result<Value> {
        let weights = gpu.alloc(layers * k * k * bytes)?;
        fill(gpu, weights, layers * k * k * bytes)?;
        let a = gpu.alloc(most * k * bytes)?;
        fill(gpu, a, most * k * bytes)?;
        let d = gpu.alloc(most * k * 4)?;
        let workspace = gpu.alloc(product.workspace_bytes)?;
        let mut stream = gpu.stream()?;
        let (mut first, mut best) = (serde_json::Map::new(), serde_json::Map::new());
        for m in rows {
            let mut times = Vec::new();
            for proposal in 0..16 {
                let one = Gemm {
                    m: *m,
                    a,
                    d,
                    workspace,
                    proposal,
                    ..product.clone()
                };
                match chain(&mut stream, &one, weights, layers, bytes) {
                    Ok(us) => times.push(us),
                    // There are no more proposals.
                    Err(_) if proposal > 0 => break,
                    Err(e) => return Err(e),
                }
            }
            first.insert(m.to_string(), json!(times[0]));
            best.insert(
                m.to_string(),
                json!(times.iter().copied().fold(f64::INFINITY, f64::min)),
            );
        }
        Ok(json!({ "us_per_layer": best, "us_first_proposal": first }))
    };
    measure().map_err(|d| d.to_string())
}

fn chain(s: &mut Stream, g: &Gemm, weights: u64, layers: u64, bytes: u64) -> Result<f64> {
    let mut graph = s.capture(|s| {
        (0..layers).try_for_each(|i| {
            let b = weights + i * g.n * g.k * bytes;
            s.gemm(&Gemm { b, ..g.clone() })
        })
    })?;
    graph.replay()?;
    let mut samples = Vec::new();
    for _ in 0..5 {
        samples.push(s.time(|_| graph.replay())? / layers as f64);
    }
    samples.sort_by(f64::total_cmp);
    Ok(samples[2])
}
