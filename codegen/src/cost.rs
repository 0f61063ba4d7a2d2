//! How long an op takes on a target: the slower of its bytes and its operations, plus a launch.
//!
//! ```text
//! t = launch + max(bytes / (bandwidth · e_mem), operations / (rate · e_op))
//! ```
//!
//! The refusals are those of the kernels ([`crate::kernels::supports`]), so that a choice made
//! with this model can always be built.

use crate::kernels::{gemm, supports};
use crate::target::{Machine, Target};
use qcc_ir::exec::{Bindings, CostModel};
use qcc_ir::graph::{OpKind, TensorType};
use qcc_ir::{DType, DimExpr};

/// Microseconds from the end of one kernel to the first result of the next: a launch in a stream
/// or graph, and one round trip to memory (0.7 µs). Source: timing model in NVIDIA's and the
/// literature's microbenchmarks, about 1.3 µs per launch.
const GPU_LAUNCH: f64 = 2.0;
/// Microseconds to hand an op to the CPU's threads.
const CPU_LAUNCH: f64 = 5.0;

/// Shares of the peak that a class of kernels reaches. Not measured on these kernels yet: the
/// bounds below are published ones of comparable kernels, discounted.
struct Efficiency {
    memory: f64,
    arithmetic: f64,
}

/// `mma.sync` reaches at most about 75 % of a Hopper's peak (vllm#7174); a three-stage tile
/// without a persistent grid reaches about two thirds of that.
const TENSOR: Efficiency = Efficiency {
    memory: 0.75,
    arithmetic: 0.5,
};
/// Ordinary arithmetic from shared memory, one load for each multiply-add and a half.
const ORDINARY: Efficiency = Efficiency {
    memory: 0.75,
    arithmetic: 0.35,
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
}

impl Roofline {
    /// The model of a target.
    pub const fn new(target: &'static Target) -> Roofline {
        Roofline { target }
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
            match (target.machine, gemm::meeting(x, w)) {
                (Machine::Gpu(_), Some(how)) => {
                    // Tiles have at least 16 rows, whether all exist or not.
                    let ops = ops * (rows / 16.0).ceil() * 16.0 / rows.max(1.0);
                    (ops, target.matrix_rate(how.format()), TENSOR)
                }
                (Machine::Gpu(_), None) => (ops, f32_rate, ORDINARY),
                (Machine::Cpu, _) => {
                    let d = match (x.elem.quant(), w.elem.quant()) {
                        (Some(a), Some(_)) => a.storage,
                        _ => DType::F32,
                    };
                    (ops, target.matrix_rate(d), TENSOR)
                }
            }
        }
        OpKind::MatMul => {
            let k = count(&operands[0].shape[operands[0].rank() - 1..], bind)?;
            (2.0 * out * k, f32_rate, ORDINARY)
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
        let launch = match self.target.machine {
            Machine::Cpu => CPU_LAUNCH,
            Machine::Gpu(_) => {
                supports(kind, operands, results, self.target)
                    .map_err(|e| e.message().to_string())?;
                GPU_LAUNCH
            }
        };
        let (ops, rate, e) = work(self.target, kind, operands, results, dims)?;
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
        let bandwidth = self.target.device().gbps * 1e9;
        let seconds = (moved / (bandwidth * e.memory)).max(ops / (rate * e.arithmetic));
        Ok(launch + seconds * 1e6)
    }

    fn target(&self) -> &str {
        self.target.name
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use qcc_ir::format::BlockShape;
    use qcc_ir::graph::QuantType;

    fn linear() -> OpKind {
        OpKind::Linear {
            segments: vec![],
            accs: 1,
            expr: None,
        }
    }

    fn micros(target: &str, x: &TensorType, w: &TensorType) -> Result<f64, String> {
        let n = w.shape[0].clone();
        let y = TensorType::new(DType::F16, [x.shape[0].clone(), n]);
        let model = Roofline::new(Target::find(target).unwrap());
        model.op_micros(&linear(), &[x, w], &[&y], &|_| Some(1))
    }

    fn plain(d: &[i64]) -> TensorType {
        TensorType::new(DType::F16, d.iter().map(|d| DimExpr::from(*d)))
    }

    fn quant(d: DType, dims: &[i64]) -> TensorType {
        let q = QuantType::symmetric(d, BlockShape::axis(2, 0));
        TensorType::quant(q, dims.iter().map(|d| DimExpr::from(*d)))
    }

    #[test]
    fn small_batches_are_bound_by_weight_bytes() {
        let half = micros("sm_90", &plain(&[1, 8192]), &plain(&[8192, 8192])).unwrap();
        let byte = micros(
            "sm_90",
            &plain(&[1, 8192]),
            &quant(DType::E4M3, &[8192, 8192]),
        )
        .unwrap();
        let ratio = (half - GPU_LAUNCH) / (byte - GPU_LAUNCH);
        assert!((1.9..2.1).contains(&ratio), "{half} {byte}");
    }

    #[test]
    fn large_batches_are_bound_by_arithmetic() {
        let x = |d| quant(d, &[8192, 8192]);
        let half = micros("sm_80", &plain(&[8192, 8192]), &plain(&[8192, 8192])).unwrap();
        let int = micros("sm_80", &x(DType::I8), &x(DType::I8)).unwrap();
        assert!((1.9..2.1).contains(&(half / int)), "{half} {int}");
    }

    #[test]
    fn what_no_kernel_serves_is_refused_with_its_reason() {
        let mut q = QuantType::symmetric(DType::I8, BlockShape::row(2));
        q.dynamic = true;
        let y = TensorType::quant(q, [DimExpr::from(4), DimExpr::from(64)]);
        let (x, w) = (plain(&[4, 64]), plain(&[64, 64]));
        let model = Roofline::new(Target::find("sm_80").unwrap());
        let e = model
            .op_micros(&linear(), &[&x, &w], &[&y], &|_| None)
            .unwrap_err();
        assert!(e.contains("whole rows"), "{e}");
    }
}
