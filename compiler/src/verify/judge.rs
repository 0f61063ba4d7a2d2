//! Whether what a kernel wrote is what the evaluator says.
//!
//! Integers and truth values must be equal, and so must sums of products of integer codes: what is
//! left of them after scales, bias and other arithmetic may differ by one unit in the last place of
//! the result's format, its codes not at all. Other floats may differ by a relative Frobenius error of
//! 1e-3 over the tensor, and a number, an infinity and a NaN must each stay what they are; but the
//! largest f16 and infinity are neighbours, 32 apart, when a sum lies between them. Codes
//! of a quantized result may lie one step beside the evaluator's where a float beneath them lies
//! at a boundary: at most one code in a hundred. Where the tensor core truncates its sums, 8-bit
//! floats are judged by their numbers instead, with a relative Frobenius error of 1e-2, which is
//! what one code in a hundred amounts to: their steps shrink towards zero, so that where a sum
//! cancels an absolute error is many of them.

use qcc_ir::format::{decode_slice, decode_slice_i64};
use qcc_ir::{DType, Tensor};
use qcc_runtime::Trial;

use super::subject::Expected;

/// Largest relative error of floats (Frobenius norm).
const TOLERANCE: f64 = 1e-3;
/// The same for codes of 8-bit floats under truncated sums.
const TOLERANCE_OF_CODES: f64 = 1e-2;
/// One code in so many may be a step away.
const RARE: usize = 100;

/// Compares everything that the kernel should have written; gives the largest relative error.
///
/// # Errors
/// What is wrong, in words.
pub(super) fn compare(
    expected: &[Expected],
    trial: &Trial,
    truncated: bool,
) -> Result<f64, String> {
    let mut worst = 0f64;
    for e in expected {
        let Some(got) = trial.values.get(&e.name) else {
            return Err(format!("nothing writes `{}`", e.name));
        };
        if trial.unwritten.contains(&e.name) {
            return Err(format!("`{}` is not written to its end", e.name));
        }
        let want = &e.tensor;
        let got = Tensor::from_bytes(want.dtype(), want.dims(), got).map_err(|d| d.to_string())?;
        let error = match e.quant {
            Some(_) if e.exact && !want.dtype().is_float() => integers(&got, want),
            None if e.exact && want.dtype().is_float() => last_place(&got, want),
            Some(_) if truncated && want.dtype().is_float() => {
                floats(&got, want, TOLERANCE_OF_CODES)
            }
            Some(_) => codes(&got, want),
            None if want.dtype().is_float() => floats(&got, want, TOLERANCE),
            None => integers(&got, want),
        };
        let what = if e.scale { "scales " } else { "" };
        worst = worst.max(error.map_err(|why| format!("{what}`{}`{why}", e.name))?);
    }
    Ok(worst)
}

fn integers(got: &Tensor, want: &Tensor) -> Result<f64, String> {
    let (g, w) = (whole(got)?, whole(want)?);
    match g.iter().zip(&w).position(|(g, w)| g != w) {
        Some(i) => Err(format!("[{i}] is {}, the evaluator says {}", g[i], w[i])),
        None => Ok(0.0),
    }
}

/// Neighbours in their format, or equal; gives the relative error of all.
fn last_place(got: &Tensor, want: &Tensor) -> Result<f64, String> {
    let error = apart(got, want, f64::INFINITY, |g, _| g)?;
    let (g, w) = (order(got)?, order(want)?);
    match g.iter().zip(&w).position(|(g, w)| g.abs_diff(*w) > 1) {
        None => Ok(error),
        Some(i) => {
            let (x, y) = (real(got)?[i], real(want)?[i]);
            let apart = g[i].abs_diff(w[i]);
            Err(format!(
                "[{i}] is {x}, the evaluator says {y}: {apart} units in the last place"
            ))
        }
    }
}

