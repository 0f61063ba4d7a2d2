//! Every flag of every command does what its help says.

use crate::support::{compile_small, data, fails, json, model, qcc, schemes, small, text};
use serde_json::Value;
use std::path::Path;

fn compiled(dir: &Path, flags: &[&str]) -> Value {
    compile_small(dir, "m.qplan", &[&["--target", "cpu"], flags].concat())
}

/// The text that `--emit` writes.
fn emitted(dir: &Path, flags: &[&str]) -> String {
    let (model, _) = small();
    let out = qcc(dir, &[&["compile", &model], flags].concat());
    assert!(out.status.success(), "{}", text(&out.stderr));
    text(&out.stdout)
}

/// What a GPU has no kernel for becomes weights only, or stays float.
#[test]
fn schemes_fall_back_where_a_gpu_has_no_kernel() {
    let dir = tempfile::tempdir().unwrap();
    for (scheme, on_cpu, on_gpu) in [
        ("w4a4", "w4a4-dynamic", "w4a4-weights"),
        (
            "w8a8-fp8-block128",
            "w8a8-fp8-block128-dynamic",
            "w8a8-fp8-block128-weights",
        ),
        ("int8-tensor", "int8-tensor-dynamic", "int8-tensor-dynamic"),
        ("fp8-tensor", "fp8-tensor-dynamic", "fp8-tensor-dynamic"),
        (
            "int8-block128",
            "int8-block128-dynamic",
            "int8-block128-weights",
        ),
        ("nvfp4", "nvfp4", "nvfp4"),
        ("nf4", "nf4", "nf4"),
        ("lut4", "lut4", "lut4"),
    ] {
        for (target, chosen) in [("cpu", on_cpu), ("sm_90", on_gpu)] {
            let flags = ["--target", target, "--scheme", scheme];
            let found = schemes(&compile_small(dir.path(), "m.qplan", &flags));
            let layers = found.iter().filter(|(s, _)| s.as_str() == chosen);
            assert!(
                layers.map(|(_, n)| *n).sum::<usize>() >= 14,
                "{scheme} {target}: {found:?}"
            );
        }
    }
}

#[test]
fn schemes_are_chosen() {
    let dir = tempfile::tempdir().unwrap();
    let (_, calib) = small();
    let counts = |flags: &[&str], expected: &[(&str, usize)]| {
        let found = schemes(&compiled(dir.path(), flags));
        let found: Vec<(&str, usize)> = found.iter().map(|(s, n)| (s.as_str(), *n)).collect();
        assert_eq!(found, expected, "{flags:?}");
    };
    counts(&[], &[("float", 15)]);
    counts(&["--fp8"], &[("float", 1), ("fp8-dynamic", 14)]);
    counts(&["--int8"], &[("float", 1), ("int8-dynamic", 14)]);
    counts(
        &["--fp8", "--calib", &calib],
        &[("float", 1), ("fp8-static", 14)],
    );
    counts(
        &["--int8", "--act", "static", "--calib", &calib],
        &[("float", 1), ("int8-static", 14)],
    );
    counts(
        &["--int8", "--act", "float"],
        &[("float", 1), ("int8-weights", 14)],
    );
    counts(
        &["--scheme", "fp8-weights"],
        &[("float", 1), ("fp8-weights", 14)],
    );
    counts(&["--int4"], &[("float", 1), ("w4a16-g32-asym", 14)]);
    counts(
        &["--int4", "--group-size", "64", "--sym"],
        &[("float", 1), ("w4a16-g64-sym", 14)],
    );
    for methods in [
        "rtn",
        "mse",
        "hqq",
        "awq",
        "gptq",
        "awq,gptq",
        "gptq,refine",
        "mse,gptq",
    ] {
        counts(
            &["--int4", "--algo", methods, "--calib", &calib],
            &[("float", 1), ("w4a16-g128-asym", 14)],
        );
    }
    counts(
        &["--scheme", "w4a8", "--asym"],
        &[("float", 1), ("w4a8-asym-dynamic", 14)],
    );
    counts(&["--nvfp4"], &[("float", 1), ("nvfp4", 14)]);
    counts(&["--mxfp4"], &[("float", 1), ("mxfp4", 14)]);
    counts(
        &["--scheme", "lut3", "--calib", &calib],
        &[("float", 1), ("lut3", 14)],
    );
    counts(&["--int8", "--head", "int8"], &[("int8-dynamic", 15)]);
    counts(
        &["--int8", "--exclude", "node_linear_[12]$"],
        &[("float", 3), ("int8-dynamic", 12)],
    );
    counts(
        &[
            "--int8",
            "--override",
            "node_linear_[12]$=fp8",
            "--override",
            "node_linear_2$=float",
        ],
        &[("float", 2), ("fp8-dynamic", 1), ("int8-dynamic", 12)],
    );
    let e = fails(
        dir.path(),
        &[
            "compile",
            &small().0,
            "--target",
            "cpu",
            "--int8",
            "--act",
            "static",
        ],
        2,
    );
    assert_eq!(e["code"], "Q0525");
}

