//! `qcc eval`: perplexity of a language model, and divergence from a float baseline.

use super::Output;
use super::args::SchemeArgs;
use super::device::{self, DeviceArg};
use super::engine;
use qcc::Progress;
use qcc::data::Dataset;
use qcc::evaluate::{Evaluator, Quality};
use qcc_ir::diag::{Class, Diagnostic, Result};
use serde::Serialize;
use std::path::PathBuf;
use std::time::Instant;

/// Windows of a batch.
const BATCH: usize = 4;

/// Arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A plan, or an .onnx model, which is compiled in memory first.
    model: PathBuf,
    /// Windows of token ids, int64 [n, L].
    #[arg(long, value_name = "FILE.npy")]
    tokens: PathBuf,
    /// The float model to compare with: adds KL divergence and top-1 agreement.
    #[arg(long, value_name = "MODEL.onnx")]
    baseline: Option<PathBuf>,
    /// Calibration data for a model that is quantized in memory.
    #[arg(long, value_name = "FILE")]
    calib: Option<PathBuf>,
    /// Use only the first windows.
    #[arg(long, value_name = "N")]
    windows: Option<usize>,
    /// Where to run: cpu, cuda[:N] or sim[:sm_NN] [default: a GPU that the plan was built for,
    /// else cpu].
    #[arg(long, value_name = "DEVICE")]
    device: Option<DeviceArg>,
    #[command(flatten)]
    scheme: SchemeArgs,
}

#[derive(Serialize)]
struct Evaluated {
    #[serde(flatten)]
    quality: Quality,
    protocol: String,
    device: String,
    numerics: String,
    seconds: f64,
}

pub(crate) fn run(a: &Args, out: Output) -> Result<()> {
    let start = Instant::now();
    let mut session = engine::open(&a.model, &a.scheme, a.calib.as_deref(), a.device)?;
    device::announce(session.engine());
    let float = SchemeArgs::float(a.scheme.threads());
    let mut baseline = a
        .baseline
        .as_ref()
        .map(|b| engine::open(b, &float, None, Some(DeviceArg::Cpu)))
        .transpose()?;
    let ports = session.engine().inputs().to_vec();
    let data = Dataset::open(&a.tokens, &session.engine().plan().interface())?;
    let ids = ports
        .iter()
        .position(|p| p.name == "input_ids")
        .unwrap_or(0);
    if data.array(ids).is_none_or(|t| t.dims().len() != 2) {
        return Err(
            Diagnostic::error(524, Class::Input, "tokens must be int64 [n, L]")
                .at(a.tokens.display().to_string()),
        );
    }
    let windows = a.windows.unwrap_or(data.len()).min(data.len());
    let mut evaluator = Evaluator::new();
    let mut bar = super::bar::Bar::new();
    for (first, count) in data.batches_of(BATCH, windows) {
        bar.step("evaluate", first, windows);
        let batch = data.batch(first, count)?;
        let logits = engine::logits(engine::run(&mut session, &ports, &batch)?)?;
        let base = match &mut baseline {
            Some(b) => {
                let ports = b.engine().inputs().to_vec();
                Some(engine::logits(engine::run(b, &ports, &batch)?)?)
            }
            None => None,
        };
        evaluator.add(&batch[ids], &logits, base.as_ref())?;
    }
    bar.clear();
    let length = data
        .array(ids)
        .and_then(|t| t.dims().get(1).copied())
        .unwrap_or(0);
    let evaluated = Evaluated {
        quality: evaluator.finish()?,
        protocol: format!(
            "every next token of each window of {length} tokens, given its prefix in the window"
        ),
        device: device::name(session.engine()),
        numerics: device::numerics(session.engine()),
        seconds: start.elapsed().as_secs_f64(),
    };
    out.print("eval", &evaluated, text)
}

fn text(e: &Evaluated) -> String {
    let q = &e.quality;
    let mut s = format!(
        "perplexity  {:.4}  (nll {:.5}; {} tokens in {} windows)\n",
        q.perplexity, q.nll, q.tokens, q.windows
    );
    if let Some(p) = q.baseline_perplexity {
        s += &format!("baseline    {p:.4}\n");
    }
    if let Some(d) = &q.divergence {
        s += &format!(
            "KL          {:.6}  (99.9 % of tokens below {:.5})\n",
            d.kl, d.kl_p999
        );
        s += &format!("top-1       {:.4}\n", d.top1);
    }
    s + &format!(
        "protocol    {}\nnumerics    {} on {}\nseconds     {:.1}\n",
        e.protocol, e.numerics, e.device, e.seconds
    )
}
