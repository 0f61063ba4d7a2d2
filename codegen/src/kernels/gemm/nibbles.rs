//! Linear layers of f16 activations and 4-bit weights for few rows, as they are in decoding.
//!
//! ```text
//! acc[t, r] = Σ_g scale[r, g] · Σ_{k ∈ g} (q[r, k] − zero[r, g]) · x[t, k],   then any expression
//! ```
//!
//! The weights lie as fragments ([`Layout::MmaNibbles`]) and are the A operand of
//! `mma.m16n8k16`; 8 tokens are its columns. A block takes 16 rows of the weight (of each
//! accumulator) and its 8 warps every eighth chunk of 64 columns, so even a narrow layer fills the
//! GPU and all its loads are in flight early. A lane loads its 16 bytes of a chunk straight into
//! registers, some chunks ahead, and turns nibbles into exact differences in f16 with `lop3`: the
//! bits of 1024 leave ten bits of mantissa, so a nibble put into the lowest is `1024 + q` and one
//! four bits higher `1024 + 16 q`. Scales multiply f32 sums, once for each 32 or 64 columns. The
//! warps' sums meet in shared memory and are added in the order of warps.
//!
//! Preconditions: `n` a multiple of 16, `k` of 64, groups along `k` multiples of 32, zero points
//! integers of at most 8 bits.

use super::{Candidate, Epilogue, Scales, per_row};
use crate::lower::frame::{Frame, Launched, Source, Tensor, internal};
use crate::lower::index::{Position, block_offset, load_code, load_plain, scale_format};
use qcc_ir::diag::Result;
use qcc_ir::format::Block;
use qcc_ir::graph::{Func, Module, Op, ScaleType, TensorType};
use qcc_ir::kernel::{KernelBuilder, Launch, MmaShape, Special, Ty, Value};
use qcc_ir::plan::{Guard, Layout};
use qcc_ir::{DType, DimExpr};

/// Warps of a block.
const WARPS: u32 = 8;
/// Rows of the weight that a block takes.
const ROWS: u32 = 16;
/// Columns of the weight in a chunk.
const CHUNK: u32 = 64;
/// Tiles of 8 tokens of the kernels, the fewest first.
const TILES: [u32; 3] = [1, 2, 4];
/// The most rows of activations that are served.
pub(super) const MOST_ROWS: u64 = 8 * TILES[TILES.len() - 1] as u64;

/// Whether the kernel takes operands of these types.
pub(crate) fn serves(x: &TensorType, w: &TensorType) -> bool {
    let Some(q) = w.elem.quant() else {
        return false;
    };
    let dims: Option<Vec<u64>> = w
        .shape
        .iter()
        .map(|d| u64::try_from(d.as_const()?).ok())
        .collect();
    let groups = match q.block.0.as_slice() {
        [Block::Fixed(1), Block::Fixed(g)] => g % 32 == 0,
        _ => per_row(w),
    };
    // `1024 + zero` has to be exact in f16, which it is for integers of 8 bits and not for fractions.
    let whole = |z: DType| z.is_int() && z.bits() <= 8;
    x.elem.plain() == Some(DType::F16)
        && groups
        && q.zero.is_none_or(whole)
        && matches!(q.scale, ScaleType::Plain(_))
        && dims.is_some_and(|d| d.iter().all(|n| *n > 0) && Layout::MmaNibbles.takes(q.storage, &d))
}

/// The ways to run a linear layer of few rows.
///
/// # Errors
/// When an operand has no place.
pub(super) fn candidates(m: &Module, f: &Func, op: &Op, accs: u32) -> Result<Vec<Candidate>> {
    let (x, w) = (f.ty(op.operands[0]), f.ty(op.operands[1]));
    let n = w.shape[0].as_const().unwrap_or(0);
    if !serves(x, w) || n % i64::from(ROWS * accs) != 0 {
        return Ok(Vec::new());
    }
    let rows = DimExpr::product(&x.shape[..x.rank() - 1]);
    let mut out = Vec::new();
    let mut min = 0;
    for tiles in TILES {
        let guard = Guard {
            expr: rows.to_string(),
            min,
            max: u64::from(8 * tiles),
        };
        min = guard.max + 1;
        let known = rows.as_const().and_then(|r| u64::try_from(r).ok());
        if known.is_none_or(|r| (guard.min..=guard.max).contains(&r)) {
            out.push(Candidate {
                when: known.is_none().then_some(guard).into_iter().collect(),
                launches: vec![build(m, f, op, accs, tiles)?],
                ..Candidate::default()
            });
        }
    }
    Ok(out)
}

