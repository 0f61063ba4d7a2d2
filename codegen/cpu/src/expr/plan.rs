//! Plans: what is decided about an expression before any size is known.

use super::frame::Layout;
use crate::clif::{Code, Jit};
use crate::kernels::rows::{Input, Output, Reduction, Rows};
use crate::value::View;
use qcc_ir::DType;
use qcc_ir::DimExpr;
use qcc_ir::diag::Result;
use qcc_ir::expr::{BinaryFn, Compute, Expr, Node};
use qcc_ir::graph::{Elem, QuantType, ScaleType, TensorType};

/// From what a plan is made.
pub(crate) struct Spec<'a> {
    pub(crate) expr: &'a Expr,
    pub(crate) operands: &'a [&'a TensorType],
    /// One per store.
    pub(crate) results: &'a [&'a TensorType],
    /// The output against which operands broadcast.
    pub(crate) shape: &'a [DimExpr],
    /// Accumulators that the op gives.
    pub(crate) accs: usize,
    pub(crate) reduction: Reduction,
    /// Whether every call computes whole rows (the last dimension).
    pub(crate) rows: bool,
    /// Whether calls may give parts of the columns a width of their own ([`super::Columns`]).
    pub(crate) segmented: bool,
}

/// How a result is stored while the op runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// In its own format.
    Plain,
    /// As f32 numbers, quantized when all are there.
    Staged,
    /// As codes, by one scale that is known before.
    Static,
    /// As codes, by a scale per row that the kernel computes.
    Dynamic,
}

/// An expression, typed for its operands, with the way its results are stored and its code.
pub(crate) struct Plan {
    pub(super) expr: Expr,
    pub(super) types: Vec<Compute>,
    pub(super) layout: Layout,
    pub(super) modes: Vec<Mode>,
    /// Operands that steps read, in the order of the code's parameters and of `layout`.
    pub(super) inputs: Vec<u8>,
    pub(super) accs: usize,
    /// Whether every call computes whole rows.
    pub(super) rows: bool,
    pub(super) reduction: Reduction,
    /// `None`: the expression is interpreted.
    pub(super) code: Option<Code>,
}

/// Whether the expression has only steps that are compiled.
///
/// Integers are left to the interpreter, because a division by zero is an error and not a
/// number; so are powers and remainders, which kernels compute less exactly.
fn compiles(spec: &Spec<'_>, types: &[Compute]) -> bool {
    let floats = types.iter().all(|t| *t != Compute::I64);
    let hard = |n: &Node| matches!(n, Node::Binary(BinaryFn::Pow | BinaryFn::Mod, ..));
    let read = |n: &Node| match n {
        Node::Input(k) => spec
            .operands
            .get(usize::from(*k))
            .is_some_and(|t| t.elem.read_as() != DType::F64),
        Node::Cast(d, _) => *d != DType::F64,
        _ => true,
    };
    let stored = |t: &&TensorType| t.elem.plain() != Some(DType::F64);
    floats
        && !spec.expr.nodes.iter().any(hard)
        && spec.expr.nodes.iter().all(read)
        && spec.results.iter().all(stored)
}

/// How a quantized result is stored by compiled code.
fn mode(q: &QuantType, rows: bool) -> Mode {
    use DType::{E4M3, E5M2, I8, U8};
    let bytes = matches!(q.storage, I8 | U8 | E4M3 | E5M2);
    let plain = matches!(q.scale, ScaleType::Plain(_));
    let f32_scale = q.scale == ScaleType::Plain(DType::F32);
    match q.dynamic {
        false if bytes && plain && q.block.is_tensor() => Mode::Static,
        // A single dimension is a tensor, whose scale is a scalar.
        true if bytes
            && f32_scale
            && rows
            && q.block.is_row()
            && !q.block.is_tensor()
            && q.zero.is_none() =>
        {
            Mode::Dynamic
        }
        _ => Mode::Staged,
    }
}

