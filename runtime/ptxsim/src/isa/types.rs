//! Type modifiers.

use crate::num::format::{self, Format};

/// Kind of a type, apart from its width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Bits,
    Unsigned,
    Signed,
    Float,
    /// Two floats of half the width.
    Pair,
    Pred,
}

/// A type modifier: kind, bits, and the element format of floats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ty {
    pub(crate) kind: Kind,
    pub(crate) bits: u32,
    pub(crate) format: Option<Format>,
}

const fn int(kind: Kind, bits: u32) -> Ty {
    Ty {
        kind,
        bits,
        format: None,
    }
}

const fn float(bits: u32, f: Format) -> Ty {
    Ty {
        kind: Kind::Float,
        bits,
        format: Some(f),
    }
}

const fn pair(bits: u32, f: Format) -> Ty {
    Ty {
        kind: Kind::Pair,
        bits,
        format: Some(f),
    }
}

/// f64 has no [`Format`]; it is the float type without one.
pub(crate) const F64: Ty = Ty {
    kind: Kind::Float,
    bits: 64,
    format: None,
};
pub(crate) const F32: Ty = float(32, format::F32);
pub(crate) const F16: Ty = float(16, format::F16);
pub(crate) const BF16: Ty = float(16, format::BF16);
pub(crate) const TF32: Ty = float(32, format::TF32);
pub(crate) const F16X2: Ty = pair(32, format::F16);
pub(crate) const BF16X2: Ty = pair(32, format::BF16);
pub(crate) const E4M3X2: Ty = pair(16, format::E4M3);
pub(crate) const E5M2X2: Ty = pair(16, format::E5M2);
pub(crate) const B32: Ty = int(Kind::Bits, 32);
pub(crate) const B64: Ty = int(Kind::Bits, 64);
pub(crate) const U32: Ty = int(Kind::Unsigned, 32);
pub(crate) const S32: Ty = int(Kind::Signed, 32);
pub(crate) const PRED: Ty = int(Kind::Pred, 1);

impl Ty {
    /// The type of a modifier, none for any other modifier.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "f16" => F16,
            "bf16" => BF16,
            "tf32" => TF32,
            "f32" => F32,
            "f64" => F64,
            "f16x2" => F16X2,
            "bf16x2" => BF16X2,
            "e4m3x2" => E4M3X2,
            "e5m2x2" => E5M2X2,
            "e2m1x2" => pair(8, format::E2M1),
            "e2m3x2" => pair(16, format::E2M3),
            "e3m2x2" => pair(16, format::E3M2),
            "e4m3" => float(8, format::E4M3),
            "e5m2" => float(8, format::E5M2),
            "pred" => PRED,
            _ => {
                let (kind, bits) = name.split_at_checked(1)?;
                let kind = match kind {
                    "b" => Kind::Bits,
                    "u" => Kind::Unsigned,
                    "s" => Kind::Signed,
                    _ => return None,
                };
                match (kind, bits) {
                    (_, "8") => int(kind, 8),
                    (_, "16") => int(kind, 16),
                    (_, "32") => int(kind, 32),
                    (_, "64") => int(kind, 64),
                    (Kind::Bits, "128") => int(kind, 128),
                    (Kind::Unsigned | Kind::Signed, "4") => int(kind, 4),
                    _ => return None,
                }
            }
        })
    }

    pub(crate) fn is_int(self) -> bool {
        matches!(self.kind, Kind::Bits | Kind::Unsigned | Kind::Signed)
    }

    pub(crate) fn is_float(self) -> bool {
        matches!(self.kind, Kind::Float | Kind::Pair)
    }

    pub(crate) fn signed(self) -> bool {
        self.kind == Kind::Signed
    }

    /// All-ones of the type's width.
    pub(crate) fn mask(self) -> u64 {
        if self.bits >= 64 {
            u64::MAX
        } else {
            (1 << self.bits) - 1
        }
    }
}
