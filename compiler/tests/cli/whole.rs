//! The main job on the example model.

use crate::support::{compile, data, json, model, windows};

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
    // So few that ranges of the samples that a search sees would be too narrow for others.
    let calib = windows(dir.path(), "calib_tokens.npy", 4);
    let (tokens, model) = (data("eval_tokens.npy"), model());
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
    let plain = kl(&["--smooth", "off"]);
    let (half, searched) = (kl(&["--smooth", "0.5"]), kl(&[]));
    assert!(
        plain > 0.3 && half < 0.002 && searched <= half,
        "KL {plain} without smoothing, {half} with 0.5, {searched} by default"
    );
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
