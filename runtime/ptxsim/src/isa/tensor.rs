//! Matrix instructions: `ldmatrix`, `stmatrix`, `mma.sync`, `wgmma`.

use super::memory::Space;
use super::{PSrc, R};

/// Element type of a matrix operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Elem {
    F16,
    Bf16,
    Tf32,
    E4m3,
    E5m2,
    E3m2,
    E2m3,
    E2m1,
    S8,
    U8,
    S4,
    U4,
    /// Only as `mma` operand with `.xor/.and` popcount forms; not built.
    F64,
}

impl Elem {
    pub(crate) fn bits(self) -> u32 {
        match self {
            Self::F16 | Self::Bf16 => 16,
            Self::Tf32 => 32,
            // Six- and four-bit floats travel one to a byte in `kind::f8f6f4`.
            Self::E4m3
            | Self::E5m2
            | Self::E3m2
            | Self::E2m3
            | Self::E2m1
            | Self::S8
            | Self::U8 => 8,
            Self::S4 | Self::U4 => 4,
            Self::F64 => 64,
        }
    }

    pub(crate) fn is_int(self) -> bool {
        matches!(self, Self::S8 | Self::U8 | Self::S4 | Self::U4)
    }
}

/// Element formats that tensor cores multiply at a rate of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TensorKind {
    /// f16 and bf16.
    Half,
    /// tf32.
    Tf32,
    /// 8-bit floats, and smaller ones in `kind::f8f6f4`.
    Float8,
    /// Packed 4-bit floats.
    Float4,
    /// s8 and u8.
    Int8,
    /// s4 and u4.
    Int4,
    /// f64.
    Double,
}

impl TensorKind {
    /// Number of kinds.
    pub const COUNT: usize = Self::Double as usize + 1;
    /// All kinds with their report names.
    pub const NAMES: [&'static str; Self::COUNT] = ["f16", "tf32", "f8", "f4", "i8", "i4", "f64"];

    pub(crate) fn of(elem: Elem, packed: bool) -> Self {
        match elem {
            Elem::F16 | Elem::Bf16 => Self::Half,
            Elem::Tf32 => Self::Tf32,
            Elem::S8 | Elem::U8 => Self::Int8,
            Elem::S4 | Elem::U4 => Self::Int4,
            Elem::F64 => Self::Double,
            _ if packed => Self::Float4,
            _ => Self::Float8,
        }
    }
}

/// Accumulator type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Acc {
    F16,
    F32,
    S32,
    F64,
}

/// Type of the block scales of an `mma … block_scale`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ScaleType {
    Ue8m0,
    Ue4m3,
}

/// `.block_scale`: `vec` scales along K for each row (1X, 2X, 4X) and where the lanes keep them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BlockScale {
    pub(crate) vec: u8,
    pub(crate) ty: ScaleType,
    pub(crate) a: (R, R, R),
    pub(crate) b: (R, R, R),
    /// e2m1 elements packed two to a byte (`kind::mxf4`, `mxf4nvf4`).
    pub(crate) packed: bool,
}

/// Shape m × n × k of one `mma`.
#[derive(Clone, Debug)]
pub(crate) struct Mma {
    pub(crate) m: u16,
    pub(crate) n: u16,
    pub(crate) k: u16,
    pub(crate) a_elem: Elem,
    pub(crate) b_elem: Elem,
    pub(crate) acc: Acc,
    pub(crate) saturate: bool,
    pub(crate) d: Box<[R]>,
    pub(crate) a: Box<[R]>,
    pub(crate) b: Box<[R]>,
    pub(crate) c: Box<[R]>,
    pub(crate) scale: Option<BlockScale>,
}

/// Operand A of `wgmma`.
#[derive(Clone, Debug)]
pub(crate) enum WgmmaA {
    Regs(Box<[R]>),
    Desc(R),
}

/// `wgmma.mma_async` of 64 × n × k.
#[derive(Clone, Debug)]
pub(crate) struct Wgmma {
    pub(crate) n: u16,
    pub(crate) k: u16,
    pub(crate) a_elem: Elem,
    pub(crate) b_elem: Elem,
    pub(crate) acc: Acc,
    pub(crate) saturate: bool,
    pub(crate) d: Box<[R]>,
    pub(crate) a: WgmmaA,
    pub(crate) b: R,
    pub(crate) scale_d: PSrc,
    pub(crate) neg_a: bool,
    pub(crate) neg_b: bool,
    /// MN-major operands.
    pub(crate) trans_a: bool,
    pub(crate) trans_b: bool,
}

/// Matrix instructions.
#[derive(Clone, Debug)]
pub(crate) enum TensorOp {
    Mma(Mma),
    LdMatrix {
        space: Space,
        addr: R,
        narrow: bool,
        off: i64,
        trans: bool,
        d: Box<[R]>,
    },
    StMatrix {
        space: Space,
        addr: R,
        narrow: bool,
        off: i64,
        trans: bool,
        s: Box<[R]>,
    },
    MovMatrix {
        d: R,
        a: R,
    },
    Wgmma(Wgmma),
    WgmmaFence,
    WgmmaCommit,
    WgmmaWait {
        pending: u32,
    },
}
