//! `qcc compile`: the main job.

use super::args::SchemeArgs;
use super::bar::Bar;
use super::{Output, file_error, usage};
use clap::ValueEnum;
use qcc::data::Dataset;
use qcc::onnx::Model;
use qcc::{Compiled, Compiler, LayerReport, ModelStatistics, Report, SpillTo};
use qcc_ir::diag::Result;
use qcc_ir::graph::Module;
use qcc_passes::{Observer, Pass};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// What to write.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Emit {
    /// The plan file.
    Plan,
    /// The compiled module as text, to stdout or the output file.
    Qir,
    /// The kernels' PTX, to stdout or the output file.
    Ptx,
}

/// Arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The model.
    model: PathBuf,
    /// Targets, separated by commas; `qcc targets` lists them.
    #[arg(long, value_name = "T[,T…]", value_delimiter = ',', required = true)]
    target: Vec<String>,
    /// The plan file [default: the model's name with .qplan].
    #[arg(short, long, value_name = "OUT.qplan")]
    output: Option<PathBuf>,
    /// Calibration data: a .npy for the only required input, or an .npz with an array for each.
    #[arg(long, value_name = "FILE", help_heading = "Data")]
    calib: Option<PathBuf>,
    /// Streamed activations and codes that take more than this go to a temporary file beside the
    /// plan: bytes, or a number with K, M or G.
    #[arg(long, value_name = "SIZE", help_heading = "Data")]
    max_memory: Option<String>,
    /// Statistics of `qcc calibrate` in place of those of the calibration data.
    #[arg(long, value_name = "STATS", help_heading = "Data")]
    stats: Option<PathBuf>,
    /// What to write.
    #[arg(long, value_enum, default_value = "plan", help_heading = "Output")]
    emit: Emit,
    /// Folder for the module before the first pass and after each.
    #[arg(long, value_name = "DIR", help_heading = "Output")]
    dump_phases: Option<PathBuf>,
    #[command(flatten)]
    scheme: SchemeArgs,
}

#[derive(Serialize)]
struct Summary<'a> {
    plan: Option<PathBuf>,
    bytes: u64,
    #[serde(flatten)]
    report: &'a Report,
    compile_peak_bytes: Option<u64>,
    seconds: f64,
}

pub(crate) fn run(a: &Args, out: Output) -> Result<()> {
    let start = Instant::now();
    if out.json && !matches!(a.emit, Emit::Plan) {
        return Err(usage("--emit qir and ptx write text, --json asks for JSON"));
    }
    let mut options = a.scheme.options(a.target.clone())?;
    let path = match &a.output {
        Some(p) => p.clone(),
        None => default_output(&a.model)?,
    };
    if let Some(text) = &a.max_memory {
        options.spill = Some(SpillTo {
            folder: folder(&path),
            above: size(text)?,
        });
    }
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
        .map(|c| Dataset::open(c, &qcc::interface(&prepared)?.inputs))
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
    if let Some(text) = emitted(&compiled, a.emit)? {
        match &a.output {
            Some(p) => std::fs::write(p, text).map_err(|e| file_error(p, e))?,
            None => print!("{text}"),
        }
        return Ok(());
    }
    let written = compiled.write(&path)?;
    let summary = Summary {
        plan: Some(path),
        bytes: written.bytes,
        report: &compiled.report,
        compile_peak_bytes: peak_bytes(),
        seconds: start.elapsed().as_secs_f64(),
    };
    out.print("compile", &summary, text_of)
}

/// The text that is to be written instead of a plan.
fn emitted(compiled: &Compiled, emit: Emit) -> Result<Option<String>> {
    let texts = compiled.texts();
    match emit {
        Emit::Plan => Ok(None),
        Emit::Qir => Ok(texts.get("text/main").cloned()),
        Emit::Ptx => {
            let kernels = texts.iter().filter(|(n, _)| n.ends_with(".ptx"));
            let text: String = kernels.map(|(_, t)| t.as_str()).collect();
            match text.is_empty() {
                true => Err(usage("--emit ptx needs a GPU among the targets")),
                false => Ok(Some(text)),
            }
        }
    }
}

/// The model's name in the current folder, with `.qplan`.
fn default_output(model: &Path) -> Result<PathBuf> {
    let stem = model
        .file_stem()
        .ok_or_else(|| usage(format!("{} names no file", model.display())))?;
    Ok(PathBuf::from(stem).with_extension("qplan"))
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

fn text_of(s: &Summary<'_>) -> String {
    let r = s.report;
    let mut t = String::new();
    if let Some(p) = &s.plan {
        t += &format!(
            "plan      {} ({} from {})\n",
            p.display(),
            mib(s.bytes),
            mib(r.source_bytes)
        );
    }
    let mut counts: Vec<(&str, usize)> = Vec::new();
    for l in &r.layers {
        match counts.iter_mut().find(|(s, _)| *s == l.scheme) {
            Some((_, n)) => *n += 1,
            None => counts.push((&l.scheme, 1)),
        }
    }
    let counts: Vec<String> = counts.iter().map(|(s, n)| format!("{n} × {s}")).collect();
    t += &format!("layers    {}\n", counts.join(", "));
    for (name, x) in &r.targets {
        t += &format!(
            "target    {name}: {} steps, {} kernels, weights {}",
            x.steps,
            x.kernels,
            mib(x.weight_bytes)
        );
        if !x.arena_bytes.is_empty() {
            t += &format!(", arena {} bytes", x.arena_bytes);
        }
        t += "\n";
    }
    t += &worst(&r.layers);
    if let Some(p) = s.compile_peak_bytes {
        t += &format!("memory    {} at most\n", mib(p));
    }
    t + &format!("seconds   {:.1}\n", s.seconds)
}

/// The five layers with the largest error, and the flag that would keep the worst float.
fn worst(layers: &[LayerReport]) -> String {
    let mut known: Vec<(&LayerReport, f64)> = layers
        .iter()
        .filter_map(|l| Some((l, l.sqnr_db?)))
        .collect();
    known.sort_by(|a, b| a.1.total_cmp(&b.1));
    let mut t = String::new();
    for (l, db) in known.iter().take(5) {
        t += &format!("          {db:6.1} dB  {}  {}\n", l.name, l.scheme);
    }
    if let Some((l, _)) = known.first() {
        let name = l.weight.as_ref().unwrap_or(&l.name);
        t = format!(
            "worst     (to keep the first float: --override '^{}$=float')\n{t}",
            regex::escape(name)
        );
    }
    t
}

fn mib(bytes: u64) -> String {
    format!("{:.2} MiB", bytes as f64 / (1 << 20) as f64)
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
