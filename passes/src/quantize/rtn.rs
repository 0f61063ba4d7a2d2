//! Round to nearest: the weight method that needs no data.
//!
//! ```text
//! scale_b = max |w| over block b / largest code        (1 for a block of zeros)
//! code    = saturate(round_half_even(w / scale_b))
//! ```

use super::scheme::QuantSpec;
use crate::weights::{Quantizer, format_error, read_f32};
use qcc_ir::diag::Result;
use qcc_ir::format::{BlockShape, absmax_nd, scale_symmetric};
use qcc_ir::graph::Weight;

/// The scales of a weight under a symmetric scheme. Codes are computed from them on demand.
///
/// # Errors
/// When the weight cannot be read or holds NaN or infinity.
pub(super) fn quantizer(w: &Weight, spec: &QuantSpec, block: BlockShape) -> Result<Quantizer> {
    let fail = |e| format_error(e, &w.name);
    let format = spec.format().map_err(fail)?;
    let dims: Vec<usize> = w.dims.iter().map(|d| *d as usize).collect();
    let absmax = absmax_nd(&read_f32(w)?, &dims, &block).map_err(fail)?;
    let scales: std::result::Result<Vec<f32>, _> = absmax
        .into_iter()
        .map(|a| scale_symmetric(a, format.max()))
        .collect();
    Ok(Quantizer {
        format,
        block,
        scales: scales.map_err(fail)?.into(),
        zeros: None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::scheme::Granularity;
    use super::*;
    use crate::weights::{Transform, derive, inline_f32};
    use qcc_ir::DType;

    #[test]
    fn absmax_per_output_channel() {
        let w = inline_f32("w".into(), vec![3, 2], &[1.0, -2.54, 0.0, 0.0, 63.5, 127.0]);
        let spec = QuantSpec {
            storage: DType::I8,
            granularity: Granularity::Channel,
            narrow: true,
        };
        let q = quantizer(&w, &spec, BlockShape::axis(2, 0)).unwrap();
        assert_eq!(*q.scales, [2.54 / 127.0, 1.0, 1.0]);
        let codes = derive(&w, Transform::Quantize(q)).unwrap();
        // 63.5 lies half way and rounds to the even code.
        assert_eq!(
            read_f32(&codes).unwrap(),
            [50.0, -127.0, 0.0, 0.0, 64.0, 127.0]
        );
    }

    #[test]
    fn a_weight_that_is_not_finite_is_refused_by_name() {
        let w = inline_f32("fc.w".into(), vec![1, 2], &[1.0, f32::NAN]);
        let spec = QuantSpec {
            storage: DType::E4M3,
            granularity: Granularity::Channel,
            narrow: false,
        };
        let e = quantizer(&w, &spec, BlockShape::axis(2, 0)).unwrap_err();
        assert_eq!(
            (e.code().as_str(), e.place()),
            ("Q0520", Some("weight fc.w"))
        );
    }
}
