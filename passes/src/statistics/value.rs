//! Statistics of one value: what each of them is, and how they are gathered and merged.

use super::Histogram;
use qcc_ir::Diagnostic;
use qcc_ir::diag::{Class, Result};

/// How much a new batch counts in the moving extremes.
const MOVING: f64 = 0.01;

/// Sums over the rows of a value, for each index of the last dimension.
#[derive(Clone, Debug, PartialEq)]
pub struct ChannelSums {
    /// `Σ |x|`.
    pub magnitude: Vec<f64>,
    /// `Σ x²`.
    pub square: Vec<f64>,
}

/// Statistics of one value. Extremes are always there, all others only where they were
/// gathered.
///
/// Merging takes minima and maxima and adds counts, which is exact: any division of the same
/// rows gives the same bits. Sums in f64 are those of any order up to their rounding, and do not
/// depend on which of two is merged into which.
#[derive(Clone, Debug, PartialEq)]
pub struct ValueStats {
    /// How many rows (vectors along the last dimension) were seen.
    pub rows: u64,
    /// The smallest element of each index of the last dimension.
    pub channel_min: Vec<f32>,
    /// The largest element of each index of the last dimension.
    pub channel_max: Vec<f32>,
    /// Sums of each index of the last dimension.
    pub sums: Option<ChannelSums>,
    /// Minimum and maximum of all elements as moving averages over batches: `m ← m + 0.01 ·
    /// (batch − m)`, beginning with the first batch. They depend on the order of batches, so
    /// merged statistics have none.
    pub moving: Option<(f64, f64)>,
    /// The largest magnitude of each of the last [`HISTORY`](Self::HISTORY) batches, in their
    /// order. Merged statistics have none, as their batches have no order.
    pub history: Option<Vec<f32>>,
    /// How often which magnitudes occur in all elements.
    pub histogram: Option<Histogram>,
    /// `XᵀX` of the rows, row-major: half the Hessian of a layer's squared error.
    pub gram: Option<Vec<f64>>,
}

impl ValueStats {
    /// Batches that are remembered one by one.
    pub const HISTORY: usize = 1024;

    /// Statistics of nothing yet, for rows of this many elements.
    pub fn new(channels: usize) -> Self {
        ValueStats {
            rows: 0,
            channel_min: vec![f32::INFINITY; channels],
            channel_max: vec![f32::NEG_INFINITY; channels],
            sums: Some(ChannelSums {
                magnitude: vec![0.0; channels],
                square: vec![0.0; channels],
            }),
            moving: None,
            history: Some(Vec::new()),
            histogram: Some(Histogram::new()),
            gram: None,
        }
    }

    /// Elements of a row.
    pub fn channels(&self) -> usize {
        self.channel_min.len()
    }

    /// Whether rows have this many elements.
    ///
    /// # Errors
    /// `Q0522` if not.
    pub(crate) fn fits(&self, channels: usize) -> Result<()> {
        match self.channels() == channels {
            true => Ok(()),
            false => Err(misfit(self.channels(), channels)),
        }
    }

    /// Takes in a batch of rows, one after another.
    ///
    /// # Errors
    /// `Q0523` for a NaN or an infinite element; `Q0522` for a part of a row.
    pub fn observe(&mut self, batch: &[f32]) -> Result<()> {
        let channels = self.channels();
        if batch.is_empty() {
            return Ok(());
        }
        if channels == 0 || !batch.len().is_multiple_of(channels) {
            return Err(misfit(channels, batch.len()));
        }
        // Infinity has the greatest bits of all finite magnitudes and infinity, NaN has greater
        // ones still.
        let greatest = batch
            .iter()
            .fold(0, |g, x| g.max(x.to_bits() & 0x7fff_ffff));
        if greatest >= f32::INFINITY.to_bits() {
            return Err(not_finite(batch, channels));
        }
        let seen = ValueStats::extremes(channels, batch);
        let (lo, hi) = (f64::from(seen.min()), f64::from(seen.max()));
        self.moving = match self.moving {
            None if self.rows == 0 => Some((lo, hi)),
            moving => moving.map(|(a, b)| (a + MOVING * (lo - a), b + MOVING * (hi - b))),
        };
        if let Some(h) = &mut self.history {
            h.push(seen.absmax());
            h.drain(..h.len().saturating_sub(Self::HISTORY));
        }
        if let Some(sums) = &mut self.sums {
            sums.add(channels, batch);
        }
        if let Some(h) = &mut self.histogram {
            h.observe(batch);
        }
        self.merge_extremes(&seen);
        self.rows += (batch.len() / channels) as u64;
        Ok(())
    }

