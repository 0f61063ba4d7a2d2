//! `test opt PASS,PASS`: the module after these passes, or the error with which one refuses.
//!
//! Below it, as comments: small weights that passes derived, the ledger, warnings. With inputs,
//! the results before and after are compared bit for bit, or as `// set tolerance=…` says.

use super::data::{Outputs, Tolerance, inputs, results, samples, show};
use super::options::Settings;
use super::{Command, Filetest, expect};
use qcc_ir::Tensor;
use qcc_ir::eval::weight_tensor;
use qcc_ir::graph::{Module, WeightData};
use qcc_ir::ledger::Decision;
use qcc_passes::{Calibrator, Manager, PassContext, Samples, Statistics, registry};

pub(super) struct Opt;

impl Command for Opt {
    fn name(&self) -> &'static str {
        "opt"
    }

    fn run(&self, file: &Filetest) -> Result<String, String> {
        let module = file.module()?;
        let settings = Settings::new(file.directive("set"))?;
        let args = match file.directive("input").next() {
            Some(_) => Some(inputs(file, &module)?),
            None => None,
        };
        let before = args.as_ref().map(|a| results(&module, a)).transpose()?;
        let passes = registry::parse_list(&file.args).map_err(|d| d.to_string())?;
        let mut ctx = PassContext::new(&settings.passes);
        let held = Held(samples(file, &module)?);
        let cpu = super::run::cpu();
        ctx.statistics = calibrate(&held.0, &module)?;
        ctx.samples = Some(&held);
        ctx.executor = Some(&cpu);
        let after = match Manager::new(passes).run(module, &mut ctx) {
            Ok(out) => out.module,
            Err(d) => {
                expect::compare(&file.errors, std::slice::from_ref(&d))?;
                return Ok(format!("{d}\n"));
            }
        };
        expect::nothing(&file.errors)?;
        if let (Some(before), Some(args)) = (before, args) {
            let tolerance = settings.tolerance.map_or(Tolerance::Bits, Tolerance::Real);
            compare(&before, &results(&after, &args)?, tolerance)?;
        }
        let mut text = after.to_string();
        text.push_str(&derived(&after)?);
        text.extend(ctx.ledger.decisions().iter().map(decision));
        let warnings: Vec<String> = ctx.warnings.iter().map(ToString::to_string).collect();
        for line in warnings.iter().flat_map(|w| w.lines()) {
            text.push_str(&format!("// {line}\n"));
        }
        Ok(text)
    }
}

/// The samples of the `calib` directives.
struct Held(Vec<Vec<Tensor>>);

impl Samples for Held {
    fn batches(&self) -> usize {
        self.0.len()
    }

    fn batch(&self, index: usize) -> qcc_ir::diag::Result<Vec<Tensor>> {
        Ok(self.0[index].clone())
    }
}

/// Statistics from the `calib` directives, if there are any.
fn calibrate(samples: &[Vec<Tensor>], m: &Module) -> Result<Option<Statistics>, String> {
    if samples.is_empty() {
        return Ok(None);
    }
    let show = |d: qcc_ir::Diagnostic| d.to_string();
    let mut calibrator = Calibrator::new(m, &super::run::cpu()).map_err(show)?;
    for s in samples {
        calibrator.feed(s).map_err(show)?;
    }
    Ok(Some(calibrator.finish()))
}

fn compare(before: &Outputs, after: &Outputs, tolerance: Tolerance) -> Result<(), String> {
    if before.len() != after.len() {
        return Err("the number of results changed".into());
    }
    for ((name, want), (_, got)) in before.iter().zip(after) {
        super::data::compare(name, got, want, tolerance)
            .map_err(|e| format!("the passes changed what is computed: {e}"))?;
    }
    Ok(())
}

/// Weights of more elements are not shown.
const SHOWN: u64 = 32;

/// The contents of small weights that the text form does not hold.
fn derived(m: &Module) -> Result<String, String> {
    let mut text = String::new();
    for w in &m.weights {
        let small = w.numel().is_some_and(|n| n <= SHOWN);
        if small && matches!(w.data, WeightData::Bytes(_)) {
            let t = weight_tensor(w).map_err(|d| d.to_string())?;
            text.push_str(&format!("// @{}: {}\n", w.name, show(&t)));
        }
    }
    Ok(text)
}

/// `// scheme fc1: fp8; not int8: it was not asked for; by rule; with fc2`
fn decision(d: &Decision) -> String {
    let topic = format!("{:?}", d.topic).to_lowercase();
    let mut line = format!("// {topic} {}: {}", d.site, d.chosen);
    for c in &d.considered {
        if let Some(reason) = &c.refused_by {
            line.push_str(&format!("; not {}: {reason}", c.candidate));
        }
    }
    for r in &d.rules {
        line.push_str(&format!("; by {r}"));
    }
    if !d.fused.is_empty() {
        line.push_str(&format!("; with {}", d.fused.join(", ")));
    }
    line + "\n"
}
