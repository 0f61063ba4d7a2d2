//! Small integer tensors whose elements are symbolic: shapes on their way to a `Reshape`.
//!
//! Exporters compute target shapes at run time from `Shape`, `Gather`, `Concat` and arithmetic.
//! With symbolic dimensions these values are known at import, element by element, as
//! [`DimExpr`]s; truth values are 0 and 1.

use qcc_ir::{DType, DimExpr};

/// Larger tensors are data, not shapes.
pub(super) const MAX_ELEMS: usize = 1024;

/// A dense tensor of expressions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SymTensor {
    /// `I64`, `I32` or `Bool`.
    pub(super) dtype: DType,
    pub(super) dims: Vec<usize>,
    /// Row-major; as many as the product of `dims`.
    pub(super) elems: Vec<DimExpr>,
}

/// Row-major positions of a view: for each element of `dims`, `Σ index·stride` plus `base`.
fn positions(dims: &[usize], strides: &[isize], base: isize) -> Vec<usize> {
    let mut out = vec![base];
    for (&dim, &stride) in dims.iter().zip(strides) {
        out = out
            .iter()
            .flat_map(|&at| (0..dim as isize).map(move |i| at + i * stride))
            .collect();
    }
    out.into_iter().map(|at| at as usize).collect()
}

fn strides(dims: &[usize]) -> Vec<isize> {
    let mut strides = vec![1; dims.len()];
    for i in (1..dims.len()).rev() {
        strides[i - 1] = strides[i] * dims[i] as isize;
    }
    strides
}

/// NumPy broadcasting of two small shapes.
fn broadcast_dims(a: &[usize], b: &[usize]) -> Option<Vec<usize>> {
    let rank = a.len().max(b.len());
    let at = |dims: &[usize], i: usize| (i + dims.len()).checked_sub(rank).map_or(1, |j| dims[j]);
    (0..rank)
        .map(|i| match (at(a, i), at(b, i)) {
            (x, y) if x == y || y == 1 => Some(x),
            (1, y) => Some(y),
            _ => None,
        })
        .collect()
}

