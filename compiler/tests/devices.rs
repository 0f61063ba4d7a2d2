//! `--device`: which device runs, what it says, and that the simulated GPU gives the same numbers.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/models")
}

fn file(name: &str) -> String {
    models().join(name).display().to_string()
}

/// Runs the command; a `libcuda.so` in the folder is the CUDA driver.
fn qcc(dir: &Path, args: &[&str]) -> Output {
    let mut c = Command::new(env!("CARGO_BIN_EXE_qcc"));
    c.current_dir(dir).args(args).arg("--json");
    if dir.join("libcuda.so").exists() {
        c.env("LD_LIBRARY_PATH", dir);
    }
    c.output().expect("the command starts")
}

/// Puts the simulated CUDA driver into the folder.
fn with_driver(dir: &Path) {
    let driver = fakecuda::locate::library().unwrap_or_else(|e| panic!("{e}"));
    std::fs::copy(driver, dir.join("libcuda.so")).expect("the driver can be copied");
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs a command with this exit code; gives its JSON document and what it said on stderr.
#[track_caller]
fn exits(dir: &Path, args: &[&str], code: i32) -> (Value, String) {
    let out = qcc(dir, args);
    let (said, log) = (text(&out.stdout), text(&out.stderr));
    assert_eq!(out.status.code(), Some(code), "{args:?}: {said}{log}");
    (serde_json::from_str(&said).expect("one document"), log)
}

/// Token ids as a .npy file.
fn write_npy(path: &Path, rows: usize, columns: usize) {
    let ids = (0..rows * columns).map(|i| ((i * 37 + 11) % 500) as i64);
    write_ids(path, rows, columns, &ids.collect::<Vec<_>>());
}

/// An int64 matrix as a .npy file.
fn write_ids(path: &Path, rows: usize, columns: usize, ids: &[i64]) {
    let header =
        format!("{{'descr': '<i8', 'fortran_order': False, 'shape': ({rows}, {columns}), }}");
    let mut npy = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
    npy.extend(format!("{header:<117}\n").as_bytes());
    npy.extend(ids.iter().flat_map(|i| i.to_le_bytes()));
    std::fs::write(path, npy).unwrap();
}

#[test]
fn a_plan_runs_on_the_simulated_gpu_as_on_the_processor() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    write_npy(&dir.join("t.npy"), 2, 12);
    let (model, calib) = (file("docs-gpt-outlier.onnx"), file("calib_tokens.npy"));
    let compile = [
        "compile",
        &model,
        "--fp8",
        "--calib",
        &calib,
        "--target",
        "cpu,sm_80",
        "-o",
        "b.qplan",
    ];
    exits(dir, &compile, 0);
    let eval = |device: &str, chip: &str| {
        let args = ["eval", "b.qplan", "--tokens", "t.npy", "--device", device];
        let (e, log) = exits(dir, &args, 0);
        assert_eq!(e["device"], device, "{e}");
        let numerics = e["numerics"].as_str().unwrap();
        assert!(numerics.contains("fp8") && numerics.ends_with(chip), "{e}");
        assert!(log.contains(&format!("device: {device} ({chip})")), "{log}");
        e["perplexity"].as_f64().unwrap()
    };
    let (sim, cpu) = (eval("sim", "sm_80"), eval("cpu", "cpu"));
    assert!((sim / cpu - 1.0).abs() < 1e-3, "{sim} on sim, {cpu} on cpu");

    let run = ["run", "b.qplan", "--input", "input_ids=t.npy"];
    let (r, log) = exits(dir, &run, 0);
    assert_eq!(
        (&r["device"], &r["outputs"][0]["dims"][1]),
        (&"cpu".into(), &12.into())
    );
    assert!(log.contains("device: cpu"), "{log}");
    let (r, _) = exits(dir, &[&run[..], &["--device", "sim"]].concat(), 0);
    assert_eq!(r["device"], "sim");
    let compare = [
        "compare",
        "b.qplan",
        &model,
        "--data",
        "t.npy",
        "--device",
        "sim:sm_80",
    ];
    let (c, _) = exits(dir, &compare, 0);
    assert_eq!(c["device"], "sim");
    assert!(c["outputs"][0]["cosine"].as_f64().unwrap() > 0.99, "{c}");
    let (e, _) = exits(dir, &[&run[..], &["--device", "sim:sm_75"]].concat(), 3);
    assert_eq!(e["error"]["code"], "Q0406", "{e}");
}

#[test]
fn a_chosen_plan_is_as_accurate_on_the_simulated_gpu() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let small = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/conformance/models");
    let small = |name: &str| small.join(name).display().to_string();
    let (model, data) = (small("llama.onnx"), small("llama.npz"));
    let compile = [
        "compile",
        &model,
        "--target",
        "cpu,sm_90",
        "--auto",
        "--max-kl",
        "1e-4",
        "--calib",
        &data,
        "--algo",
        "rtn",
        "-o",
        "a.qplan",
    ];
    let (c, _) = exits(dir, &compile, 0);
    assert_eq!(c["auto"]["kept"], true, "{c}");
    let error = |device: &str| {
        let args = ["compare", "a.qplan", &model, "--data", &data];
        let (c, _) = exits(dir, &[&args[..], &["--device", device]].concat(), 0);
        let numerics = c["numerics"].as_str().unwrap();
        assert!(
            numerics.starts_with("chosen by kl 0.0001 (act auto, smooth auto"),
            "{c}"
        );
        c["outputs"][0]["relative_error"].as_f64().unwrap()
    };
    let (sim, cpu) = (error("sim:sm_90"), error("cpu"));
    assert!(cpu > 1e-4, "something is quantized: {cpu}");
    assert!((sim / cpu - 1.0).abs() < 0.02, "{sim} on sim, {cpu} on cpu");
}

