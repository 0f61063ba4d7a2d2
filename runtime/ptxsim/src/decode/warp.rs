//! Exchanges between the lanes of a warp.

use super::context::{Cx, Res, SINK};
use crate::isa::types::{B32, Kind, Ty, U32};
use crate::isa::{Class, Op, P, R, ReduxOp, ShflMode, VoteMode};
use crate::parse::ast::Operand;

/// Decodes the instruction when it is one of this family.
pub(super) fn decode(cx: &mut Cx<'_, '_>) -> Res<bool> {
    match cx.raw.opcode.as_str() {
        "bar" | "barrier" if cx.flag("warp") => {
            if !cx.flag("sync") {
                return cx.no_form();
            }
            cx.count(1..=1)?;
            let mask = cx.src(0, B32)?;
            cx.emit(Op::WarpSync { mask }, Class::Barrier)
        }
        "shfl" => shuffle(cx),
        "vote" => vote(cx),
        "match" => matches(cx),
        "redux" => redux(cx),
        "activemask" => {
            cx.flag("b32");
            cx.count(1..=1)?;
            let d = cx.dst(0, 32)?;
            cx.emit(Op::ActiveMask { d }, Class::Warp)
        }
        "elect" => {
            if !cx.flag("sync") {
                return cx.no_form();
            }
            cx.count(2..=2)?;
            let (d, p) = dest_pair(cx, 32)?;
            let mask = cx.src(1, B32)?;
            cx.emit(Op::Elect { d, p, mask }, Class::Warp)
        }
        _ => Ok(false),
    }
}

/// `d` or `d|p`, where `d` may be `_`.
fn dest_pair(cx: &Cx<'_, '_>, bits: u32) -> Res<(R, P)> {
    match cx.operand(0)? {
        Operand::Pair(d, p) => {
            let d = if **d == Operand::Sink {
                SINK
            } else {
                cx.reg(d, bits)?
            };
            Ok((d, cx.pdst_of(p)?))
        }
        _ => Ok((cx.dst(0, bits)?, 0)),
    }
}

fn sync(cx: &mut Cx<'_, '_>) -> Res<()> {
    if cx.flag("sync") {
        Ok(())
    } else {
        cx.no_form()
    }
}

fn shuffle(cx: &mut Cx<'_, '_>) -> Res<bool> {
    sync(cx)?;
    let mode = match cx.one_of(&["up", "down", "bfly", "idx"]) {
        Some("up") => ShflMode::Up,
        Some("down") => ShflMode::Down,
        Some("bfly") => ShflMode::Bfly,
        Some(_) => ShflMode::Idx,
        None => return cx.no_form(),
    };
    if cx.ty()?.bits != 32 {
        return cx.no_form();
    }
    cx.count(5..=5)?;
    let (d, p) = dest_pair(cx, 32)?;
    let (a, b, c, mask) = (
        cx.src(1, B32)?,
        cx.src(2, U32)?,
        cx.src(3, U32)?,
        cx.src(4, B32)?,
    );
    cx.emit(
        Op::Shfl {
            mode,
            d,
            p,
            a,
            b,
            c,
            mask,
        },
        Class::Warp,
    )
}

fn vote(cx: &mut Cx<'_, '_>) -> Res<bool> {
    sync(cx)?;
    let mode = cx.one_of(&["all", "any", "uni", "ballot"]);
    let ty = cx.ty()?;
    cx.count(3..=3)?;
    let a = cx.psrc(1)?;
    let mask = cx.src(2, B32)?;
    let (mode, d, p) = match (mode, ty.kind) {
        (Some("ballot"), Kind::Bits) => (VoteMode::Ballot, cx.dst(0, 32)?, 0),
        (Some("all"), Kind::Pred) => (VoteMode::All, SINK, cx.pdst(0)?),
        (Some("any"), Kind::Pred) => (VoteMode::Any, SINK, cx.pdst(0)?),
        (Some("uni"), Kind::Pred) => (VoteMode::Uni, SINK, cx.pdst(0)?),
        _ => return cx.no_form(),
    };
    cx.emit(
        Op::Vote {
            mode,
            d,
            p,
            a,
            mask,
        },
        Class::Warp,
    )
}

fn matches(cx: &mut Cx<'_, '_>) -> Res<bool> {
    let all = match cx.one_of(&["all", "any"]) {
        Some(m) => m == "all",
        None => return cx.no_form(),
    };
    sync(cx)?;
    let ty = cx.ty()?;
    if ty.kind != Kind::Bits || !matches!(ty.bits, 32 | 64) {
        return cx.no_form();
    }
    cx.count(3..=3)?;
    let (d, p) = dest_pair(cx, 32)?;
    let a = cx.src(1, ty)?;
    let mask = cx.src(2, B32)?;
    cx.emit(Op::Match { all, d, p, a, mask }, Class::Warp)
}

fn redux(cx: &mut Cx<'_, '_>) -> Res<bool> {
    sync(cx)?;
    let name = cx.one_of(&["add", "min", "max", "and", "or", "xor"]);
    let ty: Ty = cx.ty()?;
    cx.count(3..=3)?;
    let op = match (name, ty.kind, ty.bits) {
        (Some("add"), Kind::Unsigned | Kind::Signed, 32) => ReduxOp::Add,
        (Some("min"), Kind::Unsigned, 32) => ReduxOp::MinU,
        (Some("max"), Kind::Unsigned, 32) => ReduxOp::MaxU,
        (Some("min"), Kind::Signed, 32) => ReduxOp::MinS,
        (Some("max"), Kind::Signed, 32) => ReduxOp::MaxS,
        (Some("and"), Kind::Bits, 32) => ReduxOp::And,
        (Some("or"), Kind::Bits, 32) => ReduxOp::Or,
        (Some("xor"), Kind::Bits, 32) => ReduxOp::Xor,
        _ => return cx.no_form(),
    };
    let d = cx.dst(0, 32)?;
    let (a, mask) = (cx.src(1, ty)?, cx.src(2, B32)?);
    cx.emit(Op::Redux { op, d, a, mask }, Class::Warp)
}
