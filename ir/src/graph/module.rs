//! Modules, functions, values and weights.
//!
//! A [`Func`] is a list of ops in execution order over SSA values. A pass never edits one in
//! place: it builds a new function with a [`super::Builder`] and copies what it keeps.

use super::{OpKind, TensorType};
use crate::DType;
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

macro_rules! id {
    ($(#[$m:meta])* $name:ident) => {
        $(#[$m])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub u32);
        impl $name {
            /// The position in its table.
            pub fn index(self) -> usize {
                self.0 as usize
            }
        }
    };
}

id! {
    /// A value of a [`Func`].
    ValueId
}
id! {
    /// An op of a [`Func`], by its position.
    OpId
}
id! {
    /// A weight of a [`Module`].
    WeightId
}

/// Where an op came from: ONNX nodes, joined when ops are fused.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Loc {
    /// Names of the source nodes, in order, without repeats.
    pub nodes: Vec<String>,
}

impl Loc {
    /// One source node.
    pub fn node(name: impl Into<String>) -> Self {
        Loc {
            nodes: vec![name.into()],
        }
    }

    /// The nodes of both.
    #[must_use]
    pub fn join(&self, other: &Loc) -> Loc {
        let mut nodes = self.nodes.clone();
        for n in &other.nodes {
            if !nodes.contains(n) {
                nodes.push(n.clone());
            }
        }
        Loc { nodes }
    }
}

impl fmt::Display for Loc {
    /// The names with commas between, or `?` when there are none.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.nodes.as_slice() {
            [] => f.write_str("?"),
            n => f.write_str(&n.join(", ")),
        }
    }
}

/// A symbol of the shapes, its range and the sizes to optimise for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Symbol {
    /// Its name.
    pub name: String,
    /// Smallest size.
    pub min: u64,
    /// Largest size.
    pub max: u64,
    /// Sizes that matter most, increasing.
    pub points: Vec<u64>,
}

/// Bytes of a weight, wherever they are: mapped from a file, inline, or computed on demand.
pub trait WeightBytes: Send + Sync + fmt::Debug {
    /// The elements, row-major, little-endian, 4-bit formats packed low nibble first.
    ///
    /// # Errors
    /// When a source can no longer be read or a transform fails.
    fn bytes(&self) -> crate::diag::Result<Cow<'_, [u8]>>;

    /// Says that the bytes will not be needed soon: what holds them only because they were read
    /// (pages of a mapped file) may be given back.
    fn release(&self) {}
}

/// How the text form writes a weight's contents.
#[derive(Clone, Debug)]
pub enum WeightData {
    /// Held elsewhere and found by its name (`extern`): a plan's tensor, or a test's argument.
    Extern,
    /// Every element is this number: the bits of an f64.
    Splat(u64),
    /// Listed element by element, as f64 bits.
    List(Vec<u64>),
    /// Normal deviates with this seed and the bits of the f64 standard deviation.
    Normal(u64, u64),
    /// Bytes from a source.
    Bytes(Arc<dyn WeightBytes>),
}

/// A constant tensor of a module.
#[derive(Clone, Debug)]
pub struct Weight {
    /// Unique name; that of the ONNX initializer where there is one.
    pub name: String,
    /// Element format.
    pub dtype: DType,
    /// Extents.
    pub dims: Vec<u64>,
    /// Contents.
    pub data: WeightData,
}

impl Weight {
    /// Number of elements; `None` on overflow.
    pub fn numel(&self) -> Option<u64> {
        self.dims.iter().try_fold(1u64, |p, d| p.checked_mul(*d))
    }

    /// Bytes of the contents; `None` on overflow.
    pub fn byte_len(&self) -> Option<u64> {
        self.dtype.byte_len(self.numel()?)
    }
}

/// What defines a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Def {
    /// A parameter of the function, by position.
    Param(u32),
    /// A result of an op, by position.
    Result(OpId, u32),
}

/// A value: its name, type and definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// Unique within the function.
    pub name: String,
    /// Type.
    pub ty: TensorType,
    /// Definition.
    pub def: Def,
}

