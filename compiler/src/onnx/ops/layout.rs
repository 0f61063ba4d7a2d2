//! Operators that move elements without computing.

use qcc_ir::diag::Result;
use qcc_ir::expr::BinaryFn;
use qcc_ir::graph::{OpKind, TensorType, ValueId};
use qcc_ir::{DType, DimExpr};

use super::super::error::{self, unsupported};
use super::super::node::{Node, Val, axis, operand};
use super::super::scope::Scope;
use super::one;

/// `Transpose`; without `perm` the dimensions are reversed.
pub(super) fn transpose(s: &mut Scope, n: &Node) -> Result<Vec<Val>> {
    let x = s.value(n.input(0)?)?;
    let perm = permutation(n, s.b.ty(x).rank())?;
    one(s.b.transpose(x, perm)?)
}

/// The permutation of a `Transpose`.
pub(in super::super) fn permutation(n: &Node, rank: usize) -> Result<Vec<usize>> {
    let Some(given) = n.attrs.ints("perm")? else {
        return Ok((0..rank).rev().collect());
    };
    if super::super::node::axes(given, rank)?.len() != rank {
        return Err(operand(format!(
            "{given:?} is no permutation of {rank} dimensions"
        )));
    }
    given.iter().map(|&a| axis(a, rank)).collect()
}

/// `Concat`
pub(super) fn concat(s: &mut Scope, n: &Node) -> Result<Vec<Val>> {
    let values = n
        .all_inputs()?
        .into_iter()
        .map(|v| s.value(v))
        .collect::<Result<Vec<ValueId>>>()?;
    let first = s.b.ty(values[0]).clone();
    let along = n
        .attrs
        .int("axis")?
        .ok_or_else(|| operand("Concat needs an axis"))?;
    let along = axis(along, first.rank())?;
    for v in &values[1..] {
        let ty = s.b.ty(*v).clone();
        if ty.elem != first.elem || ty.rank() != first.rank() {
            return Err(operand(format!("Concat of {first} and {ty}")));
        }
        for i in (0..ty.rank()).filter(|&i| i != along) {
            s.same_dim(&first.shape[i], &ty.shape[i], "Concat")?;
        }
    }
    match values.as_slice() {
        [only] => one(*only),
        _ => one(s.b.same(OpKind::Concat { axis: along }, &values)?),
    }
}

/// `Expand`: NumPy broadcasting with a shape.
pub(super) fn expand(s: &mut Scope, n: &Node) -> Result<Vec<Val>> {
    let x = s.value(n.input(0)?)?;
    let target = s.known(n.input(1)?, "the target shape")?;
    let own = s.b.ty(x).shape.clone();
    let shape = s.broadcast(&own, &target.elems)?;
    one(s.expand(x, shape))
}

/// `Tile`: `x[d]` as `[1, d]`, repeated to `[r, d]`, seen as `[r·d]`, for each dimension.
pub(super) fn tile(s: &mut Scope, n: &Node) -> Result<Vec<Val>> {
    let x = s.value(n.input(0)?)?;
    let shape = s.b.ty(x).shape.clone();
    let repeats = s.known(n.input(1)?, "the number of repeats")?.elems;
    if repeats.len() != shape.len() {
        return Err(operand(format!(
            "Tile needs {} repeats, it has {}",
            shape.len(),
            repeats.len()
        )));
    }
    let interleave = |count: &dyn Fn(&DimExpr) -> DimExpr| -> Vec<DimExpr> {
        let pairs = shape.iter().zip(&repeats);
        pairs.flat_map(|(d, r)| [count(r), d.clone()]).collect()
    };
    let split = s.b.reshape(x, interleave(&|_| DimExpr::from(1)));
    let wide = s.expand(split, interleave(&|r| r.clone()));
    let out = shape.iter().zip(&repeats).map(|(d, r)| d * r).collect();
    one(s.b.reshape(wide, out))
}

/// `Pad` with a constant; negative amounts cut.
pub(super) fn pad(s: &mut Scope, n: &Node) -> Result<Vec<Val>> {
    let mode = n.attrs.text_or("mode", "constant")?;
    if mode != "constant" {
        return Err(unsupported(
            error::ATTRIBUTE,
            format!("attribute `mode` is `{mode}`; only constant is supported"),
        ));
    }
    let x = s.value(n.input(0)?)?;
    let rank = s.b.ty(x).rank();
    let amounts = s.numbers(n.input(1)?, "the padding")?;
    let value = match n.optional(2) {
        Some(v) => s
            .number(v)
            .ok_or_else(|| operand("Pad needs a number to pad with"))?,
        None => 0.0,
    };
    let along: Vec<usize> = match n.optional(3) {
        Some(v) => {
            let given = s.numbers(v, "the axes")?;
            super::super::node::axes(&given, rank)?;
            given
                .iter()
                .map(|&a| axis(a, rank))
                .collect::<Result<_>>()?
        }
        None => (0..rank).collect(),
    };
    if amounts.len() != 2 * along.len() {
        return Err(operand(format!(
            "Pad of {} dimensions has {} amounts",
            along.len(),
            amounts.len()
        )));
    }
    let (mut lo, mut hi) = (vec![0i64; rank], vec![0i64; rank]);
    for (i, &a) in along.iter().enumerate() {
        lo[a] = amounts[i];
        hi[a] = amounts[i + along.len()];
    }
    let cut = cut(s, x, &lo, &hi)?;
    let size = |v: &[i64]| v.iter().map(|&v| v.max(0) as u64).collect::<Vec<u64>>();
    let (lo, hi) = (size(&lo), size(&hi));
    if lo.iter().chain(&hi).all(|&v| v == 0) {
        return one(cut);
    }
    if lo.iter().chain(&hi).any(|&v| v > u64::from(u32::MAX)) {
        return Err(operand("Pad by more than 2^32 elements"));
    }
    let value = value.to_bits();
    one(s.b.same(OpKind::Pad { lo, hi, value }, &[cut])?)
}

