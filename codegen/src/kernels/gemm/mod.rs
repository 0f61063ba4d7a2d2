//! Matrix products with tensor cores: `acc[m, n] = Σ_k x[m, k] · w[n, k]`, then any expression.
//!
//! A block computes a tile of [`GemmTile`]'s shape. Both operands travel through a ring of stages
//! in shared memory, 128 bytes of K deep, 16-byte chunks exchanged by `chunk XOR (row mod 8)`;
//! warps read fragments with `ldmatrix` and multiply with `mma.sync`. An operand that lies in
//! memory as the tensor core wants it is copied by `cp.async` (in chunks of 16 bytes where rows
//! are aligned, else element by element); any other is converted on its way (`feed`):
//!
//! | x | w | product |
//! |---|---|---|
//! | f16, bf16 | the same | as they are, f32 sums |
//! | i8, u8 codes | i8, u8, i4, u4 codes | codes, i32 sums, exact; zero points by sums of rows |
//! | e4m3, e5m2 codes | the same | codes as f16 (exact), f32 sums |
//! | f16, bf16 | codes | codes minus zero points as f16 or bf16 |
//! | other mixtures | | both as f16 |
//!
//! Scales that do not vary along K are multiplied in the epilogue, `f32(acc)·sx·sw`; others at
//! the conversion, which also looks the codes of tables up. Sums of 8-bit floats need no promotion in
//! between: as f16 products they are accumulated in full f32. With two accumulators the tile's weight
//! rows come half from each half of the weight. M, N and K may have any size: what lies outside is
//! zero and not stored. Operands begin at multiples of 16 bytes, as the arena and plan files place
//! them.

mod epilogue;
mod feed;
pub(crate) mod nibbles;
pub mod ring;
mod tile;
pub mod vendor;
mod wgmma;

pub use epilogue::{Epilogue, Scales};

use super::{Candidate, unsupported};
use crate::lower::frame::Frame;
use crate::target::{GEMM_TILES, GemmTile, Target};
use feed::{Feed, Kind};
use qcc_ir::diag::Result;
use qcc_ir::graph::{Elem, Func, Module, Op, OpKind, TensorType};
use qcc_ir::kernel::MmaShape;
use qcc_ir::plan::Guard;
use qcc_ir::{DType, DimExpr};

/// How the two operands meet in the tensor core.
#[derive(Clone, Debug)]
pub struct Meeting {
    /// The left operand's way into shared memory.
    x: Kind,
    /// The right operand's.
    w: Kind,
    /// Formats of the fragments of A, of B and of the accumulators.
    kinds: (DType, DType, DType),
}

impl Meeting {
    /// The format in which products are computed.
    pub fn format(&self) -> DType {
        self.kinds.0
    }

    /// Whether the left and the right operand are converted on their way to the tensor core.
    pub fn converts(&self) -> (bool, bool) {
        (self.x != Kind::Direct, self.w != Kind::Direct)
    }

    fn shape(&self) -> MmaShape {
        match self.kinds.2 {
            DType::I32 => MmaShape::M16n8k32,
            _ => MmaShape::M16n8k16,
        }
    }
}

/// Whether the scales of a quantized operand can be multiplied into sums of its codes.
fn per_row(t: &TensorType) -> bool {
    t.elem
        .quant()
        .is_some_and(|q| q.one_scale_per_row(t.rank().saturating_sub(1)))
}

