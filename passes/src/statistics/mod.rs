//! What calibration saw of a module's values.
//!
//! Statistics are keyed by value name, which is that of the ONNX model wherever there is one, so
//! that they can be gathered by another runtime ([`Statistics::observe`]), saved and merged.
//!
//! | statistic | of | used by |
//! |---|---|---|
//! | extremes | each channel | `minmax`, SmoothQuant |
//! | moving extremes | all elements | `ema` |
//! | largest magnitudes of the last batches | all elements | `delayed` |
//! | histogram | all elements | `percentile`, `mse`, `entropy` |
//! | sums of magnitudes and squares | each channel | |
//! | `XᵀX` | each pair of channels | GPTQ |
//!
//! Statistics of a group of channels, or of the whole tensor, follow from those of its channels;
//! scales for each token are computed at run time and need none.

mod histogram;
mod value;

pub use histogram::Histogram;
pub use value::{ChannelSums, ValueStats};

use qcc_ir::diag::Result;
use std::collections::BTreeMap;

/// Statistics of the values of one model.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Statistics {
    /// How many samples (entries of the first axis of the data) were run.
    pub samples: u64,
    values: BTreeMap<String, ValueStats>,
}

impl Statistics {
    /// Statistics of nothing yet.
    pub fn new() -> Self {
        Statistics::default()
    }

    /// What was seen of the value of this name.
    pub fn get(&self, name: &str) -> Option<&ValueStats> {
        self.values.get(name)
    }

    /// Sets the statistics of a value.
    pub fn insert(&mut self, name: impl Into<String>, stats: ValueStats) {
        self.values.insert(name.into(), stats);
    }