#[test]
fn weight_methods_differ() {
    let dir = tempfile::tempdir().unwrap();
    let (model, calib) = small();
    let plan = |flags: &[&str]| {
        compiled(
            dir.path(),
            &[&["--int4", "--calib", &calib], flags].concat(),
        );
        std::fs::read(dir.path().join("m.qplan")).unwrap()
    };
    let (rtn, gptq) = (plan(&["--algo", "rtn"]), plan(&["--algo", "gptq"]));
    let ordered = plan(&["--algo", "gptq", "--act-order"]);
    assert!(rtn != gptq && gptq != ordered);
    // Where activations and codes are held, and by how many threads they are made, is not seen.
    let plain = plan(&["--threads", "1"]);
    for flags in [
        &["--max-memory", "0", "--threads", "2"][..],
        &["--max-memory", "100K", "--threads", "3"],
        &["--max-memory", "8G"],
    ] {
        assert!(plain == plan(flags), "{flags:?}");
    }
    let refused = |flags: &[&str]| {
        let args = ["compile", &model, "--target", "cpu", "--int4"];
        fails(dir.path(), &[&args[..], flags].concat(), 2)["code"].clone()
    };
    assert_eq!(refused(&["--algo", "gptq"]), "Q0525");
    assert_eq!(refused(&["--algo", "magic"]), "Q0047");
    assert_eq!(refused(&["--max-memory", "8T"]), "Q0011");
}

#[test]
fn floats_are_stored_as_asked() {
    let dir = tempfile::tempdir().unwrap();
    let weights = |flags: &[&str]| {
        let m = emitted(dir.path(), &[&["--emit", "qir"], flags].concat());
        let count = |ty: &str| {
            let line = |l: &&str| l.starts_with("weight") && l.contains(&format!(": {ty}["));
            m.lines().filter(line).count()
        };
        (count("f32"), count("f16"), count("bf16"))
    };
    let (wide, ..) = weights(&["--target", "cpu"]);
    assert!(wide > 10);
    assert_eq!(
        weights(&["--target", "cpu", "--float", "f32"]),
        (wide, 0, 0)
    );
    let f16 = weights(&["--target", "cpu", "--float", "f16"]);
    let bf16 = weights(&["--target", "cpu", "--float", "bf16"]);
    assert!(f16.1 >= 10 && f16.2 == 0, "{f16:?}");
    assert!(bf16.2 >= 10 && bf16.1 == 0, "{bf16:?}");
    assert_eq!(weights(&["--target", "sm_80", "--float", "auto"]), f16);
}

#[test]
fn texts_are_emitted() {
    let dir = tempfile::tempdir().unwrap();
    let m = emitted(dir.path(), &["--target", "cpu", "--emit", "qir"]);
    assert!(m.starts_with("qir 1") && m.contains("attention"));
    let ptx = emitted(dir.path(), &["--target", "sm_80", "--emit", "ptx"]);
    assert!(ptx.contains(".target sm_80") && ptx.contains(".entry"));
    let to_file = ["--target", "cpu", "--emit", "qir", "-o", "m.qir"];
    assert_eq!(emitted(dir.path(), &to_file), "");
    assert_eq!(
        std::fs::read_to_string(dir.path().join("m.qir")).unwrap(),
        m
    );
    // The text form is the input of `opt`, which finds nothing left to do.
    let o = json(dir.path(), &["opt", "--pass", "canonicalize,dce", "m.qir"]);
    assert_eq!(o["module"], m);
    let (model, _) = small();
    let refused = |flags: &[&str]| {
        let args = [&["compile", &model, "--target", "cpu"], flags].concat();
        let out = qcc(dir.path(), &args);
        (out.status.code(), text(&out.stderr))
    };
    let (code, said) = refused(&["--emit", "ptx"]);
    assert!(code == Some(2) && said.contains("GPU"), "{said}");
    assert_eq!(refused(&["--emit", "qir", "--json"]).0, Some(2));
    assert!(refused(&["--emit", "plan", "-o", "m.qplan"]).0 == Some(0));
}

