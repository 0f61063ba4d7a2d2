//! Rules for elementwise arithmetic.

use crate::rewrite::{Replacement, Rewriter};
use qcc_ir::DType;
use qcc_ir::expr::{BinaryFn, UnaryFn};
use qcc_ir::graph::{Op, OpKind, ValueId};

/// `x` itself, if it has the type of the op's result.
fn same_type(rw: &Rewriter<'_>, op: &Op, x: ValueId) -> Option<Vec<ValueId>> {
    (rw.src.ty(x) == rw.src.ty(op.results[0])).then(|| vec![rw.get(x)])
}

/// `cast x` to the format of `x` is `x`.
pub(super) fn cast_identity(rw: &mut Rewriter<'_>, op: &Op) -> Replacement {
    match op.kind {
        OpKind::Cast => Ok(same_type(rw, op, op.operands[0])),
        _ => Ok(None),
    }
}

/// A first cast that changes no value may be left out: the second sees the same numbers.
pub(super) fn cast_of_cast(rw: &mut Rewriter<'_>, op: &Op) -> Replacement {
    let OpKind::Cast = op.kind else {
        return Ok(None);
    };
    let Some(inner) = rw.def(op.operands[0]).filter(|d| d.kind == OpKind::Cast) else {
        return Ok(None);
    };
    let x = inner.operands[0];
    let formats = [x, op.operands[0]].map(|v| rw.src.ty(v).elem.plain());
    match formats {
        [Some(from), Some(to)] if keeps_every_value(from, to) => {
            rw.join_loc(inner, op);
            let x = rw.get(x);
            Ok(Some(rw.put(op, OpKind::Cast, &[x])))
        }
        _ => Ok(None),
    }
}

/// Whether every number of format `from` is one of format `to`.
fn keeps_every_value(from: DType, to: DType) -> bool {
    use DType::*;
    let float_digits = |d: DType| match d {
        F64 => Some((53, 11)),
        F32 => Some((24, 8)),
        F16 => Some((11, 5)),
        BF16 => Some((8, 8)),
        E4M3 => Some((4, 4)),
        E5M2 => Some((3, 5)),
        _ => None,
    };
    // Bits of magnitude, and whether there is a sign.
    let int_digits = |d: DType| match d {
        Bool => Some((1, false)),
        d if d.is_int() => {
            let signed = d.kind() == qcc_ir::format::Kind::Signed;
            Some((d.bits() - u32::from(signed), signed))
        }
        _ => None,
    };
    if from == to {
        return true;
    }
    match (float_digits(from), float_digits(to)) {
        (Some((p, e)), Some((q, g))) => return p <= q && e <= g,
        (Some(_), None) => return false,
        (None, Some((q, _))) => return int_digits(from).is_some_and(|(n, _)| n < 16 && n <= q),
        (None, None) => {}
    }
    match (int_digits(from), int_digits(to)) {
        (Some((n, s)), Some((m, t))) => to != Bool && n <= m && (t || !s),
        _ => false,
    }
}

/// `f(f(x))` for functions that are their own inverse or do nothing the second time.
pub(super) fn unary_twice(rw: &mut Rewriter<'_>, op: &Op) -> Replacement {
    use UnaryFn::*;
    let OpKind::Unary(f) = op.kind else {
        return Ok(None);
    };
    let Some(inner) = rw.def(op.operands[0]).filter(|d| d.kind == op.kind) else {
        return Ok(None);
    };
    Ok(match f {
        Neg | Not => Some(vec![rw.get(inner.operands[0])]),
        Abs | Relu | Floor | Ceil | Round => Some(vec![rw.get(op.operands[0])]),
        _ => None,
    })
}

fn is_constant(rw: &Rewriter<'_>, v: ValueId) -> bool {
    let kind = rw.def(v).map(|d| &d.kind);
    matches!(kind, Some(OpKind::Const { .. } | OpKind::Splat { .. }))
}

/// A constant goes to the right of a commutative function.
pub(super) fn constant_right(rw: &mut Rewriter<'_>, op: &Op) -> Replacement {
    let OpKind::Binary(f) = op.kind else {
        return Ok(None);
    };
    let [a, b] = [op.operands[0], op.operands[1]];
    if !f.is_commutative() || !is_constant(rw, a) || is_constant(rw, b) {
        return Ok(None);
    }
    let operands = [rw.get(b), rw.get(a)];
    Ok(Some(rw.put(op, op.kind.clone(), &operands)))
}

/// A right operand that does nothing. Only where `x` already has the result's shape.
pub(super) fn neutral(rw: &mut Rewriter<'_>, op: &Op) -> Replacement {
    use BinaryFn::*;
    let OpKind::Binary(f) = op.kind else {
        return Ok(None);
    };
    let nothing = match f {
        Add | Sub => 0.0,
        Mul | Div | Pow => 1.0,
        _ => return Ok(None),
    };
    match rw.uniform(op.operands[1])? {
        Some(v) if v == nothing => Ok(same_type(rw, op, op.operands[0])),
        _ => Ok(None),
    }
}

/// `x − (−y) = x + y`, `x + (−y) = x − y`
pub(super) fn double_negation(rw: &mut Rewriter<'_>, op: &Op) -> Replacement {
    use BinaryFn::{Add, Sub};
    let f = match op.kind {
        OpKind::Binary(Add) => Sub,
        OpKind::Binary(Sub) => Add,
        _ => return Ok(None),
    };
    let [x, n] = [op.operands[0], op.operands[1]];
    let Some(inner) = rw.def(n).filter(|d| d.kind == OpKind::Unary(UnaryFn::Neg)) else {
        return Ok(None);
    };
    rw.join_loc(inner, op);
    let operands = [rw.get(x), rw.get(inner.operands[0])];
    Ok(Some(rw.put(op, OpKind::Binary(f), &operands)))
}

/// Both branches the same, a negated condition, or a known one.
pub(super) fn select(rw: &mut Rewriter<'_>, op: &Op) -> Replacement {
    let OpKind::Select = op.kind else {
        return Ok(None);
    };
    let [c, a, b] = [op.operands[0], op.operands[1], op.operands[2]];
    let taken = match rw.uniform(c)? {
        Some(v) => Some(if v != 0.0 { a } else { b }),
        None => (a == b).then_some(a),
    };
    if let Some(x) = taken.and_then(|x| same_type(rw, op, x)) {
        return Ok(Some(x));
    }
    let Some(inner) = rw.def(c).filter(|d| d.kind == OpKind::Unary(UnaryFn::Not)) else {
        return Ok(None);
    };
    rw.join_loc(inner, op);
    let operands = [inner.operands[0], b, a].map(|v| rw.get(v));
    Ok(Some(rw.put(op, OpKind::Select, &operands)))
}
