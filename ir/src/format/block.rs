//! Block shapes: how many neighbouring elements share one scale.
//!
//! A [`BlockShape`] gives one [`Block`] per dimension. Element `(i0, i1, …)` uses scale
//! `(i0 / b0, i1 / b1, …)` (integer division; 0 where the block is `*`), so the scales form a
//! tensor of shape `(⌈d0 / b0⌉, ⌈d1 / b1⌉, …)`, with 1 where the block is `*`. A last block may
//! be short, and an empty dimension has no scale. This is the blocked form of ONNX
//! `QuantizeLinear` (opset 21) with a block size on every axis:
//!
//! | name | shape for `[rows, columns]` |
//! |---|---|
//! | tensor | `[*, *]` |
//! | axis 0 (per channel); row (per token) | `[1, *]` |
//! | group of 128 | `[1, 128]` |
//! | block | `[128, 128]` |

use std::fmt;
use std::str::FromStr;

use super::FormatError;

/// The extent of a block along one dimension.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Block {
    /// The whole dimension (`*`).
    All,
    /// This many elements; at least 1.
    Fixed(u64),
}

/// The block extents of a tensor, one per dimension.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockShape(pub Vec<Block>);

impl Block {
    /// Blocks along a dimension of `size` elements.
    pub fn count(self, size: u64) -> u64 {
        match self {
            Block::All => 1.min(size),
            Block::Fixed(n) => size.div_ceil(n.max(1)),
        }
    }

    /// The block that holds element `index`.
    pub fn of(self, index: u64) -> u64 {
        match self {
            Block::All => 0,
            Block::Fixed(n) => index / n.max(1),
        }
    }

    /// Elements per block in a dimension of `size` elements: at least 1, at most `size` where
    /// that is not 0.
    pub(super) fn elements(self, size: usize) -> usize {
        let whole = size.max(1);
        match self {
            Block::All => whole,
            Block::Fixed(n) => usize::try_from(n.max(1)).map_or(whole, |n| n.min(whole)),
        }
    }
}

impl BlockShape {
    /// One scale for the whole tensor of this rank.
    pub fn tensor(rank: usize) -> Self {
        BlockShape(vec![Block::All; rank])
    }

    /// One scale per index of `axis`.
    pub fn axis(rank: usize, axis: usize) -> Self {
        let mut b = vec![Block::All; rank];
        if let Some(x) = b.get_mut(axis) {
            *x = Block::Fixed(1);
        }
        BlockShape(b)
    }

    /// One scale per index of every dimension but the last: a row, or an activation's token.
    pub fn row(rank: usize) -> Self {
        let mut b = vec![Block::Fixed(1); rank];
        if let Some(x) = b.last_mut() {
            *x = Block::All;
        }
        BlockShape(b)
    }

    /// One scale per `n` consecutive elements of the last dimension.
    pub fn group(rank: usize, n: u64) -> Self {
        let mut b = vec![Block::Fixed(1); rank];
        if let Some(x) = b.last_mut() {
            *x = Block::Fixed(n);
        }
        BlockShape(b)
    }

    /// Whether every dimension is covered whole.
    pub fn is_tensor(&self) -> bool {
        self.0.iter().all(|b| *b == Block::All)
    }

    /// Whether all dimensions but the last are split singly and the last is whole.
    pub fn is_row(&self) -> bool {
        *self == Self::row(self.0.len())
    }

    /// Number of dimensions.
    pub fn rank(&self) -> usize {
        self.0.len()
    }

    /// The shape of the scales (and zero points) of a tensor of shape `dims`.
    ///
    /// # Errors
    /// [`FormatError::Rank`].
    pub fn scale_shape(&self, dims: &[usize]) -> Result<Vec<usize>, FormatError> {
        self.check_rank(dims)?;
        // A count never exceeds its dimension.
        let count = |(block, &dim): (&Block, &usize)| block.count(dim as u64) as usize;
        Ok(self.0.iter().zip(dims).map(count).collect())
    }

    /// Number of scales of a tensor of shape `dims`: the product of its [`Self::scale_shape`].
    ///
    /// # Errors
    /// [`FormatError::Rank`], [`FormatError::TooLarge`].
    pub fn scale_count(&self, dims: &[usize]) -> Result<usize, FormatError> {
        product(&self.scale_shape(dims)?)
    }

    /// The position, in the row-major scales, of the scale of element `index` of a tensor of
    /// shape `dims`.
    ///
    /// # Errors
    /// [`FormatError::Rank`], [`FormatError::Index`], [`FormatError::TooLarge`].
    pub fn scale_index(&self, dims: &[usize], index: &[usize]) -> Result<usize, FormatError> {
        self.check_rank(index)?;
        let shape = self.scale_shape(dims)?;
        let mut flat = 0usize;
        for (axis, (&extent, &index)) in dims.iter().zip(index).enumerate() {
            if index >= extent {
                return Err(FormatError::Index {
                    axis,
                    index,
                    extent,
                });
            }
            flat = flat
                .checked_mul(shape[axis])
                .and_then(|flat| flat.checked_add(self.0[axis].of(index as u64) as usize))
                .ok_or(FormatError::TooLarge)?;
        }
        Ok(flat)
    }

    fn check_rank(&self, dims: &[usize]) -> Result<(), FormatError> {
        if self.rank() == dims.len() {
            return Ok(());
        }
        Err(FormatError::Rank {
            block: self.rank(),
            tensor: dims.len(),
        })
    }
}

/// The product of all extents.
pub(super) fn product(dims: &[usize]) -> Result<usize, FormatError> {
    if dims.contains(&0) {
        return Ok(0);
    }
    dims.iter()
        .try_fold(1usize, |n, &d| n.checked_mul(d))
        .ok_or(FormatError::TooLarge)
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Block::All => f.write_str("*"),
            Block::Fixed(n) => write!(f, "{n}"),
        }
    }
}

impl fmt::Display for BlockShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (i, b) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{b}")?;
        }
        f.write_str("]")
    }
}

impl FromStr for Block {
    type Err = FormatError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        match (s, s.parse()) {
            ("*", _) => Ok(Block::All),
            (_, Ok(n)) if n > 0 && s.starts_with(|c: char| c.is_ascii_digit()) => {
                Ok(Block::Fixed(n))
            }
            _ => Err(FormatError::BlockSyntax(s.to_string())),
        }
    }
}

impl FromStr for BlockShape {
    type Err = FormatError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let syntax = || FormatError::BlockSyntax(s.to_string());
        let inner = s
            .trim()
            .strip_prefix('[')
            .and_then(|s| s.strip_suffix(']'))
            .ok_or_else(syntax)?;
        if inner.trim().is_empty() {
            return Ok(Self(Vec::new()));
        }
        inner
            .split(',')
            .map(|entry| entry.trim().parse().map_err(|_| syntax()))
            .collect::<Result<_, _>>()
            .map(Self)
    }
}
