//! Asynchronous copies, mbarriers, clusters.

use super::memory::{Order, Space};
use super::{P, PSrc, R};

/// An address operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Addr {
    pub(crate) space: Space,
    pub(crate) reg: R,
    pub(crate) narrow: bool,
    pub(crate) off: i64,
}

/// What a wait on an mbarrier is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    State(R),
    Parity(R),
}

/// Reduction of `cp.reduce.async.bulk`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BulkReduce {
    AddU32,
    AddU64,
    AddF16,
    AddBf16,
    AddF32,
    AddF64,
    Min(u8, bool),
    Max(u8, bool),
    And,
    Or,
    Xor,
}

/// Side and coordinates of a tensor copy.
#[derive(Clone, Debug)]
pub(crate) struct TensorCopy {
    pub(crate) map: Addr,
    /// Innermost first, as written.
    pub(crate) coords: Box<[R]>,
}

/// How a bulk store's completion is told.
#[derive(Clone, Debug)]
pub(crate) enum BulkDst {
    /// Global to shared, counted on an mbarrier; a multicast mask may name several blocks.
    Shared {
        dst: Addr,
        bar: Addr,
        multicast: Option<R>,
    },
    /// Shared to global in a bulk group.
    Global { dst: Addr },
    /// Shared to the shared memory of a block of the cluster.
    Cluster { dst: Addr, bar: Addr },
}

/// Asynchronous and cluster instructions.
#[derive(Clone, Debug)]
pub(crate) enum AsyncOp {
    /// `cp.async` of `bytes`, of which `src_size` are read and the rest zero-filled.
    CpAsync {
        dst: Addr,
        src: Addr,
        bytes: u8,
        src_size: Option<R>,
        ignore: PSrc,
    },
    CommitGroup,
    WaitGroup {
        pending: u32,
    },
    WaitAll,
    /// `cp.async.mbarrier.arrive[.noinc]`
    CpAsyncArrive {
        bar: Addr,
        noinc: bool,
    },
    MbarInit {
        bar: Addr,
        count: R,
    },
    MbarInval {
        bar: Addr,
    },
    /// `arrive`, `arrive_drop`, with optional `expect_tx`.
    MbarArrive {
        bar: Addr,
        count: Option<R>,
        tx: Option<R>,
        drop: bool,
        no_complete: bool,
        state: Option<R>,
        order: Order,
    },
    MbarExpectTx {
        bar: Addr,
        tx: R,
    },
    MbarCompleteTx {
        bar: Addr,
        tx: R,
    },
    MbarWait {
        bar: Addr,
        phase: Phase,
        d: P,
        try_wait: bool,
        order: Order,
    },
    MbarPending {
        d: R,
        state: R,
    },
    Bulk {
        dst: BulkDst,
        src: Addr,
        size: R,
        reduce: Option<BulkReduce>,
    },
    TensorLoad {
        dst: Addr,
        bar: Addr,
        multicast: Option<R>,
        tensor: TensorCopy,
    },
    TensorStore {
        src: Addr,
        tensor: TensorCopy,
        reduce: Option<BulkReduce>,
    },
    BulkPrefetch,
    BulkCommit,
    BulkWait {
        pending: u32,
    },
    Mapa {
        d: R,
        a: R,
        rank: R,
        generic: bool,
        wide: bool,
    },
    ClusterRank {
        d: R,
        a: R,
        generic: bool,
    },
    ClusterArrive {
        order: Order,
    },
    ClusterWait,
    /// `st.async` of one or more elements, counted on an mbarrier.
    StAsync {
        dst: Addr,
        bar: Addr,
        bytes: u8,
        regs: Box<[R]>,
    },
}
