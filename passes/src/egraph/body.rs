//! Bodies: every op that can be fused, seen in one way — what it accumulates, and an expression.
//!
//! ```text
//! relu x                 = map { t0 = in0; t1 = relu t0; store t1 }            on (x)
//! quantize x, s          = map { t0 = in0; store t0 scale in1 }                on (x, s)
//! linear x, w, b         = linear { t0 = acc0; t1 = in2; t2 = add t0, t1; … }  on (x, w, b)
//! rms_norm x, g          = rms_norm { t0 = acc0; t1 = in1; t2 = mul t0, t1; … } on (x, g)
//! ```
//!
//! Bodies are kept in one canonical form, so that two ways to the same kernel are one e-node.

use super::space::Space;
use egg::Id;
use qcc_ir::DType;
use qcc_ir::expr::{BinaryFn, Compute, Expr, Node as Step, NodeId, Store};
use qcc_ir::format::round_slice;
use qcc_ir::graph::{Elem, OpKind, TensorType, infer_shapes};
use std::collections::BTreeMap;

/// What runs before the expression.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Head {
    /// Nothing: the expression reads operands only.
    Map,
    /// An op that accumulates, its expression taken off.
    Skeleton(OpKind),
}

/// An op as a head with an expression.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Body {
    pub(super) head: Head,
    /// How many of the operands the head reads.
    pub(super) core: usize,
    pub(super) operands: Vec<Id>,
    pub(super) expr: Expr,
    pub(super) results: Vec<TensorType>,
}

/// Why something cannot be fused.
pub(super) type Reason = String;

impl Body {
    /// The body of an e-node.
    ///
    /// # Errors
    /// Why the op cannot carry an expression.
    pub(super) fn of(space: &Space<'_>, node: &super::lang::Node) -> Result<Body, Reason> {
        let (data, operands) = space
            .op(node)
            .ok_or_else(|| "a value from outside has no expression".to_string())?;
        let types: Vec<&TensorType> = operands.iter().map(|o| space.ty(*o)).collect();
        wide(types.iter().copied().chain(&data.results))?;
        let (head, core, expr) = head(&data.kind, &types, data.results.first())?;
        let mut operands = operands.to_vec();
        if let (OpKind::Conv { expr: None, .. }, Some(bias)) = (&data.kind, operands.get_mut(2)) {
            *bias = space.column(*bias, data.results[0].rank())?;
        }
        let mut body = Body {
            head,
            core,
            operands,
            expr,
            results: data.results.clone(),
        };
        body.inline_splats(space);
        Ok(body.tidy())
    }

    /// Replaces operands that are one number everywhere by constants.
    fn inline_splats(&mut self, space: &Space<'_>) {
        let constants: Vec<Option<Step>> = self
            .operands
            .iter()
            .map(|o| space.splat(*o).and_then(|(v, d)| constant(v, d)))
            .collect();
        for n in &mut self.expr.nodes {
            if let Step::Input(k) = n
                && usize::from(*k) >= self.core
                && let Some(c) = constants[usize::from(*k)]
            {
                *n = c;
            }
        }
    }

    /// Whether the expression reads an operand, other than as the scale of a store.
    pub(super) fn reads(&self, operand: usize) -> bool {
        let k = operand as u8;
        self.expr.nodes.contains(&Step::Input(k))
    }

    /// The canonical form: steps in the order in which the stores need them, operands of the
    /// expression in the order in which the steps name them, nothing that is not needed.
    pub(super) fn tidy(self) -> Body {
        let mut t = Tidy {
            old: &self.expr,
            new: Expr::default(),
            steps: BTreeMap::new(),
            operands: self.operands[..self.core].to_vec(),
            core: self.core,
            from: &self.operands,
        };
        for s in &self.expr.stores {
            let value = t.step(s.value);
            let scale = s.scale.map(|k| t.operand(k));
            let zero = s.zero.map(|k| t.operand(k));
            t.new.stores.push(Store { value, scale, zero });
        }
        Body {
            operands: t.operands,
            expr: t.new,
            ..self
        }
    }

