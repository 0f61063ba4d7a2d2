//! Starting the command and reading what it says.

use ::qcc::data::{read_npy, write_npy};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

pub(crate) fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/models")
}

pub(crate) fn model() -> String {
    models().join("docs-gpt-outlier.onnx").display().to_string()
}

pub(crate) fn data(name: &str) -> String {
    models().join(name).display().to_string()
}

/// The first windows of a file of tokens, in a file of their own: what needs no more of them is
/// done sooner.
pub(crate) fn windows(dir: &Path, name: &str, count: u64) -> String {
    let all = read_npy(&models().join(name)).unwrap();
    let path = dir.join(name);
    write_npy(&path, &all.rows(0..count).unwrap()).unwrap();
    path.display().to_string()
}

pub(crate) fn qcc(dir: &Path, args: &[&str]) -> Output {
    let mut c = Command::new(env!("CARGO_BIN_EXE_qcc"));
    c.current_dir(dir)
        .args(args)
        .output()
        .expect("the command starts")
}

/// Runs a command that succeeds, and gives its JSON document.
pub(crate) fn json(dir: &Path, args: &[&str]) -> Value {
    let out = qcc(dir, &[args, &["--json"]].concat());
    assert!(
        out.status.success(),
        "{args:?}: {}{}",
        text(&out.stdout),
        text(&out.stderr)
    );
    serde_json::from_slice(&out.stdout).expect("one JSON document")
}

/// Runs a command that fails with this exit code, and gives the error.
pub(crate) fn fails(dir: &Path, args: &[&str], exit: i32) -> Value {
    let out = qcc(dir, &[args, &["--json"]].concat());
    assert_eq!(
        out.status.code(),
        Some(exit),
        "{args:?}: {}{}",
        text(&out.stdout),
        text(&out.stderr)
    );
    let stdout = text(&out.stdout);
    // `check` prints its table before the error: the last document counts.
    let at = stdout
        .rfind("{\"error\"")
        .or_else(|| stdout.rfind("{\"schema\":\"qcc.error"))
        .unwrap_or(0);
    let v: Value = serde_json::from_str(&stdout[at..]).expect("one JSON document");
    v["error"].clone()
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub(crate) fn compile(dir: &Path, name: &str, flags: &[&str]) -> Value {
    let model = model();
    let mut args = vec!["compile", &model, "-o", name];
    args.extend(flags);
    json(dir, &args)
}

/// A small model with a head, norms and two inputs, and data for it.
pub(crate) fn small() -> (String, String) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/conformance/models");
    let path = |name: &str| folder.join(name).display().to_string();
    (path("llama.onnx"), path("llama.npz"))
}

/// Compiles the small model.
pub(crate) fn compile_small(dir: &Path, name: &str, flags: &[&str]) -> Value {
    let (model, _) = small();
    json(dir, &[&["compile", &model, "-o", name], flags].concat())
}

/// Schemes of the layers of a compilation, with how many layers have each, in order of names.
pub(crate) fn schemes(compiled: &Value) -> Vec<(String, usize)> {
    let mut counts = std::collections::BTreeMap::new();
    for l in compiled["layers"].as_array().unwrap() {
        *counts
            .entry(l["scheme"].as_str().unwrap().to_string())
            .or_insert(0) += 1;
    }
    counts.into_iter().collect()
}
