//! Attention with an online softmax: scores never leave the block.
//!
//! A block takes 32 queries of one head and passes over the keys in tiles; eight threads share a
//! query. All arithmetic is in f32. With `m` the running maximum and `l` the running sum,
//!
//! ```text
//! m' = max(m, max s),  a = e^(m − m'),  p = e^(s − m'),  l' = a·l + Σ p,  o' = a·o + p·V
//! ```
//!
//! and `o/l` at the end; a query without any visible key gives zeros. Query `s` of S sees key `t`
//! of T under `causal` when `t + S ≤ s + T`. Key heads serve `heads / kv_heads` query heads each.
//! Any lengths and head sizes: values are taken [`MOST_VALUES`] columns at a time, in blocks of
//! their own, and the tile of keys shrinks until it fits into shared memory.

use super::map::element;
use super::reduce::{exp_of_difference, finite_top, share};
use super::unsupported;
use crate::lower::frame::{Frame, Launched, Tensor};
use crate::lower::index::{Position, load_operand};
use crate::target::Target;
use qcc_ir::diag::Result;
use qcc_ir::expr::Expr;
use qcc_ir::graph::{AttentionAttrs, Func, Module, Op, TensorType};
use qcc_ir::kernel::{Cmp, KernelBuilder, Launch, ShflMode, Special, Value};
use qcc_ir::{DType, DimExpr};

const THREADS: u32 = 256;
/// Queries of a block.
const QUERIES: u32 = 32;
/// Threads of a query.
const SHARE: u32 = THREADS / QUERIES;
/// Columns of the values that a block takes at most.
pub const MOST_VALUES: u32 = 256;

/// Sizes that are known when the kernel is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Columns of a query's head.
    d: u32,
    /// Columns of a value's head.
    dv: u32,
    /// Columns of a block's values, a multiple of [`SHARE`].
    columns: u32,
    /// Keys of a tile.
    keys: u32,
}

impl Shape {
    /// The shape for these operands on a target.
    ///
    /// # Errors
    /// When the size of a head is not known, or one query and key tile exceed shared memory.
    pub fn of(
        q: &TensorType,
        v: &TensorType,
        a: &AttentionAttrs,
        target: &Target,
    ) -> Result<Shape> {
        let head = |t: &TensorType, n: u64| {
            let c = t.shape.last().and_then(DimExpr::as_const)?;
            u32::try_from(c.checked_div(i64::try_from(n).ok()?)?).ok()
        };
        let sizes = head(q, a.heads).zip(head(v, a.kv_heads));
        let (d, dv) = sizes.ok_or_else(|| unsupported("attention needs heads of a known size"))?;
        let columns = dv.next_multiple_of(SHARE).min(MOST_VALUES);
        for keys in [32, 16, 8] {
            let s = Shape {
                d,
                dv,
                columns,
                keys,
            };
            if s.bytes().is_some_and(|b| b <= target.shared_bytes) {
                return Ok(s);
            }
        }
        Err(unsupported(format!(
            "attention heads of {d} columns exceed the {} KiB of shared memory of {}",
            target.shared_bytes / 1024,
            target.name
        )))
    }

    fn row(&self) -> Option<u32> {
        // One more than the columns keeps neighbouring rows on different banks.
        self.d.checked_add(1)
    }

    fn bytes(&self) -> Option<u32> {
        let tiles = (QUERIES + self.keys).checked_mul(self.row()?)?;
        let work = tiles
            .checked_add(self.keys * self.columns)?
            .checked_add(QUERIES * (self.keys + 1))?;
        work.max(QUERIES * (self.columns + 1)).checked_mul(4)
    }
}

/// Leaves the registers to the kernel: otherwise ptxas spills a few for a fuller machine.
fn launch() -> Launch {
    Launch {
        min_blocks: 1,
        ..Launch::threads(THREADS)
    }
}

