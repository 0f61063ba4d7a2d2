//! `Attention` and `RotaryEmbedding` of operator set 23.

use qcc_ir::DimExpr;
use qcc_ir::diag::Result;
use qcc_ir::graph::{AttentionAttrs, Elem, OpKind, RotaryAttrs, ValueId};

use super::super::error::{self, unsupported};
use super::super::node::{Node, Val, operand};
use super::super::scope::Scope;
use super::one;

/// A tensor of heads, `[b, s, h·d]`, and how many heads it has.
struct Heads {
    v: ValueId,
    count: u64,
    /// Whether the operand came as `[b, h, s, d]`.
    split: bool,
}

fn heads(s: &mut Scope, v: &Val, attribute: Option<i64>) -> Result<Heads> {
    let v = s.value(v)?;
    let ty = s.b.ty(v).clone();
    match (ty.shape.as_slice(), attribute) {
        ([b, h, len, d], _) => {
            let count = h
                .as_const()
                .and_then(|h| u64::try_from(h).ok())
                .filter(|&h| h > 0);
            let count = count.ok_or_else(|| operand(format!("the heads of {ty} are not known")))?;
            let shape = vec![b.clone(), len.clone(), h * d];
            let moved = s.b.transpose(v, vec![0, 2, 1, 3])?;
            let v = s.b.reshape(moved, shape);
            Ok(Heads {
                v,
                count,
                split: true,
            })
        }
        ([_, _, _], Some(count)) if count > 0 => Ok(Heads {
            v,
            count: count as u64,
            split: false,
        }),
        _ => Err(operand(format!(
            "{ty} has no heads; the number of heads is {attribute:?}"
        ))),
    }
}

/// `[b, s, h·d]` as `[b, h, s, d]`.
fn split_heads(s: &mut Scope, v: ValueId, count: u64) -> Result<ValueId> {
    let shape = s.b.ty(v).shape.clone();
    let count = DimExpr::from(count as i64);
    let width = shape[2].exact_div(&count).ok_or_else(|| {
        operand(format!(
            "{} columns do not split into {count} heads",
            shape[2]
        ))
    })?;
    let split = vec![shape[0].clone(), shape[1].clone(), count, width];
    let split = s.b.reshape(v, split);
    s.b.transpose(split, vec![0, 2, 1, 3])
}

/// Past keys or values in front of the new ones; both as `[b, h, t, d]` for the result.
fn with_past(s: &mut Scope, new: &mut Heads, past: Option<&Val>) -> Result<Option<ValueId>> {
    let Some(past) = past else { return Ok(None) };
    let past = s.value(past)?;
    let now = split_heads(s, new.v, new.count)?;
    let (a, b) = (s.b.ty(past).clone(), s.b.ty(now).clone());
    let fits = a.rank() == 4 && a.elem == b.elem;
    if !fits {
        return Err(operand(format!("past {a} does not fit {b}")));
    }
    for i in [0, 1, 3] {
        s.same_dim(&a.shape[i], &b.shape[i], "past")?;
    }
    let all = s.b.same(OpKind::Concat { axis: 2 }, &[past, now])?;
    new.v = heads(s, &Val::Value(all), None)?.v;
    Ok(Some(all))
}

/// `Attention`
pub(super) fn attention(s: &mut Scope, n: &Node) -> Result<Vec<Val>> {
    n.attrs
        .ignore(&["softmax_precision", "qk_matmul_output_mode"]);
    n.only_outputs(3)?;
    if n.attrs.float_or("softcap", 0.0)? != 0.0 {
        return Err(unsupported(
            error::ATTRIBUTE,
            "attribute `softcap` is not supported",
        ));
    }
    let (q_heads, kv_heads) = (n.attrs.int("q_num_heads")?, n.attrs.int("kv_num_heads")?);
    let q = heads(s, n.input(0)?, q_heads)?;
    let mut k = heads(s, n.input(1)?, kv_heads)?;
    let mut v = heads(s, n.input(2)?, kv_heads)?;
    let present_k = with_past(s, &mut k, n.optional(4))?;
    let present_v = with_past(s, &mut v, n.optional(5))?;
    fit(s, &q, &k, &v)?;
    let width = s.b.ty(q.v).shape[2].exact_div(&DimExpr::from(q.count as i64));
    let width = width.and_then(|w| w.as_const()).filter(|&w| w > 0);
    let width = width.ok_or_else(|| operand("the width of a head is not known"))?;
    let scale = n
        .attrs
        .float("scale")?
        .unwrap_or(1.0 / (width as f32).sqrt());
    let causal = n.attrs.flag("is_causal", false)?;
    if causal && s.b.ty(q.v).shape[1] != s.b.ty(k.v).shape[1] {
        return Err(unsupported(
            error::ATTRIBUTE,
            "attribute `is_causal` with as many keys as queries only",
        ));
    }
    let mut operands = vec![q.v, k.v, v.v];
    if let Some(mask) = n.optional(3) {
        operands.push(mask_operand(s, mask, &q, &k)?);
    }
    let attrs = AttentionAttrs {
        heads: q.count,
        kv_heads: k.count,
        scale: scale.to_bits(),
        mask: operands.len() > 3,
        causal,
    };
    let y =
        s.b.same(OpKind::Attention { attrs, expr: None }, &operands)?;
    let y = match q.split {
        true => split_heads(s, y, q.count)?,
        false => y,
    };
    let mut results = vec![Val::Value(y)];
    results.extend([present_k, present_v].into_iter().flatten().map(Val::Value));
    Ok(results)
}

