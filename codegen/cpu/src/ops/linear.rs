//! `linear`: `x·wᵀ` with an expression on the sums.
//!
//! The result is cut into tiles of 128 rows and panels of up to 512 columns. Held weights are
//! decoded to f32 when the program is prepared, as long as the budget for decoded weights allows
//! it. Others are decoded panel by panel in every run, each panel for several tiles at once.

use super::operand::{Matrix, codes_multiply, product};
use super::{Call, Prepared, Site};
use crate::expr::{Columns, Fused, Outputs, Plan, Scratch, Sink, Spec};
use crate::kernels::rows::Reduction;
use qcc_ir::Bundle;
use qcc_ir::diag::Result;
use qcc_ir::expr::{BinaryFn, Expr, Node};
use qcc_ir::graph::OpKind;
use std::borrow::Cow;
use std::ops::Range;

/// Rows of activations that were read, and which they are.
type Tile<'a> = (Cow<'a, [f32]>, Range<usize>);

const TILE_ROWS: usize = 128;
const PANEL: usize = 512;
/// With fewer row tiles than this, tasks are single panels. A panel that has to be decoded is
/// decoded for this many row tiles.
const FEW: usize = 8;

/// `acc0`, plus the operand `bias` if there is one.
pub(super) fn default_expr(bias: bool) -> Expr {
    if !bias {
        return Expr::identity();
    }
    let mut e = Expr::default();
    let (a, b) = (e.push(Node::Acc(0)), e.push(Node::Input(2)));
    let sum = e.push(Node::Binary(BinaryFn::Add, a, b));
    e.store(sum);
    e
}

struct Linear {
    /// One for each segment.
    plans: Vec<Plan>,
    segments: Vec<u64>,
    accs: usize,
    /// Whether codes multiply and scales stay outside the sums.
    apart: bool,
    weights: Option<Matrix<'static>>,
}

pub(super) fn prepare(site: &mut Site<'_>) -> Result<Prepared> {
    let OpKind::Linear {
        segments,
        accs,
        expr,
    } = &site.op.kind
    else {
        return Err(crate::internal("a linear was expected"));
    };
    let (types, results) = (site.operand_types(), site.result_types());
    let expr = expr
        .clone()
        .unwrap_or_else(|| default_expr(types.len() > 2));
    let lead = types[0].rank().saturating_sub(1);
    let merged = !segments.is_empty();
    // Segments share the store; otherwise each result has its own.
    let parts = results.chunks(if merged { 1 } else { results.len().max(1) });
    let mut plans = Vec::new();
    for results in parts {
        let spec = Spec {
            expr: &expr,
            operands: &types,
            results,
            shape: &results[0].shape,
            accs: usize::from(*accs),
            reduction: Reduction::None,
            rows: false,
            segmented: merged,
        };
        plans.push(Plan::new(&spec, site.jit)?);
    }
    let mut linear = Linear {
        plans,
        segments: segments.clone(),
        accs: usize::from(*accs),
        apart: codes_multiply((types[0], lead), (types[1], 1)),
        weights: None,
    };
    let mut absorbed = Vec::new();
    if !linear.plans.iter().any(|p| p.reads(1)) {
        linear.weights = absorb(site, 1, linear.apart)?;
        absorbed.extend(linear.weights.is_some().then_some(1));
    }
    Ok(Prepared {
        run: Box::new(move |c| linear.run(c)),
        absorbed,
    })
}

/// The constant operand `i` decoded to f32, if it needs decoding and the budget allows it.
pub(super) fn absorb(
    site: &mut Site<'_>,
    i: usize,
    apart: bool,
) -> Result<Option<Matrix<'static>>> {
    let Some(v) = site.constant(i) else {
        return Ok(None);
    };
    let bytes = 4 * v.codes.numel() as u64;
    if v.ty.elem.plain() == Some(qcc_ir::DType::F32) || bytes > *site.budget {
        return Ok(None);
    }
    let m = Matrix::new(v, 1, apart)?.decoded(site.threads)?;
    *site.budget -= bytes;
    Ok(Some(m))
}

/// A segment of the columns with what is stored there.
struct Part<'a> {
    fused: Fused<'a>,
    at: usize,
    width: usize,
    sinks: Vec<Sink<'a>>,
}

impl Linear {
    fn run(&self, c: &Call<'_>) -> Result<Vec<Bundle>> {
        let x = c.arg(0)?;
        let lead = x.ty.rank().saturating_sub(1);
        let x = Matrix::new(x, lead, self.apart)?;
        let held;
        let w = match &self.weights {
            Some(w) => w,
            None => {
                held = Matrix::new(c.arg(1)?, 1, self.apart)?;
                &held
            }
        };
        let n = w.rows / self.accs;
        let merged = !self.segments.is_empty();
        let results = c
            .results
            .chunks(if merged { 1 } else { c.results.len().max(1) });
        let mut outs = Vec::new();
        for (plan, results) in self.plans.iter().zip(results) {
            outs.push(Outputs::new(plan, results, c.args, c.pool)?);
        }
        let mut parts = Vec::new();
        let mut at = 0;
        for (i, (plan, out)) in self.plans.iter().zip(&mut outs).enumerate() {
            let dims = crate::value::sizes(&c.results[i].1);
            let width = if merged { self.segments[i] as usize } else { n };
            let columns = merged.then_some(Columns { at, full: n });
            parts.push(Part {
                fused: Fused::new(plan, c.args, &dims, columns, c.threads)?,
                at,
                width,
                sinks: out.sinks()?,
            });
            at += width;
        }
        self.tiles(c, &x, w, &parts)?;
        drop(parts);
        let mut all = Vec::with_capacity(c.results.len());
        for out in outs {
            all.extend(out.finish(c.threads)?);
        }
        Ok(all)
    }

