//! Values inside the evaluator: f64 or i64 numbers with extents, and how they are loaded from
//! and stored to bundles.

use super::quant;
use crate::DType;
use crate::diag::{Class, Diagnostic, Result};
use crate::format::{FormatError, decode_slice, decode_slice_i64, encode_slice, encode_slice_i64};
use crate::graph::{Elem, TensorType};
use crate::tensor::{Bundle, Tensor};

/// Numbers of one computation type.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Nums {
    /// Floats.
    F(Vec<f64>),
    /// Integers, and truth values as 0 and 1.
    I(Vec<i64>),
}

/// Numbers with extents, row-major.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Array {
    pub(super) dims: Vec<usize>,
    pub(super) nums: Nums,
}

pub(super) fn internal(message: impl Into<String>) -> Diagnostic {
    Diagnostic::error(910, Class::Internal, message)
}

pub(super) fn format_error(e: FormatError) -> Diagnostic {
    Diagnostic::error(507, Class::Input, e.to_string())
}

impl Array {
    pub(super) fn floats(dims: Vec<usize>, v: Vec<f64>) -> Array {
        Array {
            dims,
            nums: Nums::F(v),
        }
    }

    pub(super) fn f(&self) -> Result<&[f64]> {
        match &self.nums {
            Nums::F(v) => Ok(v),
            Nums::I(_) => Err(internal("floats were needed, not integers")),
        }
    }

    pub(super) fn i(&self) -> Result<&[i64]> {
        match &self.nums {
            Nums::I(v) => Ok(v),
            Nums::F(_) => Err(internal("integers were needed, not floats")),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.dims.iter().product()
    }
}

/// Rounds each value to binary32, the type in which expressions compute.
pub(super) fn to_f32(v: &mut [f64]) {
    v.iter_mut().for_each(|x| *x = f64::from(*x as f32));
}

/// The numbers of a plain tensor.
pub(super) fn load_tensor(t: &Tensor) -> Result<Array> {
    let dims: Vec<usize> = t.dims().iter().map(|d| *d as usize).collect();
    let nums = if t.dtype().is_float() {
        let mut v = vec![0f64; t.numel()];
        decode_slice(t.dtype(), t.bytes(), &mut v).map_err(format_error)?;
        Nums::F(v)
    } else {
        let mut v = vec![0i64; t.numel()];
        decode_slice_i64(t.dtype(), t.bytes(), &mut v).map_err(format_error)?;
        Nums::I(v)
    };
    Ok(Array { dims, nums })
}

/// The real values of an operand: a quantized one is dequantized.
pub(super) fn load(b: &Bundle, ty: &TensorType) -> Result<Array> {
    match &ty.elem {
        Elem::Plain(_) => load_tensor(&b.codes),
        Elem::Quant(q) => {
            let dims = b.codes.dims().iter().map(|d| *d as usize).collect();
            let v = quant::dequantize(q, b)?;
            Ok(Array::floats(dims, v.into_iter().map(f64::from).collect()))
        }
    }
}

/// A plain tensor of the numbers, rounded to `dtype`; floats to integers are truncated.
pub(super) fn store_plain(a: &Array, dtype: DType) -> Result<Tensor> {
    let dims: Vec<u64> = a.dims.iter().map(|d| *d as u64).collect();
    let mut t = Tensor::zeros(dtype, &dims)?;
    match (&a.nums, dtype.is_float(), dtype) {
        (Nums::F(v), true, _) | (Nums::F(v), _, DType::Bool) => {
            encode_slice(dtype, v, t.bytes_mut())
        }
        (Nums::F(v), false, _) => {
            let v: Vec<f64> = v.iter().map(|x| x.trunc()).collect();
            encode_slice(dtype, &v, t.bytes_mut())
        }
        (Nums::I(v), true, _) => {
            let v: Vec<f64> = v.iter().map(|x| *x as f64).collect();
            encode_slice(dtype, &v, t.bytes_mut())
        }
        (Nums::I(v), false, _) => encode_slice_i64(dtype, v, t.bytes_mut()),
    }
    .map_err(format_error)?;
    Ok(t)
}

/// Stores the numbers as a value of type `ty`, quantizing where it is quantized.
pub(super) fn store(
    a: &Array,
    ty: &TensorType,
    scale: Option<&Tensor>,
    zero: Option<&Tensor>,
) -> Result<Bundle> {
    match &ty.elem {
        Elem::Plain(d) => Ok(store_plain(a, *d)?.into()),
        Elem::Quant(q) => quant::quantize(q, a, [scale, zero, None]),
    }
}
