//! The CUDA device without a GPU: its real code on a driver that simulates (`tests/fakecuda`).
//!
//! A library is found when a process starts to look for it, so each case is a process of its own
//! whose loader finds the simulated driver first.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The simulated driver, which cargo builds beside the tests.
fn driver() -> PathBuf {
    fakecuda::locate::library().unwrap_or_else(|e| panic!("{e}"))
}

/// A folder in which the driver has the name that is looked for.
struct Loader {
    folder: tempfile::TempDir,
}

impl Loader {
    fn new() -> Loader {
        let bytes = std::fs::read(driver()).expect("the driver can be read");
        Loader::with(&bytes)
    }

    fn with(bytes: &[u8]) -> Loader {
        let folder = tempfile::tempdir().expect("a folder can be made");
        std::fs::write(folder.path().join("libcuda.so"), bytes).expect("it can be written");
        Loader { folder }
    }

    /// The driver, which is cuBLASLt too: one library under two names.
    fn with_cublas() -> Loader {
        let loader = Loader::new();
        let at = |name: &str| loader.folder.path().join(name);
        std::fs::hard_link(at("libcuda.so"), at("libcublasLt.so")).expect("a link can be made");
        loader
    }

    /// Runs the suite's executable with the driver.
    fn run(&self, args: &[&str], environment: &[(&str, &str)]) -> Run {
        let report = self.folder.path().join("report");
        let output = Command::new(env!("CARGO_BIN_EXE_qcc-gpu-suite"))
            .args(args)
            .env("LD_LIBRARY_PATH", self.folder.path())
            .env("FAKECUDA_REPORT", &report)
            .envs(environment.iter().copied())
            .output()
            .expect("the suite can be run");
        Run::new(&output, &report)
    }
}

/// What a process said, and the driver's counts when its context was released.
struct Run {
    code: Option<i32>,
    said: String,
    counts: BTreeMap<String, u64>,
}

impl Run {
    fn new(output: &Output, report: &Path) -> Run {
        let counts = std::fs::read_to_string(report).unwrap_or_default();
        let count = |line: &str| {
            let (name, n) = line.split_once(' ')?;
            Some((name.to_string(), n.parse().ok()?))
        };
        let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
        Run {
            code: output.status.code(),
            said: text(&output.stdout) + &text(&output.stderr),
            counts: counts.lines().filter_map(count).collect(),
        }
    }

    #[track_caller]
    fn assert_passed(&self) {
        assert_eq!(self.code, Some(0), "{}", self.said);
        self.assert_clean();
    }

    /// Nothing is left when the context is released.
    #[track_caller]
    fn assert_clean(&self) {
        assert!(!self.counts.is_empty(), "no report: {}", self.said);
        let left = |(name, n): (&String, &u64)| {
            let open = (name.starts_with("live_") || name == "retained") && *n > 0;
            open.then(|| format!("{name} {n}"))
        };
        let left: Vec<String> = self.counts.iter().filter_map(left).collect();
        assert!(left.is_empty(), "{left:?} after {}", self.said);
    }

    #[track_caller]
    fn assert_error(&self, code: &str, text: &str) {
        assert_eq!(self.code, Some(6), "{}", self.said);
        assert!(
            self.said.contains(code) && self.said.contains(text),
            "{}",
            self.said
        );
    }
}

/// Names of the suite's checks of the device layer.
const CHECKS: &[&str] = &[
    "copies",
    "accounting",
    "launch",
    "shared_memory",
    "graph",
    "failed_capture",
    "arguments",
    "bad_text",
    "clusters",
    "dependent",
    "tensor_map",
];

#[test]
fn the_device_layer_does_what_it_says_and_leaves_nothing() {
    let loader = Loader::new();
    for name in CHECKS {
        let run = loader.run(&["device", name], &[]);
        run.assert_passed();
        assert!(run.said.contains(name), "{}", run.said);
    }
}

#[test]
fn a_kernel_that_fails_is_a_device_error() {
    let run = Loader::new().run(&["device", "wild_write"], &[]);
    assert_eq!(run.code, Some(0), "{}", run.said);
}

#[test]
fn what_a_gpu_lacks_is_skipped_on_it() {
    let run = Loader::new().run(&["device", "tensor_map"], &[("FAKECUDA_SM", "80")]);
    run.assert_passed();
    assert!(run.said.contains("skipped"), "{}", run.said);
}

#[test]
fn the_environment_is_what_the_driver_says() {
    let run = Loader::new().run(&["environment"], &[("FAKECUDA_VERSION", "12040")]);
    run.assert_passed();
    assert!(
        run.said.contains("Simulated GPU") && run.said.contains("\"12.4\""),
        "{}",
        run.said
    );
}

