//! What weight methods cost on decoder layers of the shape of a 7B model: seconds and memory.
//!
//! `cargo run --release -p qcc-tests --example layer_cost -- METHODS [LAYERS [THREADS]]`
//!
//! The layers (width 4096, 32 heads, MLP 11008) have random weights in f16, made before the clock
//! starts, and read 4 samples of 256 random tokens. METHODS is what `--algo` takes.

use qcc::data::Dataset;
use qcc::{Algo, Compiler, Options, Prepared, Scheme, SpillTo, interface};
use qcc_ir::graph::{Module, Weight, WeightBytes, WeightData, parse};
use qcc_ir::{DType, Tensor};
use std::borrow::Cow;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Instant;

const WIDTH: u64 = 4096;
const INNER: u64 = 11008;
const TOKENS: u64 = 512;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let methods = args
        .first()
        .ok_or("usage: layer_cost METHODS [LAYERS [THREADS]]")?;
    let number = |i: usize, default: usize| args.get(i).map_or(Ok(default), |a| a.parse());
    let (layers, threads) = (number(1, 1)?, number(2, 2)?);

    let mut options = Options {
        threads,
        spill: Some(SpillTo {
            folder: std::env::temp_dir(),
            above: 1 << 20,
        }),
        ..Options::default()
    };
    options.passes.scheme = Scheme::named("w4a16-g128-asym")?;
    options.passes.algo = Some(Algo::list(methods)?);
    let mut module = decoder(layers)?;
    fill(&mut module);
    let prepared = Prepared {
        module,
        warnings: Vec::new(),
        model_hash: String::new(),
        source_bytes: 0,
    };
    let mut ids = Tensor::zeros(DType::I64, &[4, 256])?;
    let mut random = Random(1);
    for id in ids.as_slice_mut::<i64>()? {
        *id = (random.next() % TOKENS) as i64;
    }
    let ports = interface(&prepared)?.inputs;
    let data = Dataset::new(vec![("ids".into(), ids)], &ports)?;
    let before = peak_mib();
    let start = Instant::now();
    let compiled = Compiler::new(options).quantize(prepared, None, Some(&data))?;
    let seconds = start.elapsed().as_secs_f64();
    let bytes = compiled.to_bytes()?.len();
    println!(
        "{methods}: {layers} layers, {threads} threads: {seconds:.1} s, memory {} MiB (weights \
         and data {} MiB), plan {} MiB",
        peak_mib(),
        before,
        bytes >> 20
    );
    Ok(())
}

/// Decoder layers in text form, their weights still without contents.
fn decoder(layers: usize) -> Result<Module, Box<dyn std::error::Error>> {
    let (mut weights, mut body) = (String::new(), String::new());
    let mut weight = |name: &str, n: u64, k: u64| -> String {
        let ty = format!("f16[{n}, {k}]");
        let _ = writeln!(weights, "weight @{name}: {ty} = extern");
        format!("  %{name}: {ty} = const @{name}\n")
    };
    body += &weight("embed", TOKENS, WIDTH);
    let x = |n: u64| format!("f16[4, 256, {n}]");
    let _ = writeln!(
        body,
        "  %x0: {} = gather %embed, %ids {{ axis = 0 }}",
        x(WIDTH)
    );
    let _ = writeln!(body, "  %gain: f16[{WIDTH}] = const @gain");
    for l in 0..layers {
        let mut linear = |from: &str, name: &str, n: u64, k: u64| {
            let name = format!("{name}{l}");
            let constant = weight(&format!("w.{name}"), n, k);
            format!(
                "{constant}  %{name}: {} = linear %{from}, %w.{name} @\"{name}\"\n",
                x(n)
            )
        };
        let norm = "{ eps = 1e-5 }";
        let _ = writeln!(
            body,
            "  %h{l}: {} = rms_norm %x{l}, %gain {norm} @\"norm{l}\"",
            x(WIDTH)
        );
        for name in ["q", "k", "v"] {
            body += &linear(&format!("h{l}"), name, WIDTH, WIDTH);
        }
        let heads = "{ heads = 32, scale = 0.088388346, causal }";
        let _ = writeln!(
            body,
            "  %a{l}: {} = attention %q{l}, %k{l}, %v{l} {heads}",
            x(WIDTH)
        );
        body += &linear(&format!("a{l}"), "o", WIDTH, WIDTH);
        let _ = writeln!(body, "  %r{l}: {} = add %x{l}, %o{l}", x(WIDTH));
        let _ = writeln!(
            body,
            "  %m{l}: {} = rms_norm %r{l}, %gain {norm} @\"mlp{l}\"",
            x(WIDTH)
        );
        body += &linear(&format!("m{l}"), "up", INNER, WIDTH);
        body += &linear(&format!("m{l}"), "gate", INNER, WIDTH);
        let _ = writeln!(body, "  %s{l}: {} = silu %gate{l}", x(INNER));
        let _ = writeln!(body, "  %p{l}: {} = mul %s{l}, %up{l}", x(INNER));
        body += &linear(&format!("p{l}"), "down", WIDTH, INNER);
        let _ = writeln!(body, "  %x{}: {} = add %r{l}, %down{l}", l + 1, x(WIDTH));
    }
    let text = format!(
        "qir 1\n{weights}weight @gain: f16[{WIDTH}] = splat(1)\n\
         func @main(%ids: i64[4, 256]) -> (y: {}) {{\n{body}  return %x{layers}\n}}\n",
        x(WIDTH)
    );
    parse(&text).map_err(|e| format!("{e:?}").into())
}

/// Bytes that were made once.
#[derive(Debug)]
struct Made(Vec<u8>);

impl WeightBytes for Made {
    fn bytes(&self) -> qcc_ir::diag::Result<Cow<'_, [u8]>> {
        Ok(Cow::Borrowed(&self.0))
    }
}

/// Gives every matrix nearly normal weights of deviation 0.02.
fn fill(m: &mut Module) {
    let empty = |w: &&mut Weight| matches!(w.data, WeightData::Extern);
    for (i, w) in m.weights.iter_mut().filter(empty).enumerate() {
        let mut random = Random(i as u64);
        let count: u64 = w.dims.iter().product();
        let normal = (0..count).map(|_| {
            // Four 16-bit uniform numbers: mean 2, variance 1/3 in units of 2^16.
            let bits = random.next();
            let sum: u64 = (0..4).map(|p| (bits >> (16 * p)) & 0xffff).sum();
            (sum as f32 / 65536.0 - 2.0) * 0.02 * 3.0f32.sqrt()
        });
        let values: Vec<f32> = normal.collect();
        let mut bytes = vec![0; values.len() * 2];
        // INVARIANT: every finite f32 has a nearest f16.
        qcc_ir::format::encode_slice(DType::F16, &values, &mut bytes).expect("f16 of f32");
        w.data = WeightData::Bytes(Arc::new(Made(bytes)));
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// The largest memory that this process has held, where the system tells.
fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    let kib = line.and_then(|l| l.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or(0) >> 10
}
