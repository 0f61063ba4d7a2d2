//! The ring of an FP8 product on sm_90a: a producer warpgroup feeds two consumer warpgroups.
//!
//! A stage holds 128 rows of A and `bn` rows of B, 128 bytes of K each, in the 128-byte swizzle.
//! The producer's one thread waits for a free stage, announces its bytes and starts tensor copies;
//! each consumer warpgroup multiplies 64 rows and frees the stage, one arrival per warp. Blocks
//! are persistent: they take every `gridDim.x`-th tile, columns fastest. The tensor core
//! accumulates 128 of K, then the sum is added to f32 registers: its own accumulator is too short
//! for more.
//!
//! With two accumulators a stage's rows of B come half from each half of the weight.
//!
//! Preconditions: rows of K bytes, a multiple of 16; tensor maps over A with box 128×128 and over B
//! with box 128×`bn / accs` (K innermost), 128-byte swizzle, zeros outside; dynamic shared memory of
//! [`Shape::bytes`] at a multiple of 1024.

use qcc_ir::DType;
use qcc_ir::kernel::*;

/// Rows of a block's tile: 64 for each consumer warpgroup.
pub const BM: u32 = 128;
/// Bytes (elements) of K in a stage: the width of the swizzle.
pub const BK: u32 = 128;
/// Depth of one wgmma of FP8.
const WGMMA_K: u32 = 32;
/// Warps that multiply; the ring's mbarriers are all that joins them with the producer.
const CONSUMER_WARPS: u32 = 8;
/// Threads of a block: producer and consumers.
pub const THREADS: u32 = 384;

/// Sizes of a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Rows of B in a stage, those of all accumulators: a multiple of 8·`accs` up to 128.
    pub bn: u32,
    /// Stages.
    pub stages: u32,
    /// Accumulators: 1 or 2.
    pub accs: u32,
}

impl Shape {
    const fn stage_bytes(&self) -> u32 {
        (BM + self.bn) * BK
    }

    /// Shared memory of the ring.
    pub const fn bytes(&self) -> u32 {
        self.stages * self.stage_bytes()
    }

    /// Accumulator registers of a thread.
    pub const fn words(&self) -> u16 {
        (self.bn / 2) as u16
    }

    /// Columns of a block's tile.
    pub const fn columns(&self) -> u32 {
        self.bn / self.accs
    }
}

/// Parameters and indices of the ring.
pub struct Ring {
    /// Sizes.
    pub shape: Shape,
    /// Tensor map of A.
    pub a_map: Value,
    /// Tensor map of B.
    pub b_map: Value,
    /// Columns of the output, u32.
    pub n: Value,
    /// Stages' worth of K, u32.
    pub k_blocks: Value,
    /// Tiles along the columns, and all tiles, u32.
    pub tiles_n: Value,
    /// All tiles.
    pub tiles: Value,
    /// The stages.
    pub ring: Value,
    /// A barrier per stage that says it is filled.
    pub full: Value,
    /// A barrier per stage that says it is free.
    pub empty: Value,
}

/// A position in the ring: the stage, and the parity of its use.
#[derive(Clone, Copy)]
pub struct Slot {
    /// Stage.
    pub stage: Value,
    /// Parity of its use.
    pub parity: Value,
}

impl Ring {
    /// Initializes the barriers; all threads of the block meet.
    pub fn start(&self, k: &mut KernelBuilder, tid: Value) {
        let zero = k.u32(0);
        let first = k.eq(tid, zero);
        k.if_then(first, |k| {
            k.tma_prefetch(self.a_map);
            k.tma_prefetch(self.b_map);
            let (one, warps) = (k.u32(1), k.u32(CONSUMER_WARPS));
            for stage in 0..self.shape.stages {
                let stage = k.u32(stage);
                let full = k.ptr_add(self.full, stage);
                k.mbar_init(full, one);
                let empty = k.ptr_add(self.empty, stage);
                k.mbar_init(empty, warps);
            }
            k.fence(Fence::MbarInit);
        });
        k.barrier();
    }

    /// The tiles of this block: the first, the end of all, and the step.
    pub fn tiles_of_block(&self, k: &mut KernelBuilder) -> (Value, Value, Value) {
        let first = k.block_id();
        let step = k.special(Special::NctaidX);
        (first, self.tiles, step)
    }

    /// First row and column of a tile.
    pub fn place(&self, k: &mut KernelBuilder, tile: Value) -> (Value, Value) {
        let tile_m = k.div(tile, self.tiles_n);
        let tile_n = k.rem(tile, self.tiles_n);
        let row = k.mul_imm(tile_m, i64::from(BM));
        let column = k.mul_imm(tile_n, i64::from(self.shape.columns()));
        (row, column)
    }

