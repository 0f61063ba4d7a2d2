//! The ways in which one weight follows from another.

use super::hadamard::Rotation;
use super::{decoded, format_error, read_f32};
use qcc_ir::diag::{Class, Diagnostic, Result};
use qcc_ir::eval::with_bytes;
use qcc_ir::format::{
    BlockShape, DType, FormatError, IntRange, QuantFormat, QuantParams, clipped_nd, decode_slice,
    dequantize_nd, dequantize_table_nd, encode_slice, quantize_nd,
};
use qcc_ir::graph::{ScaleType, Weight};
use std::borrow::Cow;
use std::sync::Arc;

/// Codes of a weight under scales (and zero points) that are known.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Quantizer {
    /// Storage and range.
    pub(crate) format: QuantFormat,
    /// The codes that are used, where they are fewer than the format has.
    pub(crate) levels: Option<IntRange>,
    /// Elements that share a scale.
    pub(crate) block: BlockShape,
    /// How scales are stored.
    pub(crate) scale: ScaleType,
    /// One scale per block, or its table, as stored.
    pub(crate) scales: Arc<[f32]>,
    /// One zero point per block of an asymmetric scheme.
    pub(crate) zeros: Option<Arc<[i32]>>,
    /// The scale above those of the blocks.
    pub(crate) global: Option<f32>,
}

impl Quantizer {
    /// The stored codes of a tensor.
    ///
    /// # Errors
    /// When scales or zero points do not fit it.
    pub(crate) fn codes(
        &self,
        v: &[f32],
        dims: &[u64],
    ) -> std::result::Result<Vec<u8>, FormatError> {
        let factors = self.factors();
        let params = QuantParams {
            scales: &factors,
            zeros: self.zeros.as_deref(),
        };
        let dims: Vec<usize> = dims.iter().map(|d| *d as usize).collect();
        let mut codes = quantize_nd(v, &dims, &self.block, self.format, params)?;
        if let Some(levels) = self.levels {
            let dtype = self.format.dtype();
            let mut numbers = vec![0.0f32; v.len()];
            decode_slice(dtype, &codes, &mut numbers)?;
            let (min, max) = (levels.min as f32, levels.max as f32);
            numbers.iter_mut().for_each(|c| *c = c.clamp(min, max));
            encode_slice(dtype, &numbers, &mut codes)?;
        }
        Ok(codes)
    }

    /// The real values of stored codes of a tensor.
    ///
    /// # Errors
    /// When codes, scales or zero points do not fit it.
    pub(crate) fn real(
        &self,
        codes: &[u8],
        dims: &[u64],
    ) -> std::result::Result<Vec<f32>, FormatError> {
        let factors = self.factors();
        let dims: Vec<usize> = dims.iter().map(|d| *d as usize).collect();
        if self.scale.is_table() {
            return dequantize_table_nd(codes, &dims, &self.block, self.format.dtype(), &factors);
        }
        let params = QuantParams {
            scales: &factors,
            zeros: self.zeros.as_deref(),
        };
        dequantize_nd(codes, &dims, &self.block, self.format, params)
    }

    /// How many elements of a tensor saturate; none of a table, which has values of its own.
    ///
    /// # Errors
    /// When scales or zero points do not fit it.
    pub(crate) fn clipped(&self, v: &[f32], dims: &[u64]) -> std::result::Result<u64, FormatError> {
        if self.scale.is_table() {
            return Ok(0);
        }
        let factors = self.factors();
        let params = QuantParams {
            scales: &factors,
            zeros: self.zeros.as_deref(),
        };
        let dims: Vec<usize> = dims.iter().map(|d| *d as usize).collect();
        clipped_nd(v, &dims, &self.block, (self.format, self.levels), params)
    }

    /// What the numbers of codes are multiplied by, for each block.
    fn factors(&self) -> Cow<'_, [f32]> {
        match self.global {
            None => Cow::Borrowed(&*self.scales),
            Some(g) => Cow::Owned(self.scales.iter().map(|s| s * g).collect()),
        }
    }
}

