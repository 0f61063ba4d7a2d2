//! Matrix operands of products, read as rows of f32.
//!
//! A plain operand is decoded. A quantized one is read either as its real values or, where one
//! scale serves each whole row of both operands, as `code − zero`: then the product is exact for
//! integers and the scales multiply the sums,
//!
//! ```text
//! acc[i, j] = f32(Σ (x[i, l] − zx[i]) · (w[j, l] − zw[j])) · sx[i] · sw[j]
//! ```

use crate::gemm::{Mat, gemm, gemm_exact};
use crate::quant::{Params, format_of};
use crate::value::{View, decode, rows_cols, span};
use qcc_ir::DType;
use qcc_ir::diag::Result;
use qcc_ir::format::{Block, BlockShape, QuantFormat, QuantParams, dequantize_nd};
use qcc_ir::graph::{Elem, QuantType, TensorType};
use std::borrow::Cow;
use std::ops::Range;

/// Whether a product of operands of these types is one of codes, with the scales outside: both
/// are quantized and have one scale for each row of their first `lead` dimensions.
pub(super) fn codes_multiply(x: (&TensorType, usize), w: (&TensorType, usize)) -> bool {
    let whole = |(t, lead): (&TensorType, usize)| {
        let q = t.elem.quant();
        q.is_some_and(|q| q.one_scale_per_row(lead))
    };
    whole(x) && whole(w)
}

/// `[rows, k]` numbers, read a few rows at a time.
pub(super) struct Matrix<'a> {
    data: Data<'a>,
    pub(super) rows: usize,
    pub(super) k: usize,
    /// Factor of each row where codes multiply.
    pub(super) scales: Option<Vec<f32>>,
    /// Codes are integers of at most this many bits of magnitude.
    bits: Option<u32>,
}

enum Data<'a> {
    Floats(Cow<'a, [f32]>),
    Plain(DType, &'a [u8]),
    Quant(QuantRows<'a>),
}

/// A quantized operand, each row with its scales.
struct QuantRows<'a> {
    codes: &'a [u8],
    format: QuantFormat,
    params: Params,
    /// Index of each row's first scale.
    starts: Vec<usize>,
    /// Scales of a row, and the block that each serves.
    per_row: usize,
    block: Block,
    /// Whether codes are read instead of real values.
    apart: bool,
}

impl<'a> Matrix<'a> {
    /// The rows of an operand, its dimensions from `lead` on being the columns.
    pub(super) fn new(v: View<'a>, lead: usize, apart: bool) -> Result<Self> {
        let dims = v.dims();
        let lead = lead.min(dims.len());
        let rows: usize = dims[..lead].iter().product();
        let k: usize = dims[lead..].iter().product();
        let mut m = Matrix {
            data: Data::Floats(Cow::Borrowed(&[])),
            rows,
            k,
            scales: None,
            bits: None,
        };
        match &v.ty.elem {
            Elem::Plain(DType::F32) => m.data = Data::Floats(Cow::Borrowed(v.codes.as_slice()?)),
            Elem::Plain(d) => m.data = Data::Plain(*d, v.codes.bytes()),
            Elem::Quant(q) => m.quantized(q, v, &dims, lead, apart)?,
        }
        Ok(m)
    }

    fn quantized(
        &mut self,
        q: &QuantType,
        v: View<'a>,
        dims: &[usize],
        lead: usize,
        apart: bool,
    ) -> Result<()> {
        let format = format_of(q)?;
        let table = q.scale.is_table();
        if table || (lead + 1 != dims.len() && !apart) {
            // Tables, or scales that change within a row of several dimensions: decode it whole.
            let real = crate::quant::dequantize(q, &v, &crate::Threads::single())?;
            self.data = Data::Floats(Cow::Owned(real));
            return Ok(());
        }
        let params = Params::read(q, v.params())?;
        let (starts, per_row) = row_starts(&q.block, dims, lead, apart)?;
        let rows = QuantRows {
            codes: v.codes.bytes(),
            format,
            params,
            starts,
            per_row,
            block: if apart { Block::All } else { q.block.0[lead] },
            apart,
        };
        if apart {
            self.scales = Some(rows.starts.iter().map(|s| rows.params.scales[*s]).collect());
            self.bits = magnitude(q);
            rows.check_zeros()?;
        }
        self.data = Data::Quant(rows);
        Ok(())
    }

    /// Bits of the products of the integers of both, if both hold integers.
    pub(super) fn product_bits(&self, o: &Matrix<'_>) -> Option<u32> {
        Some(self.bits? + o.bits?)
    }

    /// Decodes everything, so that nothing of the operand is read any more.
    pub(super) fn decoded(&self, threads: &crate::Threads) -> Result<Matrix<'static>> {
        let mut all = vec![0f32; self.rows * self.k];
        if self.k > 0 {
            let step = (1usize << 15).div_ceil(self.k);
            threads.chunks(&mut all, step * self.k, |at, out| {
                let r = at / self.k..(at + out.len()) / self.k;
                out.copy_from_slice(&self.read(r)?);
                Ok(())
            })?;
        }
        Ok(Matrix {
            data: Data::Floats(Cow::Owned(all)),
            rows: self.rows,
            k: self.k,
            scales: self.scales.clone(),
            bits: self.bits,
        })
    }

    /// Whether reading rows costs nothing.
    pub(super) fn is_read_in_place(&self) -> bool {
        matches!(self.data, Data::Floats(_))
    }

    /// The numbers of these rows.
    pub(super) fn read(&self, r: Range<usize>) -> Result<Cow<'_, [f32]>> {
        let elems = r.start * self.k..r.end * self.k;
        match &self.data {
            Data::Floats(v) => {
                let v = v.get(elems);
                Ok(Cow::Borrowed(v.ok_or_else(|| {
                    crate::internal("rows past the end of an operand")
                })?))
            }
            Data::Plain(d, bytes) if elems.start.is_multiple_of(d.per_byte()) => {
                let mut out = vec![0f32; elems.len()];
                decode(*d, bytes, elems.start, &mut out)?;
                Ok(Cow::Owned(out))
            }
            Data::Plain(d, bytes) => {
                let mut out = vec![0f32; elems.len() + 1];
                decode(*d, bytes, elems.start - 1, &mut out)?;
                out.remove(0);
                Ok(Cow::Owned(out))
            }
            Data::Quant(q) => Ok(Cow::Owned(q.read(r, self.k)?)),
        }
    }
}

