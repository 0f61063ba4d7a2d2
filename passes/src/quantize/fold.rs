//! Factors that leave one op and enter another, so that no result changes.
//!
//! ```text
//! norm(x)·(g/s) + b/s            and  W·diag(s)    (X/s)·(W·s)ᵀ = X·Wᵀ
//! u = diag(1/s)·(U·xᵀ + c),      h = u ∘ a   and  W·diag(s)    (h/s)·(W·s)ᵀ = h·Wᵀ
//!                                h = φ(u)                      φ(c·u) = c·φ(u) for c > 0
//!                                h = P·u, heads of attention   channels of a value head alike
//! x · (1/s)                      and  W·diag(s)    where nothing before can take them
//! ```
//!
//! Attention mixes tokens, not channels: what divides the columns of the values divides its result.
//! Query heads that share a value head share its factors. Of functions, `relu`, `abs` and `neg` let
//! factors through; `gelu` and `silu` do not.

use super::assign::Assigned;
use crate::analysis::{is_const, is_homogeneous, is_plain_norm, projection, read_once, width};
use crate::rewrite::{Replacement, Rewriter, Rule, rewrite};
use crate::weights::{Transform, derive, inline_f32};
use qcc_ir::DType;
use qcc_ir::diag::Result;
use qcc_ir::expr::BinaryFn;
use qcc_ir::graph::{Def, Func, Module, Op, OpId, OpKind, ValueId};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// Where the factors of a value's channels can go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// Into the gain and bias of the norm that makes it.
    Norm(OpId),
    /// Into rows of the linear layer that it comes from.
    Rows(Rows),
    /// Into a product of their own, with the value, in front of its readers.
    Product(ValueId),
}

/// Rows of a linear layer, by the channels of a value that comes from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rows {
    /// The layer.
    pub(crate) layer: OpId,
    /// The row of channel 0.
    first: usize,
    /// Channels of a head.
    head: usize,
    /// Neighbouring heads that come from the same rows.
    sharing: usize,
}

impl Rows {
    /// The row of a channel, from the first on.
    fn of(&self, channel: usize) -> usize {
        channel / (self.head * self.sharing) * self.head + channel % self.head
    }
}

impl Target {
    /// Gives channels that must have the same factor what `combine` makes of all of them; of equal
    /// numbers it makes that number.
    pub(crate) fn tie<T: Copy>(self, channels: &mut [T], combine: impl Fn(T, T) -> T) {
        let Target::Rows(rows) = self else { return };
        let mut by_row: BTreeMap<usize, T> = BTreeMap::new();
        for (i, v) in channels.iter().enumerate() {
            let all = by_row.entry(rows.of(i)).or_insert(*v);
            *all = combine(*all, *v);
        }
        let tied = |i: usize| by_row.get(&rows.of(i)).copied();
        for (i, v) in channels.iter_mut().enumerate() {
            *v = tied(i).unwrap_or(*v);
        }
    }

    /// How factors are taken, for the ledger.
    pub(crate) fn name(self, f: &Func) -> String {
        let of = |id: OpId| name(&f.ops[id.index()]);
        match self {
            Target::Norm(id) => format!("fold into {}", of(id)),
            Target::Rows(rows) => format!("fold into rows of {}", of(rows.layer)),
            Target::Product(_) => "a product of its own".to_string(),
        }
    }
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
    Ok((taker(f, x, id).map_err(Some)?, readers))
}

/// What can take the factors of a value that this op makes, or why it cannot.
fn taker(f: &Func, x: ValueId, id: OpId) -> std::result::Result<Target, String> {
    let op = &f.ops[id.index()];
    let (rows, otherwise) = match op.kind {
        _ if is_plain_norm(&op.kind) => {
            let constant = op.operands[1..].iter().all(|v| is_const(f, *v));
            let why = || "its gain or bias is no constant".to_string();
            return constant.then_some(Target::Norm(id)).ok_or_else(why);
        }
        OpKind::Binary(BinaryFn::Mul) => {
            let same = |v: &&ValueId| f.ty(**v) == f.ty(x) && read_once(f, **v);
            let rows = op.operands.iter().filter(same).find_map(|v| rows(f, *v));
            (rows, "no layer makes a factor of it".to_string())
        }
        OpKind::Attention { expr: None, .. } | OpKind::Linear { .. } => {
            (rows(f, x), "no layer makes it alone".to_string())
        }
        _ if is_homogeneous(&op.kind) => {
            let why = format!("no layer makes what {} reads", op.kind.name());
            (rows(f, x), why)
        }
        _ => (None, format!("{} takes no factors", op.kind.name())),
    };
    rows.map(Target::Rows).ok_or(otherwise)
}

