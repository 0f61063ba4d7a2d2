//! The GPU suite: what only a GPU can tell, asked of any NVIDIA GPU in one run.
//!
//! See `tests/gpu/README.md`.

mod device;
mod probe;

use qcc_runtime::cuda::Gpu;
use serde_json::{Value, json};
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["environment"] => environment(),
        ["device", name] => one_check(name),
        _ => {
            eprintln!("usage: qcc-gpu-suite environment | device CHECK");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(value) => {
            println!("{value}");
            ExitCode::SUCCESS
        }
        Err(message) => {
            println!("{}", json!({ "error": message }));
            ExitCode::from(6)
        }
    }
}

/// What the GPU and its driver say of themselves.
fn environment() -> Result<Value, String> {
    let gpu = Gpu::open(0).map_err(|d| d.to_string())?;
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

fn one_check(name: &str) -> Result<Value, String> {
    let check = device::CHECKS.iter().find(|c| c.0 == name);
    let (_, sm, run) = check.ok_or_else(|| format!("there is no check `{name}`"))?;
    let gpu = Gpu::open(0).map_err(|d| d.to_string())?;
    if gpu.info().sm < *sm {
        return Ok(json!({ "skipped": format!("needs sm_{sm}") }));
    }
    run(&gpu).map_err(|f| f.0)?;
    Ok(json!({ "passed": name }))
}
