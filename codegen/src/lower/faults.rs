//! What kernels report of the data that they meet: an index outside of its table, an integer that is
//! divided by zero.
//!
//! A step that checks its data has two fault words on the device. A report lowers them by unsigned
//! atomic minimum to
//!
//! ```text
//! position · 2³² + upper half of the number        position · 2³² + lower half of the number
//! ```
//!
//! so that the first one stays, whatever order threads run in; the host makes the error when the
//! results are read. Precondition: fewer than 2³² positions, to which [`Frame::faults`] limits the
//! launch.

use super::frame::{Frame, Source, Tensor};
use super::index::{Position, offset};
use qcc_ir::DType;
use qcc_ir::expr::{Expr, Node, NodeId};
use qcc_ir::kernel::{AtomicOp, Cmp, Order, Scope, Value};

/// Lowers the fault words to a number and its position, if none before it was reported.
pub fn report(fr: &mut Frame, faults: Value, position: Value, number: Value) {
    let k = &mut fr.k;
    let (position, number) = (k.cvt(position, DType::U64), k.cvt(number, DType::U64));
    let first = k.shl_imm(position, 32);
    let (upper, lower) = (
        k.shr_imm(number, 32),
        k.and_imm(number, i64::from(u32::MAX)),
    );
    let one = k.i64(1);
    for (word, half) in [(faults, upper), (k.ptr_add(faults, one), lower)] {
        let v = k.or(first, half);
        k.atomic(AtomicOp::Min, Order::Relaxed, Scope::Gpu, word, v);
    }
}

/// The dividends and divisors of an expression's integer divisions and remainders whose divisor may
/// be zero.
pub(super) fn divisions(e: &Expr, operands: &[Tensor]) -> Vec<(NodeId, NodeId)> {
    let read = |k: u8| operands.get(usize::from(k)).map(|t| t.ty.elem.read_as());
    let number = |id: NodeId| match e.node(id) {
        Some(Node::ConstI64(v)) => Some(v as f64),
        Some(Node::Input(k)) => match operands.get(usize::from(k)).map(|t| t.codes) {
            Some(Source::Number(v)) => Some(v),
            _ => None,
        },
        _ => None,
    };
    let all = e.integer_divisions(&read).into_iter();
    all.map(|(_, a, b)| (a, b))
        .filter(|(_, b)| number(*b).is_none_or(|v| v == 0.0))
        .collect()
}

/// Reports the divisions by zero among an expression's steps at `p`, by their dividends.
pub(super) fn check_divisions(fr: &mut Frame, e: &Expr, steps: &[Value], p: &Position) {
    let Some(faults) = fr.watched() else {
        return;
    };
    for (a, b) in divisions(e, &fr.operands) {
        let (a, b) = (steps[a.0 as usize], steps[b.0 as usize]);
        let zero = fr.k.int_like(b, 0);
        let undefined = fr.k.cmp(Cmp::Eq, b, zero);
        fr.when(undefined, |fr| {
            let position = offset(fr, &p.shape, p);
            report(fr, faults, position, a);
        });
    }
}
