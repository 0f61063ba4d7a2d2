//! Scalar expressions: what a fused kernel does with each element.
//!
//! An [`Expr`] is a small typed DAG over accumulators (`acc0`, and `acc1` for a kernel with two)
//! and the operands of the op that carries it (`in3`). An operand is indexed by the position of
//! the output element, with NumPy broadcasting: a row vector, a column or a full tensor need no
//! notation of their own. Arithmetic is in f32 for floats, i64 for integers and bool for
//! truth values; a value is rounded to a storage format only by `cast` and at a store.
//!
//! The text form is a list of steps; the printer numbers the nodes in order:
//!
//! ```text
//! { t0 = acc0; t1 = in2; t2 = add t0, t1; t3 = gelu t2; store t3; store t2 scale in4 }
//! ```

use crate::DType;

/// A node of an [`Expr`], by its position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u32);

/// The type in which a node computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Compute {
    /// binary32.
    F32,
    /// 64-bit two's complement.
    I64,
    /// Truth value.
    Bool,
}

impl Compute {
    /// The type in which elements of a storage format compute.
    pub fn of(d: DType) -> Compute {
        match d {
            DType::Bool => Compute::Bool,
            d if d.is_float() => Compute::F32,
            _ => Compute::I64,
        }
    }
}

macro_rules! named_enum {
    ($(#[$m:meta])* $name:ident { $($(#[$vm:meta])* $v:ident = $text:literal,)* }) => {
        $(#[$m])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $($(#[$vm])* $v,)* }
        impl $name {
            /// Every function, in declaration order.
            pub const ALL: &'static [$name] = &[$($name::$v,)*];
            /// The name in the text form.
            pub const fn name(self) -> &'static str {
                match self { $($name::$v => $text,)* }
            }
            /// The function of this name in the text form.
            pub fn from_name(s: &str) -> Option<Self> {
                match s { $($text => Some($name::$v),)* _ => None }
            }
        }
    };
}
pub(crate) use named_enum;

named_enum! {
    /// Functions of one argument.
    UnaryFn {
        /// `−x`
        Neg = "neg",
        /// `|x|`
        Abs = "abs",
        /// `√x`
        Sqrt = "sqrt",
        /// `1/√x`
        Rsqrt = "rsqrt",
        /// `1/x`
        Recip = "recip",
        /// `eˣ`
        Exp = "exp",
        /// natural logarithm
        Log = "log",
        /// error function
        Erf = "erf",
        /// hyperbolic tangent
        Tanh = "tanh",
        /// sine, radians
        Sin = "sin",
        /// cosine, radians
        Cos = "cos",
        /// `1/(1+e⁻ˣ)`
        Sigmoid = "sigmoid",
        /// `max(x, 0)`, NaN kept
        Relu = "relu",
        /// `x·½(1+erf(x/√2))`
        Gelu = "gelu",
        /// `x·½(1+tanh(√(2/π)(x+0.044715x³)))`
        GeluTanh = "gelu_tanh",
        /// `x·sigmoid(x)`
        Silu = "silu",
        /// `x·max(0, min(1, x/6+½))`
        HardSwish = "hard_swish",
        /// Largest integer not above `x`
        Floor = "floor",
        /// Smallest integer not below `x`
        Ceil = "ceil",
        /// Nearest integer, ties to even
        Round = "round",
        /// Logical negation
        Not = "not",
    }
}

named_enum! {
    /// Functions of two arguments of one type. Comparisons give bool.
    BinaryFn {
        /// `a + b`
        Add = "add",
        /// `a − b`
        Sub = "sub",
        /// `a · b`
        Mul = "mul",
        /// `a / b`; integers truncate towards zero
        Div = "div",
        /// `aᵇ`
        Pow = "pow",
        /// The smaller; NaN if either is
        Min = "min",
        /// The larger; NaN if either is
        Max = "max",
        /// Remainder with the sign of the divisor (ONNX `Mod`, `fmod = 0`)
        Mod = "mod",
        /// Logical and
        And = "and",
        /// Logical or
        Or = "or",
        /// Exclusive or
        Xor = "xor",
        /// `a = b`
        Eq = "eq",
        /// `a ≠ b`
        Ne = "ne",
        /// `a < b`
        Lt = "lt",
        /// `a ≤ b`
        Le = "le",
        /// `a > b`
        Gt = "gt",
        /// `a ≥ b`
        Ge = "ge",
    }
}

impl UnaryFn {
    /// The type of the result for an argument of type `a`, or `None` where it is not defined.
    pub fn result(self, a: Compute) -> Option<Compute> {
        use UnaryFn::*;
        match (self, a) {
            (Not, Compute::Bool) => Some(Compute::Bool),
            (Not, _) | (_, Compute::Bool) => None,
            (Neg | Abs | Relu, Compute::I64) => Some(Compute::I64),
            (_, Compute::I64) => None,
            (_, Compute::F32) => Some(Compute::F32),
        }
    }
}

impl BinaryFn {
    /// Whether the result is a truth value.
    pub fn is_compare(self) -> bool {
        use BinaryFn::*;
        matches!(self, Eq | Ne | Lt | Le | Gt | Ge)
    }

    /// The type of the result for arguments of type `a`, or `None` where it is not defined.
    pub fn result(self, a: Compute) -> Option<Compute> {
        use BinaryFn::*;
        match (self, a) {
            (And | Or | Xor, Compute::Bool) => Some(Compute::Bool),
            (And | Or | Xor, _) => None,
            (Eq | Ne, _) => Some(Compute::Bool),
            (_, Compute::Bool) => None,
            (f, _) if f.is_compare() => Some(Compute::Bool),
            (_, t) => Some(t),
        }
    }

    /// Whether `f(a, b) = f(b, a)`.
    pub fn is_commutative(self) -> bool {
        use BinaryFn::*;
        matches!(self, Add | Mul | Min | Max | And | Or | Xor | Eq | Ne)
    }
}

/// One step of an expression; arguments come before the nodes that use them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Node {
    /// The skeleton's accumulator 0 or 1 (a GEMM's dot product, a norm's normalized row), f32.
    Acc(u8),
    /// The op's operand, by its position among all operands, broadcast to the output.
    /// A quantized operand reads as its dequantized value.
    Input(u8),
    /// A constant: the bits of an f32.
    ConstF32(u32),
    /// An integer constant.
    ConstI64(i64),
    /// Function of one argument.
    Unary(UnaryFn, NodeId),
    /// Function of two arguments of one type.
    Binary(BinaryFn, NodeId, NodeId),
    /// `c ? a : b`
    Select(NodeId, NodeId, NodeId),
    /// Rounds to a storage format, and computes on in that format's [`Compute`] type.
    Cast(DType, NodeId),
}

