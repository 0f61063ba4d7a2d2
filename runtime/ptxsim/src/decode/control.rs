//! Branches, exits, block barriers and hints that only change scheduling.

use super::context::{Cx, Res};
use crate::isa::types::{Kind, U32};
use crate::isa::{ALWAYS, Bar, BarKind, Class, Op};
use crate::parse::ast::Operand;

/// Decodes the instruction when it is one of this family.
pub(super) fn decode(cx: &mut Cx<'_, '_>) -> Res<bool> {
    match cx.raw.opcode.as_str() {
        "bra" => {
            cx.flag("uni");
            cx.count(1..=1)?;
            let Operand::Sym(name) = cx.operand(0)? else {
                return cx.operand_err("a label is wanted here");
            };
            let target = cx.target(name)?;
            cx.emit(Op::Bra { target }, Class::Control)
        }
        "brx" => brx(cx),
        "ret" | "exit" => {
            cx.flag("uni");
            cx.count(0..=0)?;
            cx.emit(Op::Exit, Class::Control)
        }
        "trap" | "brkpt" => {
            cx.count(0..=0)?;
            cx.emit(Op::Trap, Class::Control)
        }
        "bar" | "barrier"
            if !cx
                .raw
                .mods
                .iter()
                .any(|m| matches!(m.text.as_str(), "warp" | "cluster")) =>
        {
            barrier(cx)
        }
        "nanosleep" => {
            cx.flag("u32");
            cx.count(1..=1)?;
            cx.src(0, U32)?;
            cx.emit(Op::Nop, Class::Hint)
        }
        "griddepcontrol" => match cx.one_of(&["wait", "launch_dependents"]) {
            Some("wait") => cx.emit(Op::GridDepWait, Class::Hint),
            Some(_) => cx.emit(Op::GridDepLaunch, Class::Hint),
            None => cx.no_form(),
        },
        "setmaxnreg" => {
            let dir = cx.one_of(&["inc", "dec"]);
            let ok = cx.flag("sync") && cx.flag("aligned") && dir.is_some() && cx.flag("u32");
            cx.count(1..=1)?;
            let n = cx.imm(0)?;
            if !ok || !(24..=256).contains(&n) || n % 8 != 0 {
                return cx.operand_err("setmaxnreg takes a multiple of 8 from 24 to 256");
            }
            let op = Op::SetMaxReg {
                inc: dir == Some("inc"),
                regs: n as u16,
            };
            cx.emit_aligned(op, Class::Hint)
        }
        "pmevent" => {
            cx.count(1..=1)?;
            cx.emit(Op::Nop, Class::Hint)
        }
        _ => Ok(false),
    }
}

fn brx(cx: &mut Cx<'_, '_>) -> Res<bool> {
    if !cx.flag("idx") {
        return cx.no_form();
    }
    cx.flag("uni");
    cx.count(2..=2)?;
    let index = cx.src(0, U32)?;
    let Operand::Sym(name) = cx.operand(1)? else {
        return cx.operand_err("a branch target list is wanted here");
    };
    let mut targets = Vec::new();
    for label in cx.branch_targets(name)? {
        targets.push(cx.target(&label)?);
    }
    cx.emit(
        Op::Brx {
            index,
            targets: targets.into(),
        },
        Class::Control,
    )
}

/// `bar{.cta}.sync/arrive/red`; `barrier` is the form without implied `.aligned`.
fn barrier(cx: &mut Cx<'_, '_>) -> Res<bool> {
    cx.flag("cta");
    let plain = cx.raw.opcode == "bar";
    let aligned = cx.flag("aligned") || plain;
    let mut bar = Bar {
        kind: BarKind::Sync,
        id: 0,
        count: None,
        aligned,
        pred: ALWAYS,
        pd: 0,
        rd: 0,
    };
    let n = match cx.one_of(&["sync", "arrive", "red"]) {
        Some("sync") => {
            bar.id = cx.src(0, U32)?;
            cx.count(1..=2)?
        }
        Some("arrive") => {
            bar.kind = BarKind::Arrive;
            bar.id = cx.src(0, U32)?;
            cx.count(2..=2)?
        }
        Some(_) => return reduce(cx, bar),
        None => return cx.no_form(),
    };
    if n == 2 {
        bar.count = Some(cx.src(1, U32)?);
    }
    finish(cx, bar)
}

fn finish(cx: &mut Cx<'_, '_>, bar: Bar) -> Res<bool> {
    if bar.aligned {
        cx.emit_aligned(Op::Bar(Box::new(bar)), Class::Barrier)
    } else {
        cx.emit(Op::Bar(Box::new(bar)), Class::Barrier)
    }
}

fn reduce(cx: &mut Cx<'_, '_>, mut bar: Bar) -> Res<bool> {
    let op = cx.one_of(&["and", "or", "popc"]);
    let ty = cx.ty()?;
    let n = cx.count(3..=4)?;
    match (op, ty.kind) {
        (Some("popc"), Kind::Unsigned) => {
            bar.kind = BarKind::RedPopc;
            bar.rd = cx.dst(0, 32)?;
        }
        (Some("and"), Kind::Pred) => {
            bar.kind = BarKind::RedAnd;
            bar.pd = cx.pdst(0)?;
        }
        (Some("or"), Kind::Pred) => {
            bar.kind = BarKind::RedOr;
            bar.pd = cx.pdst(0)?;
        }
        _ => return cx.no_form(),
    }
    bar.id = cx.src(1, U32)?;
    if n == 4 {
        bar.count = Some(cx.src(2, U32)?);
    }
    bar.pred = cx.psrc(n - 1)?;
    finish(cx, bar)
}