#[test]
fn a_plan_for_gpus_alone_says_what_to_do_without_one() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    write_npy(&dir.join("t.npy"), 1, 3);
    let model = file("docs-gpt-outlier.onnx");
    exits(
        dir,
        &["compile", &model, "--target", "sm_80", "-o", "g.qplan"],
        0,
    );
    let run = ["run", "g.qplan", "--input", "input_ids=t.npy"];
    // With a GPU in the machine the plan runs on it.
    if !Path::new("/dev/nvidiactl").exists() {
        for more in [&[][..], &["--device", "cuda"]] {
            let (e, _) = exits(dir, &[&run[..], more].concat(), 6);
            let hint = e["error"]["hint"].as_str().unwrap();
            assert!(hint.contains("--device sim"), "{e}");
        }
    }
    let (e, _) = exits(dir, &[&run[..], &["--device", "cpu"]].concat(), 3);
    assert_eq!(e["error"]["code"], "Q0406", "{e}");
    let out = qcc(dir, &[&run[..], &["--device", "gpu"]].concat());
    assert_eq!(out.status.code(), Some(2));
    assert!(
        text(&out.stderr).contains("sim:sm_NN"),
        "{}",
        text(&out.stderr)
    );
}

#[test]
fn an_index_outside_of_its_table_is_the_same_error_on_every_device() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    with_driver(dir);
    let model = file("docs-gpt-outlier.onnx");
    let compile = ["compile", &model, "--target", "cpu,sm_80", "-o", "g.qplan"];
    exits(dir, &compile, 0);
    // The vocabulary has 2048 entries. The first bad index is reported, of any size and sign.
    let cases: [([i64; 4], &str); 3] = [
        ([3, 2048, 1, -9999], "index 2048 "),
        ([0, -2049, 4096, 5], "index -2049 "),
        ([i64::MIN, 1, 2, i64::MAX], "index -9223372036854775808 "),
    ];
    for (ids, named) in cases {
        write_ids(&dir.join("bad.npy"), 2, 2, &ids);
        let error = |device: &str| {
            let input = ["--input", "input_ids=bad.npy", "--device", device];
            exits(dir, &[&["run", "g.qplan"], &input[..]].concat(), 3).0["error"].clone()
        };
        let want = error("cpu");
        let message = want["message"].as_str().unwrap();
        assert!(want["code"] == "Q0705" && message.contains(named), "{want}");
        assert!(message.contains("2048 entries"), "{want}");
        assert!(!want["node"].as_str().unwrap().is_empty(), "{want}");
        assert_eq!(error("sim"), want);
        assert_eq!(error("cuda"), want);
    }
    // The last entry and the first one counted from the end are inside.
    write_ids(&dir.join("edge.npy"), 1, 2, &[2047, -2048]);
    for device in ["cpu", "sim", "cuda"] {
        let input = ["--input", "input_ids=edge.npy", "--device", device];
        exits(dir, &[&["run", "g.qplan"], &input[..]].concat(), 0);
    }
}

#[test]
fn products_of_the_library_are_asked_for_and_run_by_their_definition() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let model = file("docs-gpt-outlier.onnx");
    let compile = |target: &str, out: &str, more: &[&str], code: i32| {
        let args = ["compile", &model, "--target", target, "-o", out];
        exits(dir, &[&args[..], more].concat(), code).0
    };
    let auto = ["--vendor-gemm", "auto"];
    compile("cpu,sm_80", "v.qplan", &auto, 0);
    compile("cpu,sm_80", "o.qplan", &["--vendor-gemm", "off"], 0);
    let products = |plan: &str| {
        let (p, _) = exits(dir, &["inspect", plan], 0);
        p.to_string().matches("\"vendor\"").count()
    };
    assert!(products("v.qplan") > 10 && products("o.qplan") == 0);
    // 80 rows are enough for the library.
    write_npy(&dir.join("t.npy"), 2, 40);
    let perplexity = |plan: &str, device: &str| {
        let args = ["eval", plan, "--tokens", "t.npy", "--device", device];
        exits(dir, &args, 0).0["perplexity"].as_f64().unwrap()
    };
    let cpu = perplexity("v.qplan", "cpu");
    for plan in ["v.qplan", "o.qplan"] {
        let sim = perplexity(plan, "sim");
        assert!((sim / cpu - 1.0).abs() < 1e-3, "{plan}: {sim}, cpu {cpu}");
    }
    // Without a GPU section it means nothing.
    let idle = compile("cpu", "c.qplan", &auto, 0);
    assert!(idle["warnings"].to_string().contains("Q0048"), "{idle}");
    let strict = compile("cpu", "c.qplan", &["--vendor-gemm", "auto", "--strict"], 2);
    assert_eq!(strict["error"]["code"], "Q0048", "{strict}");
}
