//! What forms cost: the target's cost model at the sizes that matter.
//!
//! The cost of an op is the mean over all calls, of which each of the module's [`buckets`] has the
//! share that the [`Workload`] says.
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

impl Traffic {
    /// That of the default.
    pub const USUAL: Traffic = Traffic {
        launch_micros: LAUNCH_MICROS,
        bytes_per_micro: BYTES_PER_MICRO,
    };
}

impl Default for Traffic {
    /// 2 µs per kernel, 2 TB/s.
    fn default() -> Self {
        Traffic::USUAL
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

/// How often each bucket is called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Workload {
    /// Generation: the first, smallest sizes a thousand times for each call of the others.
    Decode,
    /// Prompts: the last, largest sizes a thousand times for each call of the others.
    Prefill,
    /// Every bucket once.
    #[default]
    Mixed,
}

impl Workload {
    /// Calls of the bucket at this position of so many, as a share of all.
    fn share(self, at: usize, of: usize) -> f64 {
        let often = match self {
            Workload::Decode => Some(0),
            Workload::Prefill => Some(of.saturating_sub(1)),
            Workload::Mixed => None,
        };
        let calls = |i: usize| if often == Some(i) { 1000.0 } else { 1.0 };
        calls(at) / (0..of).map(calls).sum::<f64>()
    }
}

/// Microseconds of an op per bucket, or why the target cannot run it.
pub(super) type Micros = Result<Vec<f64>, String>;

/// The cost model at the buckets of a module, remembering what it was asked.
pub(super) struct Costs<'a> {
    model: &'a dyn CostModel,
    pub(super) buckets: Vec<Bucket>,
    /// The share of all calls that each bucket has.
    shares: Vec<f64>,
    known: HashMap<(OpKind, Vec<TensorType>, Vec<TensorType>), Micros>,
}

impl<'a> Costs<'a> {
    /// For the sizes that a module names.
    pub(super) fn new(model: &'a dyn CostModel, m: &Module, workload: Workload) -> Self {
        let buckets = buckets(m);
        let count = buckets.len();
        Costs {
            model,
            shares: (0..count).map(|i| workload.share(i, count)).collect(),
            buckets,
            known: HashMap::new(),
        }
    }

    /// The name of the target.
    pub(super) fn target(&self) -> &str {
        self.model.target()
    }

    /// The mean over all calls of microseconds per bucket.
    pub(super) fn mean(&self, micros: &[f64]) -> f64 {
        self.shares
            .iter()
            .zip(micros)
            .map(|(share, us)| share * us)
            .sum()
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
