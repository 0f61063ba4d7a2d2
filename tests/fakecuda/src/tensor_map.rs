//! Tensor maps, in the simulator's encoding.

use ptxsim::{ElementType, OobFill, Swizzle, TensorMap};
use std::ffi::c_uint;

use crate::{Code, INVALID_VALUE, with_context};

/// # Safety
/// As the driver's documentation says.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuTensorMapEncodeTiled(
    out: *mut u8,
    element: c_uint,
    rank: c_uint,
    address: u64,
    dims: *const u64,
    strides: *const u64,
    tile: *const u32,
    element_strides: *const u32,
    interleave: c_uint,
    swizzle: c_uint,
    _promotion: c_uint,
    fill: c_uint,
) -> Code {
    with_context("cuTensorMapEncodeTiled", |s| {
        let rank = rank as usize;
        if s.config.sm < 90 || !(1..=5).contains(&rank) || interleave != 0 || out.is_null() {
            return Err(INVALID_VALUE);
        }
        if !(out as usize).is_multiple_of(64) {
            return Err(INVALID_VALUE);
        }
        // SAFETY: the caller's arrays have `rank` elements, the strides one less.
        let (dims, strides, tile, steps) = unsafe {
            (
                std::slice::from_raw_parts(dims, rank).to_vec(),
                std::slice::from_raw_parts(strides, rank - 1).to_vec(),
                std::slice::from_raw_parts(tile, rank).to_vec(),
                std::slice::from_raw_parts(element_strides, rank),
            )
        };
        if steps.iter().any(|s| *s != 1) {
            return Err(INVALID_VALUE);
        }
        let map = TensorMap {
            address,
            element: self::element(element)?,
            dims,
            strides,
            box_dims: tile,
            swizzle: match swizzle {
                0 => Swizzle::None,
                1 => Swizzle::B32,
                2 => Swizzle::B64,
                3 => Swizzle::B128,
                _ => return Err(INVALID_VALUE),
            },
            fill: if fill == 0 {
                OobFill::Zero
            } else {
                OobFill::Nan
            },
        };
        let bytes = map.encode().map_err(|e| {
            eprintln!("fakecuda: {e}");
            INVALID_VALUE
        })?;
        // SAFETY: the caller gives the 128 bytes of a tensor map.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), out, bytes.len()) };
        Ok(())
    })
}

/// `CUtensorMapDataType`.
fn element(number: c_uint) -> Result<ElementType, Code> {
    use ElementType::*;
    let all = [U8, U16, U32, S32, U64, S64, F16, F32, F64, Bf16];
    match number {
        11 => Ok(Tf32),
        n => all.get(n as usize).copied().ok_or(INVALID_VALUE),
    }
}
