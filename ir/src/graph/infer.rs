//! Shape rules: the shapes of an op's results, from its attributes and its operands' types.
//!
//! A rule answers `None` for a result whose shape is an attribute carried by the result type
//! itself (`reshape`, `expand`, `splat`, …). The verifier compares what is written with what is
//! inferred; the [`super::Builder`] uses the same rules to spare the caller the types.

use super::op::{OpKind, Window};
use super::types::TensorType;
use crate::DimExpr;
use crate::diag::{Class, Diagnostic, Result};

/// Shape of each result; `None` where the result type decides.
type Shapes = Vec<Option<Vec<DimExpr>>>;

pub(super) fn bad(message: impl Into<String>) -> Diagnostic {
    Diagnostic::error(202, Class::Internal, message)
}

/// NumPy broadcasting of two shapes.
///
/// Two different symbolic extents are refused: the model would have to be checked at run time.
///
/// # Errors
/// When two extents differ and neither is 1.
pub fn broadcast(a: &[DimExpr], b: &[DimExpr]) -> Result<Vec<DimExpr>> {
    let rank = a.len().max(b.len());
    let one = DimExpr::from(1);
    let at = |s: &[DimExpr], i: usize| {
        (i + s.len())
            .checked_sub(rank)
            .and_then(|j| s.get(j))
            .cloned()
    };
    (0..rank)
        .map(|i| match (at(a, i), at(b, i)) {
            (Some(x), Some(y)) if x == y || y == one => Ok(x),
            (Some(x), Some(y)) if x == one => Ok(y),
            (Some(x), Some(y)) => Err(bad(format!(
                "shapes {} and {} do not broadcast: {x} against {y} in dimension {i}",
                show(a),
                show(b)
            ))),
            (Some(x), None) | (None, Some(x)) => Ok(x),
            (None, None) => Ok(one.clone()),
        })
        .collect()
}

/// `[a, b, c]`
pub(super) fn show(s: &[DimExpr]) -> String {
    let parts: Vec<String> = s.iter().map(ToString::to_string).collect();
    format!("[{}]", parts.join(", "))
}

/// The shapes of the results of `kind` applied to operands of these types.
///
/// # Errors
/// When an attribute or an operand's shape breaks the op's rule; the message names both sides.
pub fn infer_shapes(kind: &OpKind, operands: &[&TensorType]) -> Result<Shapes> {
    let (lo, hi) = kind.arity();
    if operands.len() < lo || operands.len() > hi {
        return Err(bad(format!(
            "`{}` takes {lo}{} operands, not {}",
            kind.name(),
            if hi == lo {
                String::new()
            } else if hi == usize::MAX {
                " or more".into()
            } else {
                format!(" to {hi}")
            },
            operands.len()
        )));
    }
    let sh = |i: usize| operands[i].shape.as_slice();
    let one = |s: Vec<DimExpr>| Ok(vec![Some(s)]);
    match kind {
        OpKind::Const { .. } | OpKind::Splat { .. } | OpKind::Iota { .. } => Ok(vec![None]),
        OpKind::Reshape | OpKind::Expand => Ok(vec![None]),
        OpKind::Dim { .. } => one(Vec::new()),
        OpKind::Unary(_) | OpKind::Cast | OpKind::Quantize | OpKind::Dequantize => {
            one(sh(0).to_vec())
        }
        OpKind::Softmax { axis } | OpKind::CumSum { axis } => {
            axis_of(*axis, operands[0])?;
            one(sh(0).to_vec())
        }
        OpKind::Binary(_) => one(broadcast(sh(0), sh(1))?),
        OpKind::Select => one(broadcast(&broadcast(sh(0), sh(1))?, sh(2))?),
        OpKind::Map(e) => {
            let mut s = Vec::new();
            for o in operands
                .iter()
                .enumerate()
                .filter(|(i, _)| !is_param(e, *i))
            {
                s = broadcast(&s, &o.1.shape)?;
            }
            Ok(vec![Some(s); e.stores.len()])
        }
        OpKind::Transpose { perm } => one(transpose(sh(0), perm)?),
        OpKind::Slice {
            starts,
            ends,
            steps,
        } => one(slice(sh(0), starts, ends, steps)?),
        OpKind::Concat { axis } => one(concat(operands, *axis)?),
        OpKind::Pad { lo, hi, .. } => one(pad(sh(0), lo, hi)?),
        OpKind::Gather { axis } => one(gather(operands, *axis)?),
        OpKind::Reduce { axes, keep, .. } => one(reduce(operands[0], axes, *keep)?),
        OpKind::MatMul => one(matmul(sh(0), sh(1))?),
        OpKind::Linear {
            segments,
            accs,
            expr,
        } => {
            let s = linear(sh(0), sh(1), *accs)?;
            segment(&s, segments, expr.as_ref().map_or(1, |e| e.stores.len()))
        }
        OpKind::SparseLinear => one(sparse_linear(sh(0), sh(1), sh(2))?),
        OpKind::Conv {
            window,
            groups,
            expr,
        } => {
            let s = conv(sh(0), sh(1), window, *groups)?;
            Ok(vec![Some(s); expr.as_ref().map_or(1, |e| e.stores.len())])
        }
        OpKind::Pool { window, .. } => one(pooled(sh(0), window)?),
        OpKind::LayerNorm { expr, .. } | OpKind::RmsNorm { expr, .. } => {
            norm(sh(0), sh(1))?;
            Ok(vec![
                Some(sh(0).to_vec());
                expr.as_ref().map_or(1, |e| e.stores.len())
            ])
        }
        OpKind::Attention { attrs, expr } => {
            let s = attention(operands, attrs)?;
            Ok(vec![Some(s); expr.as_ref().map_or(1, |e| e.stores.len())])
        }
        OpKind::Rotary(a) => {
            rotary(operands, a.heads)?;
            let turned = operands.iter().enumerate().filter(|(i, _)| i % 3 == 0);
            Ok(turned.map(|(_, t)| Some(t.shape.clone())).collect())
        }
    }
}

