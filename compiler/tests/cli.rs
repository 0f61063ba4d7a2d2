//! The `qcc` command from the outside, on the example model.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/models")
}

fn model() -> String {
    models().join("docs-gpt-outlier.onnx").display().to_string()
}

fn data(name: &str) -> String {
    models().join(name).display().to_string()
}

fn qcc(dir: &Path, args: &[&str]) -> Output {
    let mut c = Command::new(env!("CARGO_BIN_EXE_qcc"));
    c.current_dir(dir)
        .args(args)
        .output()
        .expect("the command starts")
}

/// Runs a command that succeeds, and gives its JSON document.
fn json(dir: &Path, args: &[&str]) -> Value {
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
fn fails(dir: &Path, args: &[&str], exit: i32) -> Value {
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

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn compile(dir: &Path, name: &str, flags: &[&str]) -> Value {
    let model = model();
    let mut args = vec!["compile", &model, "-o", name];
    args.extend(flags);
    json(dir, &args)
}

#[test]
fn a_model_is_compiled_inspected_run_and_compared() {
    let dir = tempfile::tempdir().unwrap();
    let calib = data("calib_tokens.npy");
    let c = compile(
        dir.path(),
        "a.qplan",
        &[
            "--target", "cpu", "--int8", "--smooth", "0.5", "--calib", &calib,
        ],
    );
    assert_eq!(c["schema"], "qcc.compile/1");
    let quantized = c["layers"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|l| l["scheme"].as_str().unwrap().contains("int8"));
    assert_eq!(
        quantized.count(),
        16,
        "4 layers of qkv, projection and two feed-forward linears: {}",
        c["layers"]
    );
    assert!(c["bytes"].as_u64().unwrap() < c["source_bytes"].as_u64().unwrap() * 2 / 3);

    let i = json(dir.path(), &["inspect", "a.qplan"]);
    assert_eq!(i["plan"]["inputs"][0]["name"], "input_ids");

    let ids = dir.path().join("ids.npy");
    std::fs::copy(data("eval_tokens.npy"), &ids).unwrap();
    let r = json(
        dir.path(),
        &[
            "run",
            "a.qplan",
            "--input",
            "input_ids=ids.npy",
            "--output-dir",
            "out",
        ],
    );
    assert_eq!(r["outputs"][0]["dims"], serde_json::json!([8, 256, 2048]));
    assert!(dir.path().join("out/logits.npy").is_file());

    let model = model();
    let d = json(
        dir.path(),
        &["compare", "a.qplan", &model, "--data", "ids.npy"],
    );
    assert!(d["outputs"][0]["cosine"].as_f64().unwrap() > 0.999);

    let e = json(dir.path(), &["explain", "a.qplan"]);
    assert!(!e["decisions"].as_array().unwrap().is_empty());
}

#[test]
fn smoothing_saves_the_model_that_plain_int8_ruins() {
    let dir = tempfile::tempdir().unwrap();
    let (calib, tokens, model) = (data("calib_tokens.npy"), data("eval_tokens.npy"), model());
    let kl = |flags: &[&str]| {
        let mut all = vec![
            "--target", "cpu", "--int8", "--act", "static", "--calib", &calib,
        ];
        all.extend(flags);
        compile(dir.path(), "m.qplan", &all);
        let e = json(
            dir.path(),
            &["eval", "m.qplan", "--tokens", &tokens, "--baseline", &model],
        );
        e["kl"].as_f64().unwrap()
    };
    let (plain, smooth) = (kl(&[]), kl(&["--smooth", "0.5"]));
    assert!(
        plain > 0.3 && smooth < 0.002,
        "KL {plain} without smoothing, {smooth} with"
    );
}

#[test]
fn bytes_do_not_depend_on_threads() {
    let dir = tempfile::tempdir().unwrap();
    let calib = data("calib_tokens.npy");
    for (name, threads) in [("a.qplan", "1"), ("b.qplan", "3")] {
        compile(
            dir.path(),
            name,
            &[
                "--target",
                "cpu",
                "--fp8",
                "--calib",
                &calib,
                "--threads",
                threads,
            ],
        );
    }
    let read = |n: &str| std::fs::read(dir.path().join(n)).unwrap();
    assert!(read("a.qplan") == read("b.qplan"));
}

#[test]
fn damaged_plans_are_refused_with_their_code() {
    let dir = tempfile::tempdir().unwrap();
    compile(dir.path(), "a.qplan", &["--target", "cpu", "--fp8"]);
    let path = dir.path().join("a.qplan");
    let good = std::fs::read(&path).unwrap();
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 0x10;
    for (bytes, what) in [
        (flipped.as_slice(), "flipped"),
        (&good[..good.len() - 700], "cut"),
        (&good[..0], "empty"),
    ] {
        std::fs::write(&path, bytes).unwrap();
        let e = fails(
            dir.path(),
            &[
                "run",
                "a.qplan",
                "--input",
                &format!("input_ids={}", data("eval_tokens.npy")),
            ],
            3,
        );
        assert!(
            e["code"].as_str().unwrap().starts_with("Q04"),
            "{what}: {e}"
        );
    }
}

#[test]
fn wrong_inputs_name_both_sides() {
    let dir = tempfile::tempdir().unwrap();
    compile(dir.path(), "a.qplan", &["--target", "cpu", "--fp8"]);
    let run = |spec: &str| fails(dir.path(), &["run", "a.qplan", "--input", spec], 3);
    let e = run(&format!("ids={}", data("eval_tokens.npy")));
    assert!(e["message"].as_str().unwrap().contains("ids"), "{e}");
    // A float matrix where token ids are needed.
    let mut npy = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
    npy.extend(
        format!(
            "{:<117}\n",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2), }"
        )
        .as_bytes(),
    );
    npy.extend([0; 8]);
    std::fs::write(dir.path().join("x.npy"), npy).unwrap();
    let e = run("input_ids=x.npy");
    assert!(e["message"].as_str().unwrap().contains("f32[1, 2]"), "{e}");
    let e = fails(dir.path(), &["run", "a.qplan"], 3);
    assert!(e["message"].as_str().unwrap().contains("input_ids"), "{e}");
}

