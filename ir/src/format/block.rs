//! Block shapes: how many neighbouring elements share one scale.
//!
//! A [`BlockShape`] gives one [`Block`] per dimension: `[*, *]` one scale per tensor, `[1, *]`
//! one per row, `[1, 128]` one per group of 128 along the last axis, `[128, 128]` square blocks.
//! The scale tensor has `⌈dim / block⌉` entries along each dimension; a last block may be short.

use std::fmt;

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
