//! The tile: ring of stages, fragments, products, and the way to the epilogue.

use super::epilogue::{Epilogue, Scales};
use super::feed::{Chunk, Feed};
use super::{Meeting, feed_of};
use crate::lower::frame::{Frame, Launched};
use crate::target::GemmTile;
use qcc_ir::diag::Result;
use qcc_ir::graph::{Func, Module, Op};
use qcc_ir::kernel::{KernelBuilder, Launch, Special, Trans, Ty, Value};
use qcc_ir::{DType, DimExpr};

/// Bytes of a row in a stage.
const ROW: u32 = 128;

/// The parts of the kernel that everything refers to.
struct Tile<'a> {
    t: &'a GemmTile,
    how: &'a Meeting,
    accs: u32,
    x: Feed,
    w: Feed,
    ring: Value,
    tid: Value,
    lane: Value,
    warp_m: Value,
    warp_n: Value,
    /// First row and column of the block's output.
    row: Value,
    column: Value,
    /// Rows and columns of the output.
    rows: Value,
    columns: Value,
    depth: Value,
}

/// Accumulators of a thread: fragments by row block, then by column block, accumulators apart.
type Sums = Vec<Value>;

/// Builds the kernel for one tile shape.
pub(super) fn build(
    m: &Module,
    f: &Func,
    op: &Op,
    how: &Meeting,
    t: &GemmTile,
    accs: u32,
) -> Result<Launched> {
    let (xt, wt) = (f.ty(op.operands[0]), f.ty(op.operands[1]));
    let lead = xt.shape[..xt.shape.len() - 1].to_vec();
    let n = wt.shape[0].floor_div(&DimExpr::from(i64::from(accs)));
    let k = wt.shape[1].clone();
    let launch = Launch {
        min_blocks: 1,
        ..Launch::threads(t.threads())
    };
    let mut fr = Frame::open(m, f, op, launch, std::slice::from_ref(&n))?;
    let ring = fr.k.dynamic_shared("ring", DType::U8, 128);
    let tid = fr.k.tid();
    let (warp, lane) = (fr.k.shr_imm(tid, 5), fr.k.and_imm(tid, 31));
    let (bx, by) = (fr.k.special(Special::CtaidX), fr.k.special(Special::CtaidY));
    let out_columns = t.columns / accs;
    let tile = Tile {
        t,
        how,
        accs,
        x: feed_of(&fr, 0, how.x, how.kinds.0),
        w: feed_of(&fr, 1, how.w, how.kinds.1),
        ring,
        tid,
        lane,
        warp_m: fr.k.div_imm(warp, i64::from(t.warps_n)),
        warp_n: fr.k.rem_imm(warp, i64::from(t.warps_n)),
        row: fr.k.mul_imm(bx, i64::from(t.rows)),
        column: fr.k.mul_imm(by, i64::from(out_columns)),
        rows: fr.product(&lead),
        columns: fr.dim(&n),
        depth: fr.dim(&k),
    };
    let sums = tile.multiply_all(&mut fr);
    tile.finish(&mut fr, op, &lead, &n, sums);
    let tiles = |d: &DimExpr, by: u32| {
        (d + &DimExpr::from(i64::from(by) - 1)).floor_div(&DimExpr::from(i64::from(by)))
    };
    let grid = [
        tiles(&DimExpr::product(&lead), t.rows),
        tiles(&n, out_columns),
        DimExpr::from(1),
    ];
    let staging = t.rows * (out_columns + PAD) * 4 * accs;
    let stages = t.stages * (t.rows + t.columns) * ROW;
    fr.close(grid, staging.max(stages))
}

/// Words by which rows of the staging area are longer than the tile.
const PAD: u32 = 4;

