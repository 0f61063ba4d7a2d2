//! The page of `--emit report`: one HTML file that needs nothing else, no script, no network.
//!
//! It shows what [`Report`] and the ledger hold. Every text that comes from the model is escaped
//! ([`text`]); plots are inline SVG ([`plot`]).

mod decisions;
mod diagram;
mod layers;
mod plot;
mod summary;
mod text;

use super::Report;
use qcc_ir::ledger::Ledger;
use text::escape;

/// What the page says about the run.
#[derive(Clone, Copy, Debug)]
pub struct Heading<'a> {
    /// The model, as the user knows it.
    pub model: &'a str,
    /// Bytes of the plan, if it was written.
    pub plan_bytes: Option<u64>,
}

const STYLE: &str = include_str!("style.css");

/// The page.
pub fn page(heading: Heading<'_>, report: &Report, ledger: &Ledger) -> String {
    let model = escape(heading.model);
    let version = env!("CARGO_PKG_VERSION");
    let mut body = summary::section(heading, report);
    body += &summary::bytes(report);
    body += &layers::errors(report);
    body += &layers::worst(report);
    body += &layers::table(report);
    body += &report
        .diagram
        .as_ref()
        .map_or(String::new(), diagram::section);
    body += &decisions::section(ledger);
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <link rel=\"icon\" href=\"data:,\">\n\
         <title>{model} · qcc report</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
         <header><p class=\"brand\">qcc report</p><h1>{model}</h1></header>\n<main>\n{body}</main>\n\
         <footer>Made by qcc {version}. Model {}.</footer>\n</body>\n</html>\n",
        escape(&report.model_hash)
    )
}

/// A section under a heading, with a sentence that says how to read it.
fn section(id: &str, title: &str, lead: &str, content: &str) -> String {
    let lead = match lead.is_empty() {
        true => String::new(),
        false => format!("<p class=\"lead\">{lead}</p>\n"),
    };
    format!("<section id=\"{id}\">\n<h2>{title}</h2>\n{lead}{content}</section>\n")
}

/// A table that scrolls by itself where it is wider than the page. Cells are HTML.
fn rows(head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let cells = |tag: &str, list: &mut dyn Iterator<Item = &str>| -> String {
        list.map(|c| format!("<{tag}>{c}</{tag}>")).collect()
    };
    let mut t = String::from("<div class=\"scroll\"><table>\n<thead><tr>");
    t += &cells("th", &mut head.iter().copied());
    t += "</tr></thead>\n<tbody>\n";
    for r in rows {
        t += &format!(
            "<tr>{}</tr>\n",
            cells("td", &mut r.iter().map(String::as_str))
        );
    }
    t + "</tbody></table></div>\n"
}

#[cfg(test)]
mod tests;
