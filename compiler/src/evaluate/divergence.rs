//! How far predicted distributions are from those of a baseline.
//!
//! ```text
//! KL(p ‖ q) = Σ p · (ln p − ln q)  in nats,   p = softmax(baseline),  q = softmax(model)
//! ```

use super::argmax;
use serde::Serialize;

/// How far predictions are from those of a baseline.
#[derive(Clone, Debug, Serialize)]
pub struct Divergence {
    /// Mean KL(baseline ‖ model), in nats.
    pub kl: f64,
    /// The KL that 99.9 % of the tokens stay below.
    pub kl_p999: f64,
    /// Share of tokens for which both predict the same most likely token.
    pub top1: f64,
}

/// The divergence at one position.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Position {
    /// KL(baseline ‖ model).
    pub(crate) kl: f64,
    /// Whether both predict the same most likely token.
    pub(crate) same: bool,
}

impl Position {
    /// Compares logits; `norms` are the `log_sum_exp` of the baseline's and the model's.
    pub(crate) fn of(base: &[f32], model: &[f32], norms: (f64, f64)) -> Self {
        let term = |(b, m): (&f32, &f32)| {
            let lp = f64::from(*b) - norms.0;
            libm::exp(lp) * (lp - (f64::from(*m) - norms.1))
        };
        Position {
            kl: base.iter().zip(model).map(term).sum(),
            same: argmax(base) == argmax(model),
        }
    }
}

impl Divergence {
    /// The mean over positions, in their order; `None` of none.
    pub(crate) fn of(positions: &[Position]) -> Option<Divergence> {
        let n = positions.len() as f64;
        let mut sorted: Vec<f64> = positions.iter().map(|p| p.kl).collect();
        let sum: f64 = sorted.iter().sum();
        sorted.sort_by(f64::total_cmp);
        let at = (sorted.len() * 999 / 1000).min(sorted.len().checked_sub(1)?);
        Some(Divergence {
            kl: sum / n,
            kl_p999: sorted[at],
            top1: positions.iter().filter(|p| p.same).count() as f64 / n,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use qcc_passes::log_sum_exp;

    #[test]
    fn divergence_is_that_of_the_definition() {
        let p = [0.25f32.ln(), 0.75f32.ln()];
        let q = [0.5f32.ln() + 3.0, 0.5f32.ln() + 3.0];
        let at = Position::of(&p, &q, (log_sum_exp(&p), log_sum_exp(&q)));
        let want = 0.25 * (0.25f64 / 0.5).ln() + 0.75 * (0.75f64 / 0.5).ln();
        assert!((at.kl - want).abs() < 1e-6 && !at.same, "{at:?}");
        let d = Divergence::of(&[at, Position::default()]).unwrap();
        assert!((d.kl - want / 2.0).abs() < 1e-6 && d.kl_p999 == at.kl);
        assert!(Divergence::of(&[]).is_none());
    }
}