impl QuantRows<'_> {
    fn read(&self, r: Range<usize>, k: usize) -> Result<Vec<f32>> {
        let d = self.format.dtype();
        if self.apart {
            let mut out = raw(d, self.codes, r.start * k, r.len() * k)?;
            if let Some(zeros) = &self.params.zeros {
                for (row, at) in out.chunks_mut(k.max(1)).zip(&self.starts[r]) {
                    let z = zeros[*at] as f32;
                    row.iter_mut().for_each(|v| *v -= z);
                }
            }
            return Ok(out);
        }
        let spread = |i: usize| self.starts[i]..self.starts[i] + self.per_row;
        let scales: Vec<f32> = r
            .clone()
            .flat_map(|i| &self.params.scales[spread(i)])
            .copied()
            .collect();
        let zeros = self.params.zeros.as_ref();
        let zeros: Option<Vec<i32>> =
            zeros.map(|z| r.clone().flat_map(|i| &z[spread(i)]).copied().collect());
        let params = QuantParams {
            scales: &scales,
            zeros: zeros.as_deref(),
        };
        let block = BlockShape(vec![Block::Fixed(1), self.block]);
        let codes = aligned(d, self.codes, r.start * k, r.len() * k)?;
        dequantize_nd(&codes, &[r.len(), k], &block, self.format, params)
            .map_err(crate::format_error)
    }

    fn check_zeros(&self) -> Result<()> {
        let bad = self
            .params
            .zeros
            .iter()
            .flatten()
            .find(|z| !self.format.allows_zero(**z));
        match bad {
            None => Ok(()),
            Some(zero) => Err(crate::format_error(
                qcc_ir::format::FormatError::ZeroPoint {
                    storage: self.format.dtype(),
                    zero: *zero,
                },
            )),
        }
    }
}

