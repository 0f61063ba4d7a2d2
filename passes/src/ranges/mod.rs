//! Where the range of statically quantized activations ends.
//!
//! ```text
//! scale = T / largest code        |x| > T saturates; T from what calibration saw
//! ```
//!
//! | method | T | statistic |
//! |---|---|---|
//! | `minmax` | the largest magnitude | extremes |
//! | `ema` | the larger magnitude of the moving extremes | moving extremes |
//! | `delayed[:N[:M]]` | the largest magnitude of the last N batches (16), times 2ᴹ (M = 0) | largest magnitudes of the last batches |
//! | `percentile[:P]` | the least bin edge below which P % of the magnitudes lie (99.99) | histogram |
//! | `mse` | the bin edge of least squared error ([`mse`]) | histogram |
//! | `entropy` | the bin edge of least information lost ([`entropy`]); integers only | histogram |
//! | `entropy:ort` | the same as onnxruntime computes it | histogram |
//!
//! `delayed` is the recipe that NVIDIA's Transformer Engine has for training in FP8, at compile time:
//! its history of magnitudes (`max` over a window; N = 1 is its `most_recent`) and its margin. With a
//! margin it goes beyond the largest magnitude; no other method does. All are functions of the statistics alone, so
//! any runtime can supply them.

mod entropy;
mod mse;
#[cfg(test)]
mod tests;

use crate::statistics::{Histogram, ValueStats};
use qcc_ir::diag::{Class, Diagnostic, Result};
use qcc_ir::format::QuantFormat;
use std::fmt;

/// How the range of statically quantized activations follows from what calibration saw.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum CalibMethod {
    /// The largest magnitude.
    #[default]
    MinMax,
    /// Extremes averaged over batches.
    Ema,
    /// The largest magnitude of the last batches, with a margin.
    Delayed {
        /// How many batches.
        window: u32,
        /// By how many powers of two the range goes beyond.
        margin: u32,
    },
    /// The magnitude below which this many percent lie.
    Percentile(f64),
    /// Least squared error.
    Mse,
    /// Least information lost, by magnitudes, as TensorRT computes it.
    Entropy,
    /// Least information lost, by signed numbers, as onnxruntime computes it.
    EntropyOrt,
}

/// Batches of a delayed range unless said otherwise.
const WINDOW: u32 = 16;
/// The largest margin that has a meaning: more bits than any format has.
const MOST_MARGIN: u32 = 16;
/// Percent of the magnitudes that lie in the range unless said otherwise.
const PERCENT: f64 = 99.99;

impl CalibMethod {
    /// The method of this name: `minmax`, `ema`, `delayed[:N[:M]]`, `percentile[:P]`, `mse`,
    /// `entropy[:ort]`.
    ///
    /// # Errors
    /// `Q0049` when there is none, or a number of it lies outside of what it may be.
    pub fn named(name: &str) -> Result<Self> {
        let (base, detail) = match name.split_once(':') {
            Some((b, d)) => (b, Some(d)),
            None => (name, None),
        };
        match (base, detail) {
            ("minmax", None) => return Ok(CalibMethod::MinMax),
            ("ema", None) => return Ok(CalibMethod::Ema),
            ("mse", None) => return Ok(CalibMethod::Mse),
            ("entropy", None) => return Ok(CalibMethod::Entropy),
            ("entropy", Some("ort")) => return Ok(CalibMethod::EntropyOrt),
            ("delayed", detail) => {
                if let Some(found) = delayed(detail) {
                    return Ok(found);
                }
            }
            ("percentile", None) => return Ok(CalibMethod::Percentile(PERCENT)),
            ("percentile", Some(p)) => {
                let p = p.parse().ok().filter(|p| *p > 0.0 && *p <= 100.0);
                if let Some(p) = p {
                    return Ok(CalibMethod::Percentile(p));
                }
            }
            _ => {}
        }
        let message = format!("there is no calibration method `{name}`");
        Err(Diagnostic::error(49, Class::Usage, message).hint(
            "methods are minmax, ema, delayed[:N[:M]] over the last N (1 to 1024) batches with a \
             margin of M (0 to 16) bits, percentile[:P] with P above 0 and up to 100, mse, entropy \
             and entropy:ort",
        ))
    }

    /// Whether it reads more than extremes, of all elements of a value together.
    pub(crate) fn needs_distribution(self) -> bool {
        self != CalibMethod::MinMax
    }

