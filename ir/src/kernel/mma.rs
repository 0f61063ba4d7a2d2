//! Tensor-core shapes: which exist, and how many registers a thread gives to each operand.

use super::{MmaShape, Ty};
use crate::DType;

/// Registers per thread of a warp-wide `mma`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragments {
    /// Words of A.
    pub a: usize,
    /// Words of B.
    pub b: usize,
    /// Accumulators.
    pub c: usize,
    /// Type of an accumulator register.
    pub acc: Ty,
}

/// Registers of `mma.sync`, or `None` when the instruction does not exist (PTX ISA, "Matrix
/// multiply-accumulate operation using mma instruction").
pub fn fragments(shape: MmaShape, a: DType, b: DType, acc: DType) -> Option<Fragments> {
    use DType::*;
    let int8 = |d| matches!(d, I8 | U8);
    let fp8 = |d| matches!(d, E4M3 | E5M2);
    let (wa, wb) = match (shape, a, b, acc) {
        (MmaShape::M16n8k8, F16, F16, F16 | F32) | (MmaShape::M16n8k8, BF16, BF16, F32) => (2, 1),
        (MmaShape::M16n8k16, F16, F16, F16 | F32) | (MmaShape::M16n8k16, BF16, BF16, F32) => (4, 2),
        (MmaShape::M16n8k16, _, _, I32) if int8(a) && int8(b) => (2, 1),
        (MmaShape::M16n8k32, _, _, I32) if int8(a) && int8(b) => (4, 2),
        (MmaShape::M16n8k32, _, _, F32) if fp8(a) && fp8(b) => (4, 2),
        _ => return None,
    };
    let (c, acc) = match acc {
        F16 => (2, Ty::vec(F16, 2)),
        other => (4, Ty::scalar(other)),
    };
    Some(Fragments {
        a: wa,
        b: wb,
        c,
        acc,
    })
}

/// Depth of one wgmma of this operand format, in elements: 32 bytes.
pub const fn wgmma_depth(a: DType) -> u32 {
    256 / a.bits()
}

/// Accumulator words per thread of a wgmma m64nN, or `None` when it does not exist.
pub fn wgmma_words(n: u32, a: DType, b: DType, acc: DType) -> Option<u16> {
    use DType::*;
    if n == 0 || n > 256 || !n.is_multiple_of(8) {
        return None;
    }
    let fp8 = |d| matches!(d, E4M3 | E5M2);
    let int8 = |d| matches!(d, I8 | U8);
    let exists = match (a, b, acc) {
        (F16, F16, F16 | F32) | (BF16, BF16, F32) => true,
        (_, _, F16 | F32) => fp8(a) && fp8(b),
        (_, _, I32) => int8(a) && int8(b) && (n <= 24 || n.is_multiple_of(16)),
        _ => false,
    };
    let words = if acc == F16 { n / 4 } else { n / 2 };
    exists.then_some(words as u16)
}
