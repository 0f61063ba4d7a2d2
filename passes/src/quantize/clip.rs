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
//! Other tools search without data for the least `Σ |δ|^2.4`, in 20 steps of 1 % of the range
//! (compressed-tensors) or 80 (the quantizer of GPTQ's code); here it is the square in 10 steps of
//! 5 %, as with data.

use super::gptq::{Matrix, bounds};
use super::grid::fit;
use super::parallel;
use super::scheme::QuantSpec;
use qcc_ir::format::FormatError;
use qcc_ir::vector::dot_f32;

/// Ranges that are tried, each smaller by a twentieth of the largest.
const TRIALS: usize = 10;

/// The range of each group (row by row, groups of `group` columns) that makes the least error.
///
/// # Errors
/// When a weight is NaN or infinite.
pub(super) fn ranges(
    m: Matrix<'_>,
    gram: Option<&[f64]>,
    spec: QuantSpec,
    group: usize,
    threads: usize,
) -> Result<(Vec<f32>, Vec<f32>), FormatError> {
    let group = group.min(m.k).max(1);
    let grams: Vec<Option<Vec<f32>>> = (0..m.k)
        .step_by(group)
        .map(|at| gram.map(|g| diagonal_block(g, m.k, at, group.min(m.k - at))))
        .collect();
    let rows: Vec<&[f32]> = m.w.chunks(m.k.max(1)).collect();
    let search = |row: &&[f32]| -> Result<Vec<(f32, f32)>, FormatError> {
        let groups = row.chunks(group).zip(&grams);
        groups.map(|(w, g)| best(w, g.as_deref(), spec)).collect()
    };
    let mut all = (Vec::new(), Vec::new());
    for row in parallel::map(&rows, threads, search) {
        for (lo, hi) in row? {
            all.0.push(lo);
            all.1.push(hi);
        }
    }
    Ok(all)
}

fn diagonal_block(gram: &[f64], k: usize, at: usize, width: usize) -> Vec<f32> {
    let rows = (at..at + width).flat_map(|i| &gram[i * k + at..i * k + at + width]);
    rows.map(|v| *v as f32).collect()
}

/// The best range of one group.
fn best(w: &[f32], gram: Option<&[f32]>, spec: QuantSpec) -> Result<(f32, f32), FormatError> {
    let format = spec.format()?;
    let (lo, hi) = bounds(w);
    let absmax = hi.max(-lo);
    let mut found = ((lo, hi), f32::INFINITY);
    let mut delta = vec![0.0f32; w.len()];
    for i in 0..TRIALS {
        let c = absmax * (1.0 - i as f32 / (2 * TRIALS) as f32);
        let range = (lo.max(-c), hi.min(c));
        let (scale, zero) = fit(&spec, range.0, range.1)?;
        for (d, x) in delta.iter_mut().zip(w) {
            let mut code = format.quantize(x.clamp(-c, c), scale, zero);
            if let Some(l) = spec.levels() {
                code = code.clamp(l.min, l.max);
            }
            *d = format.dequantize(code, scale, zero) - x;
        }
        let error = match gram {
            Some(g) => g
                .chunks(w.len())
                .zip(&delta)
                .map(|(row, d)| d * dot_f32(row, &delta))
                .sum(),
            None => dot_f32(&delta, &delta),
        };
        if error < found.1 {
            found = (range, error);
        }
    }
    Ok(found.0)
}

#[cfg(test)]
mod tests {
    use super::super::Scheme;
    use super::*;

    fn spec(name: &str) -> QuantSpec {
        Scheme::named(name)
            .unwrap()
            .weights
            .unwrap()
            .resolved(true)
            .0
    }

    #[test]
    fn an_outlier_that_does_not_matter_is_cut() {
        let mut w: Vec<f32> = (0..16).map(|i| (i as f32 - 8.0) * 0.01).collect();
        w[3] = 0.2;
        let m = Matrix { w: &w, n: 1, k: 16 };
        let mut gram = vec![0.0; 256];
        for i in 0..16 {
            gram[i * 17] = if i == 3 { 0.001 } else { 1.0 };
        }
        let s = spec("w4a16-g16-asym");
        let (_, hi) = ranges(m, Some(&gram), s, 16, 2).unwrap();
        assert!(hi[0] < 0.15, "{hi:?}");
        gram[3 * 17] = 1000.0;
        let (lo, hi) = ranges(m, Some(&gram), s, 16, 2).unwrap();
        assert!(lo[0] == -0.08 && hi[0] > 0.17, "{lo:?} {hi:?}");
    }

    #[test]
    fn zeros_and_numbers_that_are_none() {
        let s = spec("w4a16-g16-asym");
        let m = |w| Matrix { w, n: 1, k: 2 };
        assert_eq!(
            ranges(m(&[0.0, 0.0]), None, s, 16, 1).unwrap(),
            (vec![0.0], vec![0.0])
        );
        assert!(ranges(m(&[0.0, f32::NAN]), None, s, 16, 1).is_err());
        assert!(ranges(m(&[0.0, f32::INFINITY]), None, s, 16, 1).is_err());
    }
}
