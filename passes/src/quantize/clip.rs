//! Clipping: a smaller range for a group of weights, where that makes the smaller error.
//!
//! ```text
//! for i = 0 … 9:  c = max |w| · (1 − i/20),  ŵ = quantize(clamp(w, −c, c)),  δ = ŵ − w
//! error = δᵀ G δ          G = XᵀX of the group's input channels; without data Σ δ²
//! ```
//!
//! With data this is the search of AWQ (Lin et al., "AWQ", 2024): the squared error of the
//! group's share of the layer's output, here over all calibration rows. The first of equal errors
//! wins, so the largest range does.
//!
//! Float codes lie ever farther apart: there, ranges that leave the greatest code unused are tried
//! too, and `c` goes from twice the largest magnitude down. Blocks of several rows are clipped by
//! the error of all of them.
//!
//! Other tools search without data for the least `Σ |δ|^2.4`, in 20 steps of 1 % of the range
//! (compressed-tensors) or 80 (the quantizer of GPTQ's code); here it is the square in 10 steps of
//! 5 %, as with data.

use super::gptq::{Matrix, bounds};
use super::grid::Coder;
use super::scheme::Blocks;
use crate::parallel;
use crate::vector::dot;
use qcc_ir::format::FormatError;

/// Ranges that are tried, each smaller by a twentieth of the largest.
const TRIALS: usize = 10;
/// As many greater ones of float codes.
const GREATER: usize = 20;

/// The range of each block, row by row, that makes the least error.
///
/// # Errors
/// When a weight is NaN or infinite.
pub(super) fn ranges(
    m: Matrix<'_>,
    gram: Option<&[f64]>,
    coder: &Coder,
    blocks: Blocks,
    threads: usize,
) -> Result<(Vec<f32>, Vec<f32>), FormatError> {
    let group = blocks.columns;
    let columns: Vec<std::ops::Range<usize>> = (0..m.k)
        .step_by(group)
        .map(|at| at..m.k.min(at + group))
        .collect();
    let blocks_of = |c: &std::ops::Range<usize>| gram.map(|g| diagonal_block(g, m.k, c.clone()));
    let grams: Vec<Option<Vec<f32>>> = columns.iter().map(blocks_of).collect();
    let bands: Vec<&[f32]> = m.w.chunks((blocks.rows * m.k).max(1)).collect();
    let search = |band: &&[f32]| -> Result<Vec<(f32, f32)>, FormatError> {
        let each = columns.iter().zip(&grams).map(|(c, g)| {
            let rows: Vec<&[f32]> = band.chunks(m.k).map(|row| &row[c.clone()]).collect();
            best(&rows, g.as_deref(), coder)
        });
        each.collect()
    };
    let mut all = (Vec::new(), Vec::new());
    for band in parallel::map(&bands, threads, search) {
        for (lo, hi) in band? {
            all.0.push(lo);
            all.1.push(hi);
        }
    }
    Ok(all)
}

fn diagonal_block(gram: &[f64], k: usize, columns: std::ops::Range<usize>) -> Vec<f32> {
    let rows = columns
        .clone()
        .flat_map(|i| &gram[i * k..][columns.clone()]);
    rows.map(|v| *v as f32).collect()
}

/// The best range of one block.
fn best(rows: &[&[f32]], gram: Option<&[f32]>, coder: &Coder) -> Result<(f32, f32), FormatError> {
    let (lo, hi) = rows
        .iter()
        .fold((f32::INFINITY, f32::NEG_INFINITY), |all, row| {
            let (lo, hi) = bounds(row);
            match lo.is_nan() || all.0.is_nan() {
                true => (f32::NAN, f32::NAN),
                false => (all.0.min(lo), all.1.max(hi)),
            }
        });
    let absmax = hi.max(-lo);
    let smaller = (0..TRIALS).map(|i| 1.0 - i as f32 / (2 * TRIALS) as f32);
    let greater = (1..=GREATER).map(|i| 1.0 + i as f32 / GREATER as f32);
    let greater = greater.take(if coder.is_uniform() { 0 } else { GREATER });
    let mut found = ((lo, hi), f32::INFINITY);
    let mut tried = None;
    for times in smaller.chain(greater) {
        let c = absmax * times;
        let range = match coder.is_uniform() {
            true => (lo.max(-c), hi.min(c)),
            false => (-c, c),
        };
        let fit = coder.fit(range.0, range.1)?;
        // Many ranges have the same power of two.
        if tried.replace(fit) == Some(fit) {
            continue;
        }
        // What float codes do beyond their range depends on how the scale is stored.
        let limit = if coder.is_uniform() { c } else { f32::INFINITY };
        let error = error(rows, gram, coder, fit, limit);
        if error < found.1 {
            found = (range, error);
        }
    }
    Ok(found.0)
}

