//! Host tensors: what executors take and give, and what the evaluator computes with.
//!
//! A [`Tensor`] is row-major and little-endian; formats of 4 and 2 bits are packed, the first
//! element in the lowest bits. Its storage is aligned to 8 bytes, so that slices of any element
//! type can be borrowed from it. A clone shares the storage until one of the two is written.

use crate::DType;
use crate::diag::{Class, Diagnostic, Result};
use bytemuck::{AnyBitPattern, NoUninit};
use std::sync::Arc;

/// A dense tensor of a plain format in host memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    dtype: DType,
    dims: Vec<u64>,
    words: Arc<Vec<u64>>,
    bytes: usize,
}

/// A graph value at run time: a plain tensor, or codes with their scales and zero points.
///
/// The shape of `scale` and `zero` is that of
/// [`TensorType::scale_shape`](crate::graph::TensorType::scale_shape).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    /// The values, or the codes.
    pub codes: Tensor,
    /// Scales of a quantized value.
    pub scale: Option<Tensor>,
    /// Zero points of an asymmetric one.
    pub zero: Option<Tensor>,
    /// The scale of the whole value where scales have two levels.
    pub global: Option<Tensor>,
}

impl From<Tensor> for Bundle {
    fn from(codes: Tensor) -> Self {
        Bundle {
            codes,
            scale: None,
            zero: None,
            global: None,
        }
    }
}

/// Number of elements and bytes of a tensor, checked.
fn sizes(dtype: DType, dims: &[u64]) -> Result<(usize, usize)> {
    let n = dims.iter().try_fold(1u64, |p, d| p.checked_mul(*d));
    let b = n.and_then(|n| dtype.byte_len(n));
    match (n.map(usize::try_from), b.map(usize::try_from)) {
        (Some(Ok(n)), Some(Ok(b))) if b <= isize::MAX as usize => Ok((n, b)),
        _ => Err(Diagnostic::error(
            501,
            Class::Input,
            format!("a {dtype} tensor of {dims:?} does not fit the address space"),
        )),
    }
}

impl Tensor {
    /// A tensor of zeros.
    ///
    /// # Errors
    /// When the size overflows.
    pub fn zeros(dtype: DType, dims: &[u64]) -> Result<Self> {
        let (_, bytes) = sizes(dtype, dims)?;
        Ok(Tensor {
            dtype,
            dims: dims.to_vec(),
            words: Arc::new(vec![0; bytes.div_ceil(8)]),
            bytes,
        })
    }

    /// A tensor with these bytes.
    ///
    /// # Errors
    /// When their number is not what format and extents say.
    pub fn from_bytes(dtype: DType, dims: &[u64], data: &[u8]) -> Result<Self> {
        let mut t = Tensor::zeros(dtype, dims)?;
        if data.len() != t.bytes {
            return Err(Diagnostic::error(
                502,
                Class::Input,
                format!(
                    "a {dtype} tensor of {dims:?} has {} bytes, not {}",
                    t.bytes,
                    data.len()
                ),
            ));
        }
        t.bytes_mut().copy_from_slice(data);
        Ok(t)
    }

    /// A tensor of the elements of a slice whose element type has the width of `dtype`.
    ///
    /// # Errors
    /// When the number of elements is not the product of `dims`.
    pub fn from_slice<T: NoUninit>(dtype: DType, dims: &[u64], data: &[T]) -> Result<Self> {
        Tensor::from_bytes(dtype, dims, bytemuck::cast_slice(data))
    }

    /// An f32 tensor.
    ///
    /// # Errors
    /// When the number of elements is not the product of `dims`.
    pub fn f32(dims: &[u64], data: &[f32]) -> Result<Self> {
        Tensor::from_slice(DType::F32, dims, data)
    }

    /// An i64 tensor.
    ///
    /// # Errors
    /// When the number of elements is not the product of `dims`.
    pub fn i64(dims: &[u64], data: &[i64]) -> Result<Self> {
        Tensor::from_slice(DType::I64, dims, data)
    }

    /// The element format.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The extents, outermost first.
    pub fn dims(&self) -> &[u64] {
        &self.dims
    }

    /// Number of elements.
    pub fn numel(&self) -> usize {
        // INVARIANT: `sizes` has checked the product when the tensor was made.
        self.dims.iter().product::<u64>() as usize
    }

    /// The same bytes with other extents.
    ///
    /// # Errors
    /// When the number of elements changes.
    pub fn reshape(mut self, dims: &[u64]) -> Result<Self> {
        let (n, _) = sizes(self.dtype, dims)?;
        if n != self.numel() {
            return Err(Diagnostic::error(
                503,
                Class::Internal,
                format!("{:?} does not reshape to {dims:?}", self.dims),
            ));
        }
        self.dims = dims.to_vec();
        Ok(self)
    }