/// The parts of the kernel that everything refers to.
struct Tile {
    accs: u32,
    tiles: u32,
    /// Chunks of a row, and how many of them a warp loads at a time.
    chunks: u32,
    ahead: u32,
    /// Columns that share a scale, 64 at most.
    unit: u32,
    w: Tensor,
    codes: Value,
    x: Value,
    lane: Value,
    warp: Value,
    /// First row of the weight for each accumulator.
    first: Vec<Value>,
    /// First token, and the number of tokens.
    token: Value,
    tokens: Value,
}

/// What a lane holds of a chunk, for one accumulator: four words of codes, and for each unit the
/// scales and zero points of its two rows.
struct Held {
    words: Value,
    scales: Vec<Value>,
    zeros: Vec<Value>,
}

fn build(m: &Module, f: &Func, op: &Op, accs: u32, tiles: u32) -> Result<Launched> {
    let (xt, wt) = (f.ty(op.operands[0]), f.ty(op.operands[1]));
    let lead = xt.shape[..xt.rank() - 1].to_vec();
    let n = wt.shape[0].floor_div(&DimExpr::from(i64::from(accs)));
    let depth = wt.shape[1].as_const().and_then(|k| u32::try_from(k).ok());
    let depth = depth.ok_or_else(|| internal("a depth that is not known"))?;
    let launch = Launch {
        min_blocks: 1,
        ..Launch::threads(32 * WARPS)
    };
    let mut fr = Frame::open(m, f, op, launch, std::slice::from_ref(&n))?;
    let (x, w) = (fr.operands[0].clone(), fr.operands[1].clone());
    let (Source::Pointer(x), Source::Pointer(codes)) = (x.codes, w.codes) else {
        return Err(internal("a product of numbers"));
    };
    let sums = fr.k.dynamic_shared("sums", DType::F32, 16);
    let tid = fr.k.tid();
    let (bx, by) = (fr.k.special(Special::CtaidX), fr.k.special(Special::CtaidY));
    let column = fr.k.mul_imm(bx, i64::from(ROWS));
    let columns = fr.dim(&n);
    let mut first = vec![column];
    for _ in 1..accs {
        first.push(fr.k.add(first[first.len() - 1], columns));
    }
    let chunks = depth / CHUNK;
    let group = match wt.elem.quant().map(|q| q.block.0.as_slice()) {
        Some([_, Block::Fixed(g)]) => *g,
        _ => u64::from(CHUNK),
    };
    let tile = Tile {
        accs,
        tiles,
        chunks,
        ahead: (chunks / WARPS).clamp(1, 4 / accs),
        unit: if group.is_multiple_of(u64::from(CHUNK)) {
            CHUNK
        } else {
            32
        },
        w,
        codes: fr.k.ptr_cast(codes, DType::U32),
        x: fr.k.ptr_cast(x, DType::U32),
        lane: fr.k.and_imm(tid, 31),
        warp: fr.k.shr_imm(tid, 5),
        first,
        token: fr.k.mul_imm(by, i64::from(8 * tiles)),
        tokens: fr.product(&lead),
    };
    let found = tile.multiply_all(&mut fr);
    tile.store(&mut fr.k, sums, &found);
    fr.k.barrier();
    let epilogue = Epilogue {
        op,
        lead: &lead,
        n: &n,
        rows: tile.tokens,
        columns,
        scales: Scales::default(),
        thread: tid,
    };
    let area = (8 * tiles, ROWS, 32 * WARPS);
    epilogue.run(&mut fr, (tile.token, column), area, &mut |fr, t, r| {
        tile.total(&mut fr.k, sums, t, r)
    });
    let rows = DimExpr::product(&lead);
    let by = i64::from(8 * tiles);
    let grid = [
        n.floor_div(&DimExpr::from(i64::from(ROWS))),
        (rows + DimExpr::from(by - 1)).floor_div(&DimExpr::from(by)),
        DimExpr::from(1),
    ];
    fr.close(grid, WARPS * accs * 8 * tiles * ROWS * 4)
}

