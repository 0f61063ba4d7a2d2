//! FP8 matrix product for sm_90a: one producer warpgroup feeds two consumer warpgroups through a
//! ring of stages.
//!
//! `out[m, n] = f(sa[m] · sb[n] · Σ_k a[m, k] · b[n, k])`, `a` and `b` e4m3 with K contiguous, `f`
//! the rounding to the output's format. The tensor core accumulates 128 of K, then the sum is added
//! to f32 registers: its own accumulator is too short for more.
//!
//! A stage holds 128 rows of A and `bn` rows of B, 128 bytes each, in the 128-byte swizzle. The
//! producer's one thread waits for a free stage, announces its bytes and starts two tensor copies;
//! each consumer warpgroup multiplies 64 rows and frees the stage, one arrival per warp. Blocks are
//! persistent: they take every `gridDim.x`-th tile, N fastest.
//!
//! Preconditions: `k` a multiple of 16; tensor maps over `a` with box 128×128 and over `b` with box
//! 128×`bn` (K innermost), 128-byte swizzle, zeros outside; dynamic shared memory of
//! [`Fp8Gemm::shared_bytes`]. Any `m`, `n` ≥ 1.

use qcc_ir::DType;
use qcc_ir::kernel::*;

/// Rows of a block's tile: 64 for each consumer warpgroup.
const BM: u32 = 128;
/// Bytes (elements) of K in a stage: the width of the swizzle.
const BK: u32 = 128;
/// Depth of one wgmma of FP8.
const WGMMA_K: u32 = 32;
/// Named barriers are not used; the ring's mbarriers are all.
const CONSUMER_WARPS: u32 = 8;

/// Configuration of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fp8Gemm {
    /// Columns of a block's tile: a multiple of 8 up to 128.
    pub bn: u32,
    /// Stages of the ring.
    pub stages: u32,
    /// Format of the output: f16 or bf16.
    pub out: DType,
    /// Whether `n` is even, so that two outputs are stored at once.
    pub even_n: bool,
}

/// Parameters and indices that all parts of the kernel use.
struct Frame {
    a_map: Value,
    b_map: Value,
    a_scale: Value,
    b_scale: Value,
    out: Value,
    m: Value,
    n: Value,
    k_blocks: Value,
    tiles_n: Value,
    tiles: Value,
    ring: Value,
    full: Value,
    empty: Value,
}

/// A position in the ring: the stage, and the parity of its use.
#[derive(Clone, Copy)]
struct Slot {
    stage: Value,
    parity: Value,
}

impl Fp8Gemm {
    /// Bytes of a stage.
    const fn stage_bytes(&self) -> u32 {
        (BM + self.bn) * BK
    }

    /// Dynamic shared memory of a block.
    pub const fn shared_bytes(&self) -> u32 {
        self.stages * self.stage_bytes()
    }

    /// Accumulators of a thread.
    const fn words(&self) -> u16 {
        (self.bn / 2) as u16
    }

    /// Builds the kernel `name(a_map, b_map, a_scale, b_scale, out, m, n, k)`.
    ///
    /// # Errors
    /// A rule of the kernel IR that the configuration breaks.
    pub fn build(&self, name: &str) -> Result<Kernel, Problem> {
        let launch = Launch {
            min_blocks: 1,
            ..Launch::threads(384)
        };
        let mut k = KernelBuilder::spmd(name, launch);
        let frame = self.frame(&mut k);
        let tid = k.tid();
        self.start_ring(&mut k, &frame, tid);
        let group = k.shr_imm(tid, 7);
        // The same in all lanes, and now ptxas knows it.
        let zero = k.u32(0);
        let group = k.shuffle(ShflMode::Idx, group, zero);
        let producer = k.eq(group, zero);
        k.if_else(
            producer,
            |k| {
                k.set_max_regs(RegChange::Dec, 40);
                self.produce(k, &frame, tid);
                Vec::new()
            },
            |k| {
                k.set_max_regs(RegChange::Inc, 232);
                let consumer = k.add_imm(group, -1);
                self.consume(k, &frame, tid, consumer);
                Vec::new()
            },
        );
        k.finish()
    }

