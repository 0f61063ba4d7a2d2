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

use super::scheme::{Granularity, QuantSpec, Scheme};
use super::sites::{Site, sites};
use crate::options::{ActMode, Options};
use crate::pass::PassContext;
use crate::statistics::Statistics;
use crate::weights::read_f32;
use qcc_ir::DType;
use qcc_ir::diag::{Class, Diagnostic, Result};
use qcc_ir::exec::CostModel;
use qcc_ir::format::{FormatError, scale_global, scale_symmetric};
use qcc_ir::graph::{Module, OpKind, TensorType, ValueId};
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
    let mut considered = Vec::new();
    if let Some(why) = why.filter(|_| scheme != ctx.options.scheme) {
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
                considered.push(Candidate::new(&name));
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
    if chosen.is_none() {
        considered.push(Candidate::new("float"));
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
    let (weights, name) = wanted.resolved(data.is_some());
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
        if !matches!(weights.granularity, Granularity::Channel) {
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
                with(Some(fixed(scale(m, data, site, storage)?))),
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
        true => ("static", fixed(scale(m, data, site, storage)?)),
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

/// The scale of a layer's input: the largest magnitude seen over the largest code.
fn scale(m: &Module, data: Option<&Statistics>, site: &Site, storage: DType) -> Result<f32> {
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
    let scale = format.and_then(|f| scale_symmetric(stats.absmax(), f.max()));
    scale.map_err(|e| {
        Diagnostic::error(520, Class::Input, e.to_string()).at(format!("value {name}"))
    })
}

/// Whether the target has kernels for the layer in this form and for quantizing its input.
fn affordable(
    cost: &dyn CostModel,
    m: &Module,
    site: &Site,
    q: &Quantized,
) -> std::result::Result<(), String> {
    let f = &m.funcs[0];
    let op = &f.ops[site.op.index()];
    let mut types: Vec<TensorType> = op.operands.iter().map(|v| f.ty(*v).clone()).collect();
    let quantized = |t: &TensorType, spec: &QuantSpec, dynamic| {
        TensorType::quant(spec.quant_type(t.rank(), dynamic), t.shape.clone())
    };
    types[1] = quantized(&types[1], &q.weights, false);
    let results: Vec<&TensorType> = op.results.iter().map(|v| f.ty(*v)).collect();
    // Whether a kernel exists does not depend on sizes; their largest values are as good as any.
    let largest = |s: &str| Some(m.symbol_range(s).1);
    if let Some(a) = &q.acts {
        let to = quantized(&types[0], &a.spec, a.scale.is_none());
        cost.op_micros(&OpKind::Quantize, &[&types[0]], &[&to], &largest)?;
        types[0] = to;
    }
    let operands: Vec<&TensorType> = types.iter().collect();
    cost.op_micros(&op.kind, &operands, &results, &largest)
        .map(|_| ())
}
