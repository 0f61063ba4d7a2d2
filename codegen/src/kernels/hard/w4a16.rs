//! Main loop of the product of 4-bit weights with 16-bit activations, for few tokens (sm_80 and up).
//!
//! `part[s, t, r] = Σ_{g ∈ slice s} scale[r, g] · Σ_{k ∈ group g} (q[r, k] − 8) · x[t, k]`, with `q`
//! unsigned nibbles, groups of 128 along K, exact differences in f16, sums in f32.
//!
//! The weights are the A operand of `mma.m16n8k16` and 8 tokens are its columns, so one word of
//! eight nibbles is one lane's whole A fragment. A warp owns 16 rows, a block 128. A ring of stages
//! of `cp.async` copies holds one group of each: packed weights (8 KiB), scales, and the tokens'
//! activations with their 16-byte chunks exchanged (`chunk ⊕ (token mod 8)`) so that `ldmatrix` has
//! no bank conflicts. Scales multiply the f32 sums once a group.
//!
//! Layouts (see [`W4A16::nibble_place`]): weights `[row tile of 16][group][half][lane][16 bytes]`,
//! scales f16 `[row tile of 16][group][16]`, activations f16 `[tokens][k]`, parts f32
//! `[slice][tokens][rows]`.
//!
//! Preconditions: rows a multiple of 128, `k` of 128; grid = (rows/128, slices); `tokens` ≤
//! [`W4A16::max_tokens`]; dynamic shared memory of [`W4A16::shared_bytes`].

use qcc_ir::DType;
use qcc_ir::kernel::*;

/// Threads of a block: 8 warps of 16 rows.
const THREADS: u32 = 256;
/// Elements of K that share a scale.
const GROUP: u32 = 128;
/// Bytes of packed weights of a warp's 16 rows in a group.
const WARP_BYTES: u32 = 16 * GROUP / 2;
/// Bytes of packed weights in a stage.
const WEIGHT_BYTES: u32 = 8 * WARP_BYTES;
/// Bytes of scales in a stage.
const SCALE_BYTES: u32 = 128 * 2;
/// Bytes of a token's activations in a stage.
const TOKEN_BYTES: u32 = GROUP * 2;

/// Configuration of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct W4A16 {
    /// Tiles of 8 tokens, 1 to 8.
    pub token_tiles: u32,
    /// Stages of the ring, at least 2.
    pub stages: u32,
}

struct Frame {
    weights: Value,
    scales: Value,
    x: Value,
    parts: Value,
    tokens: Value,
    rows: Value,
    depth: Value,
    groups: Value,
    ring: Value,
    tid: Value,
    warp: Value,
    lane: Value,
    /// First row tile (of 16 rows) of the block.
    tile: Value,
}

impl W4A16 {
    /// The most tokens that the kernel takes.
    pub const fn max_tokens(&self) -> u32 {
        8 * self.token_tiles
    }

    const fn stage_bytes(&self) -> u32 {
        WEIGHT_BYTES + SCALE_BYTES + self.max_tokens() * TOKEN_BYTES
    }

    /// Dynamic shared memory of a block.
    pub const fn shared_bytes(&self) -> u32 {
        self.stages * self.stage_bytes()
    }

    /// Where the weight of row `r` (of 16) and column `k` (of 128) lies in a warp's group: the word
    /// and the nibble in it.
    ///
    /// Lane `4 (r mod 8) + (k mod 8) / 2` holds its fragment of the 16 columns `k / 16` in one word;
    /// the word's nibble `i` and nibble `i + 4` are the two halves of fragment register `i`.
    pub const fn nibble_place(r: u32, k: u32) -> (u32, u32) {
        let (step, in_step) = (k / 16, k % 16);
        let lane = 4 * (r % 8) + (in_step % 8) / 2;
        let register = r / 8 + 2 * (in_step / 8);
        // Two 16-byte vectors of 4 steps each.
        let word = (step / 4) * 128 + lane * 4 + step % 4;
        (word, register + 4 * (in_step % 2))
    }

