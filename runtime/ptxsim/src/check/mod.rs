//! Happens-before checks: vector clocks over warps and asynchronous agents, and shadow memory.
//!
//! Every access must be ordered after each conflicting one by program order, a barrier, an mbarrier, a
//! wait on its asynchronous group, or a release that was acquired. An agent is a warp, or the copies,
//! stores or multiplications that a warp or an mbarrier started; its epochs count what can be waited for
//! at once. Generic writes that the async proxy reads must also have passed `fence.proxy.async`.

mod clock;
mod global;
mod race;
mod shadow;
mod sync;

pub(crate) use global::GlobalShadow;
pub(crate) use race::Race;

use crate::fault::FaultKind;

/// A thread of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Who {
    pub(crate) rank: usize,
    pub(crate) warp: usize,
    pub(crate) lane: u8,
}

/// How memory is touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
    /// A write of what is there already: two such writes do no harm.
    SameWrite,
    AtomicRead,
    AtomicWrite,
}

impl Access {
    pub(crate) fn of(write: bool, atomic: bool) -> Self {
        match (write, atomic) {
            (false, false) => Self::Read,
            (true, false) => Self::Write,
            (false, true) => Self::AtomicRead,
            (true, true) => Self::AtomicWrite,
        }
    }

    pub(crate) fn writes(self) -> bool {
        !matches!(self, Self::Read | Self::AtomicRead)
    }

    pub(crate) fn atomic(self) -> bool {
        matches!(self, Self::AtomicRead | Self::AtomicWrite)
    }
}

/// A conflict that was found.
#[derive(Clone, Debug)]
pub(crate) struct Conflict {
    pub(crate) kind: FaultKind,
    pub(crate) message: String,
}
