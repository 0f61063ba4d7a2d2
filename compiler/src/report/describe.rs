//! A decision of the ledger in words, for `qcc explain` and the page.

use qcc_ir::ledger::{Candidate, Decision};

/// Names that a long list shows at each end.
const SHOWN: usize = 2;

/// A node, or some of many that are one op: `a, b, …, y, z (26 nodes)`.
pub fn site(d: &Decision) -> String {
    let names: Vec<&str> = d.site.split(", ").collect();
    some_of(&names)
}

/// The first and the last names of a list, and how many there are. The last is what a composite op
/// is about.
fn some_of<S: AsRef<str>>(names: &[S]) -> String {
    let join = |names: &[S]| -> String {
        let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
        names.join(", ")
    };
    let n = names.len();
    if n <= 2 * SHOWN + 2 {
        return join(names);
    }
    let (first, last) = (join(&names[..SHOWN]), join(&names[n - SHOWN..]));
    format!("{first}, …, {last} ({n} nodes)")
}

/// `scheme (fc.weight) on sm_80`
pub fn topic(d: &Decision) -> String {
    let topic = serde_json::to_value(d.topic).ok();
    let word = topic.as_ref().and_then(|t| t.as_str());
    let mut t = word.unwrap_or("decision").to_string();
    if let Some(w) = &d.weight {
        t += &format!(" ({w})");
    }
    if let Some(x) = &d.target {
        t += &format!(" on {x}");
    }
    t
}

/// What the chosen candidate costs, every other candidate with what it costs or why it is ruled
/// out, the rules that led there, and what is computed together; a line each.
pub fn reasons(d: &Decision) -> Vec<String> {
    let won = |c: &&Candidate| c.candidate == d.chosen && c.refused_by.is_none();
    let mut lines = Vec::new();
    let cost = d.considered.iter().find(won).map(figures);
    lines.extend(cost.filter(|c| !c.is_empty()).map(|c| format!("costs {c}")));
    for c in d.considered.iter().filter(|c| !won(c)) {
        let figures = figures(c);
        let figures = match figures.is_empty() {
            true => figures,
            false => format!(" ({figures})"),
        };
        lines.push(match &c.refused_by {
            Some(why) => format!("not {}{figures}: {why}", c.candidate),
            None => format!("rather than {}{figures}", c.candidate),
        });
    }
    if !d.rules.is_empty() {
        lines.push(format!("by the rules {}", d.rules.join(", ")));
    }
    if d.fused.len() > 1 {
        lines.push(format!("computes {}", some_of(&d.fused)));
    }
    lines
}

/// `3.10 µs at n=1, 9.00 µs at n=16, error 1.2e-4`
fn figures(c: &Candidate) -> String {
    let times = c
        .predicted_us
        .iter()
        .map(|(bucket, us)| match bucket.as_str() {
            "any" => format!("{us:.2} µs"),
            bucket => format!("{us:.2} µs at {bucket}"),
        });
    let error = c.error.map(|e| format!("error {e:.1e}"));
    times.chain(error).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use qcc_ir::ledger::Topic;

    #[test]
    fn a_decision_reads_as_sentences() {
        let mut d = Decision::new("fc", Topic::Scheme, "int8")
            .weight("fc.w")
            .target("sm_80")
            .consider(Candidate::refused(
                "fp8",
                "no kernel: sm_80 has no fp8 units",
            ))
            .consider(Candidate::new("int8").predicted("n=1", 2.5).error(1e-4))
            .consider(Candidate::new("float").predicted("any", 4.0));
        d.fused = vec!["fc".into(), "add".into()];
        assert_eq!(topic(&d), "scheme (fc.w) on sm_80");
        let expected = [
            "costs 2.50 µs at n=1, error 1.0e-4",
            "not fp8: no kernel: sm_80 has no fp8 units",
            "rather than float (4.00 µs)",
            "computes fc, add",
        ];
        assert_eq!(reasons(&d), expected);
        d.site = "a, b, c, d, e, f, g".into();
        assert_eq!(site(&d), "a, b, …, f, g (7 nodes)");
    }
}
