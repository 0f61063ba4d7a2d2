//! Linear layers of FP8 codes on Hopper's tensor cores (sm_90a), any expression.
//!
//! `acc[m, n] = Σ_k x[m, k] · w[n, k]` runs through the [ring](super::ring); the consumers then lay
//! the sums of a tile into shared memory beside it and run the epilogue over the tile, while the
//! producer fills the ring for the next one.
//!
//! It serves e4m3 activations with one scale or one for each row, and e4m3 weights with one scale
//! or one for each row, where rows of K bytes are multiples of 16 and there are at least
//! [`LEAST_ROWS`] rows; the tiles of `mma.sync` take the others, and devices without the
//! instructions of sm_90a.

use super::ring::{BK, BM, Ring, Shape, Slot, THREADS, warpgroup};
use super::{Candidate, Epilogue, Scales, per_row};
use crate::lower::frame::{Frame, Launched, internal};
use crate::lower::places::{Part, Place, place};
use crate::target::Target;
use qcc_ir::diag::Result;
use qcc_ir::graph::{Func, Module, Op, TensorType, ValueId};
use qcc_ir::kernel::{KernelBuilder, Launch, RegChange, Value};
use qcc_ir::plan::{Arg, Guard};
use qcc_ir::{DType, DimExpr};

/// The architecture whose instructions the kernel needs.
const ARCH: &str = "sm_90a";
/// With fewer rows most of a tile would be empty.
pub(super) const LEAST_ROWS: u64 = 64;
/// Sizes of the ring: 128 KiB, which leaves room for a tile of sums.
const RING: (u32, u32) = (128, 4);
/// Threads of the consumers, and the named barrier at which they meet.
const CONSUMERS: (u32, u32) = (256, 1);
/// Registers of a thread of the producer and of a consumer.
const REGISTERS: (u32, u32) = (40, 232);
/// Words by which rows of the sums are longer than the tile.
const PAD: u32 = 4;

/// Whether the kernel takes operands of these types.
fn serves(x: &TensorType, w: &TensorType, target: &Target) -> bool {
    let codes = |t: &TensorType| {
        let plain = |q: &qcc_ir::graph::QuantType| q.storage == DType::E4M3 && q.zero.is_none();
        t.elem.quant().is_some_and(plain) && per_row(t)
    };
    let depth = w.shape[1].as_const();
    target.ptx.contains(&ARCH)
        && codes(x)
        && codes(w)
        && depth.is_some_and(|k| k > 0 && k % 16 == 0)
        && w.shape[0].as_const().is_some()
}

/// The way to run a linear layer on the tensor cores of sm_90a, if it can be.
///
/// # Errors
/// When an operand has no place.
pub(super) fn candidate(
    m: &Module,
    f: &Func,
    op: &Op,
    accs: u32,
    target: &Target,
) -> Result<Option<Candidate>> {
    let (x, w) = (f.ty(op.operands[0]), f.ty(op.operands[1]));
    let rows = DimExpr::product(&x.shape[..x.rank() - 1]);
    let few = rows.as_const().is_some_and(|r| r < LEAST_ROWS as i64);
    if few || !serves(x, w, target) {
        return Ok(None);
    }
    let guard = Guard {
        expr: rows.to_string(),
        min: LEAST_ROWS,
        max: u64::MAX,
    };
    let unknown = rows.as_const().is_none();
    Ok(Some(Candidate {
        requires: Some(ARCH),
        when: unknown.then_some(guard).into_iter().collect(),
        launches: vec![build(m, f, op, accs, target)?],
        ..Candidate::default()
    }))
}

