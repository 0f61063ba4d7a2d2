//! The function under construction: values of the model as values of the graph IR.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use qcc_ir::diag::Result;
use qcc_ir::expr::BinaryFn;
use qcc_ir::format::{decode_slice, decode_slice_i64};
use qcc_ir::graph::{
    Builder, Elem, Loc, Module, OpKind, TensorType, ValueId, Weight, WeightData, WeightId,
};
use qcc_ir::{DType, DimExpr};

use super::dims::{Assumption, Dims, are_simple};
use super::external::ExternalFiles;
use super::node::{Val, dtype_of, dynamic, operand};
use super::sym::{MAX_ELEMS, SymTensor};
use super::tensor::Tensor;

/// Everything that operator functions read and write.
pub(super) struct Scope<'m> {
    pub(super) b: Builder,
    pub(super) module: Module,
    pub(super) dims: Dims,
    pub(super) files: &'m ExternalFiles,
    /// Set when the import must begin again with one more assumption.
    pub(super) assume: Option<Assumption>,
    loc: Loc,
    constants: BTreeMap<String, ValueId>,
    weights: BTreeSet<String>,
}

impl<'m> Scope<'m> {
    pub(super) fn new(dims: Dims, files: &'m ExternalFiles) -> Self {
        Scope {
            b: Builder::new("main"),
            module: Module::default(),
            dims,
            files,
            assume: None,
            loc: Loc::default(),
            constants: BTreeMap::new(),
            weights: BTreeSet::new(),
        }
    }

    /// Ops added from now on come from this node.
    pub(super) fn at(&mut self, node: &str) {
        self.loc = Loc::node(node);
        self.b.set_loc(self.loc.clone());
    }

    /// The element format.
    pub(super) fn dtype(&self, v: &Val) -> Result<DType> {
        match v {
            Val::Const(t) => dtype_of(t),
            Val::Sym(s) => Ok(s.dtype),
            Val::Value(v) => self.plain(*v),
        }
    }

    /// The element format of a value of the graph IR.
    pub(super) fn plain(&self, v: ValueId) -> Result<DType> {
        self.b.ty(v).plain("an operand")
    }

    /// The shape.
    pub(super) fn shape(&self, v: &Val) -> Vec<DimExpr> {
        match v {
            Val::Const(t) => t.dims().iter().map(|&d| DimExpr::from(d as i64)).collect(),
            Val::Sym(s) => s.dims.iter().map(|&d| DimExpr::from(d as i64)).collect(),
            Val::Value(v) => self.b.ty(*v).shape.clone(),
        }
    }

    /// Small integers that are known at import; `None` for anything else.
    pub(super) fn sym(&self, v: &Val) -> Option<SymTensor> {
        match v {
            Val::Sym(s) => Some(s.clone()),
            Val::Const(t) => integers(t),
            Val::Value(_) => None,
        }
    }

    /// As [`Scope::sym`] for an operand that must be known.
    pub(super) fn known(&self, v: &Val, what: &str) -> Result<SymTensor> {
        self.sym(v)
            .ok_or_else(|| dynamic(format!("{what} is computed from data at run time")))
    }

    /// Numbers that are known at import.
    pub(super) fn numbers(&self, v: &Val, what: &str) -> Result<Vec<i64>> {
        self.known(v, what)?
            .numbers()
            .ok_or_else(|| dynamic(format!("{what} depends on the shapes of the inputs")))
    }

    /// A single number of any type that is known at import.
    pub(super) fn number(&self, v: &Val) -> Option<f64> {
        match v {
            Val::Const(t) => scalar(t),
            Val::Sym(s) => s.single()?.as_const().map(|n| n as f64),
            Val::Value(v) => match self.b.func().def_op(*v)?.kind {
                OpKind::Splat { value } => Some(f64::from_bits(value)),
                _ => None,
            },
        }
    }

    /// The value in the graph IR; constants and sizes are added where they are first needed.
    pub(super) fn value(&mut self, v: &Val) -> Result<ValueId> {
        match v {
            Val::Value(v) => Ok(*v),
            Val::Const(t) => self.constant(t),
            Val::Sym(s) => Ok(self.sizes(s)),
        }
    }

    fn constant(&mut self, t: &Tensor) -> Result<ValueId> {
        let known = self.constants.get(t.name()).copied();
        if let Some(v) = known.filter(|_| !t.name().is_empty()) {
            return Ok(v);
        }
        let dtype = dtype_of(t)?;
        self.b.set_loc(Loc::default());
        let v = match scalar(t) {
            Some(value) => {
                let dims: Vec<DimExpr> =
                    t.dims().iter().map(|&d| DimExpr::from(d as i64)).collect();
                self.splat(dtype, dims, value)
            }
            None => {
                let id = self.add_weight(Weight {
                    name: match t.name() {
                        "" => "constant".to_string(),
                        name => name.to_string(),
                    },
                    dtype,
                    dims: t.dims().to_vec(),
                    data: WeightData::Bytes(Arc::new(t.clone())),
                });
                self.b.constant(id, &self.module)
            }
        };
        self.b.set_loc(self.loc.clone());
        self.constants.insert(t.name().to_string(), v);
        Ok(v)
    }

