//! Values without operands: `splat`, `iota`, `dim`.

use super::Call;
use qcc_ir::diag::{Class, Diagnostic, Result};
use qcc_ir::format::{encode_slice, encode_slice_i64};
use qcc_ir::{Bundle, DType, DimExpr, Tensor};

/// The bytes of one element: a float rounded once, an integer truncated.
pub(super) fn element(dtype: DType, value: f64) -> Result<Tensor> {
    let value = if dtype.is_int() { value.trunc() } else { value };
    let mut t = Tensor::zeros(dtype, &[1])?;
    encode_slice(dtype, &[value], t.bytes_mut()).map_err(crate::format_error)?;
    Ok(t)
}

/// Every element is `value`.
pub(super) fn splat(c: &Call<'_>, value: f64) -> Result<Vec<Bundle>> {
    let (ty, dims) = c.result()?;
    let dtype = ty.plain("a splat")?;
    let wide = crate::value::unpacked(dtype);
    let one = element(dtype, value)?;
    let one = crate::value::unpack(&one)?;
    let mut t = Tensor::zeros(wide, dims)?;
    for e in t.bytes_mut().chunks_mut(one.bytes().len()) {
        e.copy_from_slice(one.bytes());
    }
    Ok(vec![super::layout::finish(dtype, t)?])
}

/// The index along `axis`.
pub(super) fn iota(c: &Call<'_>, axis: usize) -> Result<Vec<Bundle>> {
    let (ty, dims) = c.result()?;
    let dtype = ty.plain("an index")?;
    let mut t = Tensor::zeros(dtype, dims)?;
    let inner: u64 = dims[axis + 1..].iter().product();
    let values: Vec<i64> = (0..t.numel() as u64)
        .map(|i| (i / inner.max(1) % dims[axis].max(1)) as i64)
        .collect();
    encode_slice_i64(dtype, &values, t.bytes_mut()).map_err(crate::format_error)?;
    Ok(vec![t.into()])
}

/// A size.
pub(super) fn dim(c: &Call<'_>, value: &DimExpr) -> Result<Vec<Bundle>> {
    let v = value.eval(&|s| c.sizes.get(s)).ok_or_else(|| {
        Diagnostic::error(
            706,
            Class::Input,
            format!("the size {value} has no value for these inputs"),
        )
    })?;
    Ok(vec![Tensor::i64(&[], &[v])?.into()])
}