/// Whether tensor cores can multiply operands of these types, and how.
///
/// `None` leaves the product to f32 arithmetic.
pub fn meeting(x: &TensorType, w: &TensorType) -> Option<Meeting> {
    let half = |d: DType| matches!(d, DType::F16 | DType::BF16);
    let eight = |d: DType| matches!(d, DType::I8 | DType::U8);
    let kind = |t: &TensorType| match per_row(t) {
        true => Kind::Codes,
        false => Kind::Real,
    };
    let float = |x: Kind, w: Kind, d: DType| {
        Some(Meeting {
            x,
            w,
            kinds: (d, d, DType::F32),
        })
    };
    match (&x.elem, &w.elem) {
        (Elem::Plain(a), Elem::Plain(b)) if a == b && half(*a) => {
            float(Kind::Direct, Kind::Direct, *a)
        }
        (Elem::Plain(a), Elem::Quant(_)) if half(*a) => float(Kind::Direct, kind(w), *a),
        (Elem::Quant(_), Elem::Plain(b)) if half(*b) => float(kind(x), Kind::Direct, *b),
        (Elem::Quant(a), Elem::Quant(b)) if per_row(x) && per_row(w) => {
            let (sa, sb) = (a.storage, b.storage);
            if eight(sa) && sb.is_int() {
                let w = if eight(sb) { Kind::Direct } else { Kind::Codes };
                let b = if eight(sb) { sb } else { DType::I8 };
                return Some(Meeting {
                    x: Kind::Direct,
                    w,
                    kinds: (sa, b, DType::I32),
                });
            }
            if sa.is_int() && sb.is_int() {
                return None;
            }
            float(Kind::Codes, Kind::Codes, DType::F16)
        }
        (Elem::Quant(_), Elem::Quant(_)) => float(kind(x), kind(w), DType::F16),
        _ => None,
    }
}

/// The number of rows from which FP8 tensor cores of the target multiply operands of these types.
pub fn wgmma_rows(x: &TensorType, w: &TensorType, target: &Target) -> Option<u64> {
    wgmma::serves(x, w, target).then_some(wgmma::LEAST_ROWS)
}

/// The kernels of a linear layer: where the target may have Hopper's tensor cores, the one for
/// them; then one for each range of rows.
///
/// # Errors
/// When a result's scheme cannot be stored by a tile.
pub fn build(
    m: &Module,
    f: &Func,
    op: &Op,
    how: &Meeting,
    target: &Target,
) -> Result<Vec<Candidate>> {
    let OpKind::Linear { accs, .. } = &op.kind else {
        return Err(unsupported(format!("`{}` is not linear", op.kind.name())));
    };
    let x = f.ty(op.operands[0]);
    let rows = DimExpr::product(&x.shape[..x.shape.len() - 1]);
    let mut out: Vec<Candidate> = Vec::new();
    out.extend(wgmma::candidate(m, f, op, u32::from(*accs), target)?);
    let few = nibbles::candidates(m, f, op, u32::from(*accs))?;
    let mut from = if few.is_empty() {
        0
    } else {
        nibbles::MOST_ROWS + 1
    };
    out.extend(few);
    let tiles = tiles(how, x, f.ty(op.operands[1]));
    for (i, t) in tiles.iter().enumerate() {
        if t.most_rows < from {
            continue;
        }
        let to = if i + 1 == tiles.len() {
            u64::MAX
        } else {
            t.most_rows
        };
        let guard = Guard {
            expr: rows.to_string(),
            min: from,
            max: to,
        };
        from = to.saturating_add(1);
        let reached = match rows.as_const().and_then(|r| u64::try_from(r).ok()) {
            Some(r) => guard.min <= r && r <= guard.max,
            None => true,
        };
        if reached {
            let launch = tile::build(m, f, op, how, t, u32::from(*accs))?;
            let when = match rows.as_const() {
                Some(_) => Vec::new(),
                None => vec![guard],
            };
            out.push(Candidate {
                requires: None,
                when,
                launches: vec![launch],
                ..Candidate::default()
            });
        }
    }
    Ok(out)
}

/// The tiles that serve a product; the last one takes all rows that the others leave.
///
/// Sums of rows for zero points take registers that the largest tile does not have.
fn tiles(how: &Meeting, x: &TensorType, w: &TensorType) -> &'static [GemmTile] {
    let zeros = |k: Kind, t: &TensorType| {
        k == Kind::Direct && t.elem.quant().is_some_and(|q| q.zero.is_some())
    };
    match zeros(how.x, x) || zeros(how.w, w) {
        true => &GEMM_TILES[..GEMM_TILES.len() - 1],
        false => &GEMM_TILES,
    }
}

/// The operand's way into shared memory, with its zero points taken care of.
fn feed_of(fr: &Frame, operand: usize, kind: Kind, to: DType) -> Feed {
    Feed::new(fr.operands[operand].clone(), kind, to)
}