/// One output of an expression: what is stored in the op's result of the same position.
///
/// The result's type says how: cast, or quantized with the scale operand given here (a static
/// scheme), or with a scale that the kernel computes from the row (a dynamic one).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Store {
    /// The value to store.
    pub value: NodeId,
    /// Operand that holds the scale of a statically quantized result.
    pub scale: Option<u8>,
    /// Operand that holds its zero point.
    pub zero: Option<u8>,
}

/// A DAG of scalar arithmetic with one store per result of the op that carries it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Expr {
    /// The steps, arguments first.
    pub nodes: Vec<Node>,
    /// One entry per result.
    pub stores: Vec<Store>,
}

impl Expr {
    /// The expression that stores accumulator 0 as it is.
    pub fn identity() -> Expr {
        let mut e = Expr::default();
        let acc = e.push(Node::Acc(0));
        e.store(acc);
        e
    }

    /// Adds a step, or finds the equal one that is there already.
    pub fn push(&mut self, node: Node) -> NodeId {
        if let Some(at) = self.nodes.iter().position(|n| *n == node) {
            return NodeId(at as u32);
        }
        self.nodes.push(node);
        NodeId(self.nodes.len() as u32 - 1)
    }

    /// Adds an f32 constant.
    pub fn constant(&mut self, v: f32) -> NodeId {
        self.push(Node::ConstF32(v.to_bits()))
    }

