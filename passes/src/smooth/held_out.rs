//! The samples that a search measures on, and statistics of the others.
//!
//! A search sees the first samples of a few batches, at most half of each where there is more than
//! one. What is left of all batches tells the ranges that it works with, as other data would.

use crate::calibrate::Calibrator;
use crate::pass::PassContext;
use crate::quantize::{Assigned, Samples, spread};
use crate::statistics::Statistics;
use qcc_ir::Tensor;
use qcc_ir::diag::Result;
use qcc_ir::graph::Module;

/// Samples of each batch that a search runs on, at most.
const SAMPLES: u64 = 2;

/// The samples of a search.
pub(super) struct Few<'a> {
    all: &'a dyn Samples,
    batches: Vec<usize>,
}

impl<'a> Few<'a> {
    pub(super) fn new(all: &'a dyn Samples) -> Self {
        Few {
            all,
            batches: spread(all.batches()),
        }
    }

    /// What a search does not see of a batch, if there is anything.
    fn rest(&self, index: usize) -> Result<Option<Vec<Tensor>>> {
        let all = self.all.batch(index)?;
        if !self.batches.contains(&index) {
            return Ok(Some(all));
        }
        let n = samples(&all);
        let rest = || all.iter().map(|t| part(t, seen(n)..n)).collect();
        (seen(n) < n).then(rest).transpose()
    }
}

impl Samples for Few<'_> {
    fn batches(&self) -> usize {
        self.batches.len()
    }

    fn batch(&self, index: usize) -> Result<Vec<Tensor>> {
        let all = self.all.batch(self.batches[index])?;
        let n = seen(samples(&all));
        all.iter().map(|t| part(t, 0..n)).collect()
    }
}

/// How many of so many samples a search sees.
fn seen(all: u64) -> u64 {
    SAMPLES.min(all.div_ceil(2))
}

/// Samples of a batch: the first axis of its tensors counts them.
fn samples(batch: &[Tensor]) -> u64 {
    let n = batch.first().and_then(|t| t.dims().first());
    n.copied().unwrap_or(1)
}

/// Samples of a batch's tensor.
fn part(t: &Tensor, range: std::ops::Range<u64>) -> Result<Tensor> {
    let Some((all, rest)) = t.dims().split_first().filter(|(n, _)| **n >= range.end) else {
        return Ok(t.clone());
    };
    let dims = [&[range.end - range.start], rest].concat();
    let each = t.bytes().len() as u64 / all.max(&1);
    let bytes = (each * range.start) as usize..(each * range.end) as usize;
    Tensor::from_bytes(t.dtype(), &dims, &t.bytes()[bytes])
}

/// Statistics of what a search does not see, where it matters: layers have static ranges, and what
/// is left has seen every value.
///
/// # Errors
/// What the executor reports.
pub(super) fn statistics(
    m: &Module,
    ctx: &PassContext<'_>,
    layers: &[Assigned],
    whole: &Statistics,
) -> Result<Option<Statistics>> {
    let (Some(executor), Some(all)) = (ctx.executor, ctx.samples) else {
        return Ok(None);
    };
    let is_static = |l: &Assigned| {
        l.choice
            .and_then(|q| q.acts)
            .is_some_and(|a| a.scale.is_some())
    };
    if !layers.iter().any(is_static) {
        return Ok(None);
    }
    let few = Few::new(all);
    let mut calibrator = Calibrator::new(m, executor)?;
    for i in 0..all.batches() {
        if let Some(rest) = few.rest(i)? {
            calibrator.feed(&rest)?;
        }
    }
    let rest = calibrator.finish();
    let seen = |name: &str| rest.get(name).is_some_and(|s| s.rows > 0);
    let all = whole.iter().all(|(name, s)| s.rows == 0 || seen(name));
    Ok(all.then_some(rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Options;
    use crate::quantize::assign;
    use crate::testing::{Oracle, module};
    use crate::{ActMode, Scheme};

    /// Batches of so many samples, whose values count.
    struct Counted(Vec<u64>);

    impl Samples for Counted {
        fn batches(&self) -> usize {
            self.0.len()
        }

        fn batch(&self, index: usize) -> Result<Vec<Tensor>> {
            let before: u64 = self.0[..index].iter().sum();
            let values: Vec<f32> = (0..self.0[index])
                .flat_map(|i| [(before + i) as f32 + 1.0; 2])
                .collect();
            Ok(vec![Tensor::f32(&[self.0[index], 2], &values)?])
        }
    }

    /// The samples that a search sees, and those of which there are statistics.
    fn split(batches: &[u64], act: ActMode) -> (Vec<f32>, Option<(f32, f32)>) {
        let m = module(
            "dim n = 1..40
            weight @w: f32[3, 2] = splat(1)
            func @main(%x: f32[n, 2]) -> (y: f32[n, 3]) {
              %w: f32[3, 2] = const @w
              %y: f32[n, 3] = linear %x, %w
              return %y
            }",
        );
        let all = Counted(batches.to_vec());
        let options = Options {
            scheme: Scheme::named("int8").unwrap(),
            act,
            ..Options::default()
        };
        let mut ctx = crate::PassContext::new(&options);
        let mut whole = Calibrator::new(&m, &Oracle).unwrap();
        (0..all.batches()).for_each(|i| whole.feed(&all.batch(i).unwrap()).unwrap());
        let whole = whole.finish();
        ctx.statistics = Some(whole.clone());
        ctx.samples = Some(&all);
        ctx.executor = Some(&Oracle);
        let layers = assign(&m, &ctx).unwrap();
        let rest = statistics(&m, &ctx, &layers, &whole).unwrap();
        let few = Few::new(&all);
        let seen = (0..few.batches()).flat_map(|i| {
            let t = few.batch(i).unwrap().remove(0);
            t.as_slice::<f32>()
                .unwrap()
                .iter()
                .step_by(2)
                .copied()
                .collect::<Vec<_>>()
        });
        let range = |s: Statistics| {
            let x = s.get("x").unwrap();
            (x.channel_min[0], x.channel_max[0])
        };
        (seen.collect(), rest.map(range))
    }

    #[test]
    fn no_sample_is_on_both_sides() {
        let of = |batches: &[u64]| split(batches, ActMode::Static);
        assert_eq!(of(&[8]), (vec![1.0, 2.0], Some((3.0, 8.0))));
        assert_eq!(of(&[2, 2]), (vec![1.0, 3.0], Some((2.0, 4.0))));
        assert_eq!(of(&[1, 1, 1]), (vec![1.0, 2.0], Some((3.0, 3.0))));
        assert_eq!(of(&[3, 8, 8]).0, [1.0, 2.0, 4.0, 5.0]);
        // Nothing is left: a search takes what there is.
        assert_eq!(of(&[1]), (vec![1.0], None));
        assert_eq!(of(&[1, 1]), (vec![1.0, 2.0], None));
        // Ranges of the data themselves need no others.
        assert_eq!(split(&[8], ActMode::Dynamic), (vec![1.0, 2.0], None));
    }
}
