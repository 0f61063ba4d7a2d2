//! The joint choice of schemes beside the two usual ones: prints docs/choice-table.md.
//!
//! `cargo run --release -p qcc-tests --example choice_table -- MODELS_DIR`
//!
//! Errors of layers and schemes are measured once for each model: they depend neither on the target
//! nor on the sizes. Then each target, workload and budget has its own choice.

use qcc::data::Dataset;
use qcc::onnx::Model;
use qcc::{Compiler, Options, Prepared, Workload, interface};
use qcc_codegen::cost::Roofline;
use qcc_codegen::target::Target;
use qcc_cpu::{CpuExecutor, CpuOptions, Threads};
use qcc_ir::diag::{Class, Diagnostic, Result};
use qcc_ir::graph::Symbol;
use qcc_ir::{DType, Tensor};
use qcc_passes::choose::{Budget, Study, Summary};
use qcc_passes::{PassContext, Samples, Statistics};
use std::path::{Path, PathBuf};

const MODELS: [&str; 3] = ["docs-llama", "docs-llama-outlier", "docs-gpt-outlier"];
const TARGETS: [&str; 2] = ["sm_80", "sm_90"];
const WORKLOADS: [(&str, Workload); 3] = [
    ("decode", Workload::Decode),
    ("prefill", Workload::Prefill),
    ("mixed", Workload::Mixed),
];
/// Growth of the perplexity in percent.
const DROPS: [f64; 3] = [0.05, 0.2, 1.0];
/// Samples of a batch, and samples on which errors are measured, as `qcc compile` has them.
const BATCH: usize = 8;
const THREADS: usize = 2;

const HEAD: &str = "# The joint choice beside sequential ones

Written by `tests/choice/run.sh`. Predicted microseconds of a call, the mean of the workload over two sizes
(1 sequence of 1 token, 16 of 256), on one target alone. *Budget* is the growth of the perplexity. *Best
single scheme* has the least time of those that keep the budget, *precision first* picks schemes layer by
layer by their own time and fuses after; percentages are how much longer they take. *None*: no choice of
this kind keeps the budget.

| model | target | workload | budget | joint | best single scheme | precision first | float |
|---|---|---|---|---|---|---|---|
";

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args()
        .nth(1)
        .ok_or("usage: choice_table MODELS_DIR")?;
    print!("{HEAD}");
    let mut worse = Vec::new();
    for name in MODELS {
        let subject = Subject::open(Path::new(&folder), name)?;
        worse.extend(subject.rows(name)?);
    }
    match worse.is_empty() {
        true => Ok(()),
        false => Err(format!("the joint choice loses: {worse:?}").into()),
    }
}

/// A model that was calibrated.
struct Subject {
    prepared: Prepared,
    statistics: Statistics,
    data: Batches,
}

impl Subject {
    fn open(folder: &Path, name: &str) -> Result<Subject> {
        let file = |n: String| -> PathBuf { folder.join(n) };
        let options = Options {
            symbols: vec![symbol("batch", 16, 16), symbol("seq", 256, 256)],
            threads: THREADS,
            ..Options::default()
        };
        let mut compiler = Compiler::new(options);
        let prepared = compiler.prepare(&Model::open(&file(format!("{name}.onnx")))?)?;
        let io = interface(&prepared)?;
        let data = Dataset::open(&file("calib_tokens.npy".into()), &io)?;
        let statistics = compiler.calibrate(&prepared, &data)?;
        let data = Batches(data);
        Ok(Subject {
            prepared,
            statistics,
            data,
        })
    }

    /// Prints the rows of a model; gives those in which another choice is faster.
    fn rows(&self, name: &str) -> Result<Vec<String>> {
        let executor = CpuExecutor::new(CpuOptions::new(Threads::new(THREADS)?));
        let options = qcc_passes::Options {
            float: Some(DType::F16),
            ..qcc_passes::Options::default()
        };
        let first = [self.data.batch(0)?];
        let mut ctx = self.context(&options);
        ctx.executor = Some(&executor);
        let measured = Study::new(&self.prepared.module, &ctx, &first, &mut |done, of| {
            eprint!("\r{name}: {done} of {of} ");
            Ok(())
        })?;
        let error = |layer: &str, scheme: &str| measured.error(layer, scheme).unwrap_or(0.0);
        let mut worse = Vec::new();
        for target in TARGETS {
            let unknown = || Diagnostic::error(10, Class::Usage, format!("no target {target}"));
            let cost = Roofline::new(Target::find(target).ok_or_else(unknown)?);
            for (workload, w) in WORKLOADS {
                let options = qcc_passes::Options {
                    workload: w,
                    ..options.clone()
                };
                let mut ctx = self.context(&options);
                ctx.cost = Some(&cost);
                let mut study = Study::with_errors(&self.prepared.module, &ctx, &error)?;
                for drop in DROPS {
                    let s = study
                        .choose(Budget::Divergence((drop / 100.0).ln_1p()))?
                        .summary;
                    let row = format!("{name} | {target} | {workload} | {drop} %");
                    println!("| {row} | {} |", figures(&s));
                    let others = others(&s);
                    if others.iter().any(|o| *o < s.chosen.mean_micros - 1e-9) {
                        worse.push(row);
                    }
                }
            }
        }
        Ok(worse)
    }

    fn context<'a>(&'a self, options: &'a qcc_passes::Options) -> PassContext<'a> {
        let mut ctx = PassContext::new(options);
        ctx.statistics = Some(self.statistics.clone());
        ctx.samples = Some(&self.data);
        ctx.threads = THREADS;
        ctx
    }
}

fn symbol(name: &str, max: u64, point: u64) -> Symbol {
    Symbol {
        name: name.into(),
        min: 1,
        max,
        points: vec![1, point],
    }
}

fn others(s: &Summary) -> Vec<f64> {
    let uniform = s.uniform.iter().map(|(_, t)| t.mean_micros);
    let first = s.precision_first.iter().map(|t| t.mean_micros);
    uniform.chain(first).collect()
}

/// Microseconds of each choice, and how much longer than the joint one it takes.
fn figures(s: &Summary) -> String {
    let joint = s.chosen.mean_micros;
    let beside = |us: f64| format!("{us:.2} ({:+.1} %)", 100.0 * (us / joint - 1.0));
    let uniform = match &s.uniform {
        Some((scheme, t)) => format!("{} {scheme}", beside(t.mean_micros)),
        None => "none".into(),
    };
    let first = s.precision_first.as_ref();
    let first = first.map_or("none".into(), |t| beside(t.mean_micros));
    let float = beside(s.base.mean_micros);
    format!("{joint:.2} | {uniform} | {first} | {float}")
}

/// A data set in batches.
struct Batches(Dataset);

impl Samples for Batches {
    fn batches(&self) -> usize {
        self.0.len().div_ceil(BATCH)
    }

    fn batch(&self, index: usize) -> Result<Vec<Tensor>> {
        let first = index * BATCH;
        self.0.batch(first, BATCH.min(self.0.len() - first))
    }
}
