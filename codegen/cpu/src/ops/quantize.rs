//! `quantize` and `dequantize`.

use super::{Call, Prepared, Site, map};
use qcc_ir::Bundle;
use qcc_ir::diag::Result;
use qcc_ir::expr::{Expr, Node, Store};

/// Quantization to the result's type, with the given scale or with one computed from each block:
/// by a row kernel where one scale serves a tensor or a row, else by the codecs.
pub(super) fn prepare(site: &mut Site<'_>) -> Result<Prepared> {
    let scheme = site.result_types().first().and_then(|t| t.elem.quant());
    if scheme.is_some_and(|q| q.scale.global().is_some()) {
        return super::plain(quantize);
    }
    let mut expr = Expr::default();
    let value = expr.push(Node::Input(0));
    let given = |i: u8| (site.op.operands.len() > usize::from(i)).then_some(i);
    expr.stores.push(Store {
        value,
        scale: given(1),
        zero: given(2),
    });
    let plan = map::plan(site, &expr)?;
    if plan.stores_codes(0) {
        return super::plain(move |c| map::run(c, &plan));
    }
    super::plain(quantize)
}

fn quantize(c: &Call<'_>) -> Result<Vec<Bundle>> {
    let (ty, dims) = c.result()?;
    let q = ty
        .elem
        .quant()
        .ok_or_else(|| crate::internal("quantize to a plain type"))?;
    let param = |i: usize| c.args.get(i).copied().flatten().map(|v| v.codes);
    let params = q.quantize_params().map(|i| i.and_then(param));
    let x = c.arg(0)?.floats(c.threads)?;
    Ok(vec![crate::quant::quantize(
        q, &x, dims, params, c.threads,
    )?])
}

/// The real values of a quantized operand.
pub(super) fn dequantize(c: &Call<'_>) -> Result<Vec<Bundle>> {
    let (ty, dims) = c.result()?;
    let x = c.arg(0)?.floats(c.threads)?;
    let t = crate::value::encode_floats(ty.plain("a real value")?, dims, &x, c.threads)?;
    Ok(vec![t.into()])
}