/// A function from one weight to another.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Transform {
    /// The same elements with other extents.
    Reshape {
        /// The extents.
        dims: Vec<u64>,
    },
    /// Result dimension `i` is source dimension `perm[i]`.
    Transpose {
        /// A permutation of the dimensions.
        perm: Vec<usize>,
    },
    /// Conversion between float formats; f64 and f32 round once to the narrower.
    Cast {
        /// The result's format.
        dtype: DType,
    },
    /// `w · f` (or `w / f`) in f32 with one factor per index of `axis`, rounded to `dtype`.
    Scale {
        /// The dimension that the factors belong to.
        axis: usize,
        /// One factor per index.
        factors: Arc<[f32]>,
        /// Whether to divide by the factors.
        divide: bool,
        /// The result's format.
        dtype: DType,
    },
    /// The same with these elements, counted row-major, at 0.
    Without {
        /// Positions, increasing.
        at: Arc<[u64]>,
    },
    /// The vectors along `axis`, their elements in `span`, times a rotation, rounded to `dtype`.
    Rotate {
        /// The dimension along which the vectors lie.
        axis: usize,
        /// The elements that are rotated; whole runs of the rotation.
        span: std::ops::Range<usize>,
        /// By what.
        rotation: Arc<Rotation>,
        /// Whether each vector's mean is subtracted before.
        center: bool,
        /// The result's format.
        dtype: DType,
    },
    /// `saturate(round(w / scale) + zero)`.
    Quantize(Quantizer),
}

impl Transform {
    /// Whether the result of equal elements is the same number again.
    pub(super) fn keeps_values(&self) -> bool {
        matches!(
            self,
            Transform::Reshape { .. } | Transform::Transpose { .. }
        )
    }

    /// Format and extents of the result.
    ///
    /// # Errors
    /// When the transform does not fit the source.
    pub(super) fn result(&self, source: &Weight) -> Result<(DType, Vec<u64>)> {
        let dims = source.dims.clone();
        let float = |d: DType| if d.is_float() { Ok(()) } else { Err(()) };
        let fits = match self {
            Transform::Reshape { dims: new } => {
                let n = new.iter().try_fold(1u64, |p, d| p.checked_mul(*d));
                return match n == source.numel() && n.is_some() {
                    true => Ok((source.dtype, new.clone())),
                    false => Err(misfit(self, source)),
                };
            }
            Transform::Transpose { perm } => {
                let mut sorted = perm.clone();
                sorted.sort_unstable();
                if sorted != (0..dims.len()).collect::<Vec<_>>() || source.dtype.bits() < 8 {
                    return Err(misfit(self, source));
                }
                return Ok((source.dtype, perm.iter().map(|p| dims[*p]).collect()));
            }
            Transform::Cast { dtype } => float(source.dtype).and(float(*dtype)).map(|()| *dtype),
            Transform::Scale {
                axis,
                factors,
                dtype,
                ..
            } => match dims.get(*axis) {
                Some(d) if *d == factors.len() as u64 => {
                    float(source.dtype).and(float(*dtype)).map(|()| *dtype)
                }
                _ => Err(()),
            },
            Transform::Without { at } => {
                let held = |n: u64| at.last().is_none_or(|last| *last < n);
                match source.numel().is_some_and(held) {
                    true => float(source.dtype).map(|()| source.dtype),
                    false => Err(()),
                }
            }
            Transform::Rotate {
                axis,
                span,
                rotation,
                dtype,
                ..
            } => match dims.get(*axis) {
                Some(d) if span.end as u64 <= *d && span.len() % rotation.size() == 0 => {
                    float(source.dtype).and(float(*dtype)).map(|()| *dtype)
                }
                _ => Err(()),
            },
            Transform::Quantize(q) => match q.block.0.len() == dims.len() {
                true => float(source.dtype).map(|()| q.format.dtype()),
                false => Err(()),
            },
        };
        match fits {
            Ok(dtype) => Ok((dtype, dims)),
            Err(()) => Err(misfit(self, source)),
        }
    }

    /// The result's bytes.
    ///
    /// # Errors
    /// When the source cannot be read.
    pub(super) fn apply(&self, source: &Weight) -> Result<Vec<u8>> {
        match self {
            Transform::Reshape { .. } => with_bytes(source, |b| Ok(b.to_vec())),
            Transform::Transpose { perm } => {
                let width = source.dtype.bits() as usize / 8;
                with_bytes(source, |b| Ok(transpose(b, &source.dims, perm, width)))
            }
            Transform::Cast { dtype } => encode(*dtype, &decoded::<f64>(source)?, source),
            Transform::Scale {
                axis,
                factors,
                divide,
                dtype,
            } => {
                let mut v = read_f32(source)?;
                let inner: u64 = source.dims[axis + 1..].iter().product();
                scale(&mut v, inner as usize, factors, *divide);
                encode(*dtype, &v, source)
            }
            Transform::Without { at } => {
                let mut v = read_f32(source)?;
                at.iter().for_each(|i| v[*i as usize] = 0.0);
                encode(source.dtype, &v, source)
            }
            Transform::Rotate {
                axis,
                span,
                rotation,
                center,
                dtype,
            } => {
                let mut v: Vec<f64> = decoded(source)?;
                each_vector(&mut v, &source.dims, *axis, &mut |x| {
                    if *center {
                        let mean = x.iter().sum::<f64>() / x.len().max(1) as f64;
                        x.iter_mut().for_each(|x| *x -= mean);
                    }
                    rotation.apply(&mut x[span.clone()]);
                });
                encode(*dtype, &v, source)
            }
            Transform::Quantize(q) => q
                .codes(&read_f32(source)?, &source.dims)
                .map_err(|e| format_error(e, &source.name)),
        }
    }
}