/// Builds the kernel.
///
/// # Errors
/// As [`Shape::of`], and when a result's scheme cannot be stored.
pub fn build(
    m: &Module,
    f: &Func,
    op: &Op,
    attrs: &AttentionAttrs,
    target: &Target,
) -> Result<Launched> {
    let [q, k, v] = [0, 1, 2].map(|i| f.ty(op.operands[i]));
    let shape = Shape::of(q, v, attrs, target)?;
    let bytes = shape.bytes().unwrap_or(u32::MAX);
    let (queries, keys, batch) = (q.shape[1].clone(), k.shape[1].clone(), q.shape[0].clone());
    let mut fr = Frame::open(m, f, op, launch(), &[])?;
    let head = Head::open(&mut fr, attrs, shape, [&batch, &queries, &keys]);
    head.load_queries(&mut fr);
    let state = head.all_keys(&mut fr);
    let e = op.kind.expr().cloned().unwrap_or_else(Expr::identity);
    head.finish(&mut fr, &e, &state);
    let up = |d: &DimExpr, n: u32| {
        (d + &DimExpr::from(i64::from(n) - 1)).floor_div(&DimExpr::from(i64::from(n)))
    };
    let slices = i64::from(shape.dv.div_ceil(shape.columns));
    let heads = DimExpr::extent(attrs.heads) * DimExpr::from(slices);
    // Batches are along x, the axis with the most blocks.
    let blocks = up(&queries, QUERIES) * batch;
    fr.close([blocks, heads, DimExpr::from(1)], bytes)
}

/// One block: a head, some queries, and where everything lies in shared memory.
struct Head<'a> {
    attrs: &'a AttentionAttrs,
    shape: Shape,
    dims: [DimExpr; 3],
    batch: Value,
    head: Value,
    /// First column of the values.
    slice: Value,
    /// First query, number of queries, number of keys.
    first: Value,
    queries: Value,
    keys: Value,
    tid: Value,
    /// The thread's query within the tile, and its number among the query's threads.
    row: Value,
    part: Value,
    q: Value,
    k: Value,
    v: Value,
    p: Value,
}

