//! Tables: the values of each output channel become a few that are chosen for it.
//!
//! ```text
//! minimise Σ_j h_j · (w_j − t[c_j])²   over tables t of 2^bits values and codes c
//! ```
//!
//! one-dimensional k-means of each row (SqueezeLLM, Kim et al. 2024; its sparse part is the pass
//! `split-weights`). The weight `h_j` is the diagonal of `XᵀX` of the layer's inputs, or 1 without
//! data. Clusters of sorted numbers are intervals, so the optimum is found exactly by dynamic
//! programming (Wang and Song 2011, "Ckmeans.1d.dp"):
//!
//! ```text
//! D[m][j] = min_i D[m−1][i] + cost(i, j),   cost(i, j) = Σ h·w² − (Σ h·w)² / Σ h over i … j−1
//! ```
//!
//! The best `i` does not fall as `j` grows, so each row of `D` takes n·log n steps by halving.
//! Sums are in f64 and in order; of equal splits the first wins.

use super::coded::Coded;
use super::scheme::QuantSpec;
use crate::parallel;
use crate::weights::{Quantizer, format_error, held, inline_ints, read_finite};
use qcc_ir::diag::Result;
use qcc_ir::graph::Weight;

/// The least weight of an input, relative to the mean: one that is always 0 counts a little.
const LEAST: f64 = 1e-6;

/// The diagonal of the Gram matrix of a layer's inputs.
pub(super) fn diagonal(gram: &[f64], w: &Weight) -> Vec<f64> {
    let k = w.dims.last().map_or(0, |k| *k as usize);
    gram.iter().step_by(k + 1).copied().collect()
}

/// Codes and tables of a weight, each row of the last dimension with a table of its own.
///
/// # Errors
/// When the weight cannot be read, or holds NaN or infinity.
pub(super) fn fit(
    w: &Weight,
    spec: &QuantSpec,
    diagonal: Option<&[f64]>,
    threads: usize,
) -> Result<Coded> {
    let fail = |e| format_error(e, &w.name);
    let values = read_finite(w)?;
    let columns: u64 = w.dims.iter().skip(1).product();
    let columns = (columns as usize).max(1);
    let importance = importance(diagonal, columns);
    let size = 1usize << spec.bits;
    let stored = 1usize << spec.storage.bits();
    let rows: Vec<&[f32]> = values.chunks(columns).collect();
    let rows = parallel::map(&rows, threads, |r| row(r, &importance, size));
    let (mut tables, mut codes) = (Vec::new(), Vec::new());
    for mut r in rows {
        // Entries that no code names repeat the last, so that the table stays sorted.
        let last = r.table.last().copied().unwrap_or(0.0);
        r.table.resize(stored, last);
        tables.append(&mut r.table);
        codes.append(&mut r.codes);
    }
    let packed = inline_ints(w.name.clone(), spec.storage, w.dims.clone(), &codes)?;
    let quantizer = Quantizer {
        format: spec.format().map_err(fail)?,
        levels: None,
        block: spec.quant_type(w.dims.len(), false).block,
        scale: spec.scale,
        scales: tables.into(),
        zeros: None,
        global: None,
    };
    Ok(Coded {
        spec: *spec,
        quantizer,
        codes: Some(held(qcc_ir::eval::weight_tensor(&packed)?.bytes().to_vec())),
    })
}

/// A positive weight for each column.
fn importance(diagonal: Option<&[f64]>, columns: usize) -> Vec<f64> {
    let Some(d) = diagonal.filter(|d| d.len() == columns) else {
        return vec![1.0; columns];
    };
    let mean = d.iter().sum::<f64>() / columns as f64;
    match mean > 0.0 {
        true => d.iter().map(|h| (h / mean).max(LEAST)).collect(),
        false => vec![1.0; columns],
    }
}

/// The table of a row and its codes.
#[derive(Debug, PartialEq)]
struct Row {
    table: Vec<f32>,
    codes: Vec<i32>,
}

fn row(values: &[f32], importance: &[f64], size: usize) -> Row {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*a].total_cmp(&values[*b]));
    let sums = Sums::new(
        order
            .iter()
            .map(|i| (f64::from(values[*i]), importance[*i])),
    );
    let ends = sums.intervals(size);
    let mut out = Row {
        table: Vec::new(),
        codes: vec![0; values.len()],
    };
    let mut from = 0;
    for to in ends {
        for i in &order[from..to] {
            out.codes[*i] = out.table.len() as i32;
        }
        out.table.push(sums.mean(from, to) as f32);
        from = to;
    }
    out
}

/// Sums of `h`, `h·w` and `h·w²` of the first `i` of sorted numbers.
struct Sums(Vec<[f64; 3]>);

impl Sums {
    fn new(numbers: impl Iterator<Item = (f64, f64)>) -> Self {
        let mut sums = vec![[0.0; 3]];
        let mut at = [0.0; 3];
        for (w, h) in numbers {
            at = [at[0] + h, at[1] + h * w, at[2] + h * w * w];
            sums.push(at);
        }
        Sums(sums)
    }

    fn between(&self, i: usize, j: usize) -> [f64; 3] {
        let (a, b) = (self.0[i], self.0[j]);
        [b[0] - a[0], b[1] - a[1], b[2] - a[2]]
    }

