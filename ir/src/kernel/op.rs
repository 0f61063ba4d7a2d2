//! The operation table: every operation of the kernel IR, one row each.
//!
//! Operations are lane-wise on vectors unless they say otherwise. Operand and result types are
//! checked in [`super::check`]; "word" below means a scalar or vector of exactly 32 bits.

use super::attr::*;
use super::word::op_table;
use crate::DType;

op_table! {
    /// An operation with its attributes, without operands.
    Op {
        // --- constants and indices ---------------------------------------------------------
        /// `const bits`: the same bits in each lane.
        Const {
            /// Bits of a lane.
            bits: Bits,
        } = "const",
        /// A built-in index.
        Special {
            /// Which.
            which: Special,
        } = "sreg",
        /// Address of the shared array with this number.
        SharedAddr {
            /// Index into `Kernel::shared`.
            array: u32,
        } = "shared",

        // --- integers (wrapping) -------------------------------------------------------------
        /// `-a`.
        INeg = "ineg",
        /// `|a|` (the minimum stays).
        IAbs = "iabs",
        /// `a + b`.
        IAdd = "iadd",
        /// `a - b`.
        ISub = "isub",
        /// Low half of `a * b`.
        IMul = "imul",
        /// High half of `a * b` (32 and 64 bits).
        IMulHi = "imulhi",
        /// `a * b + c`, low half.
        IMad = "imad",
        /// Quotient toward zero; by zero is undefined.
        IDiv = "idiv",
        /// Remainder with the sign of the dividend; by zero is undefined.
        IRem = "irem",
        /// Minimum.
        IMin = "imin",
        /// Maximum.
        IMax = "imax",
        /// Bitwise and (also of truth values).
        And = "and",
        /// Bitwise or (also of truth values).
        Or = "or",
        /// Bitwise exclusive or (also of truth values).
        Xor = "xor",
        /// Bitwise complement (also of truth values).
        Not = "not",
        /// `a << b`; 0 when `b` is the width or more.
        Shl = "shl",
        /// `a >> b`, arithmetic for signed; all sign bits when `b` is the width or more.
        Shr = "shr",
        /// Number of ones, `u32` of a `u32`.
        Popc = "popc",
        /// Number of leading zeros, `u32` of a `u32`.
        Clz = "clz",
        /// Any function of three bits, on three words: bit i of the result is bit
        /// `4 a_i + 2 b_i + c_i` of the table.
        Lop3 {
            /// Truth table.
            table: u8,
        } = "lop3",
        /// Selects four bytes of two words: byte i is number `sel[4i+2..4i]` of `{b, a}`;
        /// bit 3 of a selector nibble replicates the byte's sign instead.
        Prmt = "prmt",
        /// High word of `{b, a} << (c mod 32)`.
        FunnelShl = "shf_l",
        /// Low word of `{b, a} >> (c mod 32)`.
        FunnelShr = "shf_r",
        /// `c + Σ a_i b_i` over four bytes; operands `i8x4` or `u8x4`, `c` of 32 bits.
        Dp4a = "dp4a",

        // --- floats --------------------------------------------------------------------------
        /// `-a`; the sign of a NaN is not specified.
        FNeg = "fneg",
        /// `|a|`; the sign of a NaN is not specified.
        FAbs = "fabs",
        /// `a + b`.
        FAdd {
            /// Rounding.
            round: Round,
        } = "fadd",
        /// `a - b`.
        FSub {
            /// Rounding.
            round: Round,
        } = "fsub",
        /// `a * b`.
        FMul {
            /// Rounding.
            round: Round,
        } = "fmul",
        /// `a / b`, true division.
        FDiv {
            /// Rounding.
            round: Round,
        } = "fdiv",
        /// `a * b + c`, rounded once.
        Fma {
            /// Rounding.
            round: Round,
        } = "fma",
        /// Minimum; `-0 < +0`.
        FMin {
            /// What NaN does.
            nan: NanMode,
        } = "fmin",
        /// Maximum; `-0 < +0`.
        FMax {
            /// What NaN does.
            nan: NanMode,
        } = "fmax",
        /// Rounds to an integral value of the same format.
        FRound {
            /// Rounding.
            round: Round,
        } = "fround",
        /// A special function.
        Math {
            /// Which.
            func: Math,
            /// Exact or the hardware's approximation.
            approx: Approx,
        } = "math",

        // --- comparison, conversion, vectors -------------------------------------------------
        /// Comparison; a truth value for each lane.
        Cmp {
            /// Which.
            cmp: Cmp,
        } = "cmp",
        /// `a ? b : c`; `a` scalar or with the lanes of `b`.
        Select = "select",
        /// Converts to the result's format. Float to integer clamps and sends NaN to 0.
        Convert {
            /// Rounding, where the conversion is not exact.
            round: Round,
            /// Overflow.
            sat: Sat,
        } = "cvt",
        /// The same bits as another type of equal size.
        Bitcast = "bitcast",
        /// Concatenates equal parts, first operand in the lowest lanes.
        Pack = "pack",
        /// Cuts a vector into equal parts, lowest lanes first.
        Unpack = "unpack",

        // --- pointers and memory -------------------------------------------------------------
        /// `p + i` elements.
        PtrAdd = "ptradd",
        /// The same address with another element format.
        PtrCast = "ptrcast",
        /// The address as `u32` (shared, cluster) or `u64`.
        PtrToInt = "ptrtoint",
        /// Loads the result type from `p` (+ bytes). With `pred, other`: `other` where false.
        Load {
            /// Memory order.
            order: Order,
            /// Cache policy.
            cache: Cache,
            /// Bytes added to the address.
            offset: Offset,
        } = "ld",
        /// Stores `v` at `p` (+ bytes). With a third operand: only where it is true.
        Store {
            /// Memory order.
            order: Order,
            /// Cache policy.
            cache: Cache,
            /// Bytes added to the address.
            offset: Offset,
        } = "st",
        /// Integer read-modify-write at device or block scope; yields the old value.
        Atomic {
            /// Operation.
            op: AtomicOp,
            /// Memory order.
            order: Order,
            /// Scope.
            scope: Scope,
        } = "atom",
        /// Compare and swap `p, expected, new`; yields the old value.
        AtomicCas {
            /// Memory order.
            order: Order,
            /// Scope.
            scope: Scope,
        } = "atom_cas",

        // --- control flow --------------------------------------------------------------------
        /// `for lo, hi, step, init… { |i, carried…| … yield carried… }` while `i < hi`.
        For = "for",
        /// `while init… { |carried…| … yield cond, carried… } do { |carried…| … yield carried… }`.
        While = "while",
        /// `if cond { yield … } else { yield … }`.
        If = "if",

        // --- synchronization and warps -------------------------------------------------------
        /// All threads of the block wait for each other.
        Barrier = "bar",
        /// Named barrier over this many threads (a multiple of 32).
        NamedBarrier {
            /// 1 to 15.
            id: u32,
            /// Threads.
            threads: u32,
        } = "bar_sync",
        /// Arrives at a named barrier without waiting.
        NamedArrive {
            /// 1 to 15.
            id: u32,
            /// Threads.
            threads: u32,
        } = "bar_arrive",
        /// The lanes of the warp wait for each other.
        WarpSync = "warp_sync",
        /// A memory fence.
        Fence {
            /// Which.
            fence: Fence,
        } = "fence",
        /// Cluster barrier.
        ClusterBarrier {
            /// Half.
            half: ClusterHalf,
        } = "cluster",
        /// Reads a word of another lane (own value where that lane does not exist).
        Shuffle {
            /// Which lane.
            mode: ShflMode,
        } = "shfl",
        /// Asks all lanes.
        Vote {
            /// Question.
            mode: VoteMode,
        } = "vote",
        /// Truth values of all lanes as bits.
        Ballot = "ballot",
        /// Reduces an integer over the warp.
        Redux {
            /// Operation.
            op: ReduxOp,
        } = "redux",
        /// True in one lane of the warp.
        Elect = "elect",
        /// Address of the same shared variable in the block of this cluster rank.
        MapRank = "mapa",
        /// Changes the register budget of the warpgroup.
        SetMaxNReg {
            /// Direction.
            change: RegChange,
            /// Registers per thread: a multiple of 8 in 24..=256.
            regs: u32,
        } = "setmaxnreg",
        /// Dependent launch.
        GridDep {
            /// Which.
            which: GridDep,
        } = "griddep",

        // --- asynchronous copies -------------------------------------------------------------
        /// Copies 4, 8 or 16 bytes `dst(shared), src(global)[, bytes read: u32]`; the rest zero.
        CpAsync {
            /// Bytes.
            bytes: u32,
            /// `ca`, or `cg` with 16 bytes.
            cache: Cache,
        } = "cp_async",
        /// Closes a group of the thread's copies.
        CpAsyncCommit = "cp_async_commit",
        /// Waits until at most this many of the thread's newest groups are under way.
        CpAsyncWait {
            /// Groups.
            groups: u32,
        } = "cp_async_wait",
        /// The mbarrier counts an arrival when the thread's earlier copies are done.
        CpAsyncMbar = "cp_async_mbar",
        /// Initialises an mbarrier (`u64` in shared memory) for this many arrivals.
        MbarInit = "mbar_init",
        /// Arrives and announces bytes: `mbar, bytes`.
        MbarExpectTx = "mbar_expect_tx",
        /// Arrives; a cluster pointer arrives at another block's barrier.
        MbarArrive = "mbar_arrive",
        /// Whether the phase of this parity is complete (may suspend the thread for a while).
        MbarTryWait = "mbar_try_wait",
        /// Waits until the phase of this parity is complete.
        MbarWait = "mbar_wait",
        /// Bulk copy `dst(shared|cluster), src(global), bytes, mbar[, mask]`, sizes multiples of 16.
        BulkLoad {
            /// To several blocks?
            multicast: Multicast,
        } = "bulk_load",
        /// Bulk copy `dst(global), src(shared), bytes`.
        BulkStore = "bulk_store",
        /// Closes a group of bulk stores.
        BulkCommit = "bulk_commit",
        /// Waits until at most this many of the newest groups of bulk stores are under way.
        BulkWaitGroup {
            /// Groups.
            groups: u32,
            /// Done, or only read.
            until: BulkWait,
        } = "bulk_wait",
        /// Tensor copy `dst(shared), map, mbar, c0, … [, mask]`, innermost coordinate first.
        TmaLoad {
            /// Dimensions, 1 to 5.
            dims: u32,
            /// To several blocks?
            multicast: Multicast,
        } = "tma_load",
        /// Tensor copy `map, src(shared), c0, …`.
        TmaStore {
            /// Dimensions, 1 to 5.
            dims: u32,
        } = "tma_store",
        /// Fetches a tensor map early.
        TmaPrefetch = "tma_prefetch",

        // --- tensor cores --------------------------------------------------------------------
        /// Loads 1, 2 or 4 tiles of 8×8 16-bit elements, one word of each per lane.
        LdMatrix {
            /// Tiles.
            tiles: u32,
            /// Transposed?
            trans: Trans,
        } = "ldmatrix",
        /// Stores tiles as `ldmatrix` loads them: `p, words…`.
        StMatrix {
            /// Tiles.
            tiles: u32,
            /// Transposed?
            trans: Trans,
        } = "stmatrix",
        /// `D = A B + C` over a warp: words of A, words of B, accumulators.
        Mma {
            /// Shape.
            shape: MmaShape,
            /// Format of A.
            a: DType,
            /// Format of B.
            b: DType,
            /// Format of C and D.
            acc: DType,
        } = "mma",
        /// Hands accumulators to the tensor core (or none: they begin at zero).
        WgmmaBegin = "wgmma_begin",
        /// Starts `acc += A B` over a warpgroup: `pending, A (u64 descriptor | 4 words), B descriptor`.
        Wgmma {
            /// Columns, a multiple of 8 up to 256.
            n: u32,
            /// Format of A.
            a: DType,
            /// Format of B.
            b: DType,
            /// Where A is.
            from: WgmmaA,
            /// How the operands in shared memory lie.
            major: WgmmaMajor,
        } = "wgmma",
        /// Closes a group of wgmmas; the pendings pass through.
        WgmmaCommit = "wgmma_commit",
        /// Waits until at most this many of the newest groups are under way and returns the
        /// accumulators of the pendings.
        WgmmaWait {
            /// Groups.
            groups: u32,
        } = "wgmma_wait",
    }
}

