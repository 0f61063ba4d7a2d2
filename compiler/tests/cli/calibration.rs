//! Statistics files, and the methods that read them.

use crate::support::{fails, json, model, qcc, small, text};
use serde_json::Value;
use std::path::Path;

fn calibrate(dir: &Path, flags: &[&str]) -> Value {
    let (model, _) = small();
    json(dir, &[&["calibrate", &model], flags].concat())
}

/// The text of the module that flags make of the small model.
fn module(dir: &Path, flags: &[&str]) -> String {
    let (model, _) = small();
    let args = ["compile", &model, "--target", "cpu", "--emit", "qir"];
    let out = qcc(dir, &[&args, flags].concat());
    assert!(out.status.success(), "{flags:?}: {}", text(&out.stderr));
    text(&out.stdout)
}

/// The plan that flags make of the small model.
fn plan(dir: &Path, flags: &[&str]) -> Vec<u8> {
    let (model, _) = small();
    let args = ["compile", &model, "--target", "cpu", "-o", "m.qplan"];
    json(dir, &[&args, flags].concat());
    std::fs::read(dir.join("m.qplan")).unwrap()
}

fn refused(dir: &Path, flags: &[&str], exit: i32) -> String {
    let (model, _) = small();
    let args = ["compile", &model, "--target", "cpu"];
    let e = fails(dir, &[&args, flags].concat(), exit);
    e["code"].as_str().unwrap().to_string()
}

#[test]
fn statistics_stand_for_data() {
    let dir = tempfile::tempdir().unwrap();
    let (_, calib) = small();
    let s = calibrate(dir.path(), &["--calib", &calib, "-o", "a.stats"]);
    assert_eq!(s["samples"], 2);
    let values = s["values"].as_array().unwrap();
    assert!(
        values
            .iter()
            .all(|v| v["histogram"] == true && v["hessian"] == false)
    );
    calibrate(
        dir.path(),
        &["--calib", &calib, "-o", "b.stats", "--threads", "1"],
    );
    let bytes = |name: &str| std::fs::read(dir.path().join(name)).unwrap();
    assert!(bytes("a.stats") == bytes("b.stats"));
    calibrate(
        dir.path(),
        &["--merge", "a.stats", "b.stats", "-o", "two.stats"],
    );
    let both = ["--calib", &calib, "--merge", "a.stats", "-o", "three.stats"];
    assert_eq!(calibrate(dir.path(), &both)["samples"], 4);
    assert!(bytes("two.stats") == bytes("three.stats"));
    for method in [
        "minmax",
        "ema",
        "percentile:99",
        "mse",
        "entropy",
        "entropy:ort",
    ] {
        // The search of smoothing needs samples.
        let flags = [
            "--int8",
            "--act",
            "static",
            "--smooth",
            "off",
            "--calib-method",
            method,
        ];
        let with = |more: &[&str]| module(dir.path(), &[&flags, more].concat());
        let data = with(&["--calib", &calib]);
        assert_eq!(data, with(&["--stats", "a.stats"]), "{method}");
        if method != "ema" {
            assert_eq!(data, with(&["--stats", "two.stats"]), "{method}");
        }
    }
    let smooth = ["--int8", "--smooth", "0.5"];
    assert_eq!(
        module(dir.path(), &[&smooth[..], &["--stats", "a.stats"]].concat()),
        module(dir.path(), &[&smooth[..], &["--calib", &calib]].concat())
    );
}

#[test]
fn defaults_need_no_more_than_statistics_have() {
    let dir = tempfile::tempdir().unwrap();
    let (_, calib) = small();
    calibrate(dir.path(), &["--calib", &calib, "-o", "s.stats"]);
    calibrate(
        dir.path(),
        &["--calib", &calib, "--hessian", "-o", "h.stats"],
    );
    let with =
        |stats: &str, flags: &[&str]| module(dir.path(), &[&["--stats", stats], flags].concat());
    let mse = ["--int8", "--act", "static", "--calib-method", "mse"];
    let off = [&mse[..], &["--smooth", "off"]].concat();
    assert_eq!(with("s.stats", &mse), with("s.stats", &off));
    let auto = ["--int8", "--stats", "s.stats", "--smooth", "auto"];
    assert_eq!(refused(dir.path(), &auto, 2), "Q0525");
    let int4 = ["--int4"];
    let [mse, gptq] = [
        ("w4a16-g32-asym", "mse"),
        ("w4a16-g128-asym", "gptq,refine"),
    ]
    .map(|(scheme, algo)| ["--scheme", scheme, "--algo", algo]);
    assert_eq!(with("s.stats", &int4), with("s.stats", &mse));
    assert_eq!(with("h.stats", &int4), with("h.stats", &gptq));
    let tables = |stats| plan(dir.path(), &["--scheme", "lut4", "--stats", stats]);
    assert!(tables("s.stats") != tables("h.stats"));
}