/// The stored codes `at..at + len`, beginning on a byte.
fn aligned(d: DType, codes: &[u8], at: usize, len: usize) -> Result<Cow<'_, [u8]>> {
    let past = || crate::internal("codes past the end of an operand");
    let per = d.per_byte();
    if at.is_multiple_of(per) {
        return Ok(Cow::Borrowed(codes.get(span(d, at, len)).ok_or_else(past)?));
    }
    let bits = d.bits() as usize;
    let code = |i: usize| {
        codes
            .get(i / per)
            .map_or(0, |b| b >> (i % per * bits) & ((1 << bits) - 1))
    };
    let byte = |i: usize| (0..per).fold(0, |b, j| b | code(i + j) << (j * bits));
    Ok(Cow::Owned((at..at + len).step_by(per).map(byte).collect()))
}

/// Codes as numbers.
fn raw(d: DType, codes: &[u8], at: usize, len: usize) -> Result<Vec<f32>> {
    let mut out = vec![0f32; len];
    decode(d, &aligned(d, codes, at, len)?, 0, &mut out)?;
    Ok(out)
}

/// The index of the first scale of every row, and the number of scales in a row.
fn row_starts(
    block: &BlockShape,
    dims: &[usize],
    lead: usize,
    apart: bool,
) -> Result<(Vec<usize>, usize)> {
    let rows: usize = dims[..lead].iter().product();
    let counts = block.scale_shape(dims).map_err(crate::format_error)?;
    let per_row = if apart {
        1
    } else {
        counts[lead..].iter().product()
    };
    let mut steps = vec![per_row; lead];
    for i in (1..lead).rev() {
        steps[i - 1] = steps[i] * counts[i];
    }
    let start = |mut row: usize| {
        let mut at = 0;
        for d in (0..lead).rev() {
            at += block.0[d].of((row % dims[d]) as u64) as usize * steps[d];
            row /= dims[d];
        }
        at
    };
    Ok(((0..rows).map(start).collect(), per_row))
}

/// Bits that hold the magnitude of `code − zero`; `None` for float codes.
fn magnitude(q: &QuantType) -> Option<u32> {
    let bits = q.storage.bits();
    match (q.storage.kind(), q.zero) {
        (qcc_ir::format::Kind::Float, _) => None,
        (qcc_ir::format::Kind::Signed, None) => Some(bits - 1),
        _ => Some(bits),
    }
}

/// Multiplies rows of `x` by rows of `w` (both `[rows, k]`) into `c[rows of x, rows of w]`, whose
/// rows lie `ldc` apart, scales included.
pub(super) fn product(
    x: (&Matrix<'_>, &[f32], Range<usize>),
    w: (&Matrix<'_>, &[f32], Range<usize>),
    c: &mut [f32],
    ldc: usize,
) -> Result<()> {
    let (m, n, k) = (x.2.len(), w.2.len(), x.0.k);
    let a = Mat::rows(x.1, 0, k);
    let b = Mat::rows(w.1, 0, k).transposed();
    match x.0.product_bits(w.0) {
        Some(bits) => gemm_exact([m, n, k], a, b, bits, c, ldc)?,
        None => gemm([m, n, k], a, b, c, ldc, false)?,
    }
    if let (Some(sx), Some(sw)) = (&x.0.scales, &w.0.scales) {
        apply_scales(c, ldc, &sx[x.2], &sw[w.2]);
    }
    Ok(())
}

crate::math::vectorised! {
    /// `c[i, j] ← c[i, j]·rows[i]·cols[j]`, rows of `c` lying `ldc` apart
    fn apply_scales(c: &mut [f32], ldc: usize, rows: &[f32], cols: &[f32]) {
        for (line, r) in c.chunks_mut(ldc.max(1)).zip(rows) {
            line.iter_mut().zip(cols).for_each(|(v, s)| *v = *v * *r * *s);
        }
    }
}

/// Rows and columns of an operand's last two dimensions and the number of such matrices.
pub(super) fn batch(dims: &[usize]) -> (usize, usize, usize) {
    let (outer, cols) = rows_cols(dims);
    let rows = dims.len().checked_sub(2).map_or(1, |i| dims[i]);
    (outer / rows.max(1), rows, cols)
}
