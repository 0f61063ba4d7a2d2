//! The cost of an op for a plan whose sections share one module.
//!
//! A form is chosen once for all targets: it must have a kernel on each of them, and its time is
//! that on the first GPU, or on the first target where there is none.

use qcc_codegen::cost::Roofline;
use qcc_codegen::target::Target;
use qcc_ir::exec::{Bindings, CostModel};
use qcc_ir::graph::{OpKind, TensorType};

/// The cost models of all targets; the first one tells the time.
pub(crate) struct SharedCost(Vec<Roofline>);

impl SharedCost {
    /// A cost model for these targets; there is at least one.
    pub(crate) fn new(targets: &[&'static Target]) -> Self {
        let mut order = targets.to_vec();
        order.sort_by_key(|t| !t.is_gpu());
        SharedCost(order.into_iter().map(Roofline::new).collect())
    }
}

impl CostModel for SharedCost {
    fn op_micros(
        &self,
        kind: &OpKind,
        operands: &[&TensorType],
        results: &[&TensorType],
        dims: Bindings<'_>,
    ) -> Result<f64, String> {
        let mut first = None;
        for model in &self.0 {
            let micros = model
                .op_micros(kind, operands, results, dims)
                .map_err(|reason| format!("{}: {reason}", model.target()))?;
            first.get_or_insert(micros);
        }
        first.ok_or_else(|| "there is no target".to_string())
    }

    fn target(&self) -> &str {
        self.0.first().map_or("", |m| m.target())
    }
}