impl SymTensor {
    /// A tensor; `None` if there are too many elements or not as many as `dims` say.
    pub(super) fn new(dtype: DType, dims: Vec<usize>, elems: Vec<DimExpr>) -> Option<SymTensor> {
        let count = dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d))?;
        (count == elems.len() && count <= MAX_ELEMS).then_some(SymTensor { dtype, dims, elems })
    }

    /// An i64 scalar.
    pub(super) fn scalar(value: DimExpr) -> SymTensor {
        SymTensor {
            dtype: DType::I64,
            dims: Vec::new(),
            elems: vec![value],
        }
    }

    /// An i64 vector; `None` if it is too long.
    pub(super) fn vector(elems: Vec<DimExpr>) -> Option<SymTensor> {
        SymTensor::new(DType::I64, vec![elems.len()], elems)
    }

    /// The only element.
    pub(super) fn single(&self) -> Option<&DimExpr> {
        match self.elems.as_slice() {
            [one] => Some(one),
            _ => None,
        }
    }

    /// The elements as numbers, if all are.
    pub(super) fn numbers(&self) -> Option<Vec<i64>> {
        self.elems.iter().map(DimExpr::as_const).collect()
    }

    /// The same elements in another shape.
    pub(super) fn reshaped(&self, dims: Vec<usize>) -> Option<SymTensor> {
        SymTensor::new(self.dtype, dims, self.elems.clone())
    }

    fn view(&self, dims: Vec<usize>, strides: &[isize], base: isize) -> Option<SymTensor> {
        let count = dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d))?;
        if count > MAX_ELEMS {
            return None;
        }
        let elems = positions(&dims, strides, base)
            .into_iter()
            .map(|at| self.elems.get(at).cloned())
            .collect::<Option<Vec<DimExpr>>>()?;
        SymTensor::new(self.dtype, dims, elems)
    }

    /// NumPy broadcast to `dims`.
    pub(super) fn expanded(&self, dims: &[usize]) -> Option<SymTensor> {
        let lead = dims.len().checked_sub(self.dims.len())?;
        let own = strides(&self.dims);
        let strides: Vec<isize> = (0..dims.len())
            .map(|i| match i.checked_sub(lead) {
                Some(j) if self.dims[j] != 1 => own[j],
                _ => 0,
            })
            .collect();
        (broadcast_dims(&self.dims, dims)? == dims)
            .then(|| self.view(dims.to_vec(), &strides, 0))
            .flatten()
    }

    /// Two tensors broadcast to a common shape.
    pub(super) fn aligned(a: &SymTensor, b: &SymTensor) -> Option<(SymTensor, SymTensor)> {
        let dims = broadcast_dims(&a.dims, &b.dims)?;
        Some((a.expanded(&dims)?, b.expanded(&dims)?))
    }

    /// Dimension `i` of the result is dimension `perm[i]`.
    pub(super) fn transposed(&self, perm: &[usize]) -> Option<SymTensor> {
        let own = strides(&self.dims);
        let dims = perm
            .iter()
            .map(|&p| self.dims.get(p).copied())
            .collect::<Option<Vec<_>>>()?;
        let strides: Vec<isize> = perm.iter().map(|&p| own[p]).collect();
        self.view(dims, &strides, 0)
    }

    /// `count` elements along `axis` from `start` in steps of `step`, which may be negative.
    pub(super) fn sliced(
        &self,
        axis: usize,
        start: i64,
        step: i64,
        count: usize,
    ) -> Option<SymTensor> {
        let mut strides = strides(&self.dims);
        let base = isize::try_from(start)
            .ok()?
            .checked_mul(*strides.get(axis)?)?;
        let mut dims = self.dims.clone();
        dims[axis] = count;
        strides[axis] = strides[axis].checked_mul(isize::try_from(step).ok()?)?;
        self.view(dims, &strides, base)
    }

    /// Slices along `axis` at these positions, whose shape replaces the dimension.
    pub(super) fn gathered(&self, axis: usize, at: &[usize], shape: &[usize]) -> Option<SymTensor> {
        let parts = at
            .iter()
            .map(|&i| self.sliced(axis, i as i64, 1, 1))
            .collect::<Option<Vec<_>>>()?;
        let joined = match parts.is_empty() {
            true => self.sliced(axis, 0, 1, 0)?,
            false => SymTensor::joined(&parts, axis)?,
        };
        let dims = [&self.dims[..axis], shape, &self.dims[axis + 1..]].concat();
        joined.reshaped(dims)
    }

    /// Concatenation along `axis`.
    pub(super) fn joined(parts: &[SymTensor], axis: usize) -> Option<SymTensor> {
        let first = parts.first()?;
        let fits = |p: &SymTensor| {
            p.dims.len() == first.dims.len()
                && (0..p.dims.len()).all(|i| i == axis || p.dims[i] == first.dims[i])
        };
        if axis >= first.dims.len() || !parts.iter().all(fits) {
            return None;
        }
        let outer: usize = first.dims[..axis].iter().product();
        let inner: usize = first.dims[axis + 1..].iter().product();
        let mut elems = Vec::new();
        for row in 0..outer {
            for part in parts {
                let width = part.dims[axis] * inner;
                elems.extend_from_slice(&part.elems[row * width..(row + 1) * width]);
            }
        }
        let mut dims = first.dims.clone();
        dims[axis] = parts.iter().map(|p| p.dims[axis]).sum();
        SymTensor::new(first.dtype, dims, elems)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(dims: &[usize], values: &[i64]) -> SymTensor {
        let elems = values.iter().map(|&v| DimExpr::from(v)).collect();
        SymTensor::new(DType::I64, dims.to_vec(), elems).expect("fits")
    }

    #[test]
    fn views_agree_with_numpy() {
        let x = numbers(&[2, 3], &[0, 1, 2, 3, 4, 5]);
        assert_eq!(
            x.transposed(&[1, 0]),
            Some(numbers(&[3, 2], &[0, 3, 1, 4, 2, 5]))
        );
        assert_eq!(
            x.sliced(1, 2, -1, 3),
            Some(numbers(&[2, 3], &[2, 1, 0, 5, 4, 3]))
        );
        assert_eq!(x.sliced(0, 1, 1, 1), Some(numbers(&[1, 3], &[3, 4, 5])));
        assert_eq!(
            x.gathered(1, &[2, 0], &[2]),
            Some(numbers(&[2, 2], &[2, 0, 5, 3]))
        );
        assert_eq!(x.gathered(0, &[1], &[]), Some(numbers(&[3], &[3, 4, 5])));
        assert_eq!(
            SymTensor::joined(&[x.clone(), x.clone()], 1),
            Some(numbers(&[2, 6], &[0, 1, 2, 0, 1, 2, 3, 4, 5, 3, 4, 5]))
        );
        let row = numbers(&[3], &[7, 8, 9]);
        let (a, b) = SymTensor::aligned(&x, &row).expect("broadcast");
        assert_eq!((a, b), (x.clone(), numbers(&[2, 3], &[7, 8, 9, 7, 8, 9])));
        assert_eq!(x.sliced(1, 2, 1, 2), None, "out of range");
        assert_eq!(SymTensor::aligned(&x, &numbers(&[2], &[1, 2])), None);
    }

    #[test]
    fn large_tensors_are_no_shapes() {
        let one = SymTensor::scalar(DimExpr::from(1));
        assert!(one.expanded(&[1024]).is_some());
        assert!(one.expanded(&[1025]).is_none());
    }
}