#[test]
fn phases_are_dumped_and_the_plan_has_a_default_name() {
    let dir = tempfile::tempdir().unwrap();
    let (model, _) = small();
    let args = [
        "compile",
        &model,
        "--target",
        "cpu",
        "--dump-phases",
        "phases",
    ];
    json(dir.path(), &args);
    let mut names: Vec<String> = std::fs::read_dir(dir.path().join("phases"))
        .unwrap()
        .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    assert_eq!(names[0], "00-imported.qir");
    assert!(names.len() > 20 && names.iter().any(|n| n.ends_with("-fuse.qir")));
    let i = json(dir.path(), &["inspect", "llama.qplan"]);
    assert_eq!(i["plan"]["targets"][0]["target"], "cpu");
}

#[test]
fn dimensions_are_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let flags = [
        "--target",
        "cpu",
        "--dims",
        "batch=1..2@1",
        "--dims",
        "seq=1..8",
    ];
    compile_small(dir.path(), "m.qplan", &flags);
    let i = json(dir.path(), &["inspect", "m.qplan"]);
    let symbols = i["plan"]["symbols"].as_array().unwrap();
    let ranges: Vec<(i64, i64)> = symbols
        .iter()
        .map(|s| (s["min"].as_i64().unwrap(), s["max"].as_i64().unwrap()))
        .collect();
    assert_eq!(ranges, [(1, 2), (1, 8)]);
    // 24 tokens of the model's data are out of the range.
    let args = ["eval", "m.qplan", "--tokens", &small().1];
    assert_eq!(fails(dir.path(), &args, 3)["code"], "Q0505");
    let (model, _) = small();
    let args = [
        "compile",
        &model,
        "--target",
        "cpu",
        "--dims",
        "sequence=1..8",
    ];
    let e = fails(dir.path(), &args, 2);
    assert!(e.to_string().contains("seq"), "{e}");
}

#[test]
fn bytes_do_not_depend_on_threads() {
    let dir = tempfile::tempdir().unwrap();
    let (_, calib) = small();
    for scheme in [
        &["--int8", "--smooth", "0.5", "--calib", &calib][..],
        &["--int8", "--calib", &calib],
        &["--int8", "--rotate", "on", "--seed", "3"],
        &["--fp8", "--calib", &calib],
        &["--int4", "--act-order", "--calib", &calib],
        &[
            "--int8", "--act", "static", "--calib", &calib, "--head", "int8",
        ],
    ] {
        let bytes = |threads: &str| {
            let target = ["--target", "sm_80,cpu", "--threads", threads];
            let all = [scheme, &target].concat();
            compile_small(dir.path(), "m.qplan", &all);
            std::fs::read(dir.path().join("m.qplan")).unwrap()
        };
        let one = bytes("1");
        assert!(one == bytes("1"), "{scheme:?}: the same again");
        assert!(one == bytes("2") && one == bytes("3"), "{scheme:?}");
    }
}

#[test]
fn evaluation_and_comparison() {
    let dir = tempfile::tempdir().unwrap();
    let (model, tokens) = (model(), data("eval_tokens.npy"));
    let calib = data("calib_tokens.npy");
    // A model is compiled in memory: the same as a plan of it.
    let eval = |args: &[&str]| {
        let flags = ["--tokens", &tokens, "--windows", "1", "--device", "cpu"];
        json(dir.path(), &[&["eval"], args, &flags[..]].concat())
    };
    let scheme = ["--fp8", "--calib", &calib];
    let a = eval(&[&[model.as_str(), "--baseline", &model][..], &scheme].concat());
    assert_eq!((&a["windows"], &a["tokens"]), (&1.into(), &255.into()));
    assert_eq!(a["device"], "cpu");
    assert!(a["kl"].as_f64().unwrap() > 1e-5 && a["top1"].as_f64().unwrap() > 0.9);
    let compile = ["compile", &model, "--target", "cpu", "-o", "p.qplan"];
    json(dir.path(), &[&compile, &scheme[..]].concat());
    let b = eval(&["p.qplan", "--baseline", &model, "--threads", "1"]);
    assert_eq!((&a["nll"], &a["kl"]), (&b["nll"], &b["kl"]));

    compiled(dir.path(), &["--fp8"]);
    let (small_model, npz) = small();
    let args = [
        "compare",
        "m.qplan",
        &small_model,
        "--data",
        &npz,
        "--threads",
        "2",
    ];
    let c = json(dir.path(), &args);
    assert_eq!(c["samples"], 2);
    assert!(c["outputs"][0]["relative_error"].as_f64().unwrap() > 1e-4);
    assert!(c["outputs"][0]["cosine"].as_f64().unwrap() > 0.99);
}

