//! Round to nearest: the weight method that needs no data.
//!
//! ```text
//! scale_b, zero_b = grid of the least and greatest w of block b
//! code            = saturate(round_half_even(w / scale_b) + zero_b)
//! ```

use super::grid::fit;
use super::scheme::QuantSpec;
use crate::weights::{Quantizer, format_error, read_f32};
use qcc_ir::diag::Result;
use qcc_ir::format::{BlockShape, minmax_nd};
use qcc_ir::graph::Weight;

/// The scales and zero points of a weight. Codes are computed from them on demand.
///
/// # Errors
/// When the weight cannot be read or holds NaN or infinity.
pub(super) fn quantizer(w: &Weight, spec: &QuantSpec, block: BlockShape) -> Result<Quantizer> {
    let dims: Vec<usize> = w.dims.iter().map(|d| *d as usize).collect();
    let (lo, hi) = minmax_nd(&read_f32(w)?, &dims, &block).map_err(|e| format_error(e, &w.name))?;
    from_ranges(w, spec, block, &lo, &hi)
}

/// As [`quantizer`] for blocks of which the least and greatest values that count are known.
///
/// # Errors
/// When a bound is NaN or infinite.
pub(super) fn from_ranges(
    w: &Weight,
    spec: &QuantSpec,
    block: BlockShape,
    lo: &[f32],
    hi: &[f32],
) -> Result<Quantizer> {
    let fail = |e| format_error(e, &w.name);
    let fits: std::result::Result<Vec<(f32, i32)>, _> =
        lo.iter().zip(hi).map(|(l, h)| fit(spec, *l, *h)).collect();
    let (scales, zeros): (Vec<f32>, Vec<i32>) = fits.map_err(fail)?.into_iter().unzip();
    let asymmetric = spec.grid == super::Grid::Asymmetric;
    Ok(Quantizer {
        format: spec.format().map_err(fail)?,
        levels: spec.levels().filter(|_| spec.bits < spec.storage.bits()),
        block,
        scales: scales.into(),
        zeros: asymmetric.then(|| zeros.into()),
    })
}

#[cfg(test)]
mod tests {
    use super::super::scheme::{Granularity, Scheme};
    use super::*;
    use crate::weights::{Transform, derive, inline_f32};
    use qcc_ir::DType;

    fn codes(w: &Weight, scheme: &str) -> (Vec<f32>, Quantizer) {
        let (spec, _) = Scheme::named(scheme)
            .unwrap()
            .weights
            .unwrap()
            .resolved(true);
        let q = quantizer(w, &spec, spec.quant_type(2, false).block).unwrap();
        let codes = derive(w, Transform::Quantize(q.clone())).unwrap();
        (read_f32(&codes).unwrap(), q)
    }

    #[test]
    fn absmax_per_output_channel() {
        let w = inline_f32("w".into(), vec![3, 2], &[1.0, -2.54, 0.0, 0.0, 63.5, 127.0]);
        let (codes, q) = codes(&w, "int8");
        assert_eq!(*q.scales, [2.54 / 127.0, 1.0, 1.0]);
        // 63.5 lies half way and rounds to the even code.
        assert_eq!(codes, [50.0, -127.0, 0.0, 0.0, 64.0, 127.0]);
    }

    #[test]
    fn groups_with_zero_points_and_a_shorter_last_one() {
        let mut v = vec![0.0f32; 2 * 20];
        v[..4].copy_from_slice(&[-0.5, 1.0, 0.04, 0.26]);
        v[16..20].copy_from_slice(&[3.0, 1.0, 0.0, 0.5]);
        v[20] = -1.5;
        let w = inline_f32("w".into(), vec![2, 20], &v);
        let (codes, q) = codes(&w, "w4a16-g16-asym");
        assert_eq!(*q.scales, [0.1, 0.2, 0.1, 1.0]);
        assert_eq!(q.zeros.as_deref(), Some(&[5, 0, 15, 0][..]));
        assert_eq!(codes[..5], [0.0, 15.0, 5.0, 8.0, 5.0]);
        assert_eq!(codes[16..22], [15.0, 5.0, 0.0, 2.0, 0.0, 15.0]);
    }

    #[test]
    fn fewer_bits_than_the_storage_has() {
        let w = inline_f32("w".into(), vec![1, 5], &[0.0, 0.7, 0.4, 0.65, 0.1]);
        let (asym, _) = codes(&w, "w3a16-asym");
        assert_eq!(asym, [0.0, 7.0, 4.0, 6.0, 1.0]);
        let w = inline_f32("w".into(), vec![1, 3], &[-1.0, 0.9, 0.4]);
        let (sym, q) = codes(&w, "w2a16-sym-full");
        // 0.9 would be the code 2, which two bits do not have.
        assert_eq!((sym, q.scales[0]), (vec![-2.0, 1.0, 1.0], 0.5));
    }

    #[test]
    fn a_weight_that_is_not_finite_is_refused_by_name() {
        let w = inline_f32("fc.w".into(), vec![1, 2], &[1.0, f32::NAN]);
        let spec = QuantSpec::symmetric(DType::E4M3, Granularity::Channel);
        let e = quantizer(&w, &spec, BlockShape::axis(2, 0)).unwrap_err();
        assert_eq!(
            (e.code().as_str(), e.place()),
            ("Q0520", Some("weight fc.w"))
        );
    }
}
