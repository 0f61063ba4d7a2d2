//! Small models on the GPU against the same models on the processor, and long chains of layers for
//! their times.
//!
//! The models are texts of graph IR: blocks of the repository's own filetests, and chains of one
//! kind of linear layer. Kernels are built here by the code generator, so nothing else is carried.

use qcc_codegen::cost::Roofline;
use qcc_codegen::lower::{LowerOptions, emit_section_with};
use qcc_codegen::target::Target;
use qcc_ir::diag::{Diagnostic, Result};
use qcc_ir::format::{decode_slice, encode_slice};
use qcc_ir::graph::{Module, Weight, WeightBytes, WeightData, parse, verify};
use qcc_ir::ledger::Ledger;
use qcc_ir::plan::{Plan, Port, TargetSection};
use qcc_ir::{DType, DimExpr, Tensor, eval};
use qcc_passes::{Manager, Options, PassContext, registry};
use qcc_runtime::plan_file::{AlignedBytes, plan_in_memory};
use qcc_runtime::{Device, Engine, PlanContents, PlanFile, Session, Threads, Verify};
use serde_json::{Value, json};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::forms::random;

/// Blocks of models: name and text. Blocks with coarse static scales are left out: a value between
/// two of a few codes that falls to the other one changes its row, on any device.
pub(crate) const BLOCKS: &[(&str, &str)] = &[
    ("linear", include_str!("../../filetests/lower/linear.qir")),
    (
        "gpt2_block",
        include_str!("../../filetests/lower/gpt2_block.qir"),
    ),
    (
        "llama_block",
        include_str!("../../filetests/lower/llama_block.qir"),
    ),
    (
        "products",
        include_str!("../../filetests/lower/products.qir"),
    ),
];

/// The word in a block's first line after which the vendor's products are used.
const VENDOR_GEMM: &str = "vendor-gemm";

/// Schemes of the chains.
pub(crate) const SCHEMES: &[&str] = &["f16", "fp8", "int8", "w4"];

/// Largest relative error in the Frobenius norm (the contract of float kernels).
const TOLERANCE: f64 = 1e-3;

/// A chain of `layers` linear layers of `[k, k]`, for 1 to `rows` tokens. Scales are such that the
/// variance of a weight is 1/k.
pub(crate) fn chain(
    scheme: &str,
    k: u64,
    layers: usize,
    rows: u64,
) -> std::result::Result<String, String> {
    let (mut head, mut body) = (String::new(), String::new());
    let scale = |deviation: f64| 1.0 / (deviation * (k as f64).sqrt());
    for i in 0..layers {
        let (x, y) = (format!("%x{i}"), format!("%x{}", i + 1));
        let (weight, before, ty, consts, from) = match scheme {
            "f16" => (
                format!("weight @w{i}: f16[{k}, {k}] = extern"),
                String::new(),
                "f16".to_string(),
                format!("@w{i}"),
                x,
            ),
            "fp8" => (
                format!(
                    "weight @c{i}: f32[] = [0.01]\nweight @w{i}: e4m3[{k}, {k}] = extern\n\
                     weight @s{i}: f32[{k}, 1] = splat({:.6})",
                    scale(0.62)
                ),
                format!(
                    "  %c{i}: f32[] = const @c{i}\n  %q{i}: q<e4m3, [*, *], scale=f32>[m, {k}] = quantize {x}, %c{i}\n"
                ),
                "q<e4m3, [1, *], scale=f32>".to_string(),
                format!("@w{i}, @s{i}"),
                format!("%q{i}"),
            ),
            "int8" => (
                format!(
                    "weight @w{i}: i8[{k}, {k}] = extern\nweight @s{i}: f32[{k}, 1] = splat({:.6})",
                    scale(74.0)
                ),
                format!("  %q{i}: q<i8, [1, *], scale=f32, dynamic>[m, {k}] = quantize {x}\n"),
                "q<i8, [1, *], scale=f32>".to_string(),
                format!("@w{i}, @s{i}"),
                format!("%q{i}"),
            ),
            "w4" => (
                format!(
                    "weight @w{i}: i4[{k}, {k}] = extern\nweight @s{i}: f16[{k}, {}] = splat({:.6})",
                    k / 128,
                    scale(4.6)
                ),
                String::new(),
                "q<i4, [1, 128], scale=f16>".to_string(),
                format!("@w{i}, @s{i}"),
                x,
            ),
            other => return Err(format!("there is no scheme `{other}`")),
        };
        head += &format!("{weight}\n");
        body += &before;
        body += &format!("  %w{i}: {ty}[{k}, {k}] = const {consts}\n");
        body += &format!("  {y}: f16[m, {k}] = linear {from}, %w{i}\n");
    }
    Ok(format!(
        "qir 1\ndim m = 1..{rows}\n{head}func @main(%x0: f16[m, {k}]) -> (y: f16[m, {k}]) {{\n{body}  return %x{layers}\n}}\n"
    ))
}

