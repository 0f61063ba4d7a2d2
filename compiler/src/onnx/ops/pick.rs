//! Operators that pick elements: `Slice`, `Split`, `Gather`, `GatherND`, `OneHot`.

use qcc_ir::diag::Result;
use qcc_ir::expr::BinaryFn;
use qcc_ir::graph::{OpKind, TensorType, ValueId};
use qcc_ir::{DType, DimExpr};

use super::super::error::{self, unsupported};
use super::super::node::{Node, Val, axis, dynamic, operand};
use super::super::scope::Scope;
use super::one;

/// What a `Slice` takes of one dimension: elements `start, start + step, …`, `count` of them.
pub(in super::super) struct Cut {
    pub(in super::super) axis: usize,
    pub(in super::super) start: DimExpr,
    pub(in super::super) end: DimExpr,
    pub(in super::super) step: i64,
}

/// The cuts of a `Slice`, its ends clamped to the shape as NumPy does it.
pub(in super::super) fn cuts(s: &Scope, n: &Node, shape: &[DimExpr]) -> Result<Vec<Cut>> {
    let starts = s.known(n.input(1)?, "the start")?.elems;
    let ends = s.known(n.input(2)?, "the end")?.elems;
    let count = starts.len();
    let list = |at: usize, what: &str| match n.optional(at) {
        Some(v) => s.numbers(v, what).map(Some),
        None => Ok(None),
    };
    let axes = list(3, "the axes")?.unwrap_or_else(|| (0..count as i64).collect());
    let steps = list(4, "the steps")?.unwrap_or_else(|| vec![1; count]);
    if [ends.len(), axes.len(), steps.len()]
        .iter()
        .any(|&l| l != count)
    {
        return Err(operand(
            "Slice has starts, ends, axes and steps of different lengths",
        ));
    }
    super::super::node::axes(&axes, shape.len())?;
    (0..count)
        .map(|i| {
            let axis = axis(axes[i], shape.len())?;
            cut(s, axis, &shape[axis], &starts[i], &ends[i], steps[i])
        })
        .collect()
}

fn cut(
    s: &Scope,
    axis: usize,
    size: &DimExpr,
    start: &DimExpr,
    end: &DimExpr,
    step: i64,
) -> Result<Cut> {
    let zero = DimExpr::from(0);
    let one = DimExpr::from(1);
    let clamp = |at: &DimExpr, lo: &DimExpr, hi: &DimExpr| -> Result<DimExpr> {
        let (least, most) = s.dims.bounds(at);
        let at = match (least >= 0, most < 0) {
            (true, _) => at.clone(),
            (_, true) => size + at,
            _ => {
                return Err(dynamic(format!(
                    "whether {at} counts from the end is not known"
                )));
            }
        };
        Ok(s.dims.max(&s.dims.min(&at, hi), lo))
    };
    let (start, end) = match step {
        1.. => {
            let start = clamp(start, &zero, size)?;
            let end = clamp(end, &zero, size)?;
            let end = s.dims.max(&end, &start);
            (start, end)
        }
        0 => return Err(operand("Slice has a step of 0")),
        _ => {
            // Backwards: from `size − 1` at most down to −1 (exclusive).
            let (minus, last) = (DimExpr::from(-1), size - &one);
            let start = clamp(start, &minus, &last)?;
            let end = clamp(end, &minus, &last)?;
            let end = s.dims.min(&end, &start);
            (start, end)
        }
    };
    Ok(Cut {
        axis,
        start,
        end,
        step,
    })
}

/// `Slice`
pub(super) fn slice(s: &mut Scope, n: &Node) -> Result<Vec<Val>> {
    let x = s.value(n.input(0)?)?;
    let shape = s.b.ty(x).shape.clone();
    let mut starts = vec![DimExpr::from(0); shape.len()];
    let mut ends = shape.clone();
    let mut steps = vec![1u64; shape.len()];
    for cut in cuts(s, n, &shape)? {
        steps[cut.axis] = u64::try_from(cut.step).map_err(|_| {
            unsupported(
                error::ATTRIBUTE,
                format!("a step of {} is not supported", cut.step),
            )
        })?;
        starts[cut.axis] = cut.start;
        ends[cut.axis] = cut.end;
    }
    let whole = steps.iter().all(|&st| st == 1)
        && ends == shape
        && starts.iter().all(|st| st.as_const() == Some(0));
    if whole {
        return one(x);
    }
    one(s.b.same(
        OpKind::Slice {
            starts,
            ends,
            steps,
        },
        &[x],
    )?)
}

