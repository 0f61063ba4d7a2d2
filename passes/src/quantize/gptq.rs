//! GPTQ: rounding column by column, each error made good by the columns that follow.
//!
//! ```text
//! H = 2·XᵀX + λ·I      λ = damping · mean diagonal       RᵀR = H⁻¹, R upper triangular
//! for each column j:   q_j = quantize(w_j);   e_j = (w_j − q_j) / R_jj;   w_t −= e_j · R_jt, t > j
//! loss = Σ e_j² / 2
//! ```
//!
//! (Frantar et al., "GPTQ", 2023, algorithm 1.) Columns are taken in blocks: inside a block the
//! following columns are corrected at once, those behind it when the block is done. A column
//! whose input is always 0 gets the weight 0. `act-order` takes columns with large `H_jj` first;
//! it needs scales that are known before ([`Params::Fixed`]), as a group then has no place.
//! With [`Params::Natural`] a group's scale is that of the corrected weights when the group is
//! reached, as in the reference; with [`Params::Searched`] it is the best for them
//! ([`range_search`](super::range_search)). Blocks of several rows have scales that are known
//! before.
//!
//! What a code means is a [`Coder`]'s business: integers, floats under any scales, tables.
//!
//! Rows do not depend on each other, so they are cut among threads; sums are per row. Weights
//! are f32, the factor is computed in f64.

use super::cholesky::inverse_factor;
use super::grid::{Cell, Coder};
use super::scheme::Blocks;
use crate::parallel;
use crate::vector::{self, add_products, add_scaled};
use crate::weights::Quantizer;
use qcc_ir::format::FormatError;

/// Columns whose corrections wait for the end of their block, at most.
const BLOCK: usize = 128;
/// Rows that a thread takes at a time.
const ROWS: usize = 64;
/// How often the damping is raised tenfold before a Hessian is given up.
const RAISES: usize = 4;

/// A weight matrix `[n, k]`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Matrix<'a> {
    pub(super) w: &'a [f32],
    pub(super) n: usize,
    pub(super) k: usize,
}

/// Where scales come from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Params<'a> {
    /// One per block of the weight (or the coder's tables), known before.
    Fixed(&'a Quantizer),
    /// From the corrected weights when the group is reached.
    Natural,
    /// With the least loss for the corrected weights when the group is reached.
    Searched,
}

/// What is done beyond the equations.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Gptq {
    /// Share of the mean diagonal that is added to the diagonal.
    pub(super) damping: f64,
    /// Whether columns with large diagonals come first.
    pub(super) act_order: bool,
    /// Threads.
    pub(super) threads: usize,
}

/// Codes by row, scales and zero points by row and group, and the loss.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Rounded {
    pub(super) codes: Vec<i32>,
    pub(super) scales: Vec<f32>,
    pub(super) zeros: Vec<i32>,
    pub(super) loss: f64,
    /// The damping that was needed.
    pub(super) damping: f64,
}

/// How codes are made, the same for all rows.
pub(super) struct Plan<'a> {
    pub(super) k: usize,
    /// What shares a scale.
    blocks: Blocks,
    /// Columns of a block. Groups that are searched lie in one.
    block: usize,
    /// `R`, row-major `[k, k]`, columns in order.
    pub(super) factor: Vec<f32>,
    order: Vec<usize>,
    pub(super) coder: &'a Coder,
    params: Params<'a>,
}

impl Gptq {
    /// Rounds a matrix whose inputs have the Gram matrix `gram` (`XᵀX`, row-major `[k, k]`), with
    /// scales for `blocks`, which have one row each unless the scales are fixed. `None` when the Hessian stays singular at any damping.
    ///
    /// # Errors
    /// When a weight is NaN or infinite.
    pub(super) fn round(
        &self,
        m: Matrix<'_>,
        gram: &[f64],
        coder: &Coder,
        blocks: Blocks,
        params: Params<'_>,
    ) -> Result<Option<Rounded>, FormatError> {
        let k = m.k;
        let dead: Vec<bool> = (0..k).map(|j| gram[j * k + j] == 0.0).collect();
        let order = self.order(gram, k);
        let Some((factor, damping)) = self.factor(gram, &order) else {
            return Ok(None);
        };
        let plan = Plan {
            k,
            blocks,
            block: match params {
                Params::Searched => blocks.columns * (BLOCK / blocks.columns).max(1),
                _ => BLOCK,
            },
            factor,
            order,
            coder,
            params,
        };
        let mut rows = self.all_rows(&plan, m, &dead)?;
        let mut out = Rounded {
            codes: Vec::with_capacity(m.n * k),
            scales: Vec::new(),
            zeros: Vec::new(),
            loss: 0.0,
            damping,
        };
        for r in &mut rows {
            out.codes.append(&mut r.codes);
            out.scales.append(&mut r.scales);
            out.zeros.append(&mut r.zeros);
            out.loss += r.loss;
        }
        Ok(Some(out))
    }

