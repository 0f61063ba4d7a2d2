//! The only way to make ops.
//!
//! A [`Builder`] appends ops to a new function. It infers result shapes by the rules of
//! `infer.rs`, keeps value names unique and sets the source location of what it adds.
//!
//! ```
//! use qcc_ir::graph::{Builder, TensorType, verify};
//! use qcc_ir::{DType, DimExpr, expr::UnaryFn};
//! let mut b = Builder::new("main");
//! let x = b.param("x", TensorType::new(DType::F32, [DimExpr::sym("n"), DimExpr::from(8)]));
//! let y = b.unary(UnaryFn::Gelu, x)?;
//! let m = b.finish_module([("y", y)]);
//! assert!(verify(&m).is_empty());
//! # Ok::<(), qcc_ir::Diagnostic>(())
//! ```

use super::infer::{bad, infer_shapes};
use super::module::{Def, Func, Loc, Module, Op, OpId, Symbol, Value, ValueId, WeightId};
use super::op::OpKind;
use super::types::{Elem, TensorType};
use crate::diag::Result;
use crate::expr::{BinaryFn, UnaryFn};
use crate::{DType, DimExpr};
use std::collections::HashSet;

/// Builds one function, op by op.
#[derive(Debug, Default)]
pub struct Builder {
    func: Func,
    names: HashSet<String>,
    loc: Loc,
    next: u32,
}

impl Builder {
    /// An empty function.
    pub fn new(name: impl Into<String>) -> Self {
        Builder {
            func: Func {
                name: name.into(),
                ..Func::default()
            },
            ..Builder::default()
        }
    }

    /// The function so far.
    pub fn func(&self) -> &Func {
        &self.func
    }

    /// The type of a value.
    pub fn ty(&self, v: ValueId) -> &TensorType {
        self.func.ty(v)
    }

    /// Ops added from now on come from here.
    pub fn set_loc(&mut self, loc: Loc) {
        self.loc = loc;
    }

    fn unique(&mut self, wish: Option<&str>) -> String {
        if let Some(w) = wish.filter(|w| !w.is_empty())
            && self.names.insert(w.to_string())
        {
            return w.to_string();
        }
        loop {
            let name = match wish.filter(|w| !w.is_empty()) {
                Some(w) => format!("{w}.{}", self.next),
                None => self.next.to_string(),
            };
            self.next += 1;
            if self.names.insert(name.clone()) {
                return name;
            }
        }
    }

    fn add_value(&mut self, wish: Option<&str>, ty: TensorType, def: Def) -> ValueId {
        let name = self.unique(wish);
        self.func.values.push(Value { name, ty, def });
        ValueId(self.func.values.len() as u32 - 1)
    }

    /// Adds a parameter.
    pub fn param(&mut self, name: &str, ty: TensorType) -> ValueId {
        let at = self.func.params.len() as u32;
        let v = self.add_value(Some(name), ty, Def::Param(at));
        self.func.params.push(v);
        v
    }

    /// Adds an op with the given result types and, where wished, result names.
    ///
    /// Nothing is checked here; the verifier does.
    pub fn push(
        &mut self,
        kind: OpKind,
        operands: &[ValueId],
        types: Vec<TensorType>,
        names: &[&str],
    ) -> Vec<ValueId> {
        let id = OpId(self.func.ops.len() as u32);
        let results: Vec<ValueId> = types
            .into_iter()
            .enumerate()
            .map(|(i, t)| self.add_value(names.get(i).copied(), t, Def::Result(id, i as u32)))
            .collect();
        self.func.ops.push(Op {
            kind,
            operands: operands.to_vec(),
            results: results.clone(),
            loc: self.loc.clone(),
        });
        results
    }

    /// Adds an op with one result of the given type.
    pub fn op(&mut self, kind: OpKind, operands: &[ValueId], ty: TensorType) -> ValueId {
        self.push(kind, operands, vec![ty], &[])[0]
    }

    /// Adds an op whose result shapes follow from its operands; every result has `elem`.
    ///
    /// # Errors
    /// When the operands break the op's shape rule, or the shape does not follow from them.
    pub fn infer(
        &mut self,
        kind: OpKind,
        operands: &[ValueId],
        elem: Elem,
    ) -> Result<Vec<ValueId>> {
        let types: Vec<&TensorType> = operands.iter().map(|v| self.func.ty(*v)).collect();
        let shapes = infer_shapes(&kind, &types).map_err(|d| d.or_at(self.loc.to_string()))?;
        let types: Option<Vec<TensorType>> = shapes
            .into_iter()
            .map(|s| {
                s.map(|shape| TensorType {
                    elem: elem.clone(),
                    shape,
                })
            })
            .collect();
        let types = types.ok_or_else(|| bad(format!("`{}` needs its result type", kind.name())))?;
        Ok(self.push(kind, operands, types, &[]))
    }

