//! `conv`: cross-correlation over one or two spatial dimensions, as a product with the unrolled
//! input (im2col), group by group.
//!
//! ```text
//! acc[b, n, p] = Σ_{c, t} w[n, c, t] · x[b, group(n) + c, p·stride + t·dilation − pad]
//! ```

use super::linear::absorb;
use super::operand::{Matrix, codes_multiply};
use super::pool::{four_dims, taps, two_dims};
use super::{Call, Prepared, Site};
use crate::expr::{Fused, Outputs, Plan, Sink, Spec};
use crate::gemm::{Mat, gemm, gemm_exact};
use crate::kernels::rows::Reduction;
use qcc_ir::Bundle;
use qcc_ir::diag::Result;
use qcc_ir::expr::Expr;
use qcc_ir::graph::{OpKind, Window};

/// Output positions of one tile.
const TILE: usize = 512;

struct Conv {
    plan: Plan,
    window: Window,
    groups: usize,
    /// Whether the bias is operand 2, added along the channels.
    bias: bool,
    apart: bool,
    weights: Option<Matrix<'static>>,
}

pub(super) fn prepare(site: &mut Site<'_>) -> Result<Prepared> {
    let OpKind::Conv {
        window,
        groups,
        expr,
    } = &site.op.kind
    else {
        return Err(crate::internal("a convolution was expected"));
    };
    let (types, results) = (site.operand_types(), site.result_types());
    let spec = Spec {
        expr: &expr.clone().unwrap_or_else(Expr::identity),
        operands: &types,
        results: &results,
        shape: &results[0].shape,
        accs: 1,
        reduction: Reduction::None,
        rows: false,
        segmented: false,
    };
    let mut conv = Conv {
        bias: expr.is_none() && types.len() > 2,
        plan: Plan::new(&spec, site.jit)?,
        window: two_dims(window)?,
        groups: *groups as usize,
        apart: codes_multiply((types[0], 0), (types[1], 1)),
        weights: None,
    };
    let mut absorbed = Vec::new();
    if !conv.plan.reads(1) {
        conv.weights = absorb(site, 1, conv.apart)?;
        absorbed.extend(conv.weights.is_some().then_some(1));
    }
    Ok(Prepared {
        run: Box::new(move |c| conv.run(c)),
        absorbed,
    })
}

/// Everything that the tiles of one call share.
struct Image<'a> {
    x: &'a [f32],
    /// Channels, height and width of the input.
    c: usize,
    h: usize,
    w: usize,
    /// Width of the output.
    ow: usize,
    rows: Vec<Vec<Option<usize>>>,
    cols: Vec<Vec<Option<usize>>>,
}

impl Image<'_> {
    /// Appends, for one channel and each tap of the window, the inputs of positions `at..at + n`.
    fn unroll(&self, plane: &[f32], at: usize, n: usize, out: &mut Vec<f32>) {
        let (kh, kw) = (self.rows[0].len(), self.cols[0].len());
        for ky in 0..kh {
            for kx in 0..kw {
                out.extend((at..at + n).map(|p| {
                    match (self.rows[p / self.ow][ky], self.cols[p % self.ow][kx]) {
                        (Some(y), Some(x)) => plane[y * self.w + x],
                        _ => 0.0,
                    }
                }));
            }
        }
    }

    fn plane(&self, batch: usize, channel: usize) -> &[f32] {
        &self.x[(batch * self.c + channel) * self.h * self.w..][..self.h * self.w]
    }
}

