//! How good a model is, and how far a quantized one is from its float original: likelihood and
//! divergence of a language model ([`Evaluator`]), or the differences of any outputs
//! ([`Difference`]).

mod divergence;
mod language;
mod outputs;

pub use divergence::Divergence;
pub(crate) use divergence::Position;
pub use language::{Evaluator, Quality};
pub use outputs::{Difference, Differences};

use qcc_ir::Tensor;
use qcc_ir::diag::{Class, Diagnostic, Result};
use qcc_ir::format::{Real, decode_slice};

fn bad(message: String) -> Diagnostic {
    Diagnostic::error(522, Class::Input, message)
}

/// The elements of a tensor as floats.
pub(crate) fn floats<T: Real + Default + Clone>(t: &Tensor) -> Result<Vec<T>> {
    let mut v = vec![T::default(); t.numel()];
    decode_slice(t.dtype(), t.bytes(), &mut v).map_err(|e| bad(e.to_string()))?;
    Ok(v)
}

/// Position of the largest value, the first of equals.
fn argmax<T: PartialOrd>(x: &[T]) -> usize {
    (1..x.len()).fold(0, |best, i| if x[i] > x[best] { i } else { best })
}