impl Op {
    /// Regions that follow the operands, and how many.
    pub const fn regions(&self) -> usize {
        match self {
            Op::For => 1,
            Op::While | Op::If => 2,
            _ => 0,
        }
    }

    /// `true` if a serial kernel may contain it.
    pub const fn is_serial(&self) -> bool {
        use Op::*;
        !matches!(
            self,
            Special { .. }
                | SharedAddr { .. }
                | Atomic { .. }
                | AtomicCas { .. }
                | Barrier
                | NamedBarrier { .. }
                | NamedArrive { .. }
                | WarpSync
                | Fence { .. }
                | ClusterBarrier { .. }
                | Shuffle { .. }
                | Vote { .. }
                | Ballot
                | Redux { .. }
                | Elect
                | MapRank
                | SetMaxNReg { .. }
                | GridDep { .. }
        ) && !self.is_async()
            && !self.is_tensor()
    }

    /// Asynchronous copies and mbarriers.
    pub const fn is_async(&self) -> bool {
        use Op::*;
        matches!(
            self,
            CpAsync { .. }
                | CpAsyncCommit
                | CpAsyncWait { .. }
                | CpAsyncMbar
                | MbarInit
                | MbarExpectTx
                | MbarArrive
                | MbarTryWait
                | MbarWait
                | BulkLoad { .. }
                | BulkStore
                | BulkCommit
                | BulkWaitGroup { .. }
                | TmaLoad { .. }
                | TmaStore { .. }
                | TmaPrefetch
        )
    }