    /// Adds a store of `value`.
    pub fn store(&mut self, value: NodeId) {
        self.stores.push(Store {
            value,
            scale: None,
            zero: None,
        });
    }

    /// Whether the expression only stores accumulator 0.
    pub fn is_identity(&self) -> bool {
        *self == Expr::identity()
    }

    /// The step `id` refers to; `None` if it does not exist.
    pub fn node(&self, id: NodeId) -> Option<Node> {
        self.nodes.get(id.0 as usize).copied()
    }

    /// The arguments of a step.
    pub fn args(node: Node) -> impl Iterator<Item = NodeId> {
        let a = match node {
            Node::Acc(_) | Node::Input(_) | Node::ConstF32(_) | Node::ConstI64(_) => [None; 3],
            Node::Unary(_, a) | Node::Cast(_, a) => [Some(a), None, None],
            Node::Binary(_, a, b) => [Some(a), Some(b), None],
            Node::Select(c, a, b) => [Some(c), Some(a), Some(b)],
        };
        a.into_iter().flatten()
    }

    /// The operands that are read, in increasing order, scales and zero points included.
    pub fn inputs(&self) -> Vec<u8> {
        let mut v: Vec<u8> = self
            .nodes
            .iter()
            .filter_map(|n| match n {
                Node::Input(i) => Some(*i),
                _ => None,
            })
            .chain(self.stores.iter().flat_map(|s| [s.scale, s.zero]).flatten())
            .collect();
        v.sort_unstable();
        v.dedup();
        v
    }

    /// Renumbers the operands.
    #[must_use]
    pub fn map_inputs(&self, f: &dyn Fn(u8) -> u8) -> Expr {
        let mut e = self.clone();
        for n in &mut e.nodes {
            if let Node::Input(i) = n {
                *i = f(*i);
            }
        }
        for s in &mut e.stores {
            s.scale = s.scale.map(f);
            s.zero = s.zero.map(f);
        }
        e
    }

    /// The compute type of every node, given the formats of the operands, or the position of
    /// the first node whose arguments do not fit.
    pub fn types(&self, operand: &dyn Fn(u8) -> Option<DType>) -> Result<Vec<Compute>, NodeId> {
        let mut types: Vec<Compute> = Vec::with_capacity(self.nodes.len());
        for (i, n) in self.nodes.iter().enumerate() {
            let here = NodeId(i as u32);
            let arg = |id: NodeId| types.get(id.0 as usize).copied();
            let t = match *n {
                Node::Acc(_) | Node::ConstF32(_) => Some(Compute::F32),
                Node::ConstI64(_) => Some(Compute::I64),
                Node::Input(k) => operand(k).map(Compute::of),
                Node::Unary(f, a) => arg(a).and_then(|t| f.result(t)),
                Node::Binary(f, a, b) => match (arg(a), arg(b)) {
                    (Some(x), Some(y)) if x == y => f.result(x),
                    _ => None,
                },
                Node::Select(c, a, b) => match (arg(c), arg(a), arg(b)) {
                    (Some(Compute::Bool), Some(x), Some(y)) if x == y => Some(x),
                    _ => None,
                },
                Node::Cast(d, a) => arg(a).map(|_| Compute::of(d)),
            };
            types.push(t.ok_or(here)?);
        }
        Ok(types)
    }

    /// The divisions and remainders of integers, each with its dividend and divisor, given the
    /// formats of the operands. They are not defined for a divisor of zero.
    pub fn integer_divisions(
        &self,
        operand: &dyn Fn(u8) -> Option<DType>,
    ) -> Vec<(BinaryFn, NodeId, NodeId)> {
        let types = self.types(operand).unwrap_or_default();
        let typed = self.nodes.iter().zip(types);
        let division = |(node, ty): (&Node, Compute)| match node {
            Node::Binary(f @ (BinaryFn::Div | BinaryFn::Mod), a, b) if ty == Compute::I64 => {
                Some((*f, *a, *b))
            }
            _ => None,
        };
        typed.filter_map(division).collect()
    }
}
