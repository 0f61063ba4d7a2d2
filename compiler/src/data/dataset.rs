//! Samples for the inputs of a model.
//!
//! A `.npy` file feeds the model's only required input; an `.npz` names inputs. The first axis
//! counts samples. The inputs of a language model that a caller usually leaves out are filled in:
//! `attention_mask` with ones, `position_ids` with 0, 1, …, `token_type_ids` with zeros.
//!
//! Samples are run in batches of sizes that the model takes: exported for one sample, one by one.

use super::{data_error, read_npy, read_npz};
use qcc_ir::diag::{Class, Diagnostic, Result};
use qcc_ir::plan::{Interface, Port};
use qcc_ir::{DType, Tensor};
use std::path::Path;

/// Inputs that are filled in when no data is given for them.
const OPTIONAL: [&str; 3] = ["attention_mask", "position_ids", "token_type_ids"];

/// Samples of a batch, at most.
const BATCH: usize = 8;
/// Tokens of a batch, at most, where no sample has more: what a run holds grows with them.
const TOKENS: u64 = 2048;

/// Samples of a model's inputs.
#[derive(Clone, Debug)]
pub struct Dataset {
    inputs: Vec<Source>,
    samples: usize,
    /// How many samples the model takes at once, at least and at most.
    sizes: (usize, usize),
}

#[derive(Clone, Debug)]
enum Source {
    Given(Tensor),
    /// Filled in beside the given input at this position.
    Filled {
        like: usize,
        fill: Fill,
    },
}

#[derive(Clone, Copy, Debug)]
enum Fill {
    Ones,
    Zeros,
    Positions,
}

impl Dataset {
    /// Reads a `.npy` or `.npz` file for the inputs of a model.
    ///
    /// # Errors
    /// `Q0520` and `Q0521`: the file cannot be read, an input has no data, a name is unknown, the
    /// arrays count different numbers of samples, or fewer than the model takes at once.
    pub fn open(path: &Path, model: &Interface) -> Result<Dataset> {
        let required: Vec<&Port> = model
            .inputs
            .iter()
            .filter(|p| !OPTIONAL.contains(&p.name.as_str()))
            .collect();
        let arrays = if path.extension().is_some_and(|e| e == "npz") {
            read_npz(path)?
                .into_iter()
                .map(|(n, t)| (n.strip_prefix("in.").unwrap_or(&n).to_string(), t))
                .collect()
        } else {
            let [only] = required.as_slice() else {
                let names: Vec<&str> = required.iter().map(|p| p.name.as_str()).collect();
                return Err(data_error(
                    path,
                    format!(
                        "a .npy feeds one input, but the model needs {}",
                        names.join(", ")
                    ),
                )
                .hint("give an .npz with an array for each"));
            };
            vec![(only.name.clone(), read_npy(path)?)]
        };
        Dataset::new(arrays, model).map_err(|d| d.or_at(path.display().to_string()))
    }

    /// A dataset of named arrays whose first axes count samples. Arrays named `out.*` are left
    /// aside.
    ///
    /// # Errors
    /// `Q0521` as [`Dataset::open`].
    pub fn new(arrays: Vec<(String, Tensor)>, model: &Interface) -> Result<Dataset> {
        let ports = &model.inputs;
        let bad = |m: String| Diagnostic::error(521, Class::Input, m);
        let given: Vec<(usize, Tensor)> = arrays
            .into_iter()
            .filter(|(n, _)| !n.starts_with("out."))
            .map(|(n, t)| match ports.iter().position(|p| p.name == n) {
                Some(i) => Ok((i, t)),
                None => {
                    let names: Vec<&str> = ports.iter().map(|p| p.name.as_str()).collect();
                    Err(bad(format!("the model has no input `{n}`"))
                        .hint(format!("its inputs are {}", names.join(", "))))
                }
            })
            .collect::<Result<_>>()?;
        let count = |t: &Tensor| t.dims().first().copied().unwrap_or(1) as usize;
        let samples = given.first().map_or(0, |(_, t)| count(t));
        if let Some((i, t)) = given.iter().find(|(_, t)| count(t) != samples) {
            return Err(bad(format!(
                "`{}` holds {} samples, another input {samples}",
                ports[*i].name,
                count(t)
            )));
        }
        let sizes = sizes(model);
        if let Some((i, _)) = given.iter().find(|_| samples > 0 && samples < sizes.0) {
            return Err(bad(format!(
                "`{}` holds {samples} samples, the model takes {} at once",
                ports[*i].name, sizes.0
            )));
        }
        let like = given.iter().map(|(i, _)| *i).min().unwrap_or(0);
        let inputs = ports
            .iter()
            .enumerate()
            .map(|(i, p)| {
                if let Some((_, t)) = given.iter().find(|(j, _)| *j == i) {
                    return Ok(Source::Given(t.clone()));
                }
                let fill = match p.name.as_str() {
                    "attention_mask" => Fill::Ones,
                    "position_ids" => Fill::Positions,
                    "token_type_ids" => Fill::Zeros,
                    _ => {
                        return Err(bad(format!(
                            "no data for the input `{}` ({}{:?})",
                            p.name, p.dtype, p.dims
                        )));
                    }
                };
                Ok(Source::Filled { like, fill })
            })
            .collect::<Result<_>>()?;
        Ok(Dataset {
            inputs,
            samples,
            sizes,
        })
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        self.samples
    }

