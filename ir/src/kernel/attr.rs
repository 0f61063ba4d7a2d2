//! Attributes of operations: rounding, comparison, cache policy, scopes, shapes.

use super::word::{Word, word_enum};

word_enum! {
    /// How a result that is not representable is rounded.
    Round {
        /// To nearest, ties to even.
        Rn = "rn",
        /// Toward zero.
        Rz = "rz",
        /// Toward negative infinity.
        Rm = "rm",
        /// Toward positive infinity.
        Rp = "rp",
    }
}

word_enum! {
    /// What happens to a value outside the result's range.
    Sat {
        /// Integers wrap; floats follow their format's overflow (infinity, or NaN without one).
        Wrap = "",
        /// It becomes the nearest finite value of the range.
        Sat = "sat",
    }
}

word_enum! {
    /// Whether a special function may use the hardware's approximation.
    Approx {
        /// `sqrt` and `rcp` rounded to nearest even, the others within 2 ulp.
        Exact = "",
        /// The accelerator's approximation; error as the PTX ISA states it.
        Approx = "approx",
    }
}

word_enum! {
    /// What a minimum or maximum makes of a NaN.
    NanMode {
        /// The other operand (IEEE 754-2019 minimumNumber).
        Number = "",
        /// NaN.
        Propagate = "nan",
    }
}

word_enum! {
    /// A comparison; ordered (false with a NaN), except `ne`, which is true with a NaN.
    Cmp {
        /// Equal.
        Eq = "eq",
        /// Not equal, or unordered.
        Ne = "ne",
        /// Less.
        Lt = "lt",
        /// Less or equal.
        Le = "le",
        /// Greater.
        Gt = "gt",
        /// Greater or equal.
        Ge = "ge",
    }
}

word_enum! {
    /// Functions of one float.
    Math {
        /// Square root.
        Sqrt = "sqrt",
        /// `1 / sqrt(x)`.
        Rsqrt = "rsqrt",
        /// `1 / x`.
        Rcp = "rcp",
        /// `2^x`.
        Exp2 = "exp2",
        /// Base-2 logarithm.
        Log2 = "log2",
        /// `e^x`.
        Exp = "exp",
        /// Natural logarithm.
        Log = "log",
        /// Sine of radians.
        Sin = "sin",
        /// Cosine of radians.
        Cos = "cos",
        /// Hyperbolic tangent.
        Tanh = "tanh",
        /// Error function.
        Erf = "erf",
    }
}

word_enum! {
    /// Which cache a load or store uses, and how long the line stays.
    Cache {
        /// The default of the address space.
        Default = "",
        /// All levels.
        Ca = "ca",
        /// L2 only.
        Cg = "cg",
        /// Streaming: evicted first.
        Cs = "cs",
        /// L1 keeps nothing of it (data used once).
        NoAllocate = "no_allocate",
    }
}

word_enum! {
    /// Memory order of a load, store or atomic.
    Order {
        /// Ordinary access.
        Weak = "",
        /// Atomic, without ordering other accesses.
        Relaxed = "relaxed",
        /// Later accesses stay after it (loads).
        Acquire = "acquire",
        /// Earlier accesses stay before it (stores).
        Release = "release",
        /// Both (atomics).
        AcqRel = "acq_rel",
    }
}

word_enum! {
    /// Threads among which an order or fence holds.
    Scope {
        /// The thread block.
        Cta = "cta",
        /// The cluster of blocks.
        Cluster = "cluster",
        /// The whole device.
        Gpu = "gpu",
    }
}

word_enum! {
    /// Integer read-modify-write operations. There is no floating-point one (law of determinism).
    AtomicOp {
        /// Sum, wrapping.
        Add = "add",
        /// Minimum.
        Min = "min",
        /// Maximum.
        Max = "max",
        /// Bitwise and.
        And = "and",
        /// Bitwise or.
        Or = "or",
        /// Bitwise exclusive or.
        Xor = "xor",
        /// Exchange.
        Exch = "exch",
    }
}

word_enum! {
    /// Integer warp reductions.
    ReduxOp {
        /// Sum, wrapping.
        Add = "add",
        /// Minimum.
        Min = "min",
        /// Maximum.
        Max = "max",
        /// Bitwise and.
        And = "and",
        /// Bitwise or.
        Or = "or",
        /// Bitwise exclusive or.
        Xor = "xor",
    }
}

word_enum! {
    /// Which lane a shuffle reads.
    ShflMode {
        /// The lane of this number.
        Idx = "idx",
        /// The lane below by this much.
        Up = "up",
        /// The lane above by this much.
        Down = "down",
        /// The lane whose number differs in these bits.
        Bfly = "bfly",
    }
}

word_enum! {
    /// A question asked of all lanes of a warp.
    VoteMode {
        /// All true.
        All = "all",
        /// At least one true.
        Any = "any",
    }
}

word_enum! {
    /// Transposition of 8×8 tiles in `ldmatrix` and `stmatrix`.
    Trans {
        /// Rows as they lie.
        No = "",
        /// Rows and columns exchanged.
        Trans = "trans",
    }
}

