//! The page is well formed and escapes whatever a model calls its parts.

use super::*;
use crate::evaluate::{Difference, Divergence};
use crate::report::testing::layer;
use crate::report::{Culprits, Diagram, Plots, SearchReport, Shape, TargetReport};
use crate::sensitivity::{OutputReport, Sensitivity};
use qcc_ir::Diagnostic;
use qcc_ir::diag::Class;
use qcc_ir::ledger::{Candidate, Decision, Topic};
use qcc_passes::egraph::Stats;
use std::collections::BTreeMap;
use std::time::Duration;

const HOSTILE: &str = "</title></style></td><script>alert(1)</script>\" onload='x' &amp;<b>";

fn diagram(name: &str) -> Diagram {
    let shape = |kind, reads: &[usize], holds: &[usize]| Shape {
        kind,
        nodes: vec![name.into()],
        gives: vec!["e4m3".into()],
        reads: reads.to_vec(),
        holds: holds.to_vec(),
    };
    Diagram {
        before: vec![shape("rms_norm", &[], &[]), shape("quantize", &[0], &[])],
        after: vec![shape("rms_norm", &[], &[0, 1])],
        times: 4,
    }
}

fn report(name: &str) -> Report {
    let layers = vec![layer(name, 0.75), layer("fc2", 0.25)];
    let target = TargetReport {
        weight_bytes: 100,
        arena_bytes: BTreeMap::from([(name.to_string(), 64)]),
        workspace_bytes: BTreeMap::new(),
        arena: Some("64".into()),
        min_driver: None,
        steps: 3,
        kernels: 1,
        predicted_us: BTreeMap::from([(name.to_string(), 3.5)]),
        unrecorded_us: BTreeMap::from([(name.to_string(), 5.2)]),
    };
    let stats = Stats {
        nodes: 12345,
        ..Stats::default()
    };
    let search = SearchReport::new(&stats, Duration::from_millis(30));
    Report {
        model_hash: name.into(),
        source_bytes: 400,
        options: BTreeMap::from([("exclude".to_string(), name.to_string())]),
        culprits: Culprits::of(&layers),
        layers,
        output: Some(OutputReport {
            samples: 1,
            positions: Some(7),
            divergence: Some(Divergence {
                kl: 0.01,
                kl_p999: 0.1,
                top1: 0.97,
            }),
            outputs: vec![Difference {
                name: name.into(),
                relative_error: 0.1,
                cosine: 0.99,
                top1: 0.9,
                max_abs: 1.0,
            }],
            sensitivity: Some(Sensitivity {
                distance: "kl",
                layers: 2,
                rest_layers: 1,
                rest: 0.001,
                sum: 0.02,
            }),
        }),
        targets: BTreeMap::from([(name.to_string(), target)]),
        auto: None,
        search: BTreeMap::from([("fuse".to_string(), search)]),
        diagram: Some(diagram(name)),
        warnings: vec![Diagnostic::warning(48, Class::Usage, name).at(name)],
    }
}

fn rendered(name: &str) -> String {
    let mut ledger = Ledger::new();
    let mut d = Decision::new(name, Topic::Scheme, name)
        .weight(name)
        .target(name)
        .consider(Candidate::refused(name, name))
        .consider(Candidate::new("float").predicted(name, 1.0));
    d.rules = vec![name.into()];
    d.fused = vec![name.into(), "b".into()];
    ledger.record(d);
    let heading = Heading {
        model: name,
        plan_bytes: Some(200),
    };
    page(heading, &report(name), &ledger)
}

/// The names of the elements in order; every one is closed where it must be.
fn elements(html: &str) -> Vec<String> {
    let (mut open, mut all) = (Vec::new(), Vec::new());
    // A style sheet is no markup.
    let (before, rest) = html.split_once("<style>").unwrap();
    let (_, after) = rest.split_once("</style>").unwrap();
    for part in [before, after] {
        for tag in part.split('<').skip(1) {
            let (tag, _) = tag.split_once('>').expect("a tag ends");
            let name: String = tag
                .chars()
                .take_while(|c| c.is_ascii_alphanumeric() || *c == '/')
                .collect();
            match name.strip_prefix('/') {
                Some(closed) => assert_eq!(open.pop().as_deref(), Some(closed), "{tag}"),
                None => {
                    let void = ["meta", "link", "br", "wbr"].contains(&name.as_str());
                    if !void && !tag.ends_with('/') && !tag.starts_with("!DOCTYPE") {
                        open.push(name.clone());
                    }
                    all.push(name);
                }
            }
        }
    }
    assert!(open.is_empty(), "{open:?} stay open");
    all
}

#[test]
fn names_of_a_model_stay_text() {
    let (plain, hostile) = (rendered("fc1"), rendered(HOSTILE));
    let count = |html: &str| {
        let all = elements(html);
        let breaks = all.iter().filter(|n| *n == "wbr").count();
        (
            all.len() - breaks,
            all.iter().filter(|n| *n == "td").count(),
        )
    };
    assert_eq!(count(&plain), count(&hostile));
    assert!(!hostile.contains("<script") && !hostile.contains("\" onload"));
    assert!(hostile.contains("&lt;script&gt;alert(1)"));
}

#[test]
fn the_page_needs_nothing_else() {
    let html = rendered("fc1");
    for word in ["http:", "https:", "src=", "<script", "@import", "url("] {
        assert!(!html.contains(word), "{word}");
    }
}

#[test]
fn it_says_what_the_report_holds() {
    let html = rendered("fc1");
    for text in [
        "0.01000",
        "97.0 %",
        "--override",
        "2 × int8-static",
        "75.0 %",
        "1 further layers have 5.00 %",
        "class=\"mark\"",
        "64 B at fc1",
        "3.5 µs at fc1",
        "5.2 µs at fc1",
        "12345",
        "occurs 4 times: 2 ops before fusion, 1 kernels after",
        ">quantize</text>",
        "→ e4m3",
        "Q0048",
        "rather than float (1.00 µs at fc1)",
        "100 B",
        "9.00",
        "int8-static, in the plan",
    ] {
        assert!(html.contains(text), "{text}\n{html}");
    }
}

#[test]
fn without_data_it_says_so() {
    let mut r = report("fc1");
    for l in &mut r.layers {
        (l.sqnr_db, l.relative_mse, l.kl_share) = (None, None, None);
        l.plots = Plots::default();
    }
    r.output = None;
    r.culprits = Culprits::of(&r.layers);
    let heading = Heading {
        model: "m",
        plan_bytes: None,
    };
    let html = page(heading, &r, &Ledger::new());
    elements(&html);
    assert!(html.contains("when there is calibration data") && !html.contains("--override"));
}
