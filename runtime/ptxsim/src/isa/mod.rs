//! Decoded instructions: what the executor dispatches on.
//!
//! A register operand is an index into the warp's register file or, with [`CONST`] set, into the
//! kernel's table of constants, so immediates cost nothing at execution. Every non-predicate register
//! holds 32 lanes of 64 bits, zero-extended from its declared width; a predicate is one 32-bit mask.

pub(crate) mod asynch;
pub(crate) mod memory;
pub(crate) mod program;
pub(crate) mod tensor;
pub(crate) mod types;

use crate::alu::cvt::Cvt;
use crate::alu::lane;
use crate::num::approx::Func;
use asynch::AsyncOp;
use memory::{AtomOp, MemOp, Scope};
use tensor::TensorOp;

/// One value per lane.
pub(crate) type Lanes = [u64; 32];
/// A register or constant operand.
pub(crate) type R = u32;
/// Bit that marks a constant in [`R`].
pub(crate) const CONST: R = 1 << 31;
/// A predicate register; 0 always reads true and is the sink of unwanted results.
pub(crate) type P = u16;

/// A predicate read, possibly negated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PSrc {
    pub(crate) p: P,
    pub(crate) neg: bool,
}

/// Always true.
pub(crate) const ALWAYS: PSrc = PSrc { p: 0, neg: false };

/// Computes the lanes of `mask` of a register from up to four sources.
pub(crate) type LaneFn = fn(&mut Lanes, [&Lanes; 4], u32);
/// Compares two registers on the lanes of a mask.
pub(crate) type CmpFn = fn(&Lanes, &Lanes, u32) -> u32;

/// How `setp` and `set` join the comparison with a third predicate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BoolOp {
    And,
    Or,
    Xor,
}

impl BoolOp {
    pub(crate) fn apply(self, a: u32, b: u32) -> u32 {
        match self {
            Self::And => a & b,
            Self::Or => a | b,
            Self::Xor => a ^ b,
        }
    }
}

/// Logic on predicate registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PredOp {
    Bool(BoolOp),
    Not,
    Mov,
}

/// Special registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Special {
    Tid(u8),
    Ntid(u8),
    Ctaid(u8),
    Nctaid(u8),
    ClusterId(u8),
    NclusterId(u8),
    ClusterCtaid(u8),
    ClusterNctaid(u8),
    ClusterCtarank,
    ClusterNctarank,
    Laneid,
    Warpid,
    Nwarpid,
    Smid,
    Nsmid,
    Gridid,
    LanemaskEq,
    LanemaskLe,
    LanemaskLt,
    LanemaskGe,
    LanemaskGt,
    Clock,
    GlobalTimer,
    DynamicSmem,
    TotalSmem,
}

/// Extended-precision integer arithmetic with the carry flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CarryOp {
    Add,
    Sub,
    MadLo,
    MadHi,
}

/// How `shfl` picks its source lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ShflMode {
    Up,
    Down,
    Bfly,
    Idx,
}

/// What a vote yields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum VoteMode {
    All,
    Any,
    Uni,
    Ballot,
}

/// Reduction of `redux.sync`, `bar.red` and the integer atomics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReduxOp {
    Add,
    MinU,
    MaxU,
    MinS,
    MaxS,
    And,
    Or,
    Xor,
}

/// What a named barrier instruction does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BarKind {
    Sync,
    Arrive,
    /// `bar.red.{and,or}.pred` into `pd`, or `.popc.u32` into `rd`.
    RedAnd,
    RedOr,
    RedPopc,
}

/// A block barrier.
#[derive(Clone, Debug)]
pub(crate) struct Bar {
    pub(crate) kind: BarKind,
    pub(crate) id: R,
    /// Thread count, or none for all threads of the block.
    pub(crate) count: Option<R>,
    pub(crate) aligned: bool,
    pub(crate) pred: PSrc,
    pub(crate) pd: P,
    pub(crate) rd: R,
}

/// Memory fences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fence {
    /// `membar`, `fence.{acq_rel,sc}` at a scope.
    Thread(Scope),
    /// `fence.proxy.async` in all its spaces.
    ProxyAsync,
    /// `fence.proxy.tensormap` and `fence.proxy.alias`.
    ProxyOther,
    /// `fence.mbarrier_init.release.cluster`.
    MbarrierInit,
}

