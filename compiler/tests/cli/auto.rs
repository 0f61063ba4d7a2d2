//! `--auto`: schemes chosen under a bound, explained, and the bound checked on the result.

use crate::support::{compile_small, fails, json, qcc, schemes, small, text};
use serde_json::Value;
use std::path::Path;

/// Sizes to optimise for: a step of generation and a prompt.
const SIZES: [&str; 4] = ["--dims", "batch=1..16@1", "--dims", "seq=1..128@1,64"];

fn chosen(dir: &Path, name: &str, flags: &[&str]) -> Value {
    let (_, calib) = small();
    let fixed = [
        "--target", "cpu", "--auto", "--algo", "rtn", "--smooth", "off", "--calib", &calib,
    ];
    compile_small(dir, name, &[&fixed[..], &SIZES[..], flags].concat())
}

#[test]
fn bounds_are_kept_and_told() {
    let dir = tempfile::tempdir().unwrap();
    let by_drop = chosen(dir.path(), "a.qplan", &["--max-drop", "1%"]);
    let auto = &by_drop["auto"];
    assert_eq!(auto["bound"], serde_json::json!(["drop", 1.0]));
    assert_eq!(auto["kept"], true);
    assert!(auto["measured_drop"].as_f64().unwrap() <= 1.0);
    let cost = |v: &Value, part: usize| v["auto"]["cost"][part].as_f64().unwrap();
    assert!(cost(&by_drop, 1) <= cost(&by_drop, 0));
    assert!(
        by_drop["search"]["choose"]["nodes"].as_u64() > by_drop["search"]["fuse"]["nodes"].as_u64()
    );
    assert_eq!(auto["chosen"]["us"].as_object().unwrap().len(), 2);
    // One percent is the bound of --auto alone.
    let alone = chosen(dir.path(), "b.qplan", &[]);
    assert_eq!(alone["auto"], by_drop["auto"]);
    // Less divergence takes more time.
    let tight = chosen(dir.path(), "c.qplan", &["--max-kl", "1e-6"]);
    assert!(tight["auto"]["measured_kl"].as_f64().unwrap() <= 1e-6);
    assert!(cost(&tight, 0) >= cost(&by_drop, 0));
    let bits = chosen(dir.path(), "d.qplan", &["--effective-bits", "9"]);
    let bits = &bits["auto"]["chosen"]["bits"];
    assert!((4.0..=9.0).contains(&bits.as_f64().unwrap()), "{bits}");
}

#[test]
fn a_choice_is_explained() {
    let dir = tempfile::tempdir().unwrap();
    let c = chosen(dir.path(), "m.qplan", &["--max-drop", "1"]);
    assert!(schemes(&c).iter().any(|(name, _)| name != "float"));
    let e = json(dir.path(), &["explain", "m.qplan"]);
    let scheme = |d: &&Value| d["topic"] == "scheme";
    let decisions = e["decisions"].as_array().unwrap();
    // All but the head had a choice.
    let weighed = decisions.iter().filter(scheme).filter(|d| {
        let considered = d["considered"].as_array().unwrap();
        let timed = |c: &&Value| c["predicted_us"].as_object().is_some_and(|p| p.len() == 2);
        considered.iter().filter(timed).count() > 3
            && considered.iter().any(|c| c["candidate"] == d["chosen"])
    });
    assert_eq!(weighed.count(), 14);
    let out = text(&qcc(dir.path(), &["explain", "m.qplan"]).stdout);
    assert!(
        out.contains("rather than fp8-") && out.contains("error "),
        "{out}"
    );
}

#[test]
fn every_part_of_the_model_has_its_reasons() {
    let dir = tempfile::tempdir().unwrap();
    let (_, calib) = small();
    let auto = [
        "--auto", "--algo", "rtn", "--smooth", "off", "--calib", &calib,
    ];
    for flags in [&auto[..], &["--int8"]] {
        compile_small(
            dir.path(),
            "m.qplan",
            &[&["--target", "sm_80"], flags].concat(),
        );
        let decisions = |name: &str| {
            let e = json(dir.path(), &["explain", "m.qplan", "--layer", name]);
            e["decisions"].as_array().unwrap().clone()
        };
        // Layers, what is fused into kernels of other nodes, gains and a table that is looked up.
        for name in [
            "node_linear_6",
            "node_Softmax_156",
            "node_Sigmoid_176",
            "^val_178$",
            r"layers\.0\.input_layernorm\.weight",
            r"embed_tokens\.weight",
        ] {
            let kernel = |d: &Value| d["topic"] == "fusion" && !d["considered"].is_null();
            assert!(decisions(name).iter().any(kernel), "{name} {flags:?}");
        }
        let weight = decisions("^val_178$");
        let scheme = weight.iter().find(|d| d["topic"] == "scheme").unwrap();
        let considered = scheme["considered"].as_array().unwrap();
        let float = considered
            .iter()
            .find(|c| c["candidate"] == "float")
            .unwrap();
        assert!(!float["predicted_us"].as_object().unwrap().is_empty());
        // Only a choice measures all candidates.
        assert_eq!(considered.len() > 4, flags.len() > 1, "{scheme}");
    }
}

#[test]
fn threads_do_not_change_a_choice() {
    let dir = tempfile::tempdir().unwrap();
    let plan = |threads| {
        chosen(dir.path(), "t.qplan", &["--threads", threads]);
        std::fs::read(dir.path().join("t.qplan")).unwrap()
    };
    assert!(plan("1") == plan("3"));
}

#[test]
fn a_bound_that_cannot_be_kept_leaves_the_nearest_plan() {
    let dir = tempfile::tempdir().unwrap();
    let (model, calib) = small();
    let fixed = [
        "compile", &model, "-o", "m.qplan", "--target", "cpu", "--calib", &calib,
    ];
    let with = |flags: &[&str], exit| fails(dir.path(), &[&fixed[..], flags].concat(), exit);
    let missed = with(&["--auto", "--algo", "rtn", "--effective-bits", "2"], 5);
    assert_eq!(missed["code"], "Q0801");
    assert!(dir.path().join("m.qplan").exists());
    for bad in ["x", "-1", "0", "nan"] {
        let flag = format!("--max-drop={bad}");
        assert_eq!(with(&["--auto", &flag], 2)["code"], "Q0011", "{bad}");
    }
}

#[test]
fn what_a_choice_needs() {
    let dir = tempfile::tempdir().unwrap();
    let (model, _) = small();
    let args = ["compile", &model, "--target", "cpu", "--auto"];
    assert_eq!(fails(dir.path(), &args, 2)["code"], "Q0525");
    for other in [["--auto", "--fp8"], ["--max-kl", "0.1"]] {
        let out = qcc(dir.path(), &[&args[..4], &other[..]].concat());
        assert_eq!(out.status.code(), Some(2), "{other:?}");
    }
    // One set of sizes is called all the time.
    let idle = |flags: &[&str]| {
        let all = [&["--target", "cpu", "--workload", "prefill"], flags].concat();
        let c = compile_small(dir.path(), "w.qplan", &all);
        assert_eq!(c["options"]["workload"], "prefill");
        let said = |w: &Value| w["message"].as_str().unwrap().contains("--workload has no");
        c["warnings"].as_array().unwrap().iter().any(said)
    };
    assert!(idle(&[]) && !idle(&SIZES));
}
