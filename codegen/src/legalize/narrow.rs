//! Conversions from and to bf16, to truth values, and saturating ones.

use qcc_ir::DType;
use qcc_ir::kernel::{Cmp, KernelBuilder, Op, Round, Sat, Ty, Value};

use super::Site;

/// Replaces a conversion between formats of at least 8 bits, FP8 aside.
pub(super) fn convert(k: &mut KernelBuilder, site: &Site) -> Option<Value> {
    let Op::Convert { round, sat } = site.op else {
        return None;
    };
    let v = site.args[0];
    let (from, to) = (k.ty(v).dtype()?, site.to[0].dtype()?);
    use DType::*;
    match (from, to) {
        (_, Bool) => {
            let zero = k.const_bits(k.ty(v), 0);
            Some(k.cmp(Cmp::Ne, v, zero))
        }
        (Bool, _) => {
            let one = k.const_bits(site.to[0], one(to));
            let zero = k.const_bits(site.to[0], 0);
            Some(k.select(v, one, zero))
        }
        (F32 | F64, F16 | BF16 | F32) if sat == Sat::Sat && to.bits() < from.bits() => {
            let inside = clamp(k, v, largest(to)?);
            Some(k.cvt_with(inside, to, round, Sat::Wrap))
        }
        (BF16, F32) => Some(bf16_to_f32(k, v)),
        (BF16, _) | (F16, BF16) => {
            let wide = k.cvt(v, F32);
            Some(k.cvt_with(wide, to, round, sat))
        }
        (F32, BF16) if k.ty(v).lanes() == 1 && round == Round::Rn => Some(f32_to_bf16(k, v)),
        (F64, BF16) => {
            let odd = odd_from_f64(k, v)?;
            Some(k.cvt_with(odd, BF16, round, sat))
        }
        (_, BF16) if from.is_int() && from.bits() < 32 => {
            let wide = k.cvt(v, F32);
            Some(k.cvt_with(wide, BF16, round, sat))
        }
        (_, BF16) if from.is_int() => {
            let odd = odd_from_int(k, v)?;
            Some(k.cvt_with(odd, BF16, round, sat))
        }
        _ => None,
    }
}

/// Code of 1 in a format.
const fn one(dtype: DType) -> u64 {
    match dtype {
        DType::F64 => 0x3ff0_0000_0000_0000,
        DType::F32 => 0x3f80_0000,
        DType::F16 => 0x3c00,
        DType::BF16 => 0x3f80,
        DType::E4M3 => 0x38,
        DType::E5M2 => 0x3c,
        _ => 1,
    }
}

/// The largest finite number of a format.
const fn largest(dtype: DType) -> Option<f64> {
    match dtype {
        DType::F16 => Some(65504.0),
        DType::BF16 => Some(3.389_531_389_251_535_5e38),
        DType::F32 => Some(f32::MAX as f64),
        _ => None,
    }
}

fn float_like(k: &mut KernelBuilder, like: Value, v: f64) -> Value {
    let ty = k.ty(like);
    let bits = match ty.dtype() {
        Some(DType::F64) => v.to_bits(),
        _ => u64::from((v as f32).to_bits()),
    };
    k.const_bits(ty, bits)
}

/// `v` limited to `[-limit, limit]`; a NaN stays one.
fn clamp(k: &mut KernelBuilder, v: Value, limit: f64) -> Value {
    let (high, low) = (float_like(k, v, limit), float_like(k, v, -limit));
    let above = k.cmp(Cmp::Gt, v, high);
    let v = k.select(above, high, v);
    let below = k.lt(v, low);
    k.select(below, low, v)
}

/// A bf16 is the upper half of its f32.
fn bf16_to_f32(k: &mut KernelBuilder, v: Value) -> Value {
    let lanes = k.ty(v).lanes();
    if lanes == 1 {
        let bits = k.bitcast(v, DType::U16);
        let bits = k.cvt(bits, DType::U32);
        let bits = k.shl_imm(bits, 16);
        return k.bitcast(bits, DType::F32);
    }
    let words = k.bitcast(v, Ty::vec(DType::U32, lanes / 2));
    let mut out = Vec::new();
    for word in k.lanes(words) {
        let (low, high) = (k.shl_imm(word, 16), k.and_imm(word, 0xffff_0000));
        out.extend([k.bitcast(low, DType::F32), k.bitcast(high, DType::F32)]);
    }
    k.pack(&out)
}

/// Round half to even by adding; the carry runs into the exponent as it should.
fn f32_to_bf16(k: &mut KernelBuilder, v: Value) -> Value {
    let bits = k.bitcast(v, DType::U32);
    let magnitude = k.and_imm(bits, 0x7fff_ffff);
    let last = k.shr_imm(bits, 16);
    let last = k.and_imm(last, 1);
    let rounded = k.add_imm(bits, 0x7fff);
    let rounded = k.add(rounded, last);
    let code = k.shr_imm(rounded, 16);
    let sign = k.shr_imm(bits, 16);
    let sign = k.and_imm(sign, 0x8000);
    let quiet = k.u32(0x7fc0);
    let nan = k.or(sign, quiet);
    let infinity = k.u32(0x7f80_0000);
    let is_nan = k.cmp(Cmp::Gt, magnitude, infinity);
    let code = k.select(is_nan, nan, code);
    let code = k.cvt(code, DType::U16);
    k.bitcast(code, DType::BF16)
}

/// Sets the last bit of `rounded` (toward zero) where the conversion was not exact.
fn make_odd(k: &mut KernelBuilder, rounded: Value, inexact: Value) -> Value {
    let bits = k.bitcast(rounded, DType::U32);
    let one = k.u32(1);
    let odd = k.or(bits, one);
    let bits = k.select(inexact, odd, bits);
    k.bitcast(bits, DType::F32)
}

/// An f64 as f32, rounded to odd: rounding that once more is rounding once.
pub(super) fn odd_from_f64(k: &mut KernelBuilder, v: Value) -> Option<Value> {
    if k.ty(v).lanes() != 1 {
        return None;
    }
    let rounded = k.cvt_with(v, DType::F32, Round::Rz, Sat::Wrap);
    let back = k.cvt(rounded, DType::F64);
    let inexact = k.cmp(Cmp::Ne, back, v);
    Some(make_odd(k, rounded, inexact))
}

/// An integer of 32 or 64 bits as f32, rounded to odd.
fn odd_from_int(k: &mut KernelBuilder, v: Value) -> Option<Value> {
    let Ty::Val { dtype, lanes: 1 } = k.ty(v) else {
        return None;
    };
    let rounded = k.cvt_with(v, DType::F32, Round::Rz, Sat::Wrap);
    let back = k.cvt_with(rounded, dtype, Round::Rz, Sat::Wrap);
    let inexact = k.cmp(Cmp::Ne, back, v);
    Some(make_odd(k, rounded, inexact))
}
