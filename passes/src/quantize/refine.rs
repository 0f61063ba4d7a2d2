//! After GPTQ: codes and grids made better in turn, each with all others as they are.
//!
//! ```text
//! loss = δᵀ·H·δ,   δ = ŵ − w,   g = H·δ,   H = XᵀX + λ·I
//!
//! codes:  c_j    ← quantize(ŵ_j − g_j / H_jj)           for each column until none changes
//! grids:  s, z   ← argmin loss(s·(v(c) − z) in the group)   for each group, z an integer
//! ```
//!
//! Each step is the exact minimum over what it changes, so the loss never grows. GPTQ cannot go
//! back: a column is rounded before the errors behind it are known. The first step is coordinate
//! descent on codes (Behdin et al., "QuantEase", 2023; Nair and Suggala, "CDQuant", 2024). With
//! codes fixed, the real weights of a group are linear in `s`: for each `z` the best scale is a
//! quotient of two quadratic forms, and all zero points are tried. `v(c)` is the number that a code
//! stands for: itself of integers. The loss is a parabola in `s`, so of the scales that can be stored
//! the best is the nearest. Tables have no scales: of them only codes move.
//!
//! Preconditions: each row has scales of its own, `λ` is the damping that the codes were found with.
//! Columns are taken with the greatest `H_jj` first, groups in order. All sums are f64.

use super::gptq::{Gptq, Matrix, Rounded};
use super::grid::{Cell, Coder};
use crate::parallel;
use crate::vector::{self, add_products, add_scaled, dot};
use std::ops::Range;

/// Rows that a thread takes at a time: they share the reads of `H`.
const ROWS: usize = 64;
/// Columns whose changes are spread to all others together.
const BLOCK: usize = 64;
/// Fewer changes than one in so many are spread one by one.
const SPARSE: usize = 8;
/// Passes over all columns, at most.
const SWEEPS: usize = 8;

/// What is the same for all rows.
struct Plan<'a> {
    gram: &'a [f64],
    ridge: f64,
    k: usize,
    group: usize,
    blocks: Vec<Block>,
    /// Sum of each row of `H` inside its group.
    sums: Vec<f64>,
    coder: &'a Coder,
}

/// Columns, and `H` between them.
struct Block {
    columns: Vec<usize>,
    /// Row-major.
    near: Vec<f64>,
}

impl Block {
    fn new(columns: &[usize], gram: &[f64], k: usize, ridge: f64) -> Self {
        let columns = columns.to_vec();
        let cell = |i: &usize, j: &usize| gram[i * k + j] + if i == j { ridge } else { 0.0 };
        let near = columns
            .iter()
            .flat_map(|i| columns.iter().map(move |j| cell(i, j)));
        let near = near.collect();
        Block { columns, near }
    }
}

/// Rows on the way.
struct Rows {
    /// Which is the first.
    first: usize,
    codes: Vec<i32>,
    scales: Vec<f32>,
    zeros: Vec<i32>,
    /// `g`, row-major.
    slopes: Vec<f64>,
    /// By how much the loss fell.
    gain: f64,
}

/// Improves what GPTQ made of `m` in groups of `group` columns.
pub(super) fn refine(
    m: Matrix<'_>,
    gram: &[f64],
    coder: &Coder,
    group: usize,
    rounded: &mut Rounded,
    threads: usize,
) {
    let (k, group) = (m.k, group.min(m.k).max(1));
    if k == 0 {
        return;
    }
    let ridge = Gptq::ridge(gram, k, rounded.damping) / 2.0;
    let sum = |i: usize| {
        let from = i / group * group;
        let row = &gram[i * k..][from..k.min(from + group)];
        row.iter().sum::<f64>() + ridge
    };
    let mut order: Vec<usize> = (0..k).filter(|j| gram[j * k + j] + ridge > 0.0).collect();
    order.sort_by(|a, b| gram[b * k + b].total_cmp(&gram[a * k + a]));
    let plan = Plan {
        gram,
        ridge,
        k,
        group,
        blocks: order
            .chunks(BLOCK)
            .map(|columns| Block::new(columns, gram, k, ridge))
            .collect(),
        sums: (0..k).map(sum).collect(),
        coder,
    };
    let starts: Vec<usize> = (0..m.n).step_by(ROWS).collect();
    let found = parallel::map(&starts, threads, |first| plan.rows(m, rounded, *first));
    for (first, rows) in starts.iter().zip(found) {
        let (codes, groups) = (first * k, first * k.div_ceil(group));
        rounded.codes[codes..][..rows.codes.len()].copy_from_slice(&rows.codes);
        rounded.scales[groups..][..rows.scales.len()].copy_from_slice(&rows.scales);
        rounded.zeros[groups..][..rows.zeros.len()].copy_from_slice(&rows.zeros);
        rounded.loss -= rows.gain;
    }
}

