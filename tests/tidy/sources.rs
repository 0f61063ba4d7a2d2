//! Laws about Rust source.

use crate::rust_source::{RustSource, has_word};
use crate::{files_ending, none, read, root};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// Longest file; longer ones are split by concept.
const MAX_LINES: usize = 600;

/// Crates whose types no public signature may name.
const PRIVATE_CRATES: &[&str] = &[
    "petgraph",
    "egg",
    "cranelift",
    "cranelift_codegen",
    "cranelift_frontend",
    "cranelift_jit",
    "cranelift_module",
    "inkwell",
    "cudarc",
    "prost",
    "half",
    "gemm",
    "rayon",
    "regex",
];

/// Files elsewhere that hold unsafe code, and why they must.
const UNSAFE_ELSEWHERE: &[(&str, &str)] = &[
    (
        "compiler/src/onnx/map.rs",
        "a model is mapped into memory, and a mapping is unsafe to make and to give back",
    ),
    (
        "tests/tests/memory.rs",
        "an allocator that counts what is held is an unsafe trait",
    ),
];

/// Crates that hold unsafe code: devices, code made at run time, and the C interface of a driver.
const UNSAFE_CRATES: &[&str] = &["runtime/", "codegen/cpu/", "tests/fakecuda/"];

/// Every Rust file with its parts.
static SOURCES: LazyLock<Vec<(PathBuf, RustSource)>> = LazyLock::new(|| {
    let parse = |p: PathBuf| {
        let source = RustSource::new(&read(&p));
        (p, source)
    };
    files_ending("", ".rs").into_iter().map(parse).collect()
});

/// Whether a file is a test or an example as a whole.
fn is_test(p: &Path) -> bool {
    p.components()
        .any(|c| c.as_os_str() == "tests" || c.as_os_str() == "examples")
        || is_declared_as_test(p)
}

/// Whether the module above declares the file under `#[cfg(test)]`.
fn is_declared_as_test(p: &Path) -> bool {
    let (Some(folder), Some(name)) = (p.parent(), p.file_stem()) else {
        return false;
    };
    let above = ["mod.rs", "lib.rs", "main.rs"].map(|f| folder.join(f));
    let declared = format!("#[cfg(test)]\nmod {};", name.to_string_lossy());
    above
        .iter()
        .chain([&folder.with_extension("rs")])
        .filter(|f| root().join(f).is_file())
        .any(|f| read(f).contains(&declared))
}

fn place(p: &Path, line: usize) -> String {
    format!("{}:{}", p.display(), line + 1)
}

/// Every line of code outside tests that `bad` names a reason for.
fn lines(bad: impl Fn(&Path, &str) -> bool) -> Vec<String> {
    let mut out = Vec::new();
    for (p, s) in SOURCES.iter().filter(|(p, _)| !is_test(p)) {
        for (i, line) in s.code_lines().filter(|(_, l)| bad(p, l)) {
            out.push(format!("{}: {}", place(p, i), line.trim()));
        }
    }
    out
}

#[test]
fn files_are_short() {
    let long = SOURCES.iter().filter(|(_, s)| s.lines.len() > MAX_LINES);
    let list = long.map(|(p, s)| format!("{}: {}", p.display(), s.lines.len()));
    none("a file has at most 600 lines", list.collect());
}

#[test]
fn modules_say_what_they_are() {
    let bare = SOURCES.iter().filter(|(_, s)| {
        let first = s.lines.iter().map(|l| l.trim());
        // A shebang, an attribute of the crate or a blank line may come before.
        let mut first = first.skip_while(|l| l.is_empty() || l.starts_with("#!["));
        !first.next().is_some_and(|l| l.starts_with("//!"))
    });
    let list = bare.map(|(p, _)| p.display().to_string());
    none("a module begins with `//!`", list.collect());
}

#[test]
fn nothing_is_left_to_do() {
    let words = ["todo!", "unimplemented!", "dbg!"];
    none(
        "what is not built does not exist, and nothing is debugged by printing",
        lines(|_, l| words.iter().any(|w| l.contains(w))),
    );
    let mut skipped = Vec::new();
    for (p, s) in SOURCES.iter() {
        for (i, l) in s.code.lines().enumerate() {
            let attribute = l.trim_start().starts_with("#[");
            let bare = l.contains("ignore") && !l.contains("ignore =");
            if attribute && (bare || l.contains("should_panic")) {
                skipped.push(place(p, i));
            }
        }
    }
    none(
        "a test is ignored only with its reason, and never expected to panic",
        skipped,
    );
}

#[test]
fn ir_knows_no_file_and_no_neighbour() {
    let forbidden = ["onnx", "ptx", "egg"];
    none(
        "`ir` names no ONNX, no PTX and no egg, opens no file and reads no environment",
        lines(|p, l| {
            let io = ["std::fs", "std::net", "std::env", "std::process", "std::io"];
            let lower = l.to_lowercase();
            let names = |w: &str| {
                lower
                    .split(|c: char| !c.is_alphanumeric())
                    .any(|part| part == w)
            };
            p.starts_with("ir/src")
                && (io.iter().any(|w| l.contains(w)) || forbidden.iter().any(|w| names(w)))
        }),
    );
}

#[test]
fn only_the_front_door_prints_and_reads_the_environment() {
    let door = |p: &Path| {
        p.starts_with("compiler/src/cli") || p.components().any(|c| c.as_os_str() == "bin")
    };
    none(
        "libraries print nothing and read no environment",
        lines(|p, l| {
            let words = [
                "println!",
                "eprintln!",
                "print!",
                "eprint!",
                "std::env::",
                "env::var",
            ];
            !door(p) && words.iter().any(|w| l.contains(w))
        }),
    );
}

