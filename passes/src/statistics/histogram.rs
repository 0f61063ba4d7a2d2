//! How often elements of which magnitude occur, by sign, in bounded memory.
//!
//! ```text
//! bin(x) = ⌊|x| / 2^e⌋        e: the least exponent with |x| < 4096 · 2^e for all x, at least −126
//! ```
//!
//! When a larger element comes, `e` grows and neighbouring bins merge. That is exact, because
//! `⌊⌊v⌋ / 2⌋ = ⌊v / 2⌋`: a histogram depends on what was seen and on nothing else, neither on the
//! order nor on how the elements were divided among histograms that were merged later. The
//! largest magnitude lies in the upper half of the bins (unless all are below 2^-115), so 2048
//! bins at least are in use. Zero is an edge; zeros of either sign count as positive.

use qcc_ir::Diagnostic;
use qcc_ir::diag::{Class, Result};

/// Least exponent of a width: with it, the inverse of a width is a normal number.
const LEAST: i32 = -126;
/// The exponent that serves all finite numbers.
const GREATEST: i32 = 116;
/// Counts that numbers of a file may add up to: beyond, they are not exact in `f64`.
const MOST: u64 = 1 << 53;

/// Counts of magnitudes by sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    exponent: i32,
    /// The bins of negative elements, then those of the others.
    counts: Vec<u64>,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram {
            exponent: LEAST,
            counts: vec![0; 2 * Self::BINS],
        }
    }
}

impl Histogram {
    /// Bins of either sign.
    pub const BINS: usize = 4096;

    /// A histogram of nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The histogram with this exponent of its width and these counts: the bins of negative
    /// elements by magnitude, then those of the others.
    ///
    /// # Errors
    /// `Q0528` for an exponent outside −126..=116, for other than 2 · 4096 counts, and for counts
    /// that add up to more than 2^53.
    pub fn from_counts(exponent: i32, counts: Vec<u64>) -> Result<Self> {
        let bad = |message: String| Err(Diagnostic::error(528, Class::Input, message));
        if !(LEAST..=GREATEST).contains(&exponent) {
            return bad(format!(
                "the exponent of a histogram is {exponent}, not from {LEAST} to {GREATEST}"
            ));
        }
        if counts.len() != 2 * Self::BINS {
            return bad(format!(
                "a histogram has {} bins, not {}",
                counts.len(),
                2 * Self::BINS
            ));
        }
        if counts.iter().map(|c| u128::from(*c)).sum::<u128>() > u128::from(MOST) {
            return bad("the counts of a histogram add up to more than 2^53".into());
        }
        Ok(Histogram { exponent, counts })
    }

    /// The exponent of the width of a bin, a power of two.
    pub fn exponent(&self) -> i32 {
        self.exponent
    }

    /// The width of a bin.
    pub fn width(&self) -> f64 {
        libm::scalbn(1.0, self.exponent)
    }

    /// All counts: the bins of negative elements by magnitude, then those of the others.
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// Elements counted.
    pub fn total(&self) -> u64 {
        self.counts.iter().fold(0, |a, b| a.saturating_add(*b))
    }

    /// Counts of magnitudes whatever the sign, up to the last bin that is not empty.
    pub fn magnitudes(&self) -> Vec<u64> {
        let (negative, positive) = self.counts.split_at(Self::BINS);
        let both = negative.iter().zip(positive);
        let mut out: Vec<u64> = both.map(|(a, b)| a.saturating_add(*b)).collect();
        let used = out.iter().rposition(|c| *c > 0).map_or(0, |i| i + 1);
        out.truncate(used);
        out
    }

    /// Counts elements, which must be finite.
    pub fn observe(&mut self, values: &[f32]) {
        let greatest = values.iter().fold(0.0f32, |g, x| g.max(x.abs()));
        self.widen(exponent_of(greatest));
        // −exponent is that of a normal number: multiplying by it is exact, but for results below
        // 2^-126, which are below 1 either way.
        let inverse = f32::from_bits(((127 - self.exponent) as u32) << 23);
        let (negative, positive) = self.counts.split_at_mut(Self::BINS);
        for x in values {
            let bins = if *x < 0.0 {
                &mut *negative
            } else {
                &mut *positive
            };
            if let Some(c) = bins.get_mut((x.abs() * inverse) as usize) {
                *c = c.saturating_add(1);
            }
        }
    }

    /// Takes over what another histogram counted.
    pub fn merge(&mut self, other: &Histogram) {
        self.widen(other.exponent);
        let by = self.exponent.abs_diff(other.exponent);
        for (side, theirs) in self
            .counts
            .chunks_exact_mut(Self::BINS)
            .zip(other.counts.chunks_exact(Self::BINS))
        {
            for (k, c) in theirs.iter().enumerate() {
                let bin = &mut side[k >> by.min(12)];
                *bin = bin.saturating_add(*c);
            }
        }
    }