    /// As [`Builder::infer`] for one result with the element type of the first operand.
    ///
    /// # Errors
    /// As [`Builder::infer`].
    pub fn same(&mut self, kind: OpKind, operands: &[ValueId]) -> Result<ValueId> {
        let elem = match operands.first() {
            Some(v) => self.ty(*v).elem.clone(),
            None => {
                return Err(bad(format!(
                    "`{}` without operands needs a type",
                    kind.name()
                )));
            }
        };
        Ok(self.infer(kind, operands, elem)?[0])
    }

    /// `f(x)`
    ///
    /// # Errors
    /// As [`Builder::infer`].
    pub fn unary(&mut self, f: UnaryFn, x: ValueId) -> Result<ValueId> {
        self.same(OpKind::Unary(f), &[x])
    }

    /// `f(a, b)`; a comparison gives bool.
    ///
    /// # Errors
    /// As [`Builder::infer`].
    pub fn binary(&mut self, f: BinaryFn, a: ValueId, b: ValueId) -> Result<ValueId> {
        let elem = if f.is_compare() {
            Elem::Plain(DType::Bool)
        } else {
            self.ty(a).elem.clone()
        };
        Ok(self.infer(OpKind::Binary(f), &[a, b], elem)?[0])
    }

    /// A scalar constant.
    pub fn scalar(&mut self, dtype: DType, value: f64) -> ValueId {
        let value = value.to_bits();
        self.op(OpKind::Splat { value }, &[], TensorType::new(dtype, []))
    }

    /// A plain constant with the weight's own type.
    pub fn constant(&mut self, weight: WeightId, module: &Module) -> ValueId {
        let w = module.weight(weight);
        let ty = TensorType::fixed(w.dtype, &w.dims);
        let kind = OpKind::Const {
            weight,
            scale: None,
            zero: None,
            global: None,
        };
        let name = w.name.clone();
        self.push(kind, &[], vec![ty], &[&name])[0]
    }

    /// The same elements in another shape.
    pub fn reshape(&mut self, x: ValueId, shape: Vec<DimExpr>) -> ValueId {
        if self.ty(x).shape == shape {
            return x;
        }
        let ty = TensorType {
            elem: self.ty(x).elem.clone(),
            shape,
        };
        self.op(OpKind::Reshape, &[x], ty)
    }

    /// Dimensions in another order; no op for the identity.
    ///
    /// # Errors
    /// When `perm` is no permutation.
    pub fn transpose(&mut self, x: ValueId, perm: Vec<usize>) -> Result<ValueId> {
        if perm.iter().enumerate().all(|(i, p)| i == *p) && perm.len() == self.ty(x).rank() {
            return Ok(x);
        }
        self.same(OpKind::Transpose { perm }, &[x])
    }

    /// Converts to a plain format; no op if it has it already.
    pub fn cast(&mut self, x: ValueId, dtype: DType) -> ValueId {
        if self.ty(x).elem == Elem::Plain(dtype) {
            return x;
        }
        let ty = self.ty(x).with_dtype(dtype);
        self.op(OpKind::Cast, &[x], ty)
    }

    /// Copies an op of another function with its operands replaced; keeps names and location.
    pub fn copy_op(&mut self, from: &Func, op: &Op, operands: &[ValueId]) -> Vec<ValueId> {
        let types = op.results.iter().map(|r| from.ty(*r).clone()).collect();
        let names: Vec<&str> = op
            .results
            .iter()
            .map(|r| from.value(*r).name.as_str())
            .collect();
        let loc = std::mem::replace(&mut self.loc, op.loc.clone());
        let results = self.push(op.kind.clone(), operands, types, &names);
        self.loc = loc;
        results
    }

    /// Ends the function with these named results.
    pub fn finish<'a>(mut self, results: impl IntoIterator<Item = (&'a str, ValueId)>) -> Func {
        self.func.results = results
            .into_iter()
            .map(|(n, v)| (n.to_string(), v))
            .collect();
        self.func
    }

    /// Ends the function and puts it in a module without weights, with every symbol of its
    /// shapes declared as 1 to 65536.
    pub fn finish_module<'a>(
        self,
        results: impl IntoIterator<Item = (&'a str, ValueId)>,
    ) -> Module {
        let mut m = Module {
            funcs: vec![self.finish(results)],
            ..Module::default()
        };
        let mut names = Vec::new();
        for d in m.funcs[0].values.iter().flat_map(|v| &v.ty.shape) {
            d.visit_syms(&mut |s| names.push(s.to_string()));
        }
        for name in names {
            m.add_symbol(Symbol {
                name,
                min: 1,
                max: 65536,
                points: Vec::new(),
            });
        }
        m
    }
}
