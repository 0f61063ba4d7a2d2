//! Factors that leave one op and enter another, so that no result changes.
//!
//! ```text
//! norm(x)·(g/s) + b/s            and  W·diag(s)    (X/s)·(W·s)ᵀ = X·Wᵀ
//! u = diag(1/s)·(U·xᵀ + c),      h = u ∘ a   and  W·diag(s)    (h/s)·(W·s)ᵀ = h·Wᵀ
//! x · (1/s)                      and  W·diag(s)    where nothing before can take them
//! ```

use super::assign::Assigned;
use crate::rewrite::{Replacement, Rewriter, Rule, rewrite};
use crate::weights::{Transform, derive, inline_f32};
use qcc_ir::DType;
use qcc_ir::diag::Result;
use qcc_ir::expr::BinaryFn;
use qcc_ir::graph::{Def, Func, Module, Op, OpId, OpKind, ValueId};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Where the factors of a value's channels can go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// Into the gain and bias of the norm that makes it.
    Norm(OpId),
    /// Into the rows of the linear layer that makes a factor of the product that it is.
    Rows(OpId),
    /// Into a product of their own, with the value, in front of its readers.
    Product(ValueId),
}

/// What can take the factors of a value's channels when all its readers are layers of the list
/// that `wanted` holds for at least one of; or why nothing can, `None` where none is wanted.
pub(crate) fn target<'a>(
    f: &Func,
    x: ValueId,
    layers: &'a [Assigned],
    wanted: impl Fn(&Assigned) -> bool,
) -> std::result::Result<(Target, Vec<&'a Assigned>), Option<String>> {
    let readers: Vec<&Assigned> = layers.iter().filter(|l| l.site.input == x).collect();
    if !readers.iter().any(|l| wanted(l)) {
        return Err(None);
    }
    let is_layer = |o: &Op| {
        o.operands.first() == Some(&x)
            && !o.operands[1..].contains(&x)
            && readers.iter().any(|l| f.ops[l.site.op.index()] == *o)
    };
    let mut others = f
        .ops
        .iter()
        .filter(|o| o.operands.contains(&x) && !is_layer(o));
    if let Some(o) = others.next() {
        return Err(Some(format!("its result is also read by {}", name(o))));
    }
    if f.is_result(x) {
        return Err(Some("its result is one of the model".into()));
    }
    let Def::Result(id, _) = f.value(x).def else {
        return Err(Some("it is an input of the model".into()));
    };
    let op = &f.ops[id.index()];
    let target = match op.kind {
        OpKind::LayerNorm { expr: None, .. } | OpKind::RmsNorm { expr: None, .. } => {
            if !op.operands[1..].iter().all(|v| is_const(f, *v)) {
                return Err(Some("its gain or bias is no constant".into()));
            }
            Target::Norm(id)
        }
        OpKind::Binary(BinaryFn::Mul) => {
            let rows = op.operands.iter().find_map(|v| layer_of(f, *v, x));
            Target::Rows(rows.ok_or_else(|| Some("no layer makes a factor of it".to_string()))?)
        }
        _ => return Err(Some(format!("{} takes no factors", op.kind.name()))),
    };
    Ok((target, readers))
}

fn name(o: &Op) -> String {
    match o.loc.nodes.is_empty() {
        true => o.kind.name().to_string(),
        false => o.loc.to_string(),
    }
}

fn is_const(f: &Func, v: ValueId) -> bool {
    matches!(
        f.def_op(v).map(|o| &o.kind),
        Some(OpKind::Const { scale: None, .. })
    )
}

/// The plain linear layer whose only use is as a factor of `product`, of the same shape.
fn layer_of(f: &Func, v: ValueId, product: ValueId) -> Option<OpId> {
    let Def::Result(id, _) = f.value(v).def else {
        return None;
    };
    let op = &f.ops[id.index()];
    let plain =
        matches!(&op.kind, OpKind::Linear { segments, accs: 1, expr: None } if segments.is_empty());
    let uses = f.ops.iter().flat_map(|o| &o.operands);
    let single = uses.filter(|u| **u == v).count() == 1 && !f.is_result(v);
    let constant = op.operands.iter().skip(1).all(|w| is_const(f, *w));
    (plain && single && constant && f.ty(v) == f.ty(product)).then_some(id)
}

