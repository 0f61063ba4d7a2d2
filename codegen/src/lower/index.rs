//! Where an operand's element is, given the position of an output element.
//!
//! A kernel walks its output as rows and columns: the columns are the last dimensions that every
//! operand either holds whole or not at all, the rows are the rest. An operand that broadcasts
//! has stride 0 along its extents of 1:
//!
//! ```text
//! offset = Σ over dims d of coordinate(d) · stride(d)
//! ```

use super::frame::{Frame, Source, Tensor, memory_type};
use qcc_ir::format::{Kind, NF4_VALUES};
use qcc_ir::kernel::{Cmp, KernelBuilder, Ty, Value, to_compute};
use qcc_ir::{DType, DimExpr};

/// A position in the output: its coordinates along the output's dimensions, u32 each.
#[derive(Clone, Debug)]
pub struct Position {
    /// Extents of the output.
    pub shape: Vec<DimExpr>,
    /// One coordinate per extent.
    pub at: Vec<Value>,
}

/// Splits a linear u32 index into coordinates, the last dimension fastest.
pub fn coordinates(fr: &mut Frame, shape: &[DimExpr], linear: Value) -> Vec<Value> {
    let mut rest = linear;
    let mut at = vec![linear; shape.len()];
    for i in (0..shape.len()).rev() {
        if shape[i].as_const() == Some(1) {
            at[i] = fr.k.u32(0);
            continue;
        }
        let outermost = shape[..i].iter().all(|d| d.as_const() == Some(1));
        if outermost {
            at[i] = rest;
            rest = fr.k.u32(0);
            continue;
        }
        let n = fr.dim(&shape[i]);
        at[i] = fr.k.rem(rest, n);
        rest = fr.k.div(rest, n);
    }
    at
}

/// The offset in elements, as i64, of the element of a tensor of `shape` that a NumPy broadcast
/// puts at `p`.
pub fn offset(fr: &mut Frame, shape: &[DimExpr], p: &Position) -> Value {
    let skip = p.shape.len() - shape.len().min(p.shape.len());
    let mut sum: Option<Value> = None;
    for (i, d) in shape.iter().enumerate() {
        if d.as_const() == Some(1) {
            continue;
        }
        // Horner: sum = sum·d + coordinate, which needs no strides.
        let here = fr.k.cvt(p.at[skip + i], DType::I64);
        sum = Some(match sum {
            None => here,
            Some(s) => {
                let n = fr.dim(d);
                let n = fr.k.cvt(n, DType::I64);
                let scaled = fr.k.mul(s, n);
                fr.k.add(scaled, here)
            }
        });
    }
    match sum {
        Some(s) => s,
        None => fr.k.i64(0),
    }
}

/// Loads element `at` (i64) of a plain part in its compute type.
pub fn load_plain(k: &mut KernelBuilder, src: Source, d: DType, at: Value) -> Value {
    match src {
        Source::Number(n) if d == DType::Bool => k.bool(n != 0.0),
        Source::Number(n) if d.is_float() => k.f32(round_to(n, d)),
        Source::Number(n) => k.i64(n as i64),
        Source::Pointer(p) => {
            let p = k.ptr_add(p, at);
            let v = k.load(p);
            if d == DType::Bool {
                let zero = k.int_like(v, 0);
                return k.cmp(Cmp::Ne, v, zero);
            }
            to_compute(k, d, v)
        }
    }
}

/// As [`load_plain`] where `inside` holds (everywhere without it), else 0.
pub fn load_plain_if(
    k: &mut KernelBuilder,
    src: Source,
    d: DType,
    at: Value,
    inside: Option<Value>,
) -> Value {
    let (Source::Pointer(p), Some(inside)) = (src, inside) else {
        return load_plain(k, src, d, at);
    };
    let p = k.ptr_add(p, at);
    let none = k.const_bits(Ty::scalar(memory_type(d)), 0);
    let v = k.load_if(p, inside, none);
    if d == DType::Bool {
        return k.cmp(Cmp::Ne, v, none);
    }
    to_compute(k, d, v)
}

/// A splat's number as its format holds it.
fn round_to(n: f64, d: DType) -> f32 {
    let mut v = [n];
    qcc_ir::format::round_slice(d, &mut v);
    v[0] as f32
}

