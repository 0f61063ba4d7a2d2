//! What calibration saw of a module's values.
//!
//! Statistics are keyed by value name, which is that of the ONNX model wherever there is one, so
//! that they can be gathered by another runtime, saved and merged. Merging takes minima and
//! maxima and adds counts: it is commutative and associative, so any order of batches and any
//! number of threads gives the same bits.

use qcc_ir::Diagnostic;
use qcc_ir::diag::{Class, Result};
use std::collections::BTreeMap;

/// Statistics of one value.
#[derive(Clone, Debug, PartialEq)]
pub struct ValueStats {
    /// How many rows (vectors along the last dimension) were seen.
    pub rows: u64,
    /// The smallest element of each index of the last dimension.
    pub channel_min: Vec<f32>,
    /// The largest element of each index of the last dimension.
    pub channel_max: Vec<f32>,
}

impl ValueStats {
    /// Statistics of nothing yet, for rows of this many elements.
    pub fn new(channels: usize) -> Self {
        ValueStats {
            rows: 0,
            channel_min: vec![f32::INFINITY; channels],
            channel_max: vec![f32::NEG_INFINITY; channels],
        }
    }

    /// Elements of a row.
    pub fn channels(&self) -> usize {
        self.channel_min.len()
    }

    /// Takes a row in.
    ///
    /// # Errors
    /// `Q0523` for a NaN or an infinite element; `Q0522` for a row of another length.
    pub fn observe(&mut self, row: &[f32]) -> Result<()> {
        if row.len() != self.channels() {
            return Err(misfit(self.channels(), row.len()));
        }
        // Whole rows of plain minima and maxima are what a compiler vectorises well. Infinity has
        // the greatest bits of all finite magnitudes and infinity, NaN has greater ones still.
        let greatest = row.iter().fold(0, |g, x| g.max(x.to_bits() & 0x7fff_ffff));
        if greatest >= f32::INFINITY.to_bits() {
            return Err(not_finite(row));
        }
        for (lo, x) in self.channel_min.iter_mut().zip(row) {
            // Adding zero makes one zero of two, so that the order of samples never shows.
            let x = x + 0.0;
            *lo = if x < *lo { x } else { *lo };
        }
        for (hi, x) in self.channel_max.iter_mut().zip(row) {
            let x = x + 0.0;
            *hi = if x > *hi { x } else { *hi };
        }
        self.rows += 1;
        Ok(())
    }

    /// The smallest element; 0 if none was seen.
    pub fn min(&self) -> f32 {
        let least = self.channel_min.iter().copied().reduce(f32::min);
        least.filter(|v| v.is_finite()).unwrap_or(0.0)
    }

    /// The largest element; 0 if none was seen.
    pub fn max(&self) -> f32 {
        let most = self.channel_max.iter().copied().reduce(f32::max);
        most.filter(|v| v.is_finite()).unwrap_or(0.0)
    }

    /// The largest magnitude; 0 if nothing was seen.
    pub fn absmax(&self) -> f32 {
        self.min().abs().max(self.max().abs())
    }

    /// The largest magnitude of each index of the last dimension; 0 where nothing was seen.
    pub fn channel_absmax(&self) -> Vec<f32> {
        let bounds = self.channel_min.iter().zip(&self.channel_max);
        bounds
            .map(|(lo, hi)| match self.rows {
                0 => 0.0,
                _ => lo.abs().max(hi.abs()),
            })
            .collect()
    }

    /// Takes over what other statistics of the same value saw.
    ///
    /// # Errors
    /// `Q0522` when the rows have different lengths.
    pub fn merge(&mut self, other: &ValueStats) -> Result<()> {
        if self.channels() != other.channels() {
            return Err(misfit(self.channels(), other.channels()));
        }
        for (a, b) in self.channel_min.iter_mut().zip(&other.channel_min) {
            *a = a.min(*b);
        }
        for (a, b) in self.channel_max.iter_mut().zip(&other.channel_max) {
            *a = a.max(*b);
        }
        self.rows += other.rows;
        Ok(())
    }

    /// What would have been seen had each channel been divided by its factor.
    pub(crate) fn divided(&self, factors: &[f32]) -> ValueStats {
        let by = |v: &[f32]| v.iter().zip(factors).map(|(v, f)| v / f).collect();
        ValueStats {
            rows: self.rows,
            channel_min: by(&self.channel_min),
            channel_max: by(&self.channel_max),
        }
    }
}

fn not_finite(row: &[f32]) -> Diagnostic {
    let at = row.iter().position(|x| !x.is_finite()).unwrap_or(0);
    let message = format!("channel {at} holds {} on the calibration data", row[at]);
    Diagnostic::error(523, Class::Input, message)
        .hint("the float model overflows there: check it, and the data")
}

fn misfit(have: usize, got: usize) -> Diagnostic {
    Diagnostic::error(
        522,
        Class::Input,
        format!("statistics are of rows of {have} elements, not {got}"),
    )
    .hint("they were made of another model: calibrate again")
}

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
        self.samples += other.samples;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(rows: &[[f32; 2]]) -> Statistics {
        let mut s = Statistics::new();
        for r in rows {
            s.entry("x", 2).observe(r).unwrap();
        }
        s.samples = rows.len() as u64;
        s
    }

    #[test]
    fn bounds_by_channel_and_in_all() {
        let s = stats(&[[1.0, -2.0], [-0.5, -3.0]]);
        let x = s.get("x").unwrap();
        assert_eq!((x.min(), x.max(), x.absmax()), (-3.0, 1.0, 3.0));
        assert_eq!(x.channel_absmax(), [1.0, 3.0]);
        assert_eq!(x.rows, 2);
        let none = ValueStats::new(2);
        assert_eq!(
            (none.absmax(), none.channel_absmax()),
            (0.0, vec![0.0, 0.0])
        );
    }

    #[test]
    fn merging_in_any_order_is_observing_all() {
        let rows = [[1.0, -2.0], [4.0, 0.0], [-5.0, 1.0]];
        let all = stats(&rows);
        let (mut a, b) = (stats(&rows[..1]), stats(&rows[1..]));
        let mut c = b.clone();
        c.merge(&a).unwrap();
        a.merge(&b).unwrap();
        assert_eq!((&a, &c), (&all, &all));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let mut s = stats(&[[1.0, 2.0]]);
        let mut other = Statistics::new();
        other.insert("x", ValueStats::new(3));
        let e = s.merge(&other).unwrap_err();
        assert_eq!((e.code().as_str(), e.place()), ("Q0522", Some("value x")));
        let x = s.entry("x", 2);
        assert_eq!(x.observe(&[1.0]).unwrap_err().code(), "Q0522");
        assert_eq!(x.observe(&[1.0, f32::NAN]).unwrap_err().code(), "Q0523");
        assert_eq!(
            x.observe(&[f32::INFINITY, 0.0]).unwrap_err().code(),
            "Q0523"
        );
    }
}
