//! Truth tables: what an instruction does to given bits, on the GPU and in the simulator.
//!
//! The texts are small kernels that test one instruction each; kernels of ours are not tested here.
//! Inputs cover what differs between readings of the manual: every exponent, ties, subnormals, NaN
//! and both zeros for conversions; one element set at a time for the layout of matrix fragments;
//! sums whose bits fall off the accumulator for its width.

use ptxsim::{Accumulate, Approx, Options};
use qcc_runtime::cuda::Gpu;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;

use crate::forms::{FORMS, Form, Same};
use crate::matrix;
use crate::probe::{Probe, bytes, words};
use crate::wgmma;

/// A table: a probe, and how its answers are compared.
pub(crate) struct Table {
    pub(crate) name: String,
    pub(crate) sm: u32,
    /// Whether only this architecture has the instruction.
    pub(crate) exact_sm: bool,
    pub(crate) probe: Probe,
    pub(crate) same: Same,
}

/// Every table.
pub(crate) fn all() -> Vec<Table> {
    let mut tables: Vec<Table> = FORMS.iter().map(pointwise).collect();
    tables.extend(matrix::tables());
    tables.extend(wgmma::tables());
    tables
}

/// A table by its name.
pub(crate) fn find(name: &str) -> Option<Table> {
    all().into_iter().find(|t| t.name == name)
}

/// `y[i] = form(x[i], z[i])` over 32-bit words.
fn pointwise(form: &Form) -> Table {
    let (x, z) = (form.inputs)();
    let n = x.len() as u32;
    let version = match form.sm {
        90.. => "7.8",
        89 => "8.4",
        _ => "7.0",
    };
    let text = format!(
        ".version {version}\n.target sm_{}\n.address_size 64\n\
         .visible .entry k(.param .u64 a, .param .u64 b, .param .u64 c, .param .u32 n)\n{{\n\
         .reg .pred %p;\n.reg .b64 %rd<8>;\n.reg .b32 %x, %z, %y, %t<4>, %r<6>;\n.reg .b16 %h<4>;\n\
         ld.param.u64 %rd1, [a];\nld.param.u64 %rd2, [b];\nld.param.u64 %rd3, [c];\nld.param.u32 %r1, [n];\n\
         mov.u32 %r2, %ctaid.x;\nmov.u32 %r3, %tid.x;\nmad.lo.u32 %r4, %r2, 256, %r3;\n\
         setp.ge.u32 %p, %r4, %r1;\n@%p ret;\nmul.wide.u32 %rd4, %r4, 4;\n\
         add.s64 %rd5, %rd1, %rd4;\nadd.s64 %rd6, %rd2, %rd4;\nadd.s64 %rd7, %rd3, %rd4;\n\
         ld.global.u32 %x, [%rd5];\nld.global.u32 %z, [%rd6];\n{}\nst.global.u32 [%rd7], %y;\nret;\n}}\n",
        form.sm, form.body
    );
    let out = vec![0; x.len() * 4];
    use crate::probe::Input::{Memory, U32};
    let inputs = vec![Memory(bytes(x)), Memory(bytes(z)), Memory(out), U32(n)];
    Table {
        name: form.name.into(),
        sm: form.sm,
        exact_sm: false,
        probe: Probe {
            grid: [n.div_ceil(256), 1, 1],
            ..Probe::block(&text, "k", 256, inputs)
        },
        same: form.same,
    }
}

/// Runs a table on the GPU, compares it with the simulator and keeps the GPU's answers.
pub(crate) fn run(gpu: &Arc<Gpu>, table: &Table, keep: Option<&Path>) -> Result<Value, String> {
    let sm = gpu.info().sm;
    if sm < table.sm || (table.exact_sm && sm != table.sm) {
        return Ok(json!({ "skipped": format!("needs sm_{}", table.sm) }));
    }
    let expected = simulated(table, Options::default())?;
    let found = table.probe.on_gpu(gpu).map_err(|d| d.to_string())?;
    let found = words(found.last().map_or(&[][..], Vec::as_slice));
    if let Some(folder) = keep {
        let path = folder.join(format!("{}.bin", table.name));
        std::fs::write(&path, bytes(found.iter().copied()))
            .map_err(|e| format!("{}: {e}", path.display()))?;
    }
    match table.same {
        Same::Bits => Ok(differences(table, &found, &expected)),
        Same::Between => {
            let approx = |approx| Options {
                approx,
                ..Options::default()
            };
            let low = simulated(table, approx(Approx::Low))?;
            let high = simulated(table, approx(Approx::High))?;
            Ok(outside(table, &found, &low, &high))
        }
        Same::Accumulator => {
            let hopper = Options {
                accumulate: Accumulate::Hopper,
                ..Options::default()
            };
            let hopper = simulated(table, hopper)?;
            let model = match (found == expected, found == hopper) {
                (true, true) => "both models",
                (true, false) => "exact",
                (false, true) => "align and truncate",
                (false, false) => "neither model",
            };
            let mut value = differences(table, &found, &expected);
            value["accumulator"] = json!(model);
            if model != "neither model" {
                value["differences"] = json!(0);
            }
            Ok(value)
        }
    }
}

fn simulated(table: &Table, options: Options) -> Result<Vec<u32>, String> {
    let all = table.probe.on_sim(options)?;
    Ok(words(all.last().map_or(&[][..], Vec::as_slice)))
}

fn differences(table: &Table, found: &[u32], expected: &[u32]) -> Value {
    let differ = |i: &usize| found[*i] != expected[*i];
    let all: Vec<usize> = (0..found.len().min(expected.len()))
        .filter(differ)
        .collect();
    let show = |i: &usize| {
        let (f, e) = (found[*i], expected[*i]);
        json!({ "at": i, "gpu": format!("{f:08x}"), "simulator": format!("{e:08x}") })
    };
    json!({
        "table": table.name,
        "answers": found.len(),
        "differences": all.len(),
        "first": all.iter().take(8).map(show).collect::<Vec<_>>(),
    })
}

/// Answers outside the interval that the manual allows, as floats.
fn outside(table: &Table, found: &[u32], low: &[u32], high: &[u32]) -> Value {
    let value = |bits: u32| f64::from(f32::from_bits(bits));
    let mut first = Vec::new();
    let mut count = 0;
    for (i, bits) in found.iter().enumerate() {
        let (f, a, b) = (value(*bits), value(low[i]), value(high[i]));
        let inside = (f.is_nan() && a.is_nan()) || (a.min(b) <= f && f <= a.max(b));
        if !inside {
            count += 1;
            if first.len() < 8 {
                first.push(json!({ "at": i, "gpu": f.to_string(), "low": a.to_string(), "high": b.to_string() }));
            }
        }
    }
    json!({
        "table": table.name,
        "answers": found.len(),
        "differences": count,
        "first": first,
    })
}
