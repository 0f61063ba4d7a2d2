//! Matrix products over slices: `C[m, n] = A[m, k]·B[k, n]` in f32, exact for small integers.
//!
//! The product itself is the `gemm` crate, always on the calling thread: callers cut their work
//! into pieces that do not depend on the number of threads, so results do not either.

use qcc_ir::diag::Result;

/// A matrix in a slice: element `(i, j)` is at `start + i·row + j·col`.
#[derive(Clone, Copy)]
pub(crate) struct Mat<'a> {
    pub(crate) data: &'a [f32],
    pub(crate) start: usize,
    pub(crate) row: usize,
    pub(crate) col: usize,
}

impl<'a> Mat<'a> {
    /// Rows of `row` elements, from `start` on.
    pub(crate) fn rows(data: &'a [f32], start: usize, row: usize) -> Self {
        Mat {
            data,
            start,
            row,
            col: 1,
        }
    }

    /// The same elements with rows and columns exchanged.
    pub(crate) fn transposed(self) -> Self {
        Mat {
            row: self.col,
            col: self.row,
            ..self
        }
    }

    /// Without the first `j` columns.
    fn skip_cols(self, j: usize) -> Self {
        Mat {
            start: self.start + j * self.col,
            ..self
        }
    }

    /// Without the first `i` rows.
    fn skip_rows(self, i: usize) -> Self {
        Mat {
            start: self.start + i * self.row,
            ..self
        }
    }

    fn check(&self, rows: usize, cols: usize) -> Result<()> {
        check(
            self.data.len(),
            self.start,
            [rows, cols],
            [self.row, self.col],
        )
    }
}

/// Whether a matrix of this extent lies within `len` elements.
fn check(len: usize, start: usize, dims: [usize; 2], steps: [usize; 2]) -> Result<()> {
    if dims.contains(&0) {
        return Ok(());
    }
    let last = (dims[0] - 1)
        .checked_mul(steps[0])
        .zip((dims[1] - 1).checked_mul(steps[1]))
        .and_then(|(a, b)| a.checked_add(b)?.checked_add(start));
    match last {
        Some(last) if last < len => Ok(()),
        _ => Err(crate::internal(format!(
            "a matrix {dims:?} with steps {steps:?} at {start} of {len} elements"
        ))),
    }
}

/// `c[i·ldc + j] = Σ a[i, l]·b[l, j]`; with `add` the sums are added to `c`.
///
/// # Errors
/// When a matrix does not lie within its slice.
pub(crate) fn gemm(
    [m, n, k]: [usize; 3],
    a: Mat<'_>,
    b: Mat<'_>,
    c: &mut [f32],
    ldc: usize,
    add: bool,
) -> Result<()> {
    a.check(m, k)?;
    b.check(k, n)?;
    check(c.len(), 0, [m, n], [ldc, 1])?;
    if m == 0 || n == 0 {
        return Ok(());
    }
    if n > 1 && ldc < n {
        return Err(crate::internal("rows of a product overlap"));
    }
    if k == 0 {
        if !add {
            (0..m).for_each(|i| c[i * ldc..i * ldc + n].fill(0.0));
        }
        return Ok(());
    }
    // SAFETY: every element that the strides reach for these extents lies in its slice, by the
    // checks above; `c` is borrowed exclusively, so it overlaps neither `a` nor `b`, and its
    // elements are distinct because a row is at least as long as the product is wide.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c.as_mut_ptr(),
            1,
            ldc as isize,
            add,
            a.data.as_ptr().add(a.start),
            a.col as isize,
            a.row as isize,
            b.data.as_ptr().add(b.start),
            b.col as isize,
            b.row as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
    Ok(())
}

/// As [`gemm`] for integers held in f32, the products at most `2^bits` in size: exact in i32
/// (wrapping), rounded once to f32.
///
/// A sum of `2^(24 − bits)` products is exact in f32 in any order, so `k` is cut into such
/// pieces, whose results are added as integers.
///
/// # Errors
/// As [`gemm`].
pub(crate) fn gemm_exact(
    [m, n, k]: [usize; 3],
    a: Mat<'_>,
    b: Mat<'_>,
    bits: u32,
    c: &mut [f32],
    ldc: usize,
) -> Result<()> {
    let piece = 1usize << 24u32.saturating_sub(bits);
    if k <= piece {
        return gemm([m, n, k], a, b, c, ldc, false);
    }
    let mut sums = vec![0i32; m * n];
    let mut part = vec![0f32; m * n];
    for at in (0..k).step_by(piece) {
        let len = piece.min(k - at);
        gemm(
            [m, n, len],
            a.skip_cols(at),
            b.skip_rows(at),
            &mut part,
            n,
            false,
        )?;
        for (s, p) in sums.iter_mut().zip(&part) {
            *s = s.wrapping_add(*p as i32);
        }
    }
    for (row, s) in c.chunks_mut(ldc).zip(sums.chunks(n.max(1))) {
        row.iter_mut().zip(s).for_each(|(c, s)| *c = *s as f32);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ints(n: usize, seed: u64) -> Vec<f32> {
        let mut s = seed;
        (0..n)
            .map(|_| {
                s = s
                    .wrapping_mul(6364136223846793005)
                    .wrapping_add(1442695040888963407);
                ((s >> 33) % 256) as f32 - 128.0
            })
            .collect()
    }

    #[test]
    fn integer_products_are_exact_past_the_mantissa() {
        for (m, n, k) in [
            (1, 1, 1),
            (3, 5, 1024),
            (2, 7, 5000),
            (17, 33, 2049),
            (1, 9, 3000),
        ] {
            let (a, b) = (ints(m * k, 1), ints(n * k, 2));
            let mut c = vec![f32::NAN; m * n];
            let (ma, mb) = (Mat::rows(&a, 0, k), Mat::rows(&b, 0, k).transposed());
            gemm_exact([m, n, k], ma, mb, 14, &mut c, n).unwrap();
            for i in 0..m {
                for j in 0..n {
                    let want: i64 = (0..k)
                        .map(|l| a[i * k + l] as i64 * b[j * k + l] as i64)
                        .sum();
                    assert_eq!(c[i * n + j], want as i32 as f32, "{m}x{n}x{k} at {i},{j}");
                }
            }
        }
    }

    #[test]
    fn empty_products_and_short_slices() {
        let mut c = [7.0f32; 6];
        let e = Mat::rows(&[], 0, 0);
        gemm([2, 3, 0], e, e, &mut c, 3, false).unwrap();
        assert_eq!(c, [0.0; 6]);
        gemm([0, 3, 5], e, Mat::rows(&[1.0; 15], 0, 3), &mut c, 3, false).unwrap();
        let a = [1.0f32; 6];
        assert!(
            gemm(
                [2, 3, 4],
                Mat::rows(&a, 0, 4),
                Mat::rows(&a, 0, 3),
                &mut c,
                3,
                false
            )
            .is_err()
        );
    }
}