#[test]
fn a_model_for_one_sample_takes_data_one_by_one() {
    let dir = tempfile::tempdir().unwrap();
    let (model, npz) = small();
    for scheme in [
        &["--int8", "--act", "static"][..],
        &["--int4", "--algo", "awq,gptq"],
    ] {
        let one = ["--target", "cpu", "--calib", &npz, "--dims", "batch=1..1"];
        let c = compile_small(dir.path(), "m.qplan", &[scheme, &one].concat());
        assert!(c["output"]["kl"].as_f64().unwrap() > 0.0, "{scheme:?}");
        let c = json(dir.path(), &["compare", "m.qplan", &model, "--data", &npz]);
        assert_eq!(c["samples"], 2);
    }
}

#[test]
fn decisions_are_filtered_by_layer() {
    let dir = tempfile::tempdir().unwrap();
    compiled(dir.path(), &["--int8"]);
    let explain = |flags: &[&str]| {
        let e = json(dir.path(), &[&["explain", "m.qplan"], flags].concat());
        e["decisions"].as_array().unwrap().len()
    };
    let (all, one) = (explain(&[]), explain(&["--layer", "^node_linear_6$"]));
    assert!(0 < one && one < all, "{one} of {all}");
    assert_eq!(explain(&["--layer", "nothing"]), 0);
    // The second of three merged layers: its scheme, and the kernel that computes it.
    let merged = ["explain", "m.qplan", "--layer", "^node_linear_1$"];
    let e = json(dir.path(), &merged);
    let topics = |d: &Value| (d["site"].clone(), d["topic"].clone());
    let found: Vec<_> = e["decisions"]
        .as_array()
        .unwrap()
        .iter()
        .map(topics)
        .collect();
    let expected = [("node_linear", "fusion"), ("node_linear_1", "scheme")];
    assert_eq!(found, expected.map(|(s, t)| (s.into(), t.into())));
    let said = text(&qcc(dir.path(), &merged).stdout);
    assert!(
        said.contains("rather than float (") && said.contains("computes node_linear, "),
        "{said}"
    );
    let nobody = qcc(dir.path(), &["explain", "m.qplan", "--layer", "nothing"]);
    assert!(text(&nobody.stderr).contains("no decision is about `nothing`"));
    fails(dir.path(), &["explain", "m.qplan", "--layer", "("], 2);
}

/// Every long flag that a help text lists stands in a test of the command.
#[test]
fn every_flag_is_tested() {
    let dir = tempfile::tempdir().unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let tests: String = [folder.clone(), folder.join("cli")]
        .iter()
        .flat_map(|f| std::fs::read_dir(f).unwrap())
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "rs"))
        .map(|p| std::fs::read_to_string(p).unwrap())
        .collect();
    let tested = |flag: &str| {
        ["\"", "="]
            .iter()
            .any(|end| tests.contains(&format!("\"{flag}{end}")))
    };
    let help = |args: &[&str]| text(&qcc(dir.path(), &[args, &["--help"]].concat()).stdout);
    let main = help(&[]);
    let commands: Vec<&str> = main
        .lines()
        .skip_while(|l| !l.starts_with("Commands:"))
        .skip(1)
        .map_while(|l| l.split_whitespace().next())
        .collect();
    assert!(commands.contains(&"compile") && commands.len() > 8);
    let mut missing = Vec::new();
    for command in commands.iter().filter(|c| **c != "help") {
        for line in help(&[command]).lines() {
            let line = line.trim_start().trim_start_matches("-o, ");
            let end = line.find(|c: char| !c.is_ascii_alphanumeric() && c != '-');
            let flag = &line[..end.unwrap_or(line.len())];
            let known = ["--help", "--output"].contains(&flag);
            if flag.starts_with("--") && !known && !tested(flag) {
                missing.push(format!("{command} {flag}"));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:?}");
}
