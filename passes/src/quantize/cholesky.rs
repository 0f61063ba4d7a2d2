//! The inverse factor that GPTQ takes its steps from.
//!
//! For a symmetric positive definite `H` the upper triangular `R` with positive diagonal and
//!
//! ```text
//! RᵀR = H⁻¹
//! ```
//!
//! Written backwards (`J` reverses the order of rows or columns), the Cholesky factor `L` of `JHJ`
//! gives `R = J L⁻¹ J`: one factorisation and one triangular inverse, without forming `H⁻¹`.
//!
//! Both go block by block, so that most of the work is products of blocks that lie in the cache;
//! rows of a panel of `L`, and panels of columns of `L⁻¹`, do not depend on each other and are cut
//! among threads. All in f64; each sum has one order, whatever the number of threads.

use crate::parallel;
use crate::vector::{Matrix, dot, subtract_dots};

/// Rows and columns of a block.
const BLOCK: usize = 64;
/// Terms of a sum that are taken together: this many of two blocks' rows stay in the cache.
const DEPTH: usize = 256;

/// `R`, row-major `[k, k]`, its elements stored by `narrow`; `None` when `h` is not positive
/// definite to working precision.
pub(super) fn inverse_factor<T: Copy + Default + Send>(
    mut h: Vec<f64>,
    k: usize,
    threads: usize,
    narrow: fn(f64) -> T,
) -> Option<Vec<T>> {
    h.reverse();
    factor(&mut h, k, threads)?;
    Some(reversed_inverse(h, k, threads, narrow))
}

/// Cholesky factorisation in place: the lower triangle of `a` becomes `L` with `L·Lᵀ = a`.
fn factor(a: &mut [f64], k: usize, threads: usize) -> Option<()> {
    for from in (0..k).step_by(BLOCK) {
        let to = k.min(from + BLOCK);
        let (above, below) = a.split_at_mut(to * k);
        let panel = &mut above[from * k..];
        let diagonal: Vec<f64> = (from..to).map(|i| panel[(i - from) * k + i]).collect();
        let done: Vec<f64> = panel.to_vec();
        let mut own = Block::of(panel, k, from..to);
        own.subtract_products(&done, &done, k, 0..from);
        own.factor(&diagonal, k)?;
        own.store(panel, k, from);
        let panel = &*panel;
        let blocks: Vec<&[f64]> = below.chunks(BLOCK * k).collect();
        let solved = parallel::map(&blocks, threads, |rows| {
            let mut b = Block::of(rows, k, from..to);
            b.subtract_products(rows, panel, k, 0..from);
            b.solve_transposed(&own);
            b
        });
        for (rows, b) in below.chunks_mut(BLOCK * k).zip(solved) {
            b.store(rows, k, from);
        }
    }
    Some(())
}

/// `J L⁻¹ J` of the lower triangle of `l`, zeros below the diagonal.
fn reversed_inverse<T: Copy + Default + Send>(
    l: Vec<f64>,
    k: usize,
    threads: usize,
    narrow: fn(f64) -> T,
) -> Vec<T> {
    // The first panels are the longest: each thread gets some from both ends.
    let panels: Vec<usize> = (0..k).step_by(BLOCK).collect();
    let pairs: Vec<Vec<usize>> = (0..panels.len().div_ceil(2))
        .map(|i| {
            let mut pair = vec![panels[i], panels[panels.len() - 1 - i]];
            pair.dedup();
            pair
        })
        .collect();
    // What is 0 above a panel is not kept.
    let kept = |from: usize| -> (usize, Vec<T>) {
        let x = columns(&l, k, from);
        let tails = x.chunks(k).flat_map(|column| &column[from..]);
        (from, tails.map(|v| narrow(*v)).collect())
    };
    let solved = parallel::map(&pairs, threads, |pair| {
        pair.iter().map(|from| kept(*from)).collect::<Vec<_>>()
    });
    drop(l);
    let mut r = vec![T::default(); k * k];
    for (from, x) in solved.into_iter().flatten() {
        for (c, column) in x.chunks(k - from).enumerate() {
            for (i, v) in (from..k).zip(column).skip(c) {
                r[(k - 1 - i) * k + (k - 1 - from - c)] = *v;
            }
        }
    }
    r
}

/// Columns of `L⁻¹` from `from` on, as many as a block has, each as a row of `k`.
fn columns(l: &[f64], k: usize, from: usize) -> Vec<f64> {
    let width = BLOCK.min(k - from);
    let mut x = vec![0.0; width * k];
    for top in (from..k).step_by(BLOCK) {
        let rows = &l[top * k..k.min(top + BLOCK) * k];
        let mut b = Block::zeros(width, rows.len() / k);
        if top == from {
            (0..width).for_each(|c| b.v[c * b.width + c] = 1.0);
        }
        b.subtract_products(&x, rows, k, from..top);
        b.solve_transposed(&Block::of(rows, k, top..top + rows.len() / k));
        b.store(&mut x, k, top);
    }
    x
}