    /// Whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.samples == 0
    }

    /// The first `count` samples, or all if there are fewer, in batches: the first of each, and how
    /// many. A batch has at most 8 samples, and at most 2048 tokens unless one sample has more, as
    /// far as the model takes such batches: the count grows to the least that it takes, and samples
    /// that do not fill that are left out.
    pub fn batches(&self, count: usize) -> impl Iterator<Item = (usize, usize)> + use<> {
        self.batches_of(BATCH, count)
    }

    /// As [`Dataset::batches`], with at most `most` samples in each where the model takes so few.
    pub fn batches_of(
        &self,
        most: usize,
        count: usize,
    ) -> impl Iterator<Item = (usize, usize)> + use<> {
        let tokens = |s: &Source| match s {
            Source::Given(t) if t.dtype().is_int() && t.dims().len() == 2 => Some(t.dims()[1]),
            _ => None,
        };
        let longest = self.inputs.iter().filter_map(tokens).max().unwrap_or(1);
        let (least, fits) = self.sizes;
        let size = (TOKENS / longest.max(1)).clamp(1, most.max(1) as u64) as usize;
        let size = size.min(fits).max(least);
        let count = count.max(least).min(self.samples);
        let starts = (0..count).step_by(size);
        let all = starts.map(move |first| (first, size.min(count - first)));
        all.filter(move |(_, n)| *n >= least)
    }

    /// The given array of an input, by position; `None` for one that is filled in.
    pub fn array(&self, input: usize) -> Option<&Tensor> {
        match self.inputs.get(input)? {
            Source::Given(t) => Some(t),
            Source::Filled { .. } => None,
        }
    }

    /// Samples `first..first + count` of every input, in parameter order.
    ///
    /// # Errors
    /// `Q0521` when the range leaves the data.
    pub fn batch(&self, first: usize, count: usize) -> Result<Vec<Tensor>> {
        if first + count > self.samples {
            return Err(Diagnostic::error(
                521,
                Class::Input,
                format!("samples {first}..{} of {}", first + count, self.samples),
            ));
        }
        self.inputs
            .iter()
            .map(|s| match s {
                Source::Given(t) if t.dims().is_empty() => Ok(t.clone()),
                Source::Given(t) => t.rows(first as u64..(first + count) as u64),
                Source::Filled { like, fill } => match &self.inputs[*like] {
                    Source::Given(t) => {
                        filled(*fill, count as u64, t.dims().get(1).copied().unwrap_or(1))
                    }
                    Source::Filled { .. } => {
                        Err(Diagnostic::error(521, Class::Input, "no data was given"))
                    }
                },
            })
            .collect()
    }
}

/// How many samples a model takes at once, by the first axis of its inputs.
fn sizes(model: &Interface) -> (usize, usize) {
    let range = |p: &Port| {
        let first = p.dims.first()?;
        let symbol = model.symbols.iter().find(|s| s.name == *first);
        let (least, most) = match symbol {
            Some(s) => (s.min, s.max),
            None => first.parse().map(|n| (n, n)).ok()?,
        };
        let size = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        Some((size(least.max(1)), size(most.max(1))))
    };
    let ranges = model.inputs.iter().filter_map(range);
    ranges.fold((1, usize::MAX), |(a, b), (least, most)| {
        (a.max(least), b.min(most))
    })
}

