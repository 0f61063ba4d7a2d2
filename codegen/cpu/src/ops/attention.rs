//! `attention`: softmax attention per head, in blocks of 64 queries.
//!
//! ```text
//! o = softmax(q·kᵀ·scale + mask)·v      query i of s sees keys 0 ..= i + t − s where causal
//! ```
//!
//! A block computes its scores with all keys that any of its queries sees, so scratch memory is
//! 64·t numbers. A row without any visible key gives zeros.

use super::{Call, Prepared, Site};
use crate::expr::{Fused, Outputs, Plan, Spec};
use crate::gemm::{Mat, gemm};
use crate::kernels::rows::Reduction;
use crate::math;
use crate::pool::Numbers;
use crate::threads::Scatter;
use crate::value::View;
use qcc_ir::diag::Result;
use qcc_ir::expr::Expr;
use qcc_ir::format::decode_slice_i64;
use qcc_ir::graph::{AttentionAttrs, OpKind};
use qcc_ir::{Bundle, DType};
use std::borrow::Cow;

/// Queries of a block.
const BLOCK: usize = 64;

pub(super) fn prepare(site: &mut Site<'_>) -> Result<Prepared> {
    let OpKind::Attention { attrs, expr } = &site.op.kind else {
        return Err(crate::internal("an attention was expected"));
    };
    let attrs = *attrs;
    let expr = expr.clone().unwrap_or_else(Expr::identity);
    let (operands, results) = (site.operand_types(), site.result_types());
    let spec = Spec {
        expr: &expr,
        operands: &operands,
        results: &results,
        shape: &results[0].shape,
        accs: 1,
        reduction: Reduction::None,
        rows: true,
        segmented: false,
    };
    let plan = Plan::new(&spec, site.jit)?;
    super::plain(move |c| run(c, attrs, &plan))
}

/// What keys a mask hides, or what it adds to scores.
enum Mask<'a> {
    Keep(Vec<bool>),
    Add(Cow<'a, [f32]>),
}

/// A mask laid against `[b, h, s, t]`.
struct Masked<'a> {
    mask: Mask<'a>,
    steps: [usize; 4],
}

impl<'a> Masked<'a> {
    fn new(v: View<'a>, dims: [usize; 4], threads: &crate::Threads) -> Result<Self> {
        let steps = crate::expr::broadcast_steps(&v.dims(), &dims)?;
        let mask = if v.codes.dtype() == DType::Bool {
            let mut keep = vec![0i64; v.codes.numel()];
            decode_slice_i64(DType::Bool, v.codes.bytes(), &mut keep)
                .map_err(crate::format_error)?;
            Mask::Keep(keep.into_iter().map(|k| k != 0).collect())
        } else {
            Mask::Add(v.floats(threads)?)
        };
        Ok(Masked {
            mask,
            steps: [steps[0], steps[1], steps[2], steps[3]],
        })
    }

    /// Applies the mask to the scores of one query.
    fn apply(&self, [b, h, i]: [usize; 3], row: &mut [f32]) {
        let [sb, sh, si, st] = self.steps;
        let at = b * sb + h * sh + i * si;
        match &self.mask {
            Mask::Keep(m) => row.iter_mut().enumerate().for_each(|(j, v)| {
                if !m[at + j * st] {
                    *v = f32::NEG_INFINITY;
                }
            }),
            Mask::Add(m) => row
                .iter_mut()
                .enumerate()
                .for_each(|(j, v)| *v += m[at + j * st]),
        }
    }
}

/// Extents of one attention.
struct Shape {
    /// Queries and keys.
    s: usize,
    t: usize,
    /// Widths of a head's queries and keys, and of its values.
    d: usize,
    dv: usize,
    heads: usize,
    kv_heads: usize,
}

struct Attention<'a> {
    shape: Shape,
    attrs: AttentionAttrs,
    q: Cow<'a, [f32]>,
    k: Cow<'a, [f32]>,
    v: Cow<'a, [f32]>,
    mask: Option<Masked<'a>>,
}