fn build(m: &Module, f: &Func, op: &Op, accs: u32, target: &Target) -> Result<Launched> {
    let (xt, wt) = (f.ty(op.operands[0]), f.ty(op.operands[1]));
    let lead = xt.shape[..xt.rank() - 1].to_vec();
    let n = wt.shape[0].floor_div(&DimExpr::from(i64::from(accs)));
    let shape = Shape {
        bn: RING.0,
        stages: RING.1,
        accs,
    };
    let launch = Launch {
        min_blocks: 1,
        ..Launch::threads(THREADS)
    };
    let mut fr = Frame::open(m, f, op, launch, std::slice::from_ref(&n))?;
    // Parameters come before operations.
    let ring = ring(m, f, op, &mut fr, shape)?;
    let tid = fr.k.tid();
    let tile = Tile {
        ring,
        rows: fr.product(&lead),
        scales: Scales::both(&fr),
        tid,
        op,
        lead: &lead,
        n: &n,
    };
    tile.ring.start(&mut fr.k, tid);
    let group = warpgroup(&mut fr.k, tid);
    let zero = fr.k.u32(0);
    let producer = fr.k.eq(group, zero);
    fr.split(
        producer,
        |fr| {
            fr.k.set_max_regs(RegChange::Dec, REGISTERS.0);
            tile.ring.produce(&mut fr.k, tid);
        },
        |fr| {
            fr.k.set_max_regs(RegChange::Inc, REGISTERS.1);
            let consumer = fr.k.add_imm(group, -1);
            tile.consume(fr, consumer);
        },
    );
    let rows = DimExpr::product(&lead);
    let tiles = up(&rows, BM) * up(&n, shape.columns());
    let one = DimExpr::from(1);
    let blocks = tiles.min_with(&DimExpr::from(i64::from(target.device().sms)));
    let sums = BM * (shape.columns() + PAD) * 4 * accs;
    fr.close([blocks, one.clone(), one], shape.bytes() + sums)
}

fn up(d: &DimExpr, by: u32) -> DimExpr {
    (d + &DimExpr::from(i64::from(by) - 1)).floor_div(&DimExpr::from(i64::from(by)))
}

/// Declares the tensor maps and the memory of the ring.
fn ring(m: &Module, f: &Func, op: &Op, fr: &mut Frame, shape: Shape) -> Result<Ring> {
    let (xt, wt) = (f.ty(op.operands[0]), f.ty(op.operands[1]));
    let rows = DimExpr::product(&xt.shape[..xt.rank() - 1]);
    let n = wt.shape[0].floor_div(&DimExpr::from(i64::from(shape.accs)));
    let depth = &wt.shape[1];
    let a_map = map(m, f, fr, op.operands[0], [depth, &rows], BM)?;
    let b_map = map(
        m,
        f,
        fr,
        op.operands[1],
        [depth, &wt.shape[0]],
        shape.columns(),
    )?;
    let n = fr.dim(&n);
    let k = &mut fr.k;
    let memory = k.dynamic_shared("ring", DType::U8, 1024);
    let full = k.shared("full", DType::U64, shape.stages, 8);
    let empty = k.shared("empty", DType::U64, shape.stages, 8);
    let rows = fr.product(&xt.shape[..xt.rank() - 1]);
    let depth = fr.dim(depth);
    let k = &mut fr.k;
    let tiles = |k: &mut KernelBuilder, v: Value, by: u32| {
        let up = k.add_imm(v, i64::from(by) - 1);
        k.div_imm(up, i64::from(by))
    };
    let tiles_m = tiles(k, rows, BM);
    let tiles_n = tiles(k, n, shape.columns());
    Ok(Ring {
        shape,
        a_map,
        b_map,
        n,
        k_blocks: tiles(k, depth, BK),
        tiles_n,
        tiles: k.mul(tiles_m, tiles_n),
        ring: memory,
        full,
        empty,
    })
}

/// A tensor map over rows of codes: boxes of `rows` rows, as wide as the swizzle.
fn map(
    m: &Module,
    f: &Func,
    fr: &mut Frame,
    v: ValueId,
    dims: [&DimExpr; 2],
    rows: u32,
) -> Result<Value> {
    let Some(Place::Memory(of)) = place(m, f, v, Part::Codes)? else {
        return Err(internal("the codes of a product are no memory"));
    };
    Ok(fr.tensor_map(Arg::TensorMap {
        of: Box::new(of),
        dtype: DType::E4M3,
        dims: dims.map(DimExpr::to_string).to_vec(),
        strides: vec![dims[0].to_string()],
        tile: vec![BK, rows],
        swizzle: 128,
    }))
}

/// What the consumers know.
struct Tile<'a> {
    ring: Ring,
    rows: Value,
    scales: Scales,
    tid: Value,
    op: &'a Op,
    lead: &'a [DimExpr],
    n: &'a DimExpr,
}