    /// The op that this is.
    ///
    /// # Errors
    /// When the result would not have the shape that its type says.
    pub(super) fn kind(&self, types: &[&TensorType]) -> Result<OpKind, Reason> {
        let expr = (!self.is_default(types)).then(|| self.expr.clone());
        let kind = match &self.head {
            Head::Map => OpKind::Map(self.expr.clone()),
            Head::Skeleton(kind) => with_expr(kind, expr),
        };
        let shapes = infer_shapes(&kind, types).map_err(|d| d.message().to_string())?;
        for (shape, result) in shapes.iter().zip(&self.results) {
            if shape.as_ref().is_some_and(|s| *s != result.shape) {
                return Err(format!(
                    "the kernel works on another shape than {result}, which broadcasts further"
                ));
            }
        }
        let read = |k: u8| types.get(usize::from(k)).map(|t| t.elem.read_as());
        match self.expr.types(&read) {
            Ok(_) => Ok(kind),
            Err(at) => Err(format!("step t{} has no type", at.0)),
        }
    }

    /// Whether the expression is what the op does without one.
    fn is_default(&self, types: &[&TensorType]) -> bool {
        let Head::Skeleton(kind) = &self.head else {
            return false;
        };
        let float = |t: &TensorType| t.elem.plain().is_some_and(DType::is_float);
        let plain = self.results.iter().all(float) && types[self.core..].iter().all(|t| float(t));
        let bias_fits = match kind {
            OpKind::Linear { .. } => types.get(2).is_none_or(|b| b.rank() == 1),
            OpKind::Conv { .. } => self.operands.len() == self.core,
            _ => types
                .get(2)
                .is_none_or(|b| b.rank() == 1 && b.shape == types[1].shape),
        };
        let want = default_expr(kind, self.operands.len());
        plain && bias_fits && want.is_some_and(|e| tidy_alone(&e) == tidy_alone(&self.expr))
    }
}

/// An expression in canonical order with its operands left as they are.
fn tidy_alone(e: &Expr) -> Expr {
    let operands: Vec<Id> = (0..=255usize).map(Id::from).collect();
    let body = Body {
        head: Head::Map,
        core: operands.len(),
        operands,
        expr: e.clone(),
        results: Vec::new(),
    };
    body.tidy().expr
}

struct Tidy<'a> {
    old: &'a Expr,
    new: Expr,
    steps: BTreeMap<NodeId, NodeId>,
    operands: Vec<Id>,
    core: usize,
    from: &'a [Id],
}

impl Tidy<'_> {
    /// The new number of an operand; the same class is one operand.
    fn operand(&mut self, k: u8) -> u8 {
        if usize::from(k) < self.core {
            return k;
        }
        let class = self.from[usize::from(k)];
        let extras = &self.operands[self.core..];
        let at = extras.iter().position(|o| *o == class).unwrap_or_else(|| {
            self.operands.push(class);
            self.operands.len() - 1 - self.core
        });
        (at + self.core) as u8
    }

    fn step(&mut self, at: NodeId) -> NodeId {
        if let Some(n) = self.steps.get(&at) {
            return *n;
        }
        let step = match self.old.nodes[at.0 as usize] {
            Step::Input(k) => Step::Input(self.operand(k)),
            Step::Unary(f, a) => Step::Unary(f, self.step(a)),
            Step::Cast(d, a) => Step::Cast(d, self.step(a)),
            Step::Binary(f, a, b) => {
                let a = self.step(a);
                Step::Binary(f, a, self.step(b))
            }
            Step::Select(c, a, b) => {
                let (c, a) = (self.step(c), self.step(a));
                Step::Select(c, a, self.step(b))
            }
            leaf => leaf,
        };
        let n = self.new.push(step);
        self.steps.insert(at, n);
        n
    }
}

/// Expressions compute floats in f32 and integers in i64; wider formats would lose bits.
fn wide<'a>(mut types: impl Iterator<Item = &'a TensorType>) -> Result<(), Reason> {
    match types.find(|t| matches!(t.elem, Elem::Plain(DType::F64 | DType::U64))) {
        Some(t) => Err(format!(
            "{} is wider than what expressions compute in",
            t.elem
        )),
        None => Ok(()),
    }
}

/// A constant step of the value that a splat of this format holds.
fn constant(v: f64, d: DType) -> Option<Step> {
    match Compute::of(d) {
        Compute::F32 => {
            let mut rounded = [v];
            round_slice(d, &mut rounded);
            Some(Step::ConstF32((rounded[0] as f32).to_bits()))
        }
        // Small numbers are the same in every integer format that holds them.
        Compute::I64 if v.fract() == 0.0 && (-8.0..=7.0).contains(&v) => {
            Some(Step::ConstI64(v as i64))
        }
        _ => None,
    }
}

