//! A plan file, or a model that is compiled in memory, on a device.

use super::args::SchemeArgs;
use super::bar::Bar;
use super::device::{self, DeviceArg};
use super::usage;
use qcc::Compiler;
use qcc::data::Dataset;
use qcc::onnx::Model;
use qcc_ir::Tensor;
use qcc_ir::diag::{Class, Diagnostic, Result};
use qcc_ir::plan::Port;
use qcc_runtime::{Engine, PlanFile, Session, Verify};
use std::path::Path;
use std::sync::Arc;

/// Opens a plan on a device, or compiles a model for it: float unless a scheme is given.
pub(crate) fn open(
    path: &Path,
    scheme: &SchemeArgs,
    calib: Option<&Path>,
    device: Option<DeviceArg>,
) -> Result<Session> {
    let file = if is_model(path) {
        let model = Model::open(path)?;
        let mut options = scheme.options(vec![DeviceArg::target(device)?])?;
        // Nobody sees the report.
        options.diagnose = false;
        let mut bar = Bar::new();
        let mut compiler = Compiler::new(options).progress(&mut bar);
        let prepared = compiler.prepare(&model)?;
        let data = calib
            .map(|c| Dataset::open(c, &qcc::interface(&prepared)?))
            .transpose()?;
        let compiled = compiler.complete(prepared, data.as_ref())?;
        bar.clear();
        super::warn(&compiled.report.warnings);
        PlanFile::from_bytes(compiled.to_bytes()?, Verify::Lazy)?
    } else {
        if scheme.is_given() || calib.is_some() {
            return Err(usage(format!(
                "{} is a plan: its scheme is fixed, scheme flags need a model",
                path.display()
            )));
        }
        PlanFile::open(path, Verify::Full)?
    };
    let device = device::choose(device, file.plan(), scheme.threads())?;
    Ok(Engine::new(Arc::new(file), device)?.session())
}

/// Whether the path names a model rather than a plan.
pub(crate) fn is_model(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "onnx")
}

/// Runs on tensors in input order.
pub(crate) fn run(
    session: &mut Session,
    ports: &[Port],
    inputs: &[Tensor],
) -> Result<Vec<(String, Tensor)>> {
    let named: Vec<(&str, &Tensor)> = ports.iter().map(|p| p.name.as_str()).zip(inputs).collect();
    session.run(&named)
}

/// The logits among a language model's outputs: the one of that name, else the first.
pub(crate) fn logits(outputs: Vec<(String, Tensor)>) -> Result<Tensor> {
    let at = outputs.iter().position(|(n, _)| n == "logits").unwrap_or(0);
    let found = outputs.into_iter().nth(at).map(|(_, t)| t);
    found.ok_or_else(|| Diagnostic::error(523, Class::Input, "the model has no output"))
}
