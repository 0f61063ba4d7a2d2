//! Loads, stores and atomics.

use super::R;

/// State spaces of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Space {
    Generic,
    Global,
    /// `.shared` and `.shared::cta`.
    Shared,
    SharedCluster,
    Local,
    Param,
    Const,
}

/// Scope of a synchronizing access.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scope {
    Cta,
    Cluster,
    Gpu,
    Sys,
}

/// Memory order of an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Weak,
    /// Also `.volatile` and `.mmio`.
    Relaxed,
    Acquire,
    Release,
    AcqRel,
}

/// `ld` and `st`.
#[derive(Clone, Debug)]
pub(crate) struct MemOp {
    pub(crate) space: Space,
    pub(crate) order: Order,
    pub(crate) scope: Scope,
    /// Bytes of an element.
    pub(crate) bytes: u8,
    /// Sign-extend a loaded element from its width to this register width; 0 for none.
    pub(crate) extend: u8,
    pub(crate) addr: R,
    /// The address register has 32 bits.
    pub(crate) narrow: bool,
    pub(crate) off: i64,
    /// Destinations (`None` is `_`) or sources.
    pub(crate) regs: Box<[Option<R>]>,
}

/// Arithmetic of an atomic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AtomKind {
    Add,
    AddF32,
    AddF64,
    AddF16,
    AddBf16,
    AddF16x2,
    AddBf16x2,
    MinU,
    MaxU,
    MinS,
    MaxS,
    And,
    Or,
    Xor,
    Inc,
    Dec,
    Exch,
    Cas,
}

/// `atom` and `red`.
#[derive(Clone, Debug)]
pub(crate) struct AtomOp {
    pub(crate) kind: AtomKind,
    pub(crate) space: Space,
    pub(crate) order: Order,
    pub(crate) scope: Scope,
    pub(crate) bytes: u8,
    pub(crate) addr: R,
    pub(crate) narrow: bool,
    pub(crate) off: i64,
    /// None for `red` and for `_`.
    pub(crate) d: Option<R>,
    pub(crate) a: R,
    /// New value of `cas`.
    pub(crate) b: R,
    /// Vector forms repeat on following elements.
    pub(crate) more: Box<[(Option<R>, R)]>,
}