/// A small matrix.
struct Block {
    width: usize,
    v: Vec<f64>,
}

impl Block {
    fn zeros(height: usize, width: usize) -> Self {
        let v = vec![0.0; height * width];
        Block { width, v }
    }

    /// Some columns of all rows of a matrix whose rows have `k` elements.
    fn of(rows: &[f64], k: usize, columns: std::ops::Range<usize>) -> Self {
        let width = columns.len();
        let v = rows.chunks(k).flat_map(|r| &r[columns.clone()]).copied();
        Block {
            width,
            v: v.collect(),
        }
    }

    /// Writes it into rows of `k` elements from a column on.
    fn store(&self, rows: &mut [f64], k: usize, from: usize) {
        for (row, v) in rows.chunks_mut(k).zip(self.v.chunks(self.width)) {
            row[from..from + self.width].copy_from_slice(v);
        }
    }

    /// Subtracts from each element the product of a row of `a` and a row of `b` over some columns.
    fn subtract_products(&mut self, a: &[f64], b: &[f64], k: usize, over: std::ops::Range<usize>) {
        for from in over.clone().step_by(DEPTH) {
            let to = over.end.min(from + DEPTH);
            let [a, b] = [a, b].map(|v| Matrix { v, step: k });
            subtract_dots(&mut self.v, a, b, from..to);
        }
    }

    /// Cholesky factorisation of a square block; `diagonal` is that of the whole matrix, which
    /// tells what is rounding alone in one of size `k`.
    fn factor(&mut self, diagonal: &[f64], k: usize) -> Option<()> {
        let n = self.width;
        for i in 0..n {
            let (above, rest) = self.v.split_at_mut(i * n);
            let row = &mut rest[..n];
            for j in 0..i {
                let other = &above[j * n..][..n];
                row[j] = (row[j] - dot(&row[..j], &other[..j])) / other[j];
            }
            let pivot = row[i] - dot(&row[..i], &row[..i]);
            let noise = diagonal[i] * f64::EPSILON * k as f64;
            if !(pivot > noise && pivot.is_finite()) {
                return None;
            }
            row[i] = pivot.sqrt();
        }
        Some(())
    }

    /// `B·L⁻ᵀ` for the lower triangle of a square block `L`.
    fn solve_transposed(&mut self, l: &Block) {
        for row in self.v.chunks_mut(self.width) {
            for j in 0..row.len() {
                let other = &l.v[j * l.width..][..l.width];
                row[j] = (row[j] - dot(&row[..j], &other[..j])) / other[j];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_f64(h: Vec<f64>, k: usize, threads: usize) -> Option<Vec<f64>> {
        inverse_factor(h, k, threads, |v| v)
    }

    #[test]
    fn the_factor_inverts() {
        for k in [1, 13, 64, 65, 150] {
            let v = qcc_ir::eval::normal(7, 1.0, k * 300);
            let mut h = vec![0.0; k * k];
            for t in v.chunks(k) {
                for (row, a) in h.chunks_mut(k).zip(t) {
                    row.iter_mut().zip(t).for_each(|(h, b)| *h += a * b);
                }
            }
            let r = in_f64(h.clone(), k, 1).unwrap();
            assert_eq!(in_f64(h.clone(), k, 3).unwrap(), r, "threads at {k}");
            for i in 0..k {
                assert!(r[i * k + i] > 0.0);
                assert!(r[i * k..i * k + i].iter().all(|v| *v == 0.0));
            }
            // RᵀR · H = I
            let mut inverse = vec![0.0; k * k];
            for row in r.chunks(k) {
                for (out, a) in inverse.chunks_mut(k).zip(row) {
                    out.iter_mut().zip(row).for_each(|(o, b)| *o += a * b);
                }
            }
            for (i, row) in inverse.chunks(k).enumerate() {
                for (j, column) in h.chunks(k).enumerate() {
                    let cell = dot(row, column);
                    let want = f64::from(u8::from(i == j));
                    assert!((cell - want).abs() < 1e-8, "{k}: {i} {j} {cell}");
                }
            }
        }
    }

    #[test]
    fn what_is_not_positive_definite_has_none() {
        assert_eq!(in_f64(vec![1.0, 2.0, 2.0, 1.0], 2, 1), None);
        assert_eq!(in_f64(vec![0.0], 1, 1), None);
        assert_eq!(in_f64(vec![f64::NAN], 1, 1), None);
        assert_eq!(in_f64(vec![4.0], 1, 1), Some(vec![0.5]));
        // Rank one, in the second block.
        let mut h = vec![0.0; 66 * 66];
        (0..66).for_each(|i| h[i * 66 + i] = 1.0);
        h[1] = 1.0;
        h[66] = 1.0;
        assert_eq!(in_f64(h, 66, 2), None);
    }
}
