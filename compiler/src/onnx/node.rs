//! A node as the operator functions see it.

use std::cell::RefCell;
use std::collections::BTreeSet;

use qcc_ir::DType;
use qcc_ir::diag::{Diagnostic, Result};
use qcc_ir::graph::ValueId;

use super::attrs::Attrs;
use super::error::{self, input, unsupported};
use super::sym::SymTensor;
use super::tensor::Tensor;

/// An ONNX value while it is imported.
#[derive(Clone, Debug)]
pub(super) enum Val {
    /// A constant that no op has needed yet.
    Const(Tensor),
    /// Small integers, known up to the symbols.
    Sym(SymTensor),
    /// A value of the graph IR.
    Value(ValueId),
}

/// One node with its operands.
pub(super) struct Node<'a> {
    pub(super) op: &'a str,
    pub(super) attrs: Attrs<'a>,
    /// Operands by position; `None` for an optional one that is left out.
    pub(super) inputs: Vec<Option<Val>>,
    /// Whether each result has a name, by position.
    pub(super) outputs: Vec<bool>,
    /// Operands that were asked for: as with attributes, all must be.
    asked: RefCell<BTreeSet<usize>>,
}

impl<'a> Node<'a> {
    pub(super) fn new(
        op: &'a str,
        attrs: Attrs<'a>,
        inputs: Vec<Option<Val>>,
        outputs: Vec<bool>,
    ) -> Self {
        Node {
            op,
            attrs,
            inputs,
            outputs,
            asked: RefCell::default(),
        }
    }

    /// Refuses attributes and operands that nobody asked for.
    pub(super) fn finish(&self) -> Result<()> {
        self.attrs.finish()?;
        let asked = self.asked.borrow();
        let ignored = |at: &usize| self.inputs[*at].is_some() && !asked.contains(at);
        match (0..self.inputs.len()).find(ignored) {
            Some(at) => Err(unsupported(
                error::ATTRIBUTE,
                format!("operand {at} of {} is not supported", self.op),
            )),
            None => Ok(()),
        }
    }

    /// The operand at this position.
    pub(super) fn input(&self, at: usize) -> Result<&Val> {
        self.optional(at).ok_or_else(|| {
            input(
                error::GRAPH,
                format!(
                    "{} needs an operand at position {at}, it has {}",
                    self.op,
                    self.inputs.len()
                ),
            )
        })
    }

    /// The operand at this position, if it is given.
    pub(super) fn optional(&self, at: usize) -> Option<&Val> {
        self.asked.borrow_mut().insert(at);
        self.inputs.get(at).and_then(Option::as_ref)
    }

    /// All operands of an operator that takes any number of them.
    pub(super) fn all_inputs(&self) -> Result<Vec<&Val>> {
        (0..self.inputs.len().max(1))
            .map(|i| self.input(i))
            .collect()
    }

    /// Refuses optional results beyond the first `count` that the model uses.
    pub(super) fn only_outputs(&self, count: usize) -> Result<()> {
        match self.outputs.iter().skip(count).position(|named| *named) {
            Some(at) => Err(unsupported(
                error::ATTRIBUTE,
                format!("result {} of {} is not supported", at + count, self.op),
            )),
            None => Ok(()),
        }
    }
}

/// An axis in `-rank..rank` as a position; the one place where axes are checked.
pub(super) fn axis(axis: i64, rank: usize) -> Result<usize> {
    let signed = i64::try_from(rank).unwrap_or(i64::MAX);
    let at = if axis < 0 {
        axis.saturating_add(signed)
    } else {
        axis
    };
    usize::try_from(at)
        .ok()
        .filter(|&at| at < rank)
        .ok_or_else(|| {
            operand(format!(
                "axis {axis} does not exist in a tensor of {rank} dimensions"
            ))
        })
}

/// Several axes, each at most once, in increasing order.
pub(super) fn axes(given: &[i64], rank: usize) -> Result<Vec<usize>> {
    let mut axes = given
        .iter()
        .map(|&a| axis(a, rank))
        .collect::<Result<Vec<usize>>>()?;
    axes.sort_unstable();
    if axes.windows(2).any(|w| w[0] == w[1]) {
        return Err(operand(format!("axes {given:?} name a dimension twice")));
    }
    Ok(axes)
}

/// An error about the operands of a node.
pub(super) fn operand(message: impl Into<String>) -> Diagnostic {
    input(error::OPERAND, message)
}

/// An error about a shape that is known only at run time.
pub(super) fn dynamic(message: impl Into<String>) -> Diagnostic {
    unsupported(error::DYNAMIC, message)
        .hint("export the model so that shapes follow from the shapes of its inputs")
}

/// The format in which qcc computes with an ONNX element type.
pub(super) fn dtype_of(tensor: &Tensor) -> Result<DType> {
    supported(tensor.elem())
}

/// The format of qcc for an element type, or why there is none.
pub(super) fn supported(elem: super::elem::ElemType) -> Result<DType> {
    elem.dtype().ok_or_else(|| {
        unsupported(
            error::ELEM_TYPE,
            format!("element type {} is not supported", elem.name()),
        )
        .hint("export the model in float32, float16 or bfloat16")
    })
}