    /// Merges bins until their width has at least this exponent.
    fn widen(&mut self, exponent: i32) {
        if exponent <= self.exponent {
            return;
        }
        // After twelve doublings all are in the first bin.
        let by = exponent.abs_diff(self.exponent).min(12);
        for side in self.counts.chunks_exact_mut(Self::BINS) {
            for k in 1..Self::BINS {
                let c = std::mem::take(&mut side[k]);
                side[k >> by] = side[k >> by].saturating_add(c);
            }
        }
        self.exponent = exponent;
    }
}

/// The least exponent whose bins reach beyond this magnitude.
fn exponent_of(magnitude: f32) -> i32 {
    let biased = (magnitude.to_bits() >> 23) as i32;
    // |x| < 2^(biased − 126) = 4096 · 2^(biased − 138)
    (biased - 138).clamp(LEAST, GREATEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(values: &[f32]) -> Histogram {
        let mut h = Histogram::new();
        h.observe(values);
        h
    }

    /// Numbers of very different magnitude, with both zeros and powers of two among them.
    fn values() -> Vec<f32> {
        let mut v: Vec<f32> = qcc_ir::eval::normal(3, 1.0, 3000)
            .iter()
            .enumerate()
            .map(|(i, x)| (*x as f32) * [1e-30, 1.0, 37.0, 1e-3, 900.0][i % 5])
            .collect();
        v.extend([0.0, -0.0, 1.0, -1.0, 1024.0, -2.0, 2047.75, 1e-40]);
        v
    }

    #[test]
    fn bins_are_those_of_the_definition() {
        let v = values();
        let h = histogram(&v);
        let most = v.iter().fold(0.0f32, |m, x| m.max(x.abs()));
        assert!(f64::from(most) < 4096.0 * h.width() && f64::from(most) >= 2048.0 * h.width());
        let mut counts = vec![0; 2 * Histogram::BINS];
        for x in &v {
            let bin = (f64::from(x.abs()) / h.width()).floor() as usize;
            counts[bin + if *x < 0.0 { 0 } else { Histogram::BINS }] += 1;
        }
        assert_eq!(h.counts(), counts);
        assert_eq!(h.total(), v.len() as u64);
    }

    #[test]
    fn any_division_in_any_order_gives_the_same() {
        let v = values();
        let all = histogram(&v);
        for size in [1, 7, 500, 2999] {
            let parts: Vec<Histogram> = v.chunks(size).map(histogram).collect();
            let mut forward = Histogram::new();
            parts.iter().for_each(|p| forward.merge(p));
            let mut backward = Histogram::new();
            parts.iter().rev().for_each(|p| backward.merge(p));
            let mut online = Histogram::new();
            v.chunks(size).rev().for_each(|c| online.observe(c));
            let mut pairs = histogram(&v[..v.len() / 2]);
            let mut rest = histogram(&v[v.len() / 2..]);
            rest.merge(&std::mem::take(&mut pairs));
            for h in [forward, backward, online, rest] {
                assert_eq!(h, all, "in pieces of {size}");
            }
        }
    }

    #[test]
    fn the_ends_of_the_numbers_have_bins() {
        let h = histogram(&[f32::MAX, f32::MIN, f32::from_bits(1), 0.0]);
        assert_eq!((h.exponent(), h.total()), (116, 4));
        assert_eq!(h.counts()[Histogram::BINS - 1], 1);
        let least = histogram(&[f32::from_bits(1), -0.0]);
        assert_eq!(
            (least.exponent(), least.counts()[Histogram::BINS]),
            (-126, 2)
        );
        assert!(Histogram::new().magnitudes().is_empty());
        assert_eq!(least.magnitudes(), [2]);
    }

    #[test]
    fn counts_that_are_no_histogram_are_refused() {
        let counts = |n| vec![0; n];
        let bins = 2 * Histogram::BINS;
        for bad in [
            Histogram::from_counts(-127, counts(bins)),
            Histogram::from_counts(117, counts(bins)),
            Histogram::from_counts(0, counts(bins - 1)),
            Histogram::from_counts(0, vec![u64::MAX; bins]),
        ] {
            assert_eq!(bad.unwrap_err().code(), "Q0528");
        }
        let h = histogram(&values());
        let same = Histogram::from_counts(h.exponent(), h.counts().to_vec()).unwrap();
        assert_eq!(same, h);
    }
}
