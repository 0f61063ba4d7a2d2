//! Matrix products.

use qcc_ir::DimExpr;
use qcc_ir::diag::Result;
use qcc_ir::expr::BinaryFn;
use qcc_ir::graph::{OpKind, ValueId};

use super::super::node::{Node, Val, operand};
use super::super::scope::Scope;
use super::one;

/// `MatMul` as in NumPy: a vector is a row on the left and a column on the right.
pub(super) fn matmul(s: &mut Scope, n: &Node) -> Result<Vec<Val>> {
    let (mut a, mut b) = (s.value(n.input(0)?)?, s.value(n.input(1)?)?);
    let (left, right) = (s.b.ty(a).rank(), s.b.ty(b).rank());
    if left == 0 || right == 0 {
        return Err(operand("MatMul of a scalar"));
    }
    let unit = DimExpr::from(1);
    if left == 1 {
        let shape = vec![unit.clone(), s.b.ty(a).shape[0].clone()];
        a = s.b.reshape(a, shape);
    }
    if right == 1 {
        let shape = vec![s.b.ty(b).shape[0].clone(), unit];
        b = s.b.reshape(b, shape);
    }
    let v = product(s, a, b)?;
    let mut shape = s.b.ty(v).shape.clone();
    if right == 1 {
        shape.pop();
    }
    if left == 1 {
        shape.remove(shape.len() - usize::from(right != 1) - 1);
    }
    one(s.b.reshape(v, shape))
}

/// `a·b` of two tensors of matrices.
pub(super) fn product(s: &mut Scope, a: ValueId, b: ValueId) -> Result<ValueId> {
    let (x, y) = (s.b.ty(a).clone(), s.b.ty(b).clone());
    let ([ab @ .., _, k], [bb @ .., l, _]) = (x.shape.as_slice(), y.shape.as_slice()) else {
        return Err(operand(format!("a product of {x} and {y}")));
    };
    if x.elem != y.elem {
        return Err(operand(format!("a product of {x} and {y}")));
    }
    s.same_dim(k, l, "MatMul")?;
    s.broadcast(ab, bb)?;
    s.b.same(OpKind::MatMul, &[a, b])
}

/// `Gemm`: `α·A'·B' + β·C`
pub(super) fn gemm(s: &mut Scope, n: &Node) -> Result<Vec<Val>> {
    let (alpha, beta) = (
        n.attrs.float_or("alpha", 1.0)?,
        n.attrs.float_or("beta", 1.0)?,
    );
    let mut operands = [0, 1].map(|at| (at, ValueId(0)));
    for (at, v) in &mut operands {
        *v = s.value(n.input(*at)?)?;
        if s.b.ty(*v).rank() != 2 {
            return Err(operand(format!("Gemm needs matrices, not {}", s.b.ty(*v))));
        }
    }
    let [(_, mut a), (_, mut b)] = operands;
    let (turn_a, turn_b) = (
        n.attrs.flag("transA", false)?,
        n.attrs.flag("transB", false)?,
    );
    let bias = n.optional(2).map(|c| s.value(c)).transpose()?;
    if turn_b && !turn_a && alpha == 1.0 && beta == 1.0 && fits_linear(s, b, bias) {
        return linear(s, a, b, bias).and_then(one);
    }
    if turn_a {
        a = s.b.transpose(a, vec![1, 0])?;
    }
    if turn_b {
        b = s.b.transpose(b, vec![1, 0])?;
    }
    let mut v = product(s, a, b)?;
    if alpha != 1.0 {
        v = s.binary_scalar(BinaryFn::Mul, v, alpha.into())?;
    }
    if let Some(mut c) = bias {
        if beta != 1.0 {
            c = s.binary_scalar(BinaryFn::Mul, c, beta.into())?;
        }
        v = s.binary(BinaryFn::Add, v, c)?;
    }
    one(v)
}

/// Whether `x·wᵀ + bias` is a linear layer: constant weights, one number per column.
fn fits_linear(s: &Scope, w: ValueId, bias: Option<ValueId>) -> bool {
    let constant = |v: ValueId| {
        let def = s.b.func().def_op(v);
        def.is_some_and(|op| matches!(op.kind, OpKind::Const { .. }))
    };
    let columns = &s.b.ty(w).shape[..1];
    constant(w) && bias.is_none_or(|c| s.b.ty(c).shape == columns)
}

fn linear(s: &mut Scope, x: ValueId, w: ValueId, bias: Option<ValueId>) -> Result<ValueId> {
    let (tx, tw) = (s.b.ty(x).clone(), s.b.ty(w).clone());
    if tx.elem != tw.elem || bias.is_some_and(|c| s.b.ty(c).elem != tx.elem) {
        return Err(operand(format!("a product of {tx} and {tw}")));
    }
    s.same_dim(&tx.shape[1], &tw.shape[1], "Gemm")?;
    let kind = OpKind::Linear {
        segments: Vec::new(),
        accs: 1,
        expr: None,
    };
    let mut operands = vec![x, w];
    operands.extend(bias);
    s.b.same(kind, &operands)
}
