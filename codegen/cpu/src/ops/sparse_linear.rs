//! `sparse_linear`: products with a weight of which every row holds a few elements.
//!
//! ```text
//! y[…, j] = Σ_t values[j, t] · x[…, columns[j, t]]
//! ```
//!
//! Sums are in f32 and in the order of a row's elements.

use super::Call;
use super::gather::named;
use crate::pool::Numbers;
use crate::value::rows_cols;
use qcc_ir::Bundle;
use qcc_ir::diag::Result;

/// Products with the rows of a sparse weight.
///
/// # Errors
/// When a column lies outside of `x`.
pub(super) fn sparse_linear(c: &Call<'_>) -> Result<Vec<Bundle>> {
    let (ty, dims) = c.result()?;
    let dtype = ty.plain("the result of sparse_linear")?;
    let (x, columns, values) = (c.arg(0)?, c.arg(1)?, c.arg(2)?);
    let k = rows_cols(&x.dims()).1;
    let (n, each) = rows_cols(&columns.dims());
    let at = named(columns.codes, x.dims().len() - 1, k as u64)?;
    let (x, values) = (x.floats(c.threads)?, values.floats(c.threads)?);
    let mut out = Numbers::new(c.pool, dims)?;
    c.threads.chunks(out.get_mut()?, n.max(1), |first, y| {
        let x = &x[first / n * k..][..k];
        for (j, y) in y.iter_mut().enumerate() {
            let row = j * each..(j + 1) * each;
            let elements = values[row.clone()].iter().zip(&at[row]);
            *y = elements.fold(0.0, |sum, (v, i)| v.mul_add(x[*i], sum));
        }
        Ok(())
    })?;
    Ok(vec![out.finish(dtype, c.threads)?.into()])
}
