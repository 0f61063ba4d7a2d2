//! Typing rules of arithmetic, comparison, conversion, vectors, pointers and memory.

use super::super::{Order, Space};
use super::{Checked, DType, Op, Problem, Sig, Ty, ensure, operand, result};

pub(super) fn check(op: &Op, sig: &Sig) -> Checked {
    match op {
        Op::Const { bits } => constant(bits.0, sig),
        Op::INeg | Op::IAbs => int(sig, 1),
        Op::IAdd | Op::ISub | Op::IMul | Op::IDiv | Op::IRem | Op::IMin | Op::IMax => int(sig, 2),
        Op::IMad => int(sig, 3),
        Op::IMulHi => {
            int(sig, 2)?;
            ensure(
                sig.results[0].dtype().is_some_and(|d| d.bits() >= 32),
                || operand("the high half is defined for 32 and 64 bits"),
            )
        }
        Op::And | Op::Or | Op::Xor => bitwise(sig, 2),
        Op::Not => bitwise(sig, 1),
        Op::Shl | Op::Shr => shift(sig),
        Op::Popc | Op::Clz => {
            sig.counts(1, 1)?;
            sig.arg_is(0, Ty::U32)?;
            ensure(sig.results[0] == Ty::U32, || result("expected `u32`"))
        }
        Op::Lop3 { .. } | Op::Prmt | Op::FunnelShl | Op::FunnelShr => {
            sig.counts(3, 1)?;
            (0..3).try_for_each(|i| sig.word(i))?;
            ensure(sig.results[0].is_word(), || result("expected 32 bits"))
        }
        Op::Dp4a => dp4a(sig),
        Op::FNeg | Op::FAbs | Op::FRound { .. } => float(sig, 1),
        Op::FAdd { .. } | Op::FSub { .. } | Op::FMul { .. } | Op::FDiv { .. } => float(sig, 2),
        Op::Fma { .. } => float(sig, 3),
        Op::FMin { .. } | Op::FMax { .. } => float(sig, 2),
        Op::Math { .. } => float(sig, 1),
        Op::Cmp { .. } => compare(sig),
        Op::Select => select(sig),
        Op::Convert { .. } => convert(sig),
        Op::Bitcast => bitcast(sig),
        Op::Pack => pack(sig),
        Op::Unpack => unpack(sig),
        Op::PtrAdd => ptr_add(sig),
        Op::PtrCast => ptr_cast(sig),
        Op::PtrToInt => ptr_to_int(sig),
        Op::Load { order, .. } => load(*order, sig),
        Op::Store { order, .. } => store(*order, sig),
        _ => Err(Problem::new("K02", "no typing rule")),
    }
}

fn constant(bits: u64, sig: &Sig) -> Checked {
    sig.counts(0, 1)?;
    let Ty::Val { dtype, .. } = sig.results[0] else {
        return Err(result("a constant is a scalar or a vector"));
    };
    let width = dtype.bits();
    ensure(width == 64 || bits >> width == 0, || {
        Problem::new("K17", format!("{bits:#x} does not fit `{dtype}`"))
    })?;
    ensure(dtype != DType::Bool || bits <= 1, || {
        Problem::new("K17", "a truth value is 0 or 1")
    })
}

fn int(sig: &Sig, n: usize) -> Checked {
    let ty = sig.uniform(n)?;
    ensure(
        ty.is_int() && ty.dtype().is_some_and(|d| d.bits() >= 8),
        || operand(format!("integer operation on `{ty}`")),
    )
}

fn bitwise(sig: &Sig, n: usize) -> Checked {
    let ty = sig.uniform(n)?;
    ensure(ty.is_int() || ty.dtype() == Some(DType::Bool), || {
        operand(format!("bitwise operation on `{ty}`"))
    })
}

fn shift(sig: &Sig) -> Checked {
    sig.counts(2, 1)?;
    let ty = sig.results[0];
    sig.arg_is(0, ty)?;
    sig.arg_is(1, Ty::U32)?;
    ensure(
        ty.is_int() && ty.dtype().is_some_and(|d| d.bits() >= 8),
        || operand(format!("shift of `{ty}`")),
    )
}