fn run(c: &Call<'_>, attrs: AttentionAttrs, plan: &Plan) -> Result<Vec<Bundle>> {
    let (q, k, v) = (c.arg(0)?, c.arg(1)?, c.arg(2)?);
    let (qd, kd, vd) = (q.dims(), k.dims(), v.dims());
    let (heads, kv_heads) = (attrs.heads as usize, attrs.kv_heads as usize);
    let shape = Shape {
        s: qd[1],
        t: kd[1],
        d: qd[2] / heads,
        dv: vd[2] / kv_heads,
        heads,
        kv_heads,
    };
    let (batch, width) = (qd[0], shape.dv * heads);
    let mask = match attrs.mask {
        true => Some(Masked::new(
            c.arg(3)?,
            [batch, heads, shape.s, shape.t],
            c.threads,
        )?),
        false => None,
    };
    let a = Attention {
        q: q.floats(c.threads)?,
        k: k.floats(c.threads)?,
        v: v.floats(c.threads)?,
        mask,
        shape,
        attrs,
    };
    let dims = [batch, a.shape.s, width];
    let mut acc = Numbers::new(c.pool, &dims.map(|d| d as u64))?;
    let blocks = a.shape.s.div_ceil(BLOCK);
    let to = Scatter::new(acc.get_mut()?);
    c.threads.each(batch * heads * blocks, |task| {
        let (bh, block) = (task / blocks, task % blocks);
        a.block(bh / heads, bh % heads, block * BLOCK, &to)
    })?;
    if plan.copies() {
        let dtype = c.result()?.0.plain("the result of attention")?;
        return Ok(vec![acc.finish(dtype, c.threads)?.into()]);
    }
    let fused = Fused::new(plan, c.args, &dims, None, c.threads)?;
    let mut out = Outputs::new(plan, c.results, c.args, c.pool)?;
    let sinks = out.sinks()?;
    let sums = acc.get()?;
    c.threads.ranges(sums.len(), fused.grain(1 << 14), |r| {
        let part = &sums[r.clone()];
        fused.run(&mut fused.scratch(), r.start, r.len(), [part, &[]], &sinks)
    })?;
    drop(sinks);
    acc.release();
    out.finish(c.threads)
}

impl Attention<'_> {
    /// Keys that query `i` sees under the causal rule.
    fn visible(&self, i: usize) -> usize {
        let Shape { s, t, .. } = self.shape;
        if self.attrs.causal {
            (i + 1 + t).saturating_sub(s).min(t)
        } else {
            t
        }
    }

    /// Queries from `first` on of one head, into `to[b, s, heads·dv]`.
    fn block(&self, b: usize, h: usize, first: usize, to: &Scatter<'_, f32>) -> Result<()> {
        let Shape {
            s,
            t,
            d,
            dv,
            heads,
            kv_heads,
        } = self.shape;
        let n = BLOCK.min(s - first);
        let keys = self.visible(first + n - 1);
        let g = h / (heads / kv_heads);
        let q = Mat::rows(&self.q, (b * s + first) * heads * d + h * d, heads * d);
        let k = Mat::rows(&self.k, b * t * kv_heads * d + g * d, kv_heads * d);
        let v = Mat::rows(&self.v, b * t * kv_heads * dv + g * dv, kv_heads * dv);
        let mut scores = vec![0f32; n * keys];
        gemm([n, keys, d], q, k.transposed(), &mut scores, keys, false)?;
        let mut sums = [0f64; BLOCK];
        for (i, row) in scores.chunks_mut(keys.max(1)).enumerate() {
            sums[i] = self.weights([b, h, first + i], row);
        }
        let mut out = vec![0f32; n * dv];
        gemm(
            [n, dv, keys],
            Mat::rows(&scores, 0, keys),
            v,
            &mut out,
            dv,
            false,
        )?;
        for (i, row) in out.chunks_mut(dv.max(1)).enumerate() {
            if sums[i] != 0.0 {
                math::scale(row, (1.0 / sums[i]) as f32);
            }
            let at = (b * s + first + i) * heads * dv + h * dv;
            // SAFETY: each query of each head is computed by one task only.
            unsafe { to.slice(at..at + dv) }?.copy_from_slice(row);
        }
        Ok(())
    }

    /// Turns scores into weights that are not yet divided by their sum, which is returned; all
    /// zeros when the query sees no key.
    fn weights(&self, [b, h, i]: [usize; 3], row: &mut [f32]) -> f64 {
        let seen = self.visible(i).min(row.len());
        let (row, hidden) = row.split_at_mut(seen);
        hidden.fill(0.0);
        math::scale(row, f32::from_bits(self.attrs.scale));
        if let Some(m) = &self.mask {
            m.apply([b, h, i], row);
        }
        let max = math::maximum(row);
        if max == f32::NEG_INFINITY {
            row.fill(0.0);
            return 0.0;
        }
        math::exp_shifted(row, max);
        math::sum(row)
    }
}