/// Whether operand `i` only holds a scale or zero point of a store.
fn is_param(e: &crate::expr::Expr, i: usize) -> bool {
    let i = i as u8;
    let read = e
        .nodes
        .iter()
        .any(|n| matches!(n, crate::expr::Node::Input(k) if *k == i));
    !read
        && e.stores
            .iter()
            .any(|s| s.scale == Some(i) || s.zero == Some(i))
}

fn axis_of(axis: usize, t: &TensorType) -> Result<&DimExpr> {
    t.shape
        .get(axis)
        .ok_or_else(|| bad(format!("axis {axis} does not exist in {t}")))
}

fn transpose(s: &[DimExpr], perm: &[usize]) -> Result<Vec<DimExpr>> {
    let mut seen: Vec<usize> = perm.to_vec();
    seen.sort_unstable();
    if seen != (0..s.len()).collect::<Vec<_>>() {
        return Err(bad(format!(
            "{perm:?} is no permutation of the {} dimensions of {}",
            s.len(),
            show(s)
        )));
    }
    Ok(perm.iter().map(|p| s[*p].clone()).collect())
}

fn slice(s: &[DimExpr], lo: &[DimExpr], hi: &[DimExpr], steps: &[u64]) -> Result<Vec<DimExpr>> {
    if lo.len() != s.len() || hi.len() != s.len() || steps.len() != s.len() || steps.contains(&0) {
        return Err(bad(format!(
            "slice of {} needs a start, an end and a step of at least 1 per dimension",
            show(s)
        )));
    }
    Ok(lo
        .iter()
        .zip(hi)
        .zip(steps)
        .map(|((l, h), st)| {
            let n = DimExpr::extent(*st);
            (&(h - l) + &(&n - &DimExpr::from(1))).floor_div(&n)
        })
        .collect())
}

fn concat(operands: &[&TensorType], axis: usize) -> Result<Vec<DimExpr>> {
    let mut out = operands[0].shape.clone();
    axis_of(axis, operands[0])?;
    for t in &operands[1..] {
        let same = t.rank() == out.len()
            && t.shape
                .iter()
                .zip(&out)
                .enumerate()
                .all(|(i, (a, b))| i == axis || a == b);
        if !same {
            return Err(bad(format!(
                "concat along {axis}: {t} does not fit {}",
                operands[0]
            )));
        }
        out[axis] = &out[axis] + &t.shape[axis];
    }
    Ok(out)
}

fn pad(s: &[DimExpr], lo: &[u64], hi: &[u64]) -> Result<Vec<DimExpr>> {
    if lo.len() != s.len() || hi.len() != s.len() {
        return Err(bad(format!(
            "pad of {} needs two amounts per dimension",
            show(s)
        )));
    }
    let add = |n: &u64| DimExpr::extent(*n);
    Ok(s.iter()
        .zip(lo)
        .zip(hi)
        .map(|((d, l), h)| d.clone() + add(l) + add(h))
        .collect())
}

