//! Weights computed from other weights, on demand.
//!
//! A pass never changes a weight: it adds one that is *derived* from it by a [`Transform`]. A
//! derived weight holds its source and the recipe, not the result, so that a model larger than
//! memory can be transformed; each read computes one tensor. Chains of transforms are chains of
//! derived weights.

mod hadamard;
mod transform;

pub(crate) use hadamard::Rotation;
pub(crate) use transform::{Quantizer, Transform};

use qcc_ir::diag::{Class, Diagnostic, Result};
use qcc_ir::eval::{weight_tensor, with_bytes};
use qcc_ir::format::{DType, FormatError, Real, decode_slice, encode_slice};
use qcc_ir::graph::{Weight, WeightBytes, WeightData};
use std::borrow::Cow;
use std::sync::Arc;

/// Constants of at most this many elements are read to see whether all are the same number.
const UNIFORM_LIMIT: u64 = 64;

/// A weight that applies `transform` to `source`; it has the source's name.
///
/// # Errors
/// When the transform does not fit the source.
pub(crate) fn derive(source: &Weight, transform: Transform) -> Result<Weight> {
    let (dtype, dims) = transform.result(source)?;
    Ok(Weight {
        name: source.name.clone(),
        dtype,
        dims,
        data: match (&source.data, &transform) {
            (WeightData::Splat(v), t) if t.keeps_values() => WeightData::Splat(*v),
            // Extents are no part of the bytes.
            (data, Transform::Reshape { .. }) => data.clone(),
            _ => WeightData::Bytes(Arc::new(Derived {
                source: source.clone(),
                transform,
            })),
        },
    })
}

/// A weight that holds these f32 values, in memory.
pub(crate) fn inline_f32(name: String, dims: Vec<u64>, values: &[f32]) -> Weight {
    let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    inline(name, DType::F32, dims, bytes)
}

/// A weight that holds these integers, in memory.
///
/// # Errors
/// When an integer is none of `dtype`.
pub(crate) fn inline_ints(
    name: String,
    dtype: DType,
    dims: Vec<u64>,
    values: &[i32],
) -> Result<Weight> {
    let wide: Vec<f32> = values.iter().map(|v| *v as f32).collect();
    inline_as(name, dtype, dims, &wide)
}

/// A weight that holds these numbers as `dtype`, in memory.
///
/// # Errors
/// When the format cannot be encoded.
pub(crate) fn inline_as(
    name: String,
    dtype: DType,
    dims: Vec<u64>,
    values: &[f32],
) -> Result<Weight> {
    let len = dtype
        .byte_len(values.len() as u64)
        .and_then(|n| usize::try_from(n).ok());
    // INVARIANT: the values are in memory, and no number that is stored here is wider than they.
    let mut bytes = vec![0; len.unwrap_or(0)];
    encode_slice(dtype, values, &mut bytes).map_err(|e| format_error(e, &name))?;
    Ok(inline(name, dtype, dims, bytes))
}

/// A weight that holds these bytes, in memory.
pub(crate) fn inline(name: String, dtype: DType, dims: Vec<u64>, bytes: Vec<u8>) -> Weight {
    Weight {
        name,
        dtype,
        dims,
        data: WeightData::Bytes(held(bytes)),
    }
}

/// The elements of a float or integer weight as f32.
///
/// # Errors
/// When the weight cannot be read.
pub(crate) fn read_f32(w: &Weight) -> Result<Vec<f32>> {
    decoded(w)
}

/// The elements of a weight as f32, none of them NaN or infinite.
///
/// # Errors
/// When the weight cannot be read, or holds NaN or infinity.
pub(crate) fn read_finite(w: &Weight) -> Result<Vec<f32>> {
    let values = read_f32(w)?;
    match values.iter().find(|v| !v.is_finite()) {
        Some(bad) => {
            let (what, value) = ("absmax", *bad);
            Err(format_error(
                FormatError::Statistic { what, value },
                &w.name,
            ))
        }
        None => Ok(values),
    }
}

/// The elements of a float or integer weight.
///
/// # Errors
/// When the weight cannot be read.
fn decoded<T: Real + Default + Clone>(w: &Weight) -> Result<Vec<T>> {
    with_bytes(w, |bytes| {
        // INVARIANT: the weight has bytes in memory, so the number of its elements fits.
        let n = w.numel().and_then(|n| usize::try_from(n).ok());
        let mut out = vec![T::default(); n.unwrap_or(0)];
        decode_slice(w.dtype, bytes, &mut out).map_err(|e| format_error(e, &w.name))?;
        Ok(out)
    })
}

/// The number that every element of a small weight is, if it is one.
///
/// # Errors
/// When the weight cannot be read.
pub(crate) fn uniform(w: &Weight) -> Result<Option<f64>> {
    match &w.data {
        WeightData::Splat(bits) => return Ok(Some(f64::from_bits(*bits))),
        WeightData::Extern => return Ok(None),
        _ => {}
    }
    if !w.numel().is_some_and(|n| (1..=UNIFORM_LIMIT).contains(&n)) {
        return Ok(None);
    }
    let t = weight_tensor(w)?;
    let mut values = vec![0.0f64; t.numel()];
    decode_slice(w.dtype, t.bytes(), &mut values).map_err(|e| format_error(e, &w.name))?;
    let first = values[0];
    // A 64-bit integer beyond 2^53 is not seen exactly here, so it is no number to match.
    let exact = w.dtype.bits() < 64 || first.abs() < 9e15;
    Ok(Some(first).filter(|v| exact && values.iter().all(|o| o.to_bits() == v.to_bits())))
}

pub(crate) fn format_error(e: FormatError, weight: &str) -> Diagnostic {
    let d = Diagnostic::error(520, Class::Input, e.to_string()).at(format!("weight {weight}"));
    match e {
        FormatError::Statistic { .. } => {
            d.hint("the weight holds NaN or infinity: repair the model, or exclude the layer")
        }
        _ => d,
    }
}

/// Bytes in memory.
pub(crate) fn held(bytes: Vec<u8>) -> Arc<dyn WeightBytes> {
    Arc::new(Inline { bytes })
}

#[derive(Debug)]
struct Inline {
    bytes: Vec<u8>,
}

impl WeightBytes for Inline {
    fn bytes(&self) -> Result<Cow<'_, [u8]>> {
        Ok(Cow::Borrowed(&self.bytes))
    }
}

#[derive(Debug)]
struct Derived {
    source: Weight,
    transform: Transform,
}

impl WeightBytes for Derived {
    fn bytes(&self) -> Result<Cow<'_, [u8]>> {
        self.transform.apply(&self.source).map(Cow::Owned)
    }
}