/// Loads a code as f32. Packed codes are taken out of their byte, the lowest bits first.
pub fn load_code(k: &mut KernelBuilder, src: Source, d: DType, at: Value) -> Value {
    match src {
        Source::Pointer(p) if !d.is_int() && d.per_byte() == 1 => {
            let q = k.ptr_add(p, at);
            let v = k.load(q);
            if d == DType::F32 {
                v
            } else {
                k.cvt(v, DType::F32)
            }
        }
        Source::Number(n) => k.f32(n as f32),
        _ => {
            let code = load_int_code(k, src, d, at);
            if k.ty(code) == Ty::F32 {
                code
            } else {
                k.cvt(code, DType::F32)
            }
        }
    }
}

/// Loads an integer code, or an integral float, as i32 (an e2m1 code as its value in f32).
pub fn load_int_code(k: &mut KernelBuilder, src: Source, d: DType, at: Value) -> Value {
    let p = match src {
        Source::Number(n) => return k.i32(n as i32),
        Source::Pointer(p) => p,
    };
    if d.per_byte() == 1 {
        let q = k.ptr_add(p, at);
        let v = k.load(q);
        return if d == DType::I32 {
            v
        } else {
            k.cvt(v, DType::I32)
        };
    }
    let byte_at = k.shr_imm(at, d.per_byte().ilog2());
    let q = k.ptr_add(p, byte_at);
    let byte = k.load(q);
    take_code(k, byte, d, at)
}

/// The packed code of element `at` out of its byte.
pub fn take_code(k: &mut KernelBuilder, byte: Value, d: DType, at: Value) -> Value {
    let byte = k.cvt(byte, DType::I32);
    let within = k.and_imm(at, d.per_byte() as i64 - 1);
    let within = k.cvt(within, DType::U32);
    let shift = k.shl_imm(within, d.bits().ilog2());
    let shifted = k.shr(byte, shift);
    let code = k.and_imm(shifted, (1 << d.bits()) - 1);
    number_of(k, code, d)
}

/// The number of a packed code that stands alone in an i32: i32, or f32 for e2m1 and nf4.
///
/// The bits of e2m1 are the upper ones of an f32 whose exponent counts from another bias, so that
/// number times `2^(127 − 1)` is the value, also of the subnormal code.
pub fn number_of(k: &mut KernelBuilder, code: Value, d: DType) -> Value {
    match d.kind() {
        Kind::Signed => {
            let half = 1i64 << (d.bits() - 1);
            let high = k.int_like(code, half);
            let flipped = k.xor(code, high);
            k.add_imm(flipped, -half)
        }
        _ if d == DType::NF4 => choose_value(k, code, &NF4_VALUES),
        Kind::Float => {
            let sign = k.shr_imm(code, 3);
            let sign = k.shl_imm(sign, 31);
            let rest = k.and_imm(code, 7);
            let rest = k.shl_imm(rest, 22);
            let bits = k.or(sign, rest);
            let v = k.bitcast(bits, DType::F32);
            let by = k.f32(f32::from_bits((127 + 126) << 23));
            k.mul(v, by)
        }
        _ => code,
    }
}

/// The value at place `code` of a table that the kernel holds: of each pair of neighbours the one
/// that the lowest bit names, and so on, upwards.
fn choose_value(k: &mut KernelBuilder, code: Value, values: &[f32]) -> Value {
    let mut left: Vec<Value> = values.iter().map(|v| k.f32(*v)).collect();
    let zero = k.int_like(code, 0);
    let mut bit = 1;
    while left.len() > 1 {
        let set = k.and_imm(code, bit);
        let set = k.cmp(Cmp::Ne, set, zero);
        left = left
            .chunks(2)
            .map(|pair| k.select(set, pair[pair.len() - 1], pair[0]))
            .collect();
        bit <<= 1;
    }
    left[0]
}

/// Loads the value of a code of `t`, whose tables are at `tables`, from the one at place `block`.
pub fn look_up(
    k: &mut KernelBuilder,
    t: &Tensor,
    tables: Source,
    block: Value,
    code: Value,
) -> Value {
    let first = k.shl_imm(block, t.ty.elem.storage().bits());
    let code = k.cvt(code, DType::I64);
    let at = k.add(first, code);
    load_plain(k, tables, scale_format(t), at)
}

