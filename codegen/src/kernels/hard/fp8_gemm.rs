//! FP8 matrix product for sm_90a with plain scales: the smallest kernel around the ring of
//! `gemm::ring`, on which tests of the emitter, the assembler and the simulator rest.
//!
//! `out[m, n] = f(sa[m] · sb[n] · Σ_k a[m, k] · b[n, k])`, `a` and `b` e4m3 with K contiguous, `f`
//! the rounding to the output's format.
//!
//! Preconditions: those of the ring, with one accumulator. Any `m`, `n` ≥ 1.

use crate::kernels::gemm::ring::{BK, BM, Ring, Shape, Slot, THREADS, warpgroup};
use qcc_ir::DType;
use qcc_ir::kernel::*;

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

/// Parameters that the ring does not know.
struct Frame {
    ring: Ring,
    a_scale: Value,
    b_scale: Value,
    out: Value,
    m: Value,
}

impl Fp8Gemm {
    const fn shape(&self) -> Shape {
        Shape {
            bn: self.bn,
            stages: self.stages,
            accs: 1,
        }
    }

    /// Dynamic shared memory of a block.
    pub const fn shared_bytes(&self) -> u32 {
        self.shape().bytes()
    }

    /// Builds the kernel `name(a_map, b_map, a_scale, b_scale, out, m, n, k)`.
    ///
    /// # Errors
    /// A rule of the kernel IR that the configuration breaks.
    pub fn build(&self, name: &str) -> Result<Kernel, Problem> {
        let launch = Launch {
            min_blocks: 1,
            ..Launch::threads(THREADS)
        };
        let mut k = KernelBuilder::spmd(name, launch);
        let frame = self.frame(&mut k);
        let tid = k.tid();
        frame.ring.start(&mut k, tid);
        let group = warpgroup(&mut k, tid);
        let zero = k.u32(0);
        let producer = k.eq(group, zero);
        k.if_else(
            producer,
            |k| {
                k.set_max_regs(RegChange::Dec, 40);
                frame.ring.produce(k, tid);
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
            ring: Ring {
                shape: self.shape(),
                a_map,
                b_map,
                n,
                k_blocks,
                tiles_n,
                tiles,
                ring,
                full,
                empty,
            },
            a_scale,
            b_scale,
            out,
            m,
        }
    }

    fn consume(&self, k: &mut KernelBuilder, f: &Frame, tid: Value, consumer: Value) {
        let lane = k.and_imm(tid, 31);
        let zero = k.u32(0);
        let leader = k.eq(lane, zero);
        let init = [zero, zero];
        let (first, end, step) = f.ring.tiles_of_block(k);
        k.for_range(first, end, step, &init, |k, tile, slot| {
            let (row, column) = f.ring.place(k, tile);
            let no_sum = k.f32(0.0);
            let mut carried = slot.to_vec();
            carried.extend(vec![no_sum; usize::from(f.ring.shape.words())]);
            let (zero, one) = (k.u32(0), k.u32(1));
            let done = k.for_range(zero, f.ring.k_blocks, one, &carried, |k, _, carried| {
                let slot = Slot {
                    stage: carried[0],
                    parity: carried[1],
                };
                let sums = f.ring.multiply(k, slot, consumer, leader, &carried[2..]);
                let next = f.ring.next(k, slot);
                [next.stage, next.parity].into_iter().chain(sums).collect()
            });
            self.write(k, f, tid, consumer, (row, column), &done[2..]);
            done[..2].to_vec()
        });
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
        let (m, n) = (k.cvt(m, DType::U64), k.cvt(f.ring.n, DType::U64));
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
            let inside = k.lt(n, f.ring.n);
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
