//! Which layer gets which scheme.
//!
//! In this order, the later wins: the scheme of the options (or of the head), `exclude`, the
//! last matching override. The activation mode is the scheme's own if its name fixes it, else
//! that of the options, else automatic. What the chosen mode needs and is not there decides
//! further:
//!
//! - automatic: static with calibration data if the scheme prefers it, else dynamic per token;
//! - static without calibration data: an error;
//! - a convolution is static per tensor, so without calibration data, and where only weights
//!   are asked for, it stays float;
//! - what the cost model has no kernel for falls back to weights only, then to float.

use super::methods::Inputs;
use super::scheme::{Granularity, QuantSpec, Scheme};
use super::sites::{Site, sites};
use crate::buckets::buckets;
use crate::options::{ActMode, Options};
use crate::pass::PassContext;
use crate::ranges::CalibMethod;
use crate::statistics::Statistics;
use crate::weights::read_f32;
use qcc_ir::DType;
use qcc_ir::diag::{Class, Diagnostic, Result};
use qcc_ir::exec::{Bindings, CostModel};
use qcc_ir::format::{FormatError, scale_global, scale_symmetric};
use qcc_ir::graph::{Def, Module, OpKind, TensorType, ValueId};
use qcc_ir::ledger::{Candidate, Decision, Topic};
use regex::Regex;
use std::collections::BTreeMap;

/// How activations in front of a layer are quantized.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Acts {
    pub(crate) spec: QuantSpec,
    /// The scale; `None` for one that is computed at run time.
    pub(crate) scale: Option<f32>,
}

/// What happens to a quantized layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Quantized {
    pub(crate) weights: QuantSpec,
    pub(crate) acts: Option<Acts>,
    /// The scale above those of the weight's blocks, where there are two levels.
    pub(crate) global: Option<f32>,
}

/// A layer and what was decided about it.
#[derive(Clone, Debug)]
pub(crate) struct Assigned {
    pub(crate) site: Site,
    /// `None`: it stays float.
    pub(crate) choice: Option<Quantized>,
    /// The same for the ledger.
    pub(crate) decisions: Vec<Decision>,
}

impl Assigned {
    /// The same layer in the entry function of a rewritten module, where its result has the same
    /// name. The scale of its activations is that of these statistics.
    ///
    /// # Errors
    /// `Q0912` when the layer is not there; as [`assign`] where statistics are lacking.
    pub(crate) fn within(
        &self,
        from: &Module,
        to: &Module,
        statistics: Option<&Statistics>,
    ) -> Result<Assigned> {
        let result = from.funcs[0].ops[self.site.op.index()].results[0];
        let name = &from.funcs[0].value(result).name;
        let f = &to.funcs[0];
        let Some((op, [input, weight_value, ..])) =
            f.find(name).and_then(|v| match f.value(v).def {
                Def::Result(op, _) => Some((op, f.ops[op.index()].operands.as_slice())),
                Def::Param(_) => None,
            })
        else {
            let message = format!("%{name} is no layer of the rewritten module");
            return Err(Diagnostic::error(912, Class::Internal, message));
        };
        let mut new = self.clone();
        (new.site.op, new.site.input, new.site.weight_value) = (op, *input, *weight_value);
        if let Some(acts) = new.choice.as_mut().and_then(|q| q.acts.as_mut())
            && acts.scale.is_some()
        {
            // What a value's histogram becomes is not known before it is observed again.
            let whole = CalibMethod::MinMax;
            acts.scale = Some(scale(to, statistics, whole, &new.site, acts.spec.storage)?);
        }
        Ok(new)
    }
}

/// Decides on every layer of the entry function.
///
/// # Errors
/// `Q0042` for a pattern that matches no layer, `Q0043` for one that is no regular expression,
/// `Q0525` and `Q0526` where static activations lack statistics.
pub(crate) fn assign(m: &Module, ctx: &PassContext<'_>) -> Result<Vec<Assigned>> {
    let sites = sites(m);
    let selector = Selector::new(ctx.options, &sites)?;
    let decided = sites.into_iter().map(|site| {
        let (scheme, why) = selector.scheme(&site);
        decide(m, ctx, site, scheme, why)
    });
    let mut all: Vec<Assigned> = decided.collect::<Result<_>>()?;
    share_global_scales(m, &mut all)?;
    Ok(all)
}