    /// Computes all tiles: tasks are rows of tiles, or single panels where there are few rows.
    fn tiles(
        &self,
        c: &Call<'_>,
        x: &Matrix<'_>,
        w: &Matrix<'_>,
        parts: &[Part<'_>],
    ) -> Result<()> {
        let panels: Vec<(usize, Range<usize>)> = parts
            .iter()
            .enumerate()
            .flat_map(|(i, p)| {
                (0..p.width)
                    .step_by(PANEL)
                    .map(move |at| (i, at..p.width.min(at + PANEL)))
            })
            .collect();
        if panels.is_empty() {
            return Ok(());
        }
        let row_tiles = x.rows.div_ceil(TILE_ROWS);
        let (tiles, group) = match (w.is_read_in_place(), row_tiles >= FEW) {
            (true, true) => (1, panels.len()),
            (true, false) => (1, 1),
            (false, _) => (FEW, 1),
        };
        let groups = panels.len().div_ceil(group);
        let whole = groups == 1;
        c.threads.each(row_tiles.div_ceil(tiles) * groups, |task| {
            let (at, g) = (task / groups * tiles * TILE_ROWS, task % groups);
            let rows = at..x.rows.min(at + tiles * TILE_ROWS);
            let panels = &panels[g * group..panels.len().min((g + 1) * group)];
            let mut xs = Vec::with_capacity(tiles);
            for at in rows.clone().step_by(TILE_ROWS) {
                let tile = at..rows.end.min(at + TILE_ROWS);
                xs.push((x.read(tile.clone())?, tile));
            }
            let mut scratch: Vec<_> = parts.iter().map(|p| p.fused.scratch()).collect();
            for (i, cols) in panels {
                let to = (&parts[*i], self.plans[*i].copies() && whole);
                self.panel((x, &xs), w, cols.clone(), to, &mut scratch[*i])?;
            }
            Ok(())
        })
    }

    /// Some rows of the result in one panel of a segment, tile by tile. Sums go straight to where
    /// they stay if the part is one whose sums are its result and no other task has its rows.
    fn panel(
        &self,
        (x, tiles): (&Matrix<'_>, &[Tile<'_>]),
        w: &Matrix<'_>,
        cols: Range<usize>,
        (p, direct): (&Part<'_>, bool),
        scratch: &mut Scratch,
    ) -> Result<()> {
        let n = w.rows / self.accs;
        let of = |half: usize| {
            let first = half * n + p.at;
            first + cols.start..first + cols.end
        };
        let mut weights = Vec::with_capacity(self.accs);
        for half in 0..self.accs {
            weights.push(w.read(of(half))?);
        }
        let mut accs = [Vec::new(), Vec::new()];
        for (xs, tile) in tiles {
            let tile = tile.clone();
            if let (true, [Sink::Floats(out)]) = (direct, &p.sinks[..]) {
                // SAFETY: no other task has these rows.
                let out = unsafe { out.slice(tile.start * p.width..tile.end * p.width) }?;
                let out = &mut out[cols.start..];
                product((x, xs, tile), (w, &weights[0], of(0)), out, p.width)?;
                continue;
            }
            for (half, acc) in accs.iter_mut().enumerate().take(self.accs) {
                acc.resize(tile.len() * cols.len(), 0.0);
                let w = (w, &*weights[half], of(half));
                product((x, xs, tile.clone()), w, acc, cols.len())?;
            }
            store(p, tile, cols.clone(), &accs, scratch)?;
        }
        Ok(())
    }
}

/// Applies the expression of a part to the sums of a tile.
fn store(
    p: &Part<'_>,
    rows: Range<usize>,
    cols: Range<usize>,
    accs: &[Vec<f32>; 2],
    scratch: &mut Scratch,
) -> Result<()> {
    // A panel as wide as the result is one run; a narrower one is a run per row.
    let (runs, len) = match cols.len() == p.width {
        true => (1, rows.len() * cols.len()),
        false => (rows.len(), cols.len()),
    };
    for r in 0..runs {
        let at = (rows.start + r) * p.width + cols.start;
        let a = [&accs[0], &accs[1]].map(|a| a.get(r * len..(r + 1) * len).unwrap_or(&[]));
        p.fused.run(scratch, at, len, a, &p.sinks)?;
    }
    Ok(())
}
