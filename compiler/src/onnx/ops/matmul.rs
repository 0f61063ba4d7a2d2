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
    if n.attrs.flag("transA", false)? {
        a = s.b.transpose(a, vec![1, 0])?;
    }
    if n.attrs.flag("transB", false)? {
        b = s.b.transpose(b, vec![1, 0])?;
    }
    let mut v = product(s, a, b)?;
    if alpha != 1.0 {
        v = s.binary_scalar(BinaryFn::Mul, v, alpha.into())?;
    }
    if let Some(c) = n.optional(2) {
        let mut c = s.value(c)?;
        if beta != 1.0 {
            c = s.binary_scalar(BinaryFn::Mul, c, beta.into())?;
        }
        v = s.binary(BinaryFn::Add, v, c)?;
    }
    one(v)
}
