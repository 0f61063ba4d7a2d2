//! Which float value gets which format.

use crate::weights::read_f32;
use qcc_ir::DType;
use qcc_ir::diag::Result;
use qcc_ir::graph::{Func, Module, Op, OpKind, TensorType, ValueId, WeightData};

/// The largest finite number of a storage format.
pub(super) fn largest(d: DType) -> f64 {
    match d {
        DType::F16 => 65504.0,
        DType::BF16 => 3.389_531_389_251_535_5e38,
        _ => f64::INFINITY,
    }
}

pub(super) fn is_storage(d: DType) -> bool {
    matches!(d, DType::F32 | DType::F16 | DType::BF16)
}

/// The format of a plain float of the kind that this pass converts.
pub(super) fn float(ty: &TensorType) -> Option<DType> {
    ty.elem.plain().filter(|d| is_storage(*d))
}

fn is_elementwise(kind: &OpKind) -> bool {
    matches!(
        kind,
        OpKind::Unary(_) | OpKind::Binary(_) | OpKind::Select | OpKind::Cast | OpKind::Map(_)
    )
}

/// The new format of every float value of a function; `None` keeps what it has.
pub(super) fn plan(m: &Module, f: &Func, target: DType) -> Result<Vec<Option<DType>>> {
    let mut plan: Vec<Option<DType>> = vec![None; f.values.len()];
    if target == DType::F32 {
        for (p, v) in plan.iter_mut().zip(&f.values) {
            *p = float(&v.ty).map(|_| DType::F32);
        }
        keep_interface(f, &mut plan);
        return Ok(plan);
    }
    let data = data_values(f);
    let summed = summed_values(f);
    // Values that carry data but stay in f32.
    let mut kept = vec![false; f.values.len()];
    for op in &f.ops {
        let is_sum = matches!(op.kind, OpKind::Reduce { .. } | OpKind::CumSum { .. });
        let keep =
            is_sum || is_elementwise(&op.kind) && stays_wide(m, f, op, &data, &kept, target)?;
        for r in op
            .results
            .iter()
            .filter(|r| float(f.ty(**r)).is_some() && data[r.index()])
        {
            kept[r.index()] = keep || summed[r.index()];
            let wide = kept[r.index()];
            plan[r.index()] = Some(if wide { DType::F32 } else { target });
        }
    }
    keep_interface(f, &mut plan);
    Ok(plan)
}

/// Whether an elementwise op of data computes on nothing but sums, or on something that the
/// target's format cannot hold.
fn stays_wide(
    m: &Module,
    f: &Func,
    op: &Op,
    data: &[bool],
    kept: &[bool],
    target: DType,
) -> Result<bool> {
    let mut all_kept = true;
    for v in op.operands.iter().filter(|v| float(f.ty(**v)).is_some()) {
        if data[v.index()] {
            all_kept &= kept[v.index()];
            continue;
        }
        match constant_absmax(m, f, *v)? {
            Some(most) if most <= largest(target) => {}
            // Positions, masks, and constants beyond the range (or unknown).
            _ => return Ok(true),
        }
    }
    Ok(all_kept)
}

fn keep_interface(f: &Func, plan: &mut [Option<DType>]) {
    let results = f.results.iter().map(|(_, v)| v);
    for v in f.params.iter().chain(results) {
        plan[v.index()] = float(f.ty(*v));
    }
}

/// Values that follow from the model's float data: parameters, embeddings, products.
fn data_values(f: &Func) -> Vec<bool> {
    let mut data = vec![false; f.values.len()];
    for p in &f.params {
        data[p.index()] = float(f.ty(*p)).is_some();
    }
    for op in &f.ops {
        let source = matches!(
            op.kind,
            OpKind::Gather { .. }
                | OpKind::MatMul
                | OpKind::Linear { .. }
                | OpKind::Conv { .. }
                | OpKind::Dequantize
        );
        if source || op.operands.iter().any(|v| data[v.index()]) {
            op.results.iter().for_each(|r| data[r.index()] = true);
        }
    }
    data
}

/// What a sum reads, and the elementwise results that this is computed from.
fn summed_values(f: &Func) -> Vec<bool> {
    let mut summed = vec![false; f.values.len()];
    for op in f.ops.iter().rev() {
        let sums = matches!(op.kind, OpKind::Reduce { .. } | OpKind::CumSum { .. });
        let feeds = is_elementwise(&op.kind) && op.results.iter().any(|r| summed[r.index()]);
        if sums || feeds {
            for v in &op.operands {
                let elementwise = f.def_op(*v).is_some_and(|d| is_elementwise(&d.kind));
                summed[v.index()] |= elementwise;
            }
        }
    }
    summed
}

/// The largest magnitude in a constant that can be read.
pub(super) fn constant_absmax(m: &Module, f: &Func, v: ValueId) -> Result<Option<f64>> {
    match f.def_op(v).map(|op| &op.kind) {
        Some(OpKind::Splat { value }) => Ok(Some(f64::from_bits(*value).abs())),
        Some(OpKind::Const { weight, .. }) => {
            let w = m.weight(*weight);
            if matches!(w.data, WeightData::Extern) {
                return Ok(None);
            }
            let most = read_f32(w)?.into_iter().fold(0.0f32, |m, v| m.max(v.abs()));
            Ok(Some(f64::from(most)))
        }
        _ => Ok(None),
    }
}