impl Plan {
    /// Types the expression and compiles it where it can be.
    ///
    /// # Errors
    /// When the expression is not typed for its operands, or code generation fails.
    pub(crate) fn new(spec: &Spec<'_>, jit: &mut Jit) -> Result<Self> {
        let read = |k: u8| spec.operands.get(usize::from(k)).map(|t| t.elem.read_as());
        let types = spec
            .expr
            .types(&read)
            .map_err(|at| crate::internal(format!("expression step t{} is not typed", at.0)))?;
        let mut inputs: Vec<u8> = Vec::new();
        for n in &spec.expr.nodes {
            if let Node::Input(k) = n
                && !inputs.contains(k)
            {
                inputs.push(*k);
            }
        }
        let shapes: Vec<&[DimExpr]> = inputs
            .iter()
            .map(|k| spec.operands[usize::from(*k)].shape.as_slice())
            .collect();
        let native = compiles(spec, &types);
        let of = |t: &&TensorType| match &t.elem {
            Elem::Plain(_) => Mode::Plain,
            Elem::Quant(q) if native => mode(q, spec.rows),
            Elem::Quant(_) => Mode::Staged,
        };
        let mut plan = Plan {
            expr: spec.expr.clone(),
            types,
            layout: Layout::new(spec.shape, &shapes, spec.rows || spec.segmented),
            modes: spec.results.iter().map(of).collect(),
            inputs,
            accs: spec.accs,
            rows: spec.rows,
            reduction: spec.reduction,
            code: None,
        };
        if native {
            plan.code = Some(plan.compile(spec, jit)?);
        } else if spec.reduction != Reduction::None {
            return Err(crate::internal(
                "a reduction with steps that are not compiled",
            ));
        }
        Ok(plan)
    }

    /// Whether the expression with its reduction can be one kernel.
    pub(crate) fn is_native(spec: &Spec<'_>) -> bool {
        let read = |k: u8| spec.operands.get(usize::from(k)).map(|t| t.elem.read_as());
        spec.expr
            .types(&read)
            .is_ok_and(|types| compiles(spec, &types))
    }

    fn compile(&self, spec: &Spec<'_>, jit: &mut Jit) -> Result<Code> {
        let inputs = self.inputs.iter().enumerate().map(|(i, k)| Input {
            at: *k,
            dtype: spec.operands[usize::from(*k)].elem.read_as(),
            columns: self.layout.columns(i),
        });
        let output = |(m, t): (&Mode, &&TensorType)| match (m, &t.elem) {
            (Mode::Plain, Elem::Plain(d)) => Output::Plain(*d),
            (Mode::Static, Elem::Quant(q)) => Output::Static(q.clone()),
            (Mode::Dynamic, Elem::Quant(q)) => Output::Dynamic(q.clone()),
            _ => Output::Plain(DType::F32),
        };
        let rows = Rows {
            expr: &self.expr,
            reduction: self.reduction,
            accs: self.accs,
            inputs: inputs.collect(),
            outputs: self.modes.iter().zip(spec.results).map(output).collect(),
        };
        let kernel = rows
            .build()
            .map_err(|p| crate::internal(format!("row kernel: {p}")))?;
        jit.compile(&kernel)
    }

    /// The position of operand `k` among the inputs, if a step reads it.
    pub(super) fn source(&self, k: usize) -> Option<usize> {
        self.inputs.iter().position(|i| usize::from(*i) == k)
    }

    /// Whether operand `k` is read by a step (not only as the scale of a store).
    pub(crate) fn reads(&self, k: usize) -> bool {
        self.source(k).is_some()
    }

    /// Whether the only thing to do is to round accumulator 0 to a plain format.
    pub(crate) fn copies(&self) -> bool {
        self.expr.is_identity() && self.modes == [Mode::Plain]
    }

    /// Whether result `i` leaves the kernel as codes.
    pub(crate) fn stores_codes(&self, i: usize) -> bool {
        matches!(self.modes.get(i), Some(Mode::Static | Mode::Dynamic))
    }

    /// The scale and zero point operands of store `i`.
    pub(super) fn params<'v>(
        &self,
        i: usize,
        args: &[Option<View<'v>>],
    ) -> (Option<View<'v>>, Option<View<'v>>) {
        let at = |k: Option<u8>| k.and_then(|k| args.get(usize::from(k)).copied().flatten());
        match self.expr.stores.get(i) {
            Some(s) => (at(s.scale), at(s.zero)),
            None => (None, None),
        }
    }
}