fn name(o: &Op) -> String {
    match o.loc.nodes.is_empty() {
        true => o.kind.name().to_string(),
        false => o.loc.to_string(),
    }
}

/// The rows that a value comes from: of a plain linear layer, through functions that let factors
/// through, or of the values of attention. The value's own readers are the caller's business.
fn rows(f: &Func, v: ValueId) -> Option<Rows> {
    let op = f.def_op(v)?;
    let whole = |(layer, span): (OpId, Range<usize>)| Rows {
        layer,
        first: span.start,
        head: span.len(),
        sharing: 1,
    };
    match &op.kind {
        OpKind::Linear { .. } => projection(f, v).map(whole),
        OpKind::Attention { attrs, expr: None } => {
            let values = op.operands[2];
            let (layer, span) = projection(f, values).filter(|_| read_once(f, values))?;
            let [heads, kv] = [attrs.heads, attrs.kv_heads].map(|n| usize::try_from(n).ok());
            let (heads, kv) = (heads?, kv.filter(|n| *n > 0)?);
            Some(Rows {
                layer,
                first: span.start,
                head: span.len() / kv,
                sharing: heads / kv,
            })
        }
        kind if is_homogeneous(kind) => {
            let inner = op.operands[0];
            rows(f, inner).filter(|_| read_once(f, inner))
        }
        _ => None,
    }
}

