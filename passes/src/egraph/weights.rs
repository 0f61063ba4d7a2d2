//! Constants made of constants: merged linears need their weights as one.
//!
//! A derived constant names the leaves it is made of; its bytes are produced on demand from
//! theirs. Concatenation is along the first dimension, so in row-major order the bytes simply
//! follow each other; codes, scales and zero points are concatenated each for themselves.

use qcc_ir::diag::Result;
use qcc_ir::eval::weight_tensor;
use qcc_ir::format::Block;
use qcc_ir::graph::{Elem, OpKind, TensorType, Weight, WeightBytes, WeightData};
use std::borrow::Cow;
use std::sync::Arc;

/// How a constant is made.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Derived {
    /// The rows of constants of one element type, one after the other.
    Rows(Vec<Part>),
    /// The vector `[n]` as `[n, 1, …]` with this rank, to be added along the channels.
    Column {
        /// The leaf that holds the vector.
        leaf: u32,
        /// Rank of the result.
        rank: usize,
    },
}

/// A piece of a concatenation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Part {
    /// A constant leaf.
    Leaf(u32),
    /// This many times −0, which added to any number gives that number, bit for bit.
    Zeros(u64),
}

/// The type of constants of these types with their rows concatenated, or why they cannot be.
pub(super) fn rows_type(parts: &[&TensorType]) -> std::result::Result<TensorType, String> {
    let [first, rest @ ..] = parts else {
        return Err("there is nothing to concatenate".into());
    };
    let mut sum = rows(first)?;
    for t in rest {
        if t.elem != first.elem {
            return Err(format!("schemes differ: {} and {}", first.elem, t.elem));
        }
        if t.shape[1..] != first.shape[1..] {
            return Err(format!("{t} has other rows than {first}"));
        }
        sum += rows(t)?;
    }
    for (i, t) in parts.iter().enumerate() {
        whole_blocks(t, i + 1 == parts.len())?;
    }
    let mut ty = (*first).clone();
    ty.shape[0] = i64::try_from(sum).map_err(|_| "too many rows")?.into();
    Ok(ty)
}

fn rows(t: &TensorType) -> std::result::Result<u64, String> {
    let n = t.shape.first().and_then(|d| d.as_const());
    let n = n.and_then(|n| u64::try_from(n).ok());
    n.ok_or_else(|| format!("{t} has no known number of rows"))
}

/// Whether the rows of `t` hold whole scale blocks and whole bytes, so that more can follow.
fn whole_blocks(t: &TensorType, last: bool) -> std::result::Result<(), String> {
    let (n, bits) = (rows(t)?, u64::from(t.elem.storage().bits()));
    let dims = t.fixed_dims().ok_or("unknown extents")?;
    let odd = |count: u64, bits: u64| !last && !(count % 8 * bits).is_multiple_of(8);
    let numel = |d: &[u64]| d.iter().fold(1u64, |p, d| p.wrapping_mul(*d));
    if odd(numel(&dims), bits) {
        return Err(format!("{t} does not end on a byte"));
    }
    let Elem::Quant(q) = &t.elem else {
        return Ok(());
    };
    if q.scale.global().is_some() {
        return Err("each weight has one scale above those of its blocks".into());
    }
    match q.block.0.first() {
        Some(Block::Fixed(b)) if last || n.is_multiple_of(*b) => {}
        Some(Block::Fixed(b)) => {
            return Err(format!("{n} rows are not whole blocks of {b}"));
        }
        _ => return Err("each weight has one scale for all its rows".into()),
    }
    let scales = t.scale_shape().unwrap_or_default();
    let scales = TensorType::new(q.storage, scales).fixed_dims();
    match (q.zero, scales) {
        (Some(z), Some(s)) if odd(numel(&s), u64::from(z.bits())) => {
            Err(format!("the zero points of {t} do not end on a byte"))
        }
        _ => Ok(()),
    }
}

