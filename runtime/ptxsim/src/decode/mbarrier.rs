//! `mbarrier` instructions.

use super::asynch::{emit, shared_space};
use super::context::{Cx, Res};
use super::memory::order;
use crate::isa::asynch::{AsyncOp, Phase};
use crate::isa::memory::{Order, Space};
use crate::isa::types::{B64, U32};
use crate::parse::ast::Operand;

/// Decodes an `mbarrier` instruction.
pub(super) fn mbarrier(cx: &mut Cx<'_, '_>) -> Res<bool> {
    const OPS: [&str; 9] = [
        "init",
        "inval",
        "arrive_drop",
        "arrive",
        "test_wait",
        "try_wait",
        "pending_count",
        "complete_tx",
        "expect_tx",
    ];
    let first = cx
        .raw
        .mods
        .first()
        .map(|m| m.text.as_str())
        .unwrap_or_default();
    let Some(op) = OPS.iter().find(|o| **o == first).copied() else {
        return cx.no_form();
    };
    cx.flag(op);
    match op {
        "arrive" | "arrive_drop" => return arrive(cx, op == "arrive_drop"),
        "test_wait" | "try_wait" => return wait(cx, op == "try_wait"),
        "pending_count" => {
            cx.flag("b64");
            cx.count(2..=2)?;
            let (d, state) = (cx.dst(0, 32)?, cx.src(1, B64)?);
            return emit(cx, AsyncOp::MbarPending { d, state });
        }
        _ => {}
    }
    order(cx);
    let sp = shared_space(cx)?;
    if !cx.flag("b64") {
        return cx.no_form();
    }
    match op {
        "init" => {
            cx.count(2..=2)?;
            let (bar, count) = (cx.addr(0, sp)?, cx.src(1, U32)?);
            emit(cx, AsyncOp::MbarInit { bar, count })
        }
        "inval" => {
            cx.count(1..=1)?;
            let bar = cx.addr(0, sp)?;
            emit(cx, AsyncOp::MbarInval { bar })
        }
        _ => {
            cx.count(2..=2)?;
            let (bar, tx) = (cx.addr(0, sp)?, cx.src(1, U32)?);
            emit(
                cx,
                if op == "expect_tx" {
                    AsyncOp::MbarExpectTx { bar, tx }
                } else {
                    AsyncOp::MbarCompleteTx { bar, tx }
                },
            )
        }
    }
}

/// The order of an mbarrier instruction; release or acquire unless written.
fn mbar_order(cx: &mut Cx<'_, '_>, default: Order) -> Order {
    let written = cx
        .raw
        .mods
        .iter()
        .any(|m| matches!(m.text.as_str(), "relaxed" | "acquire" | "release"));
    let (o, _) = order(cx);
    if written { o } else { default }
}

fn arrive(cx: &mut Cx<'_, '_>, drop: bool) -> Res<bool> {
    let expect = cx.flag("expect_tx");
    let no_complete = cx.flag("noComplete");
    let order = mbar_order(cx, Order::Release);
    let sp = shared_space(cx)?;
    if !cx.flag("b64") {
        return cx.no_form();
    }
    // The state may be left out only in the form without any destination.
    let bare = matches!(cx.operand(0)?, Operand::Addr { .. });
    let at = usize::from(!bare);
    let n = cx.count(at + 1..=at + 2)?;
    let state = if bare || *cx.operand(0)? == Operand::Sink {
        None
    } else {
        Some(cx.dst(0, 64)?)
    };
    let bar = cx.addr(at, sp)?;
    let extra = if n == at + 2 {
        Some(cx.src(at + 1, U32)?)
    } else {
        None
    };
    let (count, tx) = if expect { (None, extra) } else { (extra, None) };
    if expect && tx.is_none() || no_complete && count.is_none() {
        return cx.operand_err("a count is wanted");
    }
    if state.is_some() && sp == Space::SharedCluster {
        return cx.operand_err("a remote arrive returns no state");
    }
    emit(
        cx,
        AsyncOp::MbarArrive {
            bar,
            count,
            tx,
            drop,
            no_complete,
            state,
            order,
        },
    )
}

fn wait(cx: &mut Cx<'_, '_>, try_wait: bool) -> Res<bool> {
    let parity = cx.flag("parity");
    let order = mbar_order(cx, Order::Acquire);
    let sp = shared_space(cx)?;
    if sp == Space::SharedCluster || !cx.flag("b64") {
        return cx.no_form();
    }
    let n = cx.count(3..=if try_wait { 4 } else { 3 })?;
    let d = cx.pdst(0)?;
    let bar = cx.addr(1, sp)?;
    let phase = if parity {
        Phase::Parity(cx.src(2, U32)?)
    } else {
        Phase::State(cx.src(2, B64)?)
    };
    if n == 4 {
        cx.src(3, U32)?;
    }
    emit(
        cx,
        AsyncOp::MbarWait {
            bar,
            phase,
            d,
            try_wait,
            order,
        },
    )
}