    /// Only the extremes of some rows.
    fn extremes(channels: usize, batch: &[f32]) -> ValueStats {
        let mut s = ValueStats {
            rows: (batch.len() / channels) as u64,
            sums: None,
            histogram: None,
            ..ValueStats::new(channels)
        };
        // Whole rows of plain minima and maxima are what a compiler vectorises well. Adding zero
        // makes one zero of two, so that the order of samples never shows.
        for row in batch.chunks_exact(channels) {
            for (lo, x) in s.channel_min.iter_mut().zip(row) {
                let x = x + 0.0;
                *lo = if x < *lo { x } else { *lo };
            }
            for (hi, x) in s.channel_max.iter_mut().zip(row) {
                let x = x + 0.0;
                *hi = if x > *hi { x } else { *hi };
            }
        }
        s
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

    /// The mean magnitude of each index of the last dimension, if its sums were gathered.
    pub fn channel_mean(&self) -> Option<Vec<f64>> {
        let rows = self.rows.max(1) as f64;
        let sums = self.sums.as_ref()?;
        Some(sums.magnitude.iter().map(|s| s / rows).collect())
    }

    /// Adds `XᵀX` of some rows to that of the others.
    ///
    /// # Errors
    /// `Q0522` when it is not a square of the rows' length.
    pub fn observe_gram(&mut self, gram: &[f32]) -> Result<()> {
        let n = self.channels();
        if n.checked_mul(n) != Some(gram.len()) {
            return Err(misfit(n, gram.len()));
        }
        let sum = self.gram.get_or_insert_with(|| vec![0.0; gram.len()]);
        for (s, g) in sum.iter_mut().zip(gram) {
            *s += f64::from(*g);
        }
        Ok(())
    }

    /// Takes over what other statistics of the same value saw. What either lacks, the result
    /// lacks.
    ///
    /// # Errors
    /// `Q0522` when the rows have different lengths.
    pub fn merge(&mut self, other: &ValueStats) -> Result<()> {
        if self.channels() != other.channels() {
            return Err(misfit(self.channels(), other.channels()));
        }
        if other.rows == 0 {
            return Ok(());
        }
        if self.rows == 0 {
            *self = other.clone();
            return Ok(());
        }
        self.merge_extremes(other);
        self.rows = self.rows.saturating_add(other.rows);
        (self.moving, self.history) = (None, None);
        self.sums = both(self.sums.take(), &other.sums, |a, b| {
            add(&mut a.magnitude, &b.magnitude);
            add(&mut a.square, &b.square);
        });
        self.histogram = both(self.histogram.take(), &other.histogram, Histogram::merge);
        self.gram = both(self.gram.take(), &other.gram, |a, b| add(a, b));
        Ok(())
    }

    fn merge_extremes(&mut self, other: &ValueStats) {
        for (a, b) in self.channel_min.iter_mut().zip(&other.channel_min) {
            *a = a.min(*b);
        }
        for (a, b) in self.channel_max.iter_mut().zip(&other.channel_max) {
            *a = a.max(*b);
        }
    }

    /// What would have been seen had each channel been divided by its factor. Of all elements
    /// together, only extremes can be told.
    pub(crate) fn divided(&self, factors: &[f32]) -> ValueStats {
        let by = |v: &[f32]| v.iter().zip(factors).map(|(v, f)| v / f).collect();
        let f: Vec<f64> = factors.iter().map(|f| f64::from(*f)).collect();
        let over = |v: &[f64], by: &dyn Fn(f64) -> f64| {
            let scaled = v.iter().zip(&f).map(|(v, f)| v / by(*f));
            scaled.collect::<Vec<f64>>()
        };
        let n = self.channels().max(1);
        let gram = |g: &Vec<f64>| {
            let scaled = g.iter().enumerate();
            scaled.map(|(at, v)| v / (f[at / n] * f[at % n])).collect()
        };
        ValueStats {
            rows: self.rows,
            channel_min: by(&self.channel_min),
            channel_max: by(&self.channel_max),
            sums: self.sums.as_ref().map(|s| ChannelSums {
                magnitude: over(&s.magnitude, &|f| f),
                square: over(&s.square, &|f| f * f),
            }),
            moving: None,
            history: None,
            histogram: None,
            gram: self.gram.as_ref().map(gram),
        }
    }
}

impl ChannelSums {
    fn add(&mut self, channels: usize, batch: &[f32]) {
        for row in batch.chunks_exact(channels) {
            let sums = self.magnitude.iter_mut().zip(&mut self.square);
            for ((m, s), x) in sums.zip(row) {
                let x = f64::from(*x);
                *m += x.abs();
                *s += x * x;
            }
        }
    }
}

fn add(a: &mut [f64], b: &[f64]) {
    a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
}

/// What two have, if both have it.
fn both<T>(a: Option<T>, b: &Option<T>, merge: impl Fn(&mut T, &T)) -> Option<T> {
    let (mut a, b) = (a?, b.as_ref()?);
    merge(&mut a, b);
    Some(a)
}

fn not_finite(batch: &[f32], channels: usize) -> Diagnostic {
    let at = batch.iter().position(|x| !x.is_finite()).unwrap_or(0);
    let (channel, value) = (at % channels.max(1), batch[at]);
    let message = format!("channel {channel} holds {value} on the calibration data");
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
