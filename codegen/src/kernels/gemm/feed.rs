//! An operand's way from memory to a stage: rows of 128 bytes, 16-byte chunks.

use crate::lower::frame::{Frame, Source, Tensor};
use crate::lower::index::{
    Position, block_offset, coordinates, load_code, load_plain, load_scale, look_up, number_of,
    take_code,
};
use qcc_ir::format::Block;
use qcc_ir::kernel::{KernelBuilder, Round, Sat, Ty, Value};
use qcc_ir::plan::Layout;
use qcc_ir::{DType, DimExpr};

/// What is put into shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The stored elements; zero points are dealt with after the sum.
    Direct,
    /// Codes minus zero points, in the fragment's format; scales are applied after the sum.
    Codes,
    /// Real values in the fragment's format.
    Real,
}

/// One operand of the product.
pub(super) struct Feed {
    /// The operand.
    pub(super) t: Tensor,
    /// What is put into shared memory.
    pub(super) kind: Kind,
    /// Format there.
    pub(super) to: DType,
    /// Elements of a row.
    k: DimExpr,
}

/// A chunk: row of the operand, first element of K, and whether both exist.
pub(super) struct Chunk {
    /// Row, 0 where it does not exist.
    pub(super) row: Value,
    /// First element.
    pub(super) at: Value,
    /// Whether the row and at least the first element exist.
    pub(super) inside: Value,
}

impl Feed {
    /// The operand as `to` elements.
    pub(super) fn new(t: Tensor, kind: Kind, to: DType) -> Feed {
        let k =
            t.ty.shape
                .last()
                .cloned()
                .unwrap_or_else(|| DimExpr::from(1));
        Feed { t, kind, to, k }
    }

    /// Elements of a chunk.
    pub(super) fn lanes(&self) -> u32 {
        128 / self.to.bits()
    }

    /// Whether each row begins at a multiple of `bytes`, and is one long.
    fn aligned(&self, bytes: i64) -> bool {
        let bits = i64::from(self.t.ty.elem.storage().bits());
        self.k
            .as_const()
            .is_some_and(|k| (k * bits) % (8 * bytes) == 0)
    }

    /// Whether chunks are copied without passing through registers.
    pub(super) fn is_async(&self) -> bool {
        self.kind == Kind::Direct && self.aligned(16) && matches!(self.t.codes, Source::Pointer(_))
    }

    fn element(&self, fr: &mut Frame, c: &Chunk) -> Value {
        let (row, at) = (fr.k.cvt(c.row, DType::I64), fr.k.cvt(c.at, DType::I64));
        let k = fr.dim(&self.k);
        let k = fr.k.cvt(k, DType::I64);
        fr.k.fma(row, k, at)
    }

    /// Brings a chunk to `dst`, 16 bytes of shared memory.
    pub(super) fn fetch(&self, fr: &mut Frame, c: &Chunk, dst: Value) {
        if self.is_async()
            && let Source::Pointer(p) = self.t.codes
        {
            let at = self.element(fr, c);
            let src = fr.k.ptr_add(p, at);
            let (none, all) = (fr.k.u32(0), fr.k.u32(16));
            let bytes = fr.k.select(c.inside, all, none);
            return fr.k.cp_async(dst, src, 16, Some(bytes));
        }
        let lanes = self.values(fr, c);
        let v = pack(&mut fr.k, &lanes, self.to);
        let dst = fr.k.ptr_cast(dst, self.to);
        fr.k.store(dst, v);
    }

    /// The chunk's elements in the fragment's format, 0 where they do not exist.
    fn values(&self, fr: &mut Frame, c: &Chunk) -> Vec<Value> {
        let n = self.lanes();
        let scale = self.params(fr, c);
        let k = fr.dim(&self.k);
        let first = self.element(fr, c);
        let whole = self.whole_chunk();
        let raw = match (self.t.layout, whole) {
            (Layout::MmaNibbles, _) => Some(self.load_fragments(fr, c)),
            (_, true) => Some(self.load_chunk(fr, first, c.inside)),
            _ => None,
        };
        (0..n)
            .map(|i| {
                let at = fr.k.add_imm(c.at, i64::from(i));
                let exists = fr.k.lt(at, k);
                let exists = fr.k.and(exists, c.inside);
                let own = match &scale {
                    Some(s) => Some(*s),
                    None => self.params_at(fr, c, at, exists),
                };
                let code = match &raw {
                    Some(v) => v[i as usize],
                    None => {
                        let at = fr.k.add_imm(first, i64::from(i));
                        self.load_one(fr, at, exists)
                    }
                };
                self.convert(fr, code, own, (!whole).then_some(exists), c.inside)
            })
            .collect()
    }

