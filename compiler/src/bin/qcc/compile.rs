//! `qcc compile`: the main job.

use super::args::SchemeArgs;
use super::bar::Bar;
use super::choice::missed;
use super::summary::text_of;
use super::{Output, file_error, usage};
use clap::ValueEnum;
use qcc::data::Dataset;
use qcc::onnx::Model;
use qcc::report::{Heading, page};
use qcc::{Compiled, Compiler, ModelStatistics, Report, SpillTo};
use qcc_ir::diag::Result;
use qcc_ir::graph::Module;
use qcc_passes::{Observer, Pass};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// What to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Emit {
    /// The plan file.
    Plan,
    /// The compiled module as text, to stdout or the output file.
    Qir,
    /// The kernels' PTX, to stdout or the output file.
    Ptx,
    /// A page of HTML: errors by layer, bytes, decisions.
    Report,
}

/// Arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The model.
    model: PathBuf,
    /// Targets, separated by commas; `qcc targets` lists them.
    #[arg(long, value_name = "T[,T…]", value_delimiter = ',', required = true)]
    target: Vec<String>,
    /// The output file [default: the model's name with .qplan or .report.html]. Where plan and
    /// report are written it is the plan, and the report lies beside it.
    #[arg(short, long, value_name = "OUT.qplan")]
    output: Option<PathBuf>,
    /// Calibration data: a .npy for the only required input, or an .npz with an array for each.
    #[arg(long, value_name = "FILE", help_heading = "Data")]
    calib: Option<PathBuf>,
    /// Streamed activations and codes that take more than this go to a temporary file beside the
    /// plan: bytes, or a number with K, M or G.
    #[arg(long, value_name = "SIZE", default_value = "4G", help_heading = "Data")]
    max_memory: String,
    /// Statistics of `qcc calibrate` in place of those of the calibration data.
    #[arg(long, value_name = "STATS", help_heading = "Data")]
    stats: Option<PathBuf>,
    /// What to write; plan,report writes both.
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "plan",
        help_heading = "Output"
    )]
    emit: Vec<Emit>,
    /// Folder for the module before the first pass and after each.
    #[arg(long, value_name = "DIR", help_heading = "Output")]
    dump_phases: Option<PathBuf>,
    #[command(flatten)]
    scheme: SchemeArgs,
}

#[derive(Serialize)]
pub(crate) struct Summary<'a> {
    pub(crate) plan: Option<PathBuf>,
    /// The page, if it was asked for.
    pub(crate) page: Option<PathBuf>,
    /// Bytes of the plan, if it was written.
    pub(crate) bytes: Option<u64>,
    #[serde(flatten)]
    pub(crate) report: &'a Report,
    pub(crate) compile_peak_bytes: Option<u64>,
    pub(crate) seconds: f64,
}

pub(crate) fn run(a: &Args, out: Output) -> Result<()> {
    let start = Instant::now();
    let files = Files::of(a)?;
    if out.json && files.text.is_some() {
        return Err(usage("--emit qir and ptx write text, --json asks for JSON"));
    }
    let mut options = a.scheme.options(a.target.clone())?;
    options.diagnose = files.text.is_none();
    let beside = files.plan.as_deref().or(files.page.as_deref());
    options.spill = Some(SpillTo {
        folder: beside.map_or_else(|| PathBuf::from("."), folder),
        above: size(&a.max_memory)?,
    });
    let model = Model::open(&a.model)?;
    let mut bar = Bar::new();
    let mut dump = a.dump_phases.clone().map(|dir| Dump { dir, count: 0 });
    let mut compiler = Compiler::new(options).progress(&mut bar);
    if let Some(d) = &mut dump {
        std::fs::create_dir_all(&d.dir).map_err(|e| file_error(&d.dir, e))?;
        compiler = compiler.observe(d);
    }
    let prepared = compiler.prepare(&model)?;
    let data = a
        .calib
        .as_ref()
        .map(|c| Dataset::open(c, &qcc::interface(&prepared)?))
        .transpose()?;
    let compiled = match &a.stats {
        None => compiler.complete(prepared, data.as_ref())?,
        Some(path) => {
            let stats = ModelStatistics::open(path)?;
            let of = stats.check_model(&prepared.model_hash);
            of.map_err(|d| d.or_at(path.display().to_string()))?;
            compiler.quantize(prepared, Some(stats.statistics), data.as_ref())?
        }
    };
    bar.clear();
    super::warn(&compiled.report.warnings);
    if let Some(kind) = files.text {
        let text = text_of_kind(&compiled, kind)?;
        match &a.output {
            Some(p) => std::fs::write(p, text).map_err(|e| file_error(p, e))?,
            None => print!("{text}"),
        }
        return Ok(());
    }
    let written = files.plan.as_ref().map(|p| compiled.write(p)).transpose()?;
    let bytes = written.map(|w| w.bytes);
    if let Some(p) = &files.page {
        let name = a.model.file_name().unwrap_or(a.model.as_os_str());
        let heading = Heading {
            model: &name.to_string_lossy(),
            plan_bytes: bytes,
        };
        let text = page(heading, &compiled.report, &compiled.ledger);
        std::fs::write(p, text).map_err(|e| file_error(p, e))?;
    }
    let summary = Summary {
        plan: files.plan,
        page: files.page,
        bytes,
        report: &compiled.report,
        compile_peak_bytes: peak_bytes(),
        seconds: start.elapsed().as_secs_f64(),
    };
    out.print("compile", &summary, text_of)?;
    match summary.report.auto.as_ref().filter(|a| !a.kept) {
        Some(a) => Err(missed(a)),
        None => Ok(()),
    }
}

