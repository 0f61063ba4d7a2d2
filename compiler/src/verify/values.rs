//! Values to try kernels with: random, and such as break careless ones.

use qcc_ir::diag::{Class, Diagnostic, Result};
use qcc_ir::eval::normal;
use qcc_ir::format::{FormatError, encode_slice, encode_slice_i64};
use qcc_ir::graph::Elem;
use qcc_ir::{DType, Tensor};
use std::fmt;

/// What operands hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fill {
    /// Nearly normal floats, integers of all sizes that a code has.
    Random,
    /// Zeros.
    Zeros,
    /// Floats near the limit of 16-bit formats, of any sign; 1e15 in wider ranges, whose squares
    /// and sums are still numbers; codes at both ends.
    Huge,
    /// As random, and every seventh float a NaN where the format has one.
    NotANumber,
    /// Positive floats.
    Scales,
    /// As random, and some indices that lie outside of their table.
    Outside,
}

impl fmt::Display for Fill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fill::Random => "random values",
            Fill::Zeros => "zeros",
            Fill::Huge => "huge values",
            Fill::NotANumber => "values with NaN",
            Fill::Scales => "scales",
            Fill::Outside => "indices outside of their table",
        })
    }
}

/// A tensor of values or codes.
///
/// # Errors
/// When it does not fit the address space.
pub(super) fn number(seed: u64, elem: &Elem, dims: &[u64], fill: Fill) -> Result<Tensor> {
    let dtype = elem.storage();
    let mut t = Tensor::zeros(dtype, dims)?;
    let n = t.numel();
    let deviates = normal(seed, 1.0, n);
    if dtype.is_float() {
        let code = elem.quant().is_some();
        let values: Vec<f64> = deviates
            .iter()
            .enumerate()
            .map(|(i, x)| float(dtype, code, fill, i, *x))
            .collect();
        encode_slice(dtype, &values, t.bytes_mut()).map_err(cannot)?;
        return Ok(t);
    }
    let (low, high) = range(elem);
    let values: Vec<i64> = deviates
        .iter()
        .map(|x| match fill {
            Fill::Zeros => 0i64.clamp(low, high),
            Fill::Huge if *x > 0.0 => high,
            Fill::Huge => low,
            _ => {
                let middle = (low + high) as f64 / 2.0;
                let wide = middle + x * (high - low) as f64 / 3.0;
                (wide.round() as i64).clamp(low, high)
            }
        })
        .collect();
    encode_slice_i64(dtype, &values, t.bytes_mut()).map_err(cannot)?;
    Ok(t)
}

fn float(dtype: DType, code: bool, fill: Fill, i: usize, x: f64) -> f64 {
    let spread = if code { 60.0 } else { 1.0 };
    match fill {
        Fill::Zeros => 0.0,
        Fill::Huge => {
            let most: f64 = match dtype {
                DType::F16 => 32000.0,
                DType::E4M3 => 448.0,
                DType::E5M2 => 57344.0,
                _ => 1e15,
            };
            most.copysign(x)
        }
        Fill::NotANumber if i % 7 == 3 => f64::NAN,
        Fill::Scales => 0.01 + x.abs() / 16.0,
        _ => x * spread,
    }
}

/// The integers that a tensor may hold: codes use their whole range, others stay small, so that
/// arithmetic on them does not overflow.
fn range(elem: &Elem) -> (i64, i64) {
    let dtype = elem.storage();
    let bits = dtype.bits();
    let signed = matches!(
        dtype,
        DType::I64 | DType::I32 | DType::I16 | DType::I8 | DType::I4
    );
    match (elem.quant(), dtype) {
        (_, DType::Bool) => (0, 1),
        (Some(q), _) if signed => {
            let high = (1i64 << (bits.min(16) - 1)) - 1;
            (-high - i64::from(!q.narrow), high)
        }
        (Some(_), _) => (0, (1i64 << bits.min(16)) - 1),
        (None, _) if signed => (-5, 7),
        (None, _) => (0, 7),
    }
}

/// Indices of any of `entries`, or such as lie outside from the middle of the tensor on.
///
/// # Errors
/// As [`number`].
pub(super) fn index(
    seed: u64,
    dtype: DType,
    dims: &[u64],
    entries: u64,
    fill: Fill,
) -> Result<Tensor> {
    let mut t = Tensor::zeros(dtype, dims)?;
    let last = entries.saturating_sub(1) as f64;
    let at = |x: f64| (last * (x / 6.0).abs().min(1.0)).round() as i64;
    let mut values: Vec<i64> = normal(seed, 1.0, t.numel()).into_iter().map(at).collect();
    if let Some(v) = values.last_mut() {
        *v = last as i64;
    }
    if let Fill::Outside = fill {
        let middle = values.len() / 2;
        let outside = [entries as i64, -1 - entries as i64];
        let all = values[middle..].iter_mut().zip(outside.iter().cycle());
        all.for_each(|(v, outside)| *v = *outside);
    }
    encode_slice_i64(dtype, &values, t.bytes_mut()).map_err(cannot)?;
    Ok(t)
}

/// Positive scales.
///
/// # Errors
/// As [`number`].
pub(super) fn scales(seed: u64, dtype: DType, dims: &[u64]) -> Result<Tensor> {
    number(seed, &Elem::Plain(dtype), dims, Fill::Scales)
}

fn cannot(e: FormatError) -> Diagnostic {
    Diagnostic::error(917, Class::Internal, e.to_string())
}