/// Head, number of operands that the head reads, and expression of an op.
fn head(
    kind: &OpKind,
    types: &[&TensorType],
    result: Option<&TensorType>,
) -> Result<(Head, usize, Expr), Reason> {
    let operands = types.len();
    if let Some(e) = elementwise(kind, types, result) {
        return Ok((Head::Map, 0, e));
    }
    if matches!(kind, OpKind::Linear { segments, .. } if !segments.is_empty()) {
        return Err("the column segments of a merged linear share one expression".into());
    }
    let core = match kind {
        OpKind::Linear { .. } | OpKind::Conv { .. } => 2,
        OpKind::LayerNorm { .. } | OpKind::RmsNorm { .. } => 2,
        OpKind::Attention { attrs, .. } => 3 + usize::from(attrs.mask),
        _ => return Err(format!("`{}` carries no expression", kind.name())),
    };
    let expr = kind
        .expr()
        .cloned()
        .or_else(|| default_expr(kind, operands));
    let expr = expr.ok_or_else(|| format!("`{}` carries no expression", kind.name()))?;
    Ok((Head::Skeleton(with_expr(kind, None)), core, expr))
}

/// The expression of an elementwise op.
fn elementwise(kind: &OpKind, types: &[&TensorType], result: Option<&TensorType>) -> Option<Expr> {
    let mut e = Expr::default();
    let mut store = Store {
        value: NodeId(0),
        scale: None,
        zero: None,
    };
    store.value = match kind {
        OpKind::Map(e) => return Some(e.clone()),
        OpKind::Unary(f) => {
            let x = e.push(Step::Input(0));
            e.push(Step::Unary(*f, x))
        }
        OpKind::Binary(f) => {
            let a = e.push(Step::Input(0));
            let b = e.push(Step::Input(1));
            e.push(Step::Binary(*f, a, b))
        }
        OpKind::Select => {
            let c = e.push(Step::Input(0));
            let a = e.push(Step::Input(1));
            let b = e.push(Step::Input(2));
            e.push(Step::Select(c, a, b))
        }
        OpKind::Cast => {
            let to = result?.elem.plain()?;
            let x = e.push(Step::Input(0));
            stored(&mut e, x, types.first()?.elem.plain()?, to)
        }
        OpKind::Dequantize => e.push(Step::Input(0)),
        // A store has no operand for the scale above those of the blocks.
        OpKind::Quantize if result?.elem.quant()?.scale.global().is_some() => return None,
        OpKind::Quantize => {
            store.scale = (types.len() > 1).then_some(1);
            store.zero = (types.len() > 2).then_some(2);
            e.push(Step::Input(0))
        }
        _ => return None,
    };
    e.stores.push(store);
    Some(e)
}

/// A value of one format as it reads after being stored in another.
///
/// The rounding of a float to 16 or 32 bits is left out: it is no part of the arithmetic, and a
/// value that is not stored is not rounded.
pub(super) fn stored(e: &mut Expr, x: NodeId, from: DType, to: DType) -> NodeId {
    let kept = match to {
        DType::F32 | DType::F16 | DType::BF16 => from.is_float(),
        DType::I64 => Compute::of(from) == Compute::I64,
        DType::Bool => from == DType::Bool,
        _ => false,
    };
    if kept { x } else { e.push(Step::Cast(to, x)) }
}

/// What the op stores without an expression; `None` for one that needs it.
fn default_expr(kind: &OpKind, operands: usize) -> Option<Expr> {
    let mut e = Expr::default();
    let mut value = e.push(Step::Acc(0));
    let (gain, bias) = match kind {
        OpKind::Linear { .. } | OpKind::Conv { .. } => (false, operands > 2),
        OpKind::LayerNorm { .. } | OpKind::RmsNorm { .. } => (true, operands > 2),
        OpKind::Attention { .. } => (false, false),
        _ => return None,
    };
    if gain {
        let g = e.push(Step::Input(1));
        value = e.push(Step::Binary(BinaryFn::Mul, value, g));
    }
    if bias {
        let b = e.push(Step::Input(2));
        value = e.push(Step::Binary(BinaryFn::Add, value, b));
    }
    e.store(value);
    Some(e)
}

/// The op with another expression.
fn with_expr(kind: &OpKind, new: Option<Expr>) -> OpKind {
    let mut kind = kind.clone();
    match &mut kind {
        OpKind::Linear { expr, .. }
        | OpKind::Conv { expr, .. }
        | OpKind::LayerNorm { expr, .. }
        | OpKind::RmsNorm { expr, .. }
        | OpKind::Attention { expr, .. } => *expr = new,
        _ => {}
    }
    kind
}
