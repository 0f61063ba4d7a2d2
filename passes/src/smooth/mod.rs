//! SmoothQuant: outliers move from activations, where they cost precision, into weights.
//!
//! ```text
//! s_j = max |X_j|^α / max |W_j|^(1−α)            j: channel; W: all layers that read X
//! (X/s)·(W·s)ᵀ = X·Wᵀ
//! ```
//!
//! (Xiao et al., "SmoothQuant", 2023, eq. 4; [`spot`] computes the factors.) What makes `X` takes
//! the division ([`fold`](crate::quantize::Folded)): a norm in gain and bias, what comes from a layer
//! (by a product, a function like `relu`, or as the values of attention) in the rows of that layer;
//! elsewhere a product of its own stands in front of the readers. The
//! statistics of `X` are divided along with it.
//!
//! A given α is that of every norm, as in the paper. Without one, [`search`] measures which α, or
//! none, each group of layers wants.
//!
//! Preconditions, per group: the layers have constant weights, and at least one of them has
//! quantized activations; what takes the division has constant parameters and no other readers.
//! A group that does not meet them is left as it is, and the ledger says why.
//!
//! The search needs samples, a given α statistics. Without data, and by default with statistics
//! alone, nothing is smoothed; norms whose gains make outliers are then named ([`outliers`]).

mod fake;
mod held_out;
mod outliers;
mod search;
mod spot;
#[cfg(test)]
mod tests;

use crate::analysis::is_plain_norm;
use crate::options::Smooth as Mode;
use crate::pass::{Pass, PassContext};
use crate::quantize::{Assigned, Folded, Target, assign, groups, product_name, target};
use crate::statistics::Statistics;
use qcc_ir::diag::{Class, Diagnostic, Result};
use qcc_ir::graph::{Module, OpId, ValueId};
use qcc_ir::ledger::{Candidate, Decision, Topic};
use search::Bench;
use spot::{Choice, Spot};
use std::collections::BTreeSet;

/// The pass.
pub(crate) struct Smooth;

impl Pass for Smooth {
    fn name(&self) -> &'static str {
        "smooth"
    }

    fn summary(&self) -> &'static str {
        "moves activation outliers into weights (SmoothQuant)"
    }

    fn run(&self, module: &Module, ctx: &mut PassContext<'_>) -> Result<Module> {
        let mode = ctx.options.smoothing(ctx.has_samples());
        if module.funcs.is_empty() {
            return Ok(module.clone());
        }
        let default = ctx.options.smooth == Mode::Default && !ctx.has_samples();
        if ctx.statistics.is_none() || default {
            outliers::warn(module, ctx)?;
        }
        if mode == Mode::Off {
            return Ok(module.clone());
        }
        if let Mode::Alpha(a) = mode
            && !(0.0..=1.0).contains(&a)
        {
            let message = format!("a smoothing strength lies between 0 and 1, not at {a}");
            return Err(Diagnostic::error(45, Class::Usage, message).hint("0.5 suits most models"));
        }
        let Some(statistics) = ctx.statistics.clone() else {
            let message = "smoothing needs calibration data";
            return Err(Diagnostic::error(525, Class::Usage, message)
                .hint("give --calib or --stats, or --smooth off"));
        };
        let layers = assign(module, ctx)?;
        let spots = spots(module, ctx, &layers, &statistics, mode)?;
        let choices = choices(module, ctx, mode, &layers, &spots, &statistics)?;
        for (spot, choice) in spots.iter().zip(&choices) {
            ctx.ledger.record(spot.decision(module, choice));
        }
        let strengths: Vec<Option<f32>> = choices.iter().map(|c| c.strength).collect();
        if let Mode::Alpha(a) = mode
            && strengths.iter().all(Option::is_none)
        {
            let message = format!("--smooth {a} has no effect: no norm can take the factors");
            ctx.warnings.push(
                Diagnostic::warning(48, Class::Usage, message)
                    .hint("`qcc explain` says why, norm by norm"),
            );
        }
        let (smooth, updated) = smoothed(module, &layers, &spots, &strengths, &statistics)?;
        ctx.statistics = Some(updated);
        Ok(smooth)
    }
}