    /// Whether a chunk's codes are one aligned load.
    fn whole_chunk(&self) -> bool {
        let bytes = i64::from(self.lanes() * self.t.ty.elem.storage().bits() / 8);
        (1..=16).contains(&bytes)
            && self.aligned(bytes)
            && matches!(self.t.codes, Source::Pointer(_))
    }

    fn load_chunk(&self, fr: &mut Frame, first: Value, inside: Value) -> Vec<Value> {
        let Source::Pointer(p) = self.t.codes else {
            return Vec::new();
        };
        let d = self.t.ty.elem.storage();
        let n = self.lanes() as u8;
        let per = d.per_byte();
        if per == 1 {
            let p = fr.k.ptr_add(p, first);
            let none = fr.k.const_bits(Ty::vec(d, n), 0);
            let v = fr.k.load_if(p, inside, none);
            return fr.k.lanes(v);
        }
        let at = fr.k.shr_imm(first, per.ilog2());
        let p = fr.k.ptr_add(p, at);
        let none = fr.k.const_bits(Ty::vec(DType::U8, n / per as u8), 0);
        let v = fr.k.load_if(p, inside, none);
        let bytes = fr.k.lanes(v);
        let mut out = Vec::new();
        for b in bytes {
            let b = fr.k.cvt(b, DType::I32);
            for i in 0..per as u32 {
                let code = fr.k.shr_imm(b, i * d.bits());
                let code = fr.k.and_imm(code, (1 << d.bits()) - 1);
                out.push(number_of(&mut fr.k, code, d));
            }
        }
        out
    }

    /// The 8 codes of a chunk of `mma-nibbles`: two neighbouring words of a lane.
    fn load_fragments(&self, fr: &mut Frame, c: &Chunk) -> Vec<Value> {
        let Source::Pointer(p) = self.t.codes else {
            return Vec::new();
        };
        let d = self.t.ty.elem.storage();
        let k = &mut fr.k;
        let chunks = self.k.as_const().unwrap_or(0) / 64;
        let (row, at) = (k.cvt(c.row, DType::I64), k.cvt(c.at, DType::I64));
        let block = k.shr_imm(row, 4);
        let block = k.mul_imm(block, chunks);
        let chunk = k.shr_imm(at, 6);
        let block = k.add(block, chunk);
        // Words: 128 of a block, 4 of a lane; the lane is 4 (row mod 8) + (at mod 32) / 8.
        let place = k.mul_imm(block, 128);
        let quad = k.and_imm(row, 7);
        let quad = k.mul_imm(quad, 16);
        let place = k.add(place, quad);
        let part = k.and_imm(at, 31);
        let part = k.shr_imm(part, 3);
        let part = k.mul_imm(part, 4);
        let place = k.add(place, part);
        let half = k.and_imm(at, 32);
        let half = k.shr_imm(half, 4);
        let place = k.add(place, half);
        let words = k.ptr_cast(p, DType::U32);
        let words = k.ptr_add(words, place);
        let none = k.const_bits(Ty::vec(DType::U32, 2), 0);
        let v = k.load_if(words, c.inside, none);
        // The lower row of a fragment is one nibble further.
        let lower = k.shr_imm(c.row, 3);
        let lower = k.and_imm(lower, 1);
        let lower = k.shl_imm(lower, 2);
        let mut out = Vec::new();
        for word in k.lanes(v) {
            let word = k.shr(word, lower);
            for shift in [0, 16, 8, 24] {
                let nibble = k.shr_imm(word, shift);
                let nibble = k.and_imm(nibble, 15);
                let code = k.cvt(nibble, DType::I32);
                out.push(if d == DType::I4 {
                    k.add_imm(code, -8)
                } else {
                    code
                });
            }
        }
        out
    }

    /// One stored element, where it exists.
    fn load_one(&self, fr: &mut Frame, at: Value, exists: Value) -> Value {
        let d = self.t.ty.elem.storage();
        let Source::Pointer(p) = self.t.codes else {
            return load_plain(&mut fr.k, self.t.codes, d, at);
        };
        if d.per_byte() == 1 {
            let p = fr.k.ptr_add(p, at);
            let none = fr.k.const_bits(Ty::scalar(d), 0);
            return fr.k.load_if(p, exists, none);
        }
        let byte_at = fr.k.shr_imm(at, d.per_byte().ilog2());
        let p = fr.k.ptr_add(p, byte_at);
        let none = fr.k.const_bits(Ty::scalar(DType::U8), 0);
        let byte = fr.k.load_if(p, exists, none);
        take_code(&mut fr.k, byte, d, at)
    }

