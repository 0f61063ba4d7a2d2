//! Kernel builders, one per skeleton, in kernel IR.
//!
//! [`build`] is the registry: it names the builder of each op. An op that a builder cannot serve
//! is refused with the reason, which the ledger keeps.

pub mod attention;
pub mod gemm;
pub mod hard;
pub mod layout;
pub mod map;
pub mod matmul;
pub mod reduce;
pub mod rotary;
pub mod rows;
pub mod sparse;
pub mod window;

use crate::lower::frame::{Launched, internal};
use crate::target::Target;
use qcc_ir::DimExpr;
use qcc_ir::diag::{Class, Diagnostic, Result};
use qcc_ir::expr::{Expr, Node};
use qcc_ir::graph::{Func, Module, Op, OpKind, QuantType, ScaleType, TensorType};
use qcc_ir::plan::{Guard, VendorGemm};

/// What serves an op at run time.
#[derive(Debug)]
pub enum Served {
    /// Nothing runs: a constant, or another view of its operand.
    Nothing,
    /// Kernels, in order.
    Kernels(Vec<Launched>),
    /// Ways to run it, by size; the first that applies is taken, and one always does.
    Choices(Vec<Candidate>),
}

/// What serves an op for some sizes.
#[derive(Debug, Default)]
pub struct Candidate {
    /// What it needs of a device beyond the target's portable instructions: an architecture, or the
    /// vendor's library.
    pub requires: Option<&'static str>,
    /// Conditions on the sizes; all must hold.
    pub when: Vec<Guard>,
    /// A product of the vendor's library, before the kernels.
    pub vendor: Option<VendorGemm>,
    /// Memory that lasts from the first action to the last: a name and its bytes.
    pub scratch: Option<(String, DimExpr)>,
    /// Kernels, in order.
    pub launches: Vec<Launched>,
}

/// Whether a kernel of the target serves an op on values of these types.
///
/// [`build`] asks this first, and the cost model too, so they refuse alike.
///
/// # Errors
/// The constraint that fails.
pub fn supports(
    kind: &OpKind,
    operands: &[&TensorType],
    results: &[&TensorType],
    target: &Target,
) -> Result<()> {
    let all = |check: fn(&TensorType) -> Result<()>| results.iter().try_for_each(|t| check(t));
    match kind {
        OpKind::Quantize | OpKind::LayerNorm { .. } | OpKind::RmsNorm { .. } => {
            all(rows::row_scheme)
        }
        OpKind::Attention { attrs, .. } => {
            attention::Shape::of(operands[0], operands[2], attrs, target)?;
            all(check_store)
        }
        OpKind::Rotary(a) => rotary::head(operands, a).map(|_| ()),
        OpKind::MatMul if !results[0].elem.storage().is_float() => {
            Err(unsupported("matrix products are for floats"))
        }
        OpKind::Pool { .. } if !operands[0].elem.storage().is_float() => {
            Err(unsupported("pooling is for floats"))
        }
        OpKind::Const { .. } | OpKind::Splat { .. } | OpKind::Reshape => Ok(()),
        _ => all(check_store),
    }
}