/// What to do at each spot.
fn choices(
    m: &Module,
    ctx: &mut PassContext<'_>,
    mode: Mode,
    layers: &[Assigned],
    spots: &[Spot<'_>],
    statistics: &Statistics,
) -> Result<Vec<Choice>> {
    if let Mode::Alpha(a) = mode {
        return Ok(spots.iter().map(|_| Choice::given(Some(a))).collect());
    }
    let of = |statistics, spots, ctx: &mut PassContext<'_>| {
        let bench = Bench {
            module: m,
            statistics,
            layers,
            spots,
        };
        bench.search(ctx)
    };
    match held_out::statistics(m, ctx, layers, statistics)? {
        Some(rest) => {
            let spots = self::spots(m, ctx, layers, &rest, mode)?;
            of(&rest, &spots, ctx)
        }
        None => of(statistics, spots, ctx),
    }
}

/// What can be smoothed; what cannot goes to the ledger. A given strength is for norms only.
fn spots<'a>(
    m: &Module,
    ctx: &mut PassContext<'_>,
    layers: &'a [Assigned],
    statistics: &Statistics,
    mode: Mode,
) -> Result<Vec<Spot<'a>>> {
    let f = &m.funcs[0];
    let asked = ctx.options.smooth != Mode::Default;
    let wanted = |l: &Assigned| {
        let acts = l.choice.and_then(|q| q.acts);
        acts.is_some_and(|a| asked || a.spec.storage.is_int())
    };
    let alpha = match mode {
        Mode::Alpha(a) => Some(a),
        _ => None,
    };
    let mut out = Vec::new();
    for g in groups(f, layers) {
        let norm = f.def_op(g.input).is_some_and(|o| is_plain_norm(&o.kind));
        if alpha.is_some() && !norm {
            continue;
        }
        let (to, readers) = match target(f, g.input, layers, wanted) {
            Ok(found) => found,
            Err(None) => continue,
            Err(Some(_)) if alpha.is_none() => product(g.input, layers),
            Err(Some(reason)) => {
                let name = spot::name(alpha);
                ctx.ledger.record(
                    Decision::new(g.site(f), Topic::Smoothing, "off")
                        .consider(Candidate::refused(name, reason))
                        .consider(Candidate::new("off")),
                );
                continue;
            }
        };
        out.push(Spot::new(m, g, to, readers, statistics)?);
    }
    Ok(out)
}

/// Quantized readers of a value that nothing before can divide.
fn product(x: ValueId, layers: &[Assigned]) -> (Target, Vec<&Assigned>) {
    let reads = |l: &&Assigned| l.site.input == x && !l.site.conv && l.choice.is_some();
    (Target::Product(x), layers.iter().filter(reads).collect())
}

/// The module with each spot smoothed by its strength, and what its values then hold.
fn smoothed(
    m: &Module,
    layers: &[Assigned],
    spots: &[Spot<'_>],
    strengths: &[Option<f32>],
    statistics: &Statistics,
) -> Result<(Module, Statistics)> {
    let f = &m.funcs[0];
    let quantized = layers.iter().filter(|l| l.choice.is_some());
    let quantized: BTreeSet<OpId> = quantized.map(|l| l.site.op).collect();
    let (mut folded, mut updated) = (Folded::default(), statistics.clone());
    for (spot, strength) in spots.iter().zip(strengths) {
        let Some(alpha) = strength else { continue };
        let s = spot.factors(*alpha);
        let name = &f.value(spot.group.input).name;
        let name = match spot.to {
            Target::Product(_) => product_name(name),
            Target::Norm(_) | Target::Rows(_) => name.clone(),
        };
        updated.insert(&name, spot.stats.divided(&s));
        folded.add(f, spot.to, &spot.readers, &s, &|id| quantized.contains(&id));
    }
    Ok((folded.apply(m)?, updated))
}
