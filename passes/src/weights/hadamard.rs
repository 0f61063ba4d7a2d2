//! Randomized Hadamard rotations.
//!
//! ```text
//! R = diag(±1) · H / √n      H: ±1, H·Hᵀ = n·I       so R·Rᵀ = I
//! H = H_2 ⊗ … ⊗ H_2 ⊗ C
//! ```
//!
//! `C` is 1, or a matrix of Paley ("On orthogonal matrices", 1933) from the quadratic residues of
//! a prime `q`: of order `q + 1` for `q ≡ 3 (mod 4)`, of order `2(q + 1)` for `q ≡ 1 (mod 4)`.
//! With the powers of two these reach the widths of most networks (192 = 16·12, 768 = 64·12,
//! 5120 = 256·20, 14336 = 512·28). Of a width that they do not reach, blocks as large as they can
//! be are rotated, each alike.
//!
//! A product with `R` spreads each element of a row over all others: one outlier of size `a`
//! becomes `n` values of size `a/√n`. The signs keep a row from lining up with a row of `H`.

use qcc_ir::eval::normal;

/// Largest order of a core.
const CORE_LIMIT: usize = 512;

/// A rotation of rows of `size` elements, or of each run of `size` elements of longer ones.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rotation {
    signs: Vec<f64>,
    /// The matrix `C`, row-major.
    core: Vec<f64>,
    order: usize,
}

impl Rotation {
    /// The rotation for rows of this width in runs of at most `limit` elements: the longest runs
    /// for which there is one. `None` where it would change nothing but signs.
    pub(crate) fn new(width: usize, limit: usize, seed: u64) -> Option<Self> {
        let runs = (2..=width.min(limit))
            .rev()
            .filter(|n| width.is_multiple_of(*n));
        let (size, core) = runs.into_iter().find_map(|n| Some((n, core(n)?)))?;
        let order = (1..=size).find(|m| m * m == core.len()).unwrap_or(1);
        let signs = normal(seed, 1.0, size);
        Some(Rotation {
            signs: signs.into_iter().map(|v| 1f64.copysign(v)).collect(),
            core,
            order,
        })
    }

    /// Elements that are mixed with each other.
    pub(crate) fn size(&self) -> usize {
        self.signs.len()
    }

    /// `row · R`, run by run.
    pub(crate) fn apply(&self, row: &mut [f64]) {
        for run in row.chunks_exact_mut(self.size()) {
            self.turn(run);
        }
    }

    fn turn(&self, run: &mut [f64]) {
        run.iter_mut().zip(&self.signs).for_each(|(v, s)| *v *= s);
        let mut half = self.order;
        while half < run.len() {
            for pair in run.chunks_exact_mut(2 * half) {
                let (a, b) = pair.split_at_mut(half);
                for (a, b) in a.iter_mut().zip(b) {
                    (*a, *b) = (*a + *b, *a - *b);
                }
            }
            half *= 2;
        }
        let norm = 1.0 / (run.len() as f64).sqrt();
        let mut sums = vec![0.0; self.order];
        for part in run.chunks_exact_mut(self.order) {
            sums.fill(0.0);
            for (v, row) in part.iter().zip(self.core.chunks_exact(self.order)) {
                sums.iter_mut().zip(row).for_each(|(s, c)| *s += v * c);
            }
            part.iter_mut().zip(&sums).for_each(|(v, s)| *v = s * norm);
        }
    }

    /// `R`, row-major.
    pub(crate) fn dense(&self) -> Vec<f32> {
        let n = self.size();
        let mut out = Vec::with_capacity(n * n);
        for i in 0..n {
            let mut row = vec![0.0f64; n];
            row[i] = 1.0;
            self.turn(&mut row);
            out.extend(row.iter().map(|v| *v as f32));
        }
        out
    }
}

/// A core with which powers of two reach `n`: the smallest.
fn core(n: usize) -> Option<Vec<f64>> {
    let odd = n >> n.trailing_zeros();
    let orders = (0..=n.trailing_zeros()).map(|k| odd << k);
    orders.take_while(|m| *m <= CORE_LIMIT).find_map(paley)
}