/// What the first line of a filetest says after the target, if it says something.
fn header(text: &str) -> Option<&str> {
    let words = text.lines().next()?.strip_prefix("// test lower ")?;
    words.split_once(' ').map(|(_, rest)| rest)
}

/// The module of a text, optimized for the target if its first line names passes, every weight with
/// bytes.
fn module(text: &str, target: &'static Target) -> std::result::Result<Module, String> {
    let mut m = parse(text).map_err(|e| format!("{e:?}"))?;
    if let Some(first) = verify(&m).first() {
        return Err(first.to_string());
    }
    if let Some(passes) = header(text).filter(|w| *w != VENDOR_GEMM) {
        let passes = registry::parse_list(passes).map_err(|d| d.to_string())?;
        let (options, cost) = (Options::default(), Roofline::new(target));
        let mut context = PassContext::new(&options);
        context.cost = Some(&cost);
        let done = Manager::new(passes).run(m, &mut context);
        m = done.map_err(|d| d.to_string())?.module;
    }
    let mut made: BTreeMap<(&str, Vec<u64>), Arc<Held>> = BTreeMap::new();
    for i in 0..m.weights.len() {
        let w = &m.weights[i];
        let held = match w.data {
            WeightData::Bytes(_) => continue,
            WeightData::Extern => {
                // Layers of one shape hold the same numbers at different addresses.
                let key = (w.dtype.name(), w.dims.clone());
                match made.get(&key) {
                    Some(held) => held.clone(),
                    None => {
                        let held = Arc::new(Held(contents(w)?));
                        made.insert(key, held.clone());
                        held
                    }
                }
            }
            _ => {
                let tensor = eval::weight_tensor(w).map_err(|d| d.to_string())?;
                Arc::new(Held(tensor.bytes().to_vec()))
            }
        };
        m.weights[i].data = WeightData::Bytes(held);
    }
    Ok(m)
}

#[derive(Debug)]
struct Held(Vec<u8>);

impl WeightBytes for Held {
    fn bytes(&self) -> Result<Cow<'_, [u8]>> {
        Ok(Cow::Borrowed(&self.0))
    }
}

/// Numbers that keep a chain of layers near one, together with the scales of [`chain`].
fn contents(w: &Weight) -> std::result::Result<Vec<u8>, String> {
    let bytes = w.byte_len().and_then(|b| usize::try_from(b).ok());
    let bytes = bytes.ok_or("a weight is too large")?;
    let noise = random(17).flat_map(u32::to_le_bytes);
    match w.dtype {
        DType::I8 | DType::I4 => Ok(noise.take(bytes).collect()),
        // Without the largest exponents: no NaN, and no sums that one product decides.
        DType::E4M3 => Ok(noise.map(|b| b & 0xbf).take(bytes).collect()),
        DType::F16 => {
            let spread = (12.0 / w.dims.last().copied().unwrap_or(1).max(1) as f64).sqrt();
            let values: Vec<f64> = (0..4096)
                .map(|i| (f64::from(i) / 4095.0 - 0.5) * spread)
                .collect();
            let mut table = vec![0; 8192];
            encode_slice(DType::F16, &values, &mut table).map_err(|e| e.to_string())?;
            let pick = |r: u32| {
                let at = r as usize % 4096 * 2;
                [table[at], table[at + 1]]
            };
            Ok(random(17).flat_map(pick).take(bytes).collect())
        }
        other => Err(format!("no contents for a weight of {other}")),
    }
}

/// A plan with a section for the GPU and one for the processor.
pub(crate) fn plan(text: &str, sm: u32) -> std::result::Result<Arc<PlanFile>, String> {
    let file = PlanFile::from_bytes(plan_bytes(text, sm)?, Verify::Lazy);
    file.map(Arc::new).map_err(|d| d.to_string())
}

