//! Elementwise ops: every one is an expression over its operands.

use super::{Call, Prepared, Site};
use crate::expr::{Fused, Outputs, Plan, Spec};
use crate::kernels::rows::Reduction;
use crate::value::View;
use qcc_ir::diag::Result;
use qcc_ir::expr::{Expr, Node};
use qcc_ir::format::{decode_slice, decode_slice_i64, encode_slice, encode_slice_i64};
use qcc_ir::graph::{OpKind, TensorType};
use qcc_ir::{Bundle, DType, Tensor};

/// Elements that one task computes; a multiple of the tile.
const PIECE: usize = 1 << 14;

/// The expression of an elementwise op.
fn expression(kind: &OpKind) -> Expr {
    let mut e = Expr::default();
    let mut input = |k| e.push(Node::Input(k));
    let value = match kind {
        OpKind::Map(e) => return e.clone(),
        OpKind::Unary(f) => {
            let a = input(0);
            e.push(Node::Unary(*f, a))
        }
        OpKind::Binary(f) => {
            let (a, b) = (input(0), input(1));
            e.push(Node::Binary(*f, a, b))
        }
        _ => {
            let (c, a, b) = (input(0), input(1), input(2));
            e.push(Node::Select(c, a, b))
        }
    };
    e.store(value);
    e
}

pub(super) fn prepare(site: &mut Site<'_>) -> Result<Prepared> {
    let expr = expression(&site.op.kind);
    let plan = plan(site, &expr)?;
    super::plain(move |c| run(c, &plan))
}

/// The plan of an elementwise op with this expression.
pub(super) fn plan(site: &mut Site<'_>, expr: &Expr) -> Result<Plan> {
    let (operands, results) = (site.operand_types(), site.result_types());
    let by_row = |t: &&TensorType| {
        t.elem
            .quant()
            .is_some_and(|q| q.dynamic && q.block.is_row())
    };
    let spec = Spec {
        expr,
        operands: &operands,
        results: &results,
        shape: &results[0].shape,
        accs: 0,
        reduction: Reduction::None,
        rows: results.iter().any(by_row),
        segmented: false,
    };
    Plan::new(&spec, site.jit)
}

pub(super) fn run(c: &Call<'_>, plan: &Plan) -> Result<Vec<Bundle>> {
    let (_, dims) = c.result()?;
    let dims = crate::value::sizes(dims);
    let len = dims.iter().product();
    let fused = Fused::new(plan, c.args, &dims, None, c.threads)?;
    let mut out = Outputs::new(plan, c.results, c.args, c.pool)?;
    let sinks = out.sinks()?;
    c.threads.ranges(len, fused.grain(PIECE), |r| {
        fused.run(&mut fused.scratch(), r.start, r.len(), [&[], &[]], &sinks)
    })?;
    drop(sinks);
    out.finish(c.threads)
}

/// Numbers of a plain tensor: floats exactly in f64, integers in i64.
enum Numbers {
    Float(Vec<f64>),
    Int(Vec<i64>),
}

fn numbers(v: &View<'_>, at: usize, len: usize) -> Result<Numbers> {
    let d = v.codes.dtype();
    let bytes = &v.codes.bytes()[crate::value::span(d, at, len)];
    if d.is_float() {
        let mut x = vec![0f64; len];
        decode_slice(d, bytes, &mut x).map_err(crate::format_error)?;
        return Ok(Numbers::Float(x));
    }
    let mut x = vec![0i64; len];
    decode_slice_i64(d, bytes, &mut x).map_err(crate::format_error)?;
    Ok(Numbers::Int(x))
}

fn encode(d: DType, x: Numbers, bytes: &mut [u8]) -> Result<()> {
    match x {
        Numbers::Float(mut x) => {
            if d.is_int() {
                x.iter_mut().for_each(|v| *v = v.trunc());
            }
            encode_slice(d, &x, bytes)
        }
        Numbers::Int(x) if d.is_float() => {
            let x: Vec<f64> = x.into_iter().map(|v| v as f64).collect();
            encode_slice(d, &x, bytes)
        }
        Numbers::Int(x) => encode_slice_i64(d, &x, bytes),
    }
    .map_err(crate::format_error)
}

/// Conversion between plain formats, without a detour through f32.
pub(super) fn cast(c: &Call<'_>) -> Result<Vec<Bundle>> {
    let (ty, dims) = c.result()?;
    let (x, d) = (c.arg(0)?, ty.plain("the result of a cast")?);
    let mut t = Tensor::zeros(d, dims)?;
    let total = t.numel();
    let out = crate::threads::Scatter::new(t.bytes_mut());
    c.threads.ranges(total, PIECE, |r| {
        // SAFETY: pieces hold an even number of elements, so they begin on a byte of their own.
        let bytes = unsafe { out.slice(crate::value::span(d, r.start, r.len())) }?;
        encode(d, numbers(&x, r.start, r.len())?, bytes)
    })?;
    Ok(vec![t.into()])
}
