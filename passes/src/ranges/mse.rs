//! The range of least squared error.
//!
//! ```text
//! T = argmin Σ_k count_k · (c_k − dequantize(quantize(c_k, s)))²      s = T / largest code
//! ```
//!
//! `c_k` are the centres of the histogram's bins of magnitudes, and T is tried at every eighth
//! edge from the 128th on, and at the largest magnitude: at 1/16 of the range and in steps of
//! 1/256 or less. The first of equal errors wins. This is the search of ModelOpt's histogram
//! calibrator in larger steps; quantization is that of the format itself, so it serves float
//! formats too.

use crate::statistics::Histogram;
use qcc_ir::diag::{Class, Diagnostic, Result};
use qcc_ir::format::{QuantFormat, scale_symmetric};

/// The first edge that is tried.
const FIRST: usize = 128;
/// Edges from one that is tried to the next.
const STRIDE: usize = 8;

/// Where the range ends.
///
/// # Errors
/// `Q0520` when a scale cannot be stored.
pub(super) fn threshold(h: &Histogram, absmax: f32, format: QuantFormat) -> Result<f64> {
    let counts = h.magnitudes();
    let bins: Vec<(f32, f64)> = counts
        .iter()
        .enumerate()
        .filter(|(_, c)| **c > 0)
        .map(|(k, c)| (((k as f64 + 0.5) * h.width()) as f32, *c as f64))
        .collect();
    let edges = (FIRST..counts.len()).step_by(STRIDE);
    let tried = edges.map(|i| i as f64 * h.width());
    let (mut best, mut least) = (f64::from(absmax), f64::INFINITY);
    for t in tried.chain([f64::from(absmax)]) {
        let e = error(&bins, t as f32, format)?;
        if e < least {
            (best, least) = (t, e);
        }
    }
    Ok(best)
}

/// `Σ count · (c − ĉ)²`
fn error(bins: &[(f32, f64)], t: f32, format: QuantFormat) -> Result<f64> {
    let scale = scale_symmetric(t, format.max())
        .map_err(|e| Diagnostic::error(520, Class::Input, e.to_string()))?;
    let of = |(c, count): &(f32, f64)| {
        let d =
            f64::from(*c) - f64::from(format.dequantize(format.quantize(*c, scale, 0), scale, 0));
        count * d * d
    };
    Ok(bins.iter().map(of).sum())
}