/// The bytes of such a plan's file.
pub(crate) fn plan_bytes(text: &str, sm: u32) -> std::result::Result<AlignedBytes, String> {
    let name = [90, 89, 86, 80].into_iter().find(|n| *n <= sm);
    let name = format!("sm_{}", name.ok_or("the GPU is older than every target")?);
    let target = Target::find(&name).ok_or("no such target")?;
    let m = module(text, target)?;
    let mut plan = Plan::new("suite", "00", env!("CARGO_PKG_VERSION"));
    plan.add_module("m0", &m).map_err(|d| d.to_string())?;
    let options = LowerOptions {
        vendor_gemm: header(text) == Some(VENDOR_GEMM),
    };
    let (section, mut texts) =
        emit_section_with(&m, "m0", target, options).map_err(|e| format!("{e:?}"))?;
    plan.targets.push(section);
    let cpu = TargetSection::cpu("cpu", "m0", &m).map_err(|d| d.to_string())?;
    plan.targets.push(cpu);
    plan.lay_out_weights();
    texts.insert("text/m0".into(), m.to_string());
    let contents = PlanContents {
        plan: &plan,
        ledger: &Ledger::new(),
        texts: &texts,
    };
    let written = plan_in_memory(&contents, |entry, put| {
        let held = m.weights.iter().find(|w| w.name == entry.name);
        match held.map(|w| &w.data) {
            Some(WeightData::Bytes(b)) => put(&entry.pack(&b.bytes()?)?),
            _ => Ok(()),
        }
    });
    written.map(|w| w.0).map_err(|d| d.to_string())
}

/// Some input for a port at these sizes.
fn input(port: &Port, sizes: &BTreeMap<String, i64>) -> std::result::Result<Tensor, String> {
    let mut dims = Vec::new();
    for d in &port.dims {
        let expr: DimExpr = d.parse().map_err(|e: Diagnostic| e.to_string())?;
        let value = expr.eval(&|s| sizes.get(s).copied());
        let value = value.and_then(|v| u64::try_from(v).ok());
        dims.push(value.ok_or_else(|| format!("`{d}` has no size"))?);
    }
    let mut tensor = Tensor::zeros(port.dtype, &dims).map_err(|d| d.to_string())?;
    let n = tensor.numel();
    match port.dtype {
        DType::Bool => tensor.bytes_mut().fill(1),
        DType::I64 => {
            let ids: Vec<i64> = (0..n as i64).map(|i| (i * 37 + 11) % 50).collect();
            tensor = Tensor::i64(&dims, &ids).map_err(|d| d.to_string())?;
        }
        dtype => {
            let one = |r: u32| (f64::from(r) / f64::from(u32::MAX) - 0.5) * 2.0;
            let values: Vec<f64> = random(23).map(one).take(n).collect();
            encode_slice(dtype, &values, tensor.bytes_mut()).map_err(|e| e.to_string())?;
        }
    }
    Ok(tensor)
}

/// `‖a − b‖ / ‖b‖`; infinite where one has a NaN and the other has not.
fn error(a: &Tensor, b: &Tensor) -> std::result::Result<f64, String> {
    let floats = |t: &Tensor| {
        let mut out = vec![0f64; t.numel()];
        let done = decode_slice(t.dtype(), t.bytes(), &mut out);
        done.map(|()| out).map_err(|e| e.to_string())
    };
    let (a, b) = (floats(a)?, floats(b)?);
    let (mut difference, mut size) = (0.0, 0.0);
    for (a, b) in a.iter().zip(&b) {
        if a.is_nan() && b.is_nan() {
            continue;
        }
        difference += (a - b) * (a - b);
        size += b * b;
    }
    let e = (difference / f64::max(size, f64::MIN_POSITIVE)).sqrt();
    Ok(if e.is_nan() { f64::INFINITY } else { e })
}