/// What an instruction does.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Alu {
        f: LaneFn,
        d: R,
        s: [R; 4],
    },
    Pack {
        d: R,
        bits: u8,
        parts: Box<[R]>,
    },
    Unpack {
        s: R,
        bits: u8,
        parts: Box<[Option<R>]>,
    },
    Setp {
        f: CmpFn,
        d: P,
        q: P,
        a: R,
        b: R,
        join: BoolOp,
        c: PSrc,
    },
    Set {
        f: CmpFn,
        d: R,
        a: R,
        b: R,
        join: BoolOp,
        c: PSrc,
        ones: u64,
    },
    Selp {
        d: R,
        a: R,
        b: R,
        p: PSrc,
    },
    Pred {
        f: PredOp,
        d: P,
        a: PSrc,
        b: PSrc,
    },
    Carry {
        op: CarryOp,
        bits: u8,
        signed: bool,
        d: R,
        a: R,
        b: R,
        c: R,
        cin: bool,
        cout: bool,
    },
    Cvt {
        spec: Box<Cvt>,
        d: R,
        a: R,
        b: R,
    },
    Approx {
        f: Func,
        ftz: bool,
        half: Option<HalfKind>,
        d: R,
        a: R,
        b: R,
    },
    Special {
        d: R,
        sr: Special,
    },
    Ld(Box<MemOp>),
    St(Box<MemOp>),
    Atom(Box<AtomOp>),
    Bra {
        target: u32,
    },
    Brx {
        index: R,
        targets: Box<[u32]>,
    },
    Exit,
    Trap,
    Bar(Box<Bar>),
    WarpSync {
        mask: R,
    },
    Shfl {
        mode: ShflMode,
        d: R,
        p: P,
        a: R,
        b: R,
        c: R,
        mask: R,
    },
    Vote {
        mode: VoteMode,
        d: R,
        p: P,
        a: PSrc,
        mask: R,
    },
    Match {
        all: bool,
        d: R,
        p: P,
        a: R,
        mask: R,
    },
    Redux {
        op: ReduxOp,
        d: R,
        a: R,
        mask: R,
    },
    ActiveMask {
        d: R,
    },
    Elect {
        d: R,
        p: P,
        mask: R,
    },
    Fence(Fence),
    IsSpace {
        p: P,
        a: R,
        space: memory::Space,
    },
    GridDepWait,
    GridDepLaunch,
    SetMaxReg {
        inc: bool,
        /// Registers of a thread afterwards.
        regs: u16,
    },
    Nop,
    Tensor(Box<TensorOp>),
    Async(Box<AsyncOp>),
}

/// Packing of a half-precision function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HalfKind {
    pub(crate) bf16: bool,
    pub(crate) pair: bool,
}

/// Instruction classes that the counters tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Class {
    /// Integer, logic and bit operations.
    Integer,
    /// f32 arithmetic.
    Float,
    /// f16 and bf16 arithmetic.
    Half,
    /// f64 arithmetic.
    Double,
    /// `cvt`.
    Convert,
    /// Moves, packs, selections and special registers.
    Move,
    /// Comparisons and predicate logic.
    Compare,
    /// Approximate functions.
    Function,
    /// Branches and exits.
    Control,
    /// Loads from global memory.
    LoadGlobal,
    /// Stores to global memory.
    StoreGlobal,
    /// Loads from shared memory.
    LoadShared,
    /// Stores to shared memory.
    StoreShared,
    /// Loads and stores of parameters, constants and local memory.
    MemoryOther,
    /// Atomics and reductions.
    Atomic,
    /// Barriers and fences.
    Barrier,
    /// Shuffles, votes and other warp exchanges.
    Warp,
    /// `mma`, `wgmma`.
    Tensor,
    /// `ldmatrix`, `stmatrix`.
    Matrix,
    /// Asynchronous copies and mbarriers.
    Async,
    /// Prefetches, register reconfiguration and other hints.
    Hint,
}

impl Class {
    /// Number of classes.
    pub const COUNT: usize = Self::Hint as usize + 1;
    /// All classes with their report names.
    pub const NAMES: [&'static str; Self::COUNT] = [
        "integer",
        "float",
        "half",
        "double",
        "convert",
        "move",
        "compare",
        "function",
        "control",
        "load.global",
        "store.global",
        "load.shared",
        "store.shared",
        "memory.other",
        "atomic",
        "barrier",
        "warp",
        "tensor",
        "matrix",
        "async",
        "hint",
    ];
}

/// One decoded instruction.
#[derive(Clone, Debug)]
pub(crate) struct Inst {
    pub(crate) op: Op,
    pub(crate) guard: PSrc,
    pub(crate) line: u32,
    pub(crate) class: Class,
    /// Must be executed by all live lanes of the warp together.
    pub(crate) aligned: bool,
}

/// The lane function that copies its first source.
pub(crate) fn lane_move() -> LaneFn {
    lane!(|a| a)
}
