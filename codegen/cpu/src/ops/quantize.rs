//! `quantize` and `dequantize`.

use super::Call;
use qcc_ir::Bundle;
use qcc_ir::diag::Result;

/// Quantizes to the result's type, with the given scale or with one computed from each block.
pub(super) fn quantize(c: &Call<'_>) -> Result<Vec<Bundle>> {
    let (ty, dims) = c.result()?;
    let q = ty
        .elem
        .quant()
        .ok_or_else(|| crate::internal("quantize to a plain type"))?;
    let param = |i: usize| c.args.get(i).copied().flatten().map(|v| v.codes);
    let x = c.arg(0)?.floats(c.threads)?;
    Ok(vec![crate::quant::quantize(
        q,
        &x,
        dims,
        param(1),
        param(2),
        c.threads,
    )?])
}

/// The real values of a quantized operand.
pub(super) fn dequantize(c: &Call<'_>) -> Result<Vec<Bundle>> {
    let (ty, dims) = c.result()?;
    let x = c.arg(0)?.floats(c.threads)?;
    let t = crate::value::encode_floats(ty.plain("a real value")?, dims, &x, c.threads)?;
    Ok(vec![t.into()])
}