/// Which files are written.
#[derive(Default)]
struct Files {
    plan: Option<PathBuf>,
    page: Option<PathBuf>,
    /// Instead of both.
    text: Option<Emit>,
}

impl Files {
    fn of(a: &Args) -> Result<Files> {
        let stem = || {
            let stem = a.model.file_stem();
            stem.ok_or_else(|| usage(format!("{} names no file", a.model.display())))
        };
        let given = |default: &str| match &a.output {
            Some(p) => Ok(p.clone()),
            None => Ok(PathBuf::from(stem()?).with_extension(default)),
        };
        let asks = |e: Emit| a.emit.contains(&e);
        let texts = a.emit.iter().filter(|e| matches!(e, Emit::Qir | Emit::Ptx));
        let mut files = Files::default();
        match (texts.clone().next(), a.emit.len()) {
            (Some(kind), 1) => files.text = Some(*kind),
            (Some(_), _) => return Err(usage("--emit qir and --emit ptx stand alone")),
            (None, _) => {
                files.plan = asks(Emit::Plan).then(|| given("qplan")).transpose()?;
                files.page = match (&files.plan, asks(Emit::Report)) {
                    (_, false) => None,
                    (Some(plan), true) => Some(plan.with_extension("report.html")),
                    (None, true) => Some(given("report.html")?),
                };
            }
        }
        Ok(files)
    }
}

/// The text that is written instead of a plan.
fn text_of_kind(compiled: &Compiled, kind: Emit) -> Result<String> {
    let texts = compiled.texts();
    if kind == Emit::Qir {
        return Ok(texts.get("text/main").cloned().unwrap_or_default());
    }
    let kernels = texts.iter().filter(|(n, _)| n.ends_with(".ptx"));
    let text: String = kernels.map(|(_, t)| t.as_str()).collect();
    match text.is_empty() {
        true => Err(usage("--emit ptx needs a GPU among the targets")),
        false => Ok(text),
    }
}

/// The folder of a file.
fn folder(path: &Path) -> PathBuf {
    match path.parent() {
        Some(p) if p != Path::new("") => p.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

/// `8G`
fn size(text: &str) -> Result<u64> {
    let units = [('K', 10), ('M', 20), ('G', 30)];
    let unit = units.iter().find(|(u, _)| text.ends_with(*u));
    let (number, shift) = unit.map_or((text, 0), |(_, s)| (&text[..text.len() - 1], *s));
    let bytes = number
        .parse()
        .ok()
        .and_then(|n: u64| n.checked_mul(1 << shift));
    bytes.ok_or_else(|| {
        usage(format!(
            "--max-memory takes bytes or a number with K, M or G, not `{text}`"
        ))
    })
}

/// The largest memory that this process has held, where the system tells.
fn peak_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// Writes the module after each pass.
struct Dump {
    dir: PathBuf,
    count: usize,
}

impl Dump {
    fn write(&mut self, name: &str, m: &Module) -> Result<()> {
        let path = self.dir.join(format!("{:02}-{name}.qir", self.count));
        self.count += 1;
        std::fs::write(&path, m.to_string()).map_err(|e| file_error(&path, e))
    }
}

impl Observer for Dump {
    fn before(&mut self, _: usize, _: &dyn Pass, m: &Module) -> Result<()> {
        if self.count == 0 {
            self.write("imported", m)
        } else {
            Ok(())
        }
    }

    fn after(&mut self, _: usize, run: &qcc_passes::PassRun, m: &Module) -> Result<()> {
        self.write(run.name, m)
    }
}
