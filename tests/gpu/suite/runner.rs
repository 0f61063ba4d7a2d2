//! Runs all items, each in a process of its own, and writes every answer at once.

use serde_json::{Value, json};
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use crate::{
    CHAINS, QUICK_CHAINS, ROWS, SIZES, USAGE, device, models, predict, report, speed, tables,
};

/// Seconds for one item.
const ITEM_SECONDS: u64 = 60;

/// What `all` was asked to do.
#[derive(Default)]
pub(crate) struct Options {
    out: PathBuf,
    /// Folder with plans to compare.
    plans: Option<PathBuf>,
    /// Seconds for everything.
    seconds: u64,
    /// Small sizes only, and no times: for a simulated driver.
    quick: bool,
}

impl Options {
    fn parse(args: &[&str]) -> Option<Options> {
        let mut o = Options {
            seconds: 600,
            ..Options::default()
        };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            match *arg {
                "--out" => o.out = args.next()?.into(),
                "--plans" => o.plans = Some(args.next()?.into()),
                "--seconds" => o.seconds = args.next()?.parse().ok()?,
                "--quick" => o.quick = true,
                _ => return None,
            }
        }
        (!o.out.as_os_str().is_empty()).then_some(o)
    }
}

/// Stage and arguments of every item, in order.
pub(crate) fn items(o: &Options) -> Vec<(u32, Vec<String>)> {
    let mut out = Vec::new();
    let mut add = |stage, words: &[&str]| {
        out.push((
            stage,
            words.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ));
    };
    add(1, &["environment"]);
    device::CHECKS.iter().for_each(|c| add(1, &["device", c.0]));
    let keep = o.out.join("tables").display().to_string();
    for t in tables::all() {
        add(2, &["table", &t.name, &keep]);
    }
    // The simulated driver runs one of the two large blocks.
    let blocks = models::BLOCKS.iter().map(|b| b.0);
    blocks
        .filter(|b| !o.quick || *b != "gpt2_block")
        .for_each(|b| add(3, &["block", b]));
    models::SCHEMES
        .iter()
        .for_each(|s| add(3, &["chain", s, "256", "3"]));
    for path in plans(o) {
        add(3, &["plan", &path.display().to_string()]);
    }
    for m in speed::MECHANISMS {
        match o.quick {
            true => add(4, &["read", m.0, "quick"]),
            false => add(4, &["read", m.0]),
        }
    }
    add(4, &["gaps"]);
    let (chains, quick) = match o.quick {
        true => (QUICK_CHAINS, &["quick"][..]),
        false => (CHAINS, &[][..]),
    };
    for (scheme, k, layers) in chains {
        let (k, layers) = (k.to_string(), layers.to_string());
        add(5, &[&["layers", scheme, &k, &layers], quick].concat());
    }
    for kind in ["f16", "fp8", "int8"] {
        for (_, k, layers) in chains.iter().filter(|c| c.0 == kind) {
            let (k, layers) = (k.to_string(), layers.to_string());
            add(5, &[&["vendor", kind, &k, &layers], quick].concat());
        }
    }
    out
}

fn plans(o: &Options) -> Vec<PathBuf> {
    let Some(folder) = &o.plans else {
        return Vec::new();
    };
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut plans: Vec<PathBuf> = files
        .map(|f| f.path())
        .filter(|p| p.extension().is_some_and(|e| e == "qplan"))
        .collect();
    plans.sort();
    plans
}

/// `all`: the whole suite.
pub(crate) fn run(args: &[&str]) -> ExitCode {
    let Some(options) = Options::parse(args) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    match everything(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(5),
        Err(e) => {
            eprintln!("{e}");
            ExitCode::from(6)
        }
    }
}

/// Whether every item passed.
fn everything(o: &Options) -> Result<bool, String> {
    let at = |name: &str| o.out.join(name);
    let failed = |path: &Path, e: std::io::Error| format!("{}: {e}", path.display());
    std::fs::create_dir_all(at("tables")).map_err(|e| failed(&o.out, e))?;
    let path = at("predictions.json");
    let predictions = predict::all(SIZES, CHAINS, ROWS);
    std::fs::write(&path, format!("{predictions:#}\n")).map_err(|e| failed(&path, e))?;
    let path = at("results.jsonl");
    let mut log = File::create(&path).map_err(|e| failed(&path, e))?;
    let start = Instant::now();
    let mut results = Vec::new();
    for (stage, words) in items(o) {
        let left = o.seconds.saturating_sub(start.elapsed().as_secs());
        let answer = match left {
            0 => json!({ "skipped": "no time is left" }),
            left => lacking(ask(&words, Duration::from_secs(left.min(ITEM_SECONDS)))?),
        };
        let result = json!({ "stage": stage, "item": words.join(" "), "answer": answer });
        println!("{}", report::line(&result));
        writeln!(log, "{result}")
            .and_then(|()| log.sync_data())
            .map_err(|e| failed(&path, e))?;
        let hopeless = words == ["environment"] && answer.get("error").is_some();
        results.push(result);
        if hopeless {
            break;
        }
    }
    let path = at("report.md");
    std::fs::write(&path, report::markdown(&results)).map_err(|e| failed(&path, e))?;
    Ok(results.iter().all(report::passed))
}

/// A library that is not installed is nothing to fail for.
fn lacking(answer: Value) -> Value {
    let error = answer["error"].as_str().unwrap_or_default();
    match error.contains("libcublasLt cannot be loaded") {
        true => json!({ "skipped": "there is no libcublasLt" }),
        false => answer,
    }
}

/// Asks one question in a process of its own, which is killed when its time is over.
fn ask(words: &[String], limit: Duration) -> Result<Value, String> {
    let me = std::env::current_exe().map_err(|e| e.to_string())?;
    let mut child = Command::new(me)
        .args(words)
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .map_err(|e| e.to_string())?;
    // The answer is read as it comes, so that a long one cannot fill the pipe.
    let mut pipe = child.stdout.take().ok_or("a process without output")?;
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        let _ = pipe.read_to_string(&mut text);
        text
    });
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().map_err(|e| e.to_string())? {
            break Some(status);
        }
        if start.elapsed() > limit {
            let _ = child.kill();
            let _ = child.wait();
            break None;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let text = reader.join().unwrap_or_default();
    let Some(status) = status else {
        return Ok(json!({ "error": format!("no answer after {} s", limit.as_secs()) }));
    };
    let answer = text
        .lines()
        .last()
        .and_then(|l| serde_json::from_str(l).ok());
    Ok(answer.unwrap_or_else(|| json!({ "error": format!("the process ended with {status}") })))
}
