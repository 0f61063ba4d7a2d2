//! The product with a sparse weight.
//!
//! ```text
//! y[…, j] = Σ_t values[j, t] · x[…, columns[j, t]]
//! ```

use super::layout::position;
use super::value::Array;
use crate::diag::Result;

/// Sums are in f64 and in the order of a row's elements.
///
/// # Errors
/// `Q0705` when a column lies outside of `x`.
pub(super) fn sparse_linear(x: &Array, columns: &Array, values: &Array) -> Result<Array> {
    let last = x.dims.len() - 1;
    let (k, n, s) = (x.dims[last], columns.dims[0], columns.dims[1]);
    let at: Vec<usize> = columns
        .i()?
        .iter()
        .map(|c| position(*c, last, k))
        .collect::<Result<_>>()?;
    let (x, dims, values) = (x.f()?, &x.dims[..last], values.f()?);
    let rows: usize = dims.iter().product();
    let mut out = Vec::with_capacity(rows * n);
    for row in 0..rows {
        let row = &x[row * k..][..k];
        for j in 0..n {
            let elements = j * s..(j + 1) * s;
            out.push(elements.fold(0.0, |sum, e| sum + values[e] * row[at[e]]));
        }
    }
    Ok(Array::floats([dims, &[n]].concat(), out))
}
