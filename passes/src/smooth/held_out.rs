//! The samples that a search measures on, and statistics of the others.
//!
//! A search sees the first samples of a few batches, at most half of each where there is more than
//! one. What is left of all batches tells the ranges that it works with, as other data would. A model
//! that does not take one sample alone takes batches as they are.

use crate::calibrate::Calibrator;
use crate::pass::PassContext;
use crate::quantize::{Assigned, Samples, spread};
use crate::statistics::Statistics;
use qcc_ir::Tensor;
use qcc_ir::diag::Result;
use qcc_ir::graph::{Func, Module};

/// Samples of each batch that a search runs on, at most.
const SAMPLES: u64 = 2;

/// The samples of a search.
pub(super) struct Few<'a> {
    all: &'a dyn Samples,
    batches: Vec<usize>,
    /// Whether the model takes parts of a batch.
    parts: bool,
}

impl<'a> Few<'a> {
    /// Those of `all`, samples of the module's entry function.
    pub(super) fn new(m: &Module, all: &'a dyn Samples) -> Self {
        Few {
            all,
            batches: spread(all.batches()),
            parts: m.funcs.first().is_some_and(|f| takes_one(m, f)),
        }
    }

    /// How many samples of a batch a search sees, and how many there are.
    fn seen(&self, batch: &[Tensor]) -> (u64, u64) {
        let n = batch.first().and_then(|t| t.dims().first());
        let n = n.copied().unwrap_or(1);
        match self.parts {
            true => (SAMPLES.min(n.div_ceil(2)), n),
            false => (n, n),
        }
    }

    /// What a search does not see of a batch, if there is anything.
    fn rest(&self, index: usize) -> Result<Option<Vec<Tensor>>> {
        let all = self.all.batch(index)?;
        if !self.batches.contains(&index) {
            return Ok(Some(all));
        }
        let (seen, n) = self.seen(&all);
        let rest = || all.iter().map(|t| part(t, seen..n)).collect();
        (seen < n).then(rest).transpose()
    }
}

impl Samples for Few<'_> {
    fn batches(&self) -> usize {
        self.batches.len()
    }

    fn batch(&self, index: usize) -> Result<Vec<Tensor>> {
        let all = self.all.batch(self.batches[index])?;
        let (seen, _) = self.seen(&all);
        all.iter().map(|t| part(t, 0..seen)).collect()
    }
}

/// Whether the first axis of each parameter, which counts samples, may be 1.
fn takes_one(m: &Module, f: &Func) -> bool {
    let least = |name: &str| {
        m.symbols
            .iter()
            .find(|s| s.name == name)
            .map(|s| s.min as i64)
    };
    f.params.iter().all(|v| {
        let first = f.ty(*v).shape.first();
        first.is_none_or(|d| d.eval(&least) == Some(1))
    })
}

/// Samples of a batch's tensor; all of one that counts fewer, as what is the same for each.
fn part(t: &Tensor, range: std::ops::Range<u64>) -> Result<Tensor> {
    match t.dims().first() {
        Some(n) if *n >= range.end => t.rows(range),
        _ => Ok(t.clone()),
    }
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
    let few = Few::new(m, all);
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
    fn split(n: &str, batches: &[u64], act: ActMode) -> (Vec<f32>, Option<(f32, f32)>) {
        let text = "dim n = 1..40
            weight @w: f32[3, 2] = splat(1)
            func @main(%x: f32[n, 2]) -> (y: f32[n, 3]) {
              %w: f32[3, 2] = const @w
              %y: f32[n, 3] = linear %x, %w
              return %y
            }";
        let m = module(&text.replace("[n,", &format!("[{n},")));
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
        let few = Few::new(&m, &all);
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
        let of = |batches: &[u64]| split("n", batches, ActMode::Static);
        assert_eq!(of(&[8]), (vec![1.0, 2.0], Some((3.0, 8.0))));
        assert_eq!(of(&[2, 2]), (vec![1.0, 3.0], Some((2.0, 4.0))));
        assert_eq!(of(&[1, 1, 1]), (vec![1.0, 2.0], Some((3.0, 3.0))));
        assert_eq!(of(&[3, 8, 8]).0, [1.0, 2.0, 4.0, 5.0]);
        // Nothing is left: a search takes what there is.
        assert_eq!(of(&[1]), (vec![1.0], None));
        assert_eq!(of(&[1, 1]), (vec![1.0, 2.0], None));
        // Batches of a model that takes two at once are not cut.
        let fixed = split("2", &[2, 2, 2], ActMode::Static);
        assert_eq!(fixed, (vec![1.0, 2.0, 3.0, 4.0], Some((5.0, 6.0))));
        // Ranges of the data themselves need no others.
        assert_eq!(split("n", &[8], ActMode::Dynamic), (vec![1.0, 2.0], None));
    }
}