/// The kernels that compute `op` on a target.
///
/// # Errors
/// When no kernel serves it; the message is the constraint that failed.
pub fn build(m: &Module, f: &Func, op: &Op, target: &Target) -> Result<Served> {
    let operands: Vec<&TensorType> = op.operands.iter().map(|v| f.ty(*v)).collect();
    let results: Vec<&TensorType> = op.results.iter().map(|v| f.ty(*v)).collect();
    supports(&op.kind, &operands, &results, target)?;
    let one = |l: Result<Launched>| l.map(|l| Served::Kernels(vec![l]));
    match &op.kind {
        OpKind::Const { .. } | OpKind::Splat { .. } | OpKind::Reshape => Ok(Served::Nothing),
        OpKind::Map(e) => one(map::build(m, f, op, e)),
        OpKind::Unary(_)
        | OpKind::Binary(_)
        | OpKind::Select
        | OpKind::Cast
        | OpKind::Dequantize
        | OpKind::Expand => one(map::build(m, f, op, &elementwise(&op.kind)?)),
        OpKind::Quantize if f.ty(op.results[0]).elem.quant().is_some_and(|q| !q.dynamic) => {
            one(map::build(m, f, op, &static_quantize(op)))
        }
        OpKind::Quantize | OpKind::LayerNorm { .. } | OpKind::RmsNorm { .. } => {
            one(rows::build(m, f, op))
        }
        OpKind::Softmax { axis } if axis + 1 == f.ty(op.results[0]).rank() => {
            one(rows::build(m, f, op))
        }
        OpKind::Softmax { .. } | OpKind::CumSum { .. } => one(reduce::build_lanes(m, f, op)),
        OpKind::Reduce { .. } => one(reduce::build(m, f, op)),
        OpKind::Iota { .. }
        | OpKind::Dim { .. }
        | OpKind::Transpose { .. }
        | OpKind::Slice { .. }
        | OpKind::Concat { .. }
        | OpKind::Pad { .. }
        | OpKind::Gather { .. } => one(layout::build(m, f, op)),
        OpKind::Rotary(a) => one(rotary::build(m, f, op, a)),
        OpKind::Linear { .. } => match gemm::meeting(f.ty(op.operands[0]), f.ty(op.operands[1])) {
            Some(how) => gemm::build(m, f, op, &how, target).map(Served::Choices),
            None => one(matmul::build(m, f, op)),
        },
        OpKind::MatMul => one(matmul::build(m, f, op)),
        OpKind::SparseLinear => one(sparse::build(m, f, op)),
        OpKind::Attention { attrs, .. } => one(attention::build(m, f, op, attrs, target)),
        OpKind::Conv { .. } => one(window::build_conv(m, f, op)),
        OpKind::Pool { .. } => one(window::build_pool(m, f, op)),
    }
}

/// The expression of an elementwise op.
fn elementwise(kind: &OpKind) -> Result<Expr> {
    let mut e = Expr::default();
    let a = e.push(Node::Input(0));
    let v = match kind {
        OpKind::Unary(f) => e.push(Node::Unary(*f, a)),
        OpKind::Binary(f) => {
            let b = e.push(Node::Input(1));
            e.push(Node::Binary(*f, a, b))
        }
        OpKind::Select => {
            let (x, y) = (e.push(Node::Input(1)), e.push(Node::Input(2)));
            e.push(Node::Select(a, x, y))
        }
        OpKind::Cast | OpKind::Dequantize | OpKind::Expand => a,
        other => return Err(internal(format!("`{}` is not elementwise", other.name()))),
    };
    e.store(v);
    Ok(e)
}

fn static_quantize(op: &Op) -> Expr {
    let mut e = Expr::default();
    let value = e.push(Node::Input(0));
    e.stores.push(qcc_ir::expr::Store {
        value,
        scale: (op.operands.len() > 1).then_some(1),
        zero: (op.operands.len() > 2).then_some(2),
    });
    e
}

/// Whether the scales of a quantized result are plain floats.
pub(super) fn plain_scales(q: &QuantType) -> Result<()> {
    match q.scale {
        ScaleType::Plain(_) => Ok(()),
        _ => Err(unsupported(format!(
            "no kernel computes scales of {}",
            q.scale
        ))),
    }
}

/// A constraint that an op breaks.
pub fn unsupported(message: impl Into<String>) -> Diagnostic {
    Diagnostic::error(610, Class::Unsupported, message)
}

/// Refuses results that a kernel without whole rows cannot store.
pub fn check_store(t: &TensorType) -> Result<()> {
    match t.elem.quant() {
        Some(q) if q.dynamic => Err(unsupported(format!(
            "{t} has scales of the data: only a kernel that holds whole rows computes them"
        ))),
        Some(q) if q.storage.bits() < 8 => Err(unsupported(format!(
            "{t} packs codes in a byte, which several threads would write"
        ))),
        Some(q) => plain_scales(q),
        None => Ok(()),
    }
}
