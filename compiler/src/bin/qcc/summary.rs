//! What `qcc compile` says when it is done.

use super::choice;
use super::compile::Summary;
use qcc::report::{Culprits, ranked};
use qcc::{LayerReport, OutputReport, Report, SearchReport, TargetReport};

/// Layers that are listed.
const WORST: usize = 5;

/// The summary as text.
pub(crate) fn text_of(s: &Summary<'_>) -> String {
    let r = s.report;
    let mut t = String::new();
    if let (Some(p), Some(bytes)) = (&s.plan, s.bytes) {
        let (bytes, from) = (mib(bytes), mib(r.source_bytes));
        t += &format!("plan      {} ({bytes} from {from})\n", p.display());
    }
    if let Some(p) = &s.page {
        t += &format!("report    {}\n", p.display());
    }
    t += &format!("layers    {}\n", schemes(r));
    t += &r.auto.as_ref().map_or(String::new(), choice::text_of);
    t += &r.targets.iter().map(target).collect::<String>();
    t += &r.search.iter().map(search).collect::<String>();
    t += &r.output.as_ref().map_or(String::new(), output);
    t += &worst(r);
    if let Some(p) = s.compile_peak_bytes {
        t += &format!("memory    {} at most\n", mib(p));
    }
    t + &format!("seconds   {:.1}\n", s.seconds)
}

/// `16 × int8-dynamic, 1 × float`, in the order in which they first occur.
fn schemes(r: &Report) -> String {
    let mut counts: Vec<(&str, usize)> = Vec::new();
    for l in &r.layers {
        match counts.iter_mut().find(|(s, _)| *s == l.scheme) {
            Some((_, n)) => *n += 1,
            None => counts.push((&l.scheme, 1)),
        }
    }
    let counts: Vec<String> = counts.iter().map(|(s, n)| format!("{n} × {s}")).collect();
    counts.join(", ")
}

fn target((name, x): (&String, &TargetReport)) -> String {
    let (steps, kernels, weights) = (x.steps, x.kernels, mib(x.weight_bytes));
    let mut t = format!("target    {name}: {steps} steps, {kernels} kernels, weights {weights}\n");
    for (bucket, us) in &x.predicted_us {
        t += &format!("          {us:.1} µs predicted");
        if let Some(bytes) = x.arena_bytes.get(bucket) {
            t += &format!(", arena {}", mib(*bytes));
        }
        t += &format!(" at {bucket}");
        if let Some(us) = x.unrecorded_us.get(bucket) {
            t += &format!(" ({us:.1} µs without a graph)");
        }
        t.push('\n');
    }
    t
}

/// What the e-graphs of a stage took.
fn search((stage, s): (&String, &SearchReport)) -> String {
    let kib = s.peak_bytes as f64 / 1024.0;
    let (nodes, classes, rounds) = (s.nodes, s.classes, s.rounds);
    let cut = match s.cut {
        0 => String::new(),
        n => format!(", {n} cut off"),
    };
    format!(
        "search    {stage}: {} e-graphs for {} regions{cut}, {rounds} rounds, {nodes} e-nodes in \
         {classes} e-classes, {kib:.0} KiB at most, {:.2} s\n",
        s.distinct, s.regions, s.seconds
    )
}

fn output(o: &OutputReport) -> String {
    if let (Some(d), Some(n)) = (&o.divergence, o.positions) {
        let same = 100.0 * d.top1;
        return format!(
            "output    KL {:.6}, top-1 {same:.1} %, on {n} positions\n",
            d.kl
        );
    }
    let line = |d: &qcc::evaluate::Difference| {
        let (error, cosine) = (d.relative_error, d.cosine);
        format!(
            "output    {}: relative error {error:.2e}, cosine {cosine:.6}\n",
            d.name
        )
    };
    o.outputs.iter().map(line).collect()
}

/// The layers that cost most, and the flag that would keep the worst of them float.
fn worst(r: &Report) -> String {
    let Some(c) = &r.culprits else {
        return String::new();
    };
    let mut t = format!("worst     ({}: {})\n", keep(c), c.flag());
    for l in ranked(&r.layers).into_iter().take(WORST) {
        t += &format!("          {}\n", line(l));
    }
    t
}

fn keep(c: &Culprits) -> String {
    let what = match c.layers.len() {
        1 => "to keep the first float".to_string(),
        n => format!("to keep the first {n} float"),
    };
    match c.share {
        Some(s) => format!("{what}, {:.0} % of the error", 100.0 * s),
        None => what,
    }
}

fn line(l: &LayerReport) -> String {
    let mut t = String::new();
    if let Some(s) = l.share() {
        t += &format!("{:5.1} %  ", 100.0 * s);
    }
    if let Some(db) = l.sqnr_db {
        t += &format!("{db:5.1} dB  ");
    }
    t += &format!("{}  {}", l.name, l.scheme);
    let mut notes = Vec::new();
    if let Some(n) = l.outlier_channels.filter(|n| *n > 0) {
        notes.push(format!("{n} outlier channels"));
    }
    let clipped = [("inputs", l.clipped_inputs), ("weights", l.clipped_weights)];
    for (what, share) in clipped {
        if let Some(s) = share.filter(|s| *s >= 5e-5) {
            notes.push(format!("{:.2} % of {what} clipped", 100.0 * s));
        }
    }
    match notes.is_empty() {
        true => t,
        false => format!("{t}  ({})", notes.join(", ")),
    }
}

fn mib(bytes: u64) -> String {
    format!("{:.2} MiB", bytes as f64 / (1 << 20) as f64)
}
