//! Evaluation of an expression on one tile of neighbouring elements.

use super::{Data, Fused, Sink, Source};
use crate::math;
use qcc_ir::DType;
use qcc_ir::diag::{Diagnostic, Result};
use qcc_ir::eval::{binary_i64, undefined};
use qcc_ir::expr::{BinaryFn, Compute, Node, UnaryFn};
use qcc_ir::format::{decode_slice, decode_slice_i64, encode_slice, encode_slice_i64, round_slice};

/// Elements of a tile; even, so that tiles of 4-bit results begin on a byte.
pub(super) const TILE: usize = 512;

/// The value of one step for the elements of a tile. Truth values are 0 and 1.
enum Reg {
    F(Vec<f32>),
    I(Vec<i64>),
}

/// The values of all steps of an expression; made once per task.
pub(crate) struct Regs {
    regs: Vec<Reg>,
}

impl Regs {
    pub(crate) fn new(plan: &super::Plan) -> Self {
        let reg = |t: &Compute| match t {
            Compute::F32 => Reg::F(vec![0.0; TILE]),
            Compute::I64 | Compute::Bool => Reg::I(vec![0; TILE]),
        };
        let mut regs: Vec<Reg> = plan.types.iter().map(reg).collect();
        for (r, n) in regs.iter_mut().zip(&plan.expr.nodes) {
            match (r, n) {
                (Reg::F(v), Node::ConstF32(bits)) => v.fill(f32::from_bits(*bits)),
                (Reg::I(v), Node::ConstI64(c)) => v.fill(*c),
                _ => {}
            }
        }
        Regs { regs }
    }
}

fn untyped() -> Diagnostic {
    crate::internal("an expression step has arguments of other types than it was planned for")
}

/// Computes every step for elements `at..at + n` of the flattened output.
pub(super) fn eval(
    f: &Fused<'_>,
    regs: &mut Regs,
    at: usize,
    n: usize,
    accs: [&[f32]; 2],
) -> Result<()> {
    for (i, node) in f.plan.expr.nodes.iter().enumerate() {
        let (args, rest) = regs.regs.split_at_mut(i);
        let out = &mut rest[0];
        match *node {
            Node::ConstF32(_) | Node::ConstI64(_) => {}
            Node::Acc(k) => match (out, accs.get(usize::from(k))) {
                (Reg::F(o), Some(acc)) if acc.len() == n => o[..n].copy_from_slice(acc),
                _ => return Err(crate::internal("an accumulator is missing")),
            },
            Node::Input(k) => {
                let source = f.sources.get(usize::from(k)).and_then(Option::as_ref);
                let source = source.ok_or_else(|| crate::internal("an operand is missing"))?;
                load(f, source, at, n, out)?;
            }
            Node::Unary(g, a) => unary(g, &args[a.0 as usize], out, n)?,
            Node::Binary(g, a, b) => {
                binary(g, &args[a.0 as usize], &args[b.0 as usize], out, n)?;
            }
            Node::Select(c, a, b) => {
                let [c, a, b] = [c, a, b].map(|k| &args[k.0 as usize]);
                select(c, a, b, out, n)?;
            }
            Node::Cast(d, a) => cast(d, &args[a.0 as usize], out, n)?,
        }
    }
    Ok(())
}

/// Reads an operand: runs of its elements, or one element repeated, row by row.
fn load(f: &Fused<'_>, s: &Source<'_>, at: usize, n: usize, out: &mut Reg) -> Result<()> {
    let cols = f.frame.cols();
    let step = s.steps.last().copied().unwrap_or(0);
    let mut done = 0;
    while done < n {
        let (row, col) = ((at + done) / cols, (at + done) % cols);
        let len = (cols - col).min(n - done);
        let from = s.start + f.frame.offset(row, &s.steps) + col * step;
        read(s, from, step, done, len, out)?;
        done += len;
    }
    Ok(())
}

fn read(
    s: &Source<'_>,
    from: usize,
    step: usize,
    done: usize,
    len: usize,
    out: &mut Reg,
) -> Result<()> {
    let past = || crate::internal("elements past the end of an operand");
    let count = if step == 0 { 1 } else { len };
    match (&s.data, &mut *out) {
        (Data::Floats(v), Reg::F(o)) => {
            let v = v.get(from..from + count).ok_or_else(past)?;
            o[done..done + count].copy_from_slice(v);
        }
        (Data::Stored(d, t), out) => {
            let w = d.bits() as usize / 8;
            let bytes = t
                .bytes()
                .get(from * w..(from + count) * w)
                .ok_or_else(past)?;
            match out {
                Reg::F(o) => decode_slice(*d, bytes, &mut o[done..done + count]),
                Reg::I(o) => decode_slice_i64(*d, bytes, &mut o[done..done + count]),
            }
            .map_err(crate::format_error)?;
        }
        _ => return Err(untyped()),
    }
    if step == 0 && len > 1 {
        match out {
            Reg::F(o) => repeat(&mut o[done..done + len]),
            Reg::I(o) => repeat(&mut o[done..done + len]),
        }
    }
    Ok(())
}

/// Fills a slice with its first element.
fn repeat<T: Copy>(v: &mut [T]) {
    if let Some(first) = v.first().copied() {
        v.fill(first);
    }
}