/// Layers that read the same value may run as one, so they get one scale above those of their
/// blocks: that of the largest magnitude in any of them.
fn share_global_scales(m: &Module, layers: &mut [Assigned]) -> Result<()> {
    let mut largest: BTreeMap<ValueId, f32> = BTreeMap::new();
    let two_levels = |q: &Quantized| q.weights.scale.global().is_some();
    for l in layers
        .iter()
        .filter(|l| l.choice.as_ref().is_some_and(two_levels))
    {
        let all = read_f32(super::fit::source(m, l)?)?;
        // A NaN is found with its block.
        let absmax = all.iter().fold(0.0f32, |a, v| a.max(v.abs()));
        let entry = largest.entry(l.site.input).or_insert(0.0);
        *entry = entry.max(absmax);
    }
    for l in layers.iter_mut() {
        let place = format!("weight {}", l.site.weight);
        let (Some(q), Some(absmax)) = (&mut l.choice, largest.get(&l.site.input)) else {
            continue;
        };
        if two_levels(&*q) {
            let scale = q.weights.format().and_then(|f| scale_global(*absmax, f));
            let fail = |e: FormatError| Diagnostic::error(520, Class::Input, e.to_string());
            q.global = Some(scale.map_err(|e| fail(e).at(place))?);
        }
    }
    Ok(())
}

/// What is asked for at a layer, before it is known whether that can be had.
pub(crate) struct Intent {
    pub(crate) site: Site,
    /// Whether weights are to become codes.
    pub(crate) weights: bool,
    /// The storage of activations that are to be quantized.
    pub(crate) acts: Option<DType>,
}

/// What is asked for at every layer of the entry function.
///
/// # Errors
/// `Q0042` and `Q0043` as [`assign`].
pub(crate) fn intents(m: &Module, options: &Options) -> Result<Vec<Intent>> {
    let sites = sites(m);
    let selector = Selector::new(options, &sites)?;
    let intent = |site: Site| {
        let (scheme, _) = selector.scheme(&site);
        let mode = match scheme.act {
            ActMode::Auto => options.act,
            fixed => fixed,
        };
        Intent {
            site,
            weights: scheme.weights.is_some(),
            acts: scheme.acts.filter(|_| mode != ActMode::Float),
        }
    };
    Ok(sites.into_iter().map(intent).collect())
}

