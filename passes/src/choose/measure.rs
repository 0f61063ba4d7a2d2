//! What each scheme of each layer does to the model's output.
//!
//! ```text
//! error(layer, scheme) = mean over rows of KL(p ‖ q),   p, q = softmax of the output
//! ```
//!
//! where `p` comes from the float model and `q` from the model in which that layer alone has the
//! scheme, on calibration samples. Nothing is linearised and no gradient is taken. To first order
//! independent errors add up:
//!
//! ```text
//! KL(all) ≈ Σ over layers: error(layer, its scheme)
//! ```
//!
//! for the divergence is a quadratic form of a small disturbance of the output, and the mixed terms
//! of disturbances that have nothing to do with each other vanish in the mean. Whoever chooses by
//! this sum has to measure the whole in the end.
//!
//! Smoothing and weight methods run for each scheme as if it were that of all layers, so an error
//! is that of codes which the methods would find.
//!
//! Rows of padding count like any other.
//!
//! Preconditions: the first result is logits, a float with the classes along its last dimension.

use super::menu::{Menu, with_scheme};
use super::reference::Reference;
use crate::manager::Manager;
use crate::pass::PassContext;
use crate::pipeline;
use crate::quantize::{Assigned, Layers, assign};
use crate::rewrite::rewrite;
use qcc_ir::Tensor;
use qcc_ir::diag::{Class, Diagnostic, Result};
use qcc_ir::exec::Executor;
use qcc_ir::graph::Module;
use std::collections::BTreeSet;

/// Is told how many measurements are done and how many there are.
pub type Step<'s> = &'s mut dyn FnMut(usize, usize) -> Result<()>;

/// Fills in the errors of the menus.
///
/// # Errors
/// `Q0535` when the first result is no float; what passes and the executor report.
pub(super) fn measure(
    m: &Module,
    ctx: &PassContext<'_>,
    executor: &dyn Executor,
    batches: &[Vec<Tensor>],
    menus: &mut [Menu],
    step: Step<'_>,
) -> Result<()> {
    let float = Reference::new(&logits(m, executor, batches)?, ctx.threads)?;
    let items = menus.iter().flat_map(|menu| &menu.items[1..]);
    let total = items.clone().count();
    let schemes: BTreeSet<String> = items.map(|i| i.scheme.clone()).collect();
    // Whatever runs before codes are computed.
    let steps = pipeline::QUANTIZE;
    let codes_at = steps.iter().position(|(name, _)| *name == "quantize");
    let before = &steps[..codes_at.unwrap_or(0)];
    let mut done = 0;
    for scheme in schemes {
        let options = with_scheme(ctx.options, &scheme)?;
        let mut own = ctx.with_options(&options);
        let module = Manager::new(pipeline::passes(before)?)
            .run(m.clone(), &mut own)?
            .module;
        let assigned = assign(&module, &own)?;
        if assigned.len() != menus.len() {
            let message = "layers that are split have no scheme of their own to choose";
            return Err(Diagnostic::error(535, Class::Unsupported, message)
                .hint("leave out --outlier-columns"));
        }
        for (menu, a) in menus.iter_mut().zip(assigned) {
            let Some(at) = menu.find(&scheme).filter(|at| *at > 0) else {
                continue;
            };
            step(done, total)?;
            let one = only(&module, &own, a)?;
            menu.items[at].error = float.divergence(&logits(&one, executor, batches)?)?;
            done += 1;
        }
    }
    Ok(())
}

/// The module with one layer quantized.
fn only(m: &Module, ctx: &PassContext<'_>, a: Assigned) -> Result<Module> {
    let mut layers = Layers::new(&[a], &ctx.codes);
    Ok(rewrite(m, &mut layers)?.module)
}

/// The first result of a module on batches, which has to be logits.
///
/// # Errors
/// `Q0535` when it is no float; what the executor reports.
pub fn logits(m: &Module, executor: &dyn Executor, batches: &[Vec<Tensor>]) -> Result<Vec<Tensor>> {
    let mut prepared = executor.prepare(m, &[])?;
    let mut all = Vec::with_capacity(batches.len());
    for inputs in batches {
        let first = prepared.run(inputs, &mut |_, _| ())?.into_iter().next();
        let logits = first.filter(|t| t.dtype().is_float() && !t.dims().is_empty());
        all.push(logits.ok_or_else(|| {
            let message = "the first output holds no logits: schemes cannot be weighed by them";
            Diagnostic::error(535, Class::Usage, message)
        })?);
    }
    Ok(all)
}