/// The lengths of the parts of a `Split`.
pub(in super::super) fn parts(s: &Scope, n: &Node, size: &DimExpr) -> Result<Vec<DimExpr>> {
    if let Some(v) = n.optional(1) {
        let parts = s.known(v, "the lengths of the parts")?.elems;
        let sum = parts.iter().fold(DimExpr::from(0), |a, b| &a + b);
        if s.dims.equal(&sum, size) == Some(false) {
            return Err(operand(format!(
                "parts of {sum} elements, the dimension has {size}"
            )));
        }
        return Ok(parts);
    }
    let count = n.attrs.int_or("num_outputs", n.outputs.len() as i64)?;
    if count < 1 || count > n.outputs.len().max(1) as i64 {
        return Err(operand(format!(
            "Split into {count} parts with {} results",
            n.outputs.len()
        )));
    }
    // All parts are ⌈size / count⌉ long, but for the last.
    let each = (size + &DimExpr::from(count - 1)).floor_div(&DimExpr::from(count));
    let last = size - &(&each * &DimExpr::from(count - 1));
    if s.dims.bounds(&last).0 < 0 {
        return Err(operand(format!(
            "a dimension of {size} does not split into {count} parts"
        )));
    }
    let mut parts = vec![each; count as usize - 1];
    parts.push(last);
    Ok(parts)
}

/// `Split`
pub(super) fn split(s: &mut Scope, n: &Node) -> Result<Vec<Val>> {
    let x = s.value(n.input(0)?)?;
    let shape = s.b.ty(x).shape.clone();
    let along = axis(n.attrs.int_or("axis", 0)?, shape.len())?;
    let mut start = DimExpr::from(0);
    let mut results = Vec::new();
    for part in parts(s, n, &shape[along])? {
        let end = &start + &part;
        results.push(Val::Value(s.slice_axis(x, along, start, end.clone())?));
        start = end;
    }
    Ok(results)
}

/// `Gather`; a single known index is a slice.
pub(super) fn gather(s: &mut Scope, n: &Node) -> Result<Vec<Val>> {
    let data = s.value(n.input(0)?)?;
    let shape = s.b.ty(data).shape.clone();
    let along = axis(n.attrs.int_or("axis", 0)?, shape.len())?;
    let indices = n.input(1)?;
    if let Some(known) = s.sym(indices)
        && let Some(at) = known.single().and_then(DimExpr::as_const)
    {
        let at = match at < 0 {
            true => &shape[along] + &DimExpr::from(at),
            false => DimExpr::from(at),
        };
        let next = &at + &DimExpr::from(1);
        if s.dims.at_most(&next, &shape[along]) == Some(true) && s.dims.bounds(&at).0 >= 0 {
            let row = s.slice_axis(data, along, at, next)?;
            let width: Vec<DimExpr> = s.shape(indices);
            let out = [&shape[..along], &width, &shape[along + 1..]].concat();
            return one(s.b.reshape(row, out));
        }
    }
    let indices = integer(s, indices)?;
    stay_within(s, indices, &shape[along])?;
    let elem = s.b.ty(data).elem.clone();
    one(s
        .b
        .infer(OpKind::Gather { axis: along }, &[data, indices], elem)?[0])
}

/// Positions `0, 1, … n − 1` that are looked up in a table bound `n`: a longer input would be
/// an error, so the model does not accept it in the first place.
fn stay_within(s: &mut Scope, indices: ValueId, rows: &DimExpr) -> Result<()> {
    let mut at = indices;
    while let Some(op) = s.b.func().def_op(at) {
        match op.kind {
            OpKind::Reshape | OpKind::Cast => at = op.operands[0],
            OpKind::Iota { axis: 0 } if s.b.ty(at).rank() == 1 => {
                let count = s.b.ty(at).shape[0].clone();
                return s.bounded(&count, rows, "positions");
            }
            _ => break,
        }
    }
    Ok(())
}

fn integer(s: &mut Scope, v: &Val) -> Result<ValueId> {
    let v = s.value(v)?;
    match s.plain(v)?.is_int() {
        true => Ok(v),
        false => Err(operand(format!("indices are {}, not integers", s.b.ty(v)))),
    }
}