fn filled(fill: Fill, batch: u64, length: u64) -> Result<Tensor> {
    let value = |i: u64| match fill {
        Fill::Ones => 1,
        Fill::Zeros => 0,
        Fill::Positions => (i % length.max(1)) as i64,
    };
    let v: Vec<i64> = (0..batch * length).map(value).collect();
    Tensor::from_slice(DType::I64, &[batch, length], &v)
}

#[cfg(test)]
mod tests {
    use super::*;
    use qcc_ir::plan::Symbol;

    fn port(name: &str) -> Port {
        Port {
            name: name.into(),
            dtype: DType::I64,
            dims: vec!["b".into(), "s".into()],
        }
    }

    fn model(ports: &[Port]) -> Interface {
        Interface {
            symbols: Vec::new(),
            inputs: ports.to_vec(),
            outputs: Vec::new(),
        }
    }

    #[test]
    fn optional_inputs_are_filled_in() {
        let ids = Tensor::i64(&[3, 2], &[1, 2, 3, 4, 5, 6]).unwrap();
        let ports = model(&[
            port("input_ids"),
            port("attention_mask"),
            port("position_ids"),
        ]);
        let d = Dataset::new(vec![("input_ids".into(), ids)], &ports).unwrap();
        let b = d.batch(1, 2).unwrap();
        assert_eq!(b[0].as_slice::<i64>().unwrap(), [3, 4, 5, 6]);
        assert_eq!(b[1].as_slice::<i64>().unwrap(), [1, 1, 1, 1]);
        assert_eq!(b[2].as_slice::<i64>().unwrap(), [0, 1, 0, 1]);
        assert!(d.batch(2, 2).is_err());
    }

    #[test]
    fn batches_are_bounded_in_samples_and_in_tokens() {
        let of = |samples: u64, length: u64| {
            let ids = Tensor::zeros(DType::I64, &[samples, length]).unwrap();
            let d = Dataset::new(vec![("a".into(), ids)], &model(&[port("a")])).unwrap();
            (d.batches(10).collect::<Vec<_>>(), d.batches(99).count())
        };
        assert_eq!(of(9, 256), (vec![(0, 8), (8, 1)], 2));
        assert_eq!(of(20, 700).0[3..], [(6, 2), (8, 2)]);
        assert_eq!(of(2, 5000), (vec![(0, 1), (1, 1)], 2));
        assert_eq!(of(0, 5), (vec![], 0));
    }

    #[test]
    fn batches_are_of_sizes_that_the_model_takes() {
        let of = |first: &str, range: (u64, u64), samples: u64| {
            let mut io = model(&[port("a")]);
            io.inputs[0].dims[0] = first.into();
            io.symbols.push(Symbol {
                name: "b".into(),
                min: range.0,
                max: range.1,
                points: Vec::new(),
            });
            let ids = Tensor::zeros(DType::I64, &[samples, 4]).unwrap();
            let d = Dataset::new(vec![("a".into(), ids)], &io)?;
            Ok::<_, Diagnostic>(d.batches(9).collect::<Vec<_>>())
        };
        assert_eq!(of("1", (1, 9), 3).unwrap(), [(0, 1), (1, 1), (2, 1)]);
        assert_eq!(of("2", (1, 9), 5).unwrap(), [(0, 2), (2, 2)]);
        assert_eq!(of("12", (1, 9), 12).unwrap(), [(0, 12)]);
        assert_eq!(of("b", (1, 2), 3).unwrap(), [(0, 2), (2, 1)]);
        assert_eq!(of("b", (3, 4), 6).unwrap(), [(0, 4)]);
        let e = of("4", (1, 9), 3).unwrap_err();
        assert_eq!(e.code(), "Q0521");
        assert!(e.message().contains("3 samples") && e.message().contains("4 at once"));
    }

    #[test]
    fn missing_and_unknown_inputs_are_named() {
        let t = || Tensor::i64(&[1, 1], &[0]).unwrap();
        let e = Dataset::new(vec![("x".into(), t())], &model(&[port("input_ids")])).unwrap_err();
        assert!(e.message().contains("no input `x`") && e.advice().unwrap().contains("input_ids"));
        let e = Dataset::new(vec![("a".into(), t())], &model(&[port("a"), port("b")])).unwrap_err();
        assert!(e.message().contains("no data for the input `b`"));
        let two = Tensor::i64(&[2, 1], &[0, 0]).unwrap();
        let e = Dataset::new(
            vec![("a".into(), t()), ("b".into(), two)],
            &model(&[port("a"), port("b")]),
        )
        .unwrap_err();
        assert!(e.message().contains("holds 2 samples"));
    }
}