/// Finds the scheme that was asked for.
struct Selector<'a> {
    options: &'a Options,
    exclude: Vec<(Regex, &'a str)>,
    overrides: Vec<(Regex, &'a Scheme)>,
}

impl<'a> Selector<'a> {
    fn new(options: &'a Options, sites: &[Site]) -> Result<Self> {
        let pattern = |text: &str| {
            let regex = Regex::new(text).map_err(|e| {
                let message = format!("`{text}` is no regular expression: {e}");
                Diagnostic::error(43, Class::Usage, message)
            })?;
            if sites.iter().any(|s| s.matches(&regex)) {
                return Ok(regex);
            }
            let message = format!("`{text}` matches no layer that can be quantized");
            let first: Vec<&str> = sites.iter().take(3).map(|s| s.name.as_str()).collect();
            Err(Diagnostic::error(42, Class::Usage, message).hint(format!(
                "it is searched in the names of nodes and weights, such as: {}",
                first.join(" · ")
            )))
        };
        let exclude = options
            .exclude
            .iter()
            .map(|t| Ok((pattern(t)?, t.as_str())));
        let overrides = options.overrides.iter().map(|(t, s)| Ok((pattern(t)?, s)));
        Ok(Selector {
            options,
            exclude: exclude.collect::<Result<_>>()?,
            overrides: overrides.collect::<Result<_>>()?,
        })
    }

    /// The scheme, and why it is not that of the options.
    fn scheme(&self, site: &Site) -> (Scheme, Option<String>) {
        let hit = self.overrides.iter().rev().find(|(r, _)| site.matches(r));
        if let Some((r, s)) = hit {
            return ((*s).clone(), Some(format!("override `{r}`")));
        }
        if let Some((_, text)) = self.exclude.iter().find(|(r, _)| site.matches(r)) {
            return (Scheme::float(), Some(format!("excluded by `{text}`")));
        }
        match site.head {
            true => (self.options.head.clone(), Some("scheme of the head".into())),
            false => (self.options.scheme.clone(), None),
        }
    }
}

fn decide(
    m: &Module,
    ctx: &PassContext<'_>,
    site: Site,
    scheme: Scheme,
    why: Option<String>,
) -> Result<Assigned> {
    let weighed = ctx.considered.get(&site.name);
    let mut considered = Vec::new();
    if let Some(why) = why.filter(|_| weighed.is_none() && scheme != ctx.options.scheme) {
        considered.push(Candidate::refused(&ctx.options.scheme.name, why));
    }
    let mut chosen = None;
    let mut fallback = false;
    for (name, candidate) in candidates(m, ctx, &site, &scheme)? {
        let quantized = match candidate {
            Ok(q) => q,
            Err(reason) => {
                considered.push(Candidate::refused(name, reason));
                fallback = true;
                continue;
            }
        };
        match ctx
            .cost
            .map_or(Ok(()), |c| affordable(c, m, &site, &quantized))
        {
            Ok(()) => {
                considered.push(priced(m, ctx, &site, &name, Some(&quantized)));
                chosen = Some((name, quantized));
                break;
            }
            Err(reason) => {
                let reason = format!("no kernel: {reason}");
                considered.push(Candidate::refused(name, reason));
                fallback = true;
            }
        }
    }
    // What was asked for is not weighed against float, but its price is known.
    if chosen.is_none() || ctx.cost.is_some() {
        considered.push(priced(m, ctx, &site, "float", None));
    }
    // Of what was weighed before, figures are known.
    for (i, w) in weighed.into_iter().flatten().enumerate() {
        considered.retain(|c: &Candidate| c.candidate != w.candidate);
        considered.insert(i, w.clone());
    }
    let label = chosen.as_ref().map_or("float", |(name, _)| name);
    let decision = |topic| {
        let mut d = Decision::new(&site.name, topic, label).weight(&site.weight);
        d.considered = considered.clone();
        d
    };
    let mut decisions = vec![decision(Topic::Scheme)];
    if fallback {
        decisions.push(decision(Topic::Fallback));
    }
    let acts = chosen.as_ref().and_then(|(_, q)| q.acts);
    decisions.extend(acts.and_then(|a| range(m, ctx, &site, &a)));
    Ok(Assigned {
        choice: chosen.map(|(_, q)| q),
        decisions,
        site,
    })
}

type Named = (String, std::result::Result<Quantized, String>);

/// What may be done to a layer under a scheme, the preferred first; none for float.
fn candidates(
    m: &Module,
    ctx: &PassContext<'_>,
    site: &Site,
    scheme: &Scheme,
) -> Result<Vec<Named>> {
    let Some(wanted) = scheme.weights else {
        return Ok(Vec::new());
    };
    let data = ctx.statistics.as_ref();
    let inputs = super::fit::inputs(m, site, ctx);
    let (weights, name) = wanted.resolved(inputs != Inputs::Unknown);
    let Some(storage) = scheme.acts else {
        let name = name.unwrap_or_else(|| scheme.name.clone());
        let only = match site.conv {
            true => Err("a convolution needs quantized activations".to_string()),
            false => Ok(Quantized {
                weights,
                acts: None,
                global: None,
            }),
        };
        return Ok(vec![(name, only)]);
    };
    let spec = |granularity| QuantSpec::symmetric(storage, granularity);
    let base = ["-static", "-dynamic", "-weights"]
        .iter()
        .fold(scheme.name.as_str(), |n, s| n.strip_suffix(s).unwrap_or(n));
    let with = |acts| {
        Ok(Quantized {
            weights,
            acts,
            global: None,
        })
    };
    let fixed = |scale| Acts {
        spec: spec(Granularity::Tensor),
        scale: Some(scale),
    };
    let weights_only = (format!("{base}-weights"), with(None));
    let mode = match (scheme.act, ctx.options.act) {
        (ActMode::Auto, mode) | (mode, _) => mode,
    };
    if site.conv {
        if !matches!(
            weights.granularity,
            Granularity::Channel | Granularity::Tensor
        ) {
            let why = "a convolution has no groups of input channels";
            return Ok(vec![(scheme.name.clone(), Err(why.into()))]);
        }
        let name = format!("{base}-static");
        let refused = |why: &str| Ok(vec![(name.clone(), Err(why.to_string()))]);
        return match (mode, data) {
            (ActMode::Float, _) => refused("a convolution needs quantized activations"),
            (ActMode::Auto | ActMode::Dynamic, None) => {
                refused("a convolution needs static activations, and there is no calibration data")
            }
            _ => Ok(vec![(
                name,
                with(Some(fixed(scale(
                    m,
                    data,
                    ctx.options.calib,
                    site,
                    storage,
                )?))),
            )]),
        };
    }
    let is_static = match mode {
        ActMode::Float => return Ok(vec![weights_only]),
        ActMode::Static => true,
        ActMode::Dynamic => false,
        ActMode::Auto => scheme.prefers_static && data.is_some(),
    };
    let (name, acts) = match is_static {
        true => (
            "static",
            fixed(scale(m, data, ctx.options.calib, site, storage)?),
        ),
        false => {
            let spec = spec(
                scheme
                    .act_group
                    .map_or(Granularity::Token, Granularity::Group),
            );
            ("dynamic", Acts { spec, scale: None })
        }
    };
    Ok(vec![
        (format!("{base}-{name}"), with(Some(acts))),
        weights_only,
    ])
}

/// The scale of a layer's input: the end of its range by a method over the largest code.
pub(crate) fn scale(
    m: &Module,
    data: Option<&Statistics>,
    method: CalibMethod,
    site: &Site,
    storage: DType,
) -> Result<f32> {
    let Some(data) = data else {
        let message = "static activations need calibration data";
        return Err(Diagnostic::error(525, Class::Usage, message)
            .at(&site.name)
            .hint("give --calib or --stats, or use --act dynamic"));
    };
    let name = &m.funcs[0].value(site.input).name;
    let Some(stats) = data.get(name).filter(|s| s.rows > 0) else {
        let message = format!("the statistics say nothing about the layer's input `{name}`");
        return Err(Diagnostic::error(526, Class::Input, message)
            .at(&site.name)
            .hint("they were made of another model, or without data: calibrate again"));
    };
    let format = QuantSpec::symmetric(storage, Granularity::Tensor).format();
    let fail = |e: FormatError| {
        Diagnostic::error(520, Class::Input, e.to_string()).at(format!("value {name}"))
    };
    let format = format.map_err(fail)?;
    let end = method
        .threshold(stats, format)
        .map_err(|d| d.or_at(&site.name))?;
    scale_symmetric(end, format.max()).map_err(fail)
}

/// What the ledger says about the range of a static activation that is not the whole of it.
fn range(m: &Module, ctx: &PassContext<'_>, site: &Site, acts: &Acts) -> Option<Decision> {
    let method = ctx.options.calib;
    let scale = acts.scale.filter(|_| method != CalibMethod::MinMax)?;
    let value = &m.funcs[0].value(site.input).name;
    let absmax = ctx.statistics.as_ref()?.get(value)?.absmax();
    let end = scale * acts.spec.format().ok()?.max();
    let chosen = format!("{method} {end}");
    let decision = Decision::new(&site.name, Topic::Range, &chosen).weight(&site.weight);
    Some(
        decision
            .consider(Candidate::new(format!("minmax {absmax}")))
            .consider(Candidate::new(chosen)),
    )
}

/// A candidate with its time at the sizes that matter; `None` is float.
fn priced(
    m: &Module,
    ctx: &PassContext<'_>,
    site: &Site,
    name: &str,
    q: Option<&Quantized>,
) -> Candidate {
    let mut c = Candidate::new(name);
    let Some(cost) = ctx.cost else {
        return c;
    };
    for b in buckets(m) {
        let form = (q, ctx.options.float);
        if let Ok(us) = micros(cost, m, site, form, &|s| b.size(s)) {
            c = c.predicted(b.name, us);
        }
    }
    c
}

/// Whether the target has kernels for the layer in this form and for quantizing its input.
fn affordable(
    cost: &dyn CostModel,
    m: &Module,
    site: &Site,
    q: &Quantized,
) -> std::result::Result<(), String> {
    // That does not depend on sizes; their largest values are as good as any.
    let largest = |s: &str| Some(m.symbol_range(s).1);
    micros(cost, m, site, (Some(q), None), &largest).map(|_| ())
}

/// The time of the layer in this form, its floats stored as given, or why the target has no
/// kernel for it.
fn micros(
    cost: &dyn CostModel,
    m: &Module,
    site: &Site,
    (q, float): (Option<&Quantized>, Option<DType>),
    dims: Bindings<'_>,
) -> std::result::Result<f64, String> {
    let f = &m.funcs[0];
    let op = &f.ops[site.op.index()];
    let stored = |v: &ValueId| {
        let t = f.ty(*v);
        match float.filter(|_| t.elem.plain().is_some_and(DType::is_float)) {
            Some(d) => TensorType::new(d, t.shape.clone()),
            None => t.clone(),
        }
    };
    let mut types: Vec<TensorType> = op.operands.iter().map(stored).collect();
    let quantized = |t: &TensorType, spec: &QuantSpec, dynamic| {
        TensorType::quant(spec.quant_type(t.rank(), dynamic), t.shape.clone())
    };
    if let Some(q) = q {
        types[1] = quantized(&types[1], &q.weights, false);
    }
    if let Some(a) = q.and_then(|q| q.acts.as_ref()) {
        let to = quantized(&types[0], &a.spec, a.scale.is_none());
        // Also what quantizes the input must have a kernel; fused into its maker it costs nothing.
        cost.op_micros(&OpKind::Quantize, &[&types[0]], &[&to], dims)?;
        types[0] = to;
    }
    let results: Vec<TensorType> = op.results.iter().map(stored).collect();
    let results: Vec<&TensorType> = results.iter().collect();
    let operands: Vec<&TensorType> = types.iter().collect();
    cost.op_micros(&op.kind, &operands, &results, dims)
}