/// `GatherND` without batch dimensions: `data` flattened over the indexed dimensions, and one
/// index per element, `Σ indexᵢ·strideᵢ`.
pub(super) fn gather_nd(s: &mut Scope, n: &Node) -> Result<Vec<Val>> {
    n.attrs.only("batch_dims", 0)?;
    let data = s.value(n.input(0)?)?;
    let indices = integer(s, n.input(1)?)?;
    let shape = s.b.ty(data).shape.clone();
    let index_shape = s.b.ty(indices).shape.clone();
    let depth = index_shape
        .last()
        .and_then(DimExpr::as_const)
        .and_then(|d| usize::try_from(d).ok())
        .filter(|&d| d >= 1 && d <= shape.len());
    let depth =
        depth.ok_or_else(|| dynamic("how many dimensions GatherND indexes is not known"))?;
    let mut linear = None;
    for i in 0..depth {
        let part = component(s, indices, i)?;
        let part = from_start(s, part, &shape[i])?;
        let stride = DimExpr::product(&shape[i + 1..depth]);
        let scaled = match stride.as_const() {
            Some(1) => part,
            _ => {
                let stride = size_like(s, part, stride)?;
                s.binary(BinaryFn::Mul, part, stride)?
            }
        };
        linear = Some(match linear {
            None => scaled,
            Some(sum) => s.binary(BinaryFn::Add, sum, scaled)?,
        });
    }
    let linear = linear.ok_or_else(|| operand("GatherND indexes nothing"))?;
    let mut flat = vec![DimExpr::product(&shape[..depth])];
    flat.extend_from_slice(&shape[depth..]);
    let flat = s.b.reshape(data, flat);
    let elem = s.b.ty(data).elem.clone();
    one(s
        .b
        .infer(OpKind::Gather { axis: 0 }, &[flat, linear], elem)?[0])
}

/// A size in the format of other integers.
fn size_like(s: &mut Scope, like: ValueId, size: DimExpr) -> Result<ValueId> {
    let dtype = s.plain(like)?;
    let mut sym = super::super::sym::SymTensor::scalar(size);
    sym.dtype = dtype;
    s.value(&Val::Sym(sym))
}

/// Part `i` along the last dimension, without that dimension; of a concatenation of parts of
/// width 1 simply that part.
fn component(s: &mut Scope, indices: ValueId, i: usize) -> Result<ValueId> {
    let shape = s.b.ty(indices).shape.clone();
    let (last, rest) = shape
        .split_last()
        .ok_or_else(|| operand("indices are a scalar"))?;
    let at = DimExpr::from(i as i64);
    let one_wide = DimExpr::from(1);
    let def = s.b.func().def_op(indices);
    let part = def
        .filter(|op| op.kind == OpKind::Concat { axis: rest.len() })
        .filter(|op| last.as_const() == Some(op.operands.len() as i64))
        .and_then(|op| op.operands.get(i).copied())
        .filter(|&v| s.b.ty(v).shape.last() == Some(&one_wide));
    let part = match part {
        Some(part) => part,
        None => s.slice_axis(indices, rest.len(), at.clone(), &at + &one_wide)?,
    };
    Ok(s.b.reshape(part, rest.to_vec()))
}

/// An index that may count from the end, made to count from the start.
fn from_start(s: &mut Scope, index: ValueId, size: &DimExpr) -> Result<ValueId> {
    let zero = s.scalar_like(index, 0.0)?;
    let negative = s.binary(BinaryFn::Lt, index, zero)?;
    let size = size_like(s, index, size.clone())?;
    let wrapped = s.binary(BinaryFn::Add, index, size)?;
    s.select(negative, wrapped, index)
}

/// `OneHot`: `index = 0, 1, … depth − 1`, a negative index counting from the end.
pub(super) fn one_hot(s: &mut Scope, n: &Node) -> Result<Vec<Val>> {
    let indices = integer(s, n.input(0)?)?;
    let depth = s.known(n.input(1)?, "the depth")?;
    let depth = depth
        .single()
        .cloned()
        .ok_or_else(|| operand("OneHot needs one depth"))?;
    let values = s.value(n.input(2)?)?;
    let index = s.b.cast(indices, DType::I64);
    let index = from_start(s, index, &depth)?;
    let shape = s.b.ty(index).shape.clone();
    let along = axis(n.attrs.int_or("axis", -1)?, shape.len() + 1)?;
    let mut wide = shape.clone();
    wide.insert(along, DimExpr::from(1));
    let index = s.b.reshape(index, wide);
    let mut count = vec![DimExpr::from(1); shape.len() + 1];
    count[along] = depth;
    let ty = TensorType::new(DType::I64, count);
    let count = s.b.op(OpKind::Iota { axis: along }, &[], ty);
    let hot = s.binary(BinaryFn::Eq, index, count)?;
    let part = |s: &mut Scope, at: i64| {
        let v = s.slice_axis(values, 0, at.into(), (at + 1).into())?;
        Ok(s.b.reshape(v, Vec::new()))
    };
    if s.b.ty(values).shape != [DimExpr::from(2)] {
        return Err(operand("OneHot needs two values"));
    }
    let (off, on) = (part(s, 0)?, part(s, 1)?);
    s.select(hot, on, off).and_then(one)
}
