//! Composition: a body that reads what another stores becomes one body.
//!
//! ```text
//! p: (v₁, …, vₘ) = head { … store e₁; …; store eₘ }      c: (…) = map { … f(in_j, …) … }
//! operand j of c is v_i   ⇒   c∘p = head { … f(e_i, …) … }
//! ```
//!
//! The result has the stores of `p` that are kept and then those of `c`. It is equal in real
//! arithmetic, and bit for bit where every replaced value is stored as f32, i64 or bool, the
//! types in which expressions compute: then nothing was rounded in between. Integers of other
//! formats keep their conversion; the rounding of a float to 16 bits is dropped.

use super::body::{Body, Head, Reason, stored};
use egg::Id;
use qcc_ir::expr::{Expr, Node as Step, NodeId, Store};
use qcc_ir::format::Block;
use qcc_ir::graph::{Elem, OpKind, TensorType};

/// Most operands that an expression can name.
const MAX_OPERANDS: usize = 255;

/// Widest group of columns whose scale an epilogue can compute inside a tile.
const MAX_TILE_GROUP: u64 = 128;

/// `c∘p`. `from[j]` is the store of `p` that operand `j` of `c` reads; stores of `p` with
/// `keep` stay.
///
/// # Errors
/// Why one kernel cannot do both.
pub(super) fn compose(
    c: &Body,
    p: &Body,
    from: &[Option<usize>],
    keep: &[bool],
) -> Result<Body, Reason> {
    check(c, p, from)?;
    let mut operands: Vec<Id> = p.operands.clone();
    let mut expr = Expr {
        nodes: p.expr.nodes.clone(),
        stores: Vec::new(),
    };
    let mut results = Vec::new();
    for ((store, ty), keep) in p.expr.stores.iter().zip(&p.results).zip(keep) {
        if *keep {
            expr.stores.push(*store);
            results.push(ty.clone());
        }
    }
    // Operands of `c` that are not replaced follow those of `p`.
    let renamed: Vec<Option<u8>> = from
        .iter()
        .zip(&c.operands)
        .map(|(from, class)| match from {
            Some(_) => None,
            None => {
                operands.push(*class);
                Some((operands.len() - 1) as u8)
            }
        })
        .collect();
    if operands.len() > MAX_OPERANDS {
        return Err(format!("together they read {} operands", operands.len()));
    }
    let steps = insert(c, p, from, &renamed, &mut expr)?;
    let rename = |k: Option<u8>| k.and_then(|k| renamed[usize::from(k)]);
    for s in &c.expr.stores {
        expr.stores.push(Store {
            value: steps[s.value.0 as usize],
            scale: rename(s.scale),
            zero: rename(s.zero),
        });
    }
    results.extend(c.results.iter().cloned());
    let body = Body {
        head: p.head.clone(),
        core: p.core,
        operands,
        expr,
        results,
    };
    Ok(body.tidy())
}

/// Appends the steps of `c` to `expr`, which begins with those of `p`; gives their new places.
fn insert(
    c: &Body,
    p: &Body,
    from: &[Option<usize>],
    renamed: &[Option<u8>],
    expr: &mut Expr,
) -> Result<Vec<NodeId>, Reason> {
    let mut steps: Vec<NodeId> = Vec::with_capacity(c.expr.nodes.len());
    for n in &c.expr.nodes {
        let at = |id: NodeId| steps[id.0 as usize];
        let new = match *n {
            Step::Input(k) => match (from[usize::from(k)], renamed[usize::from(k)]) {
                (Some(i), _) => {
                    steps.push(read_back(p, i, expr)?);
                    continue;
                }
                (None, Some(k)) => Step::Input(k),
                (None, None) => return Err("an operand has no place".into()),
            },
            Step::Unary(f, a) => Step::Unary(f, at(a)),
            Step::Binary(f, a, b) => Step::Binary(f, at(a), at(b)),
            Step::Select(x, a, b) => Step::Select(at(x), at(a), at(b)),
            Step::Cast(d, a) => Step::Cast(d, at(a)),
            leaf => leaf,
        };
        steps.push(expr.push(new));
    }
    Ok(steps)
}

/// The value of store `i` of `p` as a reader sees it.
fn read_back(p: &Body, i: usize, expr: &mut Expr) -> Result<NodeId, Reason> {
    let value = p.expr.stores[i].value;
    match &p.results[i].elem {
        // What is stored computes in the compute type of its format already.
        Elem::Plain(d) => Ok(stored(expr, value, *d, *d)),
        Elem::Quant(_) => Err("what is rounded to codes cannot be read back in the kernel".into()),
    }
}

fn check(c: &Body, p: &Body, from: &[Option<usize>]) -> Result<(), Reason> {
    if c.head != Head::Map {
        return Err("the reader is no elementwise op".into());
    }
    for (j, i) in from.iter().enumerate() {
        let Some(i) = i else { continue };
        let param = |k: Option<u8>| k == Some(j as u8);
        if c.expr
            .stores
            .iter()
            .any(|s| param(s.scale) || param(s.zero))
        {
            return Err("the value is the scale of a store, which must be known before".into());
        }
        if let Some(r) = c.results.iter().find(|r| r.shape != p.results[*i].shape) {
            return Err(format!(
                "{} is broadcast to {r} and would be computed again for each copy",
                p.results[*i]
            ));
        }
    }
    c.results.iter().try_for_each(|r| dynamic(&p.head, r))
}

/// Whether a kernel with this head sees, in one piece, the elements that share a dynamic scale.
fn dynamic(head: &Head, r: &TensorType) -> Result<(), Reason> {
    let Some(q) = r.elem.quant().filter(|q| q.dynamic) else {
        return Ok(());
    };
    let Some((last, lead)) = q.block.0.split_last() else {
        return Err("a scalar has no dynamic scale".into());
    };
    if lead.iter().any(|b| *b != Block::Fixed(1)) {
        return Err(format!(
            "a dynamic scale of block {} needs more than one row",
            q.block
        ));
    }
    let kernel = match head {
        Head::Map | Head::Skeleton(OpKind::LayerNorm { .. } | OpKind::RmsNorm { .. }) => {
            return Ok(());
        }
        Head::Skeleton(kind) => kind,
    };
    let columns = r.shape.last().and_then(|d| d.as_const()).unwrap_or(0);
    match (kernel, last) {
        (OpKind::Linear { .. }, Block::Fixed(g))
            if *g <= MAX_TILE_GROUP && g.is_power_of_two() && columns % (*g as i64) == 0 =>
        {
            Ok(())
        }
        (OpKind::Linear { .. }, Block::All) => Err(
            "a scale per token needs the whole row, and the epilogue of a linear sees one tile of it"
                .into(),
        ),
        _ => Err(format!(
            "a dynamic scale of block {} reaches beyond what one block of `{}` computes",
            q.block,
            kernel.name()
        )),
    }
}
