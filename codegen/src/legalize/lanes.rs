//! Vectors lane by lane, warp reductions step by step.

use qcc_ir::DType;
use qcc_ir::kernel::{KernelBuilder, Op, ReduxOp, Ty, Value};

use super::Site;

/// Whether an operation works on each lane by itself.
const fn is_lanewise(op: &Op) -> bool {
    use Op::*;
    matches!(
        op,
        INeg | IAbs
            | IAdd
            | ISub
            | IMul
            | IMulHi
            | IMad
            | IDiv
            | IRem
            | IMin
            | IMax
            | Shl
            | Shr
            | FNeg
            | FAbs
            | FAdd { .. }
            | FSub { .. }
            | FMul { .. }
            | FDiv { .. }
            | Fma { .. }
            | FMin { .. }
            | FMax { .. }
            | FRound { .. }
            | Math { .. }
            | Cmp { .. }
            | Select
            | Convert { .. }
    )
}

/// The operation on each lane, the lanes packed again. A scalar operand beside vectors (a shift's
/// amount, a condition) serves every lane.
pub(super) fn split(k: &mut KernelBuilder, site: &Site) -> Option<Value> {
    let to = *site.to.first()?;
    let n = to.lanes();
    if n < 2 || !is_lanewise(&site.op) || to.dtype().is_none_or(|d| d.bits() < 8) {
        return None;
    }
    let mut columns = Vec::new();
    for &arg in site.args {
        let lanes = k.ty(arg).lanes();
        columns.push(if lanes == n {
            k.unpack(arg, n)
        } else {
            vec![arg; usize::from(n)]
        });
    }
    let mut out = Vec::new();
    for lane in 0..usize::from(n) {
        let args: Vec<Value> = columns.iter().map(|c| c[lane]).collect();
        out.push(k.op(site.op, &args, &[to.with_lanes(1)])[0]);
    }
    Some(k.pack(&out))
}

/// A warp reduction by exchanging halves, in five steps.
pub(super) fn redux(k: &mut KernelBuilder, op: ReduxOp, v: Value) -> Value {
    [16, 8, 4, 2, 1].into_iter().fold(v, |v, step| {
        let other = k.shuffle_xor(v, step);
        match op {
            ReduxOp::Add => k.add(v, other),
            ReduxOp::Min => k.min(v, other),
            ReduxOp::Max => k.max(v, other),
            ReduxOp::And => k.and(v, other),
            ReduxOp::Or => k.or(v, other),
            ReduxOp::Xor => k.xor(v, other),
        }
    })
}

/// The 32-bit words of a vector of 8-bit or 4-bit lanes; a smaller one is one word, zeros above.
pub(super) fn words(k: &mut KernelBuilder, v: Value) -> Vec<Value> {
    let bits = k.ty(v).bits();
    let short = match bits {
        8 => k.bitcast(v, DType::U8),
        16 => k.bitcast(v, DType::U16),
        _ => {
            let n = (bits / 32) as u8;
            let v = k.bitcast(v, Ty::vec(DType::U32, n));
            return k.lanes(v);
        }
    };
    vec![k.cvt(short, DType::U32)]
}

/// Words back to a vector of 8-bit or 4-bit lanes; the inverse of [`words`].
pub(super) fn from_words(k: &mut KernelBuilder, words: &[Value], ty: Ty) -> Value {
    let whole = match ty.bits() {
        8 => k.cvt(words[0], DType::U8),
        16 => k.cvt(words[0], DType::U16),
        _ => k.pack(words),
    };
    k.bitcast(whole, ty)
}
