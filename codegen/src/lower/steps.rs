//! An expression at one position: what each of its steps gives.

use super::faults::check_divisions;
use super::frame::Frame;
use super::index::{Position, load_operand};
use qcc_ir::expr::{Expr, Node};
use qcc_ir::kernel::{Value, lower_expr};

/// Loads the operands that the expression reads at `p`, in their order, and computes its steps.
///
/// The expression is one of a verified op: every operand that it reads exists. Integers that are
/// divided by zero are reported, if the frame watches for them.
pub fn steps_at(fr: &mut Frame, e: &Expr, accs: &[Value], p: &Position) -> Vec<Value> {
    let operands = fr.operands.clone();
    let read = |i: usize| {
        e.nodes
            .iter()
            .any(|n| matches!(n, Node::Input(k) if usize::from(*k) == i))
    };
    let loads: Vec<Option<Value>> = operands
        .iter()
        .enumerate()
        .map(|(i, t)| read(i).then(|| load_operand(fr, t, p)))
        .collect();
    let steps = lower_expr(&mut fr.k, e, accs, &mut |k, i| {
        let loaded = loads.get(usize::from(i)).copied().flatten();
        loaded.unwrap_or_else(|| k.f32(0.0))
    });
    check_divisions(fr, e, &steps, p);
    steps
}