impl<'a> Head<'a> {
    fn open(
        fr: &mut Frame,
        attrs: &'a AttentionAttrs,
        shape: Shape,
        [b, s, t]: [&DimExpr; 3],
    ) -> Head<'a> {
        let tiles = fr.k.dynamic_shared("tiles", DType::F32, 16);
        let (x, y) = (fr.k.special(Special::CtaidX), fr.k.special(Special::CtaidY));
        let queries = fr.dim(s);
        let up = fr.k.add_imm(queries, i64::from(QUERIES) - 1);
        let tiles_of_queries = fr.k.div_imm(up, i64::from(QUERIES));
        let block = fr.k.rem(x, tiles_of_queries);
        let heads = i64::try_from(attrs.heads).unwrap_or(i64::MAX);
        let slice = fr.k.div_imm(y, heads);
        let row = shape.row().unwrap_or(0);
        let mut next = 0;
        let mut area = |fr: &mut Frame, words: u32| {
            let at = fr.k.u32(next);
            next += words;
            fr.k.ptr_add(tiles, at)
        };
        let tid = fr.k.tid();
        Head {
            attrs,
            shape,
            dims: [b.clone(), s.clone(), t.clone()],
            q: area(fr, QUERIES * row),
            k: area(fr, shape.keys * row),
            v: area(fr, shape.keys * shape.columns),
            p: area(fr, QUERIES * (shape.keys + 1)),
            batch: fr.k.div(x, tiles_of_queries),
            head: fr.k.rem_imm(y, heads),
            slice: fr.k.mul_imm(slice, i64::from(shape.columns)),
            first: fr.k.mul_imm(block, i64::from(QUERIES)),
            queries,
            keys: fr.dim(t),
            tid,
            row: fr.k.div_imm(tid, i64::from(SHARE)),
            part: fr.k.rem_imm(tid, i64::from(SHARE)),
        }
    }

    /// Fills `rows × columns` words from rows `first…` of an operand, columns `begin…` of those
    /// that `limit` ends; what does not exist is 0.
    #[allow(clippy::too_many_arguments)]
    fn load(
        &self,
        fr: &mut Frame,
        t: &Tensor,
        to: Value,
        (rows, columns, stride): (u32, u32, u32),
        (first, end): (Value, Value),
        (base, begin, limit): (Value, Value, u32),
    ) {
        let (words, step) = (fr.k.u32(rows * columns), fr.k.u32(THREADS));
        fr.each(self.tid, words, step, |fr, i| {
            let r = fr.k.div_imm(i, i64::from(columns));
            let c = fr.k.rem_imm(i, i64::from(columns));
            let (at_row, at) = (fr.k.add(first, r), fr.k.add(begin, c));
            let limit = fr.k.u32(limit);
            let (exists, narrow) = (fr.k.lt(at_row, end), fr.k.lt(at, limit));
            let inside = fr.k.and(exists, narrow);
            let column = fr.k.add(base, at);
            let p = Position {
                shape: t.ty.shape.clone(),
                at: vec![self.batch, at_row, column],
            };
            let none = fr.k.f32(0.0);
            let v = fr.choose(inside, &[none], |fr| vec![load_operand(fr, t, &p)])[0];
            let at = fr.k.mul_imm(r, i64::from(stride));
            let at = fr.k.add(at, c);
            let dst = fr.k.ptr_add(to, at);
            fr.k.store(dst, v);
        });
    }

    fn load_queries(&self, fr: &mut Frame) {
        let t = fr.operands[0].clone();
        let d = self.shape.d;
        let base = fr.k.mul_imm(self.head, i64::from(d));
        let zero = fr.k.u32(0);
        self.load(
            fr,
            &t,
            self.q,
            (QUERIES, d, d + 1),
            (self.first, self.queries),
            (base, zero, d),
        );
    }

    /// The key head of this query head.
    fn group(&self, fr: &mut Frame) -> Value {
        let per_group = self.attrs.heads / self.attrs.kv_heads.max(1);
        fr.k.div_imm(self.head, i64::try_from(per_group).unwrap_or(i64::MAX))
    }

    fn load_keys(&self, fr: &mut Frame, first: Value) {
        let (k, v) = (fr.operands[1].clone(), fr.operands[2].clone());
        let Shape {
            d,
            dv,
            columns,
            keys,
        } = self.shape;
        let group = self.group(fr);
        let base = fr.k.mul_imm(group, i64::from(d));
        let zero = fr.k.u32(0);
        let rows = (first, self.keys);
        self.load(fr, &k, self.k, (keys, d, d + 1), rows, (base, zero, d));
        let base = fr.k.mul_imm(group, i64::from(dv));
        self.load(
            fr,
            &v,
            self.v,
            (keys, columns, columns),
            rows,
            (base, self.slice, dv),
        );
    }

    /// The end of the keys that any query of the block sees.
    fn last_key(&self, fr: &mut Frame) -> Value {
        if !self.attrs.causal {
            return self.keys;
        }
        let end = fr.k.add_imm(self.first, i64::from(QUERIES));
        let end = fr.k.min(end, self.queries);
        let reach = fr.k.add(end, self.keys);
        let (zero, some) = (fr.k.u32(0), fr.k.lt(self.queries, reach));
        let seen = fr.k.sub(reach, self.queries);
        let seen = fr.k.select(some, seen, zero);
        fr.k.min(seen, self.keys)
    }

    /// Passes over all tiles; returns the maximum's stand-in, the sum, and the outputs.
    fn all_keys(&self, fr: &mut Frame) -> Vec<Value> {
        let outputs = (self.shape.columns / SHARE) as usize;
        let (low, zero) = (fr.k.f32(f32::NEG_INFINITY), fr.k.f32(0.0));
        let mut init = vec![low, zero];
        init.extend(vec![zero; outputs]);
        let (lo, end) = (fr.k.u32(0), self.last_key(fr));
        let step = fr.k.u32(self.shape.keys);
        fr.carry((lo, end, step), &init, |fr, first, c| {
            fr.k.barrier();
            self.load_keys(fr, first);
            fr.k.barrier();
            self.tile(fr, first, c)
        })
    }

    fn tile(&self, fr: &mut Frame, first: Value, c: &[Value]) -> Vec<Value> {
        let dots = self.dots(fr);
        let scores: Vec<Value> = dots
            .into_iter()
            .enumerate()
            .map(|(i, dot)| {
                let t = fr.k.add_imm(self.part, i64::from(SHARE) * i as i64);
                let t = fr.k.add(first, t);
                self.score(fr, dot, t)
            })
            .collect();
        let mut top = c[0];
        for s in &scores {
            top = fr.k.max_nan(top, *s);
        }
        let top = across(&mut fr.k, top, |k, a, b| k.max_nan(a, b));
        let safe = finite_top(&mut fr.k, top);
        let keep = exp_of_difference(&mut fr.k, c[0], safe);
        let mut sum = fr.k.f32(0.0);
        for (i, s) in scores.into_iter().enumerate() {
            let p = exp_of_difference(&mut fr.k, s, safe);
            sum = fr.k.add(sum, p);
            let t = fr.k.add_imm(self.part, i64::from(SHARE) * i as i64);
            let at = self.probability(&mut fr.k, t);
            fr.k.store(at, p);
        }
        let sum = across(&mut fr.k, sum, |k, a, b| k.add(a, b));
        let sum = fr.k.fma(c[1], keep, sum);
        // A query's threads are of one warp.
        fr.k.warp_sync();
        let outputs = self.outputs(fr, keep, &c[2..]);
        [top, sum].into_iter().chain(outputs).collect()
    }

    fn probability(&self, k: &mut KernelBuilder, t: Value) -> Value {
        let at = k.mul_imm(self.row, i64::from(self.shape.keys + 1));
        let at = k.add(at, t);
        k.ptr_add(self.p, at)
    }

    /// Products of the thread's query with every [`SHARE`]th key of the tile.
    fn dots(&self, fr: &mut Frame) -> Vec<Value> {
        let count = self.shape.keys / SHARE;
        let zero = fr.k.f32(0.0);
        let stride = i64::from(self.shape.d + 1);
        let q = fr.k.mul_imm(self.row, stride);
        let q = fr.k.ptr_add(self.q, q);
        let key = fr.k.mul_imm(self.part, stride);
        let key = fr.k.ptr_add(self.k, key);
        let (lo, end, one) = (fr.k.u32(0), fr.k.u32(self.shape.d), fr.k.u32(1));
        fr.carry(
            (lo, end, one),
            &vec![zero; count as usize],
            |fr, c, sums| {
                let qc = fr.k.ptr_add(q, c);
                let qc = fr.k.load(qc);
                sums.iter()
                    .enumerate()
                    .map(|(i, s)| {
                        let at = fr.k.add_imm(c, i64::from(SHARE) * stride * i as i64);
                        let kc = fr.k.ptr_add(key, at);
                        let kc = fr.k.load(kc);
                        fr.k.fma(qc, kc, *s)
                    })
                    .collect()
            },
        )
    }

    /// `dot·scale` with the mask, −∞ where the key is not seen.
    fn score(&self, fr: &mut Frame, dot: Value, t: Value) -> Value {
        let scale = fr.k.f32(f32::from_bits(self.attrs.scale));
        let s = fr.k.add(self.first, self.row);
        let (is_query, is_key) = (fr.k.lt(s, self.queries), fr.k.lt(t, self.keys));
        let mut seen = is_key;
        if self.attrs.causal {
            let (a, b) = (fr.k.add(t, self.queries), fr.k.add(s, self.keys));
            let before = fr.k.cmp(Cmp::Le, a, b);
            seen = fr.k.and(seen, before);
        }
        let mut score = fr.k.mul(dot, scale);
        if self.attrs.mask {
            let mask = fr.operands[3].clone();
            let inside = fr.k.and(is_query, is_key);
            let [b, q, k] = self.dims.clone();
            let p = Position {
                shape: vec![b, DimExpr::extent(self.attrs.heads), q, k],
                at: vec![self.batch, self.head, s, t],
            };
            let is_bool = mask.ty.elem.storage() == DType::Bool;
            let other = if is_bool {
                fr.k.bool(false)
            } else {
                fr.k.f32(0.0)
            };
            let v = fr.choose(inside, &[other], |fr| vec![load_operand(fr, &mask, &p)])[0];
            if is_bool {
                seen = fr.k.and(seen, v);
            } else {
                score = fr.k.add(score, v);
            }
        }
        let low = fr.k.f32(f32::NEG_INFINITY);
        fr.k.select(seen, score, low)
    }

    /// `keep·o + Σ p·V` for every [`SHARE`]th column.
    fn outputs(&self, fr: &mut Frame, keep: Value, before: &[Value]) -> Vec<Value> {
        let init: Vec<Value> = before.iter().map(|o| fr.k.mul(*o, keep)).collect();
        let (lo, end, one) = (fr.k.u32(0), fr.k.u32(self.shape.keys), fr.k.u32(1));
        let v = fr.k.ptr_add(self.v, self.part);
        fr.carry((lo, end, one), &init, |fr, t, sums| {
            let p = self.probability(&mut fr.k, t);
            let p = fr.k.load(p);
            let row = fr.k.mul_imm(t, i64::from(self.shape.columns));
            let row = fr.k.ptr_add(v, row);
            sums.iter()
                .enumerate()
                .map(|(i, s)| {
                    let at = fr.k.u32(SHARE * i as u32);
                    let x = fr.k.ptr_add(row, at);
                    let x = fr.k.load(x);
                    fr.k.fma(p, x, *s)
                })
                .collect()
        })
    }

    /// Divides by the sums and stores through shared memory, which the tiles no longer need.
    fn finish(&self, fr: &mut Frame, e: &Expr, state: &[Value]) {
        let stride = self.shape.columns + 1;
        fr.k.barrier();
        for (i, o) in state[2..].iter().enumerate() {
            let v = share(&mut fr.k, *o, state[1]);
            let at = fr.k.mul_imm(self.row, i64::from(stride));
            let at = fr.k.add(at, self.part);
            let at = fr.k.add_imm(at, i64::from(SHARE) * i as i64);
            let p = fr.k.ptr_add(self.q, at);
            fr.k.store(p, v);
        }
        fr.k.barrier();
        let columns = self.shape.columns;
        let (end, step) = (fr.k.u32(QUERIES * columns), fr.k.u32(THREADS));
        fr.each(self.tid, end, step, |fr, i| {
            let r = fr.k.div_imm(i, i64::from(columns));
            let c = fr.k.rem_imm(i, i64::from(columns));
            let (s, at) = (fr.k.add(self.first, r), fr.k.add(self.slice, c));
            let dv = fr.k.u32(self.shape.dv);
            let (exists, narrow) = (fr.k.lt(s, self.queries), fr.k.lt(at, dv));
            let inside = fr.k.and(exists, narrow);
            fr.when(inside, |fr| {
                let from = fr.k.mul_imm(r, i64::from(stride));
                let from = fr.k.add(from, c);
                let from = fr.k.ptr_add(self.q, from);
                let acc = fr.k.load(from);
                let column = fr.k.mul_imm(self.head, i64::from(self.shape.dv));
                let column = fr.k.add(column, at);
                let [b, q, _] = self.dims.clone();
                let width =
                    DimExpr::extent(self.attrs.heads) * DimExpr::from(i64::from(self.shape.dv));
                let p = Position {
                    shape: vec![b, q, width],
                    at: vec![self.batch, s, column],
                };
                element(fr, e, &[acc], &p);
            });
        });
    }
}

/// Combines over the threads of a query.
fn across(
    k: &mut KernelBuilder,
    v: Value,
    f: impl Fn(&mut KernelBuilder, Value, Value) -> Value,
) -> Value {
    let mut v = v;
    let mut mask = SHARE / 2;
    while mask > 0 {
        let lane = k.u32(mask);
        let other = k.shuffle(ShflMode::Bfly, v, lane);
        v = f(k, v, other);
        mask /= 2;
    }
    v
}
