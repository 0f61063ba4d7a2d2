//! The traits by which passes reach a machine without knowing one.
//!
//! An [`Executor`] runs a module on real data and lets a caller look at any value on the way
//! (calibration, output errors). A [`CostModel`] says how long an op would take on a target, or
//! why no kernel for it exists there.

use crate::diag::Result;
use crate::graph::{Module, OpKind, TensorType, ValueId};
use crate::tensor::Tensor;

/// The value of each symbol in one run; `None` for a symbol that is not bound.
pub type Bindings<'a> = &'a dyn Fn(&str) -> Option<i64>;

/// Runs the entry function of a module.
pub trait Executor {
    /// Compiles what can be compiled before the data is known. `taps` are plain float values of
    /// the entry function that the caller wants to see.
    ///
    /// # Errors
    /// When an op is not supported by this executor.
    fn prepare<'m>(&self, module: &'m Module, taps: &[ValueId]) -> Result<Box<dyn Prepared + 'm>>;

    /// As [`Executor::prepare`] for a module that will run often: its weights are read once and
    /// held, if the executor can.
    ///
    /// # Errors
    /// As [`Executor::prepare`].
    fn hold<'m>(&self, module: &'m Module, taps: &[ValueId]) -> Result<Box<dyn Prepared + 'm>> {
        self.prepare(module, taps)
    }
}

/// A module that is ready to run any number of times.
pub trait Prepared {
    /// Runs on inputs in parameter order; gives results in order.
    ///
    /// Symbols are bound by the inputs' extents. `tap` is called with the position in `taps`
    /// and the value, each once, in execution order; the tensor is only lent.
    ///
    /// # Errors
    /// When an input's format or shape does not fit its parameter, or an extent lies outside
    /// its symbol's range.
    fn run(
        &mut self,
        inputs: &[Tensor],
        tap: &mut dyn FnMut(usize, &Tensor),
    ) -> Result<Vec<Tensor>>;
}

/// Predicts how long ops take on one target.
pub trait CostModel {
    /// Microseconds for one op on operands and results of these types, the symbols bound so; or
    /// the constraint for which no kernel of the target serves it.
    ///
    /// # Errors
    /// The reason why the target cannot run the op.
    fn op_micros(
        &self,
        kind: &OpKind,
        operands: &[&TensorType],
        results: &[&TensorType],
        dims: Bindings<'_>,
    ) -> std::result::Result<f64, String>;

    /// The name of the target, as on the command line.
    fn target(&self) -> &str;
}
