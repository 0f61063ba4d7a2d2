//! What can be refused by the functions of this module.

use std::fmt;

use super::{Block, DType};

/// A request that the number formats cannot serve.
#[derive(Clone, Debug, PartialEq)]
pub enum FormatError {
    /// A slice has not the length that its shape or format demands.
    Length {
        /// Which slice.
        what: &'static str,
        /// The length that was needed, in elements of the slice.
        expected: usize,
        /// The length that was given.
        found: usize,
    },
    /// The number of elements or bytes exceeds the address space.
    TooLarge,
    /// The block shape has another rank than the tensor.
    Rank {
        /// Rank of the block shape.
        block: usize,
        /// Rank of the tensor.
        tensor: usize,
    },
    /// A tensor index lies outside the tensor.
    Index {
        /// The dimension.
        axis: usize,
        /// The index given there.
        index: usize,
        /// The extent of the dimension.
        extent: usize,
    },
    /// The format cannot store quantized codes.
    NotQuantizable(DType),
    /// The format has no narrow range: only signed integers have one.
    NoNarrowRange(DType),
    /// The format is not an integer, so it has no asymmetric quantization or integer codec.
    NotInteger(DType),
    /// The zero point is outside the storage's range (8-bit floats allow only 0).
    ZeroPoint {
        /// The storage.
        storage: DType,
        /// The zero point given.
        zero: i32,
    },
    /// A statistic from which a scale is computed is NaN, infinite or of the wrong sign.
    Statistic {
        /// Which statistic: `absmax`, `minimum`, `maximum` or `range`.
        what: &'static str,
        /// Its value.
        value: f32,
    },
    /// The denominator of a symmetric scale is not a finite positive number.
    Denominator(f32),
    /// The text is no block shape.
    BlockSyntax(String),
}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length {
                what,
                expected,
                found,
            } => write!(f, "{what}: expected {expected} elements, found {found}"),
            Self::TooLarge => f.write_str("the tensor exceeds the address space"),
            Self::Rank { block, tensor } => write!(
                f,
                "a block shape of rank {block} does not fit a tensor of rank {tensor}"
            ),
            Self::Index {
                axis,
                index,
                extent,
            } => write!(f, "index {index} is outside dimension {axis} of {extent}"),
            Self::NotQuantizable(dtype) => write!(f, "`{dtype}` cannot store quantized codes"),
            Self::NoNarrowRange(dtype) => write!(
                f,
                "`{dtype}` has no narrow range; only signed integers have one"
            ),
            Self::NotInteger(dtype) => write!(f, "`{dtype}` is not an integer format"),
            Self::ZeroPoint { storage, zero } => {
                write!(
                    f,
                    "zero point {zero} is not allowed for storage `{storage}`"
                )
            }
            Self::Statistic { what, value } => {
                write!(f, "cannot derive a scale: the {what} is {value}")
            }
            Self::Denominator(value) => write!(
                f,
                "the denominator of a scale must be finite and positive, not {value}"
            ),
            Self::BlockSyntax(text) => write!(
                f,
                "`{text}` is no block shape; write for example `[1, {}]`",
                Block::All
            ),
        }
    }
}

impl std::error::Error for FormatError {}