#[test]
fn unsafe_code_is_where_it_may_be_and_says_why() {
    let mut broken = Vec::new();
    for (p, s) in SOURCES.iter() {
        let may = UNSAFE_CRATES.iter().any(|a| p.starts_with(a))
            || UNSAFE_ELSEWHERE.iter().any(|(f, _)| p == Path::new(f));
        for (i, l) in s
            .code
            .lines()
            .enumerate()
            .filter(|(_, l)| has_word(l, "unsafe"))
        {
            // Lints about unsafe code are not unsafe.
            if l.trim_start().starts_with("#!") {
                continue;
            }
            if !may {
                broken.push(format!("{}: not in this crate", place(p, i)));
            } else if !is_justified(&s.lines, i) {
                broken.push(format!("{}: no SAFETY", place(p, i)));
            }
        }
    }
    none(
        "unsafe code lives in the crates that need it, each with `SAFETY`",
        broken,
    );
}

/// `SAFETY` on the line or one of the three before it, or anywhere in the comment that ends
/// there.
fn is_justified(lines: &[String], at: usize) -> bool {
    let says = |l: &String| l.contains("SAFETY") || l.contains("# Safety");
    let comment = |l: &&String| {
        let t = l.trim_start();
        t.starts_with("//") || t.starts_with("#[")
    };
    lines[at.saturating_sub(3)..=at].iter().any(says)
        || lines[..at].iter().rev().take_while(comment).any(says)
}

#[test]
fn signatures_name_no_dependency() {
    let mut broken = Vec::new();
    for (p, s) in SOURCES.iter().filter(|(p, _)| !is_test(p)) {
        let imported = imports(&s.code);
        for (i, signature) in public_signatures(s) {
            let direct = PRIVATE_CRATES
                .iter()
                .find(|c| signature.contains(&format!("{c}::")));
            let by_use = imported.iter().find(|n| has_word(&signature, n));
            if direct.is_some() || by_use.is_some() {
                let signature: Vec<&str> = signature.split_whitespace().collect();
                broken.push(format!("{}: {}", place(p, i), signature.join(" ")));
            }
        }
    }
    none("no type of a dependency in a public signature", broken);
}

/// Names that a file takes from the crates that must stay private.
fn imports(code: &str) -> Vec<String> {
    let mut names = Vec::new();
    for (at, _) in code.match_indices("use ") {
        let before = code[..at].trim_end_matches(' ');
        if !(before.is_empty() || before.ends_with(['\n', '{', ';', ')', 'b'])) {
            continue;
        }
        let path = code[at + 4..].split(';').next().unwrap_or_default();
        let krate = path.split("::").next().unwrap_or_default().trim();
        if PRIVATE_CRATES.contains(&krate) {
            let words = path[krate.len()..].split(|c: char| !c.is_alphanumeric() && c != '_');
            let types = words.filter(|w| w.starts_with(char::is_uppercase));
            names.extend(types.map(String::from));
        }
    }
    names
}

/// Public items up to their body, with the line each begins on.
fn public_signatures(s: &RustSource) -> Vec<(usize, String)> {
    let mut out = Vec::new();
    let code: Vec<&str> = s.code.lines().collect();
    for (i, line) in s.code_lines() {
        let Some(item) = line.trim_start().strip_prefix("pub ") else {
            continue;
        };
        let word = item.split_whitespace().next().unwrap_or_default();
        // The body of a type is its public fields, which are lines of their own.
        let end: &[char] = match word {
            "use" | "mod" => continue,
            "fn" | "const" | "unsafe" | "async" | "extern" | "trait" => &['{', ';'],
            "struct" | "enum" | "union" => &['{', ';'],
            "type" | "static" => &[';'],
            _ => &[',', '}'],
        };
        let mut text = String::new();
        for l in &code[i..] {
            text.push_str(l);
            text.push('\n');
            if l.contains(end) {
                break;
            }
        }
        let cut = text.find(end).unwrap_or(text.len());
        out.push((i, text[..cut].to_string()));
    }
    out
}

#[test]
fn ptx_is_written_by_the_emitter_alone() {
    let marks = [
        ".reg .",
        ".visible .entry",
        "ld.global",
        "st.global",
        "mma.sync",
        "cvt.rn.",
        ".shared .",
        "wgmma.",
        "cp.async",
        "ldmatrix.",
        "bar.sync",
        "mov.u32",
        "add.s32",
        "setp.",
    ];
    let may = |p: &Path| {
        ["codegen/src/ptx", "runtime/ptxsim", "tests/tidy"]
            .iter()
            .any(|a| p.starts_with(a))
            || is_test(p)
    };
    let mut broken = Vec::new();
    for (p, s) in SOURCES.iter().filter(|(p, _)| !may(p)) {
        for (i, text) in &s.strings {
            let in_test = s.test.get(*i).copied().unwrap_or(false);
            if let Some(m) = marks
                .iter()
                .find(|m| text.contains(**m))
                .filter(|_| !in_test)
            {
                broken.push(format!("{}: `{m}`", place(p, *i)));
            }
        }
    }
    none("PTX comes from the emitter, not from strings", broken);
}

#[test]
fn panics_have_a_reason() {
    none(
        "no `unwrap` outside tests, and `expect` states what holds",
        lines(|_, l| l.contains(".unwrap()") || l.contains("panic!(")),
    );
}
