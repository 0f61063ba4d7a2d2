//! Calls of compiled row kernels: pointers and distances of rows for a run of elements.

use super::plan::Mode;
use super::{Data, Fused, Plan, Sink, Source};
use crate::kernels::rows::Reduction;
use qcc_ir::diag::Result;

/// Memory that a kernel uses while it works on a row.
pub(crate) struct Scratch {
    /// A row for each dynamic result.
    rows: Vec<Vec<f32>>,
    /// A row of softmax weights.
    weights: Vec<f32>,
    args: Vec<u64>,
}

impl Scratch {
    pub(super) fn new(plan: &Plan, cols: usize) -> Self {
        let dynamic = plan.modes.iter().filter(|m| **m == Mode::Dynamic).count();
        let softmax = plan.reduction == Reduction::Softmax;
        Scratch {
            // `vec![row; 0]` would make the row, as long as a flattened tensor, and drop it.
            rows: (0..dynamic).map(|_| vec![0.0; cols]).collect(),
            weights: vec![0.0; if softmax { cols } else { 0 }],
            args: Vec::new(),
        }
    }
}

/// One call: `rows` rows of `cols` columns of the flattened output from `at` on.
struct Block {
    /// First element of the flattened output, and the same relative to the accumulators.
    at: usize,
    done: usize,
    row: usize,
    col: usize,
    rows: usize,
    cols: usize,
}

impl Block {
    fn len(&self) -> usize {
        self.rows * self.cols
    }
}

/// Computes `len` elements from `at` on: whole rows together as far as operands step evenly, and
/// parts of rows one by one.
pub(super) fn run(
    f: &Fused<'_>,
    scratch: &mut Scratch,
    at: usize,
    len: usize,
    accs: [&[f32]; 2],
    sinks: &[Sink<'_>],
) -> Result<()> {
    let full = f.frame.cols();
    let mut done = 0;
    while done < len {
        let (row, col) = ((at + done) / full, (at + done) % full);
        let left = len - done;
        let (rows, cols) = if col == 0 && left >= full {
            ((left / full).min(f.frame.even_rows(row)), full)
        } else {
            (1, (full - col).min(left))
        };
        let block = Block {
            at: at + done,
            done,
            row,
            col,
            rows,
            cols,
        };
        call(f, scratch, &block, accs, sinks)?;
        done += block.len();
    }
    Ok(())
}

fn call(
    f: &Fused<'_>,
    scratch: &mut Scratch,
    b: &Block,
    accs: [&[f32]; 2],
    sinks: &[Sink<'_>],
) -> Result<()> {
    let code = f
        .plan
        .code
        .as_ref()
        .ok_or_else(|| crate::internal("no code"))?;
    let mut args = std::mem::take(&mut scratch.args);
    args.clear();
    args.extend([0, b.rows as u64, b.cols as u64]);
    for acc in &accs[..f.plan.accs] {
        let part = acc.get(b.done..b.done + b.len());
        let part = part.ok_or_else(|| crate::internal("an accumulator is missing"))?;
        args.push(part.as_ptr() as u64);
    }
    for k in &f.plan.inputs {
        let source = f.sources.get(usize::from(*k)).and_then(Option::as_ref);
        let source = source.ok_or_else(|| crate::internal("an operand is missing"))?;
        args.extend(place(f, source, b)?);
    }
    let mut rows = scratch.rows.iter_mut();
    for sink in sinks {
        sink_args(sink, b, &mut rows, &mut args)?;
    }
    if f.plan.reduction == Reduction::Softmax {
        args.push(scratch.weights.as_mut_ptr() as u64);
    }
    // SAFETY: the plan's kernel was built for exactly these parameters. Accumulators and sinks
    // have `rows·cols` elements from their pointers on, by the slices above; operands reach no
    // element outside, by the check in `place`; scratch rows are as wide as a whole row. What is
    // written belongs to this call: the caller computes each element once, and scratch is its own.
    unsafe { code.call(&args) }?;
    scratch.args = args;
    Ok(())
}

/// Address of the operand's element for the first of the block, and the distance of its rows.
fn place(f: &Fused<'_>, s: &Source<'_>, b: &Block) -> Result<[u64; 2]> {
    let last = s.steps.len() - 1;
    let step = if last > 0 { s.steps[last - 1] } else { 0 };
    let first = s.start + f.frame.offset(b.row, &s.steps) + b.col * s.steps[last];
    let reach = first + (b.rows - 1) * step + (b.cols - 1) * s.steps[last];
    let (address, len, width) = match &s.data {
        Data::Floats(v) => (v.as_ptr() as u64, v.len(), 4),
        Data::Stored(d, t) => {
            let width = d.bits() as usize / 8;
            (t.bytes().as_ptr() as u64, t.numel(), width)
        }
    };
    if reach >= len {
        return Err(crate::internal("elements past the end of an operand"));
    }
    Ok([address + (first * width) as u64, step as u64])
}

fn sink_args<'s>(
    sink: &Sink<'_>,
    b: &Block,
    rows: &mut impl Iterator<Item = &'s mut Vec<f32>>,
    args: &mut Vec<u64>,
) -> Result<()> {
    let (at, end) = (b.at, b.at + b.len());
    match sink {
        Sink::Floats(out) => {
            // SAFETY: each element of the output is computed by one call only.
            args.push(unsafe { out.slice(at..end) }?.as_mut_ptr() as u64);
        }
        Sink::Bytes(d, out) => {
            let w = d.bits() as usize / 8;
            // SAFETY: as above.
            args.push(unsafe { out.slice(at * w..end * w) }?.as_mut_ptr() as u64);
        }
        Sink::Static(out, scale, zero) => {
            // SAFETY: as above; codes take a byte each.
            args.push(unsafe { out.slice(at..end) }?.as_mut_ptr() as u64);
            args.push(u64::from(scale.to_bits()));
            args.extend(zero.map(|z| u64::from(z.to_bits())));
        }
        Sink::Dynamic(out, scales) => {
            // SAFETY: as above; a row has one scale.
            let scales = unsafe { scales.slice(b.row..b.row + b.rows) }?;
            // SAFETY: as above.
            args.push(unsafe { out.slice(at..end) }?.as_mut_ptr() as u64);
            args.push(scales.as_mut_ptr() as u64);
            let row = rows.next().filter(|r| r.len() >= b.cols && b.col == 0);
            let row = row.ok_or_else(|| crate::internal("no row to quantize from"))?;
            args.push(row.as_mut_ptr() as u64);
        }
    }
    Ok(())
}