fn gather(operands: &[&TensorType], axis: usize) -> Result<Vec<DimExpr>> {
    axis_of(axis, operands[0])?;
    let (data, idx) = (&operands[0].shape, &operands[1].shape);
    let parts = [&data[..axis], idx, &data[axis + 1..]];
    Ok(parts.concat())
}

fn reduce(x: &TensorType, axes: &[usize], keep: bool) -> Result<Vec<DimExpr>> {
    for a in axes {
        axis_of(*a, x)?;
    }
    if axes.windows(2).any(|w| w[0] >= w[1]) {
        return Err(bad(format!("axes {axes:?} must increase")));
    }
    let kept = |i: usize| !axes.contains(&i);
    Ok(x.shape
        .iter()
        .enumerate()
        .filter(|(i, _)| keep || kept(*i))
        .map(|(i, d)| if kept(i) { d.clone() } else { DimExpr::from(1) })
        .collect())
}

fn matmul(a: &[DimExpr], b: &[DimExpr]) -> Result<Vec<DimExpr>> {
    let ([ab @ .., m, k], [bb @ .., k2, n]) = (a, b) else {
        return Err(bad(format!(
            "matmul needs two matrices, not {} and {}",
            show(a),
            show(b)
        )));
    };
    if k != k2 {
        return Err(bad(format!(
            "matmul: {k} columns of {} against {k2} rows of {}",
            show(a),
            show(b)
        )));
    }
    let mut out = broadcast(ab, bb)?;
    out.extend([m.clone(), n.clone()]);
    Ok(out)
}

fn linear(x: &[DimExpr], w: &[DimExpr], accs: u8) -> Result<Vec<DimExpr>> {
    let ([rows @ .., k], [n, k2]) = (x, w) else {
        return Err(bad(format!(
            "linear needs x[…, k] and w[n, k], not {} and {}",
            show(x),
            show(w)
        )));
    };
    if k != k2 {
        return Err(bad(format!(
            "linear: x {} has {k} columns, w {} has {k2}",
            show(x),
            show(w)
        )));
    }
    if !(1..=2).contains(&accs) {
        return Err(bad(format!("linear has 1 or 2 accumulators, not {accs}")));
    }
    let mut out = rows.to_vec();
    out.push(n.floor_div(&DimExpr::from(i64::from(accs))));
    Ok(out)
}

fn sparse_linear(x: &[DimExpr], columns: &[DimExpr], values: &[DimExpr]) -> Result<Vec<DimExpr>> {
    let ([rows @ .., _], [n, _]) = (x, columns) else {
        return Err(bad(format!(
            "sparse_linear needs x[…, k] and columns[n, s], not {} and {}",
            show(x),
            show(columns)
        )));
    };
    if columns != values {
        return Err(bad(format!(
            "sparse_linear: columns {} and values {} differ",
            show(columns),
            show(values)
        )));
    }
    Ok([rows, std::slice::from_ref(n)].concat())
}

fn segment(s: &[DimExpr], segments: &[u64], stores: usize) -> Result<Shapes> {
    if segments.is_empty() {
        return Ok(vec![Some(s.to_vec()); stores]);
    }
    let (n, rows) = s.split_last().ok_or_else(|| bad("linear has no columns"))?;
    let sum = segments
        .iter()
        .fold(DimExpr::default(), |sum, w| sum + DimExpr::extent(*w));
    if *n != sum {
        return Err(bad(format!(
            "column segments {segments:?} add up to {sum}, not {n}"
        )));
    }
    Ok(segments
        .iter()
        .map(|w| {
            let mut s = rows.to_vec();
            s.push(DimExpr::extent(*w));
            Some(s)
        })
        .collect())
}

fn window_dims(spatial: &[DimExpr], w: &Window) -> Result<Vec<DimExpr>> {
    let n = spatial.len();
    let lens = [&w.kernel, &w.strides, &w.dilations, &w.pad_lo, &w.pad_hi].map(Vec::len);
    if lens.iter().any(|l| *l != n) || w.strides.contains(&0) || w.kernel.contains(&0) {
        return Err(bad(format!(
            "window has {lens:?} entries for {n} spatial dimensions, or a zero stride or extent"
        )));
    }
    let c = DimExpr::extent;
    Ok((0..n)
        .map(|i| {
            let reach = c(w.dilations[i]) * c(w.kernel[i] - 1) + c(1);
            let free = spatial[i].clone() + c(w.pad_lo[i]) + c(w.pad_hi[i]) - reach;
            free.floor_div(&c(w.strides[i])) + c(1)
        })
        .collect())
}

