//! Scales, zero points and codes of one weight, by the methods of its layer.
//!
//! Ranges come first (of the values, clipped, or found by GPTQ on the way), then zero points, then
//! codes. Where GPTQ is not asked for, codes are the nearest ones and follow from the rest.

use super::clip;
use super::coded::Coded;
use super::gptq::{Gptq, Matrix, Params};
use super::hqq;
use super::methods::Methods;
use super::range_search::WIDEST;
use super::refine::refine;
use super::rtn;
use super::scheme::{Granularity, QuantSpec};
use super::table;
use crate::GptqOptions;
use crate::weights::{Quantizer, format_error, held, inline, read_f32};
use qcc_ir::DType;
use qcc_ir::diag::Result;
use qcc_ir::format::{encode_slice, minmax_nd};
use qcc_ir::graph::Weight;

/// How a weight is fitted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fit<'a> {
    pub(super) methods: Methods,
    pub(super) gptq: &'a GptqOptions,
    pub(super) threads: usize,
    /// Whether the layer makes queries or keys: AWQ leaves the ranges of what becomes attention
    /// scores alone.
    pub(super) scores: bool,
}

impl Fit<'_> {
    /// What the methods make of a weight whose inputs have the Gram matrix `gram` (`XᵀX`,
    /// row-major), and whether GPTQ gave up because its Hessian is singular.
    ///
    /// # Errors
    /// When the weight cannot be read or holds NaN or infinity.
    pub(super) fn weight(
        &self,
        w: &Weight,
        spec: QuantSpec,
        gram: Option<&[f64]>,
    ) -> Result<(Coded, bool)> {
        let methods = self.methods;
        if methods.table {
            let diagonal = gram.map(|g| table::diagonal(g, w));
            return Ok((
                table::fit(w, &spec, diagonal.as_deref(), self.threads)?,
                false,
            ));
        }
        let block = spec.quant_type(w.dims.len(), false).block;
        let (Some((n, k)), true) = (matrix(&w.dims), methods.any()) else {
            let quantizer = rtn::quantizer(w, &spec, block)?;
            return Ok((plain(spec, quantizer), false));
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
        let fixed = self.gptq.act_order || self.gptq.static_groups;
        let searched = methods.refine && !fixed && group <= WIDEST;
        let by_output = match methods.refine {
            true => !searched,
            false => methods.awq && !self.scores,
        };
        let (lo, hi) = match (by_output, methods.mse) {
            (false, false) => minmax_nd(m.w, &[n, k], &block),
            (true, _) => clip::ranges(m, gram, spec, group, self.threads),
            (false, true) => clip::ranges(m, None, spec, group, self.threads),
        }
        .map_err(fail)?;
        let mut quantizer = rtn::from_ranges(w, &spec, block, &lo, &hi)?;
        if let (true, Some(levels)) = (methods.hqq, spec.levels()) {
            quantizer = hqq::improved(m, quantizer, levels, group, self.threads);
        }
        let Some(gram) = gram.filter(|_| methods.gptq) else {
            return Ok((plain(spec, quantizer), false));
        };
        let params = match (searched, fixed || by_output || methods.mse) {
            (true, _) => Params::Searched,
            (false, true) => Params::Fixed(&quantizer),
            (false, false) => Params::Natural,
        };
        let gptq = Gptq {
            damping: self.gptq.damping,
            act_order: self.gptq.act_order,
            threads: self.threads,
        };
        let rounded = gptq.round(m, gram, spec, group, params).map_err(fail)?;
        let Some(mut r) = rounded else {
            return Ok((plain(spec, quantizer), true));
        };
        if methods.refine {
            refine(m, gram, spec, group, &mut r, self.threads).map_err(fail)?;
        }
        let numbers: Vec<f32> = r.codes.iter().map(|c| *c as f32).collect();
        let mut codes = vec![0; byte_len(spec.storage, numbers.len())];
        encode_slice(spec.storage, &numbers, &mut codes).map_err(fail)?;
        let quantizer = Quantizer {
            scales: r.scales.into(),
            zeros: quantizer.zeros.map(|_| r.zeros.into()),
            ..quantizer
        };
        let codes = Some(held(codes));
        Ok((
            Coded {
                spec,
                quantizer,
                codes,
            },
            false,
        ))
    }
}

fn matrix(dims: &[u64]) -> Option<(usize, usize)> {
    match dims {
        [n, k] => Some((usize::try_from(*n).ok()?, usize::try_from(*k).ok()?)),
        _ => None,
    }
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

fn byte_len(d: DType, n: usize) -> usize {
    let len = d.byte_len(n as u64).and_then(|n| usize::try_from(n).ok());
    // INVARIANT: the numbers are in memory in a wider format.
    len.unwrap_or(0)
}

/// The real values of a weight after rounding to nearest under a form.
///
/// # Errors
/// When a weight is NaN or infinite.
pub(crate) fn rounded(w: &Weight, spec: &QuantSpec) -> Result<Vec<f32>> {
    let block = spec.quant_type(w.dims.len(), false).block;
    let quantizer = rtn::quantizer(w, spec, block)?;
    read_f32(&real(w, &plain(*spec, quantizer))?)
}

/// The real values of a coded weight, in the format of its source.
///
/// # Errors
/// When its codes cannot be read or computed.
pub(super) fn real(source: &Weight, coded: &Coded) -> Result<Weight> {
    let fail = |e| format_error(e, &source.name);
    let q = &coded.quantizer;
    let (stored, computed);
    let codes: &[u8] = match &coded.codes {
        Some(c) => {
            stored = c.bytes()?;
            &stored
        }
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
