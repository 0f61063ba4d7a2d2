//! Rules around products: linear layers and convolutions in their full form.

use crate::rewrite::{Replacement, Rewriter};
use crate::weights::{Transform, inline_f32, read_f32};
use qcc_ir::expr::BinaryFn;
use qcc_ir::graph::{Op, OpKind, TensorType, ValueId};
use qcc_ir::{DType, DimExpr};

const PLAIN_LINEAR: OpKind = OpKind::Linear {
    segments: Vec::new(),
    accs: 1,
    expr: None,
};

/// A product with a constant matrix is a linear layer; its weight is stored `[n, k]`.
///
/// Leading dimensions of 1 of the constant are dropped if the other factor has as many.
pub(super) fn matmul_weight(rw: &mut Rewriter<'_>, op: &Op) -> Replacement {
    let OpKind::MatMul = op.kind else {
        return Ok(None);
    };
    let [x, w] = [op.operands[0], op.operands[1]];
    // `matmul x, (transpose W[n, k])` needs no new weight.
    if let Some(t) = rw.def(w)
        && matches!(&t.kind, OpKind::Transpose { perm } if perm == &[1, 0])
        && rw.weight_of(t.operands[0]).is_some()
    {
        let operands = [rw.get(x), rw.get(t.operands[0])];
        return Ok(Some(rw.put(op, PLAIN_LINEAR, &operands)));
    }
    let Some((_, weight)) = rw.weight_of(w) else {
        return Ok(None);
    };
    let ([ones @ .., k, n], rank) = (weight.dims.as_slice(), weight.dims.len()) else {
        return Ok(None);
    };
    if ones.iter().any(|d| *d != 1) || rw.src.ty(x).rank() < rank || weight.dtype.bits() < 8 {
        return Ok(None);
    }
    let w = if ones.is_empty() {
        rw.derived(w, Transform::Transpose { perm: vec![1, 0] })?
    } else {
        // The reshape is folded into the weight by `constant-layout`, and this rule then fits.
        let ty = TensorType::fixed(weight.dtype, &[*k, *n]);
        let w = rw.get(w);
        let w = rw.step(op, "matrix", OpKind::Reshape, &[w], ty);
        let x = rw.get(x);
        return Ok(Some(rw.put(op, OpKind::MatMul, &[x, w])));
    };
    let operands = [rw.get(x), w];
    Ok(Some(rw.put(op, PLAIN_LINEAR, &operands)))
}

/// Whether `ty` is one number for each index of dimension `axis` of a tensor of rank `rank`,
/// broadcast along all others.
fn per_channel(ty: &TensorType, n: &DimExpr, rank: usize, axis: usize) -> bool {
    let one = DimExpr::from(1);
    let r = ty.rank();
    r <= rank
        && r >= rank - axis
        && ty.shape.iter().enumerate().all(|(i, d)| {
            if i + rank - r == axis {
                d == n
            } else {
                *d == one
            }
        })
}

/// `linear x, w (, b0) + b` where `b` has one number per column and nothing else reads the
/// product. Two biases are added first.
pub(super) fn linear_bias(rw: &mut Rewriter<'_>, op: &Op) -> Replacement {
    let OpKind::Binary(BinaryFn::Add) = op.kind else {
        return Ok(None);
    };
    for [l, c] in [[0, 1], [1, 0]].map(|ij| ij.map(|i| op.operands[i])) {
        let Some(linear) = rw.def(l).filter(|d| d.kind == PLAIN_LINEAR) else {
            continue;
        };
        let (ty, out) = (rw.src.ty(c), rw.src.ty(op.results[0]));
        let Some(n) = out.shape.last() else { continue };
        let fits = rw.single_use(l)
            && rw.src.ty(l) == out
            && per_channel(ty, n, out.rank(), out.rank() - 1);
        if !fits {
            continue;
        }
        let row = TensorType {
            elem: ty.elem.clone(),
            shape: vec![n.clone()],
        };
        let mut operands = rw.operands(linear);
        let bias = rw.get(c);
        let bias = reshaped(rw, op, bias, row);
        match operands.get(2).copied() {
            None => operands.push(bias),
            Some(b0) if rw.b.ty(b0) == rw.b.ty(bias) => {
                let ty = rw.b.ty(b0).clone();
                let add = OpKind::Binary(BinaryFn::Add);
                operands[2] = rw.step(op, "bias", add, &[b0, bias], ty);
            }
            Some(_) => continue,
        }
        rw.join_loc(linear, op);
        return Ok(Some(rw.put(op, PLAIN_LINEAR, &operands)));
    }
    Ok(None)
}

/// A reshape, unless `x` has the type already.
fn reshaped(rw: &mut Rewriter<'_>, op: &Op, x: ValueId, ty: TensorType) -> ValueId {
    match *rw.b.ty(x) == ty {
        true => x,
        false => rw.step(op, "row", OpKind::Reshape, &[x], ty),
    }
}

/// A convolution that `v` is, if it ends in nothing but its bias and only `op` reads it.
fn plain_conv<'m>(rw: &Rewriter<'m>, v: ValueId) -> Option<&'m Op> {
    rw.def(v)
        .filter(|d| matches!(d.kind, OpKind::Conv { expr: None, .. }) && rw.single_use(v))
}

