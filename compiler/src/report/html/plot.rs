//! Plots: SVG that stretches to the width it is given, with labels outside, so that text keeps its
//! size on any screen.

use super::text::escape;
use qcc_passes::ValueHistogram;

/// A bar: what it is called, how long it is, and the class of its colour.
pub(super) struct Bar {
    pub(super) label: String,
    /// From 0 to 1.
    pub(super) size: f64,
    /// The number at its end.
    pub(super) value: String,
    pub(super) class: &'static str,
}

/// Columns side by side, with the labels of the vertical axis at its ends.
pub(super) fn columns(bars: &[Bar], axis: (&str, &str), caption: &str) -> String {
    // Few bars do not become walls.
    let width = bars.len().max(12) * 10;
    let mut svg = String::new();
    for (i, b) in bars.iter().enumerate() {
        let height = (b.size.clamp(0.0, 1.0) * 100.0).max(0.5);
        svg += &format!(
            "<rect class=\"{}\" x=\"{}\" y=\"{:.2}\" width=\"8\" height=\"{height:.2}\">\
             <title>{}: {}</title></rect>",
            b.class,
            i * 10 + 1,
            100.0 - height,
            escape(&b.label),
            escape(&b.value),
        );
    }
    format!(
        "<figure><div class=\"plot\"><div class=\"axis\"><span>{}</span><span>{}</span></div>\
         <svg viewBox=\"0 0 {width} 100\" preserveAspectRatio=\"none\" role=\"img\" \
         aria-label=\"{}\">{svg}</svg></div><figcaption>{}</figcaption></figure>\n",
        escape(axis.0),
        escape(axis.1),
        escape(caption),
        escape(caption),
    )
}

/// Rows under each other, each with its label and number.
pub(super) fn lines(bars: &[Bar]) -> String {
    let line = |b: &Bar| {
        format!(
            "<li><span class=\"label\">{}</span><span class=\"track\"><span class=\"fill {}\" \
             style=\"width:{:.2}%\"></span></span><span class=\"value\">{}</span></li>\n",
            escape(&b.label),
            b.class,
            b.size.clamp(0.0, 1.0) * 100.0,
            escape(&b.value),
        )
    };
    format!(
        "<ul class=\"bars\">\n{}</ul>\n",
        bars.iter().map(line).collect::<String>()
    )
}

/// A distribution; the height is the logarithm of the count. `range` is marked where it lies
/// within.
pub(super) fn histogram(h: &ValueHistogram, range: Option<(f64, f64)>, caption: &str) -> String {
    let most = h.counts.iter().copied().max().unwrap_or(0).max(1);
    let height = |n: u64| libm::log1p(n as f64) / libm::log1p(most as f64) * 100.0;
    let mut svg = String::new();
    for (i, n) in h.counts.iter().enumerate().filter(|(_, n)| **n > 0) {
        let y = height(*n).max(1.0);
        svg += &format!(
            "<rect class=\"hist\" x=\"{}\" y=\"{:.2}\" width=\"9.4\" height=\"{y:.2}\"/>",
            i * 10,
            100.0 - y
        );
    }
    let width = h.counts.len() * 10;
    let span = (h.max - h.min).max(f64::MIN_POSITIVE);
    let inside = |v: &f64| *v > h.min && *v < h.max;
    let marks = range.map_or(Vec::new(), |(lo, hi)| vec![lo, hi]);
    for v in marks.into_iter().filter(inside) {
        let x = (v - h.min) / span * width as f64;
        svg += &format!("<line class=\"mark\" x1=\"{x:.2}\" x2=\"{x:.2}\" y1=\"0\" y2=\"100\"/>");
    }
    format!(
        "<figure class=\"small\"><svg viewBox=\"0 0 {width} 100\" preserveAspectRatio=\"none\" \
         role=\"img\" aria-label=\"{0}\">{svg}</svg><div class=\"ends\"><span>{1}</span>\
         <span>{2}</span></div><figcaption>{0}</figcaption></figure>\n",
        escape(caption),
        short(h.min),
        short(h.max),
    )
}

/// A number in three digits.
pub(super) fn short(v: f64) -> String {
    match v.abs() {
        0.0 => "0".into(),
        a if (0.01..1000.0).contains(&a) => format!("{v:.3}"),
        _ => format!("{v:.2e}"),
    }
}
