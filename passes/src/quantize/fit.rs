//! Finds the codes of weights by the methods of the options, layer by layer.
//!
//! The module stays as it is; what was found is in the context, for `quantize` to use. Methods
//! with data see each layer's input as the already quantized layers before it make it
//! ([`stream`](super::stream)). Activations stay float meanwhile. Without samples `gptq` and tables
//! take `XᵀX` from the statistics, as the float model makes it.
//!
//! Preconditions: as for `quantize`; with `awq` an executor and samples, with `gptq` those or
//! statistics with `XᵀX`.

use super::assign::{Assigned, assign};
use super::fit_weight::{Fit, real};
use super::methods::{Inputs, Methods};
use super::scheme::QuantSpec;
use super::sites::Site;
use super::stream::{Group, Stream, groups};
use crate::pass::{Pass, PassContext};
use qcc_ir::diag::{Class, Diagnostic, Result};
use qcc_ir::graph::{Func, Module, OpKind, Weight};
use qcc_ir::ledger::{Candidate, Decision, Topic};

/// The pass.
pub(crate) struct FitWeights;

impl Pass for FitWeights {
    fn name(&self) -> &'static str {
        "fit-weights"
    }

    fn summary(&self) -> &'static str {
        "finds codes of weights by GPTQ, and ranges and zero points of groups"
    }

    fn run(&self, module: &Module, ctx: &mut PassContext<'_>) -> Result<Module> {
        let layers: Vec<Assigned> = assign(module, ctx)?
            .into_iter()
            .filter(|l| l.choice.is_some() && !l.site.conv)
            .collect();
        let methods = layers.iter().map(|l| methods_of(module, l, ctx));
        let methods: Vec<Methods> = methods.collect();
        let f = &module.funcs[0];
        let sampled = ctx.has_samples();
        if methods.iter().any(|m| m.need_data()) && (sampled || ctx.statistics.is_none()) {
            let mut stream = stream(module, ctx)?;
            for g in groups(f, &layers) {
                with_data(module, ctx, &layers, &methods, &g, &mut stream)?;
            }
        } else {
            for (l, m) in layers.iter().zip(&methods).filter(|(_, m)| m.any()) {
                let gram = match m.gptq || m.weighted {
                    true => Some(known_gram(f, ctx, l)?),
                    false => None,
                };
                let fit = fit(f, ctx, l, *m);
                let (coded, gave_up) = fit.weight(source(module, l)?, spec(l)?, gram)?;
                if gave_up {
                    ctx.ledger.record(given_up(l));
                }
                ctx.codes.insert(&l.site.weight, coded, ctx.spilling)?;
            }
        }
        Ok(module.clone())
    }
}

/// The methods of a layer.
pub(super) fn methods_of(m: &Module, l: &Assigned, ctx: &PassContext<'_>) -> Methods {
    let chosen = ctx.options.algo.as_deref();
    match l.choice {
        Some(q) if !l.site.conv => Methods::of(chosen, &q.weights, inputs(m, &l.site, ctx)),
        _ => Methods::default(),
    }
}

/// What is known of a layer's inputs.
pub(super) fn inputs(m: &Module, site: &Site, ctx: &PassContext<'_>) -> Inputs {
    match (ctx.has_samples(), gram(&m.funcs[0], ctx, site)) {
        (true, _) => Inputs::Samples,
        (false, Some(_)) => Inputs::Gram,
        (false, None) => Inputs::Unknown,
    }
}

/// The samples at the beginning of a module.
///
/// # Errors
/// `Q0525` when there are none.
pub(super) fn stream<'a>(module: &Module, ctx: &PassContext<'a>) -> Result<Stream<'a>> {
    match (ctx.executor, ctx.samples.filter(|s| s.batches() > 0)) {
        (Some(e), Some(s)) => Stream::new(module, e, s, ctx.spilling),
        _ => {
            let message = "awq and gptq need calibration data";
            Err(Diagnostic::error(525, Class::Usage, message)
                .hint("give --calib, or use --algo rtn or mse"))
        }
    }
}