    /// Where the range of a value ends under this method.
    ///
    /// # Errors
    /// `Q0527` when the statistics do not hold what the method reads; `Q0049` for a method that
    /// has no meaning for the format.
    pub fn threshold(self, stats: &ValueStats, format: QuantFormat) -> Result<f32> {
        let absmax = stats.absmax();
        let t = match self {
            CalibMethod::MinMax => return Ok(absmax),
            CalibMethod::Ema => {
                let (lo, hi) = stats.moving.ok_or_else(|| {
                    self.lacks(
                        "moving extremes",
                        "they belong to one run over data, and neither merging nor smoothing \
                         keeps them: give --calib, or use another method",
                    )
                })?;
                lo.abs().max(hi.abs())
            }
            CalibMethod::Delayed { window, margin } => {
                let history = stats.history.as_ref().filter(|h| !h.is_empty());
                let history = history.ok_or_else(|| {
                    self.lacks(
                        "history of batches",
                        "it belongs to one run over data, and neither merging nor smoothing \
                         keeps it: give --calib, or use another method",
                    )
                })?;
                let recent = history.iter().rev().take(window as usize);
                let largest = recent.fold(0.0f32, |a, x| a.max(*x));
                return Ok(largest * (1u32 << margin) as f32);
            }
            CalibMethod::Percentile(p) => percentile(self.histogram(stats)?, p),
            CalibMethod::Mse => mse::threshold(self.histogram(stats)?, absmax, format)?,
            CalibMethod::Entropy => {
                entropy::threshold(self.histogram(stats)?, self.levels(format)?)
            }
            CalibMethod::EntropyOrt => {
                entropy::threshold_ort(self.histogram(stats)?, self.levels(format)?)
            }
        };
        Ok((t as f32).min(absmax))
    }

    fn histogram(self, stats: &ValueStats) -> Result<&Histogram> {
        stats.histogram.as_ref().ok_or_else(|| {
            self.lacks(
                "histogram",
                "`qcc calibrate` gathers it; of a smoothed value it is gathered when there is \
                 data: give --calib, or use minmax",
            )
        })
    }

    fn lacks(self, what: &str, hint: &str) -> Diagnostic {
        let message = format!("--calib-method {self} needs a {what}, which the statistics lack");
        Diagnostic::error(527, Class::Input, message).hint(hint)
    }

    /// Levels of one sign.
    fn levels(self, format: QuantFormat) -> Result<usize> {
        match format.int_range() {
            Some(r) => Ok(usize::try_from(r.max).unwrap_or(0) + 1),
            None => {
                let message = format!(
                    "--calib-method {self} compares levels of equal width, which {} does not have",
                    format.dtype()
                );
                Err(Diagnostic::error(49, Class::Usage, message)
                    .hint("for float formats use minmax, percentile or mse"))
            }
        }
    }
}

impl fmt::Display for CalibMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CalibMethod::MinMax => f.write_str("minmax"),
            CalibMethod::Ema => f.write_str("ema"),
            CalibMethod::Delayed { window, margin: 0 } => write!(f, "delayed:{window}"),
            CalibMethod::Delayed { window, margin } => write!(f, "delayed:{window}:{margin}"),
            CalibMethod::Percentile(p) => write!(f, "percentile:{p}"),
            CalibMethod::Mse => f.write_str("mse"),
            CalibMethod::Entropy => f.write_str("entropy"),
            CalibMethod::EntropyOrt => f.write_str("entropy:ort"),
        }
    }
}

/// `N[:M]`
fn delayed(detail: Option<&str>) -> Option<CalibMethod> {
    let (window, margin) = match detail {
        None => (WINDOW, 0),
        Some(d) => {
            let (n, m) = d.split_once(':').unwrap_or((d, "0"));
            (n.parse().ok()?, m.parse().ok()?)
        }
    };
    let fits = (1..=ValueStats::HISTORY as u32).contains(&window) && margin <= MOST_MARGIN;
    fits.then_some(CalibMethod::Delayed { window, margin })
}

/// The least edge below which this many percent of the magnitudes lie.
fn percentile(h: &Histogram, percent: f64) -> f64 {
    let counts = h.magnitudes();
    let needed = h.total() as f64 * (percent / 100.0);
    let mut below = 0u64;
    let reached = counts.iter().position(|c| {
        below = below.saturating_add(*c);
        below as f64 >= needed
    });
    let edge = reached.map_or(counts.len(), |k| k + 1);
    edge as f64 * h.width()
}