/// One op of a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Op {
    /// What it computes.
    pub kind: OpKind,
    /// Operands, by position.
    pub operands: Vec<ValueId>,
    /// Results, by position.
    pub results: Vec<ValueId>,
    /// Where it came from.
    pub loc: Loc,
}

/// A function: parameters, ops in execution order, results.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Func {
    /// Its name.
    pub name: String,
    /// Every value; indexed by [`ValueId`].
    pub values: Vec<Value>,
    /// Parameters, in order.
    pub params: Vec<ValueId>,
    /// Ops, operands defined before use; indexed by [`OpId`].
    pub ops: Vec<Op>,
    /// Returned values with the names under which the caller knows them.
    pub results: Vec<(String, ValueId)>,
}

impl Func {
    /// The value. Ids come from this function, so they exist.
    pub fn value(&self, v: ValueId) -> &Value {
        &self.values[v.index()]
    }

    /// The value's type.
    pub fn ty(&self, v: ValueId) -> &TensorType {
        &self.value(v).ty
    }

    /// The op that defines a value; `None` for a parameter.
    pub fn def_op(&self, v: ValueId) -> Option<&Op> {
        match self.value(v).def {
            Def::Param(_) => None,
            Def::Result(op, _) => self.ops.get(op.index()),
        }
    }

    /// The value of this name.
    pub fn find(&self, name: &str) -> Option<ValueId> {
        let at = self.values.iter().position(|v| v.name == name)?;
        Some(ValueId(at as u32))
    }

    /// Ops with their ids, in execution order.
    pub fn ops(&self) -> impl DoubleEndedIterator<Item = (OpId, &Op)> {
        self.ops
            .iter()
            .enumerate()
            .map(|(i, o)| (OpId(i as u32), o))
    }

    /// For each value, the ops that read it (once per operand position), in order.
    pub fn users(&self) -> Vec<Vec<OpId>> {
        let mut users = vec![Vec::new(); self.values.len()];
        for (id, op) in self.ops() {
            for v in &op.operands {
                users[v.index()].push(id);
            }
        }
        users
    }

    /// Whether the function returns this value.
    pub fn is_result(&self, v: ValueId) -> bool {
        self.results.iter().any(|(_, r)| *r == v)
    }
}

/// A model: symbols, weights and functions. The first function is the entry.
#[derive(Clone, Debug, Default)]
pub struct Module {
    /// Symbols of the shapes, by first use.
    pub symbols: Vec<Symbol>,
    /// Constant tensors; indexed by [`WeightId`].
    pub weights: Vec<Weight>,
    /// Functions; `funcs[0]` is the entry.
    pub funcs: Vec<Func>,
}

impl Module {
    /// The weight. Ids come from this module, so they exist.
    pub fn weight(&self, w: WeightId) -> &Weight {
        &self.weights[w.index()]
    }

    /// The weight of this name.
    pub fn find_weight(&self, name: &str) -> Option<WeightId> {
        let at = self.weights.iter().position(|w| w.name == name)?;
        Some(WeightId(at as u32))
    }

    /// Adds a weight; a name that is taken gets a number appended.
    pub fn add_weight(&mut self, mut w: Weight) -> WeightId {
        if self.find_weight(&w.name).is_some() {
            let free = (1..)
                .map(|i| format!("{}.{i}", w.name))
                .find(|n| self.find_weight(n).is_none());
            // INVARIANT: the range is endless and names are finite, so one is free.
            w.name = free.unwrap_or(w.name);
        }
        self.weights.push(w);
        WeightId(self.weights.len() as u32 - 1)
    }

    /// Adds a symbol if its name is new.
    pub fn add_symbol(&mut self, s: Symbol) {
        if !self.symbols.iter().any(|o| o.name == s.name) {
            self.symbols.push(s);
        }
    }

    /// The declared range of a symbol; any size from 1 on if it is not declared.
    pub fn symbol_range(&self, name: &str) -> (i64, i64) {
        match self.symbols.iter().find(|s| s.name == name) {
            Some(s) => (
                i64::try_from(s.min).unwrap_or(i64::MAX),
                i64::try_from(s.max).unwrap_or(i64::MAX),
            ),
            None => (1, i64::from(i32::MAX)),
        }
    }
}