fn misfit(t: &Transform, source: &Weight) -> Diagnostic {
    Diagnostic::error(
        911,
        Class::Internal,
        format!(
            "{t:?} does not fit the weight {}{:?}",
            source.dtype, source.dims
        ),
    )
    .at(format!("weight {}", source.name))
}

fn encode<T: qcc_ir::format::Real>(dtype: DType, v: &[T], source: &Weight) -> Result<Vec<u8>> {
    let n = dtype
        .byte_len(v.len() as u64)
        .and_then(|n| usize::try_from(n).ok());
    // INVARIANT: `v` is in memory, and no float format is wider than twice its elements.
    let mut bytes = vec![0; n.unwrap_or(0)];
    encode_slice(dtype, v, &mut bytes).map_err(|e| format_error(e, &source.name))?;
    Ok(bytes)
}

/// Multiplies or divides by one factor per run of `inner` elements, over and over.
fn scale(v: &mut [f32], inner: usize, factors: &[f32], divide: bool) {
    let runs = v.chunks_mut(inner.max(1));
    for (run, f) in runs.zip(factors.iter().cycle()) {
        for x in run {
            *x = if divide { *x / f } else { *x * f };
        }
    }
}

/// Shows and changes the vectors along an axis, one after another.
fn each_vector(v: &mut [f64], dims: &[u64], axis: usize, change: &mut dyn FnMut(&mut [f64])) {
    let inner = dims[axis + 1..].iter().product::<u64>() as usize;
    let n = dims[axis] as usize;
    let mut x = vec![0.0; n];
    for part in v.chunks_exact_mut((n * inner).max(1)) {
        for i in 0..inner {
            let at = |j: usize| j * inner + i;
            (0..n).for_each(|j| x[j] = part[at(j)]);
            change(&mut x);
            (0..n).for_each(|j| part[at(j)] = x[j]);
        }
    }
}

/// The elements of `bytes` (row-major in `dims`, `width` bytes each) in the order of `perm`.
fn transpose(bytes: &[u8], dims: &[u64], perm: &[usize], width: usize) -> Vec<u8> {
    if let ([rows, cols], [1, 0]) = (dims, perm) {
        let (rows, cols) = (*rows as usize, *cols as usize);
        match width {
            1 => return matrix_transposed::<1>(bytes, rows, cols),
            2 => return matrix_transposed::<2>(bytes, rows, cols),
            4 => return matrix_transposed::<4>(bytes, rows, cols),
            _ => {}
        }
    }
    let mut strides = vec![1usize; dims.len()];
    for i in (1..dims.len()).rev() {
        strides[i - 1] = strides[i] * dims[i] as usize;
    }
    let extents: Vec<usize> = perm.iter().map(|p| dims[*p] as usize).collect();
    let steps: Vec<usize> = perm.iter().map(|p| strides[*p]).collect();
    let mut out = Vec::with_capacity(bytes.len());
    let mut index = vec![0usize; extents.len()];
    let mut at = 0;
    while out.len() < bytes.len() {
        out.extend_from_slice(&bytes[at * width..][..width]);
        for d in (0..extents.len()).rev() {
            index[d] += 1;
            at += steps[d];
            if index[d] < extents[d] {
                break;
            }
            at -= steps[d] * extents[d];
            index[d] = 0;
        }
    }
    out
}

/// Rows and columns of a square that is transposed in the cache.
const SQUARE: usize = 32;

/// A matrix of elements of `W` bytes with rows and columns exchanged, square by square.
fn matrix_transposed<const W: usize>(bytes: &[u8], rows: usize, cols: usize) -> Vec<u8> {
    let (from, _) = bytes.as_chunks::<W>();
    let mut to = vec![[0; W]; from.len()];
    for i in (0..rows).step_by(SQUARE) {
        for j in (0..cols).step_by(SQUARE) {
            for row in i..rows.min(i + SQUARE) {
                for col in j..cols.min(j + SQUARE) {
                    to[col * rows + row] = from[row * cols + col];
                }
            }
        }
    }
    to.into_flattened()
}

