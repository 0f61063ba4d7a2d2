//! What was made, how large it is and how good.

use super::plot::{Bar, lines};
use super::text::{bytes as size, escape, name, percent};
use super::{Heading, rows, section as wrap};
use crate::report::{Notice, Report};
use std::collections::BTreeMap;

/// The figures that matter most, warnings, targets and options.
pub(super) fn section(h: Heading<'_>, r: &Report) -> String {
    let from = format!("from {}", size(r.source_bytes));
    let mut tiles = vec![
        match h.plan_bytes {
            Some(n) => ("plan", size(n), from),
            None => ("weights", size(weight_bytes(r)), from),
        },
        ("layers", r.layers.len().to_string(), counts(r)),
    ];
    if let Some(o) = &r.output {
        match &o.divergence {
            Some(d) => {
                let n = o.positions.unwrap_or(0);
                let of = format!("nats, mean of {n} positions");
                tiles.push(("KL(float ‖ quantized)", format!("{:.5}", d.kl), of));
                let same = "same most likely token".to_string();
                tiles.push(("top-1", percent(d.top1), same));
            }
            None => {
                for d in &o.outputs {
                    let cosine = format!("cosine {:.6}, top-1 {}", d.cosine, percent(d.top1));
                    let error = percent(d.relative_error);
                    tiles.push(("relative error", error, format!("{}: {cosine}", d.name)));
                }
            }
        }
    }
    let tile = |(label, value, note): &(&str, String, String)| {
        format!(
            "<div class=\"tile\"><p>{}</p><p class=\"big\">{}</p><p>{}</p></div>\n",
            escape(label),
            escape(value),
            escape(note)
        )
    };
    let mut t = format!(
        "<div class=\"tiles\">\n{}</div>\n",
        tiles.iter().map(tile).collect::<String>()
    );
    t += &culprits(r);
    t += &warnings(r);
    t += &targets(r);
    t += &searches(r);
    let option = |(k, v): (&String, &String)| vec![name(k), name(v)];
    t += "<h3>Options</h3>\n";
    t += &rows(&["option", "value"], r.options.iter().map(option));
    wrap("summary", "Summary", "", &t)
}

/// `16 × int8-dynamic, 1 × float`
pub(super) fn counts(r: &Report) -> String {
    let mut n: BTreeMap<&str, usize> = BTreeMap::new();
    for l in &r.layers {
        *n.entry(&l.scheme).or_default() += 1;
    }
    let parts: Vec<String> = n.iter().map(|(s, n)| format!("{n} × {s}")).collect();
    parts.join(", ")
}

fn culprits(r: &Report) -> String {
    let Some(c) = &r.culprits else {
        return String::new();
    };
    let share = match c.share {
        Some(s) => format!(", {} of the error of the outputs,", percent(s)),
        None => String::new(),
    };
    format!(
        "<p>To keep the {} worst{share} float, add</p>\n<pre>{}</pre>\n",
        c.layers.len(),
        escape(&c.flag())
    )
}

fn warnings(r: &Report) -> String {
    let item = |d| {
        let n = Notice::of(d);
        let place = n.node.map_or(String::new(), |p| format!(" {}", name(p)));
        format!("<li><b>{}</b> {}{place}</li>\n", n.code, escape(n.message))
    };
    let items: String = r.warnings.iter().map(item).collect();
    match items.is_empty() {
        true => String::new(),
        false => format!("<h3>Warnings</h3>\n<ul class=\"warnings\">\n{items}</ul>\n"),
    }
}