    /// Values by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &ValueStats)> {
        self.values.iter().map(|(n, s)| (n.as_str(), s))
    }

    /// Takes in a batch of rows of `channels` elements each of the value of this name.
    ///
    /// ```
    /// let mut s = qcc_passes::Statistics::new();
    /// s.observe("x", 2, &[1.0, -2.0, 0.5, 3.0])?;
    /// assert_eq!(s.get("x").map(|x| (x.rows, x.absmax())), Some((2, 3.0)));
    /// # Ok::<(), qcc_ir::Diagnostic>(())
    /// ```
    ///
    /// # Errors
    /// `Q0522` for a part of a row or rows of another length, `Q0523` for an element that is NaN
    /// or infinite, at that value.
    pub fn observe(&mut self, name: &str, channels: usize, batch: &[f32]) -> Result<()> {
        let at = |d: qcc_ir::Diagnostic| d.or_at(format!("value {name}"));
        let stats = self.entry(name, channels);
        stats.fits(channels).map_err(at)?;
        stats.observe(batch).map_err(at)
    }

    /// The statistics of a value, begun if there are none.
    pub(crate) fn entry(&mut self, name: &str, channels: usize) -> &mut ValueStats {
        self.values
            .entry(name.to_string())
            .or_insert_with(|| ValueStats::new(channels))
    }

    /// Takes over what another run over the same model saw.
    ///
    /// # Errors
    /// `Q0522` when a value has another shape there, at that value.
    pub fn merge(&mut self, other: &Statistics) -> Result<()> {
        for (name, stats) in &other.values {
            self.entry(name, stats.channels())
                .merge(stats)
                .map_err(|d| d.or_at(format!("value {name}")))?;
        }
        self.samples = self.samples.saturating_add(other.samples);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(rows: &[[f32; 2]]) -> Statistics {
        let mut s = Statistics::new();
        for r in rows {
            s.observe("x", 2, r).unwrap();
        }
        s.samples = rows.len() as u64;
        s
    }

    fn x(s: &Statistics) -> &ValueStats {
        s.get("x").unwrap()
    }

    #[test]
    fn bounds_by_channel_and_in_all() {
        let s = stats(&[[1.0, -2.0], [-0.5, -3.0]]);
        assert_eq!((x(&s).min(), x(&s).max(), x(&s).absmax()), (-3.0, 1.0, 3.0));
        assert_eq!(x(&s).channel_absmax(), [1.0, 3.0]);
        assert_eq!(x(&s).rows, 2);
        let none = ValueStats::new(2);
        assert_eq!(
            (none.absmax(), none.channel_absmax()),
            (0.0, vec![0.0, 0.0])
        );
    }

    #[test]
    fn sums_and_what_depends_on_order() {
        let mut s = stats(&[[1.0, -2.0], [-0.5, -4.0]]);
        assert_eq!(x(&s).channel_mean().unwrap(), [0.75, 3.0]);
        assert_eq!(x(&s).sums.as_ref().unwrap().square, [1.25, 20.0]);
        let (lo, hi) = x(&s).moving.unwrap();
        assert_eq!((lo, hi), (-2.0 + 0.01 * -2.0, 1.0 + 0.01 * -1.5));
        assert_eq!(x(&s).history, Some(vec![2.0, 4.0]));
        s.observe("x", 2, &[]).unwrap();
        assert_eq!(x(&s).moving, Some((lo, hi)));
        assert_eq!(x(&s).history.as_ref().unwrap().len(), 2);
        let other = stats(&[[9.0, 9.0]]);
        s.merge(&other).unwrap();
        assert_eq!((x(&s).moving, x(&s).history.clone()), (None, None));
        s.observe("x", 2, &[0.0, 0.0]).unwrap();
        assert_eq!((x(&s).moving, x(&s).history.clone()), (None, None));
        let mut long = Statistics::new();
        for i in 0..ValueStats::HISTORY + 3 {
            long.observe("x", 1, &[i as f32]).unwrap();
        }
        let kept = x(&long).history.clone().unwrap();
        assert_eq!((kept.len(), kept[0]), (ValueStats::HISTORY, 3.0));
    }

    #[test]
    fn merging_in_any_order_is_observing_all() {
        let rows = [[1.0, -2.0], [4.0, 0.0], [-5.0, 1.0]];
        let with_gram = |rows: &[[f32; 2]]| {
            let mut s = stats(rows);
            for [a, b] in rows {
                let gram = [a * a, a * b, a * b, b * b];
                s.entry("x", 2).observe_gram(&gram).unwrap();
            }
            s
        };
        let mut all = with_gram(&rows);
        all.entry("x", 2).moving = None;
        all.entry("x", 2).history = None;
        let (mut a, b) = (with_gram(&rows[..1]), with_gram(&rows[1..]));
        let mut c = b.clone();
        c.merge(&a).unwrap();
        a.merge(&b).unwrap();
        assert_eq!((&a, &c), (&all, &all));
        let mut nothing = Statistics::new();
        nothing.merge(&b).unwrap();
        assert_eq!(nothing, b);
        let mut poor = b.clone();
        let mut lacking = x(&a).clone();
        (lacking.histogram, lacking.gram) = (None, None);
        let mut more = Statistics::new();
        more.insert("x", lacking);
        poor.merge(&more).unwrap();
        assert!(x(&poor).histogram.is_none() && x(&poor).gram.is_none());
        assert!(x(&poor).sums.is_some());
    }

    #[test]
    fn divided_statistics_are_those_of_divided_rows() {
        let factors = [2.0, 0.25];
        let rows = [[1.0, -2.0], [4.0, 0.5]];
        let mut s = stats(&rows);
        s.entry("x", 2)
            .observe_gram(&[17.0, 0.0, 0.0, 4.25])
            .unwrap();
        let got = x(&s).divided(&factors);
        let by: Vec<[f32; 2]> = rows.iter().map(|[a, b]| [a / 2.0, b / 0.25]).collect();
        let expected = stats(&by);
        assert_eq!(got.channel_min, x(&expected).channel_min);
        assert_eq!(got.channel_max, x(&expected).channel_max);
        assert_eq!(got.sums, x(&expected).sums);
        assert_eq!(got.gram, Some(vec![4.25, 0.0, 0.0, 68.0]));
        assert_eq!((got.rows, got.histogram, got.moving), (2, None, None));
        assert_eq!(got.history, None);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let mut s = stats(&[[1.0, 2.0]]);
        let mut other = Statistics::new();
        other.insert("x", ValueStats::new(3));
        let e = s.merge(&other).unwrap_err();
        assert_eq!((e.code().as_str(), e.place()), ("Q0522", Some("value x")));
        let mut code =
            |channels, batch: &[f32]| s.observe("x", channels, batch).unwrap_err().code();
        assert_eq!(code(2, &[1.0]), "Q0522");
        assert_eq!(code(3, &[1.0, 2.0, 3.0]), "Q0522");
        assert_eq!(code(2, &[1.0, f32::NAN]), "Q0523");
        assert_eq!(code(2, &[f32::INFINITY, 0.0]), "Q0523");
        let x = s.entry("x", 2);
        assert_eq!(x.observe_gram(&[1.0]).unwrap_err().code(), "Q0522");
    }
}
