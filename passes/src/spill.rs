//! Bytes that are kept somewhere else than in memory.
//!
//! Weight methods hold the streamed activations of all samples and the codes found so far. What
//! exceeds a limit goes to a [`Spill`]; passes open no file, so whoever calls them supplies it.
//! Where bytes lie changes no result.

use qcc_ir::Tensor;
use qcc_ir::diag::Result;
use qcc_ir::format::DType;
use qcc_ir::graph::WeightBytes;
use std::sync::Arc;

/// A place for bytes that are read again later.
pub trait Spill {
    /// Keeps bytes as long as the result lives.
    ///
    /// # Errors
    /// When they cannot be stored.
    fn keep(&self, bytes: &[u8]) -> Result<Arc<dyn WeightBytes>>;
}

/// A limit of what is held in memory, and where the rest goes.
#[derive(Clone, Copy)]
pub struct Spilling<'a> {
    /// Where.
    pub to: &'a dyn Spill,
    /// Bytes that stay in memory at most: those of streamed activations and, apart from them,
    /// those of codes.
    pub above: u64,
}

/// A tensor in memory or elsewhere.
#[derive(Clone, Debug)]
pub(crate) enum Held {
    /// Here.
    Here(Tensor),
    /// Elsewhere, with format and extents.
    There(Arc<dyn WeightBytes>, DType, Vec<u64>),
}

impl Held {
    /// Holds a tensor, elsewhere when `used` and its own bytes exceed the limit.
    ///
    /// # Errors
    /// When it cannot be stored.
    pub(crate) fn new(t: Tensor, used: u64, limit: Option<Spilling<'_>>) -> Result<Self> {
        match limit {
            Some(s) if used + t.bytes().len() as u64 > s.above => {
                let bytes = s.to.keep(t.bytes())?;
                Ok(Held::There(bytes, t.dtype(), t.dims().to_vec()))
            }
            _ => Ok(Held::Here(t)),
        }
    }

    /// The tensor.
    ///
    /// # Errors
    /// When it can no longer be read.
    pub(crate) fn tensor(&self) -> Result<Tensor> {
        match self {
            Held::Here(t) => Ok(t.clone()),
            Held::There(bytes, dtype, dims) => Tensor::from_bytes(*dtype, dims, &bytes.bytes()?),
        }
    }

    /// Bytes that it takes in memory.
    pub(crate) fn bytes(&self) -> u64 {
        match self {
            Held::Here(t) => t.bytes().len() as u64,
            Held::There(..) => 0,
        }
    }
}
