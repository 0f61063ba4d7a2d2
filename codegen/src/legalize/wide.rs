//! 16-bit float arithmetic in f32.
//!
//! Sum, difference, product, quotient and square root of p-bit numbers, rounded to at least
//! 2p + 2 bits and then to p, are what one rounding gives (Figueroa 1995); f32 has 24 bits, f16 11
//! and bf16 8. A fused multiply-add has no such bound and is not done this way.

use qcc_ir::DType;
use qcc_ir::kernel::{Cmp, KernelBuilder, NanMode, Op, Round, Ty, Value};

use super::Site;

/// The operation on operands converted to f32, its result converted back.
pub(super) fn in_f32(k: &mut KernelBuilder, site: &Site) -> Option<Value> {
    let from = k.ty(*site.args.first()?);
    let narrow = |ty: Ty| matches!(ty.dtype(), Some(DType::F16 | DType::BF16));
    if !narrow(from) || !is_innocuous(&site.op) {
        return None;
    }
    let args: Vec<Value> = site.args.iter().map(|&a| k.cvt(a, DType::F32)).collect();
    let to = site.to[0];
    if matches!(site.op, Op::Cmp { .. }) {
        return Some(k.op(site.op, &args, &[to])[0]);
    }
    let wide = k.op(site.op, &args, &[to.with_dtype(DType::F32)])[0];
    Some(k.cvt(wide, to.dtype()?))
}

/// A minimum or maximum that keeps NaN, from the one that prefers numbers.
pub(super) fn keep_nan(k: &mut KernelBuilder, site: &Site) -> Option<Value> {
    let plain = match site.op {
        Op::FMin {
            nan: NanMode::Propagate,
        } => Op::FMin {
            nan: NanMode::Number,
        },
        Op::FMax {
            nan: NanMode::Propagate,
        } => Op::FMax {
            nan: NanMode::Number,
        },
        _ => return None,
    };
    let number = k.op(plain, site.args, &site.to)[0];
    Some(site.args.iter().fold(number, |v, &arg| {
        let is_nan = k.cmp(Cmp::Ne, arg, arg);
        k.select(is_nan, arg, v)
    }))
}

const fn is_innocuous(op: &Op) -> bool {
    matches!(
        op,
        Op::FAdd { round: Round::Rn }
            | Op::FSub { round: Round::Rn }
            | Op::FMul { round: Round::Rn }
            | Op::FDiv { round: Round::Rn }
            | Op::FNeg
            | Op::FAbs
            | Op::FMin { .. }
            | Op::FMax { .. }
            | Op::FRound { .. }
            | Op::Math { .. }
            | Op::Cmp { .. }
    )
}
