//! From the values of a block to its scale and zero point.
//!
//! With `b` bits, `m = max |w|` and `±m` the value of largest magnitude:
//!
//! | grid | codes | scale | also known from |
//! |---|---|---|---|
//! | `asym` | 0 … 2ᵇ−1 | (max − min) / (2ᵇ−1) over a range that holds 0, with a zero point | GPTQ, AWQ, ONNX |
//! | `sym` | −2ᵇ⁻¹ … 2ᵇ⁻¹−1 | 2m / (2ᵇ−1): m/7.5 for 4 bits | GPTQ, compressed-tensors |
//! | `sym-narrow` | −(2ᵇ⁻¹−1) … 2ᵇ⁻¹−1 | m / (2ᵇ⁻¹−1): m/7 for 4 bits | AWQ, TensorRT |
//! | `sym-full` | −2ᵇ⁻¹ … 2ᵇ⁻¹−1 | ±m / −2ᵇ⁻¹, which may be negative: ±m/−8 for 4 bits | llama.cpp `Q4_0` |
//!
//! A block of zeros has scale 1.

use super::scheme::QuantSpec;
use qcc_ir::format::{FormatError, scale_asymmetric_in, scale_symmetric};

/// How scale and zero point follow from the values of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Grid {
    /// `asym`: a zero point, and the whole range of the values.
    Asymmetric,
    /// `sym`: the largest magnitude over half the number of steps.
    Half,
    /// `sym-narrow`: the largest magnitude over the greatest code, the lowest code unused. Also
    /// of 8-bit floats.
    Greatest,
    /// `sym-full`: the value of largest magnitude is the lowest code.
    Lowest,
}

const NAMES: [(&str, Grid); 4] = [
    ("asym", Grid::Asymmetric),
    ("sym", Grid::Half),
    ("sym-narrow", Grid::Greatest),
    ("sym-full", Grid::Lowest),
];

impl Grid {
    /// The grid of this name.
    pub fn named(name: &str) -> Option<Self> {
        NAMES.iter().find(|(n, _)| *n == name).map(|(_, g)| *g)
    }

    /// The name.
    pub fn name(self) -> &'static str {
        NAMES
            .iter()
            .find(|(_, g)| *g == self)
            .map_or("", |(n, _)| n)
    }
}

/// Scale and zero point (0 of a symmetric grid) of a block whose values lie in `[lo, hi]`.
///
/// # Errors
/// When a bound is NaN or infinite, or the scale overflows.
pub(super) fn fit(spec: &QuantSpec, lo: f32, hi: f32) -> Result<(f32, i32), FormatError> {
    let absmax = match lo.is_nan() || hi.is_nan() {
        true => f32::NAN,
        false => hi.max(-lo).max(0.0),
    };
    let Some(levels) = spec.levels() else {
        // Below a global scale, which `rtn` knows, this is not the scale yet.
        return Ok((spec.scale.of_block(absmax, spec.format()?, 1.0)?, 0));
    };
    let steps = (levels.max - levels.min) as f32;
    match spec.grid {
        Grid::Asymmetric => scale_asymmetric_in(lo, hi, levels),
        Grid::Half => Ok((scale_symmetric(absmax, steps / 2.0)?, 0)),
        Grid::Greatest => Ok((scale_symmetric(absmax, levels.max as f32)?, 0)),
        Grid::Lowest => {
            let scale = scale_symmetric(absmax, -levels.min as f32)?;
            let up = hi >= -lo && absmax > 0.0;
            Ok((if up { -scale } else { scale }, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::scheme::Scheme;
    use super::*;

    fn fit_of(name: &str, lo: f32, hi: f32) -> (f32, i32) {
        let (spec, _) = Scheme::named(name).unwrap().weights.unwrap().resolved(true);
        fit(&spec, lo, hi).unwrap()
    }

    #[test]
    fn the_public_conventions() {
        assert_eq!(fit_of("w4a16-g128-asym", -0.5, 1.0), (0.1, 5));
        assert_eq!(fit_of("w4a16-g128-asym", 0.5, 1.5), (0.1, 0));
        assert_eq!(fit_of("w4a16-g128-asym", -3.0, -1.0), (0.2, 15));
        assert_eq!(fit_of("w4a16-sym", -1.0, 0.5), (1.0 / 7.5, 0));
        assert_eq!(fit_of("w4a16-sym-narrow", -1.0, 0.5), (1.0 / 7.0, 0));
        assert_eq!(fit_of("w4a16-sym-full", -1.0, 0.5), (0.125, 0));
        assert_eq!(fit_of("w4a16-sym-full", -0.5, 1.0), (-0.125, 0));
        assert_eq!(fit_of("w3a16-asym", 0.0, 1.4), (0.2, 0));
        assert_eq!(fit_of("int8", -1.27, 0.0), (0.01, 0));
        assert_eq!(fit_of("fp8", -448.0, 1.0), (1.0, 0));
    }

    #[test]
    fn blocks_of_zeros_and_of_no_numbers() {
        for name in ["w4a16-asym", "w4a16-sym", "w4a16-sym-full", "int8", "fp8"] {
            assert_eq!(fit_of(name, 0.0, 0.0), (1.0, 0), "{name}");
            let (spec, _) = Scheme::named(name).unwrap().weights.unwrap().resolved(true);
            for bad in [f32::NAN, f32::INFINITY] {
                assert!(fit(&spec, -1.0, bad).is_err(), "{name} {bad}");
                assert!(fit(&spec, -bad, 1.0).is_err(), "{name} {bad}");
            }
        }
    }
}