fn targets(r: &Report) -> String {
    let at = |map: &BTreeMap<String, String>| {
        let line = |(b, v): (&String, &String)| format!("{} at {}", escape(v), escape(b));
        map.iter().map(line).collect::<Vec<_>>().join("<br>")
    };
    let row = |(target, t): (&String, &crate::TargetReport)| {
        let arena = t.arena_bytes.iter().map(|(b, n)| (b.clone(), size(*n)));
        let micros = |map: &BTreeMap<String, f64>| {
            let line = |(b, us): (&String, &f64)| (b.clone(), format!("{us:.1} µs"));
            map.iter().map(line).collect()
        };
        vec![
            name(target),
            t.steps.to_string(),
            t.kernels.to_string(),
            size(t.weight_bytes),
            at(&arena.collect()),
            at(&micros(&t.predicted_us)),
            at(&micros(&t.unrecorded_us)),
        ]
    };
    let head = [
        "target",
        "steps",
        "kernels",
        "weights",
        "arena",
        "predicted time",
        "without a graph",
    ];
    let note = "<p class=\"lead\">Times are those of the cost model, not measured: of a recorded run \
                that is replayed, and of kernels that are launched one by one.</p>\n";
    format!(
        "<h3>Targets</h3>\n{}{note}",
        rows(&head, r.targets.iter().map(row))
    )
}

fn searches(r: &Report) -> String {
    let row = |(stage, s): (&String, &crate::SearchReport)| {
        let counts = [s.regions, s.distinct, s.cut, s.rounds, s.nodes, s.classes];
        let mut cells = vec![name(stage)];
        cells.extend(counts.iter().map(ToString::to_string));
        cells.push(size(s.peak_bytes as u64));
        cells.push(format!("{:.2} s", s.seconds));
        cells
    };
    let head = [
        "search",
        "regions",
        "e-graphs",
        "cut off",
        "rounds",
        "e-nodes",
        "e-classes",
        "largest",
        "time",
    ];
    let table = rows(&head, r.search.iter().map(row));
    format!("<h3>Equality saturation</h3>\n{table}")
}

fn weight_bytes(r: &Report) -> u64 {
    let all = r.targets.values().map(|t| t.weight_bytes);
    all.max().unwrap_or(0)
}

/// Bytes of the weights by scheme, before and after.
pub(super) fn bytes(r: &Report) -> String {
    // Layers, elements, bytes before and after by scheme.
    let mut by: BTreeMap<&str, (usize, u64, u64, u64)> = BTreeMap::new();
    for l in &r.layers {
        let e = by.entry(&l.scheme).or_default();
        *e = (e.0 + 1, e.1 + l.k * l.n, e.2 + l.float_bytes, e.3 + l.bytes);
    }
    let layers: u64 = by.values().map(|e| e.3).sum();
    let other = weight_bytes(r).saturating_sub(layers);
    let most = by
        .values()
        .map(|e| e.2.max(e.3))
        .max()
        .unwrap_or(0)
        .max(other);
    let part = |n: u64| n as f64 / most.max(1) as f64;
    let mut bars = Vec::new();
    for (scheme, (n, _, before, after)) in &by {
        bars.push(Bar {
            label: format!("{n} × {scheme}, in the model"),
            size: part(*before),
            value: size(*before),
            class: "before",
        });
        bars.push(Bar {
            label: format!("{n} × {scheme}, in the plan"),
            size: part(*after),
            value: size(*after),
            class: "after",
        });
    }
    bars.push(Bar {
        label: "all other weights, in the plan".into(),
        size: part(other),
        value: size(other),
        class: "after",
    });
    let row = |(scheme, (n, elements, before, after)): (&&str, &(usize, u64, u64, u64))| {
        let bits = *after as f64 * 8.0 / (*elements).max(1) as f64;
        vec![
            name(scheme),
            n.to_string(),
            format!("{bits:.2}"),
            size(*before),
            size(*after),
        ]
    };
    let head = [
        "scheme",
        "layers",
        "bits per weight",
        "in the model",
        "in the plan",
    ];
    let content = lines(&bars) + &rows(&head, by.iter().map(row));
    let lead = "Weights of linear layers and convolutions, with scales and zero points. Other \
                weights are embeddings, norms and biases.";
    wrap("bytes", "Bytes by scheme", lead, &content)
}
