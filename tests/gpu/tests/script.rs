//! `run.sh` from end to end, with programs in the place of what a machine with a GPU has.

use std::path::{Path, PathBuf};
use std::process::Command;

fn here() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// A folder for stubs and results.
struct Machine(tempfile::TempDir);

impl Machine {
    fn new() -> Machine {
        Machine(tempfile::tempdir().expect("a folder can be made"))
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Installs a shell script as a command.
    fn install(&self, name: &str, script: &str) {
        use std::os::unix::fs::PermissionsExt;
        let path = self.at(name);
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("it can be written");
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(&path, mode).expect("it can be made a command");
    }

    /// Runs the script; gives its exit code and the log.
    fn run(&self, suite: &Path, environment: &[(&str, &str)]) -> (Option<i32>, String) {
        let path = std::env::var("PATH").unwrap_or_default();
        let out = Command::new("bash")
            .arg(here().join("run.sh"))
            .arg(self.at("out"))
            .env("PATH", format!("{}:{path}", self.0.path().display()))
            .env("QCC_GPU_SUITE", suite)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .envs(environment.iter().copied())
            .output()
            .expect("bash runs");
        let log = std::fs::read_to_string(self.at("out/log.txt")).unwrap_or_default();
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        (out.status.code(), log + &said)
    }

    fn read(&self, name: &str) -> String {
        let path = self.at("out").join(name);
        std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{name}: {e}"))
    }
}

/// The suite on the simulated driver, an imitation of PyTorch, and tools that answer at once.
#[test]
fn everything_that_a_machine_can_have_is_used() {
    let m = Machine::new();
    let driver = fakecuda::locate::library().unwrap_or_else(|e| panic!("{e}"));
    std::fs::copy(driver, m.at("libcuda.so")).expect("the driver can be copied");
    std::fs::hard_link(m.at("libcuda.so"), m.at("libcublasLt.so")).expect("a link can be made");
    m.install("nvidia-smi", "echo a GPU");
    m.install(
        "compute-sanitizer",
        "echo ========= ERROR SUMMARY: 0 errors",
    );
    m.install("ncu", "echo '\"ID\"'; exit 3");
    // The suite itself is tested beside this; here a few of its items stand for all.
    let real = env!("CARGO_BIN_EXE_qcc-gpu-suite");
    m.install(
        "suite",
        &format!(
            "shift; while [ $# -gt 0 ]; do case $1 in --out) out=$2;; esac; shift; done\n\
             for item in 'layers f16 128 2 quick' 'vendor f16 128 2 quick'; do\n\
             echo \"{{\\\"stage\\\": 5, \\\"item\\\": \\\"$item\\\", \\\"answer\\\": $({real} $item)}}\"\n\
             done >$out/results.jsonl\necho done"
        ),
    );
    let fake = here().join("tests/fake_torch");
    let folder = m.0.path().display().to_string();
    let environment = [
        ("PYTHONPATH", fake.to_str().expect("a path")),
        ("LD_LIBRARY_PATH", &folder),
    ];
    let (code, log) = m.run(&m.at("suite"), &environment);
    assert_eq!(code, Some(0), "{log}");
    for line in [
        "done",
        "[5] torch f16 4096",
        "[5] torch int8 8192: {1: 'refused: self.size(0)",
        "[6] compute-sanitizer synccheck: ========= ERROR SUMMARY: 0 errors",
        "[6] ncu: FAILED with 3, \"ID\"",
    ] {
        assert!(log.contains(line), "{line}: {log}");
    }
    assert_eq!(m.read("nvidia-smi.txt"), "a GPU\n");
    assert!(m.read("torch.json").contains("fake GPU"));
    let table = m.read("layers.md");
    assert!(table.contains("| f16 | 4096 | 1 |  |  | 6.25 |"), "{table}");
    let results = m.read("results.jsonl");
    assert_eq!(results.matches("us_per_layer").count(), 2, "{results}");
}

/// Without any of it the suite's own results and exit code stay.
#[test]
fn what_is_missing_is_said_and_costs_nothing_else() {
    let m = Machine::new();
    m.install("suite", "echo \"$@\"; exit 5");
    for gone in ["nvidia-smi", "compute-sanitizer", "ncu"] {
        if Command::new(gone).arg("--version").output().is_ok() {
            println!("skipped: this machine has {gone}");
            return;
        }
    }
    let environment = [
        ("QCC_SECONDS", "100"),
        ("QCC_PLANS", "plans"),
        ("QCC_ARGS", "--quick"),
    ];
    let (code, log) = m.run(&m.at("suite"), &environment);
    assert_eq!(code, Some(5), "{log}");
    for line in [
        "[1] nvidia-smi: not here",
        "--seconds 60 --plans plans --quick",
        "[6] compute-sanitizer: not here",
        "[6] ncu: not here",
    ] {
        assert!(log.contains(line), "{line}: {log}");
    }
    assert_eq!(log.matches("not here").count(), 4, "{log}");
    // When the time is over nothing else begins.
    let (_, log) = m.run(&m.at("suite"), &[("QCC_SECONDS", "0")]);
    assert!(log.contains("python3: skipped, no time is left"), "{log}");
    let none = m.run(&m.at("none"), &[]);
    assert_eq!(none.0, Some(2));
}
