//! Registers: how a kernel value is held.
//!
//! Four untyped classes: predicates, 16, 32 and 64 bits. A vector is cut into 32-bit words (or
//! 64-bit lanes); one of 16 bits fills a 16-bit register. Integers of 8 and 16 bits live in a
//! 32-bit register, extended by their sign; so do single bytes of any other format, with zeros.

use std::fmt;

use qcc_ir::DType;
use qcc_ir::format::Kind;
use qcc_ir::kernel::Ty;

/// A register class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Class {
    Pred,
    Half,
    Word,
    Double,
}

impl Class {
    pub(super) const ALL: [Class; 4] = [Class::Pred, Class::Half, Class::Word, Class::Double];

    /// Letter after the percent sign.
    pub(super) const fn letter(self) -> &'static str {
        match self {
            Class::Pred => "p",
            Class::Half => "h",
            Class::Word => "r",
            Class::Double => "d",
        }
    }

    /// The untyped PTX type.
    pub(super) const fn bits(self) -> &'static str {
        match self {
            Class::Pred => "pred",
            Class::Half => "b16",
            Class::Word => "b32",
            Class::Double => "b64",
        }
    }
}

/// A virtual register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Reg {
    pub(super) class: Class,
    pub(super) index: u32,
}

impl fmt::Display for Reg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "%{}{}", self.class.letter(), self.index)
    }
}

/// Class and number of the registers that hold a value of this type.
pub(super) fn layout(ty: Ty) -> (Class, usize) {
    let bits = ty.bits();
    match ty {
        Ty::Val {
            dtype: DType::Bool,
            lanes,
        } => (Class::Pred, usize::from(lanes)),
        Ty::Val { dtype, lanes } if dtype.bits() == 64 => (Class::Double, usize::from(lanes)),
        Ty::Val {
            dtype: DType::F16 | DType::BF16,
            lanes: 1,
        } => (Class::Half, 1),
        Ty::Val { lanes, .. } if bits == 16 && lanes > 1 => (Class::Half, 1),
        Ty::Val { .. } if bits <= 32 => (Class::Word, 1),
        Ty::Val { .. } => (Class::Word, bits as usize / 32),
        Ty::Ptr { .. } if bits == 32 => (Class::Word, 1),
        Ty::Ptr { .. } | Ty::TensorMap => (Class::Double, 1),
        Ty::Pending { words, .. } => (Class::Word, usize::from(words)),
    }
}

/// The typed suffix under which one register of a value takes part in arithmetic; `None` for
/// packed lanes that PTX has no arithmetic for.
pub(super) fn suffix(ty: Ty) -> Option<&'static str> {
    let Ty::Val { dtype, lanes } = ty else {
        return None;
    };
    Some(match (dtype, lanes) {
        (DType::F64, _) => "f64",
        (DType::F32, _) => "f32",
        (DType::F16, 1) => "f16",
        (DType::F16, _) => "f16x2",
        (DType::BF16, 1) => "bf16",
        (DType::BF16, _) => "bf16x2",
        (DType::I64, _) => "s64",
        (DType::U64, _) => "u64",
        (DType::I32, _) | (DType::I16 | DType::I8, 1) => "s32",
        (DType::U32, _) | (DType::U16 | DType::U8, 1) => "u32",
        _ => return None,
    })
}

/// Width of a scalar integer that is held extended in a wider register, with its signedness.
pub(super) fn narrow(ty: Ty) -> Option<&'static str> {
    match ty {
        Ty::Val {
            dtype: DType::I8,
            lanes: 1,
        } => Some("s8"),
        Ty::Val {
            dtype: DType::U8,
            lanes: 1,
        } => Some("u8"),
        Ty::Val {
            dtype: DType::I16,
            lanes: 1,
        } => Some("s16"),
        Ty::Val {
            dtype: DType::U16,
            lanes: 1,
        } => Some("u16"),
        _ => None,
    }
}

/// The bits that each register of a constant holds.
pub(super) fn constant_bits(ty: Ty, lane: u64) -> u64 {
    let Ty::Val { dtype, lanes } = ty else {
        return lane;
    };
    let bits = dtype.bits();
    if lanes == 1 {
        let signed = dtype.kind() == Kind::Signed && bits < 32;
        let shift = 64 - bits;
        return if signed {
            ((lane << shift) as i64 >> shift) as u32 as u64
        } else {
            lane
        };
    }
    let register = match layout(ty).0 {
        Class::Half => 16,
        Class::Word => ty.bits().min(32),
        _ => return lane,
    };
    (0..register / bits).fold(0, |word, i| word | lane << (i * bits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts() {
        let cases = [
            (Ty::vec(DType::F16, 8), (Class::Word, 4)),
            (Ty::vec(DType::E4M3, 2), (Class::Half, 1)),
            (Ty::scalar(DType::E4M3), (Class::Word, 1)),
            (Ty::scalar(DType::BF16), (Class::Half, 1)),
            (Ty::vec(DType::F32, 4), (Class::Word, 4)),
            (Ty::vec(DType::I4, 8), (Class::Word, 1)),
            (Ty::vec(DType::I4, 2), (Class::Word, 1)),
            (Ty::vec(DType::I64, 2), (Class::Double, 2)),
            (Ty::scalar(DType::I16), (Class::Word, 1)),
        ];
        for (ty, expected) in cases {
            assert_eq!(layout(ty), expected, "{ty}");
        }
    }

    #[test]
    fn constants_fill_registers() {
        assert_eq!(constant_bits(Ty::vec(DType::F16, 2), 0x3c00), 0x3c00_3c00);
        assert_eq!(constant_bits(Ty::vec(DType::E4M3, 2), 0x38), 0x3838);
        assert_eq!(constant_bits(Ty::vec(DType::I4, 8), 0xf), 0xffff_ffff);
        assert_eq!(constant_bits(Ty::scalar(DType::I8), 0x80), 0xffff_ff80);
        assert_eq!(constant_bits(Ty::scalar(DType::U8), 0x80), 0x80);
        assert_eq!(constant_bits(Ty::vec(DType::F32, 4), 1), 1);
    }
}