    /// Adds a weight; a name that is taken gets a number appended.
    fn add_weight(&mut self, mut w: Weight) -> WeightId {
        let wish = w.name.clone();
        let mut at = 0u64;
        while !self.weights.insert(w.name.clone()) {
            at += 1;
            w.name = format!("{wish}.{at}");
        }
        self.module.weights.push(w);
        WeightId(self.module.weights.len() as u32 - 1)
    }

    /// Whether shapes and sizes are simple enough to go on with.
    pub(super) fn is_simple(&self, v: &Val) -> bool {
        match v {
            Val::Const(_) => true,
            Val::Sym(s) => s.elems.iter().all(|e| are_simple(std::slice::from_ref(e))),
            Val::Value(v) => are_simple(&self.b.ty(*v).shape),
        }
    }

    /// Integers as a constant, or as sizes put together.
    fn sizes(&mut self, s: &SymTensor) -> ValueId {
        let dims: Vec<DimExpr> = s.dims.iter().map(|&d| DimExpr::from(d as i64)).collect();
        if let Some(numbers) = s.numbers() {
            if let [first, rest @ ..] = numbers.as_slice()
                && rest.iter().all(|n| n == first)
                && exact(*first)
            {
                return self.splat(s.dtype, dims, *first as f64);
            }
            if numbers.iter().all(|&n| exact(n)) {
                let data = numbers.iter().map(|&n| (n as f64).to_bits()).collect();
                let id = self.add_weight(Weight {
                    name: format!("sizes.{}", self.module.weights.len()),
                    dtype: s.dtype,
                    dims: s.dims.iter().map(|&d| d as u64).collect(),
                    data: WeightData::List(data),
                });
                return self.b.constant(id, &self.module);
            }
        }
        if let (Some(value), []) = (s.single(), dims.as_slice()) {
            let size = self.size(value.clone());
            return self.b.cast(size, s.dtype);
        }
        let one = [DimExpr::from(1)];
        let parts: Vec<ValueId> = s
            .elems
            .iter()
            .map(|e| {
                let v = self.size(e.clone());
                self.b.reshape(v, one.to_vec())
            })
            .collect();
        let count = DimExpr::from(parts.len() as i64);
        let all = match parts.as_slice() {
            [only] => *only,
            _ => self.b.op(
                OpKind::Concat { axis: 0 },
                &parts,
                TensorType::new(DType::I64, [count]),
            ),
        };
        let shaped = self.b.reshape(all, dims);
        self.b.cast(shaped, s.dtype)
    }

    /// A size as an i64 scalar.
    fn size(&mut self, value: DimExpr) -> ValueId {
        let ty = TensorType::new(DType::I64, []);
        self.b.op(OpKind::Dim { value }, &[], ty)
    }

    /// Every element is this number.
    pub(super) fn splat(&mut self, dtype: DType, dims: Vec<DimExpr>, value: f64) -> ValueId {
        let value = value.to_bits();
        self.b
            .op(OpKind::Splat { value }, &[], TensorType::new(dtype, dims))
    }

    /// A scalar of the format of `like`.
    pub(super) fn scalar_like(&mut self, like: ValueId, value: f64) -> Result<ValueId> {
        let dtype = self.plain(like)?;
        Ok(self.b.scalar(dtype, value))
    }

    /// Requires two dimensions to be equal, narrowing the symbols if they can be.
    ///
    /// # Errors
    /// When they differ, or when the import must begin again (then `assume` is set).
    pub(super) fn same_dim(&mut self, a: &DimExpr, b: &DimExpr, what: &str) -> Result<()> {
        if a == b {
            return Ok(());
        }
        self.assume = self.dims.make_equal(a, b);
        Err(operand(format!("{what}: dimensions {a} and {b} differ")))
    }

    /// Requires a symbol to be at most a number, narrowing its range if it may be more.
    ///
    /// # Errors
    /// When the import must begin again (then `assume` is set).
    pub(super) fn bounded(&mut self, a: &DimExpr, limit: &DimExpr, what: &str) -> Result<()> {
        if self.dims.at_most(a, limit) == Some(true) {
            return Ok(());
        }
        if let (Some(symbol), Some(limit)) = (a.as_sym(), limit.as_const())
            && limit >= 1
        {
            self.assume = Some(Assumption::AtMost(symbol.to_string(), limit));
            return Err(operand(format!("{what}: {a} must be at most {limit}")));
        }
        Ok(())
    }