impl Tile<'_> {
    fn consume(&self, fr: &mut Frame, consumer: Value) {
        let lane = fr.k.and_imm(self.tid, 31);
        let zero = fr.k.u32(0);
        let leader = fr.k.eq(lane, zero);
        let thread = fr.k.add_imm(self.tid, -i64::from(THREADS - CONSUMERS.0));
        let tiles = self.ring.tiles_of_block(&mut fr.k);
        let words = usize::from(self.ring.shape.words());
        fr.carry(tiles, &[zero, zero], |fr, tile, slot| {
            let (row, column) = self.ring.place(&mut fr.k, tile);
            let no_sum = fr.k.f32(0.0);
            let mut carried = slot.to_vec();
            carried.extend(vec![no_sum; words]);
            let (zero, one) = (fr.k.u32(0), fr.k.u32(1));
            let steps = (zero, self.ring.k_blocks, one);
            let done = fr.carry(steps, &carried, |fr, _, carried| {
                let slot = Slot {
                    stage: carried[0],
                    parity: carried[1],
                };
                let k = &mut fr.k;
                let sums = self.ring.multiply(k, slot, consumer, leader, &carried[2..]);
                let next = self.ring.next(k, slot);
                [next.stage, next.parity].into_iter().chain(sums).collect()
            });
            self.finish(fr, consumer, thread, (row, column), &done[2..]);
            done[..2].to_vec()
        });
    }

    /// Lays the sums of a tile into shared memory and runs the epilogue over it.
    fn finish(
        &self,
        fr: &mut Frame,
        consumer: Value,
        thread: Value,
        (row, column): (Value, Value),
        sums: &[Value],
    ) {
        let shape = self.ring.shape;
        let (columns, accs) = (shape.columns(), shape.accs);
        let stride = columns + PAD;
        let behind = fr.k.u32(shape.bytes());
        let area = fr.k.ptr_add(self.ring.ring, behind);
        let area = fr.k.ptr_cast(area, DType::F32);
        // Those who still read the sums of the tile before this one.
        fr.k.barrier_named(CONSUMERS.1, CONSUMERS.0);
        self.lay(&mut fr.k, consumer, area, sums);
        fr.k.barrier_named(CONSUMERS.1, CONSUMERS.0);
        let epilogue = Epilogue {
            op: self.op,
            lead: self.lead,
            n: self.n,
            rows: self.rows,
            columns: self.ring.n,
            scales: self.scales.clone(),
            thread,
        };
        let plane = BM * stride;
        let sizes = (BM, columns, CONSUMERS.0);
        epilogue.run(fr, (row, column), sizes, &mut |fr, r, c| {
            let at = fr.k.mul_imm(r, i64::from(stride));
            let at = fr.k.add(at, c);
            (0..accs)
                .map(|a| {
                    let at = fr.k.add_imm(at, i64::from(a * plane));
                    let p = fr.k.ptr_add(area, at);
                    fr.k.load(p)
                })
                .collect()
        });
    }

    /// Thread `t` of a warpgroup holds, of every 8 columns, columns `2(t mod 4)` and one more in
    /// rows `16 ⌊t/32⌋ + ⌊(t mod 32)/4⌋` and 8 further down.
    fn lay(&self, k: &mut KernelBuilder, consumer: Value, area: Value, sums: &[Value]) {
        let shape = self.ring.shape;
        let stride = shape.columns() + PAD;
        let in_group = k.and_imm(self.tid, 127);
        let warp = k.shr_imm(in_group, 5);
        let lane = k.and_imm(self.tid, 31);
        let group_row = k.mul_imm(consumer, 64);
        let warp_row = k.mul_imm(warp, 16);
        let row = k.add(group_row, warp_row);
        let quad = k.shr_imm(lane, 2);
        let row = k.add(row, quad);
        let at = k.mul_imm(row, i64::from(stride));
        let in_quad = k.and_imm(lane, 3);
        let pair = k.mul_imm(in_quad, 2);
        let at = k.add(at, pair);
        for block in 0..shape.bn / 8 {
            let (acc, within) = (8 * block / shape.columns(), 8 * block % shape.columns());
            for half in 0..2 {
                let first = (4 * block + 2 * half) as usize;
                let offset = acc * BM * stride + within + 8 * half * stride;
                let at = k.add_imm(at, i64::from(offset));
                let p = k.ptr_add(area, at);
                let both = k.pack(&sums[first..first + 2]);
                k.store(p, both);
            }
        }
    }
}