/// Loads the factor of a block of `t`: its stored scale, multiplied by the global one if there
/// is one.
pub fn load_scale(k: &mut KernelBuilder, t: &Tensor, stored: Source, at: Value) -> Value {
    let d = scale_format(t);
    let scale = match (d, stored) {
        (DType::E8M0, Source::Pointer(p)) => {
            let q = k.ptr_add(p, at);
            let code = k.load(q);
            power_of_two(k, code)
        }
        _ => load_plain(k, stored, d, at),
    };
    let Some(global) = t.global else {
        return scale;
    };
    let zero = k.i64(0);
    let global = load_plain(k, global, DType::F32, zero);
    k.mul(scale, global)
}

/// The value of an e8m0 code: its bits are an f32's exponent, but 2^-127 is subnormal and the
/// last code is NaN.
fn power_of_two(k: &mut KernelBuilder, code: Value) -> Value {
    let code = k.cvt(code, DType::U32);
    let bits = k.shl_imm(code, 23);
    let (least, none) = (k.u32(0), k.u32(255));
    let (is_least, is_none) = (k.eq(code, least), k.eq(code, none));
    let subnormal = k.u32(1 << 22);
    let nan = k.u32(0x7fc0_0000);
    let bits = k.select(is_least, subnormal, bits);
    let bits = k.select(is_none, nan, bits);
    k.bitcast(bits, DType::F32)
}

/// Loads an operand's real value at a position: plain, `(code − zero)·scale`, or from a table.
pub fn load_operand(fr: &mut Frame, t: &Tensor, p: &Position) -> Value {
    let at = offset(fr, &t.ty.shape, p);
    let Some(q) = t.ty.elem.quant().cloned() else {
        return load_plain(&mut fr.k, t.codes, t.ty.elem.storage(), at);
    };
    if let (true, Some(tables)) = (q.scale.is_table(), t.scale) {
        let code = load_int_code(&mut fr.k, t.codes, q.storage, at);
        let block_at = block_offset(fr, t, p);
        return look_up(&mut fr.k, t, tables, block_at, code);
    }
    let code = load_code(&mut fr.k, t.codes, q.storage, at);
    let block_at = block_offset(fr, t, p);
    let code = match t.zero {
        None => code,
        Some(z) => {
            let z = load_code(&mut fr.k, z, q.zero.unwrap_or(DType::F32), block_at);
            fr.k.sub(code, z)
        }
    };
    match t.scale {
        None => code,
        Some(s) => {
            let s = load_scale(&mut fr.k, t, s, block_at);
            fr.k.mul(code, s)
        }
    }
}

/// The format in which a tensor's scales are stored.
pub fn scale_format(t: &Tensor) -> DType {
    t.ty.elem.quant().map_or(DType::F32, |q| q.scale.stored())
}

/// The offset of the scale that covers the element at `p`, as i64.
pub fn block_offset(fr: &mut Frame, t: &Tensor, p: &Position) -> Value {
    use qcc_ir::format::Block;
    let Some(q) = t.ty.elem.quant().filter(|q| !q.block.is_tensor()).cloned() else {
        return fr.k.i64(0);
    };
    let skip = p.shape.len() - t.ty.shape.len().min(p.shape.len());
    let mut sum: Option<Value> = None;
    for (i, b) in q.block.0.iter().enumerate() {
        let (here, count) = match b {
            Block::All => continue,
            _ if t.ty.shape[i].as_const() == Some(1) => continue,
            Block::Fixed(1) => (p.at[skip + i], fr.dim(&t.ty.shape[i])),
            Block::Fixed(n) => {
                let n = *n as i64;
                let d = fr.dim(&t.ty.shape[i]);
                let d = fr.k.add_imm(d, n - 1);
                (fr.k.div_imm(p.at[skip + i], n), fr.k.div_imm(d, n))
            }
        };
        let here = fr.k.cvt(here, DType::I64);
        sum = Some(match sum {
            None => here,
            Some(s) => {
                let count = fr.k.cvt(count, DType::I64);
                let scaled = fr.k.mul(s, count);
                fr.k.add(scaled, here)
            }
        });
    }
    match sum {
        Some(s) => s,
        None => fr.k.i64(0),
    }
}

/// The pointer of a tensor's codes with a byte-wise element type, for stores.
pub fn codes_pointer(t: &Tensor) -> Option<(Value, DType)> {
    match t.codes {
        Source::Pointer(p) => Some((p, memory_type(t.ty.elem.storage()))),
        Source::Number(_) => None,
    }
}
