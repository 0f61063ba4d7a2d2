//! Options that have no effect on a model: a warning, and an error with `--strict`.

use crate::support::{compile_small, fails, small};

#[test]
fn options_without_effect() {
    let dir = tempfile::tempdir().unwrap();
    let (model, calib) = small();
    let with = |flags: &[&str], said: &[&str]| {
        let all = [&["--target", "cpu"], flags].concat();
        let c = compile_small(dir.path(), "m.qplan", &all);
        let warnings = c["warnings"].as_array().unwrap();
        let idle: Vec<String> = warnings
            .iter()
            .filter(|w| w["code"] == "Q0048")
            .map(|w| w["message"].as_str().unwrap().to_string())
            .collect();
        assert_eq!(idle.len(), said.len(), "{flags:?}: {idle:?}");
        for (w, part) in idle.iter().zip(said) {
            assert!(w.contains(part) && w.contains("no effect"), "{w}");
        }
        let command = ["compile", &model, "--strict", "-o", "s.qplan"];
        let strict = [&command, &all[..]].concat();
        if said.is_empty() {
            compile_small(dir.path(), "s.qplan", &[&["--strict"], &all[..]].concat());
        } else {
            assert_eq!(fails(dir.path(), &strict, 2)["code"], "Q0048");
        }
    };
    with(&[], &[]);
    with(&["--int8", "--act", "dynamic"], &[]);
    with(&["--fp8", "--smooth", "0.5", "--calib", &calib], &[]);
    with(&["--act", "dynamic"], &["--act"]);
    with(&["--int4", "--algo", "rtn"], &[]);
    with(&["--int8", "--algo", "rtn"], &[]);
    with(&["--fp8", "--algo", "hqq"], &["--algo"]);
    with(&["--scheme", "lut4", "--algo", "mse"], &["--algo"]);
    with(&["--scheme", "int8-tensor", "--algo", "hqq"], &["--algo"]);
    with(&["--nvfp4", "--algo", "mse"], &[]);
    with(&["--int4", "--act-order"], &["--act-order"]);
    with(&["--algo", "rtn"], &["--algo"]);
    with(&["--vendor-gemm", "auto"], &["--vendor-gemm"]);
    with(&["--exclude", "down_proj|val"], &["--exclude"]);
    with(&["--calib", &calib], &["calibration data"]);
    with(
        &["--scheme", "int8-weights", "--act", "dynamic"],
        &["--act"],
    );
    with(
        &["--smooth", "0.5", "--calib", &calib],
        &["--smooth", "calibration data"],
    );
    // Only activations are smoothed, and here they stay float.
    with(
        &[
            "--scheme",
            "int8-weights",
            "--smooth",
            "0.5",
            "--calib",
            &calib,
        ],
        &["--smooth"],
    );
    with(&["--rotate", "on"], &["--rotate"]);
    with(
        &["--int8", "--outlier-columns", "1e9", "--calib", &calib],
        &["--outlier-columns"],
    );
    with(
        &["--int8", "--outlier-columns", "3", "--calib", &calib],
        &[],
    );
    with(&["--int8", "--sparse-weights", "1%"], &["--sparse-weights"]);
    with(&["--int4", "--sparse-weights", "1%"], &[]);
    with(&["--int8", "--rotate", "on", "--seed", "7"], &[]);
}

#[test]
fn a_share_of_sparse_weights_is_a_number_of_percent() {
    let dir = tempfile::tempdir().unwrap();
    let (model, _) = small();
    for share in ["0", "51%", "nan", "much"] {
        let flag = format!("--sparse-weights={share}");
        let args = ["compile", &model, "--target", "cpu", "--int4", &flag];
        let e = fails(dir.path(), &args, 2);
        assert_eq!(e["code"], "Q0011", "{share}");
        let message = e["message"].as_str().unwrap();
        assert!(message.contains("--sparse-weights"), "{message}");
    }
}

#[test]
fn a_pattern_that_matches_nothing_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let (model, _) = small();
    for flag in [["--exclude", "nothing"], ["--override", "nothing=int8"]] {
        let args = ["compile", &model, "--target", "cpu", "--int8"];
        let e = fails(dir.path(), &[&args[..], &flag].concat(), 2);
        assert_eq!(e["code"], "Q0042", "{e}");
        assert!(e["hint"].as_str().unwrap().contains("such as"), "{e}");
    }
}

#[test]
fn scheme_flags_do_not_change_a_plan() {
    let dir = tempfile::tempdir().unwrap();
    let (_, data) = small();
    compile_small(dir.path(), "m.qplan", &["--target", "cpu"]);
    for flags in [
        &["--int8"][..],
        &["--act", "dynamic"],
        &["--smooth", "auto"],
        &["--rotate", "on"],
        &["--outlier-columns", "6"],
        &["--sparse-weights", "1%"],
        &["--algo", "rtn"],
        &["--act-order"],
        &["--float", "f16"],
        &["--vendor-gemm", "auto"],
        &["--dims", "seq=1..8"],
    ] {
        let args = [&["eval", "m.qplan", "--tokens", &data], flags].concat();
        assert_eq!(fails(dir.path(), &args, 2)["code"], "Q0011", "{flags:?}");
    }
}
