//! How the outputs of a model differ from those of another on the same inputs.
//!
//! ```text
//! relative error = ‖a − b‖ / ‖b‖        cosine = a·b / (‖a‖ ‖b‖)
//! ```

use super::{argmax, floats};
use qcc_ir::Tensor;
use qcc_ir::diag::{Class, Diagnostic, Result};
use serde::Serialize;

/// How two outputs differ over all samples.
#[derive(Clone, Debug, Serialize)]
pub struct Difference {
    /// The output.
    pub name: String,
    /// `‖a − b‖ / ‖b‖`
    pub relative_error: f64,
    /// `a·b / (‖a‖ ‖b‖)`
    pub cosine: f64,
    /// Share of rows along the last axis with the same largest element.
    pub top1: f64,
    /// Largest `|a − b|`.
    pub max_abs: f64,
}

/// Accumulates differences over batches, in order.
#[derive(Debug, Default)]
pub struct Differences(Vec<(String, Sums)>);

#[derive(Debug, Default)]
struct Sums {
    diff: f64,
    base: f64,
    ours: f64,
    dot: f64,
    max: f64,
    same: u64,
    rows: u64,
}

fn bad(message: String) -> Diagnostic {
    Diagnostic::error(525, Class::Input, message)
}

impl Differences {
    /// Nothing compared yet.
    pub fn new() -> Self {
        Differences::default()
    }

    /// Adds the outputs of a batch: each of `ours` against the one of its name in `base`.
    ///
    /// # Errors
    /// `Q0525` when `base` has no output of a name, or one of another shape.
    pub fn add(&mut self, ours: &[(String, Tensor)], base: &[(String, Tensor)]) -> Result<()> {
        for (name, t) in ours {
            let b = base.iter().find(|(n, _)| n == name);
            let (_, b) = b.ok_or_else(|| bad(format!("the model has no output `{name}`")))?;
            let at = self.0.iter().position(|(n, _)| n == name);
            let at = at.unwrap_or_else(|| {
                self.0.push((name.clone(), Sums::default()));
                self.0.len() - 1
            });
            self.0[at].1.add(t, b)?;
        }
        Ok(())
    }

    /// The differences so far, in the order of the outputs.
    pub fn finish(self) -> Vec<Difference> {
        self.0.into_iter().map(|(n, s)| s.finish(n)).collect()
    }
}

impl Sums {
    fn add(&mut self, a: &Tensor, b: &Tensor) -> Result<()> {
        if a.dims() != b.dims() {
            let (a, b) = (a.dims(), b.dims());
            return Err(bad(format!("outputs have the shapes {a:?} and {b:?}")));
        }
        let (x, y) = (floats::<f64>(a)?, floats::<f64>(b)?);
        let n = a.dims().last().map_or(1, |n| *n as usize).max(1);
        for (x, y) in x.chunks(n).zip(y.chunks(n)) {
            for (x, y) in x.iter().zip(y) {
                self.diff += (x - y) * (x - y);
                self.base += y * y;
                self.ours += x * x;
                self.dot += x * y;
                self.max = self.max.max((x - y).abs());
            }
            self.rows += 1;
            self.same += u64::from(argmax(x) == argmax(y));
        }
        Ok(())
    }

    fn finish(self, name: String) -> Difference {
        let ratio = |a: f64, b: f64| if a == 0.0 { 0.0 } else { a / b };
        Difference {
            name,
            relative_error: ratio(self.diff.sqrt(), self.base.sqrt()),
            cosine: if self.dot == 0.0 && self.base == self.ours {
                1.0
            } else {
                ratio(self.dot, (self.base * self.ours).sqrt())
            },
            top1: ratio(self.same as f64, self.rows as f64),
            max_abs: self.max,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outputs(v: &[f32]) -> Vec<(String, Tensor)> {
        let t = Tensor::f32(&[v.len() as u64 / 2, 2], v).unwrap();
        vec![("y".to_string(), t)]
    }

    #[test]
    fn differences_are_those_of_the_definition() {
        let mut d = Differences::new();
        d.add(&outputs(&[3.0, 4.0]), &outputs(&[3.0, 0.0])).unwrap();
        d.add(&outputs(&[0.0, 2.0]), &outputs(&[0.0, 4.0])).unwrap();
        let d = &d.finish()[0];
        assert_eq!((d.name.as_str(), d.top1, d.max_abs), ("y", 0.5, 4.0));
        assert!((d.relative_error - (20f64 / 25.0).sqrt()).abs() < 1e-12);
        assert!((d.cosine - 17.0 / (29f64 * 25.0).sqrt()).abs() < 1e-12);
    }

    #[test]
    fn outputs_must_pair() {
        let mut d = Differences::new();
        let (two, four) = (outputs(&[0.0; 2]), outputs(&[0.0; 4]));
        assert_eq!(d.add(&two, &four).unwrap_err().code(), "Q0525");
        assert_eq!(d.add(&two, &[]).unwrap_err().code(), "Q0525");
    }
}
