//! Finds the codes of weights by the methods of the options, layer by layer.
//!
//! The module stays as it is; what was found is in the context, for `quantize` to use. Methods
//! with data see each layer's input as the already quantized layers before it make it
//! ([`stream`](super::stream)). Activations stay float meanwhile.
//!
//! Preconditions: as for `quantize`; with `gptq` or `awq` an executor and samples.

use super::assign::{Assigned, assign};
use super::clip;
use super::coded::Coded;
use super::gptq::{Gptq, Matrix, Params};
use super::methods::Methods;
use super::part::weight_dims;
use super::rtn;
use super::scheme::{Granularity, QuantSpec};
use super::stream::{Group, Stream, groups};
use super::table;
use crate::pass::{Pass, PassContext};
use crate::weights::{Quantizer, format_error, inline, read_f32};
use qcc_ir::DType;
use qcc_ir::diag::{Class, Diagnostic, Result};
use qcc_ir::format::{decode_slice, encode_slice, minmax_nd};
use qcc_ir::graph::{Func, Module, OpKind, Weight};
use qcc_ir::ledger::{Candidate, Decision, Topic};

/// The pass.
pub(crate) struct FitWeights;

impl Pass for FitWeights {
    fn name(&self) -> &'static str {
        "fit-weights"
    }

    fn summary(&self) -> &'static str {
        "finds codes of weights by GPTQ, and ranges of groups"
    }

    fn run(&self, module: &Module, ctx: &mut PassContext<'_>) -> Result<Module> {
        let layers: Vec<Assigned> = assign(module, ctx)?
            .into_iter()
            .filter(|l| l.choice.is_some() && !l.site.conv)
            .collect();
        let methods: Vec<Methods> = layers.iter().map(|l| methods_of(l, ctx)).collect();
        let f = &module.funcs[0];
        if methods.iter().any(|m| m.need_data()) {
            let mut stream = stream(module, ctx)?;
            for g in groups(f, &layers) {
                with_data(module, ctx, &layers, &methods, &g, &mut stream)?;
            }
        } else {
            for (l, m) in layers.iter().zip(&methods).filter(|(_, m)| m.any()) {
                let (coded, _) = fit(module, ctx, l, *m, None)?;
                ctx.codes.insert(&l.site.weight, coded);
            }
        }
        Ok(module.clone())
    }
}

/// The methods of a layer.
pub(super) fn methods_of(l: &Assigned, ctx: &PassContext<'_>) -> Methods {
    let data = ctx.samples.is_some_and(|s| s.batches() > 0);
    match l.choice {
        Some(q) if !l.site.conv => Methods::of(ctx.options.algo.as_deref(), &q.weights, data),
        _ => Methods::default(),
    }
}

