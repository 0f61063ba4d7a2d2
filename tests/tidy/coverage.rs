//! Laws about tests: what must be refused has a test that sees it refused.

use crate::{files_ending, none, read, root};
use qcc_ir::expr::{BinaryFn, UnaryFn};
use qcc_passes::registry;

/// Every `// error:` code of the filetests.
fn expected_errors() -> Vec<String> {
    let mut codes = Vec::new();
    for p in files_ending("tests/filetests", ".qir") {
        let text = read(&p);
        for part in text.split("// error:").skip(1) {
            codes.extend(part.split_whitespace().next().map(String::from));
        }
    }
    codes
}

#[test]
fn invariants_of_the_graph_have_filetests() {
    let rules: Vec<u32> = read("ir/src/graph/verify.rs")
        .lines()
        .filter_map(|l| l.strip_prefix("//! | G")?.split(' ').next()?.parse().ok())
        .collect();
    assert!(
        rules.len() >= 10,
        "the table of the verifier is found: {rules:?}"
    );
    let seen = expected_errors();
    let missing = rules
        .iter()
        .filter(|g| !seen.contains(&format!("Q{:04}", 210 + *g)));
    none(
        "each invariant of the verifier has a filetest that breaks it",
        missing
            .map(|g| format!("G{g:02}: no `// error: Q{:04}`", 210 + g))
            .collect(),
    );
}

#[test]
fn errors_of_the_parser_have_filetests() {
    let text = read("ir/src/text/cursor.rs");
    let codes: Vec<&str> = text
        .lines()
        .filter_map(|l| {
            l.trim()
                .strip_prefix("pub(crate) const ")?
                .split(": u16 = ")
                .nth(1)
        })
        .map(|n| n.trim_end_matches(';'))
        .collect();
    assert!(
        codes.len() >= 10,
        "the codes of the parser are found: {codes:?}"
    );
    let seen = expected_errors();
    let missing = codes.iter().filter(|c| !seen.contains(&format!("Q0{c}")));
    none(
        "each error of the parser has a filetest",
        missing.map(|c| format!("Q0{c}")).collect(),
    );
}

#[test]
fn rules_of_the_kernel_verifier_have_tests() {
    let rules: Vec<String> = read("ir/src/kernel/verify.rs")
        .lines()
        .filter_map(|l| {
            l.strip_prefix("//! | K")?
                .split(' ')
                .next()
                .map(|n| format!("K{n}"))
        })
        .collect();
    assert!(
        !rules.is_empty(),
        "the table of the kernel verifier is found"
    );
    let mut tests: String = files_ending("ir/tests", ".rs").iter().map(read).collect();
    tests.extend(files_ending("tests", ".rs").iter().map(read));
    let missing = rules.into_iter().filter(|r| {
        // `breaks("K05", …)`, or a test named `k05_types_exist`.
        !tests.contains(&format!("\"{r}\""))
            && !tests.contains(&format!("fn {}_", r.to_lowercase()))
    });
    none(
        "each rule of the kernel verifier has a test that breaks it",
        missing.collect(),
    );
}

#[test]
fn ops_have_filetests() {
    let mut names: Vec<String> = Vec::new();
    names.extend(UnaryFn::ALL.iter().map(|f| f.name().to_string()));
    names.extend(BinaryFn::ALL.iter().map(|f| f.name().to_string()));
    // The names in `OpKind::name`.
    let text = read("ir/src/graph/op.rs");
    let after = text.split("fn name(&self)").nth(1).unwrap_or_default();
    let body = after.split("\n    }\n").next().unwrap_or_default();
    names.extend(body.split('"').skip(1).step_by(2).map(String::from));
    assert!(
        names.len() > 60,
        "the names of the ops are found: {names:?}"
    );

    let texts =
        |folder: &str| -> String { files_ending(folder, ".qir").iter().map(read).collect() };
    let run = texts("tests/filetests/run");
    let cat = texts("tests/filetests/cat");
    let used = |text: &str, name: &str| {
        text.contains(&format!(" = {name}\n")) || text.contains(&format!(" = {name} "))
    };
    let mut missing = Vec::new();
    for n in names {
        if !used(&run, &n) {
            missing.push(format!("filetests/run: {n}"));
        }
        let function = UnaryFn::from_name(&n).is_some() || BinaryFn::from_name(&n).is_some();
        if !function && !used(&cat, &n) {
            missing.push(format!("filetests/cat: {n}"));
        }
    }
    none(
        "each op has a filetest that prints it and one that runs it",
        missing,
    );
}

#[test]
fn passes_have_filetests() {
    let mut missing = Vec::new();
    for pass in registry::names() {
        for case in ["basic", "negative"] {
            let path = format!("tests/filetests/opt/{pass}/{case}.qir");
            if !root().join(&path).is_file() {
                missing.push(path);
            }
        }
    }
    none(
        "each pass has a filetest where it acts and one where it declines",
        missing,
    );
}
