//! Errors by layer, the worst layers, and all layers.

use super::plot::{Bar, columns, histogram};
use super::text::{bytes, escape, known, name, percent};
use super::{rows, section};
use crate::report::culprits::ranked;
use crate::report::{LayerReport, Report};

/// Layers that are shown with their distributions.
const WORST: usize = 5;
/// Decibels below which a plot's axis does not begin.
const FLOOR_DB: f64 = 10.0;

/// Error of each layer in execution order.
pub(super) fn errors(r: &Report) -> String {
    let lead = "Layers in the order of execution. Noise is that of the layer alone, on the float \
                model's own input: higher bars are worse. Hover over a bar for its name.";
    let plots = noise(r) + &shares(r);
    if plots.is_empty() {
        let none = "<p>Errors are measured when there is calibration data.</p>\n";
        return section("errors", "Error by layer", "", none);
    }
    section("errors", "Error by layer", lead, &plots)
}

fn noise(r: &Report) -> String {
    let db: Vec<(&LayerReport, f64)> = r
        .layers
        .iter()
        .filter_map(|l| Some((l, l.sqnr_db?)))
        .collect();
    let Some(best) = db.iter().map(|d| d.1).reduce(f64::max) else {
        return String::new();
    };
    let worst = db
        .iter()
        .map(|d| d.1)
        .fold(best, f64::min)
        .min(best - FLOOR_DB);
    let (low, high) = (best.ceil() + 1.0, worst.floor());
    let bar = |(l, db): &(&LayerReport, f64)| Bar {
        label: format!("{}, {}", l.name, l.scheme),
        size: (low - db) / (low - high),
        value: format!("{db:.1} dB"),
        class: if l.share().is_some_and(|s| s > 0.1) {
            "bad"
        } else {
            "after"
        },
    };
    let bars: Vec<Bar> = db.iter().map(bar).collect();
    let axis = (format!("{high:.0} dB"), format!("{low:.0} dB"));
    columns(
        &bars,
        (&axis.0, &axis.1),
        "Signal to quantization noise of each layer's output",
    )
}

fn shares(r: &Report) -> String {
    let known: Vec<(&LayerReport, f64)> = r
        .layers
        .iter()
        .filter_map(|l| Some((l, l.share()?)))
        .collect();
    let Some(most) = known
        .iter()
        .map(|d| d.1)
        .reduce(f64::max)
        .filter(|m| *m > 0.0)
    else {
        return String::new();
    };
    let bar = |(l, share): &(&LayerReport, f64)| Bar {
        label: format!("{}, {}", l.name, l.scheme),
        size: share / most,
        value: percent(*share),
        class: if *share > 0.1 { "bad" } else { "after" },
    };
    let bars: Vec<Bar> = known.iter().map(bar).collect();
    let sensitivity = r.output.as_ref().and_then(|o| o.sensitivity.as_ref());
    let what = match sensitivity.map(|s| s.distance) {
        Some("kl") => "Share of the output's KL divergence, each layer quantized alone",
        _ => "Share of the outputs' squared error, each layer quantized alone",
    };
    let mut caption = what.to_string();
    if let Some(s) = sensitivity.filter(|s| s.rest_layers > 0) {
        let share = percent(s.rest / s.sum.max(f64::MIN_POSITIVE));
        caption += &format!("; {} further layers have {share} together", s.rest_layers);
    }
    columns(&bars, (&percent(most), "0 %"), &caption)
}

/// The worst layers with the distributions of their weights and inputs.
pub(super) fn worst(r: &Report) -> String {
    let ranked = ranked(&r.layers);
    if ranked.is_empty() {
        return String::new();
    }
    let cards: String = ranked.iter().take(WORST).map(|l| card(l)).collect();
    let lead = "Heights are logarithms of counts. A red line is the end of a static range: what \
                lies beyond is clipped.";
    section("worst", "Worst layers", lead, &cards)
}

fn card(l: &LayerReport) -> String {
    let mut facts = vec![format!("{} × {}", l.n, l.k)];
    let mut add = |v: Option<f64>, show: &dyn Fn(f64) -> String| facts.extend(v.map(show));
    add(l.share(), &|s| {
        format!("{} of the outputs’ error", percent(s))
    });
    add(l.sqnr_db, &|d| format!("{d:.1} dB"));
    add(l.cosine, &|c| format!("cosine {c:.6}"));
    add(l.outlier_channels.map(|n| n as f64), &|n| {
        format!("{n:.0} outlier channels")
    });
    add(l.clipped_inputs, &|s| {
        format!("{} of inputs clipped", percent(s))
    });
    add(l.clipped_weights, &|s| {
        format!("{} of weights clipped", percent(s))
    });
    let weights = l
        .plots
        .weights
        .as_ref()
        .map(|h| histogram(h, None, "Weight"));
    let range = l.plots.input_range;
    let inputs = l.plots.inputs.as_ref();
    let inputs = inputs.map(|h| histogram(h, range, "Input on calibration data"));
    format!(
        "<article><h3>{}</h3><p>{}, {}</p>\n<div class=\"pair\">{}{}</div></article>\n",
        name(&l.name),
        name(&l.scheme),
        escape(&facts.join(", ")),
        weights.unwrap_or_default(),
        inputs.unwrap_or_default(),
    )
}

/// Every layer.
pub(super) fn table(r: &Report) -> String {
    let head = [
        "layer",
        "scheme",
        "n × k",
        "bits",
        "bytes",
        "share",
        "SQNR dB",
        "rel. MSE",
        "cosine",
        "outliers",
        "inputs clipped",
        "weights clipped",
    ];
    let row = |l: &LayerReport| {
        let scheme = match &l.fallback {
            Some(why) => format!("{}<br><small>{}</small>", name(&l.scheme), escape(why)),
            None => name(&l.scheme),
        };
        vec![
            name(&l.name),
            scheme,
            format!("{} × {}", l.n, l.k),
            format!("{:.2}", l.bits),
            bytes(l.bytes),
            known(l.share(), percent),
            known(l.sqnr_db, |v| format!("{v:.1}")),
            known(l.relative_mse, |v| format!("{v:.1e}")),
            known(l.cosine, |v| format!("{v:.6}")),
            known(l.outlier_channels.map(|n| n as f64), |v| format!("{v:.0}")),
            known(l.clipped_inputs, percent),
            known(l.clipped_weights, percent),
        ]
    };
    let lead = "An outlier is an input channel whose largest magnitude on the calibration data is \
                more than six times that of the median channel.";
    section(
        "layers",
        "All layers",
        lead,
        &rows(&head, r.layers.iter().map(row)),
    )
}
