//! The oracle: the meaning of every graph op, slow and exact.
//!
//! Sums are in f64 and every op rounds its result once, to the format of its type; expression
//! steps round to f32. Constant folding, CPU kernels and emitted PTX are all judged by it.
//!
//! ```
//! use qcc_ir::graph::{Builder, TensorType};
//! use qcc_ir::{DType, Tensor, eval, expr::UnaryFn};
//! let mut b = Builder::new("main");
//! let x = b.param("x", TensorType::fixed(DType::F32, &[3]));
//! let y = b.unary(UnaryFn::Relu, x)?;
//! let m = b.finish_module([("y", y)]);
//! let out = eval::run(&m, &[Tensor::f32(&[3], &[-1.0, 0.0, 2.0])?])?;
//! assert_eq!(out[0].as_slice::<f32>()?, [0.0, 0.0, 2.0]);
//! # Ok::<(), qcc_ir::Diagnostic>(())
//! ```

mod contract;
mod expr;
mod layout;
mod ops;
mod quant;
mod reduce;
mod scalar;
mod sparse;
mod value;
mod weights;

pub use ops::eval_op;
pub use quant::{global_scale, real_scales};
pub use scalar::{binary_f64, binary_i64, erf, unary_f64, undefined};
pub use weights::{normal, weight_tensor, with_bytes};

use crate::bind::bind_inputs;
use crate::diag::Result;
use crate::graph::{Module, ValueId};
use crate::tensor::{Bundle, Tensor};

/// Runs the entry function.
///
/// # Errors
/// When the inputs do not fit the parameters, a weight cannot be read, or data breaks an op's
/// precondition (an index out of range, a division of integers by zero, NaN in what a dynamic
/// scale is computed from).
pub fn run(m: &Module, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
    run_with(m, inputs, &mut |_, _| ())
}

/// As [`run`]; `see` is called with every value that an op defines, in execution order.
///
/// # Errors
/// As [`run`].
pub fn run_with(
    m: &Module,
    inputs: &[Tensor],
    see: &mut dyn FnMut(ValueId, &Bundle),
) -> Result<Vec<Tensor>> {
    let Some(func) = m.funcs.first() else {
        return Err(value::internal("the module has no function"));
    };
    let sizes = bind_inputs(m, func, &inputs.iter().collect::<Vec<_>>())?;
    let mut env: Vec<Option<Bundle>> = vec![None; func.values.len()];
    for (p, t) in func.params.iter().zip(inputs) {
        env[p.index()] = Some(t.clone().into());
    }
    let last = last_uses(func);
    for (id, op) in func.ops() {
        let operands: Option<Vec<&Bundle>> = op
            .operands
            .iter()
            .map(|v| env[v.index()].as_ref())
            .collect();
        let operands =
            operands.ok_or_else(|| value::internal("an operand is used before it is defined"))?;
        let types: Vec<_> = op.operands.iter().map(|v| func.ty(*v)).collect();
        let results: Vec<_> = op.results.iter().map(|v| func.ty(*v)).collect();
        let out = eval_op(m, &op.kind, &operands, &types, &results, &sizes)
            .map_err(|d| d.or_at(op.loc.to_string()))?;
        for (r, b) in op.results.iter().zip(out) {
            see(*r, &b);
            env[r.index()] = Some(b);
        }
        for v in op.operands.iter().filter(|v| last[v.index()] == Some(id)) {
            env[v.index()] = None;
        }
    }
    let result = |v: &ValueId| env[v.index()].as_ref().map(|b| b.codes.clone());
    let out: Option<Vec<Tensor>> = func.results.iter().map(|(_, v)| result(v)).collect();
    out.ok_or_else(|| value::internal("a result is not defined"))
}

/// The op after which a value is no longer needed; `None` for results, which stay.
fn last_uses(f: &crate::graph::Func) -> Vec<Option<crate::graph::OpId>> {
    let mut last = vec![None; f.values.len()];
    for (id, op) in f.ops() {
        op.operands.iter().for_each(|v| last[v.index()] = Some(id));
    }
    f.results.iter().for_each(|(_, v)| last[v.index()] = None);
    last
}
