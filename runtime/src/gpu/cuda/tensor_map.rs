//! Tensor maps: descriptions of a tensor in global memory for bulk copies (sm_90 and newer).

use cudarc::driver::sys::{self, CUtensorMap, CUtensorMapSwizzle};
use cudarc::driver::sys::{
    CUtensorMapDataType, CUtensorMapFloatOOBfill, CUtensorMapInterleave, CUtensorMapL2promotion,
};
use qcc_ir::diag::Result;
use std::ptr;

use super::api::check;
use super::error::impossible;
use super::gpu::Gpu;

/// Element of a tensor map; formats narrower than a byte are described as bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TensorElement {
    /// 8 bits of anything.
    U8,
    /// 16-bit integers.
    U16,
    /// 32-bit integers without sign.
    U32,
    /// 32-bit integers.
    I32,
    /// 64-bit integers.
    I64,
    /// IEEE half precision.
    F16,
    /// bfloat16.
    Bf16,
    /// IEEE single precision.
    F32,
}

/// A tensor in memory and the tile that one copy moves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorMap {
    /// Where it begins; a multiple of 16.
    pub address: u64,
    /// Its elements.
    pub element: TensorElement,
    /// Elements along each axis, the innermost first: 1 to 5 axes.
    pub dims: Vec<u64>,
    /// Bytes from one element to the next along each axis but the innermost; multiples of 16.
    pub strides: Vec<u64>,
    /// Elements of the tile along each axis, at most 256.
    pub tile: Vec<u32>,
    /// Width of the swizzle in bytes: 0, 32, 64 or 128.
    pub swizzle: u32,
}

impl Gpu {
    /// The 128 bytes of a tensor map, for a kernel parameter. Elements outside the tensor read as 0.
    ///
    /// # Errors
    /// `Q0730` if the map breaks a rule of the hardware.
    pub fn tensor_map(&self, map: &TensorMap) -> Result<[u8; 128]> {
        let rank = map.dims.len();
        let bad = |why: String| impossible(format!("{why}: {map:?}"));
        if !(1..=5).contains(&rank) || map.strides.len() + 1 != rank || map.tile.len() != rank {
            return Err(bad("a tensor map of so many axes".into()));
        }
        let swizzle = match map.swizzle {
            0 => CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_NONE,
            32 => CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_32B,
            64 => CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_64B,
            128 => CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_128B,
            other => return Err(bad(format!("a swizzle of {other} bytes"))),
        };
        self.enter()?;
        let element_strides = vec![1u32; rank];
        let mut out = CUtensorMap { opaque: [0; 16] };
        // SAFETY: the arrays have as many elements as the rank says (one less for the strides);
        // the driver checks values and writes the 128 bytes.
        let made = unsafe {
            sys::cuTensorMapEncodeTiled(
                &mut out,
                element(map.element),
                rank as u32,
                ptr::without_provenance_mut(map.address as usize),
                map.dims.as_ptr(),
                map.strides.as_ptr(),
                map.tile.as_ptr(),
                element_strides.as_ptr(),
                CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
                swizzle,
                CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
                CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
            )
        };
        check("cuTensorMapEncodeTiled", made).map_err(|d| bad(d.message().into()))?;
        let mut bytes = [0; 128];
        for (to, word) in bytes.chunks_exact_mut(8).zip(out.opaque) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        Ok(bytes)
    }
}

fn element(e: TensorElement) -> CUtensorMapDataType {
    use CUtensorMapDataType::*;
    match e {
        TensorElement::U8 => CU_TENSOR_MAP_DATA_TYPE_UINT8,
        TensorElement::U16 => CU_TENSOR_MAP_DATA_TYPE_UINT16,
        TensorElement::U32 => CU_TENSOR_MAP_DATA_TYPE_UINT32,
        TensorElement::I32 => CU_TENSOR_MAP_DATA_TYPE_INT32,
        TensorElement::I64 => CU_TENSOR_MAP_DATA_TYPE_INT64,
        TensorElement::F16 => CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
        TensorElement::Bf16 => CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
        TensorElement::F32 => CU_TENSOR_MAP_DATA_TYPE_FLOAT32,
    }
}