    fn frame(&self, k: &mut KernelBuilder) -> Frame {
        let a_map = k.param("a_map", Ty::TensorMap);
        let b_map = k.param("b_map", Ty::TensorMap);
        let a_scale = k.param_ro("a_scale", DType::F32);
        let b_scale = k.param_ro("b_scale", DType::F32);
        let out = k.param_ptr("out", self.out);
        let m = k.param("m", Ty::U32);
        let n = k.param("n", Ty::U32);
        let depth = k.param("k", Ty::U32);
        let ring = k.dynamic_shared("ring", DType::U8, 1024);
        let full = k.shared("full", DType::U64, self.stages, 8);
        let empty = k.shared("empty", DType::U64, self.stages, 8);
        let tiles_m = ceil_div(k, m, BM);
        let tiles_n = ceil_div(k, n, self.bn);
        let tiles = k.mul(tiles_m, tiles_n);
        let k_blocks = ceil_div(k, depth, BK);
        Frame {
            a_map,
            b_map,
            a_scale,
            b_scale,
            out,
            m,
            n,
            k_blocks,
            tiles_n,
            tiles,
            ring,
            full,
            empty,
        }
    }

    fn start_ring(&self, k: &mut KernelBuilder, f: &Frame, tid: Value) {
        let zero = k.u32(0);
        let first = k.eq(tid, zero);
        k.if_then(first, |k| {
            k.tma_prefetch(f.a_map);
            k.tma_prefetch(f.b_map);
            let (one, warps) = (k.u32(1), k.u32(CONSUMER_WARPS));
            for stage in 0..self.stages {
                let stage = k.u32(stage);
                let full = k.ptr_add(f.full, stage);
                k.mbar_init(full, one);
                let empty = k.ptr_add(f.empty, stage);
                k.mbar_init(empty, warps);
            }
            k.fence(Fence::MbarInit);
        });
        k.barrier();
    }

    /// Runs `body` on each tile of this block with its first row and column, carrying values.
    fn each_tile(
        &self,
        k: &mut KernelBuilder,
        f: &Frame,
        init: &[Value],
        body: impl FnOnce(&mut KernelBuilder, Value, Value, &[Value]) -> Vec<Value>,
    ) {
        let first = k.block_id();
        let step = k.special(Special::NctaidX);
        k.for_range(first, f.tiles, step, init, |k, tile, carried| {
            let tile_m = k.div(tile, f.tiles_n);
            let tile_n = k.rem(tile, f.tiles_n);
            let row = k.mul_imm(tile_m, i64::from(BM));
            let column = k.mul_imm(tile_n, i64::from(self.bn));
            body(k, row, column, carried)
        });
    }

    fn next(&self, k: &mut KernelBuilder, slot: Slot) -> Slot {
        let stages = k.u32(self.stages);
        let (zero, one) = (k.u32(0), k.u32(1));
        let stage = k.add(slot.stage, one);
        let wraps = k.eq(stage, stages);
        let flipped = k.xor(slot.parity, one);
        let parity = k.select(wraps, flipped, slot.parity);
        Slot {
            stage: k.select(wraps, zero, stage),
            parity,
        }
    }

    fn stage_address(&self, k: &mut KernelBuilder, f: &Frame, stage: Value) -> Value {
        let offset = k.mul_imm(stage, i64::from(self.stage_bytes()));
        k.ptr_add(f.ring, offset)
    }

    fn produce(&self, k: &mut KernelBuilder, f: &Frame, tid: Value) {
        let warp_size = k.u32(32);
        let first_warp = k.lt(tid, warp_size);
        k.if_then(first_warp, |k| {
            let elected = k.elect();
            k.if_then(elected, |k| {
                // A fresh barrier passes for the parity before its first phase.
                let init = [k.u32(0), k.u32(1)];
                self.each_tile(k, f, &init, |k, row, column, slot| {
                    let (zero, one) = (k.u32(0), k.u32(1));
                    k.for_range(zero, f.k_blocks, one, slot, |k, block, slot| {
                        let slot = Slot {
                            stage: slot[0],
                            parity: slot[1],
                        };
                        self.fill(k, f, slot, block, row, column);
                        let next = self.next(k, slot);
                        vec![next.stage, next.parity]
                    })
                });
            });
        });
    }