    /// Columns in the order in which they are rounded.
    fn order(&self, gram: &[f64], k: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..k).collect();
        if self.act_order {
            order.sort_by(|a, b| gram[b * k + b].total_cmp(&gram[a * k + a]));
        }
        order
    }

    /// `λ` of a damping.
    pub(super) fn ridge(gram: &[f64], k: usize, damping: f64) -> f64 {
        let diagonals = (0..k).map(|j| diagonal(gram, k, j));
        damping * diagonals.sum::<f64>() / k.max(1) as f64
    }

    /// `R` in f32 for the columns in order, and the damping that it took.
    fn factor(&self, gram: &[f64], order: &[usize]) -> Option<(Vec<f32>, f64)> {
        let k = order.len();
        let mut damping = self.damping;
        for _ in 0..=RAISES {
            let ridge = Self::ridge(gram, k, damping);
            let mut h = Vec::with_capacity(k * k);
            for a in order {
                let row = &gram[a * k..][..k];
                h.extend(order.iter().map(|b| match a == b {
                    true => diagonal(gram, k, *a) + ridge,
                    false => 2.0 * row[*b],
                }));
            }
            if let Some(r) = inverse_factor(h, k, self.threads, |v| v as f32) {
                return Some((r, damping));
            }
            damping = (damping * 10.0).max(1e-6);
        }
        None
    }

    /// All rows, some to each thread.
    fn all_rows(
        &self,
        plan: &Plan<'_>,
        m: Matrix<'_>,
        dead: &[bool],
    ) -> Result<Vec<Rows>, FormatError> {
        let chunks: Vec<(usize, &[f32])> = m.w.chunks(ROWS * m.k.max(1)).enumerate().collect();
        let rows = |(i, w): &(usize, &[f32])| plan.rows(i * ROWS, w, dead);
        parallel::map(&chunks, self.threads, rows)
            .into_iter()
            .collect()
    }
}

/// Diagonal element of `2·XᵀX`, 1 for an input that is always 0.
fn diagonal(gram: &[f64], k: usize, j: usize) -> f64 {
    match gram[j * k + j] {
        0.0 => 1.0,
        g => 2.0 * g,
    }
}

/// Some rows that are done.
struct Rows {
    /// Which is the first.
    first: usize,
    codes: Vec<i32>,
    scales: Vec<f32>,
    zeros: Vec<i32>,
    loss: f64,
}