    fn mean(&self, i: usize, j: usize) -> f64 {
        let [h, hw, _] = self.between(i, j);
        hw / h
    }

    fn cost(&self, i: usize, j: usize) -> f64 {
        let [h, hw, hww] = self.between(i, j);
        if i == j {
            0.0
        } else {
            (hww - hw * hw / h).max(0.0)
        }
    }

    /// The ends of at most `most` intervals, none of them empty, with the least cost in sum.
    fn intervals(&self, most: usize) -> Vec<usize> {
        let n = self.0.len() - 1;
        let most = most.min(n);
        let mut before: Vec<f64> = (0..=n).map(|j| self.cost(0, j)).collect();
        let mut splits: Vec<Vec<usize>> = Vec::new();
        for m in 1..most {
            let mut layer = Layer {
                sums: self,
                before: &before,
                cost: vec![f64::INFINITY; n + 1],
                split: vec![0; n + 1],
            };
            layer.halve(m + 1..n + 1, m..n);
            let (cost, split) = (layer.cost, layer.split);
            splits.push(split);
            before = cost;
        }
        let mut ends = vec![n; usize::from(n > 0)];
        for split in splits.iter().rev() {
            ends.push(split[ends[ends.len() - 1]]);
        }
        ends.reverse();
        ends
    }
}

/// One row of the dynamic program: costs with one interval more.
struct Layer<'a> {
    sums: &'a Sums,
    before: &'a [f64],
    cost: Vec<f64>,
    split: Vec<usize>,
}

impl Layer<'_> {
    /// Fills the ends `of`, whose best last splits are among `from` (inclusive at both ends).
    fn halve(&mut self, of: std::ops::Range<usize>, from: std::ops::Range<usize>) {
        if of.is_empty() {
            return;
        }
        let j = of.start + of.len() / 2;
        let candidates = from.start..=from.end.min(j - 1);
        for i in candidates {
            let cost = self.before[i] + self.sums.cost(i, j);
            if cost < self.cost[j] {
                (self.cost[j], self.split[j]) = (cost, i);
            }
        }
        let best = self.split[j];
        self.halve(of.start..j, from.start..best);
        self.halve(j + 1..of.end, best..from.end);
    }
}

#[cfg(test)]
mod tests {
    use super::super::scheme::Scheme;
    use super::*;
    use crate::weights::inline_f32;

    fn error(values: &[f32], h: &[f64], r: &Row) -> f64 {
        let all = values.iter().zip(h).zip(&r.codes);
        let delta = |v: &f32, c: &i32| f64::from(*v) - f64::from(r.table[*c as usize]);
        all.map(|((v, h), c)| h * delta(v, c) * delta(v, c)).sum()
    }

    /// The least error over all splits of the sorted row, by trying all.
    fn least(sums: &Sums, from: usize, parts: usize) -> f64 {
        let n = sums.0.len() - 1;
        if parts == 1 {
            return sums.cost(from, n);
        }
        let rest = from + 1..n;
        let tails = rest.map(|j| sums.cost(from, j) + least(sums, j, parts - 1));
        tails.fold(sums.cost(from, n), f64::min)
    }

    #[test]
    fn the_split_is_the_best_of_all() {
        for seed in 0..20 {
            let values: Vec<f32> = qcc_ir::eval::normal(seed, 1.0, 11)
                .iter()
                .map(|v| *v as f32)
                .collect();
            let h: Vec<f64> = qcc_ir::eval::normal(seed + 99, 1.0, 11)
                .iter()
                .map(|v| v * v + 0.01)
                .collect();
            let r = row(&values, &h, 4);
            let mut order: Vec<usize> = (0..11).collect();
            order.sort_by(|a, b| values[*a].total_cmp(&values[*b]));
            let sums = Sums::new(order.iter().map(|i| (f64::from(values[*i]), h[*i])));
            let (got, want) = (error(&values, &h, &r), least(&sums, 0, 4));
            assert!((got - want).abs() <= 1e-6 * want, "{got} is not {want}");
        }
    }

    #[test]
    fn few_values_are_kept_exactly_and_zero_columns_too() {
        let values = [3.0f32, -1.0, 3.0, 0.5, -1.0];
        let r = row(&values, &[1.0; 5], 8);
        let back: Vec<f32> = r.codes.iter().map(|c| r.table[*c as usize]).collect();
        assert_eq!(back, values);
        assert_eq!(importance(Some(&[0.0, 2.0]), 2), [LEAST, 2.0]);
        assert_eq!(importance(Some(&[0.0, 0.0]), 2), [1.0, 1.0]);
    }

    #[test]
    fn a_weight_that_is_not_finite_is_refused_by_name() {
        let (spec, _) = Scheme::named("lut4")
            .unwrap()
            .weights
            .unwrap()
            .resolved(true);
        let w = inline_f32("fc.w".into(), vec![1, 2], &[1.0, f32::INFINITY]);
        let e = fit(&w, &spec, None, 1).unwrap_err();
        assert_eq!(
            (e.code().as_str(), e.place()),
            ("Q0520", Some("weight fc.w"))
        );
    }
}