/// Factors of one axis of some operands.
#[derive(Clone)]
struct Change {
    operands: std::ops::Range<usize>,
    axis: usize,
    factors: Arc<[f32]>,
    divide: bool,
    /// Whether codes will be computed from the weight: then it keeps all digits until there.
    exact: bool,
}

/// What is to be folded in the entry function.
#[derive(Default)]
pub(crate) struct Folded {
    ops: BTreeMap<OpId, Vec<Change>>,
    /// By reader: the factors of a product with its input.
    products: BTreeMap<OpId, Arc<[f32]>>,
    /// Products that are made, by what is multiplied.
    made: BTreeMap<ValueId, ValueId>,
    funcs: usize,
}

/// The name of a value's product with factors.
pub(crate) fn product_name(value: &str) -> String {
    format!("{value}.smooth")
}

impl Folded {
    /// Whether nothing is to be folded.
    pub(crate) fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Divides what `target` makes, and multiplies the columns of the readers.
    pub(crate) fn add(
        &mut self,
        f: &Func,
        target: Target,
        readers: &[&Assigned],
        factors: &Arc<[f32]>,
        quantized: &dyn Fn(OpId) -> bool,
    ) {
        let maker = match target {
            Target::Norm(id) => Some((id, true)),
            Target::Rows(id) => Some((id, quantized(id))),
            Target::Product(_) => None,
        };
        let change = |operands, axis, divide, exact| Change {
            operands,
            axis,
            factors: factors.clone(),
            divide,
            exact,
        };
        let mut put = |id, c| self.ops.entry(id).or_default().push(c);
        if let Some((id, exact)) = maker {
            let made = 1..f.ops[id.index()].operands.len();
            put(id, change(made, 0, true, exact));
        }
        for l in readers {
            put(l.site.op, change(1..2, 1, false, l.choice.is_some()));
            if maker.is_none() {
                self.products.insert(l.site.op, factors.clone());
            }
        }
    }

    /// The module with everything folded.
    ///
    /// # Errors
    /// When an operand is no constant that fits.
    pub(crate) fn apply(mut self, module: &Module) -> Result<Module> {
        Ok(rewrite(module, &mut self)?.module)
    }
}

impl Rule for Folded {
    fn enter(&mut self, _: &Func) {
        self.funcs += 1;
    }

    fn apply(&mut self, rw: &mut Rewriter<'_>, op: &Op) -> Replacement {
        let changes = (self.funcs == 1)
            .then(|| self.ops.get(&rw.id(op)))
            .flatten();
        let Some(changes) = changes else {
            return Ok(None);
        };
        let mut operands = rw.operands(op);
        if let Some(factors) = self.products.get(&rw.id(op)) {
            let x = op.operands[0];
            operands[0] = match self.made.get(&x) {
                Some(v) => *v,
                None => product(rw, x, factors)?,
            };
            self.made.insert(x, operands[0]);
        }
        for (i, operand) in operands.iter_mut().enumerate().skip(1) {
            let own = rw.plain_weight(op.operands[i])?.dtype;
            let chain: Vec<Transform> = changes
                .iter()
                .filter(|c| c.operands.contains(&i))
                .map(|c| Transform::Scale {
                    axis: c.axis,
                    factors: c.factors.clone(),
                    divide: c.divide,
                    dtype: if c.exact { DType::F32 } else { own },
                })
                .collect();
            if !chain.is_empty() {
                *operand = rw.derived_by(op.operands[i], &chain)?;
            }
        }
        Ok(Some(rw.put(op, op.kind.clone(), &operands)))
    }
}

/// `x · (1/s)`, rounded to the format of `x`.
fn product(rw: &mut Rewriter<'_>, x: ValueId, factors: &[f32]) -> Result<ValueId> {
    let ty = rw.src.ty(x).clone();
    let name = product_name(&rw.src.value(x).name);
    let inverse: Vec<f32> = factors.iter().map(|s| 1.0 / s).collect();
    let wide = inline_f32(
        format!("{name}.factor"),
        vec![inverse.len() as u64],
        &inverse,
    );
    let weight = match ty.elem.plain() {
        Some(dtype) if dtype != DType::F32 => derive(&wide, Transform::Cast { dtype })?,
        _ => wide,
    };
    let operands = [rw.get(x), rw.constant(weight)];
    let kind = OpKind::Binary(BinaryFn::Mul);
    Ok(rw.b.push(kind, &operands, vec![ty], &[&name])[0])
}
