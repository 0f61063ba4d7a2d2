//! What is refused: code, exit code, and both sides of a mismatch.

use crate::support::{compile, compile_small, data, fails, model, qcc, text};
use crate::writer::{Msg, model as model_bytes, node, tensor, value};
use serde_json::Value;
use std::path::Path;

/// Runs a plan on an input; the code of its error.
fn code_of_run(dir: &Path, file: &str, exit: i32) -> String {
    let input = format!("input_ids={file}");
    let e = fails(dir, &["run", "a.qplan", "--input", &input], exit);
    assert!(!e["message"].as_str().unwrap().is_empty());
    e["code"].as_str().unwrap().to_string()
}

#[test]
fn damaged_plans() {
    let dir = tempfile::tempdir().unwrap();
    compile_small(dir.path(), "a.qplan", &["--target", "cpu", "--fp8"]);
    let path = dir.path().join("a.qplan");
    let good = std::fs::read(&path).unwrap();
    let ids = data("eval_tokens.npy");
    let code = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        code_of_run(dir.path(), &ids, 3)
    };
    let flipped = |at: usize, bit: u8| {
        let mut b = good.clone();
        b[at] ^= 1 << bit;
        code(&b)
    };
    // One bit, in a weight, in the last byte, and in the manifest behind the length of the header.
    let n = good.len();
    for (at, bit) in [(n / 2, 4), (n - 1, 0), (n / 3, 7)] {
        assert_eq!(flipped(at, bit), "Q0403", "bit {bit} of byte {at} of {n}");
    }
    for at in [8, 100, 300] {
        assert!(flipped(at, 0).starts_with("Q04"), "byte {at}");
    }
    assert_eq!(code(&good[..n - 700]), "Q0402");
    assert_eq!(code(&good[..n - 1]), "Q0402");
    assert_eq!(code(&[]), "Q0401");
}

#[test]
fn plans_for_another_architecture() {
    let dir = tempfile::tempdir().unwrap();
    compile_small(dir.path(), "a.qplan", &["--target", "sm_80"]);
    let ids = data("eval_tokens.npy");
    let args = ["run", "a.qplan", "--device", "cpu", "--input"];
    let input = format!("input_ids={ids}");
    let e = fails(dir.path(), &[&args[..], &[&input]].concat(), 3);
    assert_eq!(e["code"], "Q0406");
    let said = format!("{} {}", e["message"], e["hint"]);
    assert!(said.contains("sm_80") && said.contains("cpu"), "{e}");
    // Without a device named, what is missing is a GPU.
    let e = fails(dir.path(), &["run", "a.qplan", "--input", &input], 6);
    assert_eq!(e["code"], "Q0701");
    assert!(e["hint"].as_str().unwrap().contains("--device sim"), "{e}");
}

/// Writes an array of zeros with this description and shape.
fn zeros(path: &Path, descr: &str, shape: &str, bytes: usize) {
    let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
    let mut npy = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
    npy.extend(format!("{header:<117}\n").as_bytes());
    npy.extend(vec![0; bytes]);
    std::fs::write(path, npy).unwrap();
}

#[test]
fn wrong_inputs_name_both_sides() {
    let dir = tempfile::tempdir().unwrap();
    compile(dir.path(), "a.qplan", &["--target", "cpu"]);
    let run = |args: &[&str], code: &str, parts: &[&str]| {
        let e = fails(dir.path(), &[&["run", "a.qplan"], args].concat(), 3);
        assert_eq!(e["code"], code, "{e}");
        for part in parts {
            assert!(e.to_string().contains(part), "{part}: {e}");
        }
    };
    let array = |name: &str, descr: &str, shape: &str, bytes: usize| {
        zeros(&dir.path().join(name), descr, shape, bytes);
        format!("input_ids={name}")
    };
    let good = array("ids.npy", "<i8", "(1, 2)", 16);
    let float = array("x.npy", "<f4", "(1, 2)", 8);
    run(
        &["--input", &float],
        "Q0505",
        &["f32[1, 2]", "i64[batch, seq]"],
    );
    let rank = array("r.npy", "<i8", "(2,)", 16);
    run(&["--input", &rank], "Q0505", &["i64[2]", "i64[batch, seq]"]);
    let long = array("l.npy", "<i8", "(1, 300)", 2400);
    run(&["--input", &long], "Q0505", &["300", "256"]);
    run(
        &["--input", "ids=ids.npy"],
        "Q0722",
        &["`ids`", "input_ids"],
    );
    run(&[], "Q0723", &["input_ids"]);
    run(
        &["--input", &good, "--input", &good],
        "Q0724",
        &["input_ids"],
    );
    run(&["--input", "input_ids=none.npy"], "Q0520", &["none.npy"]);
}

/// Writes a model of one node, and compiles it.
fn compile_node(dir: &Path, op: &str, initializer: Option<&Msg>, exit: i32) -> Value {
    let graph = Msg::default()
        .msg(1, &node(op, &["x", "w"], &["y"]))
        .msg(11, &value("x", 1, &["2"]))
        .msg(12, &value("y", 1, &["2"]));
    let weight = initializer
        .cloned()
        .unwrap_or(tensor(&[2]).bytes(9, &[0; 8]));
    let bytes = model_bytes(&graph.msg(5, &weight));
    std::fs::write(dir.join("m.onnx"), bytes).unwrap();
    fails(dir, &["compile", "m.onnx", "--target", "cpu"], exit)
}

#[test]
fn an_unknown_operator_is_unsupported() {
    let dir = tempfile::tempdir().unwrap();
    let e = compile_node(dir.path(), "Frobnicate", None, 4);
    assert_eq!(e["code"], "Q0104");
    assert_eq!(e["node"], "node the_node (Frobnicate)");
    assert!(e["message"].as_str().unwrap().contains("Frobnicate"), "{e}");
    assert!(e["hint"].is_string());
    let e = fails(dir.path(), &["check", "m.onnx", "--target", "cpu"], 4);
    assert_eq!(e["code"], "Q0612");
}

#[test]
fn external_files_that_are_missing_or_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let inner = dir.path().join("model");
    std::fs::create_dir(&inner).unwrap();
    std::fs::write(dir.path().join("secret.bin"), [1; 8]).unwrap();
    std::os::unix::fs::symlink("../secret.bin", inner.join("link.bin")).unwrap();
    for (location, code) in [
        ("none.bin", "Q0107"),
        ("../secret.bin", "Q0106"),
        ("/etc/passwd", "Q0106"),
        ("link.bin", "Q0106"),
    ] {
        let entry = Msg::default().text(1, "location").text(2, location);
        let weight = tensor(&[2]).int(14, 1).msg(13, &entry);
        let e = compile_node(&inner, "Add", Some(&weight), 3);
        assert_eq!(e["code"], code, "{location}: {e}");
        assert!(e.to_string().contains(location), "{e}");
    }
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
    let without = [
        "compile", &model, "--target", "cpu", "--int8", "--smooth", "auto",
    ];
    assert_eq!(codes(&without), "Q0525");
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
