//! How much memory a run needs, before anything is allocated.
//!
//! A value is live from the op that defines it to the last op that reads it. The intermediates
//! need `max over ops Σ bytes(live values)`, inputs, outputs and constants not counted. A GPU's
//! section has planned its own memory instead.
#![cfg_attr(not(feature = "cpu"), allow(dead_code))]

use qcc_ir::DType;
use qcc_ir::bind::Sizes;
use qcc_ir::diag::{Class, Diagnostic, Result};
use qcc_ir::graph::{Func, Module, OpKind, ScaleType, TensorType, ValueId};

/// Bytes that a run needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Memory {
    /// Weights of the section, as the plan file stores them; shared by all sessions.
    pub weights: u64,
    /// Intermediate values at their peak.
    pub intermediates: u64,
    /// Memory that products of the vendor's library and reports of bad data use; GPUs only.
    pub workspace: u64,
    /// Inputs, which the caller holds; a GPU has a copy.
    pub inputs: u64,
    /// Outputs, which the caller gets; a GPU has a copy.
    pub outputs: u64,
}

/// What the module's entry function needs for these sizes.
///
/// # Errors
/// `Q0720` when a symbol has no size or one outside its range, `Q0721` when sizes overflow.
pub(crate) fn memory(module: &Module, sizes: &[(&str, u64)]) -> Result<Memory> {
    let Some(func) = module.funcs.first() else {
        return Ok(Memory::default());
    };
    let sizes = checked_sizes(module, sizes)?;
    let of = |v: ValueId| value_bytes(func.ty(v), &sizes);
    let sum = |mut bytes: Box<dyn Iterator<Item = Result<u64>> + '_>| {
        bytes.try_fold(0u64, |sum, b| sum.checked_add(b?).ok_or_else(too_large))
    };
    let weights = module
        .weights
        .iter()
        .map(|w| w.byte_len().ok_or_else(too_large));
    Ok(Memory {
        weights: sum(Box::new(weights))?,
        intermediates: peak(func, &of)?,
        workspace: 0,
        inputs: sum(Box::new(func.params.iter().map(|v| of(*v))))?,
        outputs: sum(Box::new(func.results.iter().map(|(_, v)| of(*v))))?,
    })
}

/// Every symbol's size, each within its range.
pub(crate) fn checked_sizes(module: &Module, given: &[(&str, u64)]) -> Result<Sizes> {
    let bad = |text: String| Diagnostic::error(720, Class::Input, text);
    if let Some((name, _)) = given
        .iter()
        .find(|(name, _)| module.symbols.iter().all(|s| s.name != *name))
    {
        return Err(bad(format!("the plan has no symbol `{name}`")));
    }
    let size = |s: &qcc_ir::graph::Symbol| {
        let found = given.iter().find(|(name, _)| *name == s.name);
        match found {
            Some((_, n)) if (s.min..=s.max).contains(n) => i64::try_from(*n)
                .map(|n| (s.name.clone(), n))
                .map_err(|_| too_large()),
            Some((name, n)) => Err(bad(format!(
                "{name} = {n} lies outside the compiled range {}..{}",
                s.min, s.max
            ))),
            None => Err(bad(format!("the size of `{}` is not given", s.name))),
        }
    };
    module.symbols.iter().map(size).collect()
}

/// The largest sum of live intermediates over the ops.
fn peak(func: &Func, bytes: &dyn Fn(ValueId) -> Result<u64>) -> Result<u64> {
    let mut last = vec![None; func.values.len()];
    for (id, op) in func.ops() {
        op.operands.iter().for_each(|v| last[v.index()] = Some(id));
    }
    let counted = |v: &ValueId| {
        let constant = func
            .def_op(*v)
            .is_none_or(|op| matches!(op.kind, OpKind::Const { .. }));
        !constant && !func.is_result(*v)
    };
    let (mut live, mut peak) = (0u64, 0u64);
    for (id, op) in func.ops() {
        for v in op.results.iter().filter(|v| counted(v)) {
            live = live.checked_add(bytes(*v)?).ok_or_else(too_large)?;
        }
        peak = peak.max(live);
        let mut ended: Vec<_> = op.operands.iter().chain(&op.results).copied().collect();
        ended.sort_unstable();
        ended.dedup();
        for v in ended.iter().filter(|v| counted(v)) {
            // A result that nobody reads dies where it is defined.
            if last[v.index()].is_none_or(|l| l == id) {
                live -= bytes(*v)?;
            }
        }
    }
    Ok(peak)
}

/// Bytes of codes, scales and zero points.
fn value_bytes(ty: &TensorType, sizes: &Sizes) -> Result<u64> {
    let dims = sizes.dims(ty)?;
    let codes = tensor_bytes(ty.elem.storage(), &dims)?;
    let Some((q, shape)) = ty.elem.quant().zip(ty.scale_shape()) else {
        return Ok(codes);
    };
    let plain = TensorType::new(DType::F32, shape);
    let dims = sizes.dims(&plain)?;
    let scales = match q.scale {
        ScaleType::Plain(d) => tensor_bytes(d, &dims)?,
        ScaleType::TwoLevel(d, top) => {
            let top = tensor_bytes(top, &[])?;
            tensor_bytes(d, &dims)?
                .checked_add(top)
                .ok_or_else(too_large)?
        }
    };
    let zeros = q.zero.map_or(Ok(0), |z| tensor_bytes(z, &dims))?;
    let all = codes.checked_add(scales).and_then(|b| b.checked_add(zeros));
    all.ok_or_else(too_large)
}

fn tensor_bytes(dtype: DType, dims: &[u64]) -> Result<u64> {
    let elems = dims.iter().try_fold(1u64, |n, d| n.checked_mul(*d));
    elems.and_then(|n| dtype.byte_len(n)).ok_or_else(too_large)
}

pub(crate) fn too_large() -> Diagnostic {
    Diagnostic::error(
        721,
        Class::Input,
        "a value of these sizes is larger than 2^64 bytes",
    )
}
