//! Types of kernel values: scalars, short vectors, pointers, tensor maps, wgmma results in flight.
//!
//! A vector is the concatenation of its lanes, lane 0 in the lowest bits. So `f16x2` and `e4m3x4`
//! are one 32-bit word, and a bitcast between types of equal size never moves a bit.

use std::fmt;
use std::str::FromStr;

use crate::DType;

/// Where the memory behind a pointer lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Space {
    /// Device memory (for serial kernels: the process's memory).
    Global,
    /// Device memory that no thread writes while the kernel runs.
    ReadOnly,
    /// Memory of the thread block.
    Shared,
    /// Shared memory of any block of the same cluster.
    Cluster,
}

impl Space {
    /// Every address space.
    pub const ALL: [Space; 4] = [
        Space::Global,
        Space::ReadOnly,
        Space::Shared,
        Space::Cluster,
    ];

    /// The name in the text form.
    pub const fn name(self) -> &'static str {
        match self {
            Space::Global => "global",
            Space::ReadOnly => "readonly",
            Space::Shared => "shared",
            Space::Cluster => "cluster",
        }
    }

    /// Bits of an address: 32 in the shared window, else 64.
    pub const fn address_bits(self) -> u32 {
        match self {
            Space::Global | Space::ReadOnly => 64,
            Space::Shared | Space::Cluster => 32,
        }
    }

    /// `true` for device memory, written by kernels or not.
    pub const fn is_global(self) -> bool {
        matches!(self, Space::Global | Space::ReadOnly)
    }
}

/// The type of a kernel value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ty {
    /// A scalar (`lanes == 1`) or a short vector.
    Val {
        /// Format of a lane.
        dtype: DType,
        /// Number of lanes: 1, 2, 4, 8, 16 or 32.
        lanes: u8,
    },
    /// An address of elements.
    Ptr {
        /// Format of an element; never a 4-bit one.
        elem: DType,
        /// Address space.
        space: Space,
    },
    /// A tensor map (TMA descriptor) of 128 bytes, passed as a kernel parameter.
    TensorMap,
    /// Accumulators that the tensor core is still writing. Linear: used exactly once.
    Pending {
        /// Format of an accumulator: `f32`, `f16` (two in a word) or `i32`.
        dtype: DType,
        /// 32-bit words per thread.
        words: u16,
    },
}

impl Ty {
    /// Truth value.
    pub const BOOL: Ty = Ty::scalar(DType::Bool);
    /// 32-bit unsigned integer.
    pub const U32: Ty = Ty::scalar(DType::U32);
    /// 32-bit signed integer.
    pub const I32: Ty = Ty::scalar(DType::I32);
    /// 64-bit unsigned integer.
    pub const U64: Ty = Ty::scalar(DType::U64);
    /// 64-bit signed integer.
    pub const I64: Ty = Ty::scalar(DType::I64);
    /// binary32.
    pub const F32: Ty = Ty::scalar(DType::F32);
    /// binary16.
    pub const F16: Ty = Ty::scalar(DType::F16);

    /// A scalar of this format.
    pub const fn scalar(dtype: DType) -> Ty {
        Ty::Val { dtype, lanes: 1 }
    }

    /// A vector of `lanes` elements.
    pub const fn vec(dtype: DType, lanes: u8) -> Ty {
        Ty::Val { dtype, lanes }
    }

    /// A pointer to elements of this format.
    pub const fn ptr(elem: DType, space: Space) -> Ty {
        Ty::Ptr { elem, space }
    }

    /// Format of a lane, if this is a scalar or a vector.
    pub const fn dtype(self) -> Option<DType> {
        match self {
            Ty::Val { dtype, .. } => Some(dtype),
            _ => None,
        }
    }

    /// Lanes of a scalar or vector, else 0.
    pub const fn lanes(self) -> u8 {
        match self {
            Ty::Val { lanes, .. } => lanes,
            _ => 0,
        }
    }

    /// `true` for scalars and vectors of floats.
    pub fn is_float(self) -> bool {
        self.dtype().is_some_and(DType::is_float)
    }

    /// `true` for scalars and vectors of integers.
    pub fn is_int(self) -> bool {
        self.dtype().is_some_and(DType::is_int)
    }

    /// `true` for one integer of 32 or 64 bits, as indices are.
    pub const fn is_index(self) -> bool {
        matches!(
            self,
            Ty::Val {
                dtype: DType::I32 | DType::U32 | DType::I64 | DType::U64,
                lanes: 1
            }
        )
    }

    /// `true` for a scalar or vector that fills exactly one 32-bit register.
    pub const fn is_word(self) -> bool {
        match self {
            Ty::Val {
                dtype: DType::Bool, ..
            } => false,
            Ty::Val { .. } => self.bits() == 32,
            _ => false,
        }
    }

