//! How kernel values are held in Cranelift values.
//!
//! A scalar is one value (a truth value an `i8`, a narrow float its bits in `i16` or `i8`). A
//! vector of 32-bit lanes is cut into pieces of 128 bits with four lanes each, one of 64-bit
//! lanes into pieces of two; truth values of vectors are masks of 32-bit lanes. Lanes of 8 and
//! 16 bits are held one by one.

use super::failed;
use cranelift_codegen::ir::{Type, types};
use qcc_ir::DType;
use qcc_ir::diag::Result;
use qcc_ir::kernel::Ty;

/// The Cranelift type of a scalar of this format.
pub(super) fn scalar(d: DType) -> Result<Type> {
    Ok(match d {
        DType::F64 => types::F64,
        DType::F32 => types::F32,
        DType::F16 | DType::BF16 | DType::I16 | DType::U16 => types::I16,
        DType::E4M3 | DType::E5M2 | DType::E8M0 | DType::I8 | DType::U8 | DType::Bool => types::I8,
        DType::I64 | DType::U64 => types::I64,
        DType::I32 | DType::U32 => types::I32,
        d @ (DType::I4 | DType::U4 | DType::I2 | DType::U2 | DType::E2M1 | DType::NF4) => {
            return Err(failed(format!("{d} values in a serial kernel")));
        }
    })
}

/// The types of the pieces that hold a value.
pub(super) fn pieces(ty: Ty) -> Result<Vec<Type>> {
    let (d, lanes) = match ty {
        Ty::Val { dtype, lanes } => (dtype, usize::from(lanes)),
        Ty::Ptr { .. } => return Ok(vec![types::I64]),
        other => {
            return Err(failed(format!(
                "a value of type {other} in a serial kernel"
            )));
        }
    };
    if lanes == 1 {
        return Ok(vec![scalar(d)?]);
    }
    let piece = match d {
        DType::F32 => types::F32X4,
        DType::F64 => types::F64X2,
        DType::I32 | DType::U32 | DType::Bool => types::I32X4,
        DType::I64 | DType::U64 => types::I64X2,
        _ => return Ok(vec![scalar(d)?; lanes]),
    };
    let per = piece.lane_count() as usize;
    if !lanes.is_multiple_of(per) {
        return Err(failed(format!("a vector of type {ty}")));
    }
    Ok(vec![piece; lanes / per])
}
