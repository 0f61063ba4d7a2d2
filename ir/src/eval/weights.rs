//! The contents of weights, whatever their source.

use super::value::{format_error, internal};
use crate::DType;
use crate::diag::{Class, Diagnostic, Result};
use crate::format::encode_slice;
use crate::graph::{Weight, WeightData};
use crate::tensor::Tensor;

/// The weight as a tensor.
///
/// # Errors
/// When the weight is held elsewhere (`extern`), its source fails, or its size is wrong.
pub fn weight_tensor(w: &Weight) -> Result<Tensor> {
    let of = |v: &[f64]| -> Result<Tensor> {
        let mut t = Tensor::zeros(w.dtype, &w.dims)?;
        encode_slice(w.dtype, v, t.bytes_mut()).map_err(format_error)?;
        Ok(t)
    };
    // Fails early when the size overflows, before anything is allocated.
    let n = w.numel().and_then(|n| usize::try_from(n).ok());
    let n = n.ok_or_else(|| internal(format!("weight @{} is too large", w.name)))?;
    match &w.data {
        WeightData::Extern => Err(Diagnostic::error(
            510,
            Class::Input,
            format!("weight @{} is `extern` and was not supplied", w.name),
        )),
        WeightData::Bytes(b) => {
            let t = Tensor::from_bytes(w.dtype, &w.dims, &b.bytes()?);
            b.release();
            t.map_err(|d| d.or_at(&w.name))
        }
        WeightData::Splat(bits) => of(&vec![f64::from_bits(*bits); n]),
        WeightData::List(bits) => of(&bits.iter().map(|b| f64::from_bits(*b)).collect::<Vec<_>>()),
        WeightData::Normal(seed, std) => of(&normal(*seed, f64::from_bits(*std), n)),
    }
    .and_then(|t| {
        if w.dtype == DType::Bool {
            check_bool(t, &w.name)
        } else {
            Ok(t)
        }
    })
}

/// Calls `f` with the bytes of a weight, which are not copied where its source has them in memory.
///
/// # Errors
/// As [`weight_tensor`]; what `f` reports.
pub fn with_bytes<T>(w: &Weight, f: impl FnOnce(&[u8]) -> Result<T>) -> Result<T> {
    let WeightData::Bytes(b) = &w.data else {
        return f(weight_tensor(w)?.bytes());
    };
    let bytes = b.bytes()?;
    if w.byte_len() != Some(bytes.len() as u64) || w.dtype == DType::Bool {
        return f(weight_tensor(w)?.bytes());
    }
    let out = f(&bytes);
    b.release();
    out
}

fn check_bool(t: Tensor, name: &str) -> Result<Tensor> {
    match t.bytes().iter().find(|b| **b > 1) {
        Some(b) => Err(Diagnostic::error(
            511,
            Class::Input,
            format!("weight @{name} holds {b} as a truth value"),
        )),
        None => Ok(t),
    }
}

/// `n` nearly normal deviates: the sum of twelve uniform ones (Irwin–Hall), which needs no
/// transcendental function and so is the same on every machine. The generator is SplitMix64.
pub fn normal(seed: u64, std: f64, n: usize) -> Vec<f64> {
    let mut state = seed;
    let mut uniform = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    };
    (0..n)
        .map(|_| ((0..12).map(|_| uniform()).sum::<f64>() - 6.0) * std)
        .collect()
}