fn dp4a(sig: &Sig) -> Checked {
    sig.counts(3, 1)?;
    let bytes = |i: usize| {
        matches!(
            sig.args[i],
            Ty::Val {
                dtype: DType::I8 | DType::U8,
                lanes: 4
            }
        )
    };
    ensure(bytes(0) && bytes(1), || {
        operand("expected `i8x4` or `u8x4`")
    })?;
    let signed = sig.args[..2].iter().any(|t| t.dtype() == Some(DType::I8));
    let acc = if signed { Ty::I32 } else { Ty::U32 };
    sig.arg_is(2, acc)?;
    ensure(sig.results[0] == acc, || {
        result(format!("expected `{acc}`"))
    })
}

fn float(sig: &Sig, n: usize) -> Checked {
    let ty = sig.uniform(n)?;
    ensure(
        ty.is_float() && ty.dtype().is_some_and(|d| d.bits() >= 16),
        || {
            operand(format!(
                "float operation on `{ty}`; convert to f16 or wider first"
            ))
        },
    )
}

fn compare(sig: &Sig) -> Checked {
    sig.counts(2, 1)?;
    let ty = sig.args[0];
    sig.arg_is(1, ty)?;
    let fits = match ty {
        Ty::Val { dtype, .. } => dtype.bits() >= 8 && (!dtype.is_float() || dtype.bits() >= 16),
        Ty::Ptr { .. } => true,
        _ => false,
    };
    ensure(fits, || operand(format!("comparison of `{ty}`")))?;
    let expected = Ty::vec(DType::Bool, ty.lanes().max(1));
    ensure(sig.results[0] == expected, || {
        result(format!("expected `{expected}`"))
    })
}

fn select(sig: &Sig) -> Checked {
    sig.counts(3, 1)?;
    let ty = sig.results[0];
    sig.arg_is(1, ty)?;
    sig.arg_is(2, ty)?;
    ensure(!matches!(ty, Ty::Pending { .. }), || {
        operand("accumulators in flight cannot be selected")
    })?;
    let ok = sig.args[0] == Ty::BOOL || sig.args[0] == Ty::vec(DType::Bool, ty.lanes().max(1));
    ensure(ok, || {
        operand(format!("condition `{}` for `{ty}`", sig.args[0]))
    })
}

fn convert(sig: &Sig) -> Checked {
    sig.counts(1, 1)?;
    let (from, to) = (sig.args[0], sig.results[0]);
    ensure(from.dtype().is_some() && from.lanes() == to.lanes(), || {
        operand(format!("conversion of `{from}` to `{to}`"))
    })
}

fn bitcast(sig: &Sig) -> Checked {
    sig.counts(1, 1)?;
    let (from, to) = (sig.args[0], sig.results[0]);
    let plain = |t: Ty| t.dtype().is_some_and(|d| d != DType::Bool);
    ensure(plain(from) && plain(to) && from.bits() == to.bits(), || {
        operand(format!("bitcast of `{from}` to `{to}`"))
    })
}

fn pack(sig: &Sig) -> Checked {
    ensure(sig.results.len() == 1, || result("gives one result"))?;
    let ty = sig.results[0];
    let part = u8::try_from(sig.args.len())
        .ok()
        .filter(|&n| n > 1 && ty.lanes().is_multiple_of(n))
        .map(|n| ty.with_lanes(ty.lanes() / n));
    ensure(
        part.is_some_and(|p| sig.args.iter().all(|a| *a == p)),
        || operand(format!("the parts do not concatenate to `{ty}`")),
    )
}

fn unpack(sig: &Sig) -> Checked {
    ensure(sig.args.len() == 1, || {
        Problem::new("K02", "takes one operand")
    })?;
    let ty = sig.args[0];
    let part = u8::try_from(sig.results.len())
        .ok()
        .filter(|&n| n > 1 && ty.lanes().is_multiple_of(n))
        .map(|n| ty.with_lanes(ty.lanes() / n));
    ensure(
        part.is_some_and(|p| sig.results.iter().all(|r| *r == p)),
        || result(format!("the parts do not make up `{ty}`")),
    )
}