impl Tile {
    /// The warp's part of the sums: 4 registers for each accumulator and tile of tokens.
    fn multiply_all(&self, fr: &mut Frame) -> Vec<Value> {
        let step = i64::from(WARPS * self.ahead);
        let count = (4 * self.accs * self.tiles) as usize;
        let zero = fr.k.f32(0.0);
        let mut carried = vec![zero; count];
        carried.extend(self.load(fr, self.warp));
        let (end, step_value) = (fr.k.u32(self.chunks), fr.k.u32(step as u32));
        let done = fr.carry((self.warp, end, step_value), &carried, |fr, chunk, c| {
            let next = fr.k.add_imm(chunk, step);
            let next = self.load(fr, next);
            let mut sums = c[..count].to_vec();
            let per_chunk = next.len() / self.ahead as usize;
            for (i, held) in c[count..].chunks(per_chunk).enumerate() {
                let at = fr.k.add_imm(chunk, i64::from(WARPS) * i as i64);
                self.multiply(fr, at, held, &mut sums);
            }
            sums.extend(next);
            sums
        });
        done[..count].to_vec()
    }

    /// What the warp holds of its next chunks from `chunk` on; zeros where there is none.
    fn load(&self, fr: &mut Frame, chunk: Value) -> Vec<Value> {
        let mut out = Vec::new();
        for i in 0..self.ahead {
            let chunk = fr.k.add_imm(chunk, i64::from(WARPS * i));
            let end = fr.k.u32(self.chunks);
            let exists = fr.k.lt(chunk, end);
            let none = fr.k.u32(0);
            let chunk = fr.k.select(exists, chunk, none);
            for first in &self.first {
                let held = self.held(fr, *first, chunk, exists);
                out.push(held.words);
                out.extend(held.scales);
                out.extend(held.zeros);
            }
        }
        out
    }

    fn held(&self, fr: &mut Frame, first: Value, chunk: Value, exists: Value) -> Held {
        let k = &mut fr.k;
        let block = k.div_imm(first, i64::from(ROWS));
        let (block, at) = (k.cvt(block, DType::I64), k.cvt(chunk, DType::I64));
        let block = k.mul_imm(block, i64::from(self.chunks));
        let block = k.add(block, at);
        // 512 bytes of a chunk are 128 words, four for each lane.
        let at = k.mul_imm(block, 128);
        let lane = k.cvt(self.lane, DType::I64);
        let lane = k.mul_imm(lane, 4);
        let at = k.add(at, lane);
        let p = k.ptr_add(self.codes, at);
        let none = k.const_bits(Ty::vec(DType::U32, 4), 0);
        let words = k.load_if(p, exists, none);
        let mut held = Held {
            words,
            scales: Vec::new(),
            zeros: Vec::new(),
        };
        for unit in 0..CHUNK / self.unit {
            let column = fr.k.mul_imm(chunk, i64::from(CHUNK));
            let column = fr.k.add_imm(column, i64::from(unit * self.unit));
            for half in 0..2 {
                self.params(fr, (first, half), column, exists, &mut held);
            }
        }
        held
    }

