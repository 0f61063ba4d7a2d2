//! Conversions from and to e4m3 and e5m2.
//!
//! - e5m2 is the upper byte of f16.
//! - e4m3 shifted to f16's mantissa has an exponent too small by 8: times 2^8, exactly, subnormals
//!   too. Its NaN would become 480 and gets the bits of a NaN.
//! - From f32, by integers: add half of the last place and its last bit (half to even), shift,
//!   subtract the difference of the biases. Below the least normal number, adding a power of two
//!   lets the f32 adder round to the format's quantum.

use qcc_ir::DType;
use qcc_ir::kernel::{Cmp, KernelBuilder, Op, Round, Sat, Ty, Value};

use super::Site;
use super::lanes::{from_words, words};
use super::narrow::odd_from_f64;

const fn is_fp8(d: DType) -> bool {
    matches!(d, DType::E4M3 | DType::E5M2)
}

/// Replaces a conversion from or to FP8.
pub(super) fn convert(k: &mut KernelBuilder, site: &Site) -> Option<Value> {
    let Op::Convert { round, sat } = site.op else {
        return None;
    };
    let v = site.args[0];
    let ty = k.ty(v);
    let (from, to) = (ty.dtype()?, site.to[0].dtype()?);
    let native = site.arch.sm >= 89;
    use DType::*;
    match (from, to) {
        (Bool, _) | (_, Bool) => None,
        (_, F16) if is_fp8(from) && native => Some(paired(k, v, site)),
        (_, F16) if is_fp8(from) => Some(decode(k, v, from)),
        (_, BF16) if is_fp8(from) => Some(through(k, v, &[F16, F32], site)),
        (_, _) if is_fp8(from) && is_fp8(to) => Some(through(k, v, &[F16, F32], site)),
        (_, _) if is_fp8(from) => Some(through(k, v, &[F16], site)),
        (F32 | F16, _) if is_fp8(to) && native && sat == Sat::Sat && ty.lanes() == 1 => {
            Some(paired(k, v, site))
        }
        (F32, _) if is_fp8(to) && round == Round::Rn => Some(encode(k, v, to, sat)),
        (F64, _) if is_fp8(to) => {
            let odd = odd_from_f64(k, v)?;
            Some(k.cvt_with(odd, to, round, sat))
        }
        // Integers that f32 cannot hold are beyond the range anyway.
        (_, _) if is_fp8(to) => Some(through(k, v, &[F32], site)),
        _ => None,
    }
}

/// Through exact formats, then as the site says.
fn through(k: &mut KernelBuilder, v: Value, steps: &[DType], site: &Site) -> Value {
    let v = steps.iter().fold(v, |v, &step| k.cvt(v, step));
    k.op(site.op, &[v], &[site.to[0]])[0]
}

/// A scalar as one lane of the packed instruction.
fn paired(k: &mut KernelBuilder, v: Value, site: &Site) -> Value {
    let both = k.pack(&[v, v]);
    let both = k.op(site.op, &[both], &[site.to[0].with_lanes(2)])[0];
    k.lanes(both)[0]
}

fn decode(k: &mut KernelBuilder, v: Value, from: DType) -> Value {
    let lanes = k.ty(v).lanes();
    let zero = k.u32(0);
    let mut pairs = Vec::new();
    for word in words(k, v) {
        // Bytes to the upper bytes of halves: {b1, 0, b0, 0}, then {b3, 0, b2, 0}.
        for selector in [0x1404, 0x3424] {
            let selector = k.u32(selector);
            let halves = k.prmt(word, zero, selector);
            pairs.push(if from == DType::E4M3 {
                decode_e4m3(k, halves)
            } else {
                halves
            });
        }
    }
    pairs.truncate(usize::from(lanes.div_ceil(2)));
    let pairs: Vec<Value> = pairs
        .into_iter()
        .map(|p| k.bitcast(p, Ty::vec(DType::F16, 2)))
        .collect();
    if lanes == 1 {
        return k.lanes(pairs[0])[0];
    }
    k.pack(&pairs)
}