/// The tensors of a constant: codes, scales, zero points.
#[derive(Clone, Debug)]
pub(super) struct ConstWeights {
    pub(super) tensors: [Option<Weight>; 3],
}

/// The tensors of a derived constant. `leaf` gives those of a constant leaf, `ty` is the type
/// of the result.
pub(super) fn derive(
    derived: &Derived,
    ty: &TensorType,
    leaf: &dyn Fn(u32) -> Option<ConstWeights>,
) -> Option<ConstWeights> {
    match derived {
        Derived::Column { leaf: l, rank } => {
            let mut w = leaf(*l)?;
            let t = w.tensors[0].as_mut()?;
            t.dims.resize(*rank, 1);
            t.name = format!("{}.column", t.name);
            Some(w)
        }
        Derived::Rows(parts) => {
            let zeros = |n: u64| {
                let tail = ty.fixed_dims().unwrap_or_default();
                let dims = std::iter::once(n).chain(tail.into_iter().skip(1)).collect();
                let zero = Weight {
                    name: "zeros".into(),
                    dtype: ty.elem.storage(),
                    dims,
                    data: WeightData::Splat((-0f64).to_bits()),
                };
                ConstWeights {
                    tensors: [Some(zero), None, None],
                }
            };
            let parts: Option<Vec<ConstWeights>> = parts
                .iter()
                .map(|p| match p {
                    Part::Leaf(l) => leaf(*l),
                    Part::Zeros(n) => Some(zeros(*n)),
                })
                .collect();
            let parts = parts?;
            let tensor = |i: usize| {
                let list: Option<Vec<Weight>> =
                    parts.iter().map(|p| p.tensors[i].clone()).collect();
                list.and_then(concat)
            };
            Some(ConstWeights {
                tensors: [tensor(0), tensor(1), tensor(2)],
            })
        }
    }
}

/// Concatenation along the first dimension; contents that the text form can show stay so.
fn concat(parts: Vec<Weight>) -> Option<Weight> {
    let first = parts.first()?;
    let mut dims = first.dims.clone();
    *dims.first_mut()? = parts.iter().map(|p| p.dims[0]).sum();
    let names: Vec<&str> = parts.iter().map(|p| p.name.as_str()).collect();
    let splat = |p: &Weight| match p.data {
        WeightData::Splat(v) => Some(v),
        _ => None,
    };
    let list = |p: &Weight| match &p.data {
        WeightData::List(v) => Some(v.clone()),
        _ => None,
    };
    let lists: Option<Vec<Vec<u64>>> = parts.iter().map(list).collect();
    let same = splat(first).filter(|v| parts.iter().all(|p| splat(p) == Some(*v)));
    let data = match (same, lists) {
        (Some(v), _) => WeightData::Splat(v),
        (None, Some(l)) => WeightData::List(l.concat()),
        (None, None) => WeightData::Bytes(Arc::new(Concat {
            parts: parts.clone(),
        })),
    };
    Some(Weight {
        name: names.join("+"),
        dtype: first.dtype,
        dims,
        data,
    })
}

/// The bytes of weights, one after the other.
#[derive(Debug)]
struct Concat {
    parts: Vec<Weight>,
}

impl WeightBytes for Concat {
    fn bytes(&self) -> Result<Cow<'_, [u8]>> {
        let mut out = Vec::new();
        for p in &self.parts {
            out.extend_from_slice(weight_tensor(p)?.bytes());
        }
        Ok(Cow::Owned(out))
    }
}

/// The weights that a `const` names.
pub(super) fn const_weights(kind: &OpKind, weights: &[Weight]) -> Option<ConstWeights> {
    let OpKind::Const {
        weight,
        scale,
        zero,
        global: None,
    } = kind
    else {
        return None;
    };
    let get = |id: qcc_ir::graph::WeightId| weights.get(id.index()).cloned();
    Some(ConstWeights {
        tensors: [get(*weight), scale.and_then(get), zero.and_then(get)],
    })
}