#[test]
fn usage_errors_exit_with_2() {
    let dir = tempfile::tempdir().unwrap();
    let model = model();
    let codes = |args: &[&str]| {
        fails(dir.path(), args, 2)["code"]
            .as_str()
            .unwrap()
            .to_string()
    };
    assert_eq!(codes(&["compile", &model, "--target", "sm_12"]), "Q0010");
    assert_eq!(
        codes(&["compile", &model, "--target", "cpu", "--scheme", "int9"]),
        "Q0041"
    );
    assert_eq!(
        codes(&["compile", &model, "--target", "cpu", "--smooth", "2"]),
        "Q0011"
    );
    assert_eq!(codes(&["check", &model, "--target", "gpu"]), "Q0011");
    let out = qcc(
        dir.path(),
        &["compile", &model, "--target", "cpu", "--fp8", "--int8"],
    );
    assert_eq!(out.status.code(), Some(2));
    let out = qcc(dir.path(), &["--help"]);
    assert!(out.status.success() && text(&out.stdout).contains("compile"));
}

#[test]
fn missing_and_malformed_models_exit_with_3() {
    let dir = tempfile::tempdir().unwrap();
    fails(dir.path(), &["compile", "none.onnx", "--target", "cpu"], 3);
    std::fs::write(dir.path().join("x.onnx"), [0xff; 64]).unwrap();
    fails(dir.path(), &["compile", "x.onnx", "--target", "cpu"], 3);
    std::fs::write(dir.path().join("x.qplan"), [0; 64]).unwrap();
    fails(dir.path(), &["inspect", "x.qplan"], 3);
}

#[test]
fn every_node_of_the_example_is_supported() {
    let dir = tempfile::tempdir().unwrap();
    let c = json(dir.path(), &["check", &model(), "--target", "sm_90"]);
    assert_eq!(c["unsupported"], 0);
    let t = json(dir.path(), &["targets"]);
    let names: Vec<&str> = t["targets"]
        .as_array()
        .unwrap()
        .iter()
        .map(|t| t["name"].as_str().unwrap())
        .collect();
    assert!(names.contains(&"cpu") && names.contains(&"sm_80") && names.contains(&"sm_90"));
}
