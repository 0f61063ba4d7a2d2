//! Calibration: what the inputs of quantizable layers look like on data.
//!
//! A [`Calibrator`] runs the float module through an [`Executor`], taps the input of every
//! linear layer and convolution, and keeps its [statistics](crate::ValueStats): by channel (index
//! of the last dimension) for a linear layer, of the whole tensor for a convolution. Hessians are
//! gathered from a [`HessianProbe`] of the module only.
//!
//! **Masks.** If the module has an input `attention_mask[b, s]`, positions where it is 0 are
//! padding. They count in no statistic of a value that has a row for each position: one whose
//! shape begins with `[b, s]`, or with `[b·s]`. Of every other value all rows count.
//!
//! Batches are taken in order, so calibration repeats bit for bit for any number of threads.

mod hessian;
mod observe;

pub use hessian::HessianProbe;
pub(crate) use observe::Observe;

use crate::quantize::sites;
use crate::statistics::Statistics;
use qcc_ir::diag::{Class, Diagnostic, Result};
use qcc_ir::exec::{Executor, Prepared};
use qcc_ir::format::decode_slice;
use qcc_ir::graph::{Func, Module, ValueId, verify};
use qcc_ir::{DType, DimExpr, Tensor};
use std::collections::BTreeMap;

/// Name of the input that says which positions are padding.
const MASK: &str = "attention_mask";

/// A value that calibration looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Point {
    /// The value's name, under which its statistics are kept.
    pub value: String,
    /// Length of its rows: the last dimension of a linear layer's input, else 1.
    pub channels: usize,
    /// The layers that read it.
    pub layers: Vec<String>,
    id: ValueId,
    rows: Rows,
}

/// Which rows of a tapped value belong to which position of the mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rows {
    /// None to any.
    Free,
    /// Equally many consecutive rows to each position.
    ByPosition,
}

/// The values that calibration of a module looks at, in execution order.
pub fn calibration_points(module: &Module) -> Vec<Point> {
    let Some(f) = module.funcs.first() else {
        return Vec::new();
    };
    let mut points: BTreeMap<ValueId, Point> = BTreeMap::new();
    for site in sites(module) {
        let v = f.value(site.input);
        let last = v.ty.shape.last().and_then(DimExpr::as_const);
        let channels = match last.and_then(|n| usize::try_from(n).ok()) {
            Some(n) if !site.conv && n > 0 => n,
            _ => 1,
        };
        let point = points.entry(site.input).or_insert_with(|| Point {
            value: v.name.clone(),
            channels,
            layers: Vec::new(),
            id: site.input,
            rows: rows(f, site.input),
        });
        // A value that a convolution reads too is kept by channel all the same.
        point.channels = point.channels.max(channels);
        point.layers.push(site.name);
    }
    points.into_values().collect()
}

/// Whether each position of the mask has its own rows of a value.
pub(crate) fn has_row_per_position(f: &Func, v: ValueId) -> bool {
    rows(f, v) == Rows::ByPosition
}

/// The mask, if there is one: its position among the parameters.
pub(crate) fn mask(f: &Func) -> Option<usize> {
    f.params.iter().position(|p| {
        let v = f.value(*p);
        let countable =
            v.ty.elem
                .plain()
                .is_some_and(|d| d.is_int() || d == DType::Bool);
        v.name == MASK && v.ty.rank() == 2 && countable
    })
}

fn rows(f: &Func, v: ValueId) -> Rows {
    let Some([b, s]) = mask(f).map(|i| f.ty(f.params[i]).shape.as_slice()) else {
        return Rows::Free;
    };
    match f.ty(v).shape.as_slice() {
        [x, y, _, ..] if x == b && y == s => Rows::ByPosition,
        [x, _, ..] if *x == b * s => Rows::ByPosition,
        _ => Rows::Free,
    }
}

/// Gathers statistics, batch by batch.
pub struct Calibrator<'m> {
    prepared: Box<dyn Prepared + 'm>,
    points: Vec<Point>,
    mask: Option<usize>,
    /// The values of which `XᵀX` are the last results, in their order.
    hessians: Vec<String>,
    statistics: Statistics,
}

impl<'m> Calibrator<'m> {
    /// Prepares to run the entry function of a float module with taps at all its points.
    ///
    /// # Errors
    /// The first violation if the module is not valid; what the executor reports.
    pub fn new(module: &'m Module, executor: &dyn Executor) -> Result<Self> {
        Self::prepare(module, executor, Vec::new())
    }

    /// Prepares to gather Hessians too.
    ///
    /// # Errors
    /// As [`Calibrator::new`].
    pub fn with_hessians(probe: &'m HessianProbe, executor: &dyn Executor) -> Result<Self> {
        Self::prepare(probe.module(), executor, probe.values().to_vec())
    }

