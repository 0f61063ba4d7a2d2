//! Runs every file below `filetests` and compares what it gives with the snapshot beside it.
//!
//! `INSTA_GLOB_FILTER='run/*' cargo test -p qcc-tests --test filetests` selects some;
//! `cargo insta review` accepts changes.

use std::path::Path;

#[test]
fn filetests() {
    let mut failed = Vec::new();
    insta::glob!("filetests/**/*.[qk]ir", |path| {
        match qcc_tests::filetest::run_file(path) {
            Ok(text) => snapshot(path, &text),
            Err(e) => failed.push(format!("{}:\n{e}", path.display())),
        }
    });
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
}

/// `filetests/run/softmax.qir` is judged by `filetests/run/snapshots/softmax.snap`.
fn snapshot(path: &Path, text: &str) {
    let mut settings = insta::Settings::clone_current();
    let folder = path.parent().expect("a file has a folder");
    settings.set_snapshot_path(folder.join("snapshots"));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.remove_snapshot_suffix();
    let name = path
        .file_stem()
        .expect("a file has a name")
        .to_string_lossy();
    settings.bind(|| insta::assert_snapshot!(name.as_ref(), text));
}