/// The position of each float among the numbers of its format; all NaNs have one.
fn order(t: &Tensor) -> Result<Vec<i64>, String> {
    let (bytes, infinity) = match t.dtype() {
        DType::F16 => (2, 0x7c00),
        DType::BF16 => (2, 0x7f80),
        DType::F32 => (4, 0x7f80_0000),
        other => return Err(format!(" has floats of {other}")),
    };
    let sign = 1i64 << (8 * bytes - 1);
    let place = |b: &[u8]| {
        let bits = b.iter().rev().fold(0i64, |v, b| v << 8 | i64::from(*b));
        match (bits & sign, bits & (sign - 1)) {
            (_, size) if size > infinity => i64::MAX,
            (0, size) => size,
            (_, size) => -size,
        }
    };
    Ok(t.bytes().chunks(bytes).map(place).collect())
}

/// The largest f16, and what infinity counts as beside it.
const F16_EDGE: (f64, f64) = (65504.0, 65536.0);

fn floats(got: &Tensor, want: &Tensor, tolerance: f64) -> Result<f64, String> {
    let f16 = got.dtype() == DType::F16;
    apart(got, want, tolerance, |x, other| {
        let beside = f16 && x.is_infinite() && other == F16_EDGE.0.copysign(x);
        if beside { F16_EDGE.1.copysign(x) } else { x }
    })
}

/// The relative error of all; `clear` may give a number for an infinity beside another number.
fn apart(
    got: &Tensor,
    want: &Tensor,
    tolerance: f64,
    clear: impl Fn(f64, f64) -> f64,
) -> Result<f64, String> {
    let (g, w) = (real(got)?, real(want)?);
    let (mut difference, mut norm) = (0f64, 0f64);
    for (i, (g, w)) in g.iter().zip(&w).enumerate() {
        let (g, w) = (&clear(*g, *w), &clear(*w, *g));
        if w.is_finite() && g.is_finite() {
            difference += (g - w) * (g - w);
            norm += w * w;
        } else if g != w && !(g.is_nan() && w.is_nan()) {
            return Err(format!("[{i}] is {g}, the evaluator says {w}"));
        }
    }
    let error = match difference == 0.0 {
        true => 0.0,
        false => (difference / norm).sqrt(),
    };
    match error <= tolerance {
        true => Ok(error),
        false => Err(format!(" has a relative error of {error:.2e}")),
    }
}

/// Codes lie in order as integers; a float format's after its sign is taken into account.
fn codes(got: &Tensor, want: &Tensor) -> Result<f64, String> {
    let (g, w) = (steps(got)?, steps(want)?);
    let mut beside = 0;
    for (i, (g, w)) in g.iter().zip(&w).enumerate() {
        match (g, w) {
            (Some(g), Some(w)) if g.abs_diff(*w) <= 1 => beside += usize::from(g != w),
            (None, None) => {}
            (g, w) => {
                let text = |c: &Option<i64>| c.map_or("NaN".into(), |c| c.to_string());
                return Err(format!(
                    "[{i}] has the code {}, the evaluator says {}",
                    text(g),
                    text(w)
                ));
            }
        }
    }
    match beside <= g.len() / RARE + 1 {
        true => Ok(0.0),
        false => Err(format!(
            ": {beside} of {} codes lie beside the evaluator's",
            g.len()
        )),
    }
}

/// The position of each code in the order of its values; none for a NaN.
fn steps(t: &Tensor) -> Result<Vec<Option<i64>>, String> {
    if !t.dtype().is_float() {
        return Ok(whole(t)?.into_iter().map(Some).collect());
    }
    let infinity = match t.dtype() {
        DType::E4M3 => 0x7f,
        DType::E5M2 => 0x7d,
        other => return Err(format!(" has codes of {other}")),
    };
    let step = |b: &u8| {
        let size = i64::from(b & 0x7f);
        let signed = if b & 0x80 == 0 { size } else { -size };
        (size < infinity).then_some(signed)
    };
    Ok(t.bytes().iter().map(step).collect())
}

fn real(t: &Tensor) -> Result<Vec<f64>, String> {
    let mut out = vec![0f64; t.numel()];
    decode_slice(t.dtype(), t.bytes(), &mut out).map_err(|e| e.to_string())?;
    Ok(out)
}

