//! Rotates what layers read, so that outliers spread over all channels.
//!
//! ```text
//! x̃ = x·R,   W̃ = W·R:    x̃·W̃ᵀ = x·R·Rᵀ·Wᵀ = x·Wᵀ        R: randomized Hadamard, R·Rᵀ = I
//! ```
//!
//! (Ashkboos et al., "QuaRot", 2024.) Where the rotation of `x` comes from:
//!
//! - [`residual`]: a residual stream is rotated by what writes to it (embeddings, projections),
//!   and norms let rotations through once their gains are in the layers behind them. This costs
//!   nothing at run time.
//! - [`heads`]: values are rotated head by head in the rows of their projection; attention mixes
//!   tokens, not channels. Free as well.
//! - Elsewhere, in front of layers whose activations are quantized: by a product with `R` at run
//!   time, in runs of at most [`ONLINE`] channels, so that its matrix stays small.
//!
//! Preconditions: normal form (`canonicalize`), nothing fused or quantized yet. It changes what
//! values hold, so it stands before calibration.

mod heads;
mod residual;
mod rule;
#[cfg(test)]
mod tests;

use crate::analysis::width;
use crate::pass::{Pass, PassContext};
use crate::quantize::{Site, intents, maker_name};
use crate::weights::Rotation;
use qcc_ir::diag::{Class, Diagnostic, Result};
use qcc_ir::graph::{Func, Module, Op, OpId, ValueId};
use qcc_ir::ledger::{Candidate, Decision, Topic};
use rule::Plan;
use std::sync::Arc;

/// Most channels that are mixed at run time.
const ONLINE: usize = 1024;

/// The pass.
pub(crate) struct Rotate;

impl Pass for Rotate {
    fn name(&self) -> &'static str {
        "rotate"
    }

    fn summary(&self) -> &'static str {
        "rotates activations by Hadamard matrices, merged into weights where possible"
    }

    fn run(&self, module: &Module, ctx: &mut PassContext<'_>) -> Result<Module> {
        if !ctx.options.rotate || module.funcs.is_empty() {
            return Ok(module.clone());
        }
        let layers = intents(module, ctx.options)?;
        let mut plan = Plan::new(&layers);
        if layers.iter().any(|l| l.weights) {
            let seed = ctx.options.seed;
            residual::plan(module, seed, &mut plan);
            heads::plan(module, seed.wrapping_add(1), &mut plan);
            let acts = layers.iter().filter(|l| l.acts.is_some()).map(|l| &l.site);
            online(module, acts, seed.wrapping_add(2), &mut plan);
        }
        if plan.is_empty() {
            let message = "--rotate has no effect: nothing that is quantized can be rotated";
            ctx.warnings
                .push(Diagnostic::warning(48, Class::Usage, message));
        }
        for d in plan.decisions.drain(..) {
            ctx.ledger.record(d);
        }
        plan.apply(module)
    }
}

/// Products in front of the layers whose inputs no other rotation reaches.
fn online<'a>(m: &Module, layers: impl Iterator<Item = &'a Site>, seed: u64, plan: &mut Plan) {
    let f = &m.funcs[0];
    for site in layers {
        if site.conv || plan.has_columns(site.op) {
            continue;
        }
        let width = width(f, site.input);
        let Some(r) = width.and_then(|n| Rotation::new(n, ONLINE, seed)) else {
            let why = "there is no Hadamard matrix for any part of its width";
            plan.refuse(&site.name, "online", why.into());
            continue;
        };
        let chosen = format!("online, hadamard {}", r.size());
        plan.decide(&site.name, &chosen, vec![site.name.clone()]);
        plan.online(site.op, Arc::new(r));
    }
}

/// The ops that read a value.
fn readers(f: &Func, v: ValueId) -> impl Iterator<Item = (OpId, &Op)> {
    f.ops().filter(move |(_, o)| o.operands.contains(&v))
}

/// What to call an op.
fn op_name(f: &Func, op: &Op) -> String {
    maker_name(f, op.results[0])
}

impl Plan {
    fn decide(&mut self, site: &str, chosen: &str, fused: Vec<String>) {
        let mut d = Decision::new(site, Topic::Rotation, chosen)
            .consider(Candidate::new(chosen))
            .consider(Candidate::new("off"));
        d.fused = fused;
        self.decisions.push(d);
    }

    fn refuse(&mut self, site: &str, what: &str, reason: String) {
        self.decisions.push(
            Decision::new(site, Topic::Rotation, "off")
                .consider(Candidate::refused(what, reason))
                .consider(Candidate::new("off")),
        );
    }
}