/// A Hadamard matrix of exactly this order, if Paley's constructions give one.
fn paley(m: usize) -> Option<Vec<f64>> {
    if m == 1 {
        return Some(vec![1.0]);
    }
    if m.is_multiple_of(4) && is_prime(m - 1) {
        // H = I + S,  S skew.
        let mut h = conference(m - 1, -1.0);
        (0..m).for_each(|i| h[i * m + i] += 1.0);
        return Some(h);
    }
    let half = m / 2;
    if !m.is_multiple_of(4) || half % 4 != 2 || !is_prime(half - 1) {
        return None;
    }
    // H = S ⊗ [1 1; 1 −1] + I ⊗ [1 −1; −1 −1],  S symmetric.
    let s = conference(half - 1, 1.0);
    let mut h = vec![0.0; m * m];
    for (i, j) in (0..m).flat_map(|i| (0..m).map(move |j| (i, j))) {
        let both = if (i % 2, j % 2) == (1, 1) { -1.0 } else { 1.0 };
        let own = if (i % 2, j % 2) == (0, 0) { 1.0 } else { -1.0 };
        let diagonal = if i / 2 == j / 2 { own } else { 0.0 };
        h[i * m + j] = s[i / 2 * half + j / 2] * both + diagonal;
    }
    Some(h)
}

/// `[0 1; c·1 Q]` of order `q + 1`, where `Q[i][j]` says whether `i − j` is a square modulo `q`:
/// 1 for one, −1 for none, 0 for 0.
fn conference(q: usize, corner: f64) -> Vec<f64> {
    let mut square = vec![-1.0; q];
    (1..q).for_each(|x| square[x * x % q] = 1.0);
    square[0] = 0.0;
    let m = q + 1;
    let mut s = vec![0.0; m * m];
    for i in 1..m {
        s[i] = 1.0;
        s[i * m] = corner;
        for j in 1..m {
            s[i * m + j] = square[(q + i - j) % q];
        }
    }
    s
}

fn is_prime(n: usize) -> bool {
    n >= 2
        && (2..)
            .take_while(|d| d * d <= n)
            .all(|d| !n.is_multiple_of(d))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotations_are_orthogonal_and_flat() {
        for n in [2, 4, 12, 20, 24, 28, 36, 64, 192, 148 * 2, 768] {
            let r = Rotation::new(n, n, 7).unwrap();
            assert_eq!(r.size(), n);
            let dense: Vec<f64> = r.dense().into_iter().map(f64::from).collect();
            let flat = 1.0 / (n as f64).sqrt();
            assert!(dense.iter().all(|v| (v.abs() - flat).abs() < 1e-7), "{n}");
            for (i, j) in (0..n).flat_map(|i| [0, i / 2, n - 1, i].map(|j| (i, j))) {
                let rows = [i, j].map(|k| &dense[k * n..][..n]);
                let dot: f64 = rows[0].iter().zip(rows[1]).map(|(a, b)| a * b).sum();
                let expected = if i == j { 1.0 } else { 0.0 };
                assert!(
                    (dot - expected).abs() < 1e-6,
                    "{n}: rows {i} and {j}: {dot}"
                );
            }
        }
    }

    #[test]
    fn longer_rows_turn_in_runs_and_odd_ones_do_not() {
        assert_eq!(Rotation::new(768, 256, 1).unwrap().size(), 256);
        assert_eq!(Rotation::new(6, 6, 1).unwrap().size(), 2);
        assert!(Rotation::new(15, 15, 1).is_none());
        let r = Rotation::new(8, 4, 3).unwrap();
        let mut row = [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 2.0];
        r.apply(&mut row);
        assert!(row[..4].iter().all(|v| v.abs() == 0.5));
        assert!(row[4..].iter().all(|v| v.abs() == 1.0));
    }

    #[test]
    fn the_seed_decides_on_the_signs() {
        let [a, b, c] = [1, 1, 2].map(|seed| Rotation::new(64, 64, seed).unwrap());
        assert_eq!(a, b);
        assert_ne!(a, c);
    }
}