    fn fill(
        &self,
        k: &mut KernelBuilder,
        f: &Frame,
        slot: Slot,
        block: Value,
        row: Value,
        column: Value,
    ) {
        let empty = k.ptr_add(f.empty, slot.stage);
        k.mbar_wait(empty, slot.parity);
        let full = k.ptr_add(f.full, slot.stage);
        let bytes = k.u32(self.stage_bytes());
        k.mbar_expect_tx(full, bytes);
        let a = self.stage_address(k, f, slot.stage);
        let a_bytes = k.u32(BM * BK);
        let b = k.ptr_add(a, a_bytes);
        let depth = k.mul_imm(block, i64::from(BK));
        let [depth, row, column] = [depth, row, column].map(|v| k.cvt(v, DType::I32));
        k.tma_load(a, f.a_map, full, &[depth, row]);
        k.tma_load(b, f.b_map, full, &[depth, column]);
    }

    fn consume(&self, k: &mut KernelBuilder, f: &Frame, tid: Value, consumer: Value) {
        let lane = k.and_imm(tid, 31);
        let zero = k.u32(0);
        let leader = k.eq(lane, zero);
        let init = [zero, zero];
        self.each_tile(k, f, &init, |k, row, column, slot| {
            let no_sum = k.f32(0.0);
            let mut carried = slot.to_vec();
            carried.extend(vec![no_sum; usize::from(self.words())]);
            let (zero, one) = (k.u32(0), k.u32(1));
            let done = k.for_range(zero, f.k_blocks, one, &carried, |k, _, carried| {
                let slot = Slot {
                    stage: carried[0],
                    parity: carried[1],
                };
                let sums = self.multiply(k, f, slot, consumer, leader, &carried[2..]);
                let next = self.next(k, slot);
                [next.stage, next.parity].into_iter().chain(sums).collect()
            });
            self.write(k, f, tid, consumer, (row, column), &done[2..]);
            done[..2].to_vec()
        });
    }

    /// Multiplies one stage into fresh accumulators, frees it, and adds them to the sums.
    fn multiply(
        &self,
        k: &mut KernelBuilder,
        f: &Frame,
        slot: Slot,
        consumer: Value,
        leader: Value,
        sums: &[Value],
    ) -> Vec<Value> {
        let full = k.ptr_add(f.full, slot.stage);
        k.mbar_wait(full, slot.parity);
        let stage = self.stage_address(k, f, slot.stage);
        let rows = k.mul_imm(consumer, i64::from(64 * BK));
        let a = k.ptr_add(stage, rows);
        let a = descriptor(k, a);
        let b_offset = k.u32(BM * BK);
        let b = k.ptr_add(stage, b_offset);
        let b = descriptor(k, b);
        let mut acc = k.wgmma_begin(&[], DType::F32, self.words());
        for step in 0..BK / WGMMA_K {
            // Inside the swizzle's atom K advances by its bytes, in units of 16.
            let advance = i64::from(step * WGMMA_K / 16);
            let (a, b) = (k.add_imm(a, advance), k.add_imm(b, advance));
            acc = k.wgmma(self.bn, (DType::E4M3, DType::E4M3), acc, a, b);
        }
        let pending = k.wgmma_commit(&[acc]);
        let acc = k.wgmma_wait(0, &pending);
        k.if_then(leader, |k| {
            let empty = k.ptr_add(f.empty, slot.stage);
            k.mbar_arrive(empty);
        });
        sums.iter()
            .zip(acc)
            .map(|(&sum, part)| k.add(sum, part))
            .collect()
    }

