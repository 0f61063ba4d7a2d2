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
//! All in f64 and in one fixed order.

/// `R`, row-major `[k, k]`; `None` when `h` is not positive definite to working precision.
pub(super) fn inverse_factor(h: &[f64], k: usize) -> Option<Vec<f64>> {
    let mut l: Vec<f64> = h.iter().rev().copied().collect();
    factor(&mut l, k)?;
    let inverse = invert(&l, k);
    Some(inverse.into_iter().rev().collect())
}

/// Cholesky factorisation in place: the lower triangle of `a` becomes `L` with `L·Lᵀ = a`.
fn factor(a: &mut [f64], k: usize) -> Option<()> {
    for i in 0..k {
        let (above, rest) = a.split_at_mut(i * k);
        let row = &mut rest[..k];
        for j in 0..i {
            let other = &above[j * k..][..k];
            row[j] = (row[j] - dot(&row[..j], &other[..j])) / other[j];
        }
        let pivot = row[i] - dot(&row[..i], &row[..i]);
        // What rounding alone can leave of a diagonal element is no pivot.
        let noise = row[i] * f64::EPSILON * k as f64;
        if !(pivot > noise && pivot.is_finite()) {
            return None;
        }
        row[i] = pivot.sqrt();
    }
    Some(())
}

/// The inverse of the lower triangle of `l`, zeros above the diagonal.
fn invert(l: &[f64], k: usize) -> Vec<f64> {
    let mut x = vec![0.0; k * k];
    for i in 0..k {
        let (above, rest) = x.split_at_mut(i * k);
        let row = &mut rest[..=i];
        for (j, factor) in l[i * k..][..i].iter().enumerate() {
            for (r, v) in row.iter_mut().zip(&above[j * k..][..=j]) {
                *r -= factor * v;
            }
        }
        let pivot = l[i * k + i];
        row[..i].iter_mut().for_each(|v| *v /= pivot);
        row[i] = 1.0 / pivot;
    }
    x
}

/// Four sums side by side, then one: the same order everywhere.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let (mut sums, n) = ([0.0; 4], a.len().min(b.len()));
    let (a4, a1) = a[..n].as_chunks::<4>();
    let (b4, b1) = b[..n].as_chunks::<4>();
    for (a, b) in a4.iter().zip(b4) {
        for ((s, a), b) in sums.iter_mut().zip(a).zip(b) {
            *s += a * b;
        }
    }
    let rest: f64 = a1.iter().zip(b1).map(|(a, b)| a * b).sum();
    (sums[0] + sums[1]) + (sums[2] + sums[3]) + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_factor_inverts() {
        let k = 13;
        let v = qcc_ir::eval::normal(7, 1.0, k * 40);
        let mut h = vec![0.0; k * k];
        for i in 0..k {
            for j in 0..k {
                h[i * k + j] = (0..40).map(|t| v[t * k + i] * v[t * k + j]).sum();
            }
        }
        let r = inverse_factor(&h, k).unwrap();
        for i in 0..k {
            assert!(r[i * k + i] > 0.0);
            assert!(r[i * k..i * k + i].iter().all(|v| *v == 0.0));
            for j in 0..k {
                // H · RᵀR = I
                let cell: f64 = (0..k)
                    .map(|a| {
                        let inv: f64 = (0..k).map(|c| r[c * k + a] * r[c * k + j]).sum();
                        h[i * k + a] * inv
                    })
                    .sum();
                let want = f64::from(u8::from(i == j));
                assert!((cell - want).abs() < 1e-10, "{i} {j} {cell}");
            }
        }
    }

    #[test]
    fn what_is_not_positive_definite_has_none() {
        assert_eq!(inverse_factor(&[1.0, 2.0, 2.0, 1.0], 2), None);
        assert_eq!(inverse_factor(&[0.0], 1), None);
        assert_eq!(inverse_factor(&[f64::NAN], 1), None);
        assert_eq!(inverse_factor(&[4.0], 1), Some(vec![0.5]));
    }
}