impl Plan<'_> {
    /// Groups of a row.
    fn groups(&self) -> usize {
        self.k.div_ceil(self.blocks.columns)
    }

    /// Rounds the rows from `first` on.
    fn rows(&self, first: usize, w: &[f32], dead: &[bool]) -> Result<Rows, FormatError> {
        let (k, groups) = (self.k, self.groups());
        let count = w.len() / k;
        let mut w: Vec<f32> = (0..w.len())
            .map(|i| {
                let j = self.order[i % k];
                if dead[j] { 0.0 } else { w[i / k * k + j] }
            })
            .collect();
        let mut out = Rows {
            first,
            codes: vec![0; w.len()],
            scales: vec![1.0; count * groups],
            zeros: vec![0; count * groups],
            loss: 0.0,
        };
        if let (Params::Fixed(q), false) = (self.params, self.coder.is_table()) {
            let bands = (first..first + count).map(|row| row / self.blocks.rows);
            for (row, band) in bands.enumerate() {
                let (to, from) = (row * groups, band * groups);
                out.scales[to..to + groups].copy_from_slice(&q.scales[from..from + groups]);
                if let Some(z) = &q.zeros {
                    out.zeros[to..to + groups].copy_from_slice(&z[from..from + groups]);
                }
            }
        }
        let mut errors = vec![0.0f32; count * self.block];
        for from in (0..k).step_by(self.block) {
            let to = k.min(from + self.block);
            for row in 0..count {
                let errors = &mut errors[row * self.block..][..to - from];
                out.loss += self.block(row, &w[row * k..][..k], from, errors, &mut out)?;
            }
            self.correct(&mut w, &errors, from, to);
        }
        Ok(out)
    }

    /// Rounds the columns of a block in one row; gives its share of the loss.
    fn block(
        &self,
        row: usize,
        w: &[f32],
        from: usize,
        errors: &mut [f32],
        out: &mut Rows,
    ) -> Result<f64, FormatError> {
        let (k, groups) = (self.k, self.groups());
        let width = errors.len();
        let mut own = w[from..from + width].to_vec();
        let mut loss = 0.0;
        for i in 0..width {
            let (at, column) = (from + i, self.order[from + i]);
            let group = row * groups + column / self.blocks.columns;
            if at.is_multiple_of(self.blocks.columns) {
                let end = k.min(at + self.blocks.columns);
                let found = match self.params {
                    Params::Fixed(_) => None,
                    Params::Natural => {
                        let (lo, hi) = bounds(&w[at..end]);
                        Some(self.coder.fit(lo, hi)?)
                    }
                    Params::Searched => Some(self.search(&own[i..end - from], at)?),
                };
                if let Some((scale, zero)) = found {
                    out.scales[group] = scale;
                    out.zeros[group] = zero;
                }
            }
            let factor = &self.factor[at * k..][..k];
            let (scale, zero) = (out.scales[group], out.zeros[group]);
            let cell = self.coder.cell(scale, zero, out.first + row);
            let (code, error) = self.step(own[i], factor[at], cell);
            out.codes[row * k + column] = code;
            errors[i] = -error;
            loss += f64::from(error) * f64::from(error) / 2.0;
            add_scaled(&mut own[i + 1..], -error, &factor[at + 1..from + width]);
        }
        Ok(loss)
    }

    /// The code of a weight, and its error over the factor's diagonal.
    pub(super) fn step(&self, w: f32, diagonal: f32, cell: Cell<'_>) -> (i32, f32) {
        let code = self.coder.code(w, cell);
        let error = w - self.coder.real(code, cell);
        (code, error / diagonal)
    }

    /// Takes a block's errors off the columns behind it.
    fn correct(&self, w: &mut [f32], errors: &[f32], from: usize, to: usize) {
        let k = self.k;
        let step = self.block;
        let factor: Vec<&[f32]> = self.factor[from * k..to * k].chunks(k).collect();
        add_products(w, vector::Matrix { v: errors, step }, &factor, to..k);
    }
}

