//! What the float model predicts, to compare other predictions with.
//!
//! ```text
//! KL(p ‖ q) = Σ p·(a − b) + log Σ exp b − log Σ exp a,   p = softmax a, q = softmax b
//! ```
//!
//! for a row of logits `a` of the float model and `b` of the other. `p` and the sum of `a` are
//! computed once, so that a comparison takes one exponential for each logit. Rows are compared on
//! several threads and added up in their order.

use crate::logits::log_sum_exp;
use crate::parallel;
use qcc_ir::Tensor;
use qcc_ir::diag::{Class, Diagnostic, Result};
use qcc_ir::format::decode_slice;

/// Rows that are one piece of work.
const PIECE: usize = 64;

/// The float model's predictions on batches.
pub struct Reference {
    batches: Vec<Batch>,
    threads: usize,
}

struct Batch {
    dims: Vec<u64>,
    width: usize,
    logits: Vec<f32>,
    p: Vec<f32>,
    /// The logarithm of the sum of each row's exponentials.
    log_sums: Vec<f64>,
}

impl Reference {
    /// The predictions by these logits, classes along the last dimension, compared on so many
    /// threads.
    ///
    /// # Errors
    /// When the logits are no floats.
    pub fn new(logits: &[Tensor], threads: usize) -> Result<Self> {
        let batches = logits.iter().map(Batch::new).collect::<Result<_>>()?;
        Ok(Reference { batches, threads })
    }

    /// The mean over rows of the divergence of other predictions from these, in nats.
    ///
    /// # Errors
    /// `Q0535` when the shapes differ.
    pub fn divergence(&self, other: &[Tensor]) -> Result<f64> {
        let (mut sum, mut rows) = (0.0, 0usize);
        for (float, b) in self.batches.iter().zip(other) {
            if float.dims != b.dims() {
                let (a, b) = (&float.dims, b.dims());
                let message = format!("logits have the shapes {a:?} and {b:?}");
                return Err(Diagnostic::error(535, Class::Input, message));
            }
            let b = numbers(b)?;
            let firsts: Vec<usize> = (0..float.log_sums.len()).step_by(PIECE).collect();
            let piece = |first: &usize| -> Vec<f64> {
                let last = (first + PIECE).min(float.log_sums.len());
                (*first..last).map(|row| float.kl(row, &b)).collect()
            };
            let all = parallel::map(&firsts, self.threads, piece);
            for kl in all.iter().flatten() {
                sum += kl;
                rows += 1;
            }
        }
        Ok(sum / rows.max(1) as f64)
    }
}

impl Batch {
    fn new(t: &Tensor) -> Result<Batch> {
        let logits = numbers(t)?;
        let width = t.dims().last().map_or(1, |n| *n as usize).max(1);
        let log_sums: Vec<f64> = logits.chunks(width).map(log_sum_exp).collect();
        let rows = logits.chunks(width).zip(&log_sums);
        let p = rows.flat_map(|(row, sum)| row.iter().map(move |a| probability(*a, *sum)));
        Ok(Batch {
            dims: t.dims().to_vec(),
            width,
            p: p.collect(),
            logits,
            log_sums,
        })
    }

    fn kl(&self, row: usize, other: &[f32]) -> f64 {
        let at = row * self.width..(row + 1) * self.width;
        let b = &other[at.clone()];
        let (a, p) = (&self.logits[at.clone()], &self.p[at]);
        let terms = a.iter().zip(b).zip(p);
        let mean: f64 = terms
            .map(|((a, b), p)| f64::from(*p) * (f64::from(*a) - f64::from(*b)))
            .sum();
        (mean + log_sum_exp(b) - self.log_sums[row]).max(0.0)
    }
}

fn probability(logit: f32, log_sum: f64) -> f32 {
    libm::exp(f64::from(logit) - log_sum) as f32
}

fn numbers(t: &Tensor) -> Result<Vec<f32>> {
    let mut v = vec![0.0f32; t.numel()];
    decode_slice(t.dtype(), t.bytes(), &mut v)
        .map_err(|e| Diagnostic::error(520, Class::Input, e.to_string()))?;
    Ok(v)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divergence_is_that_of_the_definition() {
        let t = |v: &[f32]| vec![Tensor::f32(&[2, 2], v).unwrap()];
        let p = t(&[0.25f32.ln(), 0.75f32.ln(), 0.0, 0.0]);
        let q = t(&[0.5f32.ln(), 0.5f32.ln(), 0.0, 0.0]);
        let expected = (0.25 * 0.5f64.ln() + 0.75 * 1.5f64.ln()) / 2.0;
        let reference = Reference::new(&p, 1).unwrap();
        assert!((reference.divergence(&q).unwrap() - expected).abs() < 1e-7);
        assert!(reference.divergence(&p).unwrap() < 1e-12);
        let other = vec![Tensor::f32(&[1, 4], &[0.0; 4]).unwrap()];
        assert_eq!(reference.divergence(&other).unwrap_err().code(), "Q0535");
    }

    #[test]
    fn small_divergences_are_exact_and_threads_do_not_show() {
        // Logits that differ by 1e-3 · sin: the divergence is half of their variance under p.
        let (rows, width) = (200, 97);
        let a: Vec<f32> = (0..rows * width)
            .map(|i| (i as f32 * 0.37).sin() * 3.0)
            .collect();
        let b: Vec<f32> = a
            .iter()
            .enumerate()
            .map(|(i, v)| v + (i as f32 * 0.11).sin() * 1e-3)
            .collect();
        let mut expected = 0.0;
        for (a, b) in a.chunks(width).zip(b.chunks(width)) {
            let z: f64 = a.iter().map(|v| f64::from(*v).exp()).sum();
            let p = |i: usize| f64::from(a[i]).exp() / z;
            let d = |i: usize| f64::from(b[i]) - f64::from(a[i]);
            let mean: f64 = (0..width).map(|i| p(i) * d(i)).sum();
            let square: f64 = (0..width).map(|i| p(i) * d(i) * d(i)).sum();
            expected += (square - mean * mean) / 2.0 / rows as f64;
        }
        let t = |v: &[f32]| vec![Tensor::f32(&[rows as u64, width as u64], v).unwrap()];
        let kl = |threads| {
            let reference = Reference::new(&t(&a), threads).unwrap();
            reference.divergence(&t(&b)).unwrap()
        };
        assert!(
            (kl(1) / expected - 1.0).abs() < 1e-2,
            "{} {expected}",
            kl(1)
        );
        assert_eq!(kl(1), kl(3));
    }
}
