//! The language model that the repository carries, compiled.

use qcc::data::Dataset;
use qcc::onnx::Model;
use qcc::{Compiled, Compiler, Options, Scheme};
use std::path::{Path, PathBuf};

/// The folder of the example model and its tokens.
pub fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/models")
}

/// Compiles the example model for these targets, with its calibration tokens or without data. The
/// errors of its layers are not measured, which takes most of the time and changes no kernel.
///
/// # Panics
/// When it does not compile.
pub fn compile(scheme: &str, targets: &[&str], calibrated: bool) -> Compiled {
    let model = Model::open(&models().join("docs-gpt-outlier.onnx")).unwrap();
    let mut options = Options {
        targets: targets.iter().map(ToString::to_string).collect(),
        diagnose: false,
        ..Options::default()
    };
    options.passes.scheme = Scheme::named(scheme).unwrap();
    let mut compiler = Compiler::new(options);
    let prepared = compiler.prepare(&model).unwrap();
    let io = qcc::interface(&prepared).unwrap();
    let tokens = || Dataset::open(&models().join("calib_tokens.npy"), &io).unwrap();
    let data = calibrated.then(tokens);
    compiler.complete(prepared, data.as_ref()).unwrap()
}
