//! The ledger: what was chosen, what else was considered, and why.

use super::section as wrap;
use super::text::{escape, name};
use crate::report::describe;
use qcc_ir::ledger::{Decision, Ledger};

/// All decisions, those on one site together.
pub(super) fn section(ledger: &Ledger) -> String {
    let mut t = String::new();
    let mut rest = ledger.decisions();
    while let Some(first) = rest.first() {
        let same = rest.iter().take_while(|d| d.site == first.site).count();
        let (here, after) = rest.split_at(same);
        t += &site(here);
        rest = after;
    }
    let lead = "For each node: what was chosen, what it was chosen over with predicted times and \
                errors, and the constraint that ruled a candidate out.";
    wrap("ledger", "Decisions", lead, &t)
}

fn site(decisions: &[Decision]) -> String {
    let Some(first) = decisions.first() else {
        return String::new();
    };
    let chosen: Vec<String> = decisions.iter().map(|d| escape(&d.chosen)).collect();
    let mut t = format!(
        "<details><summary>{} <span>{}</span></summary>\n",
        name(&describe::site(first)),
        chosen.join(" · ")
    );
    for d in decisions {
        t += &format!(
            "<p><b>{}</b>: {}</p>\n<ul>\n",
            escape(&describe::topic(d)),
            escape(&d.chosen)
        );
        for line in describe::reasons(d) {
            t += &format!("<li>{}</li>\n", escape(&line));
        }
        t += "</ul>\n";
    }
    t + "</details>\n"
}