    /// Scale and zero point of the whole chunk, or `None` where they differ within it.
    fn params(&self, fr: &mut Frame, c: &Chunk) -> Option<Params> {
        let Some(q) = self.t.ty.elem.quant() else {
            return Some(Params::default());
        };
        let lanes = i64::from(self.lanes());
        let same = match q.block.0.last() {
            Some(Block::Fixed(n)) => i64::try_from(*n).is_ok_and(|n| n % lanes == 0),
            _ => true,
        };
        same.then(|| self.load_params(fr, c, c.at))
    }

    fn params_at(&self, fr: &mut Frame, c: &Chunk, at: Value, exists: Value) -> Option<Params> {
        let zero = fr.k.u32(0);
        let at = fr.k.select(exists, at, zero);
        Some(self.load_params(fr, c, at))
    }

    fn load_params(&self, fr: &mut Frame, c: &Chunk, at: Value) -> Params {
        let Some(q) = self.t.ty.elem.quant().cloned() else {
            return Params::default();
        };
        if self.kind == Kind::Direct || (self.kind == Kind::Codes && self.t.zero.is_none()) {
            return Params::default();
        }
        // Chunks that do not exist read the parameters of the first.
        let zero = fr.k.u32(0);
        let at = fr.k.select(c.inside, at, zero);
        let (last, lead) = match self.t.ty.shape.split_last() {
            Some((_, lead)) => (at, lead.to_vec()),
            None => return Params::default(),
        };
        let mut place = coordinates(fr, &lead, c.row);
        place.push(last);
        let p = Position {
            shape: self.t.ty.shape.clone(),
            at: place,
        };
        let at = block_offset(fr, &self.t, &p);
        if q.scale.is_table() {
            let table = self.t.scale.map(|s| (s, at));
            return Params {
                table,
                ..Params::default()
            };
        }
        let zero = self
            .t
            .zero
            .map(|z| load_code(&mut fr.k, z, q.zero.unwrap_or(DType::F32), at));
        let scale = match (self.kind, self.t.scale) {
            (Kind::Real, Some(s)) => Some(load_scale(&mut fr.k, &self.t, s, at)),
            _ => None,
        };
        Params {
            scale,
            zero,
            table: None,
        }
    }

    /// An element as the fragment's format. Elements that do not exist become 0, which matters
    /// where their code, 0, is another number.
    fn convert(
        &self,
        fr: &mut Frame,
        code: Value,
        p: Option<Params>,
        exists: Option<Value>,
        inside: Value,
    ) -> Value {
        let p = p.unwrap_or_default();
        let k = &mut fr.k;
        let plain = p.zero.is_none() && p.scale.is_none() && p.table.is_none();
        if plain && k.ty(code) == Ty::scalar(self.to) {
            return code;
        }
        let mut v = match p.table {
            Some((tables, at)) => look_up(k, &self.t, tables, at, code),
            None if k.ty(code) != Ty::F32 => k.cvt(code, DType::F32),
            None => code,
        };
        if let Some(z) = p.zero {
            v = k.sub(v, z);
        }
        if p.zero.is_some() || p.table.is_some() || self.t.ty.elem.storage() == DType::NF4 {
            let none = k.f32(0.0);
            v = k.select(exists.unwrap_or(inside), v, none);
        }
        if let Some(s) = p.scale {
            v = k.mul(v, s);
        }
        match self.to {
            DType::F32 => v,
            d if d.is_int() => k.cvt_with(v, d, Round::Rz, Sat::Sat),
            d => k.cvt(v, d),
        }
    }
}

/// What makes a number of an element's code, where that is done on the way.
#[derive(Clone, Copy, Default)]
struct Params {
    scale: Option<Value>,
    zero: Option<Value>,
    /// Where the tables are, and which is the element's.
    table: Option<(Source, Value)>,
}

/// Lanes of a chunk as one value of 16 bytes.
fn pack(k: &mut KernelBuilder, lanes: &[Value], d: DType) -> Value {
    debug_assert_eq!(lanes.len() as u32 * d.bits(), 128);
    k.pack(lanes)
}