#[cfg(test)]
mod tests {
    use super::super::{derive, inline_f32};
    use super::*;

    fn w(dims: &[u64]) -> Weight {
        let n: u64 = dims.iter().product();
        let v: Vec<f32> = (0..n).map(|i| i as f32).collect();
        inline_f32("w".into(), dims.to_vec(), &v)
    }

    #[test]
    fn transposes_any_rank() {
        let t = derive(&w(&[2, 3]), Transform::Transpose { perm: vec![1, 0] }).unwrap();
        assert_eq!(t.dims, [3, 2]);
        assert_eq!(read_f32(&t).unwrap(), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
        let wide = w(&[70, 45]);
        let transposed = Transform::Transpose { perm: vec![1, 0] };
        for (dtype, transform) in [DType::F32, DType::F16].map(|d| (d, transposed.clone())) {
            let source = derive(&wide, Transform::Cast { dtype }).unwrap();
            let t = derive(&source, transform).unwrap();
            let (source, t) = (read_f32(&source).unwrap(), read_f32(&t).unwrap());
            assert!(
                (0..3150).all(|i| t[i] == source[i % 70 * 45 + i / 70]),
                "{dtype}"
            );
        }
        let t = derive(
            &w(&[2, 1, 3]),
            Transform::Transpose {
                perm: vec![2, 0, 1],
            },
        )
        .unwrap();
        assert_eq!(t.dims, [3, 2, 1]);
        assert_eq!(read_f32(&t).unwrap(), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
    }

    #[test]
    fn scales_an_axis_and_chains() {
        let factors: Arc<[f32]> = vec![1.0, 2.0, 4.0].into();
        let by_column = Transform::Scale {
            axis: 1,
            factors,
            divide: false,
            dtype: DType::F32,
        };
        let s = derive(&w(&[2, 3]), by_column).unwrap();
        assert_eq!(read_f32(&s).unwrap(), [0.0, 2.0, 8.0, 3.0, 8.0, 20.0]);
        let half = derive(&s, Transform::Cast { dtype: DType::F16 }).unwrap();
        let q = derive(
            &half,
            Transform::Quantize(Quantizer {
                format: QuantFormat::full(DType::I8).unwrap(),
                levels: None,
                block: BlockShape::axis(2, 0),
                scale: ScaleType::Plain(DType::F32),
                scales: vec![2.0, 4.0].into(),
                zeros: None,
                global: None,
            }),
        )
        .unwrap();
        assert_eq!((q.dtype, q.dims.as_slice()), (DType::I8, &[2, 3][..]));
        assert_eq!(read_f32(&q).unwrap(), [0.0, 1.0, 4.0, 1.0, 2.0, 5.0]);
    }

    #[test]
    fn rotates_vectors_along_an_axis() {
        let r = Rotation::new(2, 2, 1).unwrap();
        let turned = |row: [f64; 2]| {
            let mut row = row;
            r.apply(&mut row);
            row.map(|v| v as f32)
        };
        let rotate = |axis, span, center| Transform::Rotate {
            axis,
            span,
            rotation: Arc::new(r.clone()),
            center,
            dtype: DType::F32,
        };
        let columns = derive(&w(&[2, 3]), rotate(0, 0..2, false)).unwrap();
        let [a, b, c] = [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]].map(turned);
        let expected = [a[0], b[0], c[0], a[1], b[1], c[1]];
        assert_eq!(read_f32(&columns).unwrap(), expected);
        let rows = derive(&w(&[2, 3]), rotate(1, 1..3, true)).unwrap();
        let t = turned([0.0, 1.0]);
        assert_eq!(
            read_f32(&rows).unwrap(),
            [-1.0, t[0], t[1], -1.0, t[0], t[1]]
        );
        let e = derive(&w(&[2, 3]), rotate(1, 0..3, false)).unwrap_err();
        assert_eq!(e.code(), "Q0911");
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let bad = [
            Transform::Reshape { dims: vec![5] },
            Transform::Transpose { perm: vec![0, 0] },
            Transform::Cast { dtype: DType::I8 },
            Transform::Scale {
                axis: 0,
                factors: vec![1.0; 3].into(),
                divide: false,
                dtype: DType::F32,
            },
        ];
        for t in bad {
            assert_eq!(derive(&w(&[2, 3]), t).unwrap_err().code(), "Q0911");
        }
    }
}
