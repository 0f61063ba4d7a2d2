//! Rust functions that compiled kernels call: conversions of narrow floats, by the definitions
//! of [`qcc_ir::format`], and functions of one float that are not expanded in place.

use qcc_ir::DType;
use qcc_ir::format::{
    Overflow, decode_bf16, decode_e4m3, decode_e5m2, decode_f16, encode_bf16, encode_e4m3,
    encode_e5m2, encode_f16,
};
use qcc_ir::kernel::Math;

extern "C" fn f16_to_f32(code: u32) -> f32 {
    decode_f16(code as u16)
}
extern "C" fn bf16_to_f32(code: u32) -> f32 {
    decode_bf16(code as u16)
}
extern "C" fn e4m3_to_f32(code: u32) -> f32 {
    decode_e4m3(code as u8)
}
extern "C" fn e5m2_to_f32(code: u32) -> f32 {
    decode_e5m2(code as u8)
}
extern "C" fn f32_to_f16(x: f32) -> u32 {
    u32::from(encode_f16(x))
}
extern "C" fn f32_to_bf16(x: f32) -> u32 {
    u32::from(encode_bf16(x))
}
extern "C" fn f32_to_e4m3(x: f32) -> u32 {
    u32::from(encode_e4m3(x, Overflow::Saturate))
}
extern "C" fn f32_to_e5m2(x: f32) -> u32 {
    u32::from(encode_e5m2(x, Overflow::Saturate))
}
extern "C" fn exp2(x: f32) -> f32 {
    x.exp2()
}
extern "C" fn log2(x: f32) -> f32 {
    x.log2()
}
extern "C" fn log(x: f32) -> f32 {
    x.ln()
}
extern "C" fn sin(x: f32) -> f32 {
    x.sin()
}
extern "C" fn cos(x: f32) -> f32 {
    x.cos()
}

/// A conversion to f32 takes the code as a `u32`; the others give it as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signature {
    /// `u32 -> f32`
    Decode,
    /// `f32 -> u32`
    Encode,
    /// `f32 -> f32`
    Real,
}

/// The function that decodes a narrow float.
pub(super) fn decode(d: DType) -> Option<&'static str> {
    Some(match d {
        DType::F16 => "qcc_f16_to_f32",
        DType::BF16 => "qcc_bf16_to_f32",
        DType::E4M3 => "qcc_e4m3_to_f32",
        DType::E5M2 => "qcc_e5m2_to_f32",
        _ => return None,
    })
}

/// The function that rounds to a narrow float; 8-bit ones saturate.
pub(super) fn encode(d: DType) -> Option<&'static str> {
    Some(match d {
        DType::F16 => "qcc_f32_to_f16",
        DType::BF16 => "qcc_f32_to_bf16",
        DType::E4M3 => "qcc_f32_to_e4m3",
        DType::E5M2 => "qcc_f32_to_e5m2",
        _ => return None,
    })
}

/// The function of one float; `None` for those that are expanded in place.
pub(super) fn real(f: Math) -> Option<&'static str> {
    Some(match f {
        Math::Exp2 => "qcc_exp2",
        Math::Log2 => "qcc_log2",
        Math::Log => "qcc_log",
        Math::Sin => "qcc_sin",
        Math::Cos => "qcc_cos",
        _ => return None,
    })
}

/// Every function with its address.
pub(super) fn table() -> Vec<(&'static str, *const u8)> {
    vec![
        ("qcc_f16_to_f32", f16_to_f32 as *const u8),
        ("qcc_bf16_to_f32", bf16_to_f32 as *const u8),
        ("qcc_e4m3_to_f32", e4m3_to_f32 as *const u8),
        ("qcc_e5m2_to_f32", e5m2_to_f32 as *const u8),
        ("qcc_f32_to_f16", f32_to_f16 as *const u8),
        ("qcc_f32_to_bf16", f32_to_bf16 as *const u8),
        ("qcc_f32_to_e4m3", f32_to_e4m3 as *const u8),
        ("qcc_f32_to_e5m2", f32_to_e5m2 as *const u8),
        ("qcc_exp2", exp2 as *const u8),
        ("qcc_log2", log2 as *const u8),
        ("qcc_log", log as *const u8),
        ("qcc_sin", sin as *const u8),
        ("qcc_cos", cos as *const u8),
    ]
}