    /// Builds the kernel `name(weights, scales, x, parts, tokens, rows, k)`.
    ///
    /// # Errors
    /// A rule of the kernel IR that the configuration breaks.
    pub fn build(&self, name: &str) -> Result<Kernel, Problem> {
        let mut k = KernelBuilder::spmd(
            name,
            Launch {
                min_blocks: 1,
                ..Launch::threads(THREADS)
            },
        );
        let f = self.frame(&mut k);
        let (first, last) = slice(&mut k, f.groups);
        // All but one of the ring's slots are filled at entry.
        for ahead in 0..self.stages - 1 {
            let group = k.add_imm(first, i64::from(ahead));
            let slot = k.u32(ahead);
            self.fetch(&mut k, &f, group, last, slot);
        }
        let zero = k.f32(0.0);
        let mut carried = vec![k.u32(0), k.u32(self.stages - 1)];
        carried.extend(vec![zero; 4 * self.token_tiles as usize]);
        let one = k.u32(1);
        let done = k.for_range(first, last, one, &carried, |k, group, c| {
            k.cp_async_wait(self.stages - 2);
            k.barrier();
            let ahead = k.add_imm(group, i64::from(self.stages) - 1);
            self.fetch(k, &f, ahead, last, c[1]);
            let sums = self.multiply(k, &f, c[0], &c[2..]);
            let (read, fill) = (self.next(k, c[0]), self.next(k, c[1]));
            [read, fill].into_iter().chain(sums).collect()
        });
        self.write(&mut k, &f, &done[2..]);
        k.finish()
    }

    fn frame(&self, k: &mut KernelBuilder) -> Frame {
        let weights = k.param_ro("weights", DType::U8);
        let scales = k.param_ro("scales", DType::F16);
        let x = k.param_ro("x", DType::F16);
        let parts = k.param_ptr("parts", DType::F32);
        let tokens = k.param("tokens", Ty::U32);
        let rows = k.param("rows", Ty::U32);
        let depth = k.param("k", Ty::U32);
        let ring = k.dynamic_shared("ring", DType::U8, 128);
        let groups = k.div_imm(depth, i64::from(GROUP));
        let tid = k.tid();
        let (warp, lane) = (k.shr_imm(tid, 5), k.and_imm(tid, 31));
        let block = k.block_id();
        let tile = k.mul_imm(block, 8);
        Frame {
            weights,
            scales,
            x,
            parts,
            tokens,
            rows,
            depth,
            groups,
            ring,
            tid,
            warp,
            lane,
            tile,
        }
    }

    fn next(&self, k: &mut KernelBuilder, slot: Value) -> Value {
        let (zero, stages) = (k.u32(0), k.u32(self.stages));
        let next = k.add_imm(slot, 1);
        let wraps = k.eq(next, stages);
        k.select(wraps, zero, next)
    }

    fn slot_address(&self, k: &mut KernelBuilder, f: &Frame, slot: Value) -> Value {
        let offset = k.mul_imm(slot, i64::from(self.stage_bytes()));
        k.ptr_add(f.ring, offset)
    }

    /// Starts the copies of a group into a slot, nothing beyond the last group; closes a copy group
    /// in any case, so that waits count the same in every iteration.
    fn fetch(&self, k: &mut KernelBuilder, f: &Frame, group: Value, last: Value, slot: Value) {
        let inside = k.lt(group, last);
        k.if_then(inside, |k| {
            let base = self.slot_address(k, f, slot);
            self.fetch_weights(k, f, group, base);
            self.fetch_tokens(k, f, group, base);
        });
        k.cp_async_commit();
    }

    fn fetch_weights(&self, k: &mut KernelBuilder, f: &Frame, group: Value, base: Value) {
        let tile = k.add(f.tile, f.warp);
        let block = k.fma(tile, f.groups, group);
        let block = k.cvt(block, DType::U64);
        let from = k.mul_imm(block, i64::from(WARP_BYTES));
        let from = k.ptr_add(f.weights, from);
        let to = k.mul_imm(f.warp, i64::from(WARP_BYTES));
        let to = k.ptr_add(base, to);
        for half in 0..2 {
            let at = k.mul_imm(f.lane, 16);
            let at = k.add_imm(at, half * 512);
            let (src, dst) = (k.ptr_add(from, at), k.ptr_add(to, at));
            k.cp_async(dst, src, 16, None);
        }
        // The 16 scales of the warp's rows: two lanes, 16 bytes each.
        let two = k.u32(2);
        let copies = k.lt(f.lane, two);
        k.if_then(copies, |k| {
            let block = k.mul_imm(block, 16);
            let part = k.mul_imm(f.lane, 8);
            let src = k.ptr_add(f.scales, block);
            let src = k.ptr_add(src, part);
            let to = k.mul_imm(f.warp, 32);
            let part = k.mul_imm(f.lane, 16);
            let to = k.add(to, part);
            let to = k.add_imm(to, i64::from(WEIGHT_BYTES));
            let dst = k.ptr_add(base, to);
            k.cp_async(dst, src, 16, None);
        });
    }