word_enum! {
    /// Shapes of warp-wide `mma.sync`.
    MmaShape {
        /// 16×8×8 (f16, bf16).
        M16n8k8 = "m16n8k8",
        /// 16×8×16 (f16, bf16, 8-bit integers).
        M16n8k16 = "m16n8k16",
        /// 16×8×32 (8-bit integers, FP8).
        M16n8k32 = "m16n8k32",
    }
}

word_enum! {
    /// Where a wgmma takes its A operand from.
    WgmmaA {
        /// Shared memory, through a descriptor.
        Desc = "sdesc",
        /// Registers.
        Regs = "reg",
    }
}

word_enum! {
    /// Which operands of a wgmma lie with their rows or columns, not K, contiguous in shared
    /// memory (16-bit formats only).
    WgmmaMajor {
        /// K contiguous in both.
        K = "",
        /// M contiguous in A.
        MnA = "mn_a",
        /// N contiguous in B.
        MnB = "mn_b",
        /// Both.
        MnAB = "mn_ab",
    }
}

impl WgmmaMajor {
    /// 1 when A is transposed.
    pub const fn a(self) -> u32 {
        matches!(self, WgmmaMajor::MnA | WgmmaMajor::MnAB) as u32
    }

    /// 1 when B is transposed.
    pub const fn b(self) -> u32 {
        matches!(self, WgmmaMajor::MnB | WgmmaMajor::MnAB) as u32
    }
}

word_enum! {
    /// Built-in index registers (all `u32`).
    Special {
        /// Thread index in the block, x.
        TidX = "tid_x",
        /// Thread index in the block, y.
        TidY = "tid_y",
        /// Thread index in the block, z.
        TidZ = "tid_z",
        /// Block size, x.
        NtidX = "ntid_x",
        /// Block index in the grid, x.
        CtaidX = "ctaid_x",
        /// Block index in the grid, y.
        CtaidY = "ctaid_y",
        /// Block index in the grid, z.
        CtaidZ = "ctaid_z",
        /// Grid size, x.
        NctaidX = "nctaid_x",
        /// Grid size, y.
        NctaidY = "nctaid_y",
        /// Grid size, z.
        NctaidZ = "nctaid_z",
        /// Lane in the warp.
        LaneId = "laneid",
        /// Rank of the block in its cluster.
        ClusterRank = "cluster_rank",
        /// Blocks in the cluster.
        ClusterSize = "cluster_size",
    }
}

word_enum! {
    /// Memory fences.
    Fence {
        /// Orders accesses at block scope.
        Cta = "cta",
        /// Orders accesses at cluster scope.
        Cluster = "cluster",
        /// Orders accesses at device scope.
        Gpu = "gpu",
        /// Generic accesses to shared memory before asynchronous ones (bulk copies, wgmma).
        ProxyAsync = "proxy_async",
        /// Initialised mbarriers become visible to the cluster and the asynchronous proxy.
        MbarInit = "mbar_init",
    }
}

word_enum! {
    /// Half of a split cluster barrier.
    ClusterHalf {
        /// Announces arrival (release).
        Arrive = "arrive",
        /// Waits for all (acquire).
        Wait = "wait",
    }
}

word_enum! {
    /// Dependent launch (programmatic stream serialization).
    GridDep {
        /// The next kernel may start.
        Launch = "launch",
        /// Waits until the previous kernel has finished and its writes are visible.
        Wait = "wait",
    }
}

word_enum! {
    /// Direction of a change of the warpgroup's register budget.
    RegChange {
        /// More registers.
        Inc = "inc",
        /// Fewer registers.
        Dec = "dec",
    }
}

word_enum! {
    /// Whether a bulk wait needs the copies done, or only their source free for reuse.
    BulkWait {
        /// Completed.
        Done = "",
        /// Source read.
        Read = "read",
    }
}

word_enum! {
    /// Whether a bulk load goes to one block or to several of the cluster.
    Multicast {
        /// This block.
        No = "",
        /// The blocks whose bits are set in the mask operand.
        Multicast = "multicast",
    }
}

/// A displacement in bytes: `off16`, nothing when zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Offset(pub i32);

impl Word for Offset {
    fn word(&self) -> String {
        if self.0 == 0 {
            String::new()
        } else {
            format!("off{}", self.0)
        }
    }
    fn parse(word: &str) -> Option<Self> {
        if word.is_empty() {
            return Some(Offset(0));
        }
        let n: i32 = word.strip_prefix("off")?.parse().ok()?;
        (n != 0 && word == format!("off{n}")).then_some(Offset(n))
    }
}

/// The bits of a constant's lane, in its own format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Bits(pub u64);

impl Word for Bits {
    fn word(&self) -> String {
        format!("{:#x}", self.0)
    }
    fn parse(word: &str) -> Option<Self> {
        u64::from_str_radix(word.strip_prefix("0x")?, 16)
            .ok()
            .map(Bits)
    }
}