/// Fits the layers of a group on the inputs that they will have.
fn with_data(
    module: &Module,
    ctx: &mut PassContext<'_>,
    layers: &[Assigned],
    methods: &[Methods],
    group: &Group,
    stream: &mut Stream<'_>,
) -> Result<()> {
    let mut gram: Vec<f64> = Vec::new();
    let asked = group.members.iter().any(|i| methods[*i].need_data());
    stream.advance(group, asked, &mut |seen| {
        seen.add_gram(&mut gram);
        Ok(())
    })?;
    for i in &group.members {
        let (l, source) = (&layers[*i], source(module, &layers[*i])?);
        let fit = fit(&module.funcs[0], ctx, l, methods[*i]);
        let (coded, gave_up) = fit.weight(source, spec(l)?, asked.then_some(&gram))?;
        if gave_up {
            ctx.ledger.record(given_up(l));
        }
        stream.replace(l.site.op, real(source, &coded)?);
        if methods[*i].any() {
            ctx.codes.insert(&l.site.weight, coded, ctx.spilling)?;
        }
    }
    Ok(())
}

/// How a layer's weight is fitted.
fn fit<'a>(f: &Func, ctx: &PassContext<'a>, l: &Assigned, methods: Methods) -> Fit<'a> {
    Fit {
        methods,
        gptq: &ctx.options.gptq,
        threads: ctx.threads,
        scores: makes_scores(f, l),
        global: l.choice.and_then(|q| q.global),
    }
}

fn given_up(l: &Assigned) -> Decision {
    let reason = "its Hessian is singular at any damping";
    Decision::new(&l.site.name, Topic::Fallback, "rtn")
        .weight(&l.site.weight)
        .consider(Candidate::refused("gptq", reason))
        .consider(Candidate::new("rtn"))
}

/// The form of a layer's weight.
fn spec(l: &Assigned) -> Result<QuantSpec> {
    let internal = || {
        let message = format!("{} has no scheme", l.site.name);
        Diagnostic::error(916, Class::Internal, message)
    };
    // INVARIANT: only layers with a choice are fitted.
    l.choice.map(|q| q.weights).ok_or_else(internal)
}

/// `XᵀX` of a layer's input as the float model makes it.
///
/// # Errors
/// `Q0527` when the statistics do not hold it.
fn known_gram<'a>(f: &Func, ctx: &'a PassContext<'_>, l: &Assigned) -> Result<&'a [f64]> {
    gram(f, ctx, &l.site).ok_or_else(|| {
        let name = &f.value(l.site.input).name;
        let message = format!("gptq needs XᵀX of `{name}`, which the statistics lack");
        Diagnostic::error(527, Class::Input, message)
            .at(&l.site.name)
            .hint("`qcc calibrate --hessian` gathers it; or give --calib, or --algo rtn or mse")
    })
}

/// `XᵀX` of a layer's input, if the statistics hold it.
fn gram<'a>(f: &Func, ctx: &'a PassContext<'_>, site: &Site) -> Option<&'a [f64]> {
    let stats = ctx.statistics.as_ref()?.get(&f.value(site.input).name)?;
    let dims = f.ty(site.weight_value).fixed_dims()?;
    let fits = dims.last() == Some(&(stats.channels() as u64));
    stats.gram.as_deref().filter(|_| fits)
}

/// The weight of a layer.
pub(super) fn source<'m>(m: &'m Module, l: &Assigned) -> Result<&'m Weight> {
    match m.funcs[0].def_op(l.site.weight_value).map(|o| &o.kind) {
        Some(OpKind::Const { weight, .. }) => Ok(m.weight(*weight)),
        _ => Err(Diagnostic::error(
            912,
            Class::Internal,
            format!("the weight of {} is no constant", l.site.name),
        )),
    }
}

/// Whether a layer's result becomes queries or keys: reaches scores without passing another
/// layer.
pub(super) fn makes_scores(f: &Func, l: &Assigned) -> bool {
    let mut reached: Vec<_> = f.ops[l.site.op.index()].results.clone();
    for op in &f.ops[l.site.op.index() + 1..] {
        let at = op.operands.iter().position(|v| reached.contains(v));
        match (&op.kind, at) {
            (_, None) | (OpKind::Linear { .. } | OpKind::Conv { .. }, _) => {}
            (OpKind::Attention { .. }, Some(i)) if i > 1 => {}
            (OpKind::Attention { .. } | OpKind::MatMul | OpKind::Softmax { .. }, _) => return true,
            _ => reached.extend(&op.results),
        }
    }
    false
}
