//! `qcc calibrate`: statistics of a model on data, kept in a file.

use super::args::{symbol, threads};
use super::bar::Bar;
use super::{Output, usage};
use qcc::data::Dataset;
use qcc::onnx::Model;
use qcc::{Calibrator, Compiler, ModelStatistics, Options, Progress};
use qcc_ir::diag::{Class, Diagnostic, Result};
use serde::Serialize;
use std::path::PathBuf;
use std::time::Instant;

/// Arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The model.
    model: PathBuf,
    /// Calibration data: a .npy for the only required input, or an .npz with an array for each.
    #[arg(long, value_name = "FILE", help_heading = "Data")]
    calib: Option<PathBuf>,
    /// Statistics of the same model to take over: other data, or another runtime.
    #[arg(long, value_name = "STATS", num_args = 1.., help_heading = "Data")]
    merge: Vec<PathBuf>,
    /// The statistics file.
    #[arg(short, long, value_name = "STATS")]
    output: Option<PathBuf>,
    /// Gather XᵀX of the inputs of linear layers too, which GPTQ needs.
    #[arg(long, requires = "calib", help_heading = "Data")]
    hessian: bool,
    /// List the values that are looked at, and run nothing.
    #[arg(long, conflicts_with_all = ["calib", "merge", "output"])]
    list_points: bool,
    /// Range of a dimension: NAME=MIN..MAX.
    #[arg(long, value_name = "NAME=MIN..MAX", help_heading = "Shapes")]
    dims: Vec<String>,
    /// Threads; results do not depend on their number [default: one per core].
    #[arg(long, help_heading = "Resources")]
    threads: Option<usize>,
}

#[derive(Serialize)]
struct Listed {
    points: Vec<PointRow>,
}

#[derive(Serialize)]
struct PointRow {
    value: String,
    channels: usize,
    layers: Vec<String>,
}

#[derive(Serialize)]
struct Summary {
    statistics: PathBuf,
    bytes: u64,
    model_hash: String,
    samples: u64,
    values: Vec<ValueRow>,
    seconds: f64,
}

#[derive(Serialize)]
struct ValueRow {
    value: String,
    rows: u64,
    channels: usize,
    min: f32,
    max: f32,
    histogram: bool,
    hessian: bool,
}

pub(crate) fn run(a: &Args, out: Output) -> Result<()> {
    let start = Instant::now();
    let options = Options {
        symbols: a.dims.iter().map(|d| symbol(d)).collect::<Result<_>>()?,
        ..Options::default()
    };
    let prepared = Compiler::new(options).prepare(&Model::open(&a.model)?)?;
    super::warn(&prepared.warnings);
    let mut calibrator = Calibrator::new(&prepared).hessians(a.hessian);
    if a.list_points {
        return out.print("points", &listed(&calibrator), points_text);
    }
    if a.calib.is_none() && a.merge.is_empty() {
        return Err(usage("give --calib, --merge or both; or --list-points"));
    }
    let Some(path) = &a.output else {
        return Err(usage("-o names the statistics file"));
    };
    if let Some(c) = &a.calib {
        let data = Dataset::open(c, &qcc::interface(&prepared)?)?;
        let mut bar = Bar::new();
        calibrator.feed(&data, threads(a.threads), &mut |done, total| {
            bar.step("calibrate", done, total);
            Ok(())
        })?;
        bar.clear();
    }
    for m in &a.merge {
        let place = m.display().to_string();
        let merged = calibrator.merge(&ModelStatistics::open(m)?);
        merged.map_err(|d| d.or_at(place))?;
    }
    let seen = calibrator.finish();
    if seen.statistics.iter().next().is_none() {
        let message = "nothing was seen: the model has no layer that can be quantized, or there \
                       was no data";
        return Err(Diagnostic::error(526, Class::Input, message));
    }
    let bytes = seen.write(path)?;
    let summary = Summary {
        statistics: path.clone(),
        bytes,
        samples: seen.statistics.samples,
        values: rows(&seen),
        model_hash: seen.model_hash,
        seconds: start.elapsed().as_secs_f64(),
    };
    out.print("calibrate", &summary, text)
}

fn listed(c: &Calibrator) -> Listed {
    let row = |p: &qcc_passes::Point| PointRow {
        value: p.value.clone(),
        channels: p.channels,
        layers: p.layers.clone(),
    };
    Listed {
        points: c.points().iter().map(row).collect(),
    }
}

fn rows(s: &ModelStatistics) -> Vec<ValueRow> {
    let values = s.statistics.iter().map(|(name, v)| ValueRow {
        value: name.to_string(),
        rows: v.rows,
        channels: v.channels(),
        min: v.min(),
        max: v.max(),
        histogram: v.histogram.is_some(),
        hessian: v.gram.is_some(),
    });
    values.collect()
}

fn points_text(l: &Listed) -> String {
    let line = |p: &PointRow| {
        let layers = p.layers.join(" · ");
        format!("{}  {} channels  read by {layers}\n", p.value, p.channels)
    };
    l.points.iter().map(line).collect()
}

fn text(s: &Summary) -> String {
    let mut t = format!(
        "stats     {} ({} bytes)\nmodel     {}\nsamples   {}\n",
        s.statistics.display(),
        s.bytes,
        s.model_hash,
        s.samples
    );
    for v in &s.values {
        t += &format!(
            "value     {}: {} rows of {}, {} to {}{}\n",
            v.value,
            v.rows,
            v.channels,
            v.min,
            v.max,
            if v.hessian { ", with XᵀX" } else { "" }
        );
    }
    t + &format!("seconds   {:.1}\n", s.seconds)
}
