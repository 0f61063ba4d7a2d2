//! Rotary embedding: each head's pairs are rotated by an angle that depends on the position.
//!
//! ```text
//! y[i] = x[i]·cos − x[j]·sin,   y[j] = x[j]·cos + x[i]·sin
//! ```
//!
//! The partner of an element is `i ± d/2`, or its neighbour where pairs are interleaved. Two
//! tensors that turn by the same angles are walked as one whose columns lie side by side.

use super::map::{THREADS, walk};
use super::unsupported;
use crate::lower::frame::{Frame, Launched};
use crate::lower::index::{Position, load_operand};
use crate::lower::store::store_result;
use qcc_ir::DimExpr;
use qcc_ir::diag::Result;
use qcc_ir::graph::{Func, Module, Op, RotaryAttrs, TensorType};
use qcc_ir::kernel::{Launch, Value};

/// Builds the kernel of a rotary embedding.
///
/// # Errors
/// When the size of a head is not known.
pub fn build(m: &Module, f: &Func, op: &Op, a: &RotaryAttrs) -> Result<Launched> {
    let types: Vec<&TensorType> = op.operands.iter().map(|v| f.ty(*v)).collect();
    let head = head(&types, a)?;
    let mut fr = Frame::open(m, f, op, Launch::threads(THREADS), &[])?;
    let interleaved = a.interleaved;
    let own = types[0].shape.clone();
    if op.results.len() == 1 {
        let grid = walk(&mut fr, &own, |fr, p| turn(fr, p, 0, head, interleaved));
        return fr.close(grid, 0);
    }
    let first = columns(types[0])?;
    let both = first + columns(types[3])?;
    let mut side_by_side = own.clone();
    let last = side_by_side.len() - 1;
    side_by_side[last] = DimExpr::from(both);
    let grid = walk(&mut fr, &side_by_side, |fr, p| {
        let end = fr.k.int_like(p.at[last], first);
        let in_first = fr.k.lt(p.at[last], end);
        let mut here = p.clone();
        here.shape[last] = DimExpr::from(first);
        fr.when(in_first, |fr| turn(fr, &here, 0, head, interleaved));
        let in_second = fr.k.not(in_first);
        here.shape[last] = DimExpr::from(both - first);
        here.at[last] = fr.k.sub(p.at[last], end);
        fr.when(in_second, |fr| turn(fr, &here, 1, head, interleaved));
    });
    fr.close(grid, 0)
}

/// Stores the turned element at a position of tensor `i`.
fn turn(fr: &mut Frame, p: &Position, i: usize, head: i64, interleaved: bool) {
    let v = rotated(fr, p, 3 * i, head, interleaved);
    let result = fr.results[i].clone();
    store_result(fr, &result, p, v, None);
}

/// Columns of a head, given the operands' types.
///
/// # Errors
/// When they are not known.
pub fn head(operands: &[&TensorType], a: &RotaryAttrs) -> Result<i64> {
    let heads = i64::try_from(a.heads).unwrap_or(i64::MAX);
    if let Some(second) = operands.get(3) {
        columns(second)?;
    }
    match columns(operands[0])? {
        c if heads > 0 && c % heads == 0 && c / heads % 2 == 0 => Ok(c / heads),
        _ => Err(unsupported("the size of a rotary head is not known")),
    }
}

fn columns(t: &TensorType) -> Result<i64> {
    let last = t.shape.last().and_then(DimExpr::as_const);
    last.ok_or_else(|| unsupported("the size of a rotary head is not known"))
}

/// The element at a position of operand `of`, turned.
fn rotated(fr: &mut Frame, p: &Position, of: usize, head: i64, interleaved: bool) -> Value {
    let last = p.at.len() - 1;
    let column = p.at[last];
    let in_head = fr.k.rem_imm(column, head);
    let half = fr.k.int_like(column, head / 2);
    let (pair, first, partner);
    if interleaved {
        pair = fr.k.shr_imm(in_head, 1);
        let odd = fr.k.and_imm(in_head, 1);
        let zero = fr.k.u32(0);
        first = fr.k.eq(odd, zero);
        let one = fr.k.u32(1);
        // Heads are even, so a pair never crosses into the next one.
        let even = fr.k.sub(column, odd);
        let other = fr.k.sub(one, odd);
        partner = fr.k.add(even, other);
    } else {
        pair = fr.k.rem_imm(in_head, head / 2);
        first = fr.k.lt(in_head, half);
        let (up, down) = (fr.k.add(column, half), fr.k.sub(column, half));
        partner = fr.k.select(first, up, down);
    }
    let [x, cos, sin] = [of, 1, 2].map(|i| fr.operands[i].clone());
    let at_last = |p: &Position, v: Value, n: i64| {
        let mut p = p.clone();
        p.at[last] = v;
        p.shape[last] = DimExpr::from(n);
        p
    };
    let own = load_operand(fr, &x, p);
    let mut there = p.clone();
    there.at[last] = partner;
    let other = load_operand(fr, &x, &there);
    let angle = at_last(p, pair, head / 2);
    let (c, s) = (
        load_operand(fr, &cos, &angle),
        load_operand(fr, &sin, &angle),
    );
    let minus = fr.k.neg(s);
    let s = fr.k.select(first, minus, s);
    let turned = fr.k.mul(other, s);
    let kept = fr.k.mul(own, c);
    fr.k.add(kept, turned)
}