    /// The common shape of NumPy broadcasting, narrowing symbols where they must be equal.
    pub(super) fn broadcast(&mut self, a: &[DimExpr], b: &[DimExpr]) -> Result<Vec<DimExpr>> {
        let rank = a.len().max(b.len());
        let one = DimExpr::from(1);
        let at = |dims: &[DimExpr], i: usize| match (i + dims.len()).checked_sub(rank) {
            Some(j) => dims[j].clone(),
            None => one.clone(),
        };
        (0..rank)
            .map(|i| {
                let (x, y) = (at(a, i), at(b, i));
                if x == one {
                    return Ok(y);
                }
                if y != one {
                    self.same_dim(&x, &y, "broadcast")?;
                }
                Ok(x)
            })
            .collect()
    }

    /// `f(a, b)` with NumPy broadcasting.
    pub(super) fn binary(&mut self, f: BinaryFn, a: ValueId, b: ValueId) -> Result<ValueId> {
        let (x, y) = (self.b.ty(a).clone(), self.b.ty(b).clone());
        if x.elem != y.elem {
            return Err(operand(format!("{}: operands {x} and {y}", f.name())));
        }
        self.broadcast(&x.shape, &y.shape)?;
        self.b.binary(f, a, b)
    }

    /// `f(a, number)`
    pub(super) fn binary_scalar(
        &mut self,
        f: BinaryFn,
        a: ValueId,
        number: f64,
    ) -> Result<ValueId> {
        let scalar = self.scalar_like(a, number)?;
        self.binary(f, a, scalar)
    }

    /// `c ? a : b` with NumPy broadcasting.
    pub(super) fn select(&mut self, c: ValueId, a: ValueId, b: ValueId) -> Result<ValueId> {
        let [tc, ta, tb] = [c, a, b].map(|v| self.b.ty(v).clone());
        if tc.elem != Elem::Plain(DType::Bool) || ta.elem != tb.elem {
            return Err(operand(format!("select: operands {tc}, {ta} and {tb}")));
        }
        let first = self.broadcast(&tc.shape, &ta.shape)?;
        self.broadcast(&first, &tb.shape)?;
        Ok(self.b.infer(OpKind::Select, &[c, a, b], ta.elem)?[0])
    }

    /// NumPy broadcast to a shape; no op if it has it already.
    pub(super) fn expand(&mut self, v: ValueId, shape: Vec<DimExpr>) -> ValueId {
        if self.b.ty(v).shape == shape {
            return v;
        }
        let elem = self.b.ty(v).elem.clone();
        self.b.op(OpKind::Expand, &[v], TensorType { elem, shape })
    }

    /// Elements `start..end` along one axis.
    pub(super) fn slice_axis(
        &mut self,
        v: ValueId,
        axis: usize,
        start: DimExpr,
        end: DimExpr,
    ) -> Result<ValueId> {
        let mut ends = self.b.ty(v).shape.clone();
        let mut starts = vec![DimExpr::from(0); ends.len()];
        if start == starts[axis] && end == ends[axis] {
            return Ok(v);
        }
        starts[axis] = start;
        ends[axis] = end;
        let steps = vec![1; ends.len()];
        self.b.same(
            OpKind::Slice {
                starts,
                ends,
                steps,
            },
            &[v],
        )
    }
}

/// Whether an integer is the same as f64.
fn exact(n: i64) -> bool {
    n.unsigned_abs() <= 1 << f64::MANTISSA_DIGITS
}

/// The elements of a small integer or bool tensor.
fn integers(t: &Tensor) -> Option<SymTensor> {
    let dtype = t.elem().dtype()?;
    if !matches!(dtype, DType::I64 | DType::I32 | DType::Bool) {
        return None;
    }
    let dims: Vec<usize> = t
        .dims()
        .iter()
        .map(|&d| usize::try_from(d).ok())
        .collect::<Option<_>>()?;
    let count = dims.iter().product();
    if count > MAX_ELEMS {
        return None;
    }
    let mut numbers = vec![0i64; count];
    decode_slice_i64(dtype, t.data(), &mut numbers).ok()?;
    let elems = numbers.into_iter().map(DimExpr::from).collect();
    SymTensor::new(dtype, dims, elems)
}

/// The value of a tensor with one element, if f64 can hold it exactly.
fn scalar(t: &Tensor) -> Option<f64> {
    if t.dims().iter().any(|&d| d != 1) {
        return None;
    }
    let dtype = t.elem().dtype()?;
    if dtype.is_float() {
        let mut value = [0f64];
        decode_slice(dtype, t.data(), &mut value).ok()?;
        return Some(value[0]);
    }
    let mut value = [0i64];
    decode_slice_i64(dtype, t.data(), &mut value).ok()?;
    // A `u64` from 2^63 on comes out negative.
    let wrapped = dtype == DType::U64 && value[0] < 0;
    (exact(value[0]) && !wrapped).then_some(value[0] as f64)
}
