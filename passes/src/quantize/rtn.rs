//! Round to nearest: the weight method that needs no data.
//!
//! ```text
//! scale_b, zero_b = grid of the least and greatest w of block b
//! code            = saturate(round_half_even(w / scale_b) + zero_b)
//! ```

use super::grid::Coder;
use super::scheme::QuantSpec;
use crate::weights::{Quantizer, format_error, read_f32};
use qcc_ir::diag::Result;
use qcc_ir::format::{BlockShape, FormatError, minmax_nd, scale_global};
use qcc_ir::graph::Weight;

/// The scales and zero points of a weight. Codes are computed from them on demand. If scales have
/// two levels, those of blocks lie below `global`, or without it below that of the weight itself.
///
/// # Errors
/// When the weight cannot be read or holds NaN or infinity.
pub(super) fn quantizer(
    w: &Weight,
    spec: &QuantSpec,
    block: BlockShape,
    global: Option<f32>,
) -> Result<Quantizer> {
    let fail = |e| format_error(e, &w.name);
    let dims: Vec<usize> = w.dims.iter().map(|d| *d as usize).collect();
    let values = read_f32(w)?;
    let (lo, hi) = minmax_nd(&values, &dims, &block).map_err(fail)?;
    let global = global_scale(spec, global, &lo, &hi).map_err(fail)?;
    let coder = Coder::new(*spec, global).map_err(fail)?;
    from_ranges(&coder, block, &lo, &hi).map_err(fail)
}

/// The scale above those of blocks with these extremes, if scales have two levels: the given one,
/// else that of the largest magnitude.
///
/// # Errors
/// When an extreme is infinite.
pub(super) fn global_scale(
    spec: &QuantSpec,
    given: Option<f32>,
    lo: &[f32],
    hi: &[f32],
) -> std::result::Result<Option<f32>, FormatError> {
    if spec.scale.global().is_none() || given.is_some() {
        return Ok(given);
    }
    // A NaN is found with its block.
    let absmax = lo.iter().chain(hi).fold(0.0f32, |a, v| v.abs().max(a));
    scale_global(absmax, spec.format()?).map(Some)
}

/// As [`quantizer()`] for blocks of which the least and greatest values that count are known.
///
/// # Errors
/// When a bound is NaN or infinite.
pub(super) fn from_ranges(
    coder: &Coder,
    block: BlockShape,
    lo: &[f32],
    hi: &[f32],
) -> std::result::Result<Quantizer, FormatError> {
    let spec = coder.spec();
    let fits: std::result::Result<Vec<(f32, i32)>, _> =
        lo.iter().zip(hi).map(|(l, h)| coder.fit(*l, *h)).collect();
    let (scales, zeros): (Vec<f32>, Vec<i32>) = fits?.into_iter().unzip();
    let asymmetric = spec.grid == super::Grid::Asymmetric;
    Ok(Quantizer {
        format: spec.format()?,
        levels: spec.levels().filter(|_| spec.bits < spec.storage.bits()),
        block,
        scale: spec.scale,
        scales: scales.into(),
        zeros: asymmetric.then(|| zeros.into()),
        global: coder.global(),
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
        let q = quantizer(w, &spec, spec.quant_type(2, false).block, None).unwrap();
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
        let e = quantizer(&w, &spec, BlockShape::axis(2, 0), None).unwrap_err();
        assert_eq!(
            (e.code().as_str(), e.place()),
            ("Q0520", Some("weight fc.w"))
        );
    }

    /// Scales and codes of the block formats, against the lines that `quant_refs/formats.py` prints.
    #[test]
    fn block_formats_equal_the_reference() {
        let text = include_str!("../../../tests/quant_refs/formats.txt");
        assert_eq!(text.lines().count(), 16);
        for (i, line) in text.lines().enumerate() {
            let (name, seed) = (line.split(' ').next().unwrap(), 1 + i as u64 / 8);
            let mut x = qcc_ir::eval::normal(seed, 1.0, 5 * 80);
            for (i, v) in x.iter_mut().enumerate() {
                *v *= 4f64.powi(i as i32 / 80 - 2);
            }
            x[80..144].fill(0.0);
            let x: Vec<f32> = x.into_iter().map(|v| v as f32).collect();
            let w = inline_f32("w".into(), vec![5, 80], &x);
            let (_, q) = codes(&w, name);
            let mut got: Vec<String> = q
                .global
                .map(|g| format!("{:08x}", g.to_bits()))
                .into_iter()
                .collect();
            let scale = |s: &f32| match q.scale.stored() {
                DType::F32 => format!("{:08x}", s.to_bits()),
                d => {
                    let mut byte = [0];
                    qcc_ir::format::encode_slice(d, &[*s], &mut byte).unwrap();
                    format!("{:02x}", byte[0])
                }
            };
            got.extend(q.scales.iter().map(scale));
            let bytes = q.codes(&x, &w.dims).unwrap();
            let digits = |b: &u8| match q.format.dtype().per_byte() {
                1 => format!("{b:02x}"),
                _ => format!("{:x}{:x}", b & 15, b >> 4),
            };
            got.push(bytes.iter().map(digits).collect());
            assert_eq!(format!("{name} {}", got.join(" ")), line);
        }
    }
}