    /// Size in bits (a truth value counts 8, a tensor map the bits of its address).
    pub const fn bits(self) -> u32 {
        match self {
            Ty::Val { dtype, lanes } => dtype.bits() * lanes as u32,
            Ty::Ptr { space, .. } => space.address_bits(),
            Ty::TensorMap => 64,
            Ty::Pending { words, .. } => words as u32 * 32,
        }
    }

    /// The vector of the same format with other lanes; other types are returned as they are.
    pub const fn with_lanes(self, lanes: u8) -> Ty {
        match self {
            Ty::Val { dtype, .. } => Ty::Val { dtype, lanes },
            other => other,
        }
    }

    /// The vector with the same lanes in another format; other types are returned as they are.
    pub const fn with_dtype(self, dtype: DType) -> Ty {
        match self {
            Ty::Val { lanes, .. } => Ty::Val { dtype, lanes },
            other => other,
        }
    }

    /// Whether such a type exists: lanes a power of two up to 32, no scalar of 4 bits, at most
    /// 256 bits in a vector, no pointer to half bytes, 1 to 128 words in flight. The formats of
    /// graph types that kernels take as bytes (two bits, e2m1, e8m0, nf4) are none here.
    pub fn exists(self) -> bool {
        use DType::{E2M1, E8M0, I2, NF4, U2};
        match self {
            Ty::Val {
                dtype: I2 | U2 | E2M1 | E8M0 | NF4,
                ..
            } => false,
            Ty::Val { dtype, lanes } => {
                lanes.is_power_of_two()
                    && lanes <= 32
                    && (dtype.bits() >= 8 || lanes > 1)
                    && self.bits() <= 256
            }
            Ty::Ptr { elem, .. } => elem.bits() >= 8 && elem != E8M0,
            Ty::TensorMap => true,
            Ty::Pending { dtype, words } => {
                matches!(dtype, DType::F32 | DType::F16 | DType::I32) && (1..=128).contains(&words)
            }
        }
    }
}

impl From<DType> for Ty {
    fn from(dtype: DType) -> Ty {
        Ty::scalar(dtype)
    }
}

impl fmt::Display for Ty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ty::Val { dtype, lanes: 1 } => write!(f, "{dtype}"),
            Ty::Val { dtype, lanes } => write!(f, "{dtype}x{lanes}"),
            Ty::Ptr { elem, space } => write!(f, "ptr<{elem},{}>", space.name()),
            Ty::TensorMap => f.write_str("tensormap"),
            Ty::Pending { dtype, words } => write!(f, "pending<{dtype},{words}>"),
        }
    }
}

impl FromStr for Ty {
    type Err = String;

    fn from_str(text: &str) -> Result<Ty, String> {
        parse(text)
            .filter(|t| t.exists())
            .ok_or_else(|| format!("unknown kernel type `{text}`"))
    }
}

fn parse(text: &str) -> Option<Ty> {
    if text == "tensormap" {
        return Some(Ty::TensorMap);
    }
    if let Some((head, rest)) = text.split_once('<') {
        let (a, b) = rest.strip_suffix('>')?.split_once(',')?;
        let dtype: DType = a.trim().parse().ok()?;
        return match head {
            "ptr" => {
                let space = Space::ALL.into_iter().find(|s| s.name() == b.trim())?;
                Some(Ty::ptr(dtype, space))
            }
            "pending" => Some(Ty::Pending {
                dtype,
                words: b.trim().parse().ok()?,
            }),
            _ => None,
        };
    }
    if let Ok(dtype) = text.parse::<DType>() {
        return Some(Ty::scalar(dtype));
    }
    let (name, lanes) = text.rsplit_once('x')?;
    let lanes: u8 = lanes.parse().ok()?;
    (lanes > 1).then_some(Ty::vec(name.parse().ok()?, lanes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips() {
        for text in [
            "f32",
            "f16x2",
            "e4m3x4",
            "i4x8",
            "bool",
            "ptr<f16,readonly>",
            "tensormap",
            "pending<f32,64>",
        ] {
            let ty: Ty = text.parse().expect("a type of the table above");
            assert_eq!(ty.to_string(), text);
        }
    }

    #[test]
    fn types_that_do_not_exist_are_refused() {
        for text in [
            "f33",
            "f16x3",
            "i4",
            "f64x8",
            "ptr<i4,global>",
            "ptr<e8m0,global>",
            "e2m1x8",
            "ptr<f32,nowhere>",
            "pending<f32,0>",
            "f32x1",
            "f32x64",
        ] {
            assert!(text.parse::<Ty>().is_err(), "{text}");
        }
    }
}