    /// The slot after this one.
    pub fn next(&self, k: &mut KernelBuilder, slot: Slot) -> Slot {
        let stages = k.u32(self.shape.stages);
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

    fn stage_address(&self, k: &mut KernelBuilder, stage: Value) -> Value {
        let offset = k.mul_imm(stage, i64::from(self.shape.stage_bytes()));
        k.ptr_add(self.ring, offset)
    }

    /// What the producer warpgroup does: one of its threads fills the stages of all tiles.
    pub fn produce(&self, k: &mut KernelBuilder, tid: Value) {
        let warp_size = k.u32(32);
        let first_warp = k.lt(tid, warp_size);
        k.if_then(first_warp, |k| {
            let elected = k.elect();
            k.if_then(elected, |k| {
                // A fresh barrier passes for the parity before its first phase.
                let init = [k.u32(0), k.u32(1)];
                let (first, end, step) = self.tiles_of_block(k);
                k.for_range(first, end, step, &init, |k, tile, slot| {
                    let (row, column) = self.place(k, tile);
                    let (zero, one) = (k.u32(0), k.u32(1));
                    k.for_range(zero, self.k_blocks, one, slot, |k, block, slot| {
                        let slot = Slot {
                            stage: slot[0],
                            parity: slot[1],
                        };
                        self.fill(k, slot, block, row, column);
                        let next = self.next(k, slot);
                        vec![next.stage, next.parity]
                    })
                });
            });
        });
    }

    fn fill(&self, k: &mut KernelBuilder, slot: Slot, block: Value, row: Value, column: Value) {
        let empty = k.ptr_add(self.empty, slot.stage);
        k.mbar_wait(empty, slot.parity);
        let full = k.ptr_add(self.full, slot.stage);
        let bytes = k.u32(self.shape.stage_bytes());
        k.mbar_expect_tx(full, bytes);
        let a = self.stage_address(k, slot.stage);
        let a_bytes = k.u32(BM * BK);
        let b = k.ptr_add(a, a_bytes);
        let depth = k.mul_imm(block, i64::from(BK));
        let [depth, row, first] = [depth, row, column].map(|v| k.cvt(v, DType::I32));
        k.tma_load(a, self.a_map, full, &[depth, row]);
        k.tma_load(b, self.b_map, full, &[depth, first]);
        for _ in 1..self.shape.accs {
            let half = k.u32(self.shape.columns() * BK);
            let b = k.ptr_add(b, half);
            let second = k.add(column, self.n);
            let second = k.cvt(second, DType::I32);
            k.tma_load(b, self.b_map, full, &[depth, second]);
        }
    }

    /// Multiplies one stage into fresh accumulators, frees it, and adds them to the sums.
    pub fn multiply(
        &self,
        k: &mut KernelBuilder,
        slot: Slot,
        consumer: Value,
        leader: Value,
        sums: &[Value],
    ) -> Vec<Value> {
        let full = k.ptr_add(self.full, slot.stage);
        k.mbar_wait(full, slot.parity);
        let stage = self.stage_address(k, slot.stage);
        let rows = k.mul_imm(consumer, i64::from(64 * BK));
        let a = k.ptr_add(stage, rows);
        let a = descriptor(k, a);
        let b_offset = k.u32(BM * BK);
        let b = k.ptr_add(stage, b_offset);
        let b = descriptor(k, b);
        let mut acc = k.wgmma_begin(&[], DType::F32, self.shape.words());
        for step in 0..BK / WGMMA_K {
            // Inside the swizzle's atom K advances by its bytes, in units of 16.
            let advance = i64::from(step * WGMMA_K / 16);
            let (a, b) = (k.add_imm(a, advance), k.add_imm(b, advance));
            acc = k.wgmma(self.shape.bn, (DType::E4M3, DType::E4M3), acc, a, b);
        }
        let pending = k.wgmma_commit(&[acc]);
        let acc = k.wgmma_wait(0, &pending);
        k.if_then(leader, |k| {
            let empty = k.ptr_add(self.empty, slot.stage);
            k.mbar_arrive(empty);
        });
        sums.iter()
            .zip(acc)
            .map(|(&sum, part)| k.add(sum, part))
            .collect()
    }
}

/// The warpgroup of a thread, the same in all lanes so that ptxas knows it.
pub fn warpgroup(k: &mut KernelBuilder, tid: Value) -> Value {
    let group = k.shr_imm(tid, 7);
    let zero = k.u32(0);
    k.shuffle(ShflMode::Idx, group, zero)
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