fn conv(x: &[DimExpr], w: &[DimExpr], win: &Window, groups: u64) -> Result<Vec<DimExpr>> {
    let ([b, c, sp @ ..], [n, cg, k @ ..]) = (x, w) else {
        return Err(bad(format!(
            "conv needs x[b, c, …] and w[n, c, …], not {} and {}",
            show(x),
            show(w)
        )));
    };
    let kernel: Vec<DimExpr> = win.kernel.iter().map(|k| DimExpr::extent(*k)).collect();
    if *c != cg * &DimExpr::extent(groups) || k != kernel.as_slice() || sp.len() != k.len() {
        return Err(bad(format!(
            "conv: weights {} do not fit input {} with {groups} groups and window {:?}",
            show(w),
            show(x),
            win.kernel
        )));
    }
    let mut out = vec![b.clone(), n.clone()];
    out.extend(window_dims(sp, win)?);
    Ok(out)
}

fn pooled(x: &[DimExpr], win: &Window) -> Result<Vec<DimExpr>> {
    let [b, c, sp @ ..] = x else {
        return Err(bad(format!("pool needs x[b, c, …], not {}", show(x))));
    };
    let mut out = vec![b.clone(), c.clone()];
    out.extend(window_dims(sp, win)?);
    Ok(out)
}

fn norm(x: &[DimExpr], gain: &[DimExpr]) -> Result<()> {
    match (x, gain) {
        ([.., n], [g]) if n == g => Ok(()),
        _ => Err(bad(format!(
            "norm: gain {} does not fit the rows of {}",
            show(gain),
            show(x)
        ))),
    }
}

fn attention(t: &[&TensorType], a: &super::op::AttentionAttrs) -> Result<Vec<DimExpr>> {
    let (q, k, v) = (&t[0].shape, &t[1].shape, &t[2].shape);
    let misfit = || {
        bad(format!(
            "attention with {} heads and {} key heads does not fit q {}, k {}, v {}",
            a.heads, a.kv_heads, t[0], t[1], t[2]
        ))
    };
    let ([qb, s, qd], [kb, kt, kd], [vb, vt, vd]) = (q.as_slice(), k.as_slice(), v.as_slice())
    else {
        return Err(misfit());
    };
    if a.heads == 0 || a.kv_heads == 0 || !a.heads.is_multiple_of(a.kv_heads) {
        return Err(misfit());
    }
    let (h, g) = (DimExpr::extent(a.heads), DimExpr::extent(a.kv_heads));
    let d = qd.exact_div(&h).ok_or_else(misfit)?;
    let dv = vd.exact_div(&g).ok_or_else(misfit)?;
    if qb != kb || qb != vb || kt != vt || kd.exact_div(&g).as_ref() != Some(&d) {
        return Err(misfit());
    }
    Ok(vec![qb.clone(), s.clone(), &dv * &h])
}

fn rotary(t: &[&TensorType], heads: u64) -> Result<()> {
    let misfit = || {
        bad(format!(
            "rotary: {heads} heads of {} do not fit tables {} and {}",
            t[0], t[1], t[2]
        ))
    };
    let [_, s, hd] = t[0].shape.as_slice() else {
        return Err(misfit());
    };
    let pairs = hd
        .exact_div(&(DimExpr::extent(heads) * DimExpr::from(2)))
        .ok_or_else(misfit)?;
    if let Some(second) = t.get(3) {
        let [_, _, columns] = second.shape.as_slice() else {
            return Err(misfit());
        };
        let head = &pairs * &DimExpr::from(2);
        if second.shape[..2] != t[0].shape[..2] || columns.exact_div(&head).is_none() {
            return Err(bad(format!(
                "rotary: {second} has no heads like those of {}",
                t[0]
            )));
        }
    }
    for table in &t[1..3] {
        let [.., ts, td] = table.shape.as_slice() else {
            return Err(misfit());
        };
        if *td != pairs || (ts != s && ts.as_const() != Some(1)) || table.rank() > 3 {
            return Err(misfit());
        }
    }
    Ok(())
}
