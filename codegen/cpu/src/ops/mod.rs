//! Kernels, one file per family: how each op of the graph IR runs on host tensors.
//!
//! [`prepare`] turns an op into a [`Prepared`] kernel once; operands that are constants may be
//! decoded then, so that their stored form need not stay.

mod attention;
mod constant;
mod conv;
mod gather;
mod layout;
mod linear;
mod map;
mod matmul;
mod norm;
mod operand;
mod pool;
mod quantize;
mod reduce;
mod rotary;
mod softmax;
mod sparse_linear;

use crate::clif::Jit;
use crate::pool::Pool;
use crate::threads::Threads;
use crate::value::View;
use qcc_ir::Bundle;
use qcc_ir::bind::Sizes;
use qcc_ir::diag::Result;
use qcc_ir::graph::{Func, Op, OpKind, TensorType};
use std::sync::Arc;

/// One execution of an op.
pub(crate) struct Call<'a> {
    pub(crate) threads: &'a Threads,
    pub(crate) pool: &'a Pool,
    /// Operands by position; `None` for those that the kernel has absorbed.
    pub(crate) args: &'a [Option<View<'a>>],
    /// Type and extents of each result.
    pub(crate) results: &'a [(&'a TensorType, Vec<u64>)],
    pub(crate) sizes: &'a Sizes,
}

impl<'a> Call<'a> {
    pub(crate) fn arg(&self, i: usize) -> Result<View<'a>> {
        let v = self.args.get(i).copied().flatten();
        v.ok_or_else(|| crate::internal(format!("operand {i} is missing")))
    }

    /// Type and extents of the first result.
    pub(crate) fn result(&self) -> Result<&(&'a TensorType, Vec<u64>)> {
        let r = self.results.first();
        r.ok_or_else(|| crate::internal("the op has no result"))
    }
}

type Run = Box<dyn Fn(&Call<'_>) -> Result<Vec<Bundle>> + Send + Sync>;

/// An op that is ready to run.
pub(crate) struct Prepared {
    pub(crate) run: Run,
    /// Operands that the kernel keeps in a form of its own and no longer reads.
    pub(crate) absorbed: Vec<usize>,
}

/// What a kernel may use while it is prepared.
pub(crate) struct Site<'a> {
    pub(crate) func: &'a Func,
    pub(crate) op: &'a Op,
    pub(crate) threads: &'a Threads,
    /// By operand position: the value of a constant.
    pub(crate) consts: Vec<Option<Arc<Bundle>>>,
    pub(crate) jit: &'a mut Jit,
    /// Bytes of decoded weights that may still be kept.
    pub(crate) budget: &'a mut u64,
}

impl<'a> Site<'a> {
    pub(crate) fn operand_types(&self) -> Vec<&'a TensorType> {
        self.op.operands.iter().map(|v| self.func.ty(*v)).collect()
    }

    pub(crate) fn result_types(&self) -> Vec<&'a TensorType> {
        self.op.results.iter().map(|v| self.func.ty(*v)).collect()
    }

    /// The constant operand `i`.
    pub(crate) fn constant(&self, i: usize) -> Option<View<'_>> {
        let v = self.op.operands.get(i)?;
        let b = self.consts.get(i)?.as_ref()?;
        Some(View::new(self.func.ty(*v), b))
    }
}

/// A kernel without state of its own.
fn plain(f: impl Fn(&Call<'_>) -> Result<Vec<Bundle>> + Send + Sync + 'static) -> Result<Prepared> {
    Ok(Prepared {
        run: Box::new(f),
        absorbed: Vec::new(),
    })
}

/// Prepares the kernel of an op. Constants are values already and have none.
pub(crate) fn prepare(site: &mut Site<'_>) -> Result<Option<Prepared>> {
    let kernel = match &site.op.kind {
        OpKind::Const { .. } => return Ok(None),
        OpKind::Splat { value } => {
            let value = f64::from_bits(*value);
            plain(move |c| constant::splat(c, value))
        }
        OpKind::Iota { axis } => {
            let axis = *axis;
            plain(move |c| constant::iota(c, axis))
        }
        OpKind::Dim { value } => {
            let value = value.clone();
            plain(move |c| constant::dim(c, &value))
        }
        OpKind::Unary(_) | OpKind::Binary(_) | OpKind::Select | OpKind::Map(_) => {
            map::prepare(site)
        }
        OpKind::Cast => plain(map::cast),
        OpKind::Quantize => quantize::prepare(site),
        OpKind::Dequantize => plain(quantize::dequantize),
        OpKind::Reshape => plain(layout::reshape),
        OpKind::Transpose { perm } => {
            let perm = perm.clone();
            plain(move |c| layout::transpose(c, &perm))
        }
        OpKind::Expand => plain(layout::expand),
        OpKind::Slice { starts, steps, .. } => {
            let (starts, steps) = (starts.clone(), steps.clone());
            plain(move |c| layout::slice(c, &starts, &steps))
        }
        OpKind::Concat { axis } => {
            let axis = *axis;
            plain(move |c| layout::concat(c, axis))
        }
        OpKind::Pad { lo, value, .. } => {
            let (lo, value) = (lo.clone(), f64::from_bits(*value));
            plain(move |c| layout::pad(c, &lo, value))
        }
        OpKind::Gather { axis } => {
            let axis = *axis;
            plain(move |c| gather::gather(c, axis))
        }
        OpKind::Reduce { f, axes, .. } => {
            let (f, axes) = (*f, axes.clone());
            plain(move |c| reduce::reduce(c, f, &axes))
        }
        OpKind::CumSum { axis } => {
            let axis = *axis;
            plain(move |c| reduce::cumsum(c, axis))
        }
        OpKind::Softmax { axis } => {
            let axis = *axis;
            softmax::prepare(site, axis)
        }
        OpKind::MatMul => plain(matmul::matmul),
        OpKind::Linear { .. } => linear::prepare(site),
        OpKind::SparseLinear => plain(sparse_linear::sparse_linear),
        OpKind::Conv { .. } => conv::prepare(site),
        OpKind::Pool { f, window } => {
            let (f, window) = (*f, window.clone());
            plain(move |c| pool::pool(c, f, &window))
        }
        OpKind::LayerNorm { .. } | OpKind::RmsNorm { .. } => norm::prepare(site),
        OpKind::Attention { .. } => attention::prepare(site),
        OpKind::Rotary(attrs) => {
            let attrs = *attrs;
            plain(move |c| rotary::rotary(c, attrs))
        }
    };
    kernel.map(Some)
}

pub(crate) use layout::reshaped;
