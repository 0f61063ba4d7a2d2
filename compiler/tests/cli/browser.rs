//! The page in a real browser: headless Chromium parses it, and what it makes of it is read back.
//!
//! Chromium is `QCC_CHROMIUM`, else one found in `PATH`. Where there is none the tests say that they
//! are skipped.

use crate::support::small;
use qcc::data::Dataset;
use qcc::onnx::Model;
use qcc::report::{Heading, page};
use qcc::{Compiled, Compiler, Options, Scheme};
use std::path::{Path, PathBuf};
use std::process::Command;

fn chromium() -> Option<PathBuf> {
    if let Some(given) = std::env::var_os("QCC_CHROMIUM") {
        return Some(given.into());
    }
    let path = std::env::var_os("PATH")?;
    let names = ["chromium", "chromium-browser", "google-chrome"];
    std::env::split_paths(&path)
        .flat_map(|dir| names.map(|n| dir.join(n)))
        .find(|p| p.is_file())
}

/// The document as the browser has it after loading; `None` after saying that the test is
/// skipped.
fn loaded(test: &str, html: &str) -> Option<String> {
    let Some(browser) = chromium() else {
        eprintln!("SKIPPED {test}: no Chromium");
        return None;
    };
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("page.html");
    std::fs::write(&file, html).unwrap();
    let out = Command::new(browser)
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
        ])
        .args(["--no-first-run", "--disable-background-networking"])
        .args(["--disable-component-update", "--disable-sync"])
        .args(["--enable-logging=stderr", "--dump-dom"])
        .arg(format!(
            "--user-data-dir={}",
            dir.path().join("profile").display()
        ))
        .arg(format!("file://{}", file.display()))
        .output()
        .expect("Chromium starts");
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{said}");
    let console: Vec<&str> = said.lines().filter(|l| l.contains("CONSOLE")).collect();
    assert!(console.is_empty(), "{console:?}");
    Some(String::from_utf8_lossy(&out.stdout).into_owned())
}

fn compiled() -> Compiled {
    let (model, data) = small();
    let mut options = Options::default();
    options.passes.scheme = Scheme::named("int8-static").unwrap();
    let model = Model::open(Path::new(&model)).unwrap();
    let mut compiler = Compiler::new(options);
    let prepared = compiler.prepare(&model).unwrap();
    let io = qcc::interface(&prepared).unwrap();
    let data = Dataset::open(Path::new(&data), &io).unwrap();
    compiler.complete(prepared, Some(&data)).unwrap()
}

const HEADING: Heading<'_> = Heading {
    model: "llama.onnx",
    plan_bytes: Some(1 << 20),
};

#[test]
fn a_browser_shows_every_part() {
    let c = compiled();
    let html = page(HEADING, &c.report, &c.ledger);
    let Some(dom) = loaded("a_browser_shows_every_part", &html) else {
        return;
    };
    assert!(dom.contains("<title>llama.onnx · qcc report</title>"));
    for id in [
        "summary", "bytes", "errors", "worst", "layers", "graph", "ledger",
    ] {
        assert_eq!(
            dom.matches(&format!("<section id=\"{id}\">")).count(),
            1,
            "{id}"
        );
    }
    assert_eq!(dom.matches("<article>").count(), 5);
    let quantized = c
        .report
        .layers
        .iter()
        .filter(|l| l.share().is_some())
        .count();
    assert_eq!(quantized, 14);
    // Two plots of all layers, and no text was taken for markup or lost.
    assert_eq!(
        dom.matches("<rect class=\"after\"").count() + dom.matches("<rect class=\"bad\"").count(),
        28
    );
    assert_eq!(dom.matches("<tr>").count(), html.matches("<tr>").count());
    assert!(dom.trim_end().ends_with("</html>"));
    // The block of the decoder, every op within a kernel.
    let d = c.report.diagram.as_ref().unwrap();
    let held: usize = d.after.iter().map(|k| k.holds.len()).sum();
    assert!(d.times > 1 && d.after.len() <= 8 && d.before.len() > d.after.len());
    assert_eq!(dom.matches("<rect class=\"kernel\"").count(), d.after.len());
    assert_eq!(
        dom.matches("<rect class=\"op\"").count(),
        d.before.len() + held
    );
}

#[test]
fn hostile_names_do_nothing() {
    let mut c = compiled();
    let name = "</code></summary><script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">";
    c.report.layers[0].name = name.into();
    c.report.options.insert(name.into(), name.into());
    let mut d = c.ledger.decisions()[0].clone();
    d.site = name.into();
    d.chosen = name.into();
    c.ledger.record(d);
    let heading = Heading {
        model: name,
        ..HEADING
    };
    let html = page(heading, &c.report, &c.ledger);
    let Some(dom) = loaded("hostile_names_do_nothing", &html) else {
        return;
    };
    assert!(!dom.contains("<script") && !dom.contains("<img") && !dom.contains("<title>taken"));
    assert!(dom.contains("&lt;script&gt;document.title='taken'"));
}
