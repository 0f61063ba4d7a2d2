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

fn qcc(dir: &Path, args: &[&str]) -> Output {
    let mut c = Command::new(env!("CARGO_BIN_EXE_qcc"));
    c.current_dir(dir).args(args).arg("--json");
    c.output().expect("the command starts")
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

/// An int64 matrix as a .npy file.
fn write_npy(path: &Path, rows: usize, columns: usize) {
    let header =
        format!("{{'descr': '<i8', 'fortran_order': False, 'shape': ({rows}, {columns}), }}");
    let mut npy = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
    npy.extend(format!("{header:<117}\n").as_bytes());
    for i in 0..rows * columns {
        npy.extend(((i * 37 + 11) % 500).to_le_bytes());
    }
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