fn ptr_add(sig: &Sig) -> Checked {
    sig.counts(2, 1)?;
    ensure(matches!(sig.args[0], Ty::Ptr { .. }), || {
        operand("expected a pointer")
    })?;
    ensure(sig.args[1].is_index(), || {
        operand(format!("index `{}`", sig.args[1]))
    })?;
    ensure(sig.results[0] == sig.args[0], || {
        result(format!("expected `{}`", sig.args[0]))
    })
}

fn ptr_cast(sig: &Sig) -> Checked {
    sig.counts(1, 1)?;
    let spaces = match (sig.args[0], sig.results[0]) {
        (Ty::Ptr { space: a, .. }, Ty::Ptr { space: b, .. }) => Some((a, b)),
        _ => None,
    };
    ensure(spaces.is_some_and(|(a, b)| a == b), || {
        operand("a pointer cast keeps the address space")
    })
}

fn ptr_to_int(sig: &Sig) -> Checked {
    sig.counts(1, 1)?;
    let Ty::Ptr { space, .. } = sig.args[0] else {
        return Err(operand("expected a pointer"));
    };
    let expected = if space.address_bits() == 32 {
        Ty::U32
    } else {
        Ty::U64
    };
    ensure(sig.results[0] == expected, || {
        result(format!("expected `{expected}`"))
    })
}

const ALL_SPACES: &[Space] = &Space::ALL;

/// Loads and stores move whole elements: a scalar, or a vector whose bits are whole elements.
fn access(elem: DType, ty: Ty) -> Checked {
    ensure(ty.dtype().is_some(), || {
        operand(format!("memory holds no `{ty}`"))
    })?;
    ensure(ty.bits() <= 128, || {
        Problem::new("K09", format!("`{ty}` is wider than an access of 16 bytes"))
    })?;
    ensure(ty.bits() >= 8, || {
        operand(format!("`{ty}` is less than a byte"))
    })?;
    let same = ty.dtype() == Some(elem);
    ensure(
        same || elem == DType::U8 && ty.dtype().is_some_and(|d| d.bits() == 4),
        || {
            operand(format!(
                "`{ty}` through a pointer to `{elem}`; cast the pointer"
            ))
        },
    )
}

fn load(order: Order, sig: &Sig) -> Checked {
    ensure(matches!(sig.args.len(), 1 | 3), || {
        Problem::new("K02", "takes 1 or 3 operands")
    })?;
    ensure(sig.results.len() == 1, || result("gives one result"))?;
    let elem = sig.pointer(0, ALL_SPACES)?;
    ensure(
        matches!(order, Order::Weak | Order::Relaxed | Order::Acquire),
        || operand(format!("a load cannot be `{}`", order.name())),
    )?;
    access(elem, sig.results[0])?;
    if sig.args.len() == 3 {
        sig.arg_is(1, Ty::BOOL)?;
        sig.arg_is(2, sig.results[0])?;
    }
    Ok(())
}

fn store(order: Order, sig: &Sig) -> Checked {
    ensure(matches!(sig.args.len(), 2 | 3), || {
        Problem::new("K02", "takes 2 or 3 operands")
    })?;
    ensure(sig.results.is_empty(), || result("gives no result"))?;
    let elem = sig.pointer(0, ALL_SPACES)?;
    ensure(
        !matches!(
            sig.args[0],
            Ty::Ptr {
                space: Space::ReadOnly,
                ..
            }
        ),
        || Problem::new("K08", "store to read-only memory"),
    )?;
    ensure(
        matches!(order, Order::Weak | Order::Relaxed | Order::Release),
        || operand(format!("a store cannot be `{}`", order.name())),
    )?;
    access(elem, sig.args[1])?;
    if sig.args.len() == 3 {
        sig.arg_is(2, Ty::BOOL)
    } else {
        Ok(())
    }
}