    /// Scales the sums and stores them; rows and columns beyond the matrix are left out.
    ///
    /// Thread `t` of a warpgroup holds, of every 8 columns, columns `2(t mod 4)` and one more in
    /// rows `16 ⌊t/32⌋ + ⌊(t mod 32)/4⌋` and 8 further down.
    fn write(
        &self,
        k: &mut KernelBuilder,
        f: &Frame,
        tid: Value,
        consumer: Value,
        (row, column): (Value, Value),
        sums: &[Value],
    ) {
        let in_group = k.and_imm(tid, 127);
        let warp = k.shr_imm(in_group, 5);
        let lane = k.and_imm(tid, 31);
        let quad = k.shr_imm(lane, 2);
        let group_row = k.mul_imm(consumer, 64);
        let warp_row = k.mul_imm(warp, 16);
        let rows = k.add(group_row, warp_row);
        let rows = k.add(rows, quad);
        let rows = k.add(row, rows);
        let in_quad = k.and_imm(lane, 3);
        let pair = k.mul_imm(in_quad, 2);
        let first_column = k.add(column, pair);
        let one = k.f32(1.0);
        for half in 0..2 {
            let m = k.add_imm(rows, 8 * half);
            let row_inside = k.lt(m, f.m);
            let scale = k.ptr_add(f.a_scale, m);
            let row_scale = k.load_if(scale, row_inside, one);
            let row_start = self.row_pointer(k, f, m);
            for block in 0..self.bn / 8 {
                let n = k.add_imm(first_column, i64::from(8 * block));
                let at = (4 * block) as usize + 2 * half as usize;
                self.store_pair(
                    k,
                    f,
                    row_start,
                    n,
                    row_inside,
                    row_scale,
                    [sums[at], sums[at + 1]],
                );
            }
        }
    }

    fn row_pointer(&self, k: &mut KernelBuilder, f: &Frame, m: Value) -> Value {
        let (m, n) = (k.cvt(m, DType::U64), k.cvt(f.n, DType::U64));
        let offset = k.mul(m, n);
        k.ptr_add(f.out, offset)
    }

    #[allow(clippy::too_many_arguments)]
    fn store_pair(
        &self,
        k: &mut KernelBuilder,
        f: &Frame,
        row_start: Value,
        n: Value,
        row_inside: Value,
        row_scale: Value,
        sums: [Value; 2],
    ) {
        let one = k.f32(1.0);
        let mut outs = Vec::new();
        let mut preds = Vec::new();
        for (i, sum) in sums.into_iter().enumerate() {
            let n = k.add_imm(n, i as i64);
            let inside = k.lt(n, f.n);
            let scale = k.ptr_add(f.b_scale, n);
            let column_scale = k.load_if(scale, inside, one);
            let scaled = k.mul(sum, row_scale);
            outs.push(k.mul(scaled, column_scale));
            preds.push(k.and(inside, row_inside));
        }
        let p = k.ptr_add(row_start, n);
        let both = k.pack(&outs);
        let both = k.cvt(both, self.out);
        if self.even_n {
            k.store_if(p, both, preds[0]);
            return;
        }
        for (i, v) in k.lanes(both).into_iter().enumerate() {
            let at = k.u32(i as u32);
            let p = k.ptr_add(p, at);
            k.store_if(p, v, preds[i]);
        }
    }
}

fn ceil_div(k: &mut KernelBuilder, v: Value, by: u32) -> Value {
    let up = k.add_imm(v, i64::from(by) - 1);
    k.div_imm(up, i64::from(by))
}

/// Matrix descriptor of a K-major operand in the 128-byte swizzle: address and strides in units of
/// 16 bytes, 1024 bytes from one group of 8 rows to the next.
fn descriptor(k: &mut KernelBuilder, p: Value) -> Value {
    const SWIZZLE_128: u64 = 1 << 62;
    const STRIDE: u64 = (1024 >> 4) << 32;
    const LEADING: u64 = 1 << 16;
    let address = k.ptr_to_int(p);
    let address = k.and_imm(address, 0x3ffff);
    let address = k.shr_imm(address, 4);
    let address = k.cvt(address, DType::U64);
    let fixed = k.u64(SWIZZLE_128 | STRIDE | LEADING);
    k.or(address, fixed)
}