    fn prepare(module: &'m Module, executor: &dyn Executor, hessians: Vec<String>) -> Result<Self> {
        if let Some(first) = verify(module).into_iter().next() {
            return Err(first);
        }
        let points = calibration_points(module);
        let taps: Vec<ValueId> = points.iter().map(|p| p.id).collect();
        Ok(Calibrator {
            prepared: executor.prepare(module, &taps)?,
            mask: module.funcs.first().and_then(mask),
            points,
            hessians,
            statistics: Statistics::new(),
        })
    }

    /// The values that are looked at.
    pub fn points(&self) -> &[Point] {
        &self.points
    }

    /// Runs a batch: one tensor per parameter, the first axis of each counting samples.
    ///
    /// # Errors
    /// What the executor reports; `Q0523` for a value that is NaN or infinite; `Q0524` when the
    /// mask does not fit a value.
    pub fn feed(&mut self, inputs: &[Tensor]) -> Result<()> {
        let keep = match self.mask.and_then(|i| inputs.get(i)) {
            Some(mask) => Some(positions(mask)?),
            None => None,
        };
        let (points, statistics) = (&self.points, &mut self.statistics);
        let mut failure = None;
        let results = self.prepared.run(inputs, &mut |i, tensor| {
            if failure.is_none() {
                failure = observe(&points[i], tensor, keep.as_deref(), statistics).err();
            }
        })?;
        if let Some(e) = failure {
            return Err(e);
        }
        let grams = results.len().saturating_sub(self.hessians.len());
        for (name, gram) in self.hessians.iter().zip(&results[grams..]) {
            let channels = gram.dims().first().copied().unwrap_or(0);
            let stats = statistics.entry(name, usize::try_from(channels).unwrap_or(0));
            stats
                .observe_gram(gram.as_slice()?)
                .map_err(|d| d.or_at(format!("value {name}")))?;
        }
        let samples = inputs.first().and_then(|t| t.dims().first());
        self.statistics.samples += samples.copied().unwrap_or(1);
        Ok(())
    }

    /// What was seen.
    pub fn finish(self) -> Statistics {
        self.statistics
    }
}

/// Whether each position of the mask counts.
pub(crate) fn positions(mask: &Tensor) -> Result<Vec<bool>> {
    Ok(numbers(mask)?.iter().map(|m| *m != 0.0).collect())
}

/// The elements as f32.
fn numbers(t: &Tensor) -> Result<Vec<f32>> {
    let mut v = vec![0.0; t.numel()];
    let fail = |e: qcc_ir::format::FormatError| Diagnostic::error(520, Class::Input, e.to_string());
    decode_slice(t.dtype(), t.bytes(), &mut v).map_err(fail)?;
    Ok(v)
}