/// Drops elements where the amounts are negative.
fn cut(s: &mut Scope, x: ValueId, lo: &[i64], hi: &[i64]) -> Result<ValueId> {
    if lo.iter().chain(hi).all(|&v| v >= 0) {
        return Ok(x);
    }
    let shape = s.b.ty(x).shape.clone();
    let starts: Vec<DimExpr> = lo
        .iter()
        .map(|&v| DimExpr::from(v.min(0).saturating_neg()))
        .collect();
    let ends: Vec<DimExpr> = shape
        .iter()
        .zip(hi)
        .map(|(d, &v)| d + &DimExpr::from(v.min(0)))
        .collect();
    for (start, end) in starts.iter().zip(&ends) {
        if s.dims.at_most(start, end) != Some(true) {
            return Err(operand(format!("Pad would cut from {start} to {end}")));
        }
    }
    let steps = vec![1; shape.len()];
    s.b.same(
        OpKind::Slice {
            starts,
            ends,
            steps,
        },
        &[x],
    )
}

/// `Trilu`: zeros below (`upper`) or above the diagonal `k`.
pub(super) fn trilu(s: &mut Scope, n: &Node) -> Result<Vec<Val>> {
    let x = s.value(n.input(0)?)?;
    let k = match n.optional(1) {
        Some(v) => s.known(v, "the diagonal")?.single().cloned(),
        None => Some(DimExpr::from(0)),
    };
    let k = k.ok_or_else(|| operand("Trilu needs one diagonal"))?;
    let shape = s.b.ty(x).shape.clone();
    let [.., rows, columns] = shape.as_slice() else {
        return Err(operand("Trilu needs a matrix"));
    };
    let index = |s: &mut Scope, dims: [DimExpr; 2], axis: usize| {
        let ty = TensorType::new(DType::I64, dims);
        s.b.op(OpKind::Iota { axis }, &[], ty)
    };
    let one_dim = DimExpr::from(1);
    let mut row = index(s, [rows.clone(), one_dim.clone()], 0);
    let column = index(s, [one_dim, columns.clone()], 1);
    if k.as_const() != Some(0) {
        let k = s.value(&Val::Sym(super::super::sym::SymTensor::scalar(k)))?;
        row = s.binary(BinaryFn::Add, row, k)?;
    }
    let f = match n.attrs.flag("upper", true)? {
        true => BinaryFn::Ge,
        false => BinaryFn::Le,
    };
    let keep = s.binary(f, column, row)?;
    let zero = s.scalar_like(x, 0.0)?;
    s.select(keep, x, zero).and_then(one)
}

/// `DepthToSpace`
pub(super) fn depth_to_space(s: &mut Scope, n: &Node) -> Result<Vec<Val>> {
    let x = s.value(n.input(0)?)?;
    let (b, c, h, w, k) = image(s, n, x)?;
    let depth = c
        .exact_div(&(&k * &k))
        .ok_or_else(|| operand(format!("{c} channels do not split into blocks")))?;
    let order = n.attrs.text_or("mode", "DCR")?;
    let (split, perm) = match order {
        "DCR" => (
            vec![
                b.clone(),
                k.clone(),
                k.clone(),
                depth.clone(),
                h.clone(),
                w.clone(),
            ],
            vec![0, 3, 4, 1, 5, 2],
        ),
        "CRD" => (
            vec![
                b.clone(),
                depth.clone(),
                k.clone(),
                k.clone(),
                h.clone(),
                w.clone(),
            ],
            vec![0, 1, 4, 2, 5, 3],
        ),
        other => {
            return Err(unsupported(
                error::ATTRIBUTE,
                format!("attribute `mode` is `{other}`; DCR and CRD are supported"),
            ));
        }
    };
    let split = s.b.reshape(x, split);
    let moved = s.b.transpose(split, perm)?;
    one(s.b.reshape(moved, vec![b, depth, &h * &k, &w * &k]))
}

/// `SpaceToDepth`
pub(super) fn space_to_depth(s: &mut Scope, n: &Node) -> Result<Vec<Val>> {
    let x = s.value(n.input(0)?)?;
    let (b, c, h, w, k) = image(s, n, x)?;
    let (Some(rows), Some(columns)) = (h.exact_div(&k), w.exact_div(&k)) else {
        return Err(operand(format!(
            "an image of {h} by {w} does not split into blocks"
        )));
    };
    let split = vec![
        b.clone(),
        c.clone(),
        rows.clone(),
        k.clone(),
        columns.clone(),
        k.clone(),
    ];
    let split = s.b.reshape(x, split);
    let moved = s.b.transpose(split, vec![0, 3, 5, 1, 2, 4])?;
    one(s.b.reshape(moved, vec![b, &c * &(&k * &k), rows, columns]))
}

/// Batch, channels, height and width of an image, and the block size.
fn image(s: &Scope, n: &Node, x: ValueId) -> Result<(DimExpr, DimExpr, DimExpr, DimExpr, DimExpr)> {
    let k = n.attrs.int_or("blocksize", 0)?;
    match s.b.ty(x).shape.as_slice() {
        [b, c, h, w] if k > 0 => Ok((b.clone(), c.clone(), h.clone(), w.clone(), k.into())),
        _ => Err(operand(format!(
            "{} needs four dimensions and a positive block size, not {} and {k}",
            n.op,
            s.b.ty(x)
        ))),
    }
}
