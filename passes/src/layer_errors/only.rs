//! The float module with some of its layers quantized.

use crate::pass::PassContext;
use crate::quantize::{Layers, assign};
use crate::rewrite::rewrite;
use qcc_ir::diag::Result;
use qcc_ir::graph::Module;

/// Quantizes, of the layers that [`crate::layer_facts`] lists, those at which `which` holds.
/// Nothing else is changed, and nothing is fused.
///
/// # Errors
/// As `quantize`.
pub fn quantize_only(
    module: &Module,
    ctx: &PassContext<'_>,
    which: &dyn Fn(usize) -> bool,
) -> Result<Module> {
    let mut assigned = assign(module, ctx)?;
    for (i, a) in assigned.iter_mut().enumerate() {
        a.choice = a.choice.filter(|_| which(i));
    }
    let mut layers = Layers::new(&assigned, &ctx.codes);
    Ok(rewrite(module, &mut layers)?.module)
}