    /// The rows of the first axis in `range`.
    ///
    /// # Errors
    /// `Q0503` when there are not so many, or a row is no whole number of bytes.
    pub fn rows(&self, range: std::ops::Range<u64>) -> Result<Self> {
        let refuse = || {
            let message = format!("{:?} of {} has no rows {range:?}", self.dims, self.dtype);
            Diagnostic::error(503, Class::Internal, message)
        };
        let (all, rest) = self.dims.split_first().ok_or_else(refuse)?;
        if range.start > range.end || range.end > *all {
            return Err(refuse());
        }
        let each = self.bytes as u64 / (*all).max(1);
        if each * all != self.bytes as u64 {
            return Err(refuse());
        }
        let dims = [&[range.end - range.start], rest].concat();
        let bytes = (each * range.start) as usize..(each * range.end) as usize;
        Tensor::from_bytes(self.dtype, &dims, &self.bytes()[bytes])
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &bytemuck::cast_slice(self.words.as_slice())[..self.bytes]
    }

    /// The bytes, to be written. They are copied first if a clone shares them.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let words = Arc::make_mut(&mut self.words);
        &mut bytemuck::cast_slice_mut(words.as_mut_slice())[..self.bytes]
    }

    /// The elements as a slice of a type of the same width (`f32` for F32, `u16` for F16, …).
    ///
    /// # Errors
    /// When the width of `T` is not that of the format.
    pub fn as_slice<T: AnyBitPattern>(&self) -> Result<&[T]> {
        self.check_width::<T>()?;
        Ok(bytemuck::cast_slice(self.bytes()))
    }

    /// As [`Tensor::as_slice`], to be written.
    ///
    /// # Errors
    /// When the width of `T` is not that of the format.
    pub fn as_slice_mut<T: AnyBitPattern + NoUninit>(&mut self) -> Result<&mut [T]> {
        self.check_width::<T>()?;
        Ok(bytemuck::cast_slice_mut(self.bytes_mut()))
    }

    fn check_width<T>(&self) -> Result<()> {
        if size_of::<T>() * 8 == self.dtype.bits() as usize {
            return Ok(());
        }
        Err(Diagnostic::error(
            504,
            Class::Internal,
            format!(
                "{} elements are not {} bytes wide",
                self.dtype,
                size_of::<T>()
            ),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clone_is_not_written() {
        let t = Tensor::i64(&[2], &[1, 2]).unwrap();
        let mut other = t.clone();
        assert_eq!(t.bytes().as_ptr(), other.bytes().as_ptr());
        other.as_slice_mut::<i64>().unwrap()[0] = 5;
        assert_eq!(t.as_slice::<i64>().unwrap(), [1, 2]);
        assert_eq!(other.as_slice::<i64>().unwrap(), [5, 2]);
    }

    #[test]
    fn rows_are_those_of_the_first_axis() {
        let t = Tensor::i64(&[3, 2], &[1, 2, 3, 4, 5, 6]).unwrap();
        assert_eq!(
            t.rows(1..3).unwrap(),
            Tensor::i64(&[2, 2], &[3, 4, 5, 6]).unwrap()
        );
        assert_eq!(t.rows(3..3).unwrap().dims(), [0, 2]);
        assert_eq!(t.rows(2..4).unwrap_err().code(), "Q0503");
        assert_eq!(
            Tensor::i64(&[], &[1])
                .unwrap()
                .rows(0..1)
                .unwrap_err()
                .code(),
            "Q0503"
        );
        // Half a byte for each row.
        let packed = Tensor::zeros(DType::U4, &[3, 1]).unwrap();
        assert!(packed.rows(0..1).is_err());
        assert_eq!(
            Tensor::zeros(DType::F32, &[0, 4])
                .unwrap()
                .rows(0..0)
                .unwrap()
                .numel(),
            0
        );
    }

    #[test]
    fn slices_borrow_the_bytes() {
        let mut t = Tensor::f32(&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap();
        t.as_slice_mut::<f32>().unwrap()[5] = 7.0;
        assert_eq!(t.as_slice::<f32>().unwrap()[4..], [5.0, 7.0]);
        assert_eq!(t.bytes().len(), 24);
        assert!(t.as_slice::<u8>().is_err());
    }

    #[test]
    fn sizes_are_checked() {
        assert!(Tensor::zeros(DType::F32, &[1 << 40, 1 << 40]).is_err());
        assert!(Tensor::from_bytes(DType::I4, &[3], &[0x21, 0x03]).is_ok());
        assert!(Tensor::from_bytes(DType::I4, &[3], &[0x21]).is_err());
        assert!(
            Tensor::zeros(DType::F32, &[4])
                .unwrap()
                .reshape(&[2, 3])
                .is_err()
        );
    }
}
