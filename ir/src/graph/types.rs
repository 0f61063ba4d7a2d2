//! Types of graph values: element format and symbolic shape.
//!
//! A quantized type carries the whole scheme: how codes are stored, how many neighbours share a
//! scale, how the scale and the zero point are stored, and whether the scale is known before
//! the run. The numbers themselves (codes, scales, zero points) belong to the value.
//!
//! ```text
//! f32[batch, seq, 256]
//! q<e4m3, [1, *], scale=f32>[128, 784]                  per output channel
//! q<i8, [1, 1, *], scale=f32, dynamic, narrow>[b, s, 784]  per token, computed at run time
//! q<u4, [1, 128], scale=f16, zero=u4>[128, 784]         groups of 128 along the last axis
//! q<e2m1, [1, 16], scale=e4m3/f32>[128, 784]            NVFP4: two levels of scales
//! q<e2m1, [1, 32], scale=e8m0 floor>[128, 784]          MXFP4: powers of two
//! q<u4, [1, *], table=f32>[128, 784]                    each row has a table of 16 values
//! ```

use crate::format::{Block, BlockShape, DType, FormatError, PowerRound, QuantFormat};
use crate::format::{scale_power, scale_symmetric, scale_two_level};
use crate::{DimExpr, diag};
use std::fmt;

/// How a scale is stored, and what it is: a factor, or a table of values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ScaleType {
    /// Stored as this format.
    Plain(DType),
    /// Stored in the first format, multiplied by one scale of the second for the whole tensor
    /// (`scale=e4m3/f32`, NVFP4's two levels).
    TwoLevel(DType, DType),
    /// Stored as e8m0, a power of two found in this way (`scale=e8m0 floor`, MX).
    Power(PowerRound),
    /// Instead of one factor, the value of each code, stored as this format (`table=f32`).
    Table(DType),
}

impl ScaleType {
    /// The format of the numbers that there are for each block.
    pub fn stored(&self) -> DType {
        match self {
            ScaleType::Plain(d) | ScaleType::TwoLevel(d, _) | ScaleType::Table(d) => *d,
            ScaleType::Power(_) => DType::E8M0,
        }
    }

    /// Whether there are values for the codes instead of a factor.
    pub fn is_table(&self) -> bool {
        matches!(self, ScaleType::Table(_))
    }

    /// The format of the one scale above those of the blocks.
    pub fn global(&self) -> Option<DType> {
        match self {
            ScaleType::TwoLevel(_, d) => Some(*d),
            _ => None,
        }
    }

    /// The scale of a symmetric block, before it is stored; below `global` where there is one.
    ///
    /// # Errors
    /// [`FormatError::Statistic`] when `absmax` is NaN, infinite or negative;
    /// [`FormatError::NotQuantizable`] for a table.
    pub fn of_block(
        &self,
        absmax: f32,
        format: QuantFormat,
        global: f32,
    ) -> Result<f32, FormatError> {
        match self {
            ScaleType::Plain(_) => scale_symmetric(absmax, format.max()),
            ScaleType::TwoLevel(..) => scale_two_level(absmax, format, global),
            ScaleType::Power(round) => scale_power(absmax, format, *round),
            ScaleType::Table(_) => Err(FormatError::NotQuantizable(format.dtype())),
        }
    }
}

/// The scheme of a quantized tensor: `real = (code − zero) · scale`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct QuantType {
    /// Format of the codes.
    pub storage: DType,
    /// Elements that share one scale; one entry per dimension.
    pub block: BlockShape,
    /// Format of the scales.
    pub scale: ScaleType,
    /// Format of the zero points; `None` for a symmetric scheme.
    pub zero: Option<DType>,
    /// Whether scales are computed from the data at run time.
    pub dynamic: bool,
    /// Whether a signed integer avoids its lowest code (`[-127, 127]` instead of `[-128, 127]`).
    pub narrow: bool,
}

impl QuantType {
    /// Which operands of `quantize` are the scale, the zero point and the global scale.
    pub fn quantize_params(&self) -> [Option<usize>; 3] {
        match (self.scale.global().is_some(), self.dynamic) {
            (false, _) => [Some(1), Some(2), None],
            (true, false) => [Some(1), None, Some(2)],
            (true, true) => [None, None, Some(1)],
        }
    }

    /// Whether sums over the dimensions after the first `rows` can be sums of codes, with the scale
    /// multiplied in afterwards: there is one for all or one for each row, and no table instead.
    pub fn one_scale_per_row(&self, rows: usize) -> bool {
        let (outer, inner) = self.block.0.split_at(rows.min(self.block.0.len()));
        let by_row =
            inner.iter().all(|b| *b == Block::All) && outer.iter().all(|b| *b == Block::Fixed(1));
        !self.scale.is_table() && (self.block.is_tensor() || by_row)
    }

    /// A symmetric static scheme with f32 scales and the full range.
    pub fn symmetric(storage: DType, block: BlockShape) -> Self {
        QuantType {
            storage,
            block,
            scale: ScaleType::Plain(DType::F32),
            zero: None,
            dynamic: false,
            narrow: false,
        }
    }
}