fn unary(f: UnaryFn, a: &Reg, out: &mut Reg, n: usize) -> Result<()> {
    match (a, out) {
        (Reg::F(a), Reg::F(o)) => math::unary(f, &a[..n], &mut o[..n]),
        (Reg::I(a), Reg::I(o)) => {
            let g: fn(i64) -> i64 = match f {
                UnaryFn::Neg => i64::wrapping_neg,
                UnaryFn::Abs => i64::wrapping_abs,
                UnaryFn::Relu => |x| x.max(0),
                UnaryFn::Not => |x| i64::from(x == 0),
                _ => return Err(untyped()),
            };
            o[..n].iter_mut().zip(a).for_each(|(o, x)| *o = g(*x));
        }
        _ => return Err(untyped()),
    }
    Ok(())
}

fn binary(f: BinaryFn, a: &Reg, b: &Reg, out: &mut Reg, n: usize) -> Result<()> {
    match (a, b, out) {
        (Reg::F(a), Reg::F(b), Reg::F(o)) => math::binary(f, &a[..n], &b[..n], &mut o[..n]),
        (Reg::F(a), Reg::F(b), Reg::I(o)) => math::compare(f, &a[..n], &b[..n], &mut o[..n]),
        (Reg::I(a), Reg::I(b), Reg::I(o)) => {
            for ((o, x), y) in o[..n].iter_mut().zip(a).zip(b) {
                *o = binary_i64(f, *x, *y).ok_or_else(|| undefined(f, *x, *y))?;
            }
        }
        _ => return Err(untyped()),
    }
    Ok(())
}

fn select(c: &Reg, a: &Reg, b: &Reg, out: &mut Reg, n: usize) -> Result<()> {
    fn pick<T: Copy>(c: &[i64], a: &[T], b: &[T], o: &mut [T]) {
        for (((o, c), a), b) in o.iter_mut().zip(c).zip(a).zip(b) {
            *o = if *c != 0 { *a } else { *b };
        }
    }
    match (c, a, b, out) {
        (Reg::I(c), Reg::F(a), Reg::F(b), Reg::F(o)) => pick(c, a, b, &mut o[..n]),
        (Reg::I(c), Reg::I(a), Reg::I(b), Reg::I(o)) => pick(c, a, b, &mut o[..n]),
        _ => return Err(untyped()),
    }
    Ok(())
}

/// Rounds to a format: floats to integers truncate and saturate, integers wrap.
fn cast(d: DType, a: &Reg, out: &mut Reg, n: usize) -> Result<()> {
    match (a, out) {
        (Reg::F(a), Reg::F(o)) => {
            o[..n].copy_from_slice(&a[..n]);
            round_slice(d, &mut o[..n]);
        }
        (Reg::F(a), Reg::I(o)) => {
            let mut buf = [0u8; TILE * 8];
            let bytes = &mut buf[..(n * d.bits() as usize).div_ceil(8)];
            float_to_int(d, &a[..n], bytes)?;
            decode_slice_i64(d, bytes, &mut o[..n]).map_err(crate::format_error)?;
        }
        (Reg::I(a), Reg::F(o)) => {
            o[..n].iter_mut().zip(a).for_each(|(o, x)| *o = *x as f32);
            round_slice(d, &mut o[..n]);
        }
        (Reg::I(a), Reg::I(o)) => {
            let mut buf = [0u8; TILE * 8];
            let bytes = &mut buf[..(n * d.bits() as usize).div_ceil(8)];
            encode_slice_i64(d, &a[..n], bytes).map_err(crate::format_error)?;
            decode_slice_i64(d, bytes, &mut o[..n]).map_err(crate::format_error)?;
        }
    }
    Ok(())
}

/// Floats as stored integers, truncated; as truth values, whether they differ from 0.
fn float_to_int(d: DType, a: &[f32], bytes: &mut [u8]) -> Result<()> {
    let mut whole = [0f32; TILE];
    let whole = &mut whole[..a.len()];
    if d == DType::Bool {
        whole.copy_from_slice(a);
    } else {
        whole.iter_mut().zip(a).for_each(|(w, x)| *w = x.trunc());
    }
    encode_slice(d, whole, bytes).map_err(crate::format_error)
}

/// Stores each result's value for elements `at..at + n`.
pub(super) fn store(
    f: &Fused<'_>,
    regs: &Regs,
    at: usize,
    n: usize,
    sinks: &[Sink<'_>],
) -> Result<()> {
    for (sink, s) in sinks.iter().zip(&f.plan.expr.stores) {
        let value = regs.regs.get(s.value.0 as usize).ok_or_else(untyped)?;
        match (sink, value) {
            (Sink::Floats(out), Reg::F(v)) => {
                // SAFETY: each element of the output is computed by one task only.
                unsafe { out.slice(at..at + n) }?.copy_from_slice(&v[..n]);
            }
            (Sink::Bytes(d, out), value) => {
                let w = d.bits() as usize / 8;
                // SAFETY: as above; formats take whole bytes here.
                let bytes = unsafe { out.slice(at * w..(at + n) * w) }?;
                match value {
                    Reg::F(v) => encode_slice(*d, &v[..n], bytes),
                    Reg::I(v) => encode_slice_i64(*d, &v[..n], bytes),
                }
                .map_err(crate::format_error)?;
            }
            _ => return Err(untyped()),
        }
    }
    Ok(())
}
