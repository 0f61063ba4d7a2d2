//! Ranges of groups by the error that GPTQ makes with them.
//!
//! ```text
//! loss(lo, hi) = Σ e_j²      over the group's columns, rounded as GPTQ does on the grid of [lo, hi]
//! ```
//!
//! When a group is reached, the columns before it are rounded and have passed their errors on, and
//! `R` holds what the columns behind it can make good: so this is the error of the layer's output
//! that the group leaves. The error of the weights alone, or of a group alone, chooses other
//! ranges.
//!
//! Both ends are moved together first, then, where there are zero points, each alone around the
//! best. Float codes lie ever farther apart, so a range that leaves the greatest of them unused may
//! serve a group better (Cook et al., "Four Over Six", 2025); for scales that are powers of two it
//! is the next one. The first of equal losses wins. A loss that exceeds the least one so far is not summed to its end.

use super::gptq::{Plan, bounds};
use super::grid::Coder;
use crate::vector::add_scaled;
use qcc_ir::format::FormatError;

/// What both ends are multiplied by: 1 first, then a little more and ever less.
const TOGETHER: [f32; 9] = [1.0, 1.03, 0.97, 0.94, 0.91, 0.88, 0.85, 0.82, 0.79];
/// The same for float codes, whose range may also be left unused in part.
const SPREAD: [f32; 12] = [
    1.0, 1.08, 1.17, 1.26, 1.38, 1.5, 1.75, 2.0, 0.94, 0.88, 0.82, 0.75,
];
/// What is then added for each end.
const ALONE: [f32; 4] = [-0.03, 0.03, -0.06, 0.06];
/// The widest group that is searched: the cost per weight grows with the width.
pub(super) const WIDEST: usize = 256;

/// The best grid so far.
struct Best {
    loss: f32,
    ends: (f32, f32),
    grid: (f32, i32),
}

/// What both ends of a range are multiplied by, to find the best.
fn together(coder: &Coder) -> &'static [f32] {
    match coder.is_uniform() {
        true => &TOGETHER,
        false => &SPREAD,
    }
}

impl Plan<'_> {
    /// Scale and zero point of a group of one row that begins at column `at` (in order) and has
    /// these corrected weights.
    ///
    /// # Errors
    /// When a weight is NaN or infinite.
    pub(super) fn search(&self, w: &[f32], at: usize) -> Result<(f32, i32), FormatError> {
        let (lo, hi) = bounds(w);
        let mut best = Best {
            loss: f32::INFINITY,
            ends: (1.0, 1.0),
            grid: self.coder.fit(lo, hi)?,
        };
        let mut scratch = vec![0.0; w.len()];
        let mut attempt = |best: &mut Best, ends: (f32, f32)| -> Result<(), FormatError> {
            let grid = self.coder.fit(lo * ends.0, hi * ends.1)?;
            scratch.copy_from_slice(w);
            if let Some(loss) = self.loss(&mut scratch, at, grid, best.loss) {
                *best = Best { loss, ends, grid };
            }
            Ok(())
        };
        for t in together(self.coder) {
            attempt(&mut best, (*t, *t))?;
        }
        let zeros = self.coder.zeros();
        if zeros.min < zeros.max {
            let (t, _) = best.ends;
            for a in ALONE {
                attempt(&mut best, (t + a, t))?;
            }
            let (low, _) = best.ends;
            for a in ALONE {
                attempt(&mut best, (low, t + a))?;
            }
        }
        Ok(best.grid)
    }

    /// `Σ e²` of a group on a grid, `None` when it does not stay below `limit`.
    fn loss(&self, w: &mut [f32], at: usize, grid: (f32, i32), limit: f32) -> Option<f32> {
        let (mut loss, end) = (0.0, at + w.len());
        // Tables have no ranges, so it is no matter which row this is.
        let cell = self.coder.cell(grid.0, grid.1, 0);
        for i in 0..w.len() {
            let factor = &self.factor[(at + i) * self.k..][at + i..end];
            let (_, error) = self.step(w[i], factor[0], cell);
            loss += error * error;
            if loss.is_nan() || loss >= limit {
                return None;
            }
            add_scaled(&mut w[i + 1..], -error, &factor[1..]);
        }
        Some(loss)
    }
}
