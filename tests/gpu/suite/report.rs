//! Results for people: a line for each as it comes, and a table of all at the end.

use serde_json::Value;
use std::fmt::Write;

/// Whether a result is as it should be; what was skipped is.
pub(crate) fn passed(result: &Value) -> bool {
    let answer = &result["answer"];
    answer.get("error").is_none() && answer["differences"].as_u64().unwrap_or(0) == 0
}

fn verdict(result: &Value) -> String {
    let answer = &result["answer"];
    let text = |key: &str| answer[key].as_str().map(String::from);
    if let Some(why) = text("skipped") {
        return format!("skipped: {why}");
    }
    if let Some(e) = text("error") {
        let first = e.lines().next().unwrap_or_default().to_string();
        return format!("FAILED: {first}");
    }
    if let Some(n) = answer["differences"].as_u64() {
        let of = answer["answers"].as_u64().unwrap_or(0);
        let model = text("accumulator").map_or(String::new(), |m| format!(", accumulates as {m}"));
        return match n {
            0 => format!("{of} answers equal{model}"),
            n => format!("DIFFERS in {n} of {of}{model}"),
        };
    }
    if let Some(e) = answer["worst_relative_error"].as_f64() {
        return format!("relative error {e:.1e}");
    }
    "ok".into()
}

/// One line on the terminal.
pub(crate) fn line(result: &Value) -> String {
    let item = result["item"].as_str().unwrap_or_default();
    format!("[{}] {item}: {}", result["stage"], verdict(result))
}

/// The whole report.
pub(crate) fn markdown(results: &[Value]) -> String {
    let mut t = String::from("# GPU suite\n\n| stage | item | result |\n|---|---|---|\n");
    for r in results {
        let item = r["item"].as_str().unwrap_or_default().replace('|', "/");
        let verdict = verdict(r).replace('|', "/");
        let _ = writeln!(t, "| {} | {item} | {verdict} |", r["stage"]);
    }
    t += "\n## Reads\n\n| item | bytes | in flight per block | blocks | us | GB/s |\n|---|---|---|---|---|---|\n";
    for r in results {
        for row in r["answer"]["rows"].as_array().into_iter().flatten() {
            if row.get("gb_per_s").is_some() {
                let _ = writeln!(
                    t,
                    "| {} | {} | {} | {} | {:.2} | {:.0} |",
                    r["item"].as_str().unwrap_or_default(),
                    row["bytes"],
                    row["in_flight_per_block"],
                    row["blocks"],
                    row["us"].as_f64().unwrap_or(f64::NAN),
                    row["gb_per_s"].as_f64().unwrap_or(f64::NAN),
                );
            }
        }
    }
    t += "\n## Launches\n\n| kernel | graph | us |\n|---|---|---|\n";
    for r in results.iter().filter(|r| r["item"] == "gaps") {
        for row in r["answer"]["rows"].as_array().into_iter().flatten() {
            let us = row["us"].as_f64().unwrap_or(f64::NAN);
            let _ = writeln!(t, "| {} | {} | {us:.2} |", row["kernel"], row["graph"]);
        }
    }
    t += "\n## Layers\n\n| item | rows | us per layer |\n|---|---|---|\n";
    for r in results {
        for (rows, us) in r["answer"]["us_per_layer"]
            .as_object()
            .into_iter()
            .flatten()
        {
            let (item, us) = (r["item"].as_str().unwrap_or_default(), us.as_f64());
            let _ = writeln!(t, "| {item} | {rows} | {:.2} |", us.unwrap_or(f64::NAN));
        }
    }
    t
}