impl Plan<'_> {
    /// The rows from `first` on, improved.
    fn rows(&self, m: Matrix<'_>, from: &Rounded, first: usize) -> Rows {
        let (k, groups) = (self.k, self.k.div_ceil(self.group));
        let end = m.n.min(first + ROWS);
        let mut rows = Rows {
            first,
            codes: from.codes[first * k..end * k].to_vec(),
            scales: from.scales[first * groups..end * groups].to_vec(),
            zeros: from.zeros[first * groups..end * groups].to_vec(),
            slopes: vec![0.0; (end - first) * k],
            gain: 0.0,
        };
        let w = &m.w[first * k..end * k];
        for from in (0..k).step_by(BLOCK) {
            let columns = from..k.min(from + BLOCK);
            let rows_of = |row: usize| columns.clone().map(move |j| (row, j));
            let off = |(row, j)| self.real(&rows, row, j) - f64::from(w[row * k + j]);
            let by: Vec<f64> = (0..end - first).flat_map(rows_of).map(off).collect();
            self.shift(&mut rows.slopes, columns, &by);
        }
        self.codes(&mut rows);
        if !self.coder.is_table() {
            self.grids(&mut rows);
            self.codes(&mut rows);
        }
        rows
    }

    /// The real value of a weight.
    fn real(&self, rows: &Rows, row: usize, j: usize) -> f64 {
        let code = rows.codes[row * self.k + j];
        f64::from(self.coder.real(code, self.cell(rows, row, j)))
    }

    /// What codes mean there.
    fn cell(&self, rows: &Rows, row: usize, j: usize) -> Cell<'_> {
        let at = row * self.k.div_ceil(self.group) + j / self.group;
        let (scale, zero) = (rows.scales[at], rows.zeros[at]);
        self.coder.cell(scale, zero, rows.first + row)
    }

    /// The real values of neighbouring columns have changed by so much, row by row.
    fn shift(&self, slopes: &mut [f64], columns: Range<usize>, by: &[f64]) {
        let k = self.k;
        for (slopes, by) in slopes.chunks_mut(k).zip(by.chunks(columns.len())) {
            for (g, d) in slopes[columns.clone()].iter_mut().zip(by) {
                *g += d * self.ridge;
            }
        }
        let step = columns.len();
        let h: Vec<&[f64]> = columns.map(|j| self.row(j)).collect();
        add_products(slopes, vector::Matrix { v: by, step }, &h, 0..k);
    }

    /// A row of `XᵀX`.
    fn row(&self, j: usize) -> &[f64] {
        &self.gram[j * self.k..][..self.k]
    }

    /// Coordinate descent on the codes.
    fn codes(&self, rows: &mut Rows) {
        for _ in 0..SWEEPS {
            let changed = self.blocks.iter().map(|b| self.block(rows, b));
            if changed.sum::<usize>() == 0 {
                return;
            }
        }
    }

    /// Coordinate descent on the codes of a block, which then spreads to all columns. How many
    /// codes have changed.
    fn block(&self, rows: &mut Rows, b: &Block) -> usize {
        let (k, width) = (self.k, b.columns.len());
        let of = |slopes: &[f64]| b.columns.iter().map(|j| slopes[*j]).collect::<Vec<_>>();
        let mut own: Vec<f64> = rows.slopes.chunks(k).flat_map(of).collect();
        let mut changes = vec![0.0; own.len()];
        let mut changed = 0;
        for (i, &j) in b.columns.iter().enumerate() {
            let near = &b.near[i * width..][..width];
            for row in 0..rows.slopes.len() / k {
                let own = &mut own[row * width..][..width];
                if let Some(by) = self.step(rows, (row, j), own[i], near[i]) {
                    add_scaled(own, by, near);
                    changes[row * width + i] = by;
                    changed += 1;
                }
            }
        }
        if changed > 0 {
            self.spread(&mut rows.slopes, b, &changes, changed);
            for (slopes, own) in rows.slopes.chunks_mut(k).zip(own.chunks(width)) {
                let each = b.columns.iter().zip(own);
                each.for_each(|(j, g)| slopes[*j] = *g);
            }
        }
        changed
    }

    /// Changes the code of a weight to the best for its slope, `h` being the diagonal element of
    /// its column. By how much the real value has changed, if the loss falls.
    fn step(&self, rows: &mut Rows, (row, j): (usize, usize), slope: f64, h: f64) -> Option<f64> {
        let at = row * self.k + j;
        let cell = self.cell(rows, row, j);
        let real = f64::from(self.coder.real(rows.codes[at], cell));
        let code = self.coder.code((real - slope / h) as f32, cell);
        let by = f64::from(self.coder.real(code, cell)) - real;
        let gain = -by * (2.0 * slope + by * h);
        if gain > 0.0 {
            rows.codes[at] = code;
            rows.gain += gain;
            return Some(by);
        }
        None
    }

    /// What `count` changes of a block's columns, a row for each, do to the slopes of others.
    fn spread(&self, slopes: &mut [f64], b: &Block, changes: &[f64], count: usize) {
        let h: Vec<&[f64]> = b.columns.iter().map(|j| self.row(*j)).collect();
        if count * SPARSE >= changes.len() {
            let step = h.len();
            let changes = vector::Matrix { v: changes, step };
            return add_products(slopes, changes, &h, 0..self.k);
        }
        for (slopes, changes) in slopes.chunks_mut(self.k).zip(changes.chunks(h.len())) {
            for (h, by) in h.iter().zip(changes).filter(|(_, by)| **by != 0.0) {
                add_scaled(slopes, *by, h);
            }
        }
    }

    /// The best grid of each group for its codes.
    fn grids(&self, rows: &mut Rows) {
        let (k, groups) = (self.k, self.k.div_ceil(self.group));
        for b in 0..groups {
            let columns = b * self.group..k.min((b + 1) * self.group);
            let width = columns.len();
            let mut changes = vec![0.0; rows.slopes.len() / k * width];
            let mut changed = false;
            for row in 0..rows.slopes.len() / k {
                let at = row * groups + b;
                let old = (rows.scales[at], rows.zeros[at]);
                let Some((new, gain)) = self.grid(rows, row, columns.clone(), old) else {
                    continue;
                };
                (rows.scales[at], rows.zeros[at]) = new;
                rows.gain += gain;
                let [from, to] = [old, new].map(|(s, z)| self.coder.cell(s, z, rows.first + row));
                let real = |c: i32, cell| f64::from(self.coder.real(c, cell));
                let change = |c: &i32| real(*c, to) - real(*c, from);
                let codes = &rows.codes[row * k..][columns.clone()];
                let by = changes[row * width..][..width].iter_mut();
                by.zip(codes.iter().map(change)).for_each(|(b, c)| *b = c);
                changed = true;
            }
            if changed {
                self.shift(&mut rows.slopes, columns, &changes);
            }
        }
    }

    /// The best grid of one group and what it gains; `None` when the old one is.
    ///
    /// With `u = v(c) − z·1` and `t` the real values on the old grid, the loss of `s·u` is, but for
    /// what does not depend on it, `s²·uᵀHu − 2s·(uᵀHt − uᵀg)`.
    fn grid(
        &self,
        rows: &Rows,
        row: usize,
        columns: std::ops::Range<usize>,
        (s0, z0): (f32, i32),
    ) -> Option<((f32, i32), f64)> {
        let k = self.k;
        let codes = rows.codes[row * k..][columns.clone()].iter();
        let codes: Vec<f64> = codes.map(|c| f64::from(self.coder.number(*c))).collect();
        let slopes = &rows.slopes[row * k..][columns.clone()];
        // cᵀHc, cᵀH1, 1ᵀH1, cᵀg, 1ᵀg
        let (mut cc, mut c1, mut one, mut cg, mut g1) = (0.0, 0.0, 0.0, 0.0, 0.0);
        for ((j, c), g) in columns.clone().zip(&codes).zip(slopes) {
            let hc = dot(&self.row(j)[columns.clone()], &codes);
            cc += c * (hc + self.ridge * c);
            c1 += c * self.sums[j];
            one += self.sums[j];
            cg += c * g;
            g1 += g;
        }
        let factor = |stored: f32| f64::from(stored * self.coder.global().unwrap_or(1.0));
        let (s0, z0) = (factor(s0), f64::from(z0));
        let forms = |z: f64| {
            let quadratic = cc - 2.0 * z * c1 + z * z * one;
            let linear = s0 * (cc - (z + z0) * c1 + z * z0 * one) - (cg - z * g1);
            (quadratic, linear)
        };
        let worth = |s: f64, (q, l): (f64, f64)| s * (2.0 * l - s * q);
        let old = worth(s0, forms(z0));
        let mut best = None;
        let mut most = old;
        let zeros = self.coder.zeros();
        for z in zeros.min..=zeros.max {
            let f = forms(f64::from(z));
            let s = (f.1 / f.0) as f32;
            // A scale keeps its sign; the quotient of what is nothing but rounding has none.
            if !(f.0 > 0.0 && s.is_normal() && f64::from(s) * s0 > 0.0) {
                continue;
            }
            let Some(stored) = self.coder.stored(s) else {
                continue;
            };
            let value = worth(factor(stored), f);
            if value > most {
                most = value;
                best = Some((stored, z));
            }
        }
        best.map(|grid| (grid, most - old))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Scheme;
    use super::super::gptq::Params;
    use super::super::gptq::tests::inputs;
    use super::super::scheme::Blocks;
    use super::*;

    fn coder(name: &str) -> Coder {
        let weights = Scheme::named(name).unwrap().weights.unwrap();
        // As if the largest weight were 4.
        Coder::new(weights.resolved(true).0, Some(4.0 / 2688.0)).unwrap()
    }

    /// `δᵀHδ` over all rows, summed as it stands.
    fn loss(m: Matrix<'_>, gram: &[f64], coder: &Coder, group: usize, r: &Rounded) -> f64 {
        let k = m.k;
        let ridge = Gptq::ridge(gram, k, r.damping) / 2.0;
        let mut sum = 0.0;
        for row in 0..m.n {
            let delta: Vec<f64> = (0..k)
                .map(|j| {
                    let at = row * k.div_ceil(group) + j / group;
                    let cell = coder.cell(r.scales[at], r.zeros[at], row);
                    f64::from(coder.real(r.codes[row * k + j], cell)) - f64::from(m.w[row * k + j])
                })
                .collect();
            for (i, d) in delta.iter().enumerate() {
                let h = gram[i * k..][..k].iter().zip(&delta).map(|(h, d)| h * d);
                sum += d * (h.sum::<f64>() + ridge * d);
            }
        }
        sum
    }

    fn rounded(w: &[f32], gram: &[f64], coder: &Coder, columns: usize, p: Params<'_>) -> Rounded {
        let k = gram.len().isqrt();
        let gptq = Gptq {
            damping: 0.01,
            act_order: false,
            threads: 2,
        };
        let m = Matrix {
            w,
            n: w.len() / k,
            k,
        };
        let blocks = Blocks { rows: 1, columns };
        gptq.round(m, gram, coder, blocks, p).unwrap().unwrap()
    }

    #[test]
    fn the_loss_falls_by_what_is_said() {
        let (n, k) = (40, 96);
        let (mut w, gram) = inputs(n, k, 256);
        w.chunks_mut(k).for_each(|row| row[5] = 0.0);
        let m = Matrix { w: &w, n, k };
        let forms = [
            ("w4a16-asym", 32),
            ("w3a16-sym", 32),
            ("w2a16-asym", 96),
            ("w4a16-sym-full", 64),
            ("nvfp4", 16),
            ("mxfp4", 32),
            ("nf4", 32),
        ];
        for (name, group) in forms {
            let s = &coder(name);
            let natural = rounded(&w, &gram, s, group, Params::Natural);
            let searched = rounded(&w, &gram, s, group, Params::Searched);
            let mut refined = searched.clone();
            refine(m, &gram, s, group, &mut refined, 1);
            let [a, b, c] = [&natural, &searched, &refined].map(|r| loss(m, &gram, s, group, r));
            assert!(b < 0.97 * a && c < 0.97 * b, "{name}: {a} {b} {c}");
            for (r, sum) in [(&searched, b), (&refined, c)] {
                assert!(
                    (r.loss - sum).abs() < 1e-3 * sum,
                    "{name}: {} {sum}",
                    r.loss
                );
            }
            let mut threads = searched.clone();
            refine(m, &gram, s, group, &mut threads, 3);
            assert_eq!(refined, threads, "{name}");
        }
    }

    #[test]
    fn no_single_step_is_left() {
        let (n, k, group) = (3, 16, 8);
        let (w, mut gram) = inputs(n, k, 64);
        // A dead input would have weights that count for nothing.
        gram[5 * k + 5] = 1.0;
        let (m, s) = (Matrix { w: &w, n, k }, &coder("w3a16-asym"));
        let mut r = rounded(&w, &gram, s, group, Params::Natural);
        refine(m, &gram, s, group, &mut r, 1);
        let least = loss(m, &gram, s, group, &r);
        for i in 0..r.codes.len() {
            for by in [-1, 1] {
                let mut other = r.clone();
                other.codes[i] = (other.codes[i] + by).clamp(0, 7);
                let l = loss(m, &gram, s, group, &other);
                assert!(l >= least * (1.0 - 1e-6), "code {i} by {by}: {l} {least}");
            }
        }
    }

    #[test]
    fn nothing_happens_to_what_cannot_be_better() {
        let s = &coder("w4a16-asym");
        let w = [0.0, 0.0];
        for gram in [[0.0; 4], [1.0, 0.0, 0.0, 1.0]] {
            let m = Matrix { w: &w, n: 1, k: 2 };
            let mut r = rounded(m.w, &gram, s, 2, Params::Searched);
            let before = r.clone();
            refine(m, &gram, s, 2, &mut r, 1);
            assert_eq!((&r.codes, &r.scales), (&before.codes, &before.scales));
        }
        let none = Matrix { w: &[], n: 3, k: 0 };
        let mut r = rounded(&w, &[1.0; 4], s, 2, Params::Natural);
        refine(none, &[], s, 2, &mut r, 1);
    }
}
