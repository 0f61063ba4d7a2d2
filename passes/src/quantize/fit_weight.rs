//! Scales, zero points and codes of one weight, by the methods of its layer.
//!
//! Ranges come first (of the values, clipped, or found by GPTQ on the way), then zero points, then
//! codes. Where GPTQ is not asked for, codes are the nearest ones and follow from the rest. Tables
//! take the place of ranges where codes index them.

use super::clip;
use super::coded::Coded;
use super::gptq::{Gptq, Matrix, Params};
use super::grid::Coder;
use super::hqq;
use super::methods::Methods;
use super::range_search::WIDEST;
use super::refine::refine;
use super::rtn;
use super::scheme::{Blocks, QuantSpec};
use super::table;
use crate::GptqOptions;
use crate::weights::{Quantizer, format_error, held, inline, read_f32};
use qcc_ir::DType;
use qcc_ir::diag::Result;
use qcc_ir::format::{FormatError, encode_slice, minmax_nd};
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
    /// The scale above those of the blocks; that of the weight itself where it is not given.
    pub(super) global: Option<f32>,
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
        let fail = |e| format_error(e, &w.name);
        let table = spec.is_table().then(|| {
            let diagonal = gram.map(|g| table::diagonal(g, w));
            table::fit(w, &spec, diagonal.as_deref(), self.threads)
        });
        let (Some((n, k)), true) = (matrix(&w.dims), self.methods.any()) else {
            let block = spec.quant_type(w.dims.len(), false).block;
            let nearest = || rtn::quantizer(w, &spec, block, self.global).map(|q| plain(spec, q));
            return Ok((table.unwrap_or_else(nearest)?, false));
        };
        let mut values = read_f32(w)?;
        if let Some(gram) = gram.filter(|_| self.methods.gptq) {
            zero_dead(&mut values, gram, k);
        }
        let m = Matrix { w: &values, n, k };
        let (coder, start) = match table.transpose()? {
            Some(t) => {
                let tables = t.quantizer.scales.clone();
                (Coder::of_tables(spec, tables).map_err(fail)?, t)
            }
            None => self.scales(m, spec, gram).map_err(fail)?,
        };
        let Some(gram) = gram.filter(|_| self.methods.gptq) else {
            return Ok((start, false));
        };
        let gptq = self.rounded(m, &coder, gram, &start);
        Ok(gptq.map_err(fail)?.map_or((start, true), |c| (c, false)))
    }

    /// Whether scales are known before GPTQ begins.
    fn fixed(&self, blocks: Blocks) -> bool {
        self.gptq.act_order || self.gptq.static_groups || blocks.rows > 1
    }

    /// Whether GPTQ searches the ranges of groups on its way.
    fn searches(&self, blocks: Blocks) -> bool {
        self.methods.refine && !self.fixed(blocks) && blocks.columns <= WIDEST
    }

    /// Whether ranges are clipped by the error of the layer's output.
    fn clips_by_output(&self, blocks: Blocks) -> bool {
        match self.methods.refine {
            true => !self.searches(blocks),
            false => self.methods.awq && !self.scores,
        }
    }

    /// Scales and zero points of blocks, with the nearest codes.
    fn scales(
        &self,
        m: Matrix<'_>,
        spec: QuantSpec,
        gram: Option<&[f64]>,
    ) -> std::result::Result<(Coder, Coded), FormatError> {
        let block = spec.quant_type(2, false).block;
        let blocks = spec.blocks(m.n, m.k);
        let (lo, hi) = minmax_nd(m.w, &[m.n, m.k], &block)?;
        let global = rtn::global_scale(&spec, self.global, &lo, &hi)?;
        let coder = Coder::new(spec, global)?;
        let (lo, hi) = match (self.clips_by_output(blocks), self.methods.mse) {
            (false, false) => (lo, hi),
            (true, _) => clip::ranges(m, gram, &coder, blocks, self.threads)?,
            (false, true) => clip::ranges(m, None, &coder, blocks, self.threads)?,
        };
        let mut quantizer = rtn::from_ranges(&coder, block, &lo, &hi)?;
        if let (true, Some(levels)) = (self.methods.hqq, spec.levels()) {
            quantizer = hqq::improved(m, quantizer, levels, blocks.columns, self.threads);
        }
        Ok((coder, plain(spec, quantizer)))
    }

    /// What GPTQ makes of a weight; `None` when its Hessian is singular.
    fn rounded(
        &self,
        m: Matrix<'_>,
        coder: &Coder,
        gram: &[f64],
        start: &Coded,
    ) -> std::result::Result<Option<Coded>, FormatError> {
        let spec = *coder.spec();
        let blocks = spec.blocks(m.n, m.k);
        let known = self.fixed(blocks) || self.clips_by_output(blocks) || self.methods.mse;
        let params = match (coder.is_table(), self.searches(blocks), known) {
            (true, ..) | (_, false, true) => Params::Fixed(&start.quantizer),
            (_, true, _) => Params::Searched,
            (_, false, false) => Params::Natural,
        };
        let gptq = Gptq {
            damping: self.gptq.damping,
            act_order: self.gptq.act_order,
            threads: self.threads,
        };
        let Some(mut r) = gptq.round(m, gram, coder, blocks, params)? else {
            return Ok(None);
        };
        if self.methods.refine {
            refine(m, gram, coder, blocks.columns, &mut r, self.threads);
        }
        let numbers: Vec<f32> = r.codes.iter().map(|c| coder.number(*c)).collect();
        let mut codes = vec![0; byte_len(spec.storage, numbers.len())];
        encode_slice(spec.storage, &numbers, &mut codes)?;
        let mut quantizer = start.quantizer.clone();
        if !coder.is_table() && blocks.rows == 1 {
            quantizer.scales = r.scales.into();
            quantizer.zeros = quantizer.zeros.map(|_| r.zeros.into());
        }
        Ok(Some(Coded {
            spec,
            quantizer,
            codes: Some(held(codes)),
        }))
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
