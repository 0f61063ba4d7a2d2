//! Graph passes: module to module, from the float model to the quantized and fused one.
//!
//! A [`Pass`] is a function of a module and a [`PassContext`] (options, statistics, an executor,
//! a cost model, the ledger that it writes to). [`Manager`] runs a list of them, verifies after
//! each and reports times; [`registry`] finds them by name; [`pipeline`] says which run in
//! which order and why.
//!
//! ```
//! use qcc_ir::{DType, graph::{Builder, TensorType}, expr::UnaryFn};
//! use qcc_passes::{Manager, Options, PassContext, registry};
//! let mut b = Builder::new("main");
//! let x = b.param("x", TensorType::fixed(DType::F32, &[2, 3]));
//! let unused = b.unary(UnaryFn::Exp, x)?;
//! let y = b.unary(UnaryFn::Neg, x)?;
//! let module = b.finish_module([("y", y)]);
//!
//! let options = Options::default();
//! let mut ctx = PassContext::new(&options);
//! let out = Manager::new(registry::parse_list("dce")?).run(module, &mut ctx)?;
//! assert_eq!(out.module.funcs[0].ops.len(), 1);
//! # Ok::<(), qcc_ir::Diagnostic>(())
//! ```
#![warn(missing_docs)]

mod analysis;
mod buckets;
mod calibrate;
mod canonicalize;
pub mod choose;
mod cse;
mod dce;
pub mod egraph;
mod fold_constants;
mod layer_errors;
mod logits;
mod manager;
mod narrow_floats;
mod options;
mod parallel;
mod pass;
pub mod pipeline;
mod quantize;
mod ranges;
mod recognise;
pub mod registry;
mod rewrite;
mod rotate;
mod smooth;
mod spill;
mod split_outliers;
mod split_weights;
mod statistics;
#[cfg(test)]
mod testing;
mod vector;
mod weights;

pub use buckets::{Bucket, buckets};
pub use calibrate::{Calibrator, HessianProbe, Point, calibration_points};
pub use egraph::Workload;
pub use layer_errors::{
    LayerFacts, Measured, OUTLIER_RATIO, ValueHistogram, WeightError, layer_facts, quantize_only,
};
pub use logits::{log_sum_exp, logits};
pub use manager::{Manager, Observer, Outcome, PassRun};
pub use options::{ActMode, GptqOptions, Options, Smooth};
pub use pass::{Pass, PassContext};
pub use quantize::{
    Algo, CodedWeights, Granularity, Grid, Group, QuantSpec, Samples, Scheme, Weights,
};
pub use ranges::CalibMethod;
pub use spill::{Spill, Spilling};
pub use statistics::{ChannelSums, Histogram, Statistics, ValueStats};