    /// 16 chunks of 16 bytes for each token; tokens that do not exist become zeros.
    fn fetch_tokens(&self, k: &mut KernelBuilder, f: &Frame, group: Value, base: Value) {
        let chunks = self.max_tokens() * 16;
        for pass in 0..chunks.div_ceil(THREADS) {
            let i = k.add_imm(f.tid, i64::from(pass * THREADS));
            let all = k.u32(chunks);
            let mine = k.lt(i, all);
            k.if_then(mine, |k| {
                let (token, chunk) = (k.shr_imm(i, 4), k.and_imm(i, 15));
                let exists = k.lt(token, f.tokens);
                let (none, sixteen) = (k.u32(0), k.u32(16));
                let bytes = k.select(exists, sixteen, none);
                // A token that is not there is not addressed either.
                let row = k.select(exists, token, none);
                let (row, depth) = (k.cvt(row, DType::U64), k.cvt(f.depth, DType::U64));
                let row = k.mul(row, depth);
                let column = k.mul_imm(group, i64::from(GROUP));
                let within = k.mul_imm(chunk, 8);
                let column = k.add(column, within);
                let src = k.ptr_add(f.x, row);
                let src = k.ptr_add(src, column);
                let at = swizzled(k, token, chunk);
                let at = k.add_imm(at, i64::from(WEIGHT_BYTES + SCALE_BYTES));
                let dst = k.ptr_add(base, at);
                k.cp_async(dst, src, 16, Some(bytes));
            });
        }
    }

    /// One group: eight steps of 16 columns, then the group's scales.
    fn multiply(
        &self,
        k: &mut KernelBuilder,
        f: &Frame,
        slot: Value,
        sums: &[Value],
    ) -> Vec<Value> {
        let base = self.slot_address(k, f, slot);
        let words = self.weight_words(k, f, base);
        let zero = k.f32(0.0);
        let tiles = self.token_tiles as usize;
        let mut acc = vec![vec![zero; 4]; tiles];
        for pair in 0..4 {
            let tokens: Vec<Vec<Value>> = (0..tiles)
                .map(|t| self.token_fragments(k, f, base, t as u32, pair))
                .collect();
            for step in 0..2 {
                let a = dequantize(k, words[(2 * pair + step) as usize]);
                for (acc, b) in acc.iter_mut().zip(&tokens) {
                    let b = &b[2 * step as usize..][..2];
                    let kinds = (DType::F16, DType::F16, DType::F32);
                    *acc = k.mma(MmaShape::M16n8k16, kinds, &a, b, acc);
                }
            }
        }
        let scales = self.row_scales(k, f, base);
        let mut out = Vec::new();
        for (i, acc) in acc.into_iter().flatten().enumerate() {
            out.push(k.fma(acc, scales[i % 4 / 2], sums[i]));
        }
        out
    }

    fn weight_words(&self, k: &mut KernelBuilder, f: &Frame, base: Value) -> Vec<Value> {
        let words = k.ptr_cast(base, DType::U32);
        let at = k.mul_imm(f.warp, i64::from(WARP_BYTES / 4));
        let lane = k.mul_imm(f.lane, 4);
        let at = k.add(at, lane);
        let p = k.ptr_add(words, at);
        let mut out = Vec::new();
        for half in 0..2 {
            let v = k.load_with(p, Ty::vec(DType::U32, 4), half * 512, Cache::Default);
            out.extend(k.lanes(v));
        }
        out
    }

    /// B fragments of 8 tokens for two steps of 16 columns: four tiles of 8×8.
    fn token_fragments(
        &self,
        k: &mut KernelBuilder,
        f: &Frame,
        base: Value,
        tile: u32,
        pair: u32,
    ) -> Vec<Value> {
        let row = k.and_imm(f.lane, 7);
        let token = k.add_imm(row, i64::from(8 * tile));
        let chunk = k.shr_imm(f.lane, 3);
        let chunk = k.add_imm(chunk, i64::from(4 * pair));
        let at = swizzled(k, token, chunk);
        let at = k.add_imm(at, i64::from(WEIGHT_BYTES + SCALE_BYTES));
        let p = k.ptr_add(base, at);
        k.ldmatrix(p, 4, Trans::No, Ty::vec(DType::F16, 2))
    }