/// What one element is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Elem {
    /// A number in a storage format.
    Plain(DType),
    /// A code under a quantization scheme.
    Quant(QuantType),
}

impl Elem {
    /// The format, if the element is not quantized.
    pub fn plain(&self) -> Option<DType> {
        match self {
            Elem::Plain(d) => Some(*d),
            Elem::Quant(_) => None,
        }
    }

    /// The scheme, if the element is quantized.
    pub fn quant(&self) -> Option<&QuantType> {
        match self {
            Elem::Plain(_) => None,
            Elem::Quant(q) => Some(q),
        }
    }

    /// The format of the stored codes.
    pub fn storage(&self) -> DType {
        match self {
            Elem::Plain(d) => *d,
            Elem::Quant(q) => q.storage,
        }
    }

    /// The format that an expression reads: a quantized operand reads as its real value.
    pub fn read_as(&self) -> DType {
        match self {
            Elem::Plain(d) => *d,
            Elem::Quant(_) => DType::F32,
        }
    }
}

/// The type of a graph value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TensorType {
    /// What one element is.
    pub elem: Elem,
    /// Extents, outermost first; row-major. Empty for a scalar.
    pub shape: Vec<DimExpr>,
}

impl TensorType {
    /// A tensor of a plain format.
    pub fn new(dtype: DType, shape: impl IntoIterator<Item = DimExpr>) -> Self {
        TensorType {
            elem: Elem::Plain(dtype),
            shape: shape.into_iter().collect(),
        }
    }

    /// A tensor of a plain format with known extents.
    pub fn fixed(dtype: DType, dims: &[u64]) -> Self {
        Self::new(dtype, dims.iter().map(|d| DimExpr::extent(*d)))
    }

    /// A quantized tensor.
    pub fn quant(q: QuantType, shape: impl IntoIterator<Item = DimExpr>) -> Self {
        TensorType {
            elem: Elem::Quant(q),
            shape: shape.into_iter().collect(),
        }
    }

    /// Number of dimensions.
    pub fn rank(&self) -> usize {
        self.shape.len()
    }

    /// The plain format, or a diagnostic saying that `what` may not be quantized.
    pub fn plain(&self, what: &str) -> diag::Result<DType> {
        self.elem.plain().ok_or_else(|| {
            diag::Diagnostic::error(
                201,
                diag::Class::Internal,
                format!("{what} must not be quantized, but has the type {self}"),
            )
        })
    }

    /// The same shape with another plain format.
    #[must_use]
    pub fn with_dtype(&self, d: DType) -> Self {
        TensorType {
            elem: Elem::Plain(d),
            shape: self.shape.clone(),
        }
    }

    /// Number of elements.
    pub fn numel(&self) -> DimExpr {
        DimExpr::product(&self.shape)
    }

    /// The extents if all are known.
    pub fn fixed_dims(&self) -> Option<Vec<u64>> {
        self.shape
            .iter()
            .map(|d| d.as_const().and_then(|c| u64::try_from(c).ok()))
            .collect()
    }

    /// The shape of the scales of a quantized type: `⌈dim / block⌉` per dimension.
    ///
    /// A tensor-wide scale is a scalar (`[]`); every other block keeps the rank. Tables have one
    /// more dimension, with one value for each code.
    pub fn scale_shape(&self) -> Option<Vec<DimExpr>> {
        let q = self.elem.quant()?;
        let mut shape = self.block_counts(q);
        if q.scale.is_table() {
            shape.push(DimExpr::extent(1 << q.storage.bits().min(16)));
        }
        Some(shape)
    }

    fn block_counts(&self, q: &QuantType) -> Vec<DimExpr> {
        if q.block.is_tensor() {
            return Vec::new();
        }
        self.shape
            .iter()
            .zip(&q.block.0)
            .map(|(d, b)| match b {
                Block::All => DimExpr::from(1),
                Block::Fixed(1) => d.clone(),
                Block::Fixed(n) => {
                    let n = DimExpr::extent(*n);
                    (d + &(&n - &DimExpr::from(1))).floor_div(&n)
                }
            })
            .collect()
    }
}

impl fmt::Display for ScaleType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ScaleType::Plain(d) => write!(f, "{d}"),
            ScaleType::TwoLevel(a, b) => write!(f, "{a}/{b}"),
            ScaleType::Power(round) => write!(f, "{} {round}", DType::E8M0),
            ScaleType::Table(d) => write!(f, "{d}"),
        }
    }
}

impl fmt::Display for Elem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let q = match self {
            Elem::Plain(d) => return write!(f, "{d}"),
            Elem::Quant(q) => q,
        };
        let what = match q.scale {
            ScaleType::Table(_) => "table",
            _ => "scale",
        };
        write!(f, "q<{}, {}, {what}={}", q.storage, q.block, q.scale)?;
        if let Some(z) = q.zero {
            write!(f, ", zero={z}")?;
        }
        if q.dynamic {
            f.write_str(", dynamic")?;
        }
        if q.narrow {
            f.write_str(", narrow")?;
        }
        f.write_str(">")
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[", self.elem)?;
        for (i, d) in self.shape.iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{d}")?;
        }
        f.write_str("]")
    }
}