fn observe(p: &Point, t: &Tensor, keep: Option<&[bool]>, all: &mut Statistics) -> Result<()> {
    let decoded;
    let values: &[f32] = match t.dtype() {
        DType::F32 => t.as_slice()?,
        _ => {
            decoded = numbers(t)?;
            &decoded
        }
    };
    let at = |d: Diagnostic| d.or_at(format!("value {}", p.value));
    let (Some(keep), Rows::ByPosition) = (keep, p.rows) else {
        return all.observe(&p.value, p.channels, values);
    };
    let count = values.len() / p.channels.max(1);
    if keep.is_empty() || !count.is_multiple_of(keep.len()) {
        let message = format!("{count} rows for the {} positions of {MASK}", keep.len());
        return Err(at(Diagnostic::error(524, Class::Input, message)));
    }
    if keep.iter().all(|k| *k) {
        return all.observe(&p.value, p.channels, values);
    }
    let each = (values.len() / keep.len()).max(1);
    let kept = values.chunks(each).zip(keep).filter(|(_, k)| **k);
    let kept: Vec<f32> = kept.flat_map(|(rows, _)| rows).copied().collect();
    all.observe(&p.value, p.channels, &kept)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Oracle, module};

    const MODEL: &str = r#"dim b = 1..9
        dim s = 1..9
        weight @embed: f32[5, 2] = [0.0, 1.0, -2.0, 3.0, 4.0, -5.0, 9.0, 9.0, 0.0, 0.0]
        weight @w: f32[3, 2] = normal(1, 1.0)
        weight @v: f32[1, 3] = normal(2, 1.0)
        func @main(%input_ids: i64[b, s], %attention_mask: i64[b, s]) -> (y: f32[b, s, 3], z: f32[b, s, 1]) {
          %embed: f32[5, 2] = const @embed
          %x: f32[b, s, 2] = gather %embed, %input_ids {axis = 0}
          %w: f32[3, 2] = const @w
          %y: f32[b, s, 3] = linear %x, %w @"fc1"
          %y2: f32[b, s, 3] = linear %x, %w @"fc2"
          %v: f32[1, 3] = const @v
          %r: f32[b, s, 3] = relu %y2
          %z: f32[b, s, 1] = linear %r, %v @"fc3"
          return %y, %z
        }"#;

    fn ids(v: &[i64]) -> Tensor {
        Tensor::i64(&[1, v.len() as u64], v).unwrap()
    }

    #[test]
    fn points_are_the_inputs_of_layers() {
        let m = module(MODEL);
        let found: Vec<_> = calibration_points(&m)
            .into_iter()
            .map(|p| (p.value, p.channels, p.layers))
            .collect();
        let expected = [("x", 2, vec!["fc1", "fc2"]), ("r", 3, vec!["fc3"])];
        let owned = |v: Vec<&str>| v.into_iter().map(String::from).collect::<Vec<_>>();
        assert_eq!(found, expected.map(|(v, c, l)| (v.into(), c, owned(l))));
    }

    #[test]
    fn extremes_by_channel_without_masked_positions() {
        let m = module(MODEL);
        let mut c = Calibrator::new(&m, &Oracle).unwrap();
        c.feed(&[ids(&[0, 1, 3]), ids(&[1, 1, 0])]).unwrap();
        c.feed(&[ids(&[2, 3]), ids(&[1, 0])]).unwrap();
        let s = c.finish();
        let x = s.get("x").unwrap();
        assert_eq!((x.rows, s.samples), (3, 2));
        assert_eq!(x.channel_min, [-2.0, -5.0]);
        assert_eq!(x.channel_max, [4.0, 3.0]);
        assert_eq!(s.get("r").unwrap().rows, 3);
        // Rows 0, -2 and 4 of the table, without the masked ones.
        assert_eq!(x.histogram.as_ref().unwrap().total(), 6);
        assert_eq!(x.sums.as_ref().unwrap().magnitude, [6.0, 9.0]);
        assert_eq!(x.moving, Some((-2.0 + 0.01 * -3.0, 3.0 + 0.01)));
    }

    #[test]
    fn batches_in_any_order_and_merged_give_the_same() {
        let m = module(MODEL);
        let data = [[0, 1], [2, 4], [3, 3]];
        let run = |order: &[usize]| {
            let mut c = Calibrator::new(&m, &Oracle).unwrap();
            for i in order {
                c.feed(&[ids(&data[*i]), ids(&[1, 1])]).unwrap();
            }
            c.finish()
        };
        // Moving averages depend on the order, and the sums here are exact.
        let still = |mut s: Statistics| {
            for name in ["x", "r"] {
                let mut v = s.get(name).unwrap().clone();
                (v.moving, v.history) = (None, None);
                if name == "r" {
                    v.sums = None;
                }
                s.insert(name, v);
            }
            s
        };
        let all = still(run(&[0, 1, 2]));
        assert_eq!(all, still(run(&[2, 0, 1])));
        let mut merged = run(&[2]);
        merged.merge(&run(&[0, 1])).unwrap();
        assert_eq!(all, still(merged));
    }

    #[test]
    fn a_value_that_is_not_finite_is_named() {
        let m = module(
            r#"weight @w: f32[1, 1] = [1.0]
            func @main(%a: f32[1, 1]) -> (y: f32[1, 1]) {
              %x: f32[1, 1] = log %a
              %w: f32[1, 1] = const @w
              %y: f32[1, 1] = linear %x, %w
              return %y
            }"#,
        );
        let mut c = Calibrator::new(&m, &Oracle).unwrap();
        let e = c
            .feed(&[Tensor::f32(&[1, 1], &[0.0]).unwrap()])
            .unwrap_err();
        assert_eq!((e.code().as_str(), e.place()), ("Q0523", Some("value x")));
    }

    #[test]
    fn a_convolution_counts_whole_tensors() {
        let m = module(
            "weight @w: f32[2, 3, 1, 1] = normal(1, 1.0)
             func @main(%x: f32[1, 3, 2, 2]) -> (y: f32[1, 2, 2, 2]) {
               %w: f32[2, 3, 1, 1] = const @w
               %y: f32[1, 2, 2, 2] = conv %x, %w {kernel = [1, 1]}
               return %y
             }",
        );
        let mut c = Calibrator::new(&m, &Oracle).unwrap();
        let x: Vec<f32> = (0..12).map(|i| i as f32 - 8.0).collect();
        c.feed(&[Tensor::f32(&[1, 3, 2, 2], &x).unwrap()]).unwrap();
        let s = c.finish();
        let x = s.get("x").unwrap();
        assert_eq!((x.channels(), x.min(), x.max()), (1, -8.0, 3.0));
    }
}
