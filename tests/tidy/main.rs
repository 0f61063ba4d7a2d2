//! The laws of the project that a program can check (ARCHITECTURE.md, "Laws").
//!
//! Each test reads the files of the repository and lists everything that breaks its law.

mod coverage;
mod crates;
mod files;
mod rust_source;
mod sources;

use std::path::{Path, PathBuf};

/// The repository.
fn root() -> &'static Path {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("tests/ lies in the repository")
}

/// Every file below `folder` that belongs to the project, in order. Relative to the repository.
fn files_in(folder: &str) -> Vec<PathBuf> {
    let mut out = Vec::new();
    walk(&root().join(folder), &mut out);
    out.sort();
    out
}

/// As [`files_in`] for the names that end so.
fn files_ending(folder: &str, end: &str) -> Vec<PathBuf> {
    let mut files = files_in(folder);
    files.retain(|f| f.to_string_lossy().ends_with(end));
    files
}

fn walk(folder: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("the folder can be read") {
        let path = entry.expect("the folder can be read").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        // Build outputs and what git keeps for itself.
        if matches!(&*name, "target" | ".git" | "tools") {
            continue;
        }
        if path.is_dir() {
            walk(&path, out);
        } else {
            let relative = path.strip_prefix(root()).expect("below the repository");
            out.push(relative.to_path_buf());
        }
    }
}

/// The text of a file of the repository.
fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Fails with the list of what breaks a law.
#[track_caller]
fn none(law: &str, broken: Vec<String>) {
    assert!(
        broken.is_empty(),
        "{law}; {} places:\n{}",
        broken.len(),
        broken.join("\n")
    );
}
