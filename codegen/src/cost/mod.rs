//! How long an op takes on a target: the slower of its bytes and its operations, plus a launch.
//!
//! ```text
//! t = launch + max(bytes / (bandwidth · e_mem), operations / (rate · e_op))
//! ```
//!
//! Products on tensor cores have a model of their own (`matrix`): tiles, waves of them over the
//! multiprocessors, and the conversion of codes. An op that computes scales of its data reads
//! its operand once more.
//!
//! The refusals are those of the kernels ([`crate::kernels::supports`]), so that a choice made
//! with this model can always be built.

mod matrix;

use crate::kernels::supports;
use crate::target::{Machine, Target};
use qcc_ir::exec::{Bindings, CostModel};
use qcc_ir::graph::{OpKind, TensorType};
use qcc_ir::{DType, DimExpr};

/// Microseconds from the end of a kernel of a graph to the beginning of the next. An estimate for
/// Hopper; the GPU suite's stage 4 (`gaps`, tests/gpu) measures it.
const GRAPH_LAUNCH: f64 = 1.3;
/// The same of kernels that the host puts into a stream one by one: it takes 2 to 4 µs for each on
/// server processors (4 to 6 on a desktop with an RTX 5070 Ti and CUDA 13, cuda-kernel-launch-lab),
/// longer than most kernels of a decoding step run, so that the GPU waits for it. `gaps` measures
/// this as well.
const STREAM_LAUNCH: f64 = 3.0;
/// Microseconds from the beginning of a kernel to its first result: a round trip to memory.
const FIRST_RESULT: f64 = 0.7;
/// Microseconds to hand an op to the CPU's threads.
const CPU_LAUNCH: f64 = 5.0;

/// How the kernels of a GPU section are started.
///
/// The CUDA device records the commands of a run once for each set of sizes and replays them as a
/// graph. The simulator and the CPU start nothing, so nothing of theirs depends on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Launching {
    /// As a graph that was captured before.
    #[default]
    Graph,
    /// Each by a call of its own.
    Stream,
}

/// Shares of the peak that a class of kernels reaches. Not measured on these kernels yet: the
/// bounds are published ones of comparable kernels, discounted.
struct Efficiency {
    memory: f64,
    arithmetic: f64,
}

/// Ordinary arithmetic from shared memory, one load for each multiply-add and a half.
const ORDINARY: Efficiency = Efficiency {
    memory: 0.75,
    arithmetic: 0.35,
};
/// Products on a CPU: the shares of a blocked product from the caches.
const CPU_PRODUCT: Efficiency = Efficiency {
    memory: 0.75,
    arithmetic: 0.5,
};
/// One thread per output element, operands through the caches.
const DIRECT: Efficiency = Efficiency {
    memory: 0.5,
    arithmetic: 0.05,
};
/// Streaming kernels: 85 % of the bandwidth is what plain copies reach.
const STREAM: Efficiency = Efficiency {
    memory: 0.85,
    arithmetic: 0.5,
};

/// The cost model of a target's default device.
#[derive(Clone, Copy, Debug)]
pub struct Roofline {
    target: &'static Target,
    launching: Launching,
}

impl Roofline {
    /// The model of a target whose kernels are replayed as a graph.
    pub const fn new(target: &'static Target) -> Roofline {
        Roofline {
            target,
            launching: Launching::Graph,
        }
    }

    /// The same with kernels that are started otherwise.
    #[must_use]
    pub const fn launching(self, launching: Launching) -> Roofline {
        Roofline { launching, ..self }
    }

    /// Microseconds that each op takes besides its work.
    fn launch_micros(&self) -> f64 {
        match (self.target.machine, self.launching) {
            (Machine::Cpu, _) => CPU_LAUNCH,
            (Machine::Gpu(_), Launching::Graph) => GRAPH_LAUNCH + FIRST_RESULT,
            (Machine::Gpu(_), Launching::Stream) => STREAM_LAUNCH + FIRST_RESULT,
        }
    }
}

/// Elements of a tensor under a binding; unbound sizes are an error.
fn count(dims: &[DimExpr], bind: Bindings<'_>) -> Result<f64, String> {
    let mut n = 1.0;
    for d in dims {
        let v = d
            .eval(bind)
            .ok_or_else(|| format!("size {d} is not bound"))?;
        n *= v as f64;
    }
    Ok(n)
}