impl Tile<'_> {
    fn element_bytes(&self) -> u32 {
        self.how.kinds.0.bits() / 8
    }

    /// Output columns of a warp, for each accumulator.
    fn warp_columns(&self) -> u32 {
        self.t.columns / self.accs / self.t.warps_n
    }

    fn warp_rows(&self) -> u32 {
        self.t.rows / self.t.warps_m
    }

    /// Row blocks of 16 and column blocks of 8 of a warp (all accumulators).
    fn blocks(&self) -> (u32, u32) {
        (self.warp_rows() / 16, self.accs * self.warp_columns() / 8)
    }

    fn zero_sums(&self, k: &mut KernelBuilder, n: u32) -> Sums {
        let zero = match self.how.kinds.2 {
            DType::I32 => k.i32(0),
            _ => k.f32(0.0),
        };
        vec![zero; n as usize]
    }

    fn multiply_all(&self, fr: &mut Frame) -> Sums {
        let per_stage = i64::from(ROW / self.element_bytes());
        let up = fr.k.add_imm(self.depth, per_stage - 1);
        let steps = fr.k.div_imm(up, per_stage);
        let (lo, ahead, one) = (fr.k.u32(0), fr.k.u32(self.t.stages - 1), fr.k.u32(1));
        fr.each(lo, ahead, one, |fr, step| self.fetch(fr, step, step));
        let (bm, bn) = self.blocks();
        let extra = self.zero_point_sums();
        let init = self.zero_sums(&mut fr.k, 4 * (bm * bn + extra.0 + extra.1));
        let stages = i64::from(self.t.stages);
        fr.carry((lo, steps, one), &init, |fr, step, sums| {
            fr.k.cp_async_wait(self.t.stages - 2);
            fr.k.barrier();
            let ahead = fr.k.add_imm(step, stages - 1);
            let slot = fr.k.rem_imm(ahead, stages);
            self.fetch(fr, ahead, slot);
            let slot = fr.k.rem_imm(step, stages);
            self.multiply(&mut fr.k, slot, sums)
        })
    }

    /// Blocks of sums of x's rows (for w's zero points) and of w's rows (for x's).
    fn zero_point_sums(&self) -> (u32, u32) {
        let (bm, bn) = self.blocks();
        let ints = self.how.kinds.2 == DType::I32;
        let needed = |f: &Feed| ints && f.kind == super::Kind::Direct && f.t.zero.is_some();
        let rows = if needed(&self.w) { bm } else { 0 };
        let columns = if needed(&self.x) { bn } else { 0 };
        (rows, columns)
    }

    fn slot_address(&self, k: &mut KernelBuilder, slot: Value) -> Value {
        let bytes = (self.t.rows + self.t.columns) * ROW;
        let offset = k.mul_imm(slot, i64::from(bytes));
        k.ptr_add(self.ring, offset)
    }

    /// Starts the copies of a step's stage into a slot, and closes a copy group.
    fn fetch(&self, fr: &mut Frame, step: Value, slot: Value) {
        let base = self.slot_address(&mut fr.k, slot);
        let depth = fr.k.mul_imm(step, i64::from(ROW / self.element_bytes()));
        self.fetch_rows(fr, &self.x, depth, base, self.t.rows, |tile, fr, r| {
            let row = fr.k.add(tile.row, r);
            let exists = fr.k.lt(row, tile.rows);
            (row, exists)
        });
        let b = fr.k.u32(self.t.rows * ROW);
        let base = fr.k.ptr_add(base, b);
        self.fetch_rows(fr, &self.w, depth, base, self.t.columns, |tile, fr, r| {
            tile.weight_row(fr, r)
        });
        fr.k.cp_async_commit();
    }

    /// The weight's row behind row `r` of the tile, and whether it exists.
    fn weight_row(&self, fr: &mut Frame, r: Value) -> (Value, Value) {
        let per_acc = i64::from(self.t.columns / self.accs);
        let within = fr.k.rem_imm(r, per_acc);
        let column = fr.k.add(self.column, within);
        let exists = fr.k.lt(column, self.columns);
        if self.accs == 1 {
            return (column, exists);
        }
        let acc = fr.k.div_imm(r, per_acc);
        let first = fr.k.mul(acc, self.columns);
        (fr.k.add(first, column), exists)
    }

    fn fetch_rows(
        &self,
        fr: &mut Frame,
        feed: &Feed,
        depth: Value,
        base: Value,
        rows: u32,
        source: impl Fn(&Self, &mut Frame, Value) -> (Value, Value),
    ) {
        let chunk = |fr: &mut Frame, i: Value| {
            let (r, chunk) = (fr.k.shr_imm(i, 3), fr.k.and_imm(i, 7));
            let (row, exists) = source(self, fr, r);
            let within = fr.k.mul_imm(chunk, i64::from(feed.lanes()));
            let at = fr.k.add(depth, within);
            let deep = fr.k.lt(at, self.depth);
            let inside = fr.k.and(exists, deep);
            let zero = fr.k.u32(0);
            let c = Chunk {
                row: fr.k.select(inside, row, zero),
                at: fr.k.select(inside, at, zero),
                inside,
            };
            let to = swizzled(&mut fr.k, r, chunk);
            let dst = fr.k.ptr_add(base, to);
            feed.fetch(fr, &c, dst);
        };
        let threads = self.t.threads();
        if feed.is_async() {
            for pass in 0..(rows * 8).div_ceil(threads) {
                let i = fr.k.add_imm(self.tid, i64::from(pass * threads));
                chunk(fr, i);
            }
            return;
        }
        // Conversions take registers: one chunk after the other.
        let (end, step) = (fr.k.u32(rows * 8), fr.k.u32(threads));
        fr.each(self.tid, end, step, chunk);
    }

    /// Adds the products of one stage.
    fn multiply(&self, k: &mut KernelBuilder, slot: Value, sums: &[Value]) -> Sums {
        let a_base = self.slot_address(k, slot);
        let b = k.u32(self.t.rows * ROW);
        let b_base = k.ptr_add(a_base, b);
        let (bm, bn) = self.blocks();
        let mut sums: Vec<Vec<Value>> = sums.chunks(4).map(<[Value]>::to_vec).collect();
        let (row_sums, _) = self.zero_point_sums();
        for step in 0..4 {
            let a = self.a_fragments(k, a_base, step);
            let b = self.b_fragments(k, b_base, step);
            for i in 0..bm as usize {
                for j in 0..bn as usize {
                    let c = &mut sums[i * bn as usize + j];
                    *c = k.mma(self.how.shape(), self.how.kinds, &a[i], &b[j], c);
                }
            }
            let ones = self.ones(k);
            let first = (bm * bn) as usize;
            for i in 0..row_sums as usize {
                let c = &mut sums[first + i];
                let b = [ones.1, ones.1];
                *c = k.mma(self.how.shape(), self.how.kinds, &a[i], &b, c);
            }
            let first = first + row_sums as usize;
            let count = sums.len() - first;
            for j in 0..count {
                let c = &mut sums[first + j];
                let a = [ones.0; 4];
                *c = k.mma(self.how.shape(), self.how.kinds, &a, &b[j], c);
            }
        }
        sums.concat()
    }

    /// Words of ones in the formats of A and B.
    fn ones(&self, k: &mut KernelBuilder) -> (Value, Value) {
        let (a, b) = (self.word(self.how.kinds.0), self.word(self.how.kinds.1));
        let one = |t: Ty| u64::from(t.is_int());
        (k.const_bits(a, one(a)), k.const_bits(b, one(b)))
    }

    fn word(&self, d: DType) -> Ty {
        Ty::vec(d, (32 / d.bits()) as u8)
    }

    /// A fragments of the warp's row blocks for 32 bytes of K: tiles of rows 0–7 and 8–15 of the
    /// first 16 bytes, then of the second.
    fn a_fragments(&self, k: &mut KernelBuilder, base: Value, step: u32) -> Vec<Vec<Value>> {
        let in_block = k.and_imm(self.lane, 15);
        let first = k.mul_imm(self.warp_m, i64::from(self.warp_rows()));
        let chunk = k.shr_imm(self.lane, 4);
        let chunk = k.add_imm(chunk, i64::from(2 * step));
        (0..self.blocks().0)
            .map(|i| {
                let row = k.add(first, in_block);
                let row = k.add_imm(row, i64::from(16 * i));
                let at = swizzled(k, row, chunk);
                let p = k.ptr_add(base, at);
                k.ldmatrix(p, 4, Trans::No, self.word(self.how.kinds.0))
            })
            .collect()
    }

    /// B fragments of the warp's column blocks, two blocks in one load where there are two.
    fn b_fragments(&self, k: &mut KernelBuilder, base: Value, step: u32) -> Vec<Vec<Value>> {
        let word = self.word(self.how.kinds.1);
        let blocks = self.warp_columns() / 8;
        let in_block = k.and_imm(self.lane, 7);
        let first = k.mul_imm(self.warp_n, i64::from(self.warp_columns()));
        let half = k.shr_imm(self.lane, 3);
        let half = k.and_imm(half, 1);
        let chunk = k.add_imm(half, i64::from(2 * step));
        let second = k.shr_imm(self.lane, 4);
        let second = k.mul_imm(second, 8);
        let mut out = Vec::new();
        for acc in 0..self.accs {
            let mut block = 0;
            while block < blocks {
                let pair = block + 1 < blocks;
                let mut row = k.add(first, in_block);
                if pair {
                    row = k.add(row, second);
                }
                let before = acc * (self.t.columns / self.accs) + 8 * block;
                let row = k.add_imm(row, i64::from(before));
                let at = swizzled(k, row, chunk);
                let p = k.ptr_add(base, at);
                let words = k.ldmatrix(p, if pair { 4 } else { 2 }, Trans::No, word);
                out.extend(words.chunks(2).map(<[Value]>::to_vec));
                block += if pair { 2 } else { 1 };
            }
        }
        out
    }

    /// Spreads the sums over the staging area and runs the epilogue over the tile.
    fn finish(&self, fr: &mut Frame, op: &Op, lead: &[DimExpr], n: &DimExpr, sums: Sums) {
        fr.k.cp_async_wait(0);
        fr.k.barrier();
        let int = self.how.kinds.2 == DType::I32;
        let d = self.how.kinds.2;
        let staging = fr.k.ptr_cast(self.ring, d);
        let columns = self.t.columns / self.accs;
        let stride = columns + PAD;
        let sums = if int {
            self.without_zero_points(fr, sums)
        } else {
            sums
        };
        self.stage(&mut fr.k, staging, stride, &sums);
        fr.k.barrier();
        let epilogue = Epilogue {
            op,
            lead,
            n,
            rows: self.rows,
            columns: self.columns,
            scales: Scales::of(&self.x, &self.w, self.how.kinds.2),
            thread: self.tid,
        };
        let accs = self.accs;
        let plane = self.t.rows * stride;
        epilogue.run(
            fr,
            (self.row, self.column),
            (self.t.rows, columns, self.t.threads()),
            &mut |fr, r, c| {
                let at = fr.k.mul_imm(r, i64::from(stride));
                let at = fr.k.add(at, c);
                (0..accs)
                    .map(|a| {
                        let at = fr.k.add_imm(at, i64::from(a * plane));
                        let p = fr.k.ptr_add(staging, at);
                        let v = fr.k.load(p);
                        if int { fr.k.cvt(v, DType::F32) } else { v }
                    })
                    .collect()
            },
        );
    }

    /// Row (of the tile) of a fragment's upper half, and column of its first element.
    fn place(&self, k: &mut KernelBuilder) -> (Value, Value) {
        let quad = k.shr_imm(self.lane, 2);
        let row = k.mul_imm(self.warp_m, i64::from(self.warp_rows()));
        let row = k.add(row, quad);
        let pair = k.and_imm(self.lane, 3);
        let pair = k.mul_imm(pair, 2);
        let column = k.mul_imm(self.warp_n, i64::from(self.warp_columns()));
        (row, k.add(column, pair))
    }

    /// Stores fragments: registers 0 and 1 are neighbours in row `⌊lane/4⌋`, 2 and 3 lie 8 rows
    /// further down.
    fn stage(&self, k: &mut KernelBuilder, staging: Value, stride: u32, sums: &[Value]) {
        let (row, column) = self.place(k);
        let (bm, bn) = self.blocks();
        let per_acc = bn / self.accs;
        for i in 0..bm {
            for j in 0..bn {
                let c = &sums[(4 * (i * bn + j)) as usize..][..4];
                let plane = (j / per_acc) * self.t.rows * stride;
                for half in 0..2 {
                    let r = k.add_imm(row, i64::from(16 * i + 8 * half));
                    let at = k.mul_imm(r, i64::from(stride));
                    let at = k.add(at, column);
                    let at = k.add_imm(at, i64::from(plane + 8 * (j % per_acc)));
                    let p = k.ptr_add(staging, at);
                    let pair = k.pack(&c[2 * half as usize..][..2]);
                    k.store(p, pair);
                }
            }
        }
    }

    /// `Σ (x − zx)(w − zw) = Σ x·w − zx·Σ w − zw·Σ x + K·zx·zw`, exactly in i32.
    fn without_zero_points(&self, fr: &mut Frame, sums: Sums) -> Sums {
        let (row_sums, column_sums) = self.zero_point_sums();
        let (bm, bn) = self.blocks();
        let count = 4 * (bm * bn) as usize;
        if row_sums + column_sums == 0 {
            return sums;
        }
        let (row, column) = self.place(&mut fr.k);
        let depth = fr.k.cvt(self.depth, DType::I32);
        let mut out = Vec::with_capacity(count);
        let per_acc = bn / self.accs;
        for at in 0..count {
            let (block, register) = ((at / 4) as u32, (at % 4) as u32);
            let (i, j) = (block / bn, block % bn);
            let mut v = sums[at];
            let r = fr.k.add_imm(row, i64::from(16 * i + 8 * (register / 2)));
            let r = fr.k.add(self.row, r);
            let c =
                fr.k.add_imm(column, i64::from(8 * (j % per_acc) + register % 2));
            let c = fr.k.add(self.column, c);
            let zx = (column_sums > 0).then(|| zero_of(fr, &self.x, r, self.rows));
            let zw = (row_sums > 0).then(|| {
                let first = fr.k.mul_imm(self.columns, i64::from(j / per_acc));
                let exists = fr.k.lt(c, self.columns);
                let none = fr.k.u32(0);
                let c = fr.k.select(exists, c, none);
                let n = fr.k.add(first, c);
                let end = fr.k.mul_imm(self.columns, i64::from(self.accs));
                zero_of(fr, &self.w, n, end)
            });
            if let Some(zw) = zw {
                let s = sums[count + 4 * i as usize + register as usize];
                let t = fr.k.mul(zw, s);
                v = fr.k.sub(v, t);
            }
            if let Some(zx) = zx {
                let s = sums[count + 4 * (row_sums + j) as usize + register as usize];
                let t = fr.k.mul(zx, s);
                v = fr.k.sub(v, t);
            }
            if let (Some(zx), Some(zw)) = (zx, zw) {
                let z = fr.k.mul(zx, zw);
                v = fr.k.fma(z, depth, v);
            }
            out.push(v);
        }
        out
    }
}

/// The zero point of an operand's row, as i32.
fn zero_of(fr: &mut Frame, feed: &Feed, row: Value, rows: Value) -> Value {
    let (none, exists) = (fr.k.u32(0), fr.k.lt(row, rows));
    let row = fr.k.select(exists, row, none);
    let d = feed
        .t
        .ty
        .elem
        .quant()
        .and_then(|q| q.zero)
        .unwrap_or(DType::I32);
    let at = super::epilogue::row_block(fr, &feed.t, row);
    match feed.t.zero {
        Some(z) => crate::lower::index::load_int_code(&mut fr.k, z, d, at),
        None => fr.k.i32(0),
    }
}

/// Byte offset of a row's chunk of 16 bytes.
fn swizzled(k: &mut KernelBuilder, row: Value, chunk: Value) -> Value {
    let turn = k.and_imm(row, 7);
    let chunk = k.xor(chunk, turn);
    let row = k.mul_imm(row, i64::from(ROW));
    let at = k.mul_imm(chunk, 16);
    k.add(row, at)
}