    /// f32 scales of the lane's two rows.
    fn row_scales(&self, k: &mut KernelBuilder, f: &Frame, base: Value) -> [Value; 2] {
        let scales = k.ptr_cast(base, DType::F16);
        let at = k.mul_imm(f.warp, 16);
        let row = k.shr_imm(f.lane, 2);
        let at = k.add(at, row);
        let p = k.ptr_add(scales, at);
        [0, 8].map(|row| {
            let offset = WEIGHT_BYTES as i32 + 2 * row;
            let s = k.load_with(p, Ty::F16, offset, Cache::Default);
            k.cvt(s, DType::F32)
        })
    }

    /// Stores the sums of the block's slice: registers 0 and 1 are tokens `2(l mod 4)` and one more
    /// in row `⌊l/4⌋`, registers 2 and 3 the same 8 rows further down.
    fn write(&self, k: &mut KernelBuilder, f: &Frame, sums: &[Value]) {
        let slice = k.special(Special::CtaidY);
        let first = k.mul(slice, f.tokens);
        let tile = k.add(f.tile, f.warp);
        let row = k.mul_imm(tile, 16);
        let quad = k.shr_imm(f.lane, 2);
        let row = k.add(row, quad);
        let in_quad = k.and_imm(f.lane, 3);
        let pair = k.mul_imm(in_quad, 2);
        for (i, &sum) in sums.iter().enumerate() {
            let (tile, register) = ((i / 4) as i64, (i % 4) as i64);
            let token = k.add_imm(pair, 8 * tile + register % 2);
            let exists = k.lt(token, f.tokens);
            let line = k.add(first, token);
            let (line, rows) = (k.cvt(line, DType::U64), k.cvt(f.rows, DType::U64));
            let line = k.mul(line, rows);
            let row = k.add_imm(row, 8 * (register / 2));
            let p = k.ptr_add(f.parts, line);
            let p = k.ptr_add(p, row);
            k.store_if(p, sum, exists);
        }
    }
}

/// Groups of this block's slice: `gridDim.y` slices of ⌈groups / slices⌉, the last ones shorter.
fn slice(k: &mut KernelBuilder, groups: Value) -> (Value, Value) {
    let slices = k.special(Special::NctaidY);
    let index = k.special(Special::CtaidY);
    let up = k.add(groups, slices);
    let up = k.add_imm(up, -1);
    let each = k.div(up, slices);
    let first = k.mul(index, each);
    let first = k.min(first, groups);
    let last = k.add(first, each);
    (first, k.min(last, groups))
}

/// Byte offset of a token's chunk of 16 bytes.
fn swizzled(k: &mut KernelBuilder, token: Value, chunk: Value) -> Value {
    let turn = k.and_imm(token, 7);
    let chunk = k.xor(chunk, turn);
    let row = k.mul_imm(token, i64::from(TOKEN_BYTES));
    let at = k.mul_imm(chunk, 16);
    k.add(row, at)
}

/// Eight nibbles to the four registers of an A fragment, each value `q - 8` exactly.
///
/// The bits of 1024 in f16 leave ten mantissa bits: a nibble put into the lowest is `1024 + q`, one
/// put four bits higher is `1024 + 16 q`.
fn dequantize(k: &mut KernelBuilder, word: Value) -> Vec<Value> {
    /// `(a & b) | c`
    const AND_OR: u8 = 0xea;
    let pair = Ty::vec(DType::F16, 2);
    let thousand = k.u32(0x6400_6400);
    let (low_mask, high_mask) = (k.u32(0x000f_000f), k.u32(0x00f0_00f0));
    let offset = k.const_bits(pair, 0x6408); // 1032
    let sixteenth = k.const_bits(pair, 0x2c00);
    let minus_72 = k.const_bits(pair, 0xd480);
    let mut out = Vec::new();
    let shifted = k.shr_imm(word, 8);
    for word in [word, shifted] {
        let low = k.lop3(word, low_mask, thousand, AND_OR);
        let low = k.bitcast(low, pair);
        out.push(k.sub(low, offset));
        let high = k.lop3(word, high_mask, thousand, AND_OR);
        let high = k.bitcast(high, pair);
        out.push(k.fma(high, sixteenth, minus_72));
    }
    out
}
