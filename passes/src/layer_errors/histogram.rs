//! How often values of each size occur.

/// Bars of a histogram.
const BARS: usize = 64;

/// Counts of values in equal parts of a range.
#[derive(Clone, Debug, PartialEq)]
pub struct ValueHistogram {
    /// Lower end of the range.
    pub min: f64,
    /// Upper end of the range.
    pub max: f64,
    /// Values in each part; the outermost parts also count what lies beyond the range.
    pub counts: Vec<u64>,
}

impl ValueHistogram {
    /// An empty histogram of a range.
    pub(super) fn new(min: f32, max: f32) -> Self {
        ValueHistogram {
            min: f64::from(min),
            max: f64::from(max),
            counts: vec![0; BARS],
        }
    }

    /// A histogram of these values over their own range.
    pub(super) fn of(values: &[f32]) -> Self {
        let min = values.iter().copied().reduce(f32::min).unwrap_or(0.0);
        let max = values.iter().copied().reduce(f32::max).unwrap_or(0.0);
        let mut h = ValueHistogram::new(min, max);
        h.add(values);
        h
    }

    /// Counts values; those that are no numbers are left out.
    pub(super) fn add(&mut self, values: &[f32]) {
        let width = (self.max - self.min).max(f64::MIN_POSITIVE);
        let last = (BARS - 1) as f64;
        for v in values.iter().filter(|v| !v.is_nan()) {
            let at = (f64::from(*v) - self.min) / width * BARS as f64;
            self.counts[at.clamp(0.0, last) as usize] += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_equal_and_the_outermost_take_the_rest() {
        let mut h = ValueHistogram::new(-1.0, 1.0);
        h.add(&[-1.0, -0.999, 0.0, 0.03, 1.0, 7.0, -7.0, f32::NAN]);
        assert_eq!(
            (h.counts[0], h.counts[32], h.counts[33], h.counts[63]),
            (3, 2, 0, 2)
        );
        assert_eq!(h.counts.iter().sum::<u64>(), 7);
        let one = ValueHistogram::of(&[2.0, 2.0]);
        assert_eq!((one.min, one.max, one.counts[0]), (2.0, 2.0, 2));
        assert_eq!(ValueHistogram::of(&[]).counts.iter().sum::<u64>(), 0);
    }
}