/// Bytes of codes and scales.
fn bytes(t: &TensorType, bind: Bindings<'_>) -> Result<f64, String> {
    let codes = count(&t.shape, bind)? * f64::from(t.elem.storage().bits()) / 8.0;
    let Some(q) = t.elem.quant() else {
        return Ok(codes);
    };
    let each = q.scale.stored().bits() + q.zero.map_or(0, DType::bits);
    let scales = count(&t.scale_shape().unwrap_or_default(), bind)?;
    Ok(codes + scales * f64::from(each) / 8.0)
}

/// Operations, their rate per second, and the class of the kernel.
fn work(
    target: &Target,
    kind: &OpKind,
    operands: &[&TensorType],
    results: &[&TensorType],
    bind: Bindings<'_>,
) -> Result<(f64, f64, Efficiency), String> {
    let f32_rate = target.matrix_rate(DType::F32);
    let out = count(&results[0].shape, bind)?;
    Ok(match kind {
        OpKind::Linear { .. } => {
            let (x, w) = (operands[0], operands[1]);
            let rows = count(&x.shape[..x.rank() - 1], bind)?;
            let ops = 2.0 * rows * count(&w.shape, bind)?;
            match target.machine {
                Machine::Gpu(_) => (ops, f32_rate, ORDINARY),
                Machine::Cpu => {
                    let d = match (x.elem.quant(), w.elem.quant()) {
                        (Some(a), Some(_)) => a.storage,
                        _ => DType::F32,
                    };
                    (ops, target.matrix_rate(d), CPU_PRODUCT)
                }
            }
        }
        OpKind::MatMul => {
            let k = count(&operands[0].shape[operands[0].rank() - 1..], bind)?;
            (2.0 * out * k, f32_rate, ORDINARY)
        }
        OpKind::SparseLinear => {
            let each = count(&operands[1].shape[1..], bind)?;
            (2.0 * out * each, f32_rate, DIRECT)
        }
        OpKind::Attention { attrs, .. } => {
            let (q, k) = (operands[0], operands[1]);
            let keys = count(&k.shape[1..2], bind)?;
            let causal = if attrs.causal { 0.5 } else { 1.0 };
            let queries = count(&q.shape, bind)?;
            (2.0 * (queries + out) * keys * causal, f32_rate, ORDINARY)
        }
        OpKind::Conv { .. } => {
            let w = operands[1];
            (2.0 * out * count(&w.shape[1..], bind)?, f32_rate, DIRECT)
        }
        // An expression's step is an operation; special functions are a dozen.
        other => {
            let steps = other.expr().map_or(4, |e| e.nodes.len().max(4));
            (out * 4.0 * steps as f64, f32_rate, STREAM)
        }
    })
}

/// Bytes that an op reads and writes.
fn moved(
    kind: &OpKind,
    operands: &[&TensorType],
    results: &[&TensorType],
    dims: Bindings<'_>,
) -> Result<f64, String> {
    let mut moved = 0.0;
    for t in results {
        moved += bytes(t, dims)?;
    }
    for (i, t) in operands.iter().enumerate() {
        // A gather reads as much of its table as it writes.
        moved += match (kind, i) {
            (OpKind::Gather { .. }, 0) => bytes(results[0], dims)?,
            _ => bytes(t, dims)?,
        };
    }
    // The greatest magnitude of a row is known only after the row has been read.
    let of_data = |t: &&TensorType| t.elem.quant().is_some_and(|q| q.dynamic);
    if let (true, Some(x)) = (results.iter().any(of_data), operands.first()) {
        moved += bytes(x, dims)?;
    }
    Ok(moved)
}

impl CostModel for Roofline {
    fn op_micros(
        &self,
        kind: &OpKind,
        operands: &[&TensorType],
        results: &[&TensorType],
        dims: Bindings<'_>,
    ) -> Result<f64, String> {
        if matches!(
            kind,
            OpKind::Const { .. } | OpKind::Splat { .. } | OpKind::Reshape
        ) {
            return Ok(0.0);
        }
        if self.target.is_gpu() {
            supports(kind, operands, results, self.target).map_err(|e| e.message().to_string())?;
        }
        let moved = moved(kind, operands, results, dims)?;
        let seconds = match matrix::Product::of(self.target, kind, operands, dims)? {
            Some(p) => p.seconds(self.target, moved),
            None => {
                let (ops, rate, e) = work(self.target, kind, operands, results, dims)?;
                let bandwidth = self.target.device().gbps * 1e9;
                (moved / (bandwidth * e.memory)).max(ops / (rate * e.arithmetic))
            }
        };
        Ok(self.launch_micros() + seconds * 1e6)
    }

    fn target(&self) -> &str {
        self.target.name
    }
}

#[cfg(test)]
mod tests;