    /// Tensor-core operations and their loads.
    pub const fn is_tensor(&self) -> bool {
        use Op::*;
        matches!(
            self,
            LdMatrix { .. }
                | StMatrix { .. }
                | Mma { .. }
                | WgmmaBegin
                | Wgmma { .. }
                | WgmmaCommit
                | WgmmaWait { .. }
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        let ops = [
            Op::Convert {
                round: Round::Rn,
                sat: Sat::Sat,
            },
            Op::Load {
                order: Order::Weak,
                cache: Cache::Cg,
                offset: Offset(-16),
            },
            Op::Load {
                order: Order::Acquire,
                cache: Cache::Default,
                offset: Offset(0),
            },
            Op::Mma {
                shape: MmaShape::M16n8k16,
                a: DType::F16,
                b: DType::F16,
                acc: DType::F32,
            },
            Op::BulkWaitGroup {
                groups: 2,
                until: BulkWait::Read,
            },
            Op::FMin {
                nan: NanMode::Propagate,
            },
            Op::IAdd,
        ];
        for op in ops {
            assert_eq!(Op::parse(&op.name()), Some(op), "{}", op.name());
        }
        assert_eq!(Op::parse("cvt"), None, "rounding is never implied");
        assert_eq!(Op::parse("iadd.rn"), None);
        assert_eq!(Op::parse("ld.off0"), None);
    }

    #[test]
    fn heads_are_distinct() {
        for (i, head) in Op::HEADS.iter().enumerate() {
            assert!(!Op::HEADS[..i].contains(head), "{head}");
        }
    }
}