#[test]
fn without_a_usable_driver_there_is_an_error_and_no_panic() {
    let none = Loader::with(b"not a library").run(&["environment"], &[]);
    // A machine with a GPU falls back to its own driver.
    if none.code != Some(0) {
        none.assert_error("Q0740", "no NVIDIA driver");
    }
    let loader = Loader::new();
    let run = |name, value| loader.run(&["environment"], &[(name, value)]);
    run("FAKECUDA_DEVICES", "0").assert_error("Q0741", "no NVIDIA GPU");
    run("FAKECUDA_VERSION", "11080").assert_error("Q0742", "CUDA 11.8");
    run("FAKECUDA_FAIL", "cuInit=803@1").assert_error("Q0743", "cuInit");
    let context = run("FAKECUDA_FAIL", "cuDevicePrimaryCtxRetain=2@1");
    context.assert_error("Q0733", "OUT_OF_MEMORY");
}

#[test]
fn a_driver_that_lacks_a_function_is_too_old() {
    let mut bytes = std::fs::read(driver()).expect("the driver can be read");
    let (name, other) = (b"\0cuTensorMapEncodeTiled\0", b"\0cuTensorMapEncodeOther\0");
    let at: Vec<usize> = bytes
        .windows(name.len())
        .enumerate()
        .filter_map(|(i, w)| (w == name).then_some(i))
        .collect();
    assert!(!at.is_empty(), "the driver has the function");
    for i in at {
        bytes[i..i + name.len()].copy_from_slice(other);
    }
    let run = Loader::with(&bytes).run(&["environment"], &[]);
    run.assert_error("Q0742", "cuTensorMapEncodeTiled");
}

#[test]
fn failures_of_the_driver_are_typed_and_leak_nothing() {
    let loader = Loader::new();
    let run = |check, fail| loader.run(&["device", check], &[("FAKECUDA_FAIL", fail)]);
    let cases = [
        ("launch", "cuMemAlloc_v2=2@1", "Q0733"),
        ("launch", "cuModuleLoadDataEx=222@1", "Q0734"),
        ("launch", "cuLaunchKernelEx=701@1", "Q0734"),
        ("launch", "cuStreamCreate=304@2", "Q0743"),
        ("copies", "cuMemHostAlloc=2@3", "Q0733"),
        ("graph", "cuGraphInstantiateWithFlags=801@1", "Q0743"),
        ("graph", "cuStreamBeginCapture_v2=900@1", "Q0743"),
    ];
    for (check, fail, code) in cases {
        let run = run(check, fail);
        run.assert_error(code, "");
        for kind in [
            "live_streams",
            "live_graphs",
            "live_pinned",
            "live_modules",
            "live_events",
        ] {
            assert_eq!(
                run.counts.get(kind),
                Some(&0),
                "{kind} after {fail}: {}",
                run.said
            );
        }
    }
}

#[test]
fn models_on_the_device_are_models_on_the_processor_and_replays_are_equal() {
    let loader = Loader::new();
    for sm in ["80", "90"] {
        for item in [
            &["chain", "fp8", "128", "2"][..],
            &["chain", "int8", "128", "2"],
            &["chain", "w4", "128", "2"],
            &["block", "gpt2_block"],
        ] {
            let run = loader.run(item, &[("FAKECUDA_SM", sm)]);
            run.assert_passed();
            let answer: serde_json::Value = serde_json::from_str(run.said.lines().next().unwrap())
                .unwrap_or_else(|e| panic!("{e}: {}", run.said));
            assert_eq!(answer["target"], format!("sm_{sm}"), "{}", run.said);
            // A run is a replay: kernels come from graphs alone.
            assert!(run.counts["cuGraphLaunch"] >= 8, "{:?}", run.counts);
            assert!(run.counts["kernels"] >= 16, "{:?}", run.counts);
        }
    }
}

#[test]
fn a_session_that_fails_says_why_and_frees_all() {
    let loader = Loader::new();
    let cases = [
        ("cuMemAlloc_v2=2@4", "Q0733"),
        ("cuGraphLaunch=719@2", "Q0732"),
        ("cuStreamSynchronize=700@4", "Q0732"),
        ("cuModuleLoadDataEx=218@1", "Q0734"),
        ("cuLaunchKernelEx=1@2", "Q0743"),
    ];
    for (fail, code) in cases {
        let run = loader.run(&["chain", "int8", "128", "2"], &[("FAKECUDA_FAIL", fail)]);
        run.assert_error(code, "");
        run.assert_clean();
    }
    let small = [("FAKECUDA_MEMORY", "20000")];
    let run = loader.run(&["chain", "int8", "128", "2"], &small);
    run.assert_error("Q0733", "20000");
    run.assert_clean();
}

#[test]
fn an_old_gpu_is_told_which_targets_there_are() {
    let run = Loader::new().run(&["chain", "f16", "128", "1"], &[("FAKECUDA_SM", "75")]);
    run.assert_error("older than every target", "");
}