    /// Scale and zero point of one of the lane's two rows at a column of the weight.
    fn params(
        &self,
        fr: &mut Frame,
        (first, half): (Value, u32),
        column: Value,
        exists: Value,
        held: &mut Held,
    ) {
        let quad = fr.k.shr_imm(self.lane, 2);
        let row = fr.k.add(first, quad);
        let row = fr.k.add_imm(row, i64::from(8 * half));
        let p = Position {
            shape: self.w.ty.shape.clone(),
            at: vec![row, column],
        };
        let at = block_offset(fr, &self.w, &p);
        let none = fr.k.f32(0.0);
        if let Some(s) = self.w.scale {
            let s = load_plain(&mut fr.k, s, scale_format(&self.w), at);
            // A chunk that does not exist adds 0 · 0, whatever the scale that was read for it.
            held.scales.push(fr.k.select(exists, s, none));
        }
        if let (Some(z), Some(q)) = (self.w.zero, self.w.ty.elem.quant()) {
            let d = q.zero.unwrap_or(DType::F32);
            held.zeros.push(load_code(&mut fr.k, z, d, at));
        }
    }

    /// Adds the products of a chunk.
    fn multiply(&self, fr: &mut Frame, chunk: Value, held: &[Value], sums: &mut [Value]) {
        let tokens: Vec<Vec<Value>> = (0..self.tiles).map(|t| self.tokens(fr, chunk, t)).collect();
        let units = (CHUNK / self.unit) as usize;
        let per_sum = 4 * self.tiles as usize;
        let parts = held.chunks(held.len() / self.accs as usize);
        for (acc, held) in parts.enumerate() {
            let words = fr.k.lanes(held[0]);
            let params = &held[1..];
            for unit in 0..units {
                let scales = &params[2 * unit..][..2];
                let zeros = params.get(2 * (units + unit)..).filter(|z| z.len() >= 2);
                let offsets = self.offsets(&mut fr.k, zeros);
                let steps = 4 / units;
                let a: Vec<Vec<Value>> = (steps * unit..steps * (unit + 1))
                    .map(|s| dequantize(&mut fr.k, words[s], &offsets))
                    .collect();
                for (t, x) in tokens.iter().enumerate() {
                    let mut c = vec![fr.k.f32(0.0); 4];
                    for (s, a) in a.iter().enumerate() {
                        let b = &x[2 * (steps * unit + s)..][..2];
                        let kinds = (DType::F16, DType::F16, DType::F32);
                        c = fr.k.mma(MmaShape::M16n8k16, kinds, a, b, &c);
                    }
                    for (i, c) in c.into_iter().enumerate() {
                        let sum = &mut sums[acc * per_sum + 4 * t + i];
                        *sum = fr.k.fma(c, scales[i / 2], *sum);
                    }
                }
            }
        }
    }

    /// B fragments of the four products of a chunk for 8 tokens: two words each.
    fn tokens(&self, fr: &mut Frame, chunk: Value, tile: u32) -> Vec<Value> {
        let k = &mut fr.k;
        let quad = k.shr_imm(self.lane, 2);
        let token = k.add(self.token, quad);
        let token = k.add_imm(token, i64::from(8 * tile));
        let (exists, deep) = (k.lt(token, self.tokens), k.u32(self.chunks));
        let deep = k.lt(chunk, deep);
        let exists = k.and(exists, deep);
        let zero = k.u32(0);
        let (token, chunk) = (k.select(exists, token, zero), k.select(exists, chunk, zero));
        let (token, chunk) = (k.cvt(token, DType::I64), k.cvt(chunk, DType::I64));
        // Words of two activations: 32 to a chunk, 4 for each eighth.
        let row = k.mul_imm(token, i64::from(self.chunks) * 32);
        let at = k.mul_imm(chunk, 32);
        let at = k.add(row, at);
        let part = k.and_imm(self.lane, 3);
        let part = k.cvt(part, DType::I64);
        let part = k.mul_imm(part, 4);
        let at = k.add(at, part);
        let none = k.const_bits(Ty::vec(DType::U32, 4), 0);
        let mut out = Vec::new();
        for half in 0..2 {
            let at = k.add_imm(at, 16 * half);
            let p = k.ptr_add(self.x, at);
            let words = k.load_if(p, exists, none);
            for word in k.lanes(words) {
                out.push(k.bitcast(word, Ty::vec(DType::F16, 2)));
            }
        }
        out
    }