fn whole(t: &Tensor) -> Result<Vec<i64>, String> {
    let mut out = vec![0i64; t.numel()];
    decode_slice_i64(t.dtype(), t.bytes(), &mut out).map_err(|e| e.to_string())?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn judged(dtype: DType, quant: bool, got: &[u8], want: &[u8]) -> Result<f64, String> {
        judged_as(false, dtype, quant, got, want)
    }

    fn judged_as(
        exact: bool,
        dtype: DType,
        quant: bool,
        got: &[u8],
        want: &[u8],
    ) -> Result<f64, String> {
        let n = want.len() as u64 * 8 / u64::from(dtype.bits());
        let expected = Expected {
            name: "y".into(),
            tensor: Tensor::from_bytes(dtype, &[n], want).unwrap(),
            quant: quant.then(|| {
                qcc_ir::graph::QuantType::symmetric(dtype, qcc_ir::format::BlockShape::tensor(1))
            }),
            scale: false,
            exact,
        };
        let trial = Trial {
            values: BTreeMap::from([("y".to_string(), got.to_vec())]),
            ..Trial::default()
        };
        compare(&[expected], &trial, false)
    }

    fn bytes(v: &[f32]) -> Vec<u8> {
        v.iter().flat_map(|x| x.to_le_bytes()).collect()
    }

    #[test]
    fn floats_by_norm_and_by_class() {
        let nan = f32::NAN;
        let want = bytes(&[1.0, -2.0, nan, f32::INFINITY]);
        let of = |v: [f32; 4]| judged(DType::F32, false, &bytes(&v), &want);
        assert!(of([1.001, -2.0, nan, f32::INFINITY]).unwrap() > 4e-4);
        assert!(of([1.003, -2.0, nan, f32::INFINITY]).is_err());
        assert!(
            of([1.0, nan, nan, f32::INFINITY])
                .unwrap_err()
                .contains("[1] is NaN")
        );
        assert!(of([1.0, -2.0, 0.0, f32::INFINITY]).is_err());
        assert!(of([1.0, -2.0, nan, 3e38]).is_err());
    }

    #[test]
    fn a_sum_between_the_largest_number_and_infinity() {
        let of = |got: [u16; 2], want: [u16; 2]| {
            let bytes = |v: [u16; 2]| v.map(u16::to_le_bytes).concat();
            judged(DType::F16, false, &bytes(got), &bytes(want))
        };
        assert!(of([0x7c00, 0xfbff], [0x7bff, 0xfc00]).unwrap() > 4e-4);
        // Not the largest number, or not on its side.
        assert!(of([0x7c00, 0], [0x7bfe, 0]).is_err());
        assert!(of([0xfc00, 0], [0x7bff, 0]).is_err());
    }

    #[test]
    fn exact_sums_by_units_in_the_last_place() {
        let of = |got: u16, want: u16| {
            judged_as(
                true,
                DType::F16,
                false,
                &got.to_le_bytes(),
                &want.to_le_bytes(),
            )
        };
        for (got, want) in [(0x3c00, 0x3c01), (0x8000, 0x0001), (0x7e00, 0xfe01)] {
            assert!(of(got, want).is_ok(), "{got:x} for {want:x}");
        }
        let two = of(0x3c00, 0x3c02).unwrap_err();
        assert!(two.contains("2 units in the last place"), "{two}");
        // Beside the largest number lies infinity, which is no number.
        assert!(of(0x7c00, 0x7bff).is_err() && of(0x7e00, 0x7c00).is_err());
        let far = judged_as(true, DType::F32, false, &bytes(&[-1.0]), &bytes(&[1.0]));
        assert!(far.is_err());
        assert!(judged_as(true, DType::I8, true, &[1, 3], &[1, 2]).is_err());
    }

    #[test]
    fn integers_exactly_and_codes_within_a_step() {
        assert!(judged(DType::I8, false, &[1, 2], &[1, 2]).is_ok());
        assert!(judged(DType::I8, false, &[1, 3], &[1, 2]).is_err());
        assert!(judged(DType::I8, true, &[1, 3], &[1, 2]).is_ok());
        assert!(judged(DType::I8, true, &[1, 4], &[1, 2]).is_err());
        assert!(judged(DType::I8, true, &[2; 400], &[1; 400]).is_err());
        // The codes of 0 and -0 are neighbours of each other's smallest numbers, NaN is apart.
        assert!(judged(DType::E4M3, true, &[0x81, 0x7f], &[0x00, 0xff]).is_ok());
        assert!(judged(DType::E4M3, true, &[0x7e], &[0x7f]).is_err());
    }
}
