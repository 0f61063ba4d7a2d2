//! Tests of fusion: whole blocks as text, each rule both ways, the search itself.

mod blocks;
mod cases;
mod cases_merge;
mod fill;
mod rules;
mod search;

use super::{Fused, Limits, Traffic, fuse};
use crate::testing::module;
use qcc_ir::exec::{Bindings, CostModel};
use qcc_ir::graph::{Module, OpKind, TensorType, verify};

/// Fuses a text under the default cost model; both sides are valid.
pub(super) fn fused(text: &str) -> (Module, Fused) {
    let before = module(text);
    assert!(verify(&before).is_empty(), "{:?}", verify(&before));
    let out = fuse(&before, &Traffic::default(), Limits::default());
    let out = out.unwrap_or_else(|e| panic!("{e}\n{before}"));
    let violations = verify(&out.module);
    assert!(violations.is_empty(), "{violations:?}\n{}", out.module);
    (before, out)
}

/// Every kernel costs the same: the fewest win.
pub(super) struct Launches;

impl CostModel for Launches {
    fn op_micros(
        &self,
        kind: &OpKind,
        _: &[&TensorType],
        _: &[&TensorType],
        _: Bindings<'_>,
    ) -> Result<f64, String> {
        let free = matches!(kind, OpKind::Const { .. } | OpKind::Splat { .. });
        Ok(if free { 0.0 } else { 1.0 })
    }

    fn target(&self) -> &str {
        "launches"
    }
}