/// The error that values make, cut off at a limit, on this grid.
fn error(
    rows: &[&[f32]],
    gram: Option<&[f32]>,
    coder: &Coder,
    (scale, zero): (f32, i32),
    limit: f32,
) -> f32 {
    // Tables have no ranges, so it is no matter which row this is.
    let cell = coder.cell(scale, zero, 0);
    let mut sum = 0.0;
    for row in rows {
        let off = |x: &f32| coder.real(coder.code(x.clamp(-limit, limit), cell), cell) - x;
        let delta: Vec<f32> = row.iter().map(off).collect();
        sum += match gram {
            Some(g) => g
                .chunks(row.len())
                .zip(&delta)
                .map(|(row, d)| d * dot(row, &delta))
                .sum(),
            None => dot(&delta, &delta),
        };
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::super::Scheme;
    use super::*;

    fn coder(name: &str) -> Coder {
        let weights = Scheme::named(name).unwrap().weights.unwrap();
        Coder::new(weights.resolved(true).0, None).unwrap()
    }

    const ROW: Blocks = Blocks {
        rows: 1,
        columns: 16,
    };

    #[test]
    fn an_outlier_that_does_not_matter_is_cut() {
        let mut w: Vec<f32> = (0..16).map(|i| (i as f32 - 8.0) * 0.01).collect();
        w[3] = 0.2;
        let m = Matrix { w: &w, n: 1, k: 16 };
        let mut gram = vec![0.0; 256];
        for i in 0..16 {
            gram[i * 17] = if i == 3 { 0.001 } else { 1.0 };
        }
        let c = coder("w4a16-g16-asym");
        let (_, hi) = ranges(m, Some(&gram), &c, ROW, 2).unwrap();
        assert!(hi[0] < 0.15, "{hi:?}");
        gram[3 * 17] = 1000.0;
        let (lo, hi) = ranges(m, Some(&gram), &c, ROW, 2).unwrap();
        assert!(lo[0] == -0.08 && hi[0] > 0.17, "{lo:?} {hi:?}");
    }

    #[test]
    fn zeros_and_numbers_that_are_none() {
        let c = coder("w4a16-g16-asym");
        let m = |w| Matrix { w, n: 1, k: 2 };
        assert_eq!(
            ranges(m(&[0.0, 0.0]), None, &c, ROW, 1).unwrap(),
            (vec![0.0], vec![0.0])
        );
        assert!(ranges(m(&[0.0, f32::NAN]), None, &c, ROW, 1).is_err());
        assert!(ranges(m(&[0.0, f32::INFINITY]), None, &c, ROW, 1).is_err());
    }

    #[test]
    fn rows_that_share_a_range_are_clipped_together() {
        let row = |large: f32| (0..16).map(move |i| if i == 3 { large } else { 0.01 * i as f32 });
        let w: Vec<f32> = row(0.3).chain(row(0.01)).collect();
        let m = Matrix { w: &w, n: 2, k: 16 };
        let both = Blocks {
            rows: 2,
            columns: 16,
        };
        let c = coder("w4a16-tensor-asym");
        let (_, apart) = ranges(m, None, &c, ROW, 1).unwrap();
        let (_, together) = ranges(m, None, &c, both, 1).unwrap();
        assert_eq!((apart.len(), together.len()), (2, 1));
        assert!(
            apart[1] < together[0] && together[0] <= apart[0],
            "{apart:?} {together:?}"
        );
    }

    #[test]
    fn float_codes_may_leave_the_greatest_unused() {
        // Over the scale 1 all are near codes that nf4 has; over 0.72 none of the others is.
        let w = [0.72, 0.56, 0.72, -0.7, 0.56, 0.0];
        let m = Matrix { w: &w, n: 1, k: 6 };
        let (_, hi) = ranges(m, None, &coder("nf4"), ROW, 1).unwrap();
        assert!((hi[0] - 1.0).abs() < 0.03, "{hi:?}");
        // Integers are coarser for a greater range.
        let (_, hi) = ranges(m, None, &coder("w4a16-sym"), ROW, 1).unwrap();
        assert!(hi[0] <= 0.72, "{hi:?}");
    }
}
