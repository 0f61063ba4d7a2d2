//! `setp` and `set`.

use super::context::{Cx, Res};
use crate::alu::{float, half, int};
use crate::isa::types::{Kind, S32, Ty, U32};
use crate::isa::{BoolOp, Class, CmpFn, Op, PSrc};
use crate::num::format::{BF16, F16, F32};
use crate::parse::ast::Operand;

/// Decodes the instruction when it is one of this family.
pub(super) fn decode(cx: &mut Cx<'_, '_>) -> Res<bool> {
    match cx.raw.opcode.as_str() {
        "setp" => setp(cx),
        "set" => set(cx),
        _ => Ok(false),
    }
}

const COMPARISONS: [&str; 18] = [
    "eq", "ne", "lt", "le", "gt", "ge", "lo", "ls", "hi", "hs", "equ", "neu", "ltu", "leu", "gtu",
    "geu", "num", "nan",
];

fn joins(cx: &mut Cx<'_, '_>) -> Option<BoolOp> {
    cx.one_of(&["and", "or", "xor"]).map(|m| match m {
        "and" => BoolOp::And,
        "or" => BoolOp::Or,
        _ => BoolOp::Xor,
    })
}

/// Comparison functions of a type: one, or two for packed halves.
fn comparison(cx: &Cx<'_, '_>, op: &str, ty: Ty, ftz: bool) -> Res<Vec<CmpFn>> {
    let bf16 = ty.format == Some(BF16);
    let f = match (ty.kind, ty.format) {
        (Kind::Pred, _) => None,
        (Kind::Pair, _) if ty.bits == 32 => {
            let both = [false, true].map(|high| half::compare(op, bf16, high, ftz));
            return match both {
                [Some(a), Some(b)] => Ok(vec![a, b]),
                _ => cx.no_form(),
            };
        }
        (Kind::Float, None) if !ftz => float::compare(op, true, false),
        (Kind::Float, Some(F32)) => float::compare(op, false, ftz),
        (Kind::Float, Some(F16 | BF16)) if ty.bits == 16 => half::compare(op, bf16, false, ftz),
        (Kind::Bits, _) if !matches!(op, "eq" | "ne") => None,
        (Kind::Bits | Kind::Unsigned | Kind::Signed, _) if !ftz => int::compare(op, ty),
        _ => None,
    };
    match f {
        Some(f) => Ok(vec![f]),
        None => cx.no_form(),
    }
}

fn setp(cx: &mut Cx<'_, '_>) -> Res<bool> {
    let Some(op) = cx.one_of(&COMPARISONS) else {
        return cx.no_form();
    };
    let join = joins(cx);
    let ftz = cx.flag("ftz");
    let ty = cx.ty()?;
    let n = if join.is_some() { 4 } else { 3 };
    cx.count(n..=n)?;
    let (d, q) = match cx.operand(0)? {
        Operand::Pair(d, q) => (cx.pdst_of(d)?, cx.pdst_of(q)?),
        o => (cx.pdst_of(o)?, 0),
    };
    let (a, b) = (cx.src(1, ty)?, cx.src(2, ty)?);
    let c = if join.is_some() {
        cx.psrc(3)?
    } else {
        cx.always()
    };
    let join = join.unwrap_or(BoolOp::And);
    let fs = comparison(cx, op, ty, ftz)?;
    if let [low, high] = fs[..] {
        // For packed halves p is the lower and q the upper comparison.
        cx.emit(
            Op::Setp {
                f: low,
                d,
                q: 0,
                a,
                b,
                join,
                c,
            },
            Class::Compare,
        )?;
        return cx.emit(
            Op::Setp {
                f: high,
                d: q,
                q: 0,
                a,
                b,
                join,
                c,
            },
            Class::Compare,
        );
    }
    cx.emit(
        Op::Setp {
            f: fs[0],
            d,
            q,
            a,
            b,
            join,
            c,
        },
        Class::Compare,
    )
}

fn set(cx: &mut Cx<'_, '_>) -> Res<bool> {
    let Some(op) = cx.one_of(&COMPARISONS) else {
        return cx.no_form();
    };
    let join = joins(cx);
    let ftz = cx.flag("ftz");
    let (to, ty) = (cx.ty()?, cx.ty()?);
    let n = if join.is_some() { 4 } else { 3 };
    cx.count(n..=n)?;
    let ones = match to {
        crate::isa::types::F32 => u64::from(1f32.to_bits()),
        U32 | S32 => 0xffff_ffff,
        _ => return cx.no_form(),
    };
    let fs = comparison(cx, op, ty, ftz)?;
    if fs.len() != 1 {
        return cx.no_form();
    }
    let d = cx.dst(0, 32)?;
    let (a, b) = (cx.src(1, ty)?, cx.src(2, ty)?);
    let c: PSrc = if join.is_some() {
        cx.psrc(3)?
    } else {
        cx.always()
    };
    cx.emit(
        Op::Set {
            f: fs[0],
            d,
            a,
            b,
            join: join.unwrap_or(BoolOp::And),
            c,
            ones,
        },
        Class::Compare,
    )
}
