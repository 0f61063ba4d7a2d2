//! Pooling.

use qcc_ir::DimExpr;
use qcc_ir::diag::Result;
use qcc_ir::graph::{OpKind, PoolFn, ReduceFn, Window};

use super::super::error::{self, unsupported};
use super::super::node::{Node, Val, operand};
use super::super::scope::Scope;
use super::conv::{sizes, spare, window};
use super::one;
use super::reduce::over;

/// `MaxPool`, without the positions of the largest elements.
pub(super) fn max(s: &mut Scope, n: &Node) -> Result<Vec<Val>> {
    n.only_outputs(1)?;
    n.attrs.ignore(&["storage_order"]);
    pool(s, n, PoolFn::Max)
}

/// `AveragePool`
pub(super) fn average(s: &mut Scope, n: &Node) -> Result<Vec<Val>> {
    let f = match n.attrs.flag("count_include_pad", false)? {
        true => PoolFn::MeanPadded,
        false => PoolFn::Mean,
    };
    pool(s, n, f)
}

fn pool(s: &mut Scope, n: &Node, f: PoolFn) -> Result<Vec<Val>> {
    let x = s.value(n.input(0)?)?;
    let ty = s.b.ty(x).clone();
    let [_, _, space @ ..] = ty.shape.as_slice() else {
        return Err(operand(format!("{} of {ty}", n.op)));
    };
    if !s.plain(x)?.is_float() || !(1..=2).contains(&space.len()) {
        return Err(unsupported(
            error::OPERAND,
            format!(
                "{} of {ty}; one and two spatial dimensions are supported",
                n.op
            ),
        ));
    }
    let kernel = sizes(n, "kernel_shape", space.len(), None)?;
    let mut window = window(s, n, space, kernel)?;
    if n.attrs.flag("ceil_mode", false)? {
        for (i, dim) in space.iter().enumerate() {
            round_up(&mut window, i, dim, f)?;
        }
    }
    one(s.b.same(OpKind::Pool { f, window }, &[x])?)
}

/// Adds the padding that makes room for a last, partial window, unless that window would lie
/// in the padding altogether.
fn round_up(w: &mut Window, i: usize, dim: &DimExpr, f: PoolFn) -> Result<()> {
    let spare = spare(w, i, dim);
    let stride = DimExpr::from(w.strides[i] as i64);
    let rest = spare.modulo(&stride);
    if rest.as_const() == Some(0) {
        return Ok(());
    }
    let (Some(size), Some(spare), Some(rest)) = (dim.as_const(), spare.as_const(), rest.as_const())
    else {
        return Err(unsupported(
            error::DYNAMIC,
            format!("`ceil_mode` of an unknown dimension {dim}"),
        ));
    };
    let start = spare - rest + w.strides[i] as i64;
    if start >= size + w.pad_lo[i] as i64 {
        return Ok(());
    }
    if f == PoolFn::MeanPadded {
        return Err(unsupported(
            error::ATTRIBUTE,
            "`ceil_mode` with `count_include_pad` is not supported",
        ));
    }
    w.pad_hi[i] += w.strides[i] - rest as u64;
    Ok(())
}

/// `GlobalAveragePool` and `GlobalMaxPool`: a reduction over all spatial dimensions.
pub(super) fn global(s: &mut Scope, n: &Node) -> Result<Vec<Val>> {
    let f = match n.op {
        "GlobalMaxPool" => ReduceFn::Max,
        _ => ReduceFn::Mean,
    };
    let x = s.value(n.input(0)?)?;
    let axes = (2..s.b.ty(x).rank()).collect();
    over(s, f, x, axes, true).and_then(one)
}