/// Two codes in the upper bytes of halves to two f16.
fn decode_e4m3(k: &mut KernelBuilder, halves: Value) -> Value {
    let sign = k.and_imm(halves, 0x8000_8000);
    let magnitude = k.and_imm(halves, 0x7f00_7f00);
    let magnitude = k.shr_imm(magnitude, 1);
    let bits = k.or(sign, magnitude);
    let small = k.bitcast(bits, Ty::vec(DType::F16, 2));
    let scale = k.const_bits(Ty::vec(DType::F16, 2), 0x5c00); // 256
    let number = k.mul(small, scale);
    let number = k.bitcast(number, DType::U32);
    // Only the NaN, 0x3f80, carries into the half's bit 14.
    let carried = k.add_imm(magnitude, 0x0080_0080);
    let nan = k.and_imm(carried, 0x4000_4000);
    let nan = k.shr_imm(nan, 14);
    let nan = k.mul_imm(nan, 0x7e00);
    k.or(number, nan)
}

/// How a format lies against f32.
struct Target {
    /// Mantissa bits that f32 has more.
    drop: u32,
    /// Difference of the biases in units of the code.
    bias: i64,
    /// Bits of the least normal number.
    least_normal: u32,
    /// Bits of the power of two whose last place is the format's quantum.
    quantum: u32,
    /// Greatest finite code, what overflow gives without saturation, NaN.
    max: u32,
    overflow: u32,
    nan: u32,
}

const E4M3: Target = Target {
    drop: 20,
    bias: 960,
    least_normal: 0x3c80_0000,
    quantum: 0x4680_0000,
    max: 0x7e,
    overflow: 0x7f,
    nan: 0x7f,
};

const E5M2: Target = Target {
    drop: 21,
    bias: 448,
    least_normal: 0x3880_0000,
    quantum: 0x4300_0000,
    max: 0x7b,
    overflow: 0x7c,
    nan: 0x7e,
};

fn encode(k: &mut KernelBuilder, v: Value, to: DType, sat: Sat) -> Value {
    let target = if to == DType::E4M3 { &E4M3 } else { &E5M2 };
    let ty = k.ty(v).with_dtype(to);
    let codes: Vec<Value> = k
        .lanes(v)
        .into_iter()
        .map(|lane| encode_one(k, lane, target, sat))
        .collect();
    let mut out = Vec::new();
    for four in codes.chunks(4) {
        let mut word = four[0];
        for (i, &code) in four.iter().enumerate().skip(1) {
            let code = k.shl_imm(code, 8 * i as u32);
            word = k.or(word, code);
        }
        out.push(word);
    }
    from_words(k, &out, ty)
}

/// The code of one f32, in the low byte of a word.
fn encode_one(k: &mut KernelBuilder, v: Value, t: &Target, sat: Sat) -> Value {
    let bits = k.bitcast(v, DType::U32);
    let magnitude = k.and_imm(bits, 0x7fff_ffff);
    let last = k.shr_imm(magnitude, t.drop);
    let last = k.and_imm(last, 1);
    let half = (1i64 << (t.drop - 1)) - 1;
    let rounded = k.add_imm(magnitude, half);
    let rounded = k.add(rounded, last);
    let normal = k.shr_imm(rounded, t.drop);
    let normal = k.add_imm(normal, -t.bias);
    let number = k.bitcast(magnitude, DType::F32);
    let quantum = k.const_bits(Ty::F32, u64::from(t.quantum));
    let sum = k.add(number, quantum);
    let sum = k.bitcast(sum, DType::U32);
    let subnormal = k.add_imm(sum, -i64::from(t.quantum));
    let least = k.u32(t.least_normal);
    let is_small = k.lt(magnitude, least);
    let code = k.select(is_small, subnormal, normal);
    let limit = k.u32(if sat == Sat::Sat { t.max } else { t.overflow });
    let code = k.min(code, limit);
    let infinity = k.u32(0x7f80_0000);
    let is_nan = k.cmp(Cmp::Gt, magnitude, infinity);
    let nan = k.u32(t.nan);
    let code = k.select(is_nan, nan, code);
    let sign = k.shr_imm(bits, 24);
    let sign = k.and_imm(sign, 0x80);
    k.or(code, sign)
}
