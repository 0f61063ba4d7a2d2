//! Laws about files of any kind: what no text may say, and snapshots.

use crate::{files_ending, files_in, none, read, root};
use std::path::Path;

/// Endings of files that people read.
const TEXT: &[&str] = &[
    ".rs",
    ".toml",
    ".md",
    ".qir",
    ".kir",
    ".snap",
    ".py",
    ".sh",
    ".yml",
    ".yaml",
    ".json",
    ".ptx",
    ".txt",
    ".h",
    ".c",
    "run",
    ".gitignore",
];

/// Words that belong to one machine or one registry, not to the project. Written in two parts,
/// so that this list does not find itself.
const FORBIDDEN: &[(&str, &str)] = &[
    ("/work", "/"),
    ("/roo", "t/"),
    ("/hom", "e/"),
    ("/tmp/", "qcc"),
    ("../sha", "red"),
    ("crates", ".io"),
    ("pypi", ".org"),
    ("pythonhos", "ted"),
    ("anthro", "pic"),
    ("clau", "de"),
    ("chat", "gpt"),
    ("sub", "agent"),
];

#[test]
fn texts_stand_alone() {
    let mut broken = Vec::new();
    for p in files_in("") {
        let name = p.to_string_lossy();
        // The lock file names the registry of every crate.
        if name == "Cargo.lock" || !TEXT.iter().any(|e| name.ends_with(e)) {
            continue;
        }
        for (i, line) in read(&p).lines().enumerate() {
            let lower = line.to_lowercase();
            for (a, b) in FORBIDDEN {
                let word = format!("{a}{b}");
                if lower.contains(&word) {
                    broken.push(format!("{name}:{}: {word}", i + 1));
                }
            }
        }
    }
    none(
        "no file names a machine, a registry or a tool of the workplace",
        broken,
    );
}

#[test]
fn snapshots_are_accepted_and_have_sources() {
    let pending = files_ending("", ".snap.new");
    let list = pending.iter().map(|p| p.display().to_string());
    none("pending snapshots are reviewed, not kept", list.collect());

    let mut broken = Vec::new();
    for p in files_ending("", ".snap") {
        let text = read(&p);
        let header = text.split("\n---\n").next().unwrap_or_default();
        let field = |key: &str| {
            let mut lines = header.lines().filter_map(|l| l.strip_prefix(key));
            lines.next().map(|v| v.trim().trim_matches('"').to_string())
        };
        for path in [field("source:"), field("input_file:")]
            .into_iter()
            .flatten()
        {
            if !root().join(&path).is_file() {
                broken.push(format!("{}: {path} does not exist", p.display()));
            }
        }
        if field("source:").is_none() {
            broken.push(format!("{}: no source", p.display()));
        }
    }
    none("a snapshot has the test that it belongs to", broken);
}

#[test]
fn filetests_have_snapshots() {
    let mut broken = Vec::new();
    let mut files = files_ending("tests/filetests", ".qir");
    files.extend(files_ending("tests/filetests", ".kir"));
    assert!(!files.is_empty(), "there are filetests");
    for p in files {
        let stem = p.file_stem().unwrap_or_default().to_string_lossy();
        let folder = p.parent().unwrap_or(Path::new(""));
        let snap = folder.join("snapshots").join(format!("{stem}.snap"));
        if !root().join(&snap).is_file() {
            broken.push(format!("{}: no {}", p.display(), snap.display()));
        }
    }
    none("a filetest has a snapshot", broken);
}