/// How many rows are further off than the tolerance, and how many there are. Where few are, a value
/// between two codes was rounded to the other one.
fn rows_off(a: &Tensor, b: &Tensor) -> std::result::Result<(usize, usize), String> {
    let floats = |t: &Tensor| {
        let mut out = vec![0f64; t.numel()];
        let done = decode_slice(t.dtype(), t.bytes(), &mut out);
        done.map(|()| out).map_err(|e| e.to_string())
    };
    let width = a.dims().last().map_or(1, |d| (*d).max(1) as usize);
    let (a, b) = (floats(a)?, floats(b)?);
    let far = |(a, b): (&[f64], &[f64])| {
        let size: f64 = b.iter().map(|x| x * x).sum();
        let difference: f64 = a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum();
        difference > TOLERANCE * TOLERANCE * size
    };
    let pairs = a.chunks(width).zip(b.chunks(width));
    Ok((pairs.filter(|p| far(*p)).count(), a.len() / width))
}

/// A size of each symbol within its range.
fn sizes(plan: &Plan, want: u64) -> BTreeMap<String, i64> {
    let size = |s: &qcc_ir::plan::Symbol| (s.name.clone(), want.clamp(s.min, s.max) as i64);
    plan.symbols.iter().map(size).collect()
}

/// Runs a plan on the GPU and on the processor at several sizes, each twice: results agree, and the
/// second run, which is a replay, gives the same bits.
pub(crate) fn compare(file: &Arc<PlanFile>) -> std::result::Result<Value, String> {
    let open = |device| Engine::new(file.clone(), device).map_err(|d| d.to_string());
    let threads = Threads::new(std::thread::available_parallelism().map_or(1, |n| n.get().min(16)));
    let cpu = open(Device::Cpu(threads.map_err(|d| d.to_string())?))?;
    let gpu = open(Device::Cuda(0))?;
    let (mut on_gpu, mut on_cpu) = (gpu.session(), cpu.session());
    let (mut worst, mut runs) = (0f64, 0);
    for want in [1, 7, 33, 70, 7] {
        let sizes = sizes(gpu.plan(), want);
        let ports = gpu.inputs();
        let inputs = ports.iter().map(|p| input(p, &sizes));
        let inputs = inputs.collect::<std::result::Result<Vec<_>, _>>()?;
        let named: Vec<(&str, &Tensor)> =
            ports.iter().map(|p| p.name.as_str()).zip(&inputs).collect();
        let run = |s: &mut Session| s.run(&named).map_err(|d| d.to_string());
        let (first, again) = (run(&mut on_gpu)?, run(&mut on_gpu)?);
        let expected = run(&mut on_cpu)?;
        for ((name, found), ((_, again), (_, expected))) in
            first.iter().zip(again.iter().zip(&expected))
        {
            if found.bytes() != again.bytes() {
                return Err(format!("{name} at {sizes:?}: a replay gives other bits"));
            }
            let e = error(found, expected)?;
            worst = worst.max(e);
            if e > TOLERANCE {
                let (off, rows) = rows_off(found, expected)?;
                return Err(format!(
                    "{name} at {sizes:?}: relative error {e:.2e}, in {off} of {rows} rows"
                ));
            }
        }
        runs += 1;
    }
    Ok(json!({ "target": gpu.target(), "sizes": runs, "worst_relative_error": worst }))
}

/// As [`compare`], for a plan in a file.
pub(crate) fn compare_file(path: &Path) -> std::result::Result<Value, String> {
    let file = PlanFile::open(path, Verify::Full).map_err(|d| d.to_string())?;
    compare(&Arc::new(file))
}

/// Microseconds of one layer of a chain, each with weights of its own, at each number of rows.
pub(crate) fn time(
    file: &Arc<PlanFile>,
    layers: usize,
    rows: &[u64],
) -> std::result::Result<Value, String> {
    let gpu = Engine::new(file.clone(), Device::Cuda(0)).map_err(|d| d.to_string())?;
    let mut session = gpu.session();
    let mut times = serde_json::Map::new();
    for m in rows {
        let x = input(&gpu.inputs()[0], &sizes(gpu.plan(), *m))?;
        let run = session.run(&[(gpu.inputs()[0].name.as_str(), &x)]);
        run.map_err(|d| d.to_string())?;
        let mut samples = Vec::new();
        for _ in 0..5 {
            let micros = session.micros(20).map_err(|d| d.to_string())?;
            samples.push(micros.ok_or("the device takes no times")? / layers as f64);
        }
        samples.sort_by(f64::total_cmp);
        times.insert(m.to_string(), json!(samples[2]));
    }
    Ok(json!({ "us_per_layer": times }))
}