    /// What is added to `1024 + q` for the upper row, and to `64 + q` for the lower one.
    fn offsets(&self, k: &mut KernelBuilder, zeros: Option<&[Value]>) -> [Value; 2] {
        let signed = self.w.ty.elem.storage() == DType::I4;
        let bias = if signed { 8.0 } else { 0.0 };
        [(0, 1024.0f32), (1, 64.0)].map(|(row, base)| {
            let base = k.f32(-base - bias);
            let v = match zeros {
                Some(z) => k.sub(base, z[row]),
                None => base,
            };
            let v = k.cvt(v, DType::F16);
            k.pack(&[v, v])
        })
    }

    /// Where a sum lies in shared memory: warp, accumulator, token, row.
    fn place(
        &self,
        k: &mut KernelBuilder,
        warp: Value,
        acc: u32,
        token: Value,
        row: Value,
    ) -> Value {
        let plane = k.mul_imm(warp, i64::from(self.accs));
        let plane = k.add_imm(plane, i64::from(acc));
        let line = k.mul_imm(plane, i64::from(8 * self.tiles));
        let line = k.add(line, token);
        let line = k.mul_imm(line, i64::from(ROWS));
        k.add(line, row)
    }

    /// Registers 0 and 1 are tokens `2(l mod 4)` and one more in row `⌊l/4⌋`, 2 and 3 the same 8
    /// rows further down.
    fn store(&self, k: &mut KernelBuilder, to: Value, sums: &[Value]) {
        let quad = k.shr_imm(self.lane, 2);
        let pair = k.and_imm(self.lane, 3);
        let pair = k.mul_imm(pair, 2);
        for (i, sum) in sums.iter().enumerate() {
            let (register, tile) = (i % 4, i / 4 % self.tiles as usize);
            let acc = (i / 4 / self.tiles as usize) as u32;
            let token = k.add_imm(pair, (8 * tile + register % 2) as i64);
            let row = k.add_imm(quad, (8 * (register / 2)) as i64);
            let at = self.place(k, self.warp, acc, token, row);
            let p = k.ptr_add(to, at);
            k.store(p, *sum);
        }
    }

    /// The accumulators at a token and row of the block: the warps' sums in their order.
    fn total(&self, k: &mut KernelBuilder, from: Value, token: Value, row: Value) -> Vec<Value> {
        let mut out = Vec::new();
        for acc in 0..self.accs {
            let mut sum: Option<Value> = None;
            for warp in 0..WARPS {
                let warp = k.u32(warp);
                let at = self.place(k, warp, acc, token, row);
                let p = k.ptr_add(from, at);
                let v = k.load(p);
                sum = Some(match sum {
                    None => v,
                    Some(s) => k.add(s, v),
                });
            }
            out.extend(sum);
        }
        out
    }
}

/// Eight nibbles as the four registers of an A fragment: registers 0 and 2 of the upper row, 1 and 3
/// of the lower one, every difference exact.
fn dequantize(k: &mut KernelBuilder, word: Value, offsets: &[Value; 2]) -> Vec<Value> {
    /// `(a & b) | c`
    const AND_OR: u8 = 0xea;
    let pair = Ty::vec(DType::F16, 2);
    let thousand = k.u32(0x6400_6400);
    let (low_mask, high_mask) = (k.u32(0x000f_000f), k.u32(0x00f0_00f0));
    let sixteenth = k.const_bits(pair, 0x2c00);
    let mut out = Vec::new();
    let shifted = k.shr_imm(word, 8);
    for word in [word, shifted] {
        let low = k.lop3(word, low_mask, thousand, AND_OR);
        let low = k.bitcast(low, pair);
        out.push(k.add(low, offsets[0]));
        let high = k.lop3(word, high_mask, thousand, AND_OR);
        let high = k.bitcast(high, pair);
        out.push(k.fma(high, sixteenth, offsets[1]));
    }
    out
}
