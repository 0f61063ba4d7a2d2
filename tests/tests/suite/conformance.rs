//! Float compiles on the CPU against PyTorch and onnxruntime, at many sizes and masks.
//!
//! `conformance/generate.py` wrote the expected outputs; no Python is needed here. The models of
//! 20 MB are not in the repository. With a folder that holds docs-llama.onnx and
//! docs-llama-outlier.onnx:
//!
//! ```text
//! QCC_MODELS=DIR cargo test -p qcc-tests --test suite conformance -- --ignored
//! ```
//!
//! Every element is compared but those of positions that may see nothing: padding before the first
//! token of a causal model. A softmax over hidden keys alone is uniform in ONNX, where hiding is a
//! large negative number; `attention` gives zeros (its definition says so). They must be finite.

use qcc::data::read_npz;
use qcc::onnx::Model;
use qcc::{Compiler, Options};
use qcc_ir::{DType, Tensor};
use qcc_runtime::{Device, Engine, PlanFile, Session, Threads, Verify};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const RTOL: f32 = 1e-3;
const ATOL: f32 = 1e-4;
/// Large outputs are stored as every 13th element, in one dimension.
const STRIDE: usize = 13;

/// Named tensors of a set, inputs and outputs.
#[derive(Default)]
struct Set {
    inputs: Vec<(String, Tensor)>,
    outputs: Vec<(String, Tensor)>,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn folder() -> PathBuf {
    root().join("tests/conformance")
}

/// Adds the sets of an archive; arrays without a set's name belong to `unnamed`.
fn read_sets(path: &Path, unnamed: &str, sets: &mut BTreeMap<String, Set>) {
    for (key, t) in read_npz(path).unwrap() {
        let parts: Vec<&str> = key.splitn(3, '.').collect();
        let (set, kind, name) = match parts.as_slice() {
            [kind @ ("in" | "out"), name] => (unnamed, *kind, *name),
            [set, kind, name] => (*set, *kind, *name),
            _ => panic!("{key}"),
        };
        let set = sets.entry(set.to_string()).or_default();
        match kind {
            "in" => set.inputs.push((name.to_string(), dense(t))),
            _ => set.outputs.push((name.to_string(), t)),
        }
    }
}

/// Float inputs are stored as bytes `b` that stand for `b / 64 − 2`.
fn dense(t: Tensor) -> Tensor {
    if t.dtype() != DType::U8 {
        return t;
    }
    let values: Vec<f32> = t
        .bytes()
        .iter()
        .map(|b| f32::from(*b) / 64.0 - 2.0)
        .collect();
    Tensor::f32(t.dims(), &values).unwrap()
}

fn session(path: &Path) -> Session {
    let model = Model::open(path).unwrap_or_else(|e| panic!("{e}"));
    let compiled = Compiler::new(Options::default())
        .compile(&model, None)
        .unwrap_or_else(|e| panic!("{e}"));
    let plan = PlanFile::from_bytes(compiled.to_bytes().unwrap(), Verify::Full).unwrap();
    let device = Device::Cpu(Threads::new(2).unwrap());
    Engine::new(Arc::new(plan), device).unwrap().session()
}

/// How far an output is from what is expected: the largest `|a − b| / (ATOL + RTOL·|b|)` over
/// the positions that see something.
fn distance(found: &Tensor, expected: &Tensor, blind: &[bool]) -> f32 {
    let (f, e) = (found.as_slice::<f32>(), expected.as_slice::<f32>());
    let (f, e) = (f.expect("f32"), e.expect("f32"));
    let stride = if found.dims() == expected.dims() {
        1
    } else {
        assert_eq!(expected.dims(), [found.numel().div_ceil(STRIDE) as u64]);
        STRIDE
    };
    let width = f.len() / blind.len().max(1);
    let one = |(i, (f, e)): (usize, (&f32, &f32))| {
        if blind.get(i * stride / width) == Some(&true) && f.is_finite() {
            return 0.0;
        }
        let d = (f - e).abs() / (ATOL + RTOL * e.abs());
        if d.is_nan() { f32::INFINITY } else { d }
    };
    let pairs = f.iter().step_by(stride).zip(e).enumerate();
    pairs.map(one).fold(0.0, f32::max)
}

/// For each position of a causal model whether padding hides all that it may see.
fn blind(set: &Set) -> Vec<bool> {
    let Some((_, mask)) = set.inputs.iter().find(|(n, _)| n == "attention_mask") else {
        return Vec::new();
    };
    let seq = mask.dims()[1] as usize;
    let rows = mask.as_slice::<i64>().expect("i64").chunks(seq);
    rows.flat_map(|row| (0..seq).map(|i| row[..=i].iter().all(|m| *m == 0)))
        .collect()
}

/// Runs every set of a model; those that are not met are listed together.
fn conforms(path: &Path, causal: bool, expected_sets: usize) {
    let name = path.file_stem().unwrap().to_string_lossy().into_owned();
    let mut sets = BTreeMap::new();
    read_sets(&folder().join(format!("goldens/{name}.npz")), "", &mut sets);
    let beside = folder().join(format!("models/{name}.npz"));
    if beside.exists() {
        read_sets(&beside, "torch", &mut sets);
    }
    assert_eq!(sets.len(), expected_sets, "{:?}", sets.keys());
    let mut session = session(path);
    let mut failed = Vec::new();
    for (label, set) in &sets {
        let inputs: Vec<(&str, &Tensor)> =
            set.inputs.iter().map(|(n, t)| (n.as_str(), t)).collect();
        let found = session
            .run(&inputs)
            .unwrap_or_else(|e| panic!("{name} {label}: {e}"));
        assert_eq!(found.len(), set.outputs.len());
        let blind = if causal { blind(set) } else { Vec::new() };
        for (output, expected) in &set.outputs {
            let (_, f) = found.iter().find(|(n, _)| n == output).expect("an output");
            let d = distance(f, expected, &blind);
            println!("{name:20} {label:14} {output:20} {d:.4} of the tolerance");
            if d > 1.0 {
                failed.push(format!("{label} {output}: {d}"));
            }
        }
    }
    assert!(failed.is_empty(), "{name}: {failed:#?}");
}

fn structure(name: &str, causal: bool, sets: usize) {
    conforms(&folder().join(format!("models/{name}.onnx")), causal, sets);
}

#[test]
fn bert() {
    structure("bert", false, 13);
}

#[test]
fn gpt2() {
    structure("gpt2", true, 13);
}

#[test]
fn llama() {
    structure("llama", true, 13);
}

#[test]
fn whisper_encoder() {
    structure("whisper_encoder", false, 4);
}

#[test]
fn resnet() {
    structure("resnet_small", false, 4);
}

#[test]
fn mobile() {
    structure("mobile_small", false, 4);
}

#[test]
fn docs_gpt_outlier() {
    conforms(
        &root().join("examples/models/docs-gpt-outlier.onnx"),
        true,
        7,
    );
}

/// The docs-llama models, which are not in the repository; the command is above.
#[test]
#[ignore = "needs QCC_MODELS, a folder with the docs-llama models"]
fn docs_llama() {
    let dir = PathBuf::from(std::env::var("QCC_MODELS").expect("QCC_MODELS names a folder"));
    for name in ["docs-llama.onnx", "docs-llama-outlier.onnx"] {
        conforms(&dir.join(name), true, 7);
    }
}
