//! The scale (and zero point) that follows from the values of a block.
//!
//! | scale | from |
//! |---|---|
//! | symmetric | `absmax / denominator` |
//! | asymmetric | `(max − min) / (qmax − qmin)`, with a zero point |
//! | power of two (MX) | the exponent of `absmax` over that of the greatest code |
//! | two levels (NVFP4) | `e4m3(absmax / qmax / global) · global`, `global = absmax of the tensor / (448 · qmax)` |
//!
//! A block of zeros has the scale 1 (under two levels the least that is stored): its codes are
//! all 0. All arithmetic is in f32.

use super::float::{Overflow, decode_e4m3, encode_e4m3};
use super::{FormatError, IntRange, PowerRound, QuantFormat};

/// `absmax / denominator`, or 1 when that is 0 (an all-zero block, whose codes are then all 0).
///
/// The denominator is explicit because tools differ: [`QuantFormat::max`] (127, 7, 448, 57344)
/// or for instance 7.5 for i4.
///
/// # Errors
/// [`FormatError::Statistic`] when `absmax` is NaN, infinite or negative;
/// [`FormatError::Denominator`].
pub fn scale_symmetric(absmax: f32, denominator: f32) -> Result<f32, FormatError> {
    if !(denominator.is_finite() && denominator > 0.0) {
        return Err(FormatError::Denominator(denominator));
    }
    check_absmax(absmax)?;
    let scale = absmax / denominator;
    if scale.is_infinite() {
        return Err(FormatError::Denominator(denominator));
    }
    Ok(if scale == 0.0 { 1.0 } else { scale })
}

/// Scale and zero point that map `[min(0, min), max(0, max)]` onto the codes of `format`:
///
/// ```text
/// scale = (max - min) / (qmax - qmin)
/// zero  = round_half_even(saturate(qmin - min / scale))
/// ```
///
/// in f32, as ONNX `DynamicQuantizeLinear` defines for u8. The range always holds 0, so 0 is
/// exact. An all-zero input has scale 1 (and by the formula zero point `qmin`).
///
/// # Errors
/// [`FormatError::NotInteger`] for 8-bit floats; [`FormatError::Statistic`] when a bound is NaN
/// or infinite, when `min > max`, or when `max - min` overflows.
pub fn scale_asymmetric(
    min: f32,
    max: f32,
    format: QuantFormat,
) -> Result<(f32, i32), FormatError> {
    let range = format
        .int_range()
        .ok_or(FormatError::NotInteger(format.dtype()))?;
    scale_asymmetric_in(min, max, range)
}

/// As [`scale_asymmetric`] onto the codes of `range`, which may be fewer than a storage has:
/// 3-bit codes in a 4-bit storage.
///
/// # Errors
/// As [`scale_asymmetric`].
pub fn scale_asymmetric_in(min: f32, max: f32, range: IntRange) -> Result<(f32, i32), FormatError> {
    let refuse = |what, value| Err(FormatError::Statistic { what, value });
    if !min.is_finite() {
        return refuse("minimum", min);
    }
    if !max.is_finite() {
        return refuse("maximum", max);
    }
    if min > max {
        return refuse("range", max - min);
    }
    let low = if min < 0.0 { min } else { 0.0 };
    let high = if max > 0.0 { max } else { 0.0 };
    if (high - low).is_infinite() {
        return refuse("range", high - low);
    }
    let (qmin, qmax) = (range.min as f32, range.max as f32);
    let quotient = (high - low) / (qmax - qmin);
    let scale = if quotient == 0.0 { 1.0 } else { quotient };
    let zero = (qmin - low / scale).clamp(qmin, qmax).round_ties_even();
    Ok((scale, (zero as i32).clamp(range.min, range.max)))
}

fn check_absmax(absmax: f32) -> Result<(), FormatError> {
    if absmax.is_finite() && absmax >= 0.0 {
        return Ok(());
    }
    Err(FormatError::Statistic {
        what: "absmax",
        value: absmax,
    })
}

/// The power of two by which a block of MX codes is scaled (OCP MX 1.0, §6.3, for `Floor`).
///
/// # Errors
/// [`FormatError::Statistic`] when `absmax` is NaN, infinite or negative.
pub fn scale_power(
    absmax: f32,
    format: QuantFormat,
    round: PowerRound,
) -> Result<f32, FormatError> {
    check_absmax(absmax)?;
    Ok(round.scale(absmax, format))
}

/// The scale of a whole tensor under which its blocks have e4m3 scales: `absmax / (448 · qmax)`,
/// so that the block of the largest value has the scale 448. 1 for a tensor of zeros.
///
/// # Errors
/// As [`scale_symmetric`].
pub fn scale_global(absmax: f32, format: QuantFormat) -> Result<f32, FormatError> {
    scale_symmetric(absmax, 448.0 * format.max())
}

/// The scale of a block below `global`: `absmax / qmax / global` as e4m3, at least 2^-9 (the
/// least that e4m3 has). The block's values are multiplied by `global` and by this.
///
/// # Errors
/// [`FormatError::Statistic`] when `absmax` is NaN, infinite or negative.
pub fn scale_two_level(absmax: f32, format: QuantFormat, global: f32) -> Result<f32, FormatError> {
    check_absmax(absmax)?;
    let code = encode_e4m3(absmax / format.max() / global, Overflow::Saturate);
    Ok(decode_e4m3(code.max(1)))
}