/// Checks the shapes of queries, keys and values against each other.
fn fit(s: &mut Scope, q: &Heads, k: &Heads, v: &Heads) -> Result<()> {
    let [tq, tk, tv] = [q, k, v].map(|h| s.b.ty(h.v).clone());
    let per_head = |columns: &DimExpr, count: u64| columns.exact_div(&DimExpr::from(count as i64));
    let same_width = per_head(&tq.shape[2], q.count) == per_head(&tk.shape[2], k.count);
    if k.count != v.count
        || !q.count.is_multiple_of(k.count)
        || !same_width
        || tq.elem != tk.elem
        || tq.elem != tv.elem
    {
        return Err(operand(format!(
            "Attention of q {tq} with {} heads, k {tk} with {} and v {tv} with {}",
            q.count, k.count, v.count
        )));
    }
    s.same_dim(&tq.shape[0], &tk.shape[0], "Attention")?;
    s.same_dim(&tq.shape[0], &tv.shape[0], "Attention")?;
    s.same_dim(&tk.shape[1], &tv.shape[1], "Attention")
}

/// A mask with four dimensions that broadcasts to `[b, h, s, t]`.
fn mask_operand(s: &mut Scope, mask: &Val, q: &Heads, k: &Heads) -> Result<ValueId> {
    let mask = s.value(mask)?;
    let ty = s.b.ty(mask).clone();
    let bool_mask = ty.elem == Elem::Plain(qcc_ir::DType::Bool);
    if !bool_mask && ty.elem != s.b.ty(q.v).elem {
        return Err(operand(format!(
            "mask {ty} is neither bool nor of the queries' format"
        )));
    }
    let (tq, tk) = (s.b.ty(q.v).clone(), s.b.ty(k.v).clone());
    let heads = DimExpr::from(q.count as i64);
    let scores = [
        tq.shape[0].clone(),
        heads,
        tq.shape[1].clone(),
        tk.shape[1].clone(),
    ];
    if ty.rank() > 4 || s.broadcast(&ty.shape, &scores)? != scores {
        return Err(operand(format!(
            "mask {ty} does not fit scores of [b, h, s, t]"
        )));
    }
    let mut shape = vec![DimExpr::from(1); 4 - ty.rank()];
    shape.extend(ty.shape);
    Ok(s.b.reshape(mask, shape))
}

/// `RotaryEmbedding` of whole heads.
pub(super) fn rotary(s: &mut Scope, n: &Node) -> Result<Vec<Val>> {
    n.attrs.only("rotary_embedding_dim", 0)?;
    let x = heads(s, n.input(0)?, n.attrs.int("num_heads")?)?;
    let mut tables = [ValueId(0); 2];
    for (at, table) in tables.iter_mut().enumerate() {
        *table = s.value(n.input(at + 1)?)?;
        if let Some(positions) = n.optional(3) {
            // One row of the table per position: [max, d/2] becomes [b, s, d/2].
            let positions = s.value(positions)?;
            let elem = s.b.ty(*table).elem.clone();
            *table =
                s.b.infer(OpKind::Gather { axis: 0 }, &[*table, positions], elem)?[0];
        }
    }
    let attrs = RotaryAttrs {
        heads: x.count,
        interleaved: n.attrs.flag("interleaved", false)?,
    };
    let y =
        s.b.same(OpKind::Rotary(attrs), &[x.v, tables[0], tables[1]])?;
    match x.split {
        true => split_heads(s, y, x.count).and_then(one),
        false => one(y),
    }
}
