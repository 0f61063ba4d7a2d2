//! What fusion and the choice of schemes take for a model of the shape of Llama 2 70B.
//!
//! `cargo run --release -p qcc-tests --example choice_scale -- [LAYERS [TARGET]]`
//!
//! Weights are made on demand and none is read: types and sizes decide. The errors of layers are
//! assumed, as measuring them takes runs of the model.

use qcc_codegen::cost::Roofline;
use qcc_codegen::target::Target;
use qcc_passes::choose::{Budget, Study};
use qcc_passes::egraph::{Limits, Stats, fuse};
use qcc_passes::{Options, PassContext};
use qcc_tests::llama::{flat_statistics, llama_70b, usual_error};
use std::time::Instant;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let layers = args.first().map_or(Ok(80), |a| a.parse())?;
    let name = args.get(1).map_or("sm_90", String::as_str);
    let target = Target::find(name).ok_or_else(|| format!("there is no target {name}"))?;
    let cost = Roofline::new(target);
    let m = llama_70b(layers);
    println!("{layers} blocks, {} ops, {name}", m.funcs[0].ops.len());

    let start = Instant::now();
    let fused = fuse(&m, &cost, Limits::default())?;
    told("fuse", start, &fused.stats);

    let options = Options::default();
    let mut ctx = PassContext::new(&options);
    ctx.statistics = Some(flat_statistics(&m));
    ctx.cost = Some(&cost);
    let start = Instant::now();
    let mut study = Study::with_errors(&m, &ctx, &usual_error)?;
    let s = study.choose(Budget::Divergence(0.01))?.summary;
    told("choose", start, &s.search);
    println!(
        "{} groups of layers, {} parts; joint {:.1} µs, bound {:.1} µs",
        s.groups, s.factors, s.cost, s.bound
    );
    if let Some((scheme, t)) = &s.uniform {
        println!("all {scheme} {:.1} µs", t.mean_micros);
    }
    if let Some(t) = &s.precision_first {
        println!("precision first, fusion second {:.1} µs", t.mean_micros);
    }
    println!("float {:.1} µs", s.base.mean_micros);
    println!("memory of the process {} MiB at most", peak_mib());
    Ok(())
}

fn told(stage: &str, start: Instant, s: &Stats) {
    println!(
        "{stage} {:.2} s: {} e-graphs for {} regions, {} e-nodes, {} e-classes, largest {} KiB",
        start.elapsed().as_secs_f64(),
        s.distinct,
        s.regions,
        s.nodes,
        s.classes,
        s.peak_bytes >> 10
    );
}

/// The largest memory that this process has held, where the system tells.
fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    let kib = line.and_then(|l| l.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or(0) >> 10
}
