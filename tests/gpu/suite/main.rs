//! The GPU suite: what only a GPU can tell, asked of any NVIDIA GPU in one run.
//!
//! `all` runs every item in a process of its own, with a time limit each and one for all, and writes
//! each answer before the next question. See `tests/gpu/README.md`.

mod device;
mod forms;
mod matrix;
mod models;
mod predict;
mod probe;
mod report;
mod runner;
mod speed;
mod tables;
mod wgmma;

use qcc_runtime::cuda::Gpu;
use serde_json::{Value, json};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

const USAGE: &str = "usage: qcc-gpu-suite all --out DIR [--plans DIR] [--seconds N] [--quick]
       qcc-gpu-suite list | predict
       qcc-gpu-suite environment | device CHECK | table NAME [KEEP_DIR] | block NAME
       qcc-gpu-suite save BLOCK SM FILE
       qcc-gpu-suite chain SCHEME K LAYERS | plan FILE | read MECHANISM [quick] | gaps
       qcc-gpu-suite layers SCHEME K LAYERS [quick] | vendor TYPE K LAYERS [quick]";

/// Sizes of the read measurements in bytes.
const SIZES: &[u64] = &[2 << 20, 8 << 20, 32 << 20, 128 << 20, 512 << 20];
const QUICK_SIZES: &[u64] = &[64 << 10];
/// Rows of activations of the layer measurements.
const ROWS: &[u64] = &[1, 16, 64, 256, 2048];
/// Chains of layers that are measured: together larger than any second-level cache.
const CHAINS: &[(&str, u64, usize)] = &[
    ("w4", 4096, 32),
    ("w4", 8192, 8),
    ("fp8", 4096, 16),
    ("fp8", 8192, 4),
    ("int8", 4096, 16),
    ("int8", 8192, 4),
    ("f16", 4096, 8),
    ("f16", 8192, 3),
];

/// Chains and rows for a simulated driver.
const QUICK_CHAINS: &[(&str, u64, usize)] = &[("w4", 128, 2), ("fp8", 128, 2), ("f16", 128, 2)];
const QUICK_ROWS: &[u64] = &[1, 16];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["all", rest @ ..] => return runner::run(rest),
        ["list"] => Ok(json!(runner::items(&runner::Options::default()))),
        ["predict"] => Ok(predict::all(SIZES, CHAINS, ROWS)),
        rest => item(rest),
    };
    match done {
        Ok(value) => {
            println!("{value}");
            ExitCode::SUCCESS
        }
        Err(message) if message == USAGE => {
            eprintln!("{USAGE}");
            ExitCode::from(2)
        }
        Err(message) => {
            println!("{}", json!({ "error": message }));
            ExitCode::from(6)
        }
    }
}

/// One question to the GPU.
fn item(words: &[&str]) -> Result<Value, String> {
    let gpu = || Gpu::open(0).map_err(|d| d.to_string());
    let number = |n: &str| n.parse::<u64>().map_err(|_| USAGE.to_string());
    match *words {
        ["environment"] => environment(&gpu()?),
        ["device", name] => one_check(&gpu()?, name),
        ["table", name] => one_table(&gpu()?, name, None),
        ["table", name, keep] => one_table(&gpu()?, name, Some(Path::new(keep))),
        ["block", name] => models::compare(&models::plan(block(name)?, gpu()?.info().sm)?),
        ["save", name, sm, file] => {
            let sm = u32::try_from(number(sm)?).map_err(|_| USAGE.to_string())?;
            let bytes = models::plan_bytes(block(name)?, sm)?;
            std::fs::write(file, &bytes[..]).map_err(|e| format!("{file}: {e}"))?;
            Ok(json!({ "saved": file }))
        }
        ["chain", scheme, k, layers] => {
            let text = models::chain(scheme, number(k)?, number(layers)? as usize, 64)?;
            models::compare(&models::plan(&text, gpu()?.info().sm)?)
        }
        ["plan", file] => models::compare_file(Path::new(file)),
        ["read", name] => read(&gpu()?, name, SIZES, 4 << 30),
        ["read", name, "quick"] => read(&gpu()?, name, QUICK_SIZES, 128 << 10),
        ["gaps"] => speed::gaps(&gpu()?),
        ["layers", scheme, k, layers, ref quick @ ..] => {
            let (layers, rows) = (number(layers)? as usize, rows(quick)?);
            let most = rows[rows.len() - 1];
            let text = models::chain(scheme, number(k)?, layers, most)?;
            models::time(&models::plan(&text, gpu()?.info().sm)?, layers, rows)
        }
        ["vendor", kind, k, layers, ref quick @ ..] => {
            speed::vendor(&gpu()?, kind, number(k)?, number(layers)?, rows(quick)?)
        }
        _ => Err(USAGE.into()),
    }
}

fn block(name: &str) -> Result<&'static str, String> {
    let found = models::BLOCKS.iter().find(|b| b.0 == name);
    found
        .map(|b| b.1)
        .ok_or_else(|| format!("there is no block `{name}`"))
}

/// The rows of a layer measurement.
fn rows(quick: &[&str]) -> Result<&'static [u64], String> {
    match quick {
        [] => Ok(ROWS),
        ["quick"] => Ok(QUICK_ROWS),
        _ => Err(USAGE.into()),
    }
}

/// What the GPU and its driver say of themselves.
fn environment(gpu: &Arc<Gpu>) -> Result<Value, String> {
    let info = gpu.info();
    let (free, total) = gpu.memory().map_err(|d| d.to_string())?;
    Ok(json!({
        "name": info.name,
        "sm": info.sm,
        "multiprocessors": info.multiprocessors,
        "memory": info.memory,
        "free": free,
        "total": total,
        "l2": info.l2,
        "shared_per_block": info.shared_per_block,
        "clock_khz": info.clock_khz,
        "cuda": format!("{}.{}", info.driver.0, info.driver.1),
        "gpus": Gpu::count().map_err(|d| d.to_string())?,
    }))
}

fn one_check(gpu: &Arc<Gpu>, name: &str) -> Result<Value, String> {
    let check = device::CHECKS.iter().find(|c| c.0 == name);
    let (_, sm, run) = check.ok_or_else(|| format!("there is no check `{name}`"))?;
    if gpu.info().sm < *sm {
        return Ok(json!({ "skipped": format!("needs sm_{sm}") }));
    }
    run(gpu).map_err(|f| f.0)?;
    Ok(json!({ "passed": name }))
}

fn one_table(gpu: &Arc<Gpu>, name: &str, keep: Option<&Path>) -> Result<Value, String> {
    let table = tables::find(name).ok_or_else(|| format!("there is no table `{name}`"))?;
    tables::run(gpu, &table, keep)
}

fn read(gpu: &Arc<Gpu>, name: &str, sizes: &[u64], most: u64) -> Result<Value, String> {
    let found = speed::MECHANISMS.iter().find(|m| m.0 == name);
    let (_, sm, mechanism) = found.ok_or_else(|| format!("there is no mechanism `{name}`"))?;
    if gpu.info().sm < *sm {
        return Ok(json!({ "skipped": format!("needs sm_{sm}") }));
    }
    speed::bandwidth(gpu, *mechanism, sizes, most)
}
