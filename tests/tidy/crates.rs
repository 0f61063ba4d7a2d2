//! Laws about crates: who depends on whom, and under which licences.

use crate::{none, root};
use serde_json::Value;
use std::process::Command;

/// Our crates and which of ours each may use.
const MAY_USE: &[(&str, &[&str])] = &[
    ("qcc-ir", &[]),
    ("ptxsim", &[]),
    ("qcc-passes", &["qcc-ir"]),
    ("qcc-cpu", &["qcc-ir"]),
    ("qcc-codegen", &["qcc-ir", "qcc-cpu"]),
    ("qcc-runtime", &["qcc-ir", "qcc-cpu", "ptxsim"]),
    (
        "qcc",
        &[
            "qcc-ir",
            "qcc-passes",
            "qcc-cpu",
            "qcc-codegen",
            "qcc-runtime",
        ],
    ),
    ("qcc-examples", &["qcc", "qcc-runtime"]),
    (
        "qcc-tests",
        &[
            "qcc-ir",
            "qcc-passes",
            "qcc-cpu",
            "qcc-codegen",
            "qcc-runtime",
            "qcc",
            "ptxsim",
        ],
    ),
    // Its cuBLASLt multiplies by the definitions of the formats.
    ("fakecuda", &["ptxsim", "qcc-ir"]),
    (
        "qcc-gpu-suite",
        &[
            "qcc-ir",
            "qcc-passes",
            "qcc-codegen",
            "qcc-runtime",
            "ptxsim",
            "fakecuda",
        ],
    ),
];

/// Dependencies that one crate hides from all others.
const HIDDEN: &[(&str, &[&str])] = &[
    ("egg", &["qcc-passes"]),
    ("petgraph", &["qcc-passes", "qcc-codegen"]),
    ("cranelift-codegen", &["qcc-cpu"]),
    ("cranelift-frontend", &["qcc-cpu"]),
    ("cranelift-jit", &["qcc-cpu"]),
    ("cranelift-module", &["qcc-cpu"]),
    ("cranelift-native", &["qcc-cpu"]),
    ("gemm", &["qcc-cpu"]),
    ("pulp", &["qcc-passes"]),
    ("cudarc", &["qcc-runtime"]),
    ("inkwell", &["qcc-codegen"]),
    ("prost", &["qcc"]),
];

/// Licences under which anybody may use, change and ship the code.
const LICENCES: &[&str] = &[
    "MIT",
    "MIT-0",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "Unicode-3.0",
    "CC0-1.0",
    "0BSD",
    "Unlicense",
    "BSL-1.0",
];

fn metadata(args: &[&str]) -> Result<Value, String> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let out = Command::new(cargo)
        .args(["metadata", "--offline", "--format-version", "1"])
        .args(args)
        .current_dir(root())
        .output()
        .expect("cargo can be run");
    if !out.status.success() {
        return Err(String::from_utf8_lossy(&out.stderr).into_owned());
    }
    serde_json::from_slice(&out.stdout).map_err(|e| e.to_string())
}

fn text<'v>(v: &'v Value, key: &str) -> &'v str {
    v[key].as_str().unwrap_or_default()
}

fn packages(m: &Value) -> &[Value] {
    m["packages"].as_array().map_or(&[], Vec::as_slice)
}

/// The crates of the workspace and what each depends on: (name, [(dependency, kind)]).
fn workspace() -> Vec<(String, Vec<(String, String)>)> {
    let m = metadata(&["--no-deps"]).unwrap_or_else(|e| panic!("{e}"));
    let dependency = |d: &Value| (text(d, "name").to_string(), text(d, "kind").to_string());
    let of = |p: &Value| {
        let all = p["dependencies"].as_array().map_or(&[][..], Vec::as_slice);
        (
            text(p, "name").to_string(),
            all.iter().map(dependency).collect(),
        )
    };
    packages(&m).iter().map(of).collect()
}