/// Factors of one axis of some operands.
#[derive(Clone)]
struct Change {
    operands: Range<usize>,
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
            Target::Norm(id) => Some((id, true, factors.clone())),
            Target::Rows(r) => Some((r.layer, quantized(r.layer), by_row(f, r, factors))),
            Target::Product(_) => None,
        };
        let mut put = |id, c| self.ops.entry(id).or_default().push(c);
        if let Some((id, exact, factors)) = maker.clone() {
            put(
                id,
                Change {
                    operands: 1..f.ops[id.index()].operands.len(),
                    axis: 0,
                    factors,
                    divide: true,
                    exact,
                },
            );
        }
        for l in readers {
            put(
                l.site.op,
                Change {
                    operands: 1..2,
                    axis: 1,
                    factors: factors.clone(),
                    divide: false,
                    exact: l.choice.is_some(),
                },
            );
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

/// The factor of each row of a layer, 1 of those that the value does not come from.
fn by_row(f: &Func, rows: Rows, factors: &[f32]) -> Arc<[f32]> {
    let result = f.ops[rows.layer.index()].results[0];
    let mut all = vec![1.0; width(f, result).unwrap_or(0)];
    for (i, s) in factors.iter().enumerate() {
        if let Some(row) = all.get_mut(rows.first + rows.of(i)) {
            *row = *s;
        }
    }
    all.into()
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

#[cfg(test)]
mod tests {
    use super::super::{Assigned, assign};
    use super::*;
    use crate::testing::{difference, module};
    use crate::{Options, PassContext, Scheme};

    /// Four query heads of three channels on two value heads.
    const ATTENTION: &str = r#"dim s = 1..9
        weight @qkv: f32[24, 8] = normal(1, 0.3)
        weight @c: f32[24] = normal(2, 0.3)
        weight @o: f32[5, 12] = normal(3, 0.3)
        func @main(%x: f32[1, s, 8]) -> (y: f32[1, s, 5]) {
          %qkv: f32[24, 8] = const @qkv
          %c: f32[24] = const @c
          %a: f32[1, s, 24] = linear %x, %qkv, %c @"qkv"
          %q: f32[1, s, 12] = slice %a { starts = [0, 0, 0], ends = [1, s, 12] }
          %k: f32[1, s, 6] = slice %a { starts = [0, 0, 12], ends = [1, s, 18] }
          %v: f32[1, s, 6] = slice %a { starts = [0, 0, 18], ends = [1, s, 24] }
          %h: f32[1, s, 12] = attention %q, %k, %v { heads = 4, kv_heads = 2, scale = 0.5, causal }
          %o: f32[5, 12] = const @o
          %y: f32[1, s, 5] = linear %h, %o @"o"
          return %y
        }"#;

    /// A function between two layers.
    fn between(function: &str) -> Module {
        let text = r#"dim s = 1..9
            weight @a: f32[6, 8] = normal(1, 0.3)
            weight @c: f32[6] = normal(2, 0.3)
            weight @b: f32[5, 6] = normal(3, 0.3)
            func @main(%x: f32[1, s, 8]) -> (y: f32[1, s, 5]) {
              %a: f32[6, 8] = const @a
              %c: f32[6] = const @c
              %u: f32[1, s, 6] = linear %x, %a, %c @"a"
              %h: f32[1, s, 6] = FUNCTION
              %b: f32[5, 6] = const @b
              %y: f32[1, s, 5] = linear %h, %b @"b"
              return %y
            }"#;
        module(&text.replace("FUNCTION", function))
    }

    /// The layers, and what takes the factors of the last one's input.
    fn found(m: &Module) -> (Vec<Assigned>, std::result::Result<Target, String>) {
        let options = Options {
            scheme: Scheme::named("int8").unwrap(),
            ..Options::default()
        };
        let layers = assign(m, &PassContext::new(&options)).unwrap();
        let x = layers.last().unwrap().site.input;
        let to = target(&m.funcs[0], x, &layers, |_| true);
        let to = to.map(|(to, _)| to).map_err(Option::unwrap);
        (layers, to)
    }

    /// Folds factors that differ from channel to channel; gives the relative difference.
    fn folded(m: &Module) -> f64 {
        let (layers, to) = found(m);
        let (to, last) = (to.unwrap(), layers.last().unwrap());
        let n = width(&m.funcs[0], last.site.input).unwrap();
        let mut s: Vec<f32> = (0..n).map(|i| 0.1 + 3.0 * i as f32).collect();
        to.tie(&mut s, f32::max);
        let mut folded = Folded::default();
        folded.add(&m.funcs[0], to, &[last], &s.into(), &|_| true);
        let out = folded.apply(m).unwrap();
        assert!(qcc_ir::graph::verify(&out).is_empty());
        let read = |m: &Module| {
            let w = m.weights.iter().find(|w| w.name == last.site.weight);
            crate::weights::read_f32(w.unwrap()).unwrap()
        };
        assert_ne!(read(m), read(&out));
        difference(m, &out)
    }

    #[test]
    fn results_stay_whatever_takes_the_factors() {
        let one = ATTENTION
            .replace("kv_heads = 2", "kv_heads = 1")
            .replace("f32[1, s, 6]", "f32[1, s, 3]")
            .replace("12], ends = [1, s, 18]", "12], ends = [1, s, 15]")
            .replace("18], ends = [1, s, 24]", "15], ends = [1, s, 18]");
        for text in [ATTENTION, &one] {
            let d = folded(&module(text));
            assert!(d < 1e-5, "attention: {d}");
        }
        for function in ["relu %u", "abs %u", "neg %u"] {
            let d = folded(&between(function));
            assert!(d < 1e-5, "{function}: {d}");
        }
    }

    #[test]
    fn heads_that_share_values_share_factors() {
        let (_, to) = found(&module(ATTENTION));
        let Ok(Target::Rows(rows)) = to else {
            panic!("rows of the fused layer");
        };
        assert_eq!((rows.first, rows.head, rows.sharing), (18, 3, 2));
        let of: Vec<usize> = (0..12).map(|i| rows.of(i)).collect();
        assert_eq!(of, [0, 1, 2, 0, 1, 2, 3, 4, 5, 3, 4, 5]);
        let mut s: Vec<f32> = (0..12).map(|i| i as f32).collect();
        Target::Rows(rows).tie(&mut s, f32::max);
        assert_eq!(
            s,
            [
                3.0, 4.0, 5.0, 3.0, 4.0, 5.0, 9.0, 10.0, 11.0, 9.0, 10.0, 11.0
            ]
        );
        assert_eq!(
            Target::Rows(rows).name(&module(ATTENTION).funcs[0]),
            "fold into rows of qkv"
        );
    }

    #[test]
    fn what_cannot_take_factors_says_why() {
        let why = |m: &Module| found(m).1.unwrap_err();
        assert_eq!(why(&between("gelu %u")), "gelu takes no factors");
        assert_eq!(why(&between("silu %u")), "silu takes no factors");
        // The keys reach into the values.
        let overlap = ATTENTION.replace("12], ends = [1, s, 18]", "13], ends = [1, s, 19]");
        assert_eq!(why(&module(&overlap)), "no layer makes it alone");
        let twice = ATTENTION
            .replace(
                "-> (y: f32[1, s, 5])",
                "-> (y: f32[1, s, 5], a: f32[1, s, 24])",
            )
            .replace("return %y", "return %y, %a");
        assert_eq!(why(&module(&twice)), "no layer makes it alone");
    }
}