impl Conv {
    fn run(&self, c: &Call<'_>) -> Result<Vec<Bundle>> {
        let v = c.arg(0)?;
        let held;
        let w = match &self.weights {
            Some(w) => w,
            None => {
                // Every tile reads them, so they are decoded once.
                let w = Matrix::new(c.arg(1)?, 1, self.apart)?;
                held = match w.is_read_in_place() {
                    true => w,
                    false => w.decoded(c.threads)?,
                };
                &held
            }
        };
        let x = Matrix::new(v, 0, self.apart)?;
        let data = x.read(0..1)?;
        let [b, ch, h, wd] = four_dims(&v.dims())?;
        let dims = crate::value::sizes(&c.result()?.1);
        let [_, n, oh, ow] = four_dims(&dims)?;
        let image = Image {
            x: &data,
            c: ch,
            h,
            w: wd,
            ow,
            rows: taps(&self.window, 0, h, oh),
            cols: taps(&self.window, 1, wd, ow),
        };
        let bias = match self.bias {
            true => Some(c.arg(2)?.floats(c.threads)?),
            false => None,
        };
        let fused = Fused::new(&self.plan, c.args, &dims, None, c.threads)?;
        let mut out = Outputs::new(&self.plan, c.results, c.args, c.pool)?;
        let sinks = out.sinks()?;
        let (tiles, ng) = ((oh * ow).div_ceil(TILE), n / self.groups);
        c.threads.each(b * self.groups * tiles, |task| {
            let (bg, tile) = (task / tiles, task % tiles);
            let at = tile * TILE;
            let place = Place {
                batch: bg / self.groups,
                channels: bg % self.groups * ng..(bg % self.groups + 1) * ng,
                at,
                len: TILE.min(oh * ow - at),
            };
            let mut acc = self.sums(&image, &x, w, &place)?;
            self.finish(&mut acc, &x, w, bias.as_deref(), &place);
            self.store(&acc, &fused, &place, [n, oh * ow], &sinks)
        })?;
        drop(sinks);
        out.finish(c.threads)
    }

    /// `Σ w·x` for a tile: `[channels, positions]`.
    fn sums(
        &self,
        image: &Image<'_>,
        x: &Matrix<'_>,
        w: &Matrix<'_>,
        p: &Place,
    ) -> Result<Vec<f32>> {
        let (ng, k) = (p.channels.len(), w.k);
        let cg = image.c / self.groups;
        let first = p.channels.start / ng.max(1) * cg;
        let weights = w.read(p.channels.clone())?;
        let mut unrolled = Vec::with_capacity(k * p.len);
        for c in first..first + cg {
            image.unroll(image.plane(p.batch, c), p.at, p.len, &mut unrolled);
        }
        let mut acc = vec![0f32; ng * p.len];
        let (a, b) = (Mat::rows(&weights, 0, k), Mat::rows(&unrolled, 0, p.len));
        match x.product_bits(w) {
            Some(bits) => gemm_exact([ng, p.len, k], a, b, bits, &mut acc, p.len)?,
            None => gemm([ng, p.len, k], a, b, &mut acc, p.len, false)?,
        }
        Ok(acc)
    }

    /// Scales of a quantized product, and the bias.
    fn finish(
        &self,
        acc: &mut [f32],
        x: &Matrix<'_>,
        w: &Matrix<'_>,
        bias: Option<&[f32]>,
        p: &Place,
    ) {
        for (row, n) in acc.chunks_mut(p.len).zip(p.channels.clone()) {
            if let (Some(sx), Some(sw)) = (&x.scales, &w.scales) {
                row.iter_mut().for_each(|v| *v = *v * sx[0] * sw[n]);
            }
            if let Some(b) = bias {
                row.iter_mut().for_each(|v| *v += b[n]);
            }
        }
    }

    fn store(
        &self,
        acc: &[f32],
        fused: &Fused<'_>,
        p: &Place,
        [n, size]: [usize; 2],
        sinks: &[Sink<'_>],
    ) -> Result<()> {
        let mut scratch = fused.scratch();
        for (row, ch) in acc.chunks(p.len).zip(p.channels.clone()) {
            let at = (p.batch * n + ch) * size + p.at;
            fused.run(&mut scratch, at, p.len, [row, &[]], sinks)?;
        }
        Ok(())
    }
}

/// A tile of the output: channels of one image, and positions `at..at + len`.
struct Place {
    batch: usize,
    channels: std::ops::Range<usize>,
    at: usize,
    len: usize,
}
