//! A part of a function as a module of its own.
//!
//! From values that are known and values that are wanted follow the ops between them. The part
//! takes the function's own parameters first (they bind the symbols of its shapes), then the
//! known values that it needs, then the weights that the caller wants to supply himself.
//!
//! Precondition: the known values are plain, and every wanted one follows from them, from the
//! parameters and from constants.

use qcc_ir::diag::{Class, Diagnostic, Result};
use qcc_ir::expr::BinaryFn;
use qcc_ir::graph::{Builder, Def, Func, Module, OpId, OpKind, ValueId, WeightId};
use qcc_ir::{DType, DimExpr};
use std::collections::{BTreeMap, BTreeSet};

/// What stands for the weight of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Swap {
    /// Another weight of the module.
    Weight(WeightId),
    /// A parameter of the part.
    Param,
}

/// A part under construction.
pub(super) struct Part {
    b: Builder,
    module: Module,
    map: BTreeMap<ValueId, ValueId>,
    /// The known values that it takes after the parameters of the function.
    pub(super) inputs: Vec<ValueId>,
    /// The layers whose weights it takes after those.
    pub(super) weights: Vec<OpId>,
}

/// Whether an op needs no operand: it is repeated in every part that reads it.
pub(super) fn is_source(f: &Func, v: ValueId) -> bool {
    matches!(f.value(v).def, Def::Result(op, _) if f.ops[op.index()].operands.is_empty())
}

impl Part {
    /// The ops between what is known and what is wanted in the entry function of `m`.
    ///
    /// # Errors
    /// `Q0914` when a wanted value does not follow.
    pub(super) fn new(
        m: &Module,
        known: &BTreeSet<ValueId>,
        wanted: &[ValueId],
        swaps: &BTreeMap<OpId, Swap>,
    ) -> Result<Part> {
        // INVARIANT: whoever cuts a module has found layers in its entry function.
        let f = &m.funcs[0];
        let (ops, inputs) = between(f, known, wanted, swaps);
        let mut part = Part {
            b: Builder::new("part"),
            module: Module {
                symbols: m.symbols.clone(),
                weights: m.weights.clone(),
                funcs: Vec::new(),
            },
            map: BTreeMap::new(),
            inputs,
            weights: Vec::new(),
        };
        let params: Vec<ValueId> = f.params.iter().chain(&part.inputs).copied().collect();
        for v in params {
            let p = part.b.param(&f.value(v).name, f.ty(v).clone());
            part.map.insert(v, p);
        }
        let mut supplied = BTreeMap::new();
        for op in ops.iter().filter(|o| swaps.get(o) == Some(&Swap::Param)) {
            let w = f.ops[op.index()].operands[1];
            let name = format!("{}.supplied", f.value(w).name);
            supplied.insert(*op, part.b.param(&name, f.ty(w).clone()));
            part.weights.push(*op);
        }
        for id in ops {
            part.copy(f, id, swaps.get(&id), supplied.get(&id))?;
        }
        Ok(part)
    }

    fn copy(
        &mut self,
        f: &Func,
        id: OpId,
        swap: Option<&Swap>,
        supplied: Option<&ValueId>,
    ) -> Result<()> {
        let op = &f.ops[id.index()];
        let mut operands = Vec::with_capacity(op.operands.len());
        for (i, v) in op.operands.iter().enumerate() {
            operands.push(match (i, swap, supplied) {
                (1, Some(Swap::Weight(w)), _) => self.b.constant(*w, &self.module),
                (1, _, Some(p)) => *p,
                _ => self.value(f, *v)?,
            });
        }
        let results = self.b.copy_op(f, op, &operands);
        for (old, new) in op.results.iter().zip(results) {
            self.map.insert(*old, new);
        }
        Ok(())
    }

    /// The part's value for one of the function.
    pub(super) fn value(&self, f: &Func, v: ValueId) -> Result<ValueId> {
        self.map.get(&v).copied().ok_or_else(|| {
            let message = format!("%{} does not follow from what is known", f.value(v).name);
            Diagnostic::error(914, Class::Internal, message)
        })
    }

    /// [`gram`] of a value of the function under a mask.
    ///
    /// # Errors
    /// When the value is not known, or its rows have no known length.
    pub(super) fn gram(&mut self, f: &Func, x: ValueId, mask: Option<ValueId>) -> Result<ValueId> {
        let v = self.value(f, x)?;
        let mask = mask.map(|m| self.value(f, m)).transpose()?;
        gram(&mut self.b, v, mask)
    }

    /// The module that gives these values of the part.
    pub(super) fn finish(mut self, results: &[ValueId]) -> Module {
        let mut named = Vec::new();
        for (i, v) in results.iter().enumerate() {
            // A parameter may be wanted as it is; a result of its own keeps names apart.
            let v = match self.b.func().value(*v).def {
                Def::Param(_) => {
                    let ty = self.b.ty(*v).clone();
                    self.b.op(OpKind::Reshape, &[*v], ty)
                }
                Def::Result(..) => *v,
            };
            named.push((format!("result.{i}"), v));
        }
        let func = self.b.finish(named.iter().map(|(n, v)| (n.as_str(), *v)));
        self.module.funcs.push(func);
        self.module
    }
}

/// `XᵀX` of the rows of a value, those left out that a mask over its positions excludes.
///
/// # Errors
/// When the value is a scalar.
pub(crate) fn gram(b: &mut Builder, x: ValueId, mask: Option<ValueId>) -> Result<ValueId> {
    let mut v = b.cast(x, DType::F32);
    let ty = b.ty(v).clone();
    let Some((channels, lead)) = ty.shape.split_last() else {
        let message = "a scalar has no rows";
        return Err(Diagnostic::error(914, Class::Internal, message));
    };
    let rows = DimExpr::product(lead);
    v = b.reshape(v, vec![rows.clone(), channels.clone()]);
    if let Some(m) = mask {
        let m = b.cast(m, DType::F32);
        let zero = b.scalar(DType::F32, 0.0);
        let counts = b.binary(BinaryFn::Ne, m, zero)?;
        let counts = b.cast(counts, DType::F32);
        let counts = b.reshape(counts, vec![rows, DimExpr::from(1)]);
        v = b.binary(BinaryFn::Mul, v, counts)?;
    }
    let t = b.transpose(v, vec![1, 0])?;
    b.same(OpKind::MatMul, &[t, v])
}

/// The ops that are needed, in order, and the known values that they read.
fn between(
    f: &Func,
    known: &BTreeSet<ValueId>,
    wanted: &[ValueId],
    swaps: &BTreeMap<OpId, Swap>,
) -> (BTreeSet<OpId>, Vec<ValueId>) {
    let (mut ops, mut inputs) = (BTreeSet::new(), BTreeSet::new());
    let mut stack: Vec<ValueId> = wanted.to_vec();
    while let Some(v) = stack.pop() {
        match f.value(v).def {
            Def::Param(_) => {}
            Def::Result(..) if known.contains(&v) => {
                inputs.insert(v);
            }
            Def::Result(op, _) => {
                if ops.insert(op) {
                    let swapped = swaps.contains_key(&op);
                    let read = f.ops[op.index()].operands.iter().enumerate();
                    stack.extend(read.filter(|(i, _)| !(swapped && *i == 1)).map(|(_, v)| *v));
                }
            }
        }
    }
    (ops, inputs.into_iter().collect())
}
