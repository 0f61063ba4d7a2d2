//! `qcc compare`: outputs of a plan against those of a float model on the same inputs.

use super::Output;
use super::args::SchemeArgs;
use super::engine;
use qcc::data::Dataset;
use qcc_ir::Tensor;
use qcc_ir::diag::{Class, Diagnostic, Result};
use qcc_ir::format::decode_slice;
use serde::Serialize;
use std::path::PathBuf;

/// Samples of a batch.
const BATCH: usize = 8;

/// Arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A plan.
    plan: PathBuf,
    /// The float model.
    model: PathBuf,
    /// Inputs: an .npz with an array for each, or a .npy for the only one; the first axis counts
    /// samples.
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    /// Threads [default: one per core].
    #[arg(long)]
    threads: Option<usize>,
}

#[derive(Serialize)]
struct Compared {
    samples: usize,
    outputs: Vec<Difference>,
}

/// How two outputs differ over all samples.
#[derive(Serialize)]
struct Difference {
    name: String,
    /// `‖a − b‖ / ‖b‖`
    relative_error: f64,
    cosine: f64,
    /// Share of rows along the last axis with the same largest element.
    top1: f64,
    max_abs: f64,
}

#[derive(Default)]
struct Sums {
    diff: f64,
    base: f64,
    ours: f64,
    dot: f64,
    max: f64,
    same: u64,
    rows: u64,
}

pub(crate) fn run(a: &Args, out: Output) -> Result<()> {
    let float = SchemeArgs::float(super::args::threads(a.threads));
    let mut plan = engine::open(&a.plan, &float, None)?;
    let mut model = engine::open(&a.model, &float, None)?;
    let ports = plan.engine().inputs().to_vec();
    let data = Dataset::open(&a.data, &ports)?;
    let mut sums: Vec<(String, Sums)> = Vec::new();
    for first in (0..data.len()).step_by(BATCH) {
        let batch = data.batch(first, BATCH.min(data.len() - first))?;
        let ours = engine::run(&mut plan, &ports, &batch)?;
        let base = engine::run(&mut model, &ports, &batch)?;
        for (name, t) in &ours {
            let b = base.iter().find(|(n, _)| n == name);
            let (_, b) = b.ok_or_else(|| {
                Diagnostic::error(
                    525,
                    Class::Input,
                    format!("the model has no output `{name}`"),
                )
            })?;
            let at = sums.iter().position(|(n, _)| n == name).unwrap_or_else(|| {
                sums.push((name.clone(), Sums::default()));
                sums.len() - 1
            });
            sums[at].1.add(t, b)?;
        }
    }
    let compared = Compared {
        samples: data.len(),
        outputs: sums.into_iter().map(|(n, s)| s.finish(n)).collect(),
    };
    out.print("compare", &compared, |c| {
        let line = |d: &Difference| {
            format!(
                "{}: relative error {:.3e}, cosine {:.8}, top-1 {:.4}, largest difference {:.3e}\n",
                d.name, d.relative_error, d.cosine, d.top1, d.max_abs
            )
        };
        format!("{} samples\n", c.samples) + &c.outputs.iter().map(line).collect::<String>()
    })
}

impl Sums {
    fn add(&mut self, a: &Tensor, b: &Tensor) -> Result<()> {
        if a.dims() != b.dims() {
            return Err(Diagnostic::error(
                525,
                Class::Input,
                format!("outputs have the shapes {:?} and {:?}", a.dims(), b.dims()),
            ));
        }
        let (x, y) = (floats(a)?, floats(b)?);
        let n = a.dims().last().map_or(1, |n| *n as usize).max(1);
        for (x, y) in x.chunks(n).zip(y.chunks(n)) {
            for (x, y) in x.iter().zip(y) {
                self.diff += (x - y) * (x - y);
                self.base += y * y;
                self.ours += x * x;
                self.dot += x * y;
                self.max = self.max.max((x - y).abs());
            }
            self.rows += 1;
            self.same += u64::from(argmax(x) == argmax(y));
        }
        Ok(())
    }

    fn finish(self, name: String) -> Difference {
        let ratio = |a: f64, b: f64| if a == 0.0 { 0.0 } else { a / b };
        Difference {
            name,
            relative_error: ratio(self.diff.sqrt(), self.base.sqrt()),
            cosine: if self.dot == 0.0 && self.base == self.ours {
                1.0
            } else {
                ratio(self.dot, (self.base * self.ours).sqrt())
            },
            top1: ratio(self.same as f64, self.rows as f64),
            max_abs: self.max,
        }
    }
}

fn floats(t: &Tensor) -> Result<Vec<f64>> {
    let mut v = vec![0f64; t.numel()];
    decode_slice(t.dtype(), t.bytes(), &mut v)
        .map_err(|e| Diagnostic::error(525, Class::Input, e.to_string()))?;
    Ok(v)
}

fn argmax(x: &[f64]) -> usize {
    (1..x.len()).fold(0, |best, i| if x[i] > x[best] { i } else { best })
}
