//! How good a language model is, and how far a quantized one is from its float original.
//!
//! ```text
//! nll = mean over predicted tokens of −ln p(token)        perplexity = e^nll
//! kl  = mean over predicted tokens of Σ p_float · (ln p_float − ln p)     in nats
//! ```
//!
//! Every window of `L` tokens predicts its tokens 1 … L−1, each given its prefix in the window.

use super::divergence::{Divergence, Position};
use super::{bad, floats};
use qcc_ir::Tensor;
use qcc_ir::diag::Result;
use qcc_passes::log_sum_exp;
use serde::Serialize;

/// Perplexity and, against a baseline, divergence.
#[derive(Clone, Debug, Serialize)]
pub struct Quality {
    /// `e^nll`.
    pub perplexity: f64,
    /// Mean negative log likelihood of a predicted token, in nats.
    pub nll: f64,
    /// Predicted tokens.
    pub tokens: u64,
    /// Windows.
    pub windows: u64,
    /// Against the baseline, if there is one.
    #[serde(flatten)]
    pub divergence: Option<Divergence>,
    /// Perplexity of the baseline, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub baseline_perplexity: Option<f64>,
}

/// Accumulates quality over windows, in order.
#[derive(Debug, Default)]
pub struct Evaluator {
    nll: f64,
    base_nll: f64,
    tokens: u64,
    windows: u64,
    positions: Vec<Position>,
}

impl Evaluator {
    /// An evaluator that has seen nothing.
    pub fn new() -> Self {
        Evaluator::default()
    }

    /// Adds windows: `ids` i64 `[b, L]`, logits `[b, L, V]` of the model and the baseline.
    ///
    /// # Errors
    /// `Q0522` when shapes do not fit or a token is outside the vocabulary.
    pub fn add(&mut self, ids: &Tensor, logits: &Tensor, baseline: Option<&Tensor>) -> Result<()> {
        let (&[b, l], &[lb, ll, v]) = (ids.dims(), logits.dims()) else {
            return Err(bad(format!(
                "tokens {:?} and logits {:?} are not [b, L] and [b, L, V]",
                ids.dims(),
                logits.dims()
            )));
        };
        if b != lb || l != ll || v == 0 || baseline.is_some_and(|t| t.dims() != logits.dims()) {
            return Err(bad(format!(
                "logits {:?} do not fit tokens {:?} or the baseline",
                logits.dims(),
                ids.dims()
            )));
        }
        let (v, l) = (v as usize, l as usize);
        let model = floats::<f32>(logits)?;
        let base = baseline.map(floats::<f32>).transpose()?;
        for (w, ids) in ids.as_slice::<i64>()?.chunks(l.max(1)).enumerate() {
            for (t, next) in ids.iter().enumerate().skip(1) {
                let at = (w * l + t - 1) * v;
                let next = usize::try_from(*next).ok().filter(|n| *n < v);
                let next = next.ok_or_else(|| {
                    bad(format!("token {} is outside the vocabulary of {v}", ids[t]))
                })?;
                self.position(
                    &model[at..at + v],
                    base.as_ref().map(|b| &b[at..at + v]),
                    next,
                );
            }
            self.windows += 1;
        }
        Ok(())
    }

    fn position(&mut self, logits: &[f32], base: Option<&[f32]>, next: usize) {
        let z = log_sum_exp(logits);
        self.nll += z - f64::from(logits[next]);
        self.tokens += 1;
        let Some(base) = base else { return };
        let zb = log_sum_exp(base);
        self.base_nll += zb - f64::from(base[next]);
        self.positions.push(Position::of(base, logits, (zb, z)));
    }

    /// The result so far.
    ///
    /// # Errors
    /// `Q0522` when no token was predicted.
    pub fn finish(self) -> Result<Quality> {
        if self.tokens == 0 {
            return Err(bad(
                "no token is predicted: windows need at least two tokens".into(),
            ));
        }
        let n = self.tokens as f64;
        let nll = self.nll / n;
        let divergence = Divergence::of(&self.positions);
        Ok(Quality {
            perplexity: libm::exp(nll),
            nll,
            tokens: self.tokens,
            windows: self.windows,
            baseline_perplexity: divergence.as_ref().map(|_| libm::exp(self.base_nll / n)),
            divergence,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uniform_logits_have_the_perplexity_of_the_vocabulary() {
        let mut e = Evaluator::new();
        let ids = Tensor::i64(&[1, 3], &[0, 3, 1]).unwrap();
        let logits = Tensor::f32(&[1, 3, 4], &[0.0; 12]).unwrap();
        e.add(&ids, &logits, Some(&logits)).unwrap();
        let q = e.finish().unwrap();
        assert!((q.perplexity - 4.0).abs() < 1e-9);
        assert_eq!((q.tokens, q.windows), (2, 1));
        let d = q.divergence.unwrap();
        assert!(d.kl.abs() < 1e-12 && d.top1 == 1.0);
        assert!((q.baseline_perplexity.unwrap() - 4.0).abs() < 1e-9);
    }

    #[test]
    fn tokens_outside_the_vocabulary_are_refused() {
        let mut e = Evaluator::new();
        let ids = Tensor::i64(&[1, 2], &[0, 9]).unwrap();
        let logits = Tensor::f32(&[1, 2, 4], &[0.0; 8]).unwrap();
        assert_eq!(e.add(&ids, &logits, None).unwrap_err().code(), "Q0522");
        assert!(Evaluator::new().finish().is_err());
    }
}
