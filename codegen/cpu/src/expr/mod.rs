//! Fused expressions over the elements of an op's results.
//!
//! A [`Plan`] is an expression with the formats of its operands and results. For one call its
//! operands are laid against the output ([`Fused`]): every operand has, for each dimension of
//! the output, the step between its elements, 0 where it is broadcast. Elements are computed in
//! tiles of the flattened output, one step of the expression after the other.

mod frame;
mod tile;

use crate::threads::{Scatter, Threads};
use crate::value::{View, unpacked};
use frame::Frame;
pub(crate) use frame::broadcast_steps;
use qcc_ir::diag::Result;
use qcc_ir::expr::{Compute, Expr, Node};
use qcc_ir::graph::{Elem, TensorType};
use qcc_ir::{Bundle, DType, Tensor};
use std::borrow::Cow;
pub(crate) use tile::Regs;

/// An expression, typed for its operands.
pub(crate) struct Plan {
    expr: Expr,
    types: Vec<Compute>,
}

impl Plan {
    pub(crate) fn new(expr: &Expr, operands: &[&TensorType]) -> Result<Self> {
        let read = |k: u8| operands.get(usize::from(k)).map(|t| t.elem.read_as());
        let types = expr
            .types(&read)
            .map_err(|at| crate::internal(format!("expression step t{} is not typed", at.0)))?;
        Ok(Plan {
            expr: expr.clone(),
            types,
        })
    }

    /// Whether operand `k` is read by a step (not only as the scale of a store).
    pub(crate) fn reads(&self, k: usize) -> bool {
        let is = |n: &Node| matches!(n, Node::Input(i) if usize::from(*i) == k);
        self.expr.nodes.iter().any(is)
    }
}

/// The elements of an operand.
enum Data<'a> {
    Floats(Cow<'a, [f32]>),
    Stored(DType, Cow<'a, Tensor>),
}

/// An operand laid against the output.
struct Source<'a> {
    data: Data<'a>,
    /// Element that belongs to the first element of the output.
    start: usize,
    /// Step per dimension of the frame.
    steps: Vec<usize>,
}

/// What a result is stored into while the op runs.
pub(crate) enum Sink<'a> {
    /// f32: the result itself, or the numbers that are quantized afterwards.
    Floats(Scatter<'a, f32>),
    /// The result in its own format.
    Bytes(DType, Scatter<'a, u8>),
}

/// Columns `at..at + width` of an output of `full` columns: a segment of a merged linear.
#[derive(Clone, Copy)]
pub(crate) struct Columns {
    pub(crate) at: usize,
    pub(crate) full: usize,
}

/// An expression laid against an output of certain extents.
pub(crate) struct Fused<'a> {
    plan: &'a Plan,
    frame: Frame,
    /// By operand position; `None` where no step reads it.
    sources: Vec<Option<Source<'a>>>,
}

