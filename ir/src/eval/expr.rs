//! Expressions over whole arrays: every step is computed for all elements and rounded to f32.

use super::layout::broadcast_to;
use super::scalar::{binary, unary};
use super::value::{Array, Nums, internal, load_tensor, store_plain, to_f32};
use crate::diag::Result;
use crate::expr::{Compute, Expr, Node};

/// The value of every step.
///
/// `accs` are the accumulators, `input` loads an operand; both are broadcast to `dims`.
pub(super) fn eval_steps(
    e: &Expr,
    dims: &[usize],
    accs: &[Array],
    input: &dyn Fn(u8) -> Result<Array>,
) -> Result<Vec<Nums>> {
    let n: usize = dims.iter().product();
    let mut steps: Vec<Nums> = Vec::with_capacity(e.nodes.len());
    for node in &e.nodes {
        let at = |id: crate::expr::NodeId| {
            steps
                .get(id.0 as usize)
                .ok_or_else(|| internal("a step is used before it is made"))
        };
        let mut v = match *node {
            Node::Acc(i) => accs
                .get(usize::from(i))
                .ok_or_else(|| internal("no such accumulator"))?
                .nums
                .clone(),
            Node::Input(k) => broadcast_to(&input(k)?, dims)?.nums,
            Node::ConstF32(bits) => Nums::F(vec![f64::from(f32::from_bits(bits)); n]),
            Node::ConstI64(c) => Nums::I(vec![c; n]),
            Node::Unary(f, a) => unary(f, at(a)?)?,
            Node::Binary(f, a, b) => binary(f, at(a)?, at(b)?)?,
            Node::Select(c, a, b) => select(at(c)?, at(a)?, at(b)?)?,
            Node::Cast(d, a) => cast(at(a)?, d)?,
        };
        if let Nums::F(v) = &mut v {
            to_f32(v);
        }
        steps.push(v);
    }
    Ok(steps)
}

pub(super) fn select(c: &Nums, a: &Nums, b: &Nums) -> Result<Nums> {
    let Nums::I(c) = c else {
        return Err(internal("select on a float"));
    };
    match (a, b) {
        (Nums::F(a), Nums::F(b)) => Ok(Nums::F(pick(c, a, b))),
        (Nums::I(a), Nums::I(b)) => Ok(Nums::I(pick(c, a, b))),
        _ => Err(internal("select between a float and an integer")),
    }
}

fn pick<T: Copy>(c: &[i64], a: &[T], b: &[T]) -> Vec<T> {
    c.iter()
        .zip(a.iter().zip(b))
        .map(|(c, (a, b))| if *c != 0 { *a } else { *b })
        .collect()
}

/// Rounds through a storage format and comes back in that format's compute type.
fn cast(a: &Nums, d: crate::DType) -> Result<Nums> {
    let n = match a {
        Nums::F(v) => v.len(),
        Nums::I(v) => v.len(),
    };
    let stored = store_plain(
        &Array {
            dims: vec![n],
            nums: a.clone(),
        },
        d,
    )?;
    let mut back = load_tensor(&stored)?.nums;
    if let (Compute::F32, Nums::F(v)) = (Compute::of(d), &mut back) {
        to_f32(v);
    }
    Ok(back)
}
