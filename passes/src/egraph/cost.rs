//! What forms cost: the target's cost model at the sizes that matter.
//!
//! The cost of an op is the sum over the module's [`buckets`].
//!
//! [`Traffic`] is the model without a target: every op is a kernel that reads its operands and
//! writes its results once,
//!
//! ```text
//! t = launch + bytes / bandwidth
//! ```
//!
//! It knows no arithmetic, so it never prefers a form that computes less but moves more. It is
//! what `qcc opt --pass fuse` uses on text.

use crate::buckets::{Bucket, buckets};
use qcc_ir::exec::{Bindings, CostModel};
use qcc_ir::graph::{Module, OpKind, TensorType};
use std::collections::HashMap;

/// Microseconds of a kernel that does nothing.
const LAUNCH_MICROS: f64 = 2.0;

/// Bytes per microsecond (2 TB/s, a GPU of the sm_80 generation).
const BYTES_PER_MICRO: f64 = 2.0e6;

/// Bytes moved plus a fixed cost per kernel, for any op: see the module's documentation.
#[derive(Clone, Copy, Debug)]
pub struct Traffic {
    /// Cost of starting a kernel, in microseconds.
    pub launch_micros: f64,
    /// Bytes per microsecond.
    pub bytes_per_micro: f64,
}

impl Default for Traffic {
    /// 2 µs per kernel, 2 TB/s.
    fn default() -> Self {
        Traffic {
            launch_micros: LAUNCH_MICROS,
            bytes_per_micro: BYTES_PER_MICRO,
        }
    }
}

impl CostModel for Traffic {
    fn op_micros(
        &self,
        kind: &OpKind,
        operands: &[&TensorType],
        results: &[&TensorType],
        dims: Bindings<'_>,
    ) -> Result<f64, String> {
        // Constants are there before the run, and a reshape moves nothing.
        let free = matches!(
            kind,
            OpKind::Const { .. } | OpKind::Splat { .. } | OpKind::Dim { .. } | OpKind::Reshape
        );
        if free {
            return Ok(0.0);
        }
        let bytes: f64 = operands.iter().chain(results).map(|t| bytes(t, dims)).sum();
        Ok(self.launch_micros + bytes / self.bytes_per_micro)
    }

    fn target(&self) -> &str {
        "any"
    }
}

fn bytes(t: &TensorType, dims: Bindings<'_>) -> f64 {
    let numel = |shape: &[qcc_ir::DimExpr]| -> f64 {
        shape
            .iter()
            .map(|d| d.eval(dims).unwrap_or(1) as f64)
            .product()
    };
    let codes = numel(&t.shape) * f64::from(t.elem.storage().bits()) / 8.0;
    // A scale or zero point per block, whatever its format: four bytes.
    let scales = t.scale_shape().map_or(0.0, |s| 4.0 * numel(&s));
    codes + scales
}

/// Microseconds of an op per bucket, or why the target cannot run it.
pub(super) type Micros = Result<Vec<f64>, String>;

/// The cost model at the buckets of a module, remembering what it was asked.
pub(super) struct Costs<'a> {
    model: &'a dyn CostModel,
    pub(super) buckets: Vec<Bucket>,
    known: HashMap<(OpKind, Vec<TensorType>, Vec<TensorType>), Micros>,
}

impl<'a> Costs<'a> {
    /// For the sizes that a module names.
    pub(super) fn new(model: &'a dyn CostModel, m: &Module) -> Self {
        Costs {
            model,
            buckets: buckets(m),
            known: HashMap::new(),
        }
    }

    /// The name of the target.
    pub(super) fn target(&self) -> &str {
        self.model.target()
    }

    /// The cost of an op.
    pub(super) fn op(
        &mut self,
        kind: &OpKind,
        operands: &[&TensorType],
        results: &[TensorType],
    ) -> Micros {
        let key = (
            kind.clone(),
            operands.iter().map(|t| (*t).clone()).collect(),
            results.to_vec(),
        );
        if let Some(known) = self.known.get(&key) {
            return known.clone();
        }
        let list: Vec<&TensorType> = results.iter().collect();
        let at = |b: &Bucket| {
            let bind = |s: &str| b.size(s);
            self.model.op_micros(kind, operands, &list, &bind)
        };
        let micros: Micros = self.buckets.iter().map(at).collect();
        self.known.insert(key, micros.clone());
        micros
    }
}
