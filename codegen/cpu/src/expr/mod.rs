//! Fused expressions over the elements of an op's results.
//!
//! A [`Plan`] is made once from an expression and the types of its op: how dimensions fold, how
//! each result is stored, and the code. Float expressions are compiled ([`crate::kernels::rows`]);
//! those with integer steps (positions, masks, sizes), powers and remainders are interpreted tile
//! by tile ([`tile`]). For one call, a [`Fused`] has the operands laid against the output, and
//! [`Outputs`] holds the results under construction.

mod frame;
mod native;
mod outputs;
mod plan;
mod tile;

use crate::threads::Threads;
use crate::value::{View, unpacked};
use frame::Frame;
pub(crate) use frame::broadcast_steps;
pub(crate) use outputs::{Outputs, Sink};
pub(crate) use plan::{Plan, Spec};
use qcc_ir::diag::Result;
use qcc_ir::graph::Elem;
use qcc_ir::{DType, Tensor};
use std::borrow::Cow;

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

/// Columns `at..at + width` of an output of `full` columns: a segment of a merged linear.
#[derive(Clone, Copy)]
pub(crate) struct Columns {
    pub(crate) at: usize,
    pub(crate) full: usize,
}

/// A plan laid against an output of certain extents.
pub(crate) struct Fused<'a> {
    plan: &'a Plan,
    frame: Frame,
    /// By operand position; `None` where no step reads it.
    sources: Vec<Option<Source<'a>>>,
}

/// What one task needs while it computes, by how its plan runs: made once per task.
pub(crate) enum Scratch {
    /// Of a plan that is interpreted tile by tile.
    Tiles(tile::Regs),
    /// Of a plan with code.
    Native(native::Scratch),
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
        let frame = plan.layout.frame(dims);
        let full = columns.map_or(frame.cols(), |c| c.full);
        let mut sources = Vec::with_capacity(args.len());
        for (k, v) in args.iter().enumerate() {
            let Some(i) = plan.source(k) else {
                sources.push(None);
                continue;
            };
            let v = v.ok_or_else(|| crate::internal("an operand of an expression is missing"))?;
            let data = match &v.ty.elem {
                Elem::Plain(d) if *d != DType::F32 => {
                    Data::Stored(unpacked(*d), crate::value::unpack(v.codes)?)
                }
                _ => Data::Floats(v.floats(threads)?),
            };
            let steps = plan.layout.steps(i, &frame, full);
            let start = columns.map_or(0, |c| c.at * steps.last().copied().unwrap_or(0));
            sources.push(Some(Source { data, start, steps }));
        }
        Ok(Fused {
            plan,
            frame,
            sources,
        })
    }

    /// Memory for one task.
    pub(crate) fn scratch(&self) -> Scratch {
        match self.plan.code {
            Some(_) => Scratch::Native(native::Scratch::new(self.plan, self.frame.cols())),
            None => Scratch::Tiles(tile::Regs::new(self.plan)),
        }
    }

    /// Elements for a task of about `piece`: whole rows where the plan asks for them.
    pub(crate) fn grain(&self, piece: usize) -> usize {
        if self.plan.rows {
            let cols = self.frame.cols().max(1);
            return piece.div_ceil(cols) * cols;
        }
        piece
    }

    /// Computes `len` elements of the flattened output from `at` on into every sink. `accs` hold
    /// the accumulators of these elements.
    pub(crate) fn run(
        &self,
        scratch: &mut Scratch,
        at: usize,
        len: usize,
        accs: [&[f32]; 2],
        sinks: &[Sink<'_>],
    ) -> Result<()> {
        let regs = match scratch {
            Scratch::Native(scratch) => return native::run(self, scratch, at, len, accs, sinks),
            Scratch::Tiles(regs) => regs,
        };
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