impl<'a> Fused<'a> {
    /// Lays the operands against an output of extents `dims`; with `columns`, the output is that
    /// part of a wider one, against which the operands broadcast.
    pub(crate) fn new(
        plan: &'a Plan,
        args: &[Option<View<'a>>],
        dims: &[usize],
        columns: Option<Columns>,
        threads: &Threads,
    ) -> Result<Self> {
        let mut sources = Vec::with_capacity(args.len());
        for (k, v) in args.iter().enumerate() {
            if !plan.reads(k) {
                sources.push(None);
                continue;
            }
            let v = v.ok_or_else(|| crate::internal("an operand of an expression is missing"))?;
            let data = match &v.ty.elem {
                Elem::Plain(d) if *d != DType::F32 => {
                    Data::Stored(unpacked(*d), crate::value::unpack(v.codes)?)
                }
                _ => Data::Floats(v.floats(threads)?),
            };
            let mut full = dims.to_vec();
            if let (Some(c), Some(last)) = (columns, full.last_mut()) {
                *last = c.full;
            }
            let steps = broadcast_steps(&v.dims(), &full)?;
            let start = columns.map_or(0, |c| c.at * steps.last().copied().unwrap_or(0));
            sources.push(Some(Source { data, start, steps }));
        }
        let all: Vec<&mut Vec<usize>> =
            sources.iter_mut().flatten().map(|s| &mut s.steps).collect();
        let frame = Frame::collapse(dims, all);
        Ok(Fused {
            plan,
            frame,
            sources,
        })
    }

    /// Computes `len` elements of the flattened output from `at` on into every sink. `accs` hold
    /// the accumulators of these elements.
    pub(crate) fn run(
        &self,
        regs: &mut Regs,
        at: usize,
        len: usize,
        accs: [&[f32]; 2],
        sinks: &[Sink<'_>],
    ) -> Result<()> {
        let mut done = 0;
        while done < len {
            let n = tile::TILE.min(len - done);
            let part = accs.map(|a| a.get(done..done + n).unwrap_or(&[]));
            tile::eval(self, regs, at + done, n, part)?;
            tile::store(self, regs, at + done, n, sinks)?;
            done += n;
        }
        Ok(())
    }
}

/// Results under construction: a tensor in its format, or f32 to be quantized.
pub(crate) struct Outputs<'t> {
    slots: Vec<Slot<'t>>,
}

enum Slot<'t> {
    Plain(DType, Tensor),
    Quant(&'t TensorType, Vec<u64>, Vec<f32>),
}

impl<'t> Outputs<'t> {
    /// Room for results of these types and extents.
    pub(crate) fn new(results: &[(&'t TensorType, Vec<u64>)]) -> Result<Self> {
        let slot = |(ty, dims): &(&'t TensorType, Vec<u64>)| {
            Ok(match &ty.elem {
                Elem::Plain(d) => Slot::Plain(*d, Tensor::zeros(unpacked(*d), dims)?),
                Elem::Quant(_) => {
                    let n: u64 = dims.iter().product();
                    Slot::Quant(ty, dims.clone(), vec![0f32; n as usize])
                }
            })
        };
        Ok(Outputs {
            slots: results.iter().map(slot).collect::<Result<_>>()?,
        })
    }

    /// Where to store, one sink per result.
    pub(crate) fn sinks(&mut self) -> Result<Vec<Sink<'_>>> {
        let mut sinks = Vec::with_capacity(self.slots.len());
        for s in &mut self.slots {
            sinks.push(match s {
                Slot::Plain(DType::F32, t) => Sink::Floats(Scatter::new(t.as_slice_mut()?)),
                Slot::Plain(_, t) => Sink::Bytes(t.dtype(), Scatter::new(t.bytes_mut())),
                Slot::Quant(_, _, v) => Sink::Floats(Scatter::new(v)),
            });
        }
        Ok(sinks)
    }

    /// The finished results; `params` gives scale and zero point of a static scheme.
    pub(crate) fn finish<'v>(
        self,
        params: &dyn Fn(usize) -> (Option<View<'v>>, Option<View<'v>>),
        threads: &Threads,
    ) -> Result<Vec<Bundle>> {
        let mut out = Vec::with_capacity(self.slots.len());
        for (i, s) in self.slots.into_iter().enumerate() {
            out.push(match s {
                Slot::Plain(d, t) if d.bits() == 4 => crate::value::pack(d, &t)?.into(),
                Slot::Plain(_, t) => t.into(),
                Slot::Quant(ty, dims, x) => {
                    let (scale, zero) = params(i);
                    let q = ty
                        .elem
                        .quant()
                        .ok_or_else(|| crate::internal("a plain result is to be quantized"))?;
                    let (scale, zero) = (scale.map(|v| v.codes), zero.map(|v| v.codes));
                    crate::quant::quantize(q, &x, &dims, scale, zero, threads)?
                }
            });
        }
        Ok(out)
    }
}

impl Plan {
    /// The scale and zero point operands of store `i`.
    pub(crate) fn params<'v>(
        &self,
        i: usize,
        args: &[Option<View<'v>>],
    ) -> (Option<View<'v>>, Option<View<'v>>) {
        let at = |k: Option<u8>| k.and_then(|k| args.get(usize::from(k)).copied().flatten());
        match self.expr.stores.get(i) {
            Some(s) => (at(s.scale), at(s.zero)),
            None => (None, None),
        }
    }
}