/// `conv + c` and `conv − c` with one number per channel. With a bias, the two are added first.
pub(super) fn conv_bias(rw: &mut Rewriter<'_>, op: &Op) -> Replacement {
    let OpKind::Binary(f @ (BinaryFn::Add | BinaryFn::Sub)) = op.kind else {
        return Ok(None);
    };
    let [y, c] = [op.operands[0], op.operands[1]];
    let Some(conv) = plain_conv(rw, y) else {
        return Ok(None);
    };
    let (out, ty) = (rw.src.ty(op.results[0]), rw.src.ty(c));
    if rw.src.ty(y) != out || !per_channel(ty, &out.shape[1], out.rank(), 1) {
        return Ok(None);
    }
    let row = TensorType {
        elem: ty.elem.clone(),
        shape: vec![out.shape[1].clone()],
    };
    let mut operands = rw.operands(conv);
    let c = rw.get(c);
    let c = reshaped(rw, op, c, row.clone());
    let bias = match (operands.get(2).copied(), f) {
        (None, BinaryFn::Add) => c,
        (None, _) => rw.step(
            op,
            "bias",
            OpKind::Unary(qcc_ir::expr::UnaryFn::Neg),
            &[c],
            row,
        ),
        (Some(b0), _) if *rw.b.ty(b0) == row => {
            rw.step(op, "bias", OpKind::Binary(f), &[b0, c], row)
        }
        (Some(_), _) => return Ok(None),
    };
    operands.truncate(2);
    operands.push(bias);
    rw.join_loc(conv, op);
    Ok(Some(rw.put(op, conv.kind.clone(), &operands)))
}

/// `conv · c` and `conv / c` with one constant number per channel: `(w · c) ⊛ x + b · c`. This
/// is what a batch normalization does to a convolution.
pub(super) fn conv_scale(rw: &mut Rewriter<'_>, op: &Op) -> Replacement {
    let OpKind::Binary(f @ (BinaryFn::Mul | BinaryFn::Div)) = op.kind else {
        return Ok(None);
    };
    let [y, c] = [op.operands[0], op.operands[1]];
    let Some(conv) = plain_conv(rw, y) else {
        return Ok(None);
    };
    let (out, ty) = (rw.src.ty(op.results[0]), rw.src.ty(c));
    let channels = out.shape[1].clone();
    let Some(n) = channels.as_const().and_then(|n| usize::try_from(n).ok()) else {
        return Ok(None);
    };
    let Some(dtype) = rw.weight_of(conv.operands[1]).map(|(_, w)| w.dtype) else {
        return Ok(None);
    };
    let factors = match (rw.uniform(c)?, rw.weight_of(c)) {
        (Some(v), _) => vec![v as f32; n],
        (None, Some((_, w))) if per_channel(ty, &channels, out.rank(), 1) => read_f32(w)?,
        _ => return Ok(None),
    };
    if rw.src.ty(y) != out || !factors.iter().all(|v| v.is_finite() && *v != 0.0) {
        return Ok(None);
    }
    let mut operands = rw.operands(conv);
    if let Some(b0) = operands.get(2).copied() {
        let ty = TensorType::new(DType::F32, [channels]);
        if *rw.b.ty(b0) != ty {
            return Ok(None);
        }
        let name = format!("{}.scale", rw.src.value(op.results[0]).name);
        let row = rw.constant(inline_f32(name, vec![n as u64], &factors));
        operands[2] = rw.step(op, "bias", OpKind::Binary(f), &[b0, row], ty);
    }
    let scaled = Transform::Scale {
        axis: 0,
        factors: factors.into(),
        divide: f == BinaryFn::Div,
        dtype,
    };
    operands[1] = rw.derived(conv.operands[1], scaled)?;
    rw.join_loc(conv, op);
    Ok(Some(rw.put(op, conv.kind.clone(), &operands)))
}

/// A linear layer works on rows, however they are arranged: a reshape in front of it that keeps
/// the rows whole is moved behind it, where it meets its inverse.
pub(super) fn reshape_below(rw: &mut Rewriter<'_>, op: &Op) -> Replacement {
    let OpKind::Linear {
        segments,
        expr: None,
        ..
    } = &op.kind
    else {
        return Ok(None);
    };
    let inner = rw.def(op.operands[0]);
    let Some(inner) = inner.filter(|d| d.kind == OpKind::Reshape && segments.is_empty()) else {
        return Ok(None);
    };
    let (x, out) = (inner.operands[0], rw.src.ty(op.results[0]));
    let from = rw.src.ty(x);
    let (Some((k, rows)), Some(n)) = (from.shape.split_last(), out.shape.last()) else {
        return Ok(None);
    };
    if rw.src.ty(op.operands[0]).shape.last() != Some(k) || rows.is_empty() {
        return Ok(None);
    }
    let mut ty = out.clone();
    ty.shape = rows.to_vec();
    ty.shape.push(n.clone());
    let mut operands = rw.operands(op);
    operands[0] = rw.get(x);
    let y = rw.step(op, "rows", op.kind.clone(), &operands, ty);
    rw.set_loc(inner.loc.clone());
    Ok(Some(rw.put(op, OpKind::Reshape, &[y])))
}