/// The samples at the beginning of a module.
///
/// # Errors
/// `Q0525` when there are none.
pub(super) fn stream<'a>(module: &Module, ctx: &PassContext<'a>) -> Result<Stream<'a>> {
    match (ctx.executor, ctx.samples.filter(|s| s.batches() > 0)) {
        (Some(e), Some(s)) => Stream::new(module, e, s),
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
    stream.advance(group, &mut |seen| {
        gram.resize(seen.gram.len(), 0.0);
        for (sum, v) in gram.iter_mut().zip(seen.gram) {
            *sum += f64::from(*v);
        }
        Ok(())
    })?;
    for i in &group.members {
        let l = &layers[*i];
        let (coded, decision) = fit(module, ctx, l, methods[*i], Some(&gram))?;
        if let Some(d) = decision {
            ctx.ledger.record(d);
        }
        let source = source(module, l)?;
        stream.replace(l.site.op, real(source, &coded)?);
        if methods[*i].any() {
            ctx.codes.insert(&l.site.weight, coded);
        }
    }
    Ok(())
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

/// Codes of one layer's weight.
fn fit(
    module: &Module,
    ctx: &PassContext<'_>,
    l: &Assigned,
    methods: Methods,
    gram: Option<&[f64]>,
) -> Result<(Coded, Option<Decision>)> {
    let w = source(module, l)?;
    // INVARIANT: only layers with a choice are fitted.
    let spec = l
        .choice
        .map(|q| q.weights)
        .ok_or_else(|| internal(&l.site.name))?;
    let f = &module.funcs[0];
    if methods.table {
        let diagonal = gram.map(|g| table::diagonal(g, w));
        return Ok((
            table::fit(w, &spec, diagonal.as_deref(), ctx.threads)?,
            None,
        ));
    }
    let block = spec
        .quant_type(f.ty(l.site.weight_value).rank(), false)
        .block;
    let dims = weight_dims(f.ty(l.site.weight_value));
    let (Some((n, k)), true) = (dims, methods.any()) else {
        let quantizer = rtn::quantizer(w, &spec, block)?;
        return Ok((plain(spec, quantizer), None));
    };
    let mut values = read_f32(w)?;
    if let Some(gram) = gram.filter(|_| methods.gptq) {
        zero_dead(&mut values, gram, k);
    }
    let m = Matrix { w: &values, n, k };
    let fail = |e| format_error(e, &w.name);
    let group = match spec.granularity {
        Granularity::Group(g) => g as usize,
        _ => k,
    };
    // AWQ leaves the ranges of what becomes attention scores alone.
    let by_output = methods.awq && !makes_scores(f, l);
    let (lo, hi) = match (by_output, methods.mse) {
        (false, false) => minmax_nd(m.w, &[n, k], &block),
        (true, _) => clip::ranges(m, gram, spec, group, ctx.threads),
        (false, true) => clip::ranges(m, None, spec, group, ctx.threads),
    }
    .map_err(fail)?;
    let quantizer = rtn::from_ranges(w, &spec, block, &lo, &hi)?;
    let Some(gram) = gram.filter(|_| methods.gptq) else {
        return Ok((plain(spec, quantizer), None));
    };
    let options = &ctx.options.gptq;
    let gptq = Gptq {
        damping: options.damping,
        act_order: options.act_order,
        threads: ctx.threads,
    };
    let fixed = options.act_order || options.static_groups || by_output || methods.mse;
    let params = match fixed {
        true => Params::Fixed(&quantizer),
        false => Params::Natural,
    };
    let Some(r) = gptq.round(m, gram, spec, group, params).map_err(fail)? else {
        let d = Decision::new(&l.site.name, Topic::Fallback, "rtn")
            .weight(&w.name)
            .consider(Candidate::refused(
                "gptq",
                "its Hessian is singular at any damping",
            ))
            .consider(Candidate::new("rtn"));
        return Ok((plain(spec, quantizer), Some(d)));
    };
    let numbers: Vec<f32> = r.codes.iter().map(|c| *c as f32).collect();
    let mut codes = vec![0; byte_len(spec.storage, numbers.len())];
    encode_slice(spec.storage, &numbers, &mut codes).map_err(fail)?;
    let quantizer = Quantizer {
        scales: r.scales.into(),
        zeros: quantizer.zeros.map(|_| r.zeros.into()),
        ..quantizer
    };
    let coded = Coded {
        spec,
        quantizer,
        codes: Some(codes),
    };
    Ok((coded, None))
}

/// Weights of inputs that are always 0 count for nothing, also not for ranges.
fn zero_dead(w: &mut [f32], gram: &[f64], k: usize) {
    let dead: Vec<usize> = (0..k).filter(|j| gram[j * k + j] == 0.0).collect();
    for row in w.chunks_mut(k.max(1)) {
        dead.iter().for_each(|j| row[*j] = 0.0);
    }
}

fn plain(spec: QuantSpec, quantizer: Quantizer) -> Coded {
    Coded {
        spec,
        quantizer,
        codes: None,
    }
}

fn internal(what: &str) -> Diagnostic {
    Diagnostic::error(916, Class::Internal, format!("{what} has no scheme"))
}

fn byte_len(d: DType, n: usize) -> usize {
    let len = d.byte_len(n as u64).and_then(|n| usize::try_from(n).ok());
    // INVARIANT: the numbers are in memory in a wider format.
    len.unwrap_or(0)
}

/// The real values of a coded weight, in the format of its source.
fn real(source: &Weight, coded: &Coded) -> Result<Weight> {
    let fail = |e| format_error(e, &source.name);
    let q = &coded.quantizer;
    let computed;
    let codes = match &coded.codes {
        Some(c) => c,
        None => {
            computed = q.codes(&read_f32(source)?, &source.dims).map_err(fail)?;
            &computed
        }
    };
    let v = q.real(codes, &source.dims).map_err(fail)?;
    let mut bytes = vec![0; byte_len(source.dtype, v.len())];
    encode_slice(source.dtype, &v, &mut bytes).map_err(fail)?;
    let name = format!("{}.real", source.name);
    Ok(inline(name, source.dtype, source.dims.clone(), bytes))
}

/// The real values of a matrix after rounding to nearest under a form.
///
/// # Errors
/// When a weight is NaN or infinite.
pub(super) fn rounded(w: &Weight, spec: &QuantSpec) -> Result<Vec<f32>> {
    let block = spec.quant_type(w.dims.len(), false).block;
    let real = real(w, &plain(*spec, rtn::quantizer(w, spec, block)?))?;
    let mut v = vec![0.0f32; usize::try_from(real.numel().unwrap_or(0)).unwrap_or(0)];
    let bytes = qcc_ir::eval::weight_tensor(&real)?;
    decode_slice(real.dtype, bytes.bytes(), &mut v).map_err(|e| format_error(e, &w.name))?;
    Ok(v)
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