#[test]
fn without_cublas_its_products_are_refused() {
    let run = Loader::new().run(&["vendor", "f16", "128", "1"], &[]);
    // Where the library is, it fails on a driver that only simulates.
    run.assert_error("Q0744", "cuBLASLt");
}

#[test]
fn products_of_cublas_are_those_of_the_processor() {
    // With the library, and without it: then our kernels take all rows.
    let run = Loader::with_cublas().run(&["block", "products"], &[]);
    run.assert_passed();
    // Four layers, in two runs at the one size that has enough rows.
    assert_eq!(run.counts["products"], 8, "{}", run.said);
    let run = Loader::new().run(&["block", "products"], &[]);
    run.assert_passed();
    assert_eq!(run.counts["products"], 0, "{}", run.said);
    // FP8 products came with Ada.
    let older = [("FAKECUDA_SM", "80")];
    let run = Loader::with_cublas().run(&["block", "products"], &older);
    run.assert_passed();
    assert_eq!(run.counts["products"], 4, "{}", run.said);
}

#[test]
fn every_proposal_of_cublas_is_taken_in_its_turn() {
    let loader = Loader::with_cublas();
    for kind in ["f16", "fp8", "int8"] {
        let run = loader.run(&["vendor", kind, "64", "2"], &[]);
        run.assert_passed();
        // Two proposals with a workspace of their own, for each number of rows.
        assert!(run.counts["products"] >= 20, "{}", run.said);
    }
}

#[test]
fn what_cublas_refuses_is_typed_and_leaks_nothing() {
    let loader = Loader::with_cublas();
    let run = |words: &[&str], fail: &str| loader.run(words, &[("FAKECUDA_FAIL", fail)]);
    // 24 is no multiple of 16, which FP8 asks for.
    run(&["vendor", "fp8", "24", "1"], "").assert_error("Q0744", "MatmulAlgoGetHeuristic");
    for (function, status, text) in [
        ("cublasLtCreate", 1, "NOT_INITIALIZED"),
        ("cublasLtMatmulDescCreate", 3, "ALLOC_FAILED"),
        ("cublasLtMatmulDescSetAttribute", 7, "INVALID_VALUE"),
        ("cublasLtMatrixLayoutCreate", 3, "ALLOC_FAILED"),
        ("cublasLtMatmulPreferenceCreate", 3, "ALLOC_FAILED"),
        ("cublasLtMatmulPreferenceSetAttribute", 7, "INVALID_VALUE"),
        ("cublasLtMatmulAlgoGetHeuristic", 15, "NOT_SUPPORTED"),
        ("cublasLtMatmul", 13, "EXECUTION_FAILED"),
    ] {
        let failed = run(
            &["vendor", "f16", "64", "1"],
            &format!("{function}={status}@1"),
        );
        failed.assert_error("Q0744", text);
        failed.assert_error("Q0744", function);
        failed.assert_clean();
    }
}

/// The suite as on a GPU, with small sizes: every instruction table, model, read and gap.
#[test]
fn the_whole_suite_runs_on_the_simulated_driver() {
    let loader = Loader::with_cublas();
    let out = tempfile::tempdir().expect("a folder can be made");
    let folder = out.path().display().to_string();
    // One plan file to compare, and one that is no plan.
    let plans = tempfile::tempdir().expect("a folder can be made");
    let plan = plans.path().join("products.qplan").display().to_string();
    loader.run(&["save", "products", "80", &plan], &[]);
    std::fs::write(plans.path().join("torn.qplan"), b"torn").expect("it can be written");
    let given = plans.path().display().to_string();
    let run = loader.run(
        &["all", "--quick", "--out", &folder, "--plans", &given],
        &[],
    );
    let bad = |l: &&str| l.contains("FAILED") || l.contains("DIFFERS") || l.contains("no time");
    let bad: Vec<&str> = run.said.lines().filter(bad).collect();
    assert!(
        matches!(bad[..], [one] if one.contains("torn.qplan")),
        "{bad:#?}\n{}",
        run.said
    );
    assert_eq!(run.code, Some(5), "{}", run.said);
    assert!(
        run.said.contains("products.qplan: relative error"),
        "{}",
        run.said
    );
    let read = |name: &str| {
        let path = out.path().join(name);
        std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{name}: {e}"))
    };
    assert!(read("predictions.json").contains("H200"));
    let results = read("results.jsonl");
    let answers: Vec<serde_json::Value> = results
        .lines()
        .map(|l| serde_json::from_str(l).expect("a line is JSON"))
        .collect();
    for stage in 1..=5 {
        assert!(answers.iter().any(|a| a["stage"] == stage), "stage {stage}");
    }
    assert!(
        read("report.md").contains("| 2 | table"),
        "the report has the tables"
    );
    assert!(
        out.path().join("tables/prmt.b32.bin").is_file(),
        "answers are kept"
    );
}