/// The least and greatest value; NaN where there is one.
pub(super) fn bounds(v: &[f32]) -> (f32, f32) {
    v.iter()
        .fold((f32::INFINITY, f32::NEG_INFINITY), |(l, h), x| {
            match x.is_nan() || l.is_nan() {
                true => (f32::NAN, f32::NAN),
                false => (l.min(*x), h.max(*x)),
            }
        })
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::Scheme;
    use super::*;
    use qcc_ir::eval::normal;

    /// One case of `tests/quant_refs/gptq.py`.
    struct Case {
        name: &'static str,
        n: usize,
        k: usize,
        scheme: String,
        group: usize,
        fixed: bool,
        act_order: bool,
        damping: f64,
        loss: f64,
        codes: Vec<i32>,
    }

    fn cases() -> Vec<Case> {
        let text = include_str!("../../../tests/quant_refs/gptq.txt");
        let case = |line: &'static str| {
            let f: Vec<&str> = line.split(' ').collect();
            let number = |i: usize| f[i].parse::<usize>().unwrap();
            let flag = |i: usize| f[i] == "1";
            let (half, grid) = match flag(5) {
                true => (8, "sym"),
                false => (0, "asym"),
            };
            let digits = f[10].chars().map(|c| c.to_digit(16).unwrap() as i32 - half);
            let scheme = match f[3].parse::<u32>() {
                Ok(bits) => format!("w{bits}a16-{grid}"),
                Err(_) => f[3].to_string(),
            };
            Case {
                name: f[0],
                n: number(1),
                k: number(2),
                scheme,
                group: number(4),
                fixed: flag(6),
                act_order: flag(7),
                damping: f[8].parse().unwrap(),
                loss: f[9].parse().unwrap(),
                codes: digits.collect(),
            }
        };
        text.lines().map(case).collect()
    }

    /// The weights and the Gram matrix of `inputs` there.
    pub(in super::super) fn inputs(n: usize, k: usize, tokens: usize) -> (Vec<f32>, Vec<f64>) {
        let w = normal(1, 1.0, n * k)
            .into_iter()
            .map(|v| v as f32)
            .collect();
        let z = normal(2, 1.0, tokens * k);
        let mut x = z.clone();
        for t in 0..tokens {
            for j in 0..k {
                x[t * k + j] += 1.5 * z[t * k + (7 * j + 3) % k];
            }
            for j in [1, k / 2, k - 2] {
                x[t * k + j] *= 20.0;
            }
            x[t * k + 5] = 0.0;
        }
        let mut gram = vec![0.0; k * k];
        for row in x.chunks(k) {
            for (g, a) in gram.chunks_mut(k).zip(row) {
                g.iter_mut().zip(row).for_each(|(g, b)| *g += a * b);
            }
        }
        (w, gram)
    }

    fn run(c: &Case, threads: usize) -> Rounded {
        let (w, gram) = inputs(c.n, c.k, 256);
        let (spec, _) = Scheme::named(&c.scheme)
            .unwrap()
            .weights
            .unwrap()
            .resolved(true);
        let m = Matrix {
            w: &w,
            n: c.n,
            k: c.k,
        };
        let mut live = w.clone();
        live.chunks_mut(c.k).for_each(|row| row[5] = 0.0);
        let weight = crate::weights::inline_f32("w".into(), vec![c.n as u64, c.k as u64], &live);
        let block = qcc_ir::format::BlockShape::group(2, c.group as u64);
        let fixed = super::super::rtn::quantizer(&weight, &spec, block, None).unwrap();
        let gptq = Gptq {
            damping: c.damping,
            act_order: c.act_order,
            threads,
        };
        let params = match c.fixed {
            true => Params::Fixed(&fixed),
            false => Params::Natural,
        };
        let coder = Coder::new(spec, fixed.global).unwrap();
        let blocks = Blocks {
            rows: 1,
            columns: c.group,
        };
        gptq.round(m, &gram, &coder, blocks, params)
            .unwrap()
            .unwrap()
    }

    #[test]
    fn loss_and_codes_are_those_of_the_reference() {
        for c in cases() {
            let got = run(&c, 1);
            let off = (got.loss - c.loss).abs() / c.loss;
            assert!(off < 1e-3, "{}: loss {} for {}", c.name, got.loss, c.loss);
            // The reference has no −0.
            let minus_zero = |code: i32| c.scheme.contains("fp4") && code == 8;
            let got_codes = got
                .codes
                .iter()
                .map(|c| if minus_zero(*c) { 0 } else { *c });
            let same = got_codes.zip(&c.codes).filter(|(a, b)| a == *b).count();
            let share = same as f64 / c.codes.len() as f64;
            assert!(share > 0.995, "{}: {share} of the codes agree", c.name);
        }
    }

    #[test]
    fn threads_change_nothing() {
        let c = Case {
            n: 100,
            ..cases().remove(3)
        };
        assert_eq!(run(&c, 1), run(&c, 3));
    }

    #[test]
    fn a_singular_hessian_is_damped_and_one_without_numbers_given_up() {
        let (spec, _) = Scheme::named("w4a16-asym")
            .unwrap()
            .weights
            .unwrap()
            .resolved(true);
        let gptq = Gptq {
            damping: 0.0,
            act_order: false,
            threads: 1,
        };
        let w = [0.1, 0.7, -0.3, 0.2];
        let coder = Coder::new(spec, None).unwrap();
        let blocks = Blocks {
            rows: 1,
            columns: 2,
        };
        let round = |gram: &[f64], w: &[f32]| {
            let m = Matrix { w, n: 2, k: 2 };
            gptq.round(m, gram, &coder, blocks, Params::Natural)
        };
        let r = round(&[1.0, 1.0, 1.0, 1.0], &w).unwrap().unwrap();
        assert!(r.damping > 0.0 && r.loss.is_finite());
        let dead = round(&[0.0; 4], &w).unwrap().unwrap();
        assert_eq!((dead.codes, dead.scales), (vec![0; 4], vec![1.0; 2]));
        assert_eq!(round(&[f64::NAN; 4], &w).unwrap(), None);
        assert!(round(&[1.0, 0.0, 0.0, 1.0], &[f32::NAN; 4]).is_err());
    }
}