#[test]
fn crates_depend_downwards() {
    let mut broken = Vec::new();
    for (name, deps) in workspace() {
        let Some((_, may)) = MAY_USE.iter().find(|(n, _)| *n == name) else {
            broken.push(format!("{name}: not in the table of this test"));
            continue;
        };
        for (d, kind) in &deps {
            let ours = MAY_USE.iter().any(|(n, _)| n == d);
            // The simulator and the driver over it judge kernels in tests.
            let judge = kind == "dev" && ["ptxsim", "fakecuda"].contains(&d.as_str());
            if ours && !judge && !may.contains(&d.as_str()) {
                broken.push(format!("{name} uses {d} {kind}"));
            }
        }
    }
    none("crates depend only on what lies below them", broken);
}

#[test]
fn dependencies_stay_in_their_crate() {
    let mut broken = Vec::new();
    for (name, deps) in workspace() {
        // A test may look at anything.
        for (d, _) in deps.iter().filter(|(_, kind)| kind != "dev") {
            let home = HIDDEN.iter().find(|(n, _)| n == d);
            if home.is_some_and(|(_, homes)| !homes.contains(&name.as_str())) {
                broken.push(format!("{name} uses {d}"));
            }
        }
    }
    none("a dependency with a home is used nowhere else", broken);
}

/// Whether an SPDX expression leaves a way with allowed licences only.
///
/// `OR` offers, `AND` demands and binds more tightly; the old `/` means `OR`.
fn allowed(expression: &str) -> bool {
    let spaced = expression
        .replace('/', " OR ")
        .replace('(', " ( ")
        .replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    either(&mut rest) == Some(true) && rest.is_empty()
}

fn take(rest: &mut &[&str], word: &str) -> bool {
    let hit = rest.first() == Some(&word);
    if hit {
        *rest = &rest[1..];
    }
    hit
}

/// `None` where the expression is malformed.
fn either(rest: &mut &[&str]) -> Option<bool> {
    let mut ok = both(rest)?;
    while take(rest, "OR") {
        ok |= both(rest)?;
    }
    Some(ok)
}

fn both(rest: &mut &[&str]) -> Option<bool> {
    let mut ok = licence(rest)?;
    while take(rest, "AND") {
        ok &= licence(rest)?;
    }
    Some(ok)
}

fn licence(rest: &mut &[&str]) -> Option<bool> {
    if take(rest, "(") {
        let ok = either(rest)?;
        return take(rest, ")").then_some(ok);
    }
    let (name, after) = rest.split_first()?;
    *rest = after;
    if !take(rest, "WITH") {
        return Some(LICENCES.contains(name));
    }
    let (exception, after) = rest.split_first()?;
    *rest = after;
    Some(LICENCES.contains(&format!("{name} WITH {exception}").as_str()))
}

#[test]
fn licence_expressions_are_understood() {
    for good in [
        "MIT",
        "MIT/Apache-2.0",
        "GPL-3.0 OR MIT",
        "(MIT OR Apache-2.0) AND Unicode-3.0",
        "Apache-2.0 WITH LLVM-exception OR GPL-2.0",
    ] {
        assert!(allowed(good), "{good}");
    }
    for bad in [
        "",
        "GPL-3.0",
        "MIT AND GPL-3.0",
        "MIT OR",
        "(MIT",
        "MIT WITH GCC-exception",
        "MIT Apache-2.0",
    ] {
        assert!(!allowed(bad), "{bad}");
    }
}

/// Every crate that is built or tested; those of other platforms too where they are at hand.
fn everything() -> Value {
    match metadata(&[]) {
        Ok(m) => m,
        Err(_) => {
            let host = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
            metadata(&["--filter-platform", &host]).unwrap_or_else(|e| panic!("{e}"))
        }
    }
}

#[test]
fn licences_are_permissive() {
    let m = everything();
    let all = packages(&m);
    assert!(all.len() > MAY_USE.len(), "the dependencies are listed");
    let broken = all.iter().filter(|p| !allowed(text(p, "license")));
    let list = broken.map(|p| {
        format!(
            "{} {}: {}",
            text(p, "name"),
            text(p, "version"),
            p["license"]
        )
    });
    none("every crate has a permissive licence", list.collect());
}