#[test]
fn methods_differ_and_the_ledger_says_how() {
    let dir = tempfile::tempdir().unwrap();
    let (_, calib) = small();
    let with = |method: &str| {
        let flags = [
            "--act",
            "static",
            "--calib",
            &calib,
            "--calib-method",
            method,
        ];
        plan(dir.path(), &[&["--int8"], &flags[..]].concat())
    };
    let plans: Vec<Vec<u8>> = [
        "minmax",
        "ema",
        "percentile:99",
        "mse",
        "entropy",
        "entropy:ort",
    ]
    .into_iter()
    .map(with)
    .collect();
    for (i, a) in plans.iter().enumerate() {
        assert!(
            plans[..i].iter().all(|b| a != b),
            "method {i} changes nothing"
        );
    }
    let e = json(dir.path(), &["explain", "m.qplan"]);
    let decisions = e["decisions"].as_array().unwrap();
    let range = decisions.iter().find(|d| d["topic"] == "range").unwrap();
    let chosen = range["chosen"].as_str().unwrap();
    assert!(chosen.starts_with("entropy:ort "), "{chosen}");
    let i = json(dir.path(), &["inspect", "m.qplan"]);
    assert_eq!(i["plan"]["options"]["calib-method"], "entropy:ort");
}

#[test]
fn hessians_serve_gptq() {
    let dir = tempfile::tempdir().unwrap();
    let (_, calib) = small();
    let s = calibrate(
        dir.path(),
        &["--calib", &calib, "--hessian", "-o", "h.stats"],
    );
    assert!(
        s["values"]
            .as_array()
            .unwrap()
            .iter()
            .all(|v| v["hessian"] == true)
    );
    let int4 = |more: &[&str]| {
        plan(
            dir.path(),
            &[&["--int4", "--stats", "h.stats"], more].concat(),
        )
    };
    let (rtn, gptq) = (int4(&["--algo", "rtn"]), int4(&["--algo", "gptq"]));
    assert!(rtn != gptq && gptq == int4(&["--algo", "gptq", "--threads", "1"]));
    calibrate(dir.path(), &["--calib", &calib, "-o", "s.stats"]);
    let without = |algo: &str, exit| {
        let flags = ["--int4", "--stats", "s.stats", "--algo", algo];
        refused(dir.path(), &flags, exit)
    };
    assert_eq!(without("gptq", 3), "Q0527");
    assert_eq!(without("awq", 2), "Q0525");
    let flags = ["--int4", "--stats", "s.stats", "--calib", &calib];
    assert!(plan(dir.path(), &flags) != rtn);
}

#[test]
fn what_does_not_fit_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (small_model, calib) = small();
    calibrate(dir.path(), &["--calib", &calib, "-o", "a.stats"]);
    let other = [
        "compile",
        &model(),
        "--target",
        "cpu",
        "--fp8",
        "--stats",
        "a.stats",
    ];
    let e = fails(dir.path(), &other, 3);
    assert_eq!(
        (&e["code"], &e["node"]),
        (&"Q0530".into(), &"a.stats".into())
    );
    let smoothed = [
        "--int8", "--act", "static", "--smooth", "0.5", "--stats", "a.stats",
    ];
    module(dir.path(), &smoothed);
    let histogram = [&smoothed[..], &["--calib-method", "mse"]].concat();
    assert_eq!(refused(dir.path(), &histogram, 3), "Q0527");
    let data = [&histogram[..], &["--calib", &calib]].concat();
    module(dir.path(), &data);
    std::fs::write(dir.path().join("bad.stats"), b"{}").unwrap();
    assert_eq!(
        refused(dir.path(), &["--fp8", "--stats", "bad.stats"], 3),
        "Q0529"
    );
    assert_eq!(
        refused(dir.path(), &["--fp8", "--stats", "none.stats"], 3),
        "Q0012"
    );
    let method = |m| ["--fp8", "--stats", "a.stats", "--calib-method", m];
    assert_eq!(refused(dir.path(), &method("entropy"), 2), "Q0049");
    assert_eq!(refused(dir.path(), &method("median"), 2), "Q0049");
    let idle = ["--int8", "--strict", "--calib-method", "mse"];
    assert_eq!(refused(dir.path(), &idle, 2), "Q0048");
    let calibrates = |flags: &[&str]| {
        let e = fails(
            dir.path(),
            &[&["calibrate", &small_model], flags].concat(),
            2,
        );
        e["code"].clone()
    };
    assert_eq!(calibrates(&[]), "Q0011");
    assert_eq!(calibrates(&["--calib", &calib]), "Q0011");
}

#[test]
fn points_are_listed() {
    let dir = tempfile::tempdir().unwrap();
    let listed = calibrate(dir.path(), &["--list-points"]);
    let points = listed["points"].as_array().unwrap();
    let layers: usize = points
        .iter()
        .map(|p| p["layers"].as_array().unwrap().len())
        .sum();
    assert_eq!(layers, 15);
    let (_, calib) = small();
    let s = calibrate(
        dir.path(),
        &["--calib", &calib, "-o", "a.stats", "--dims", "seq=1..64"],
    );
    assert_eq!(s["values"].as_array().unwrap().len(), points.len());
}
