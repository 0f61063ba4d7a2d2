//! What the time model expects, written before anything is measured.
//!
//! ```text
//! t = launch + max( rounds · 0.7 µs, 0.7 µs + bytes / bandwidth )
//! ```
//! It is the simulator's model with a read kernel's numbers put in: a chain of one memory hop for each
//! round. Launch is 1.3 µs, 0.3 µs for a dependent one. A chain of layers moves its weights.

use ptxsim::GPUS;
use serde_json::{Value, json};

const HOP_US: f64 = 0.7;
const LAUNCH_US: f64 = 1.3;
const DEPENDENT_US: f64 = 0.3;
/// Blocks of the read kernels that a multiprocessor holds.
const BLOCKS: u64 = 4;

/// Bytes of a weight in 1/16 of a byte, with its scales.
fn sixteenths(scheme: &str) -> u64 {
    match scheme {
        "f16" => 32,
        "w4" => 8,
        _ => 16,
    }
}

/// Predictions for every GPU of the simulator's table.
pub(crate) fn all(sizes: &[u64], chains: &[(&str, u64, usize)], rows: &[u64]) -> Value {
    let mut out = serde_json::Map::new();
    for gpu in GPUS {
        let rate = gpu.dram_gbps * 1e3;
        let mut reads = Vec::new();
        for flight in [1u64, 2, 4, 8] {
            for bytes in sizes {
                let pieces = bytes / (flight * 4096);
                let blocks = pieces.clamp(1, u64::from(gpu.sms) * BLOCKS);
                let rounds = pieces.div_ceil(blocks);
                let us = LAUNCH_US + (rounds as f64 * HOP_US).max(HOP_US + *bytes as f64 / rate);
                reads.push(
                    json!({ "bytes": bytes, "in_flight_per_block": flight * 4096, "us": us }),
                );
            }
        }
        let layer = |(scheme, k, layers): &(&str, u64, usize)| {
            let bytes = k * k * sixteenths(scheme) / 16;
            let tera = match *scheme {
                "fp8" if gpu.fp8_tflops > 0.0 => gpu.fp8_tflops,
                "int8" => gpu.int8_tops,
                _ => gpu.f16_tflops,
            };
            let time = |m: &u64| {
                let math = 2.0 * (m * k * k) as f64 / (tera * 1e6);
                (
                    m.to_string(),
                    json!(LAUNCH_US + HOP_US + (bytes as f64 / rate).max(math)),
                )
            };
            let times: serde_json::Map<String, Value> = rows.iter().map(time).collect();
            json!({ "scheme": scheme, "k": k, "layers": layers, "us_per_layer": times })
        };
        out.insert(
            gpu.name.into(),
            json!({
                "reads": reads,
                "launch_us": LAUNCH_US,
                "dependent_launch_us": DEPENDENT_US,
                "chains": chains.iter().map(layer).collect::<Vec<_>>(),
            }),
        );
    }
    Value::Object(out)
}
