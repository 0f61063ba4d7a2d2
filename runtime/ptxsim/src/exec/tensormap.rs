//! Tensor maps: shape, strides, box and swizzle of a bulk tensor copy.
//!
//! The 128 bytes are this crate's own encoding (the driver's is opaque). A box element at box coordinates
//! b lies at shared offset Σ bᵢ · Πⱼ<ᵢ boxⱼ elements; swizzling then exchanges 16-byte chunks by XOR of
//! address bits 4..6 with bits 7..9.

use std::fmt;

const MAGIC: &[u8; 8] = b"PTXSIMTM";

/// Element types of a tensor map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum ElementType {
    U8,
    U16,
    U32,
    S32,
    U64,
    S64,
    F16,
    F32,
    F64,
    Bf16,
    Tf32,
}

impl ElementType {
    const ALL: [Self; 11] = [
        Self::U8,
        Self::U16,
        Self::U32,
        Self::S32,
        Self::U64,
        Self::S64,
        Self::F16,
        Self::F32,
        Self::F64,
        Self::Bf16,
        Self::Tf32,
    ];

    /// Bytes of one element.
    #[must_use]
    pub fn bytes(self) -> u32 {
        match self {
            Self::U8 => 1,
            Self::U16 | Self::F16 | Self::Bf16 => 2,
            Self::U32 | Self::S32 | Self::F32 | Self::Tf32 => 4,
            Self::U64 | Self::S64 | Self::F64 => 8,
        }
    }
}

/// Exchange of 16-byte chunks in shared memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum Swizzle {
    #[default]
    None,
    B32,
    B64,
    B128,
}

impl Swizzle {
    const ALL: [Self; 4] = [Self::None, Self::B32, Self::B64, Self::B128];

    /// Where the byte of an unswizzled address lies.
    #[must_use]
    pub fn apply(self, addr: u32) -> u32 {
        let mask = match self {
            Self::None => 0,
            Self::B32 => 1,
            Self::B64 => 3,
            Self::B128 => 7,
        };
        addr ^ (addr >> 7 & mask) << 4
    }

    fn span(self) -> u32 {
        match self {
            Self::None => u32::MAX,
            Self::B32 => 32,
            Self::B64 => 64,
            Self::B128 => 128,
        }
    }
}

/// What elements outside the tensor read as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum OobFill {
    /// Zero bits.
    #[default]
    Zero,
    /// A NaN with all bits but the sign set.
    Nan,
}

/// Description of a tensor in global memory and of the box that one copy moves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorMap {
    /// Address of element 0, a multiple of 16.
    pub address: u64,
    /// Element type.
    pub element: ElementType,
    /// Elements per dimension, innermost first, 1 to 5 of them.
    pub dims: Vec<u64>,
    /// Bytes from one index to the next for dimensions 1 and up, multiples of 16.
    pub strides: Vec<u64>,
    /// Elements of the box per dimension, at most 256.
    pub box_dims: Vec<u32>,
    /// Chunk exchange.
    pub swizzle: Swizzle,
    /// Value outside the tensor.
    pub fill: OobFill,
}

/// Why a tensor map is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorMapError(pub String);

impl fmt::Display for TensorMapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for TensorMapError {}

/// One contiguous part of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// None lies outside the tensor.
    pub(crate) global: Option<u64>,
    pub(crate) shared: u32,
    pub(crate) bytes: u32,
}

impl TensorMap {
    /// Checks the rules of `cuTensorMapEncodeTiled` that concern tiled, non-interleaved maps.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn check(&self) -> Result<(), TensorMapError> {
        let bad = |text: String| Err(TensorMapError(text));
        let rank = self.dims.len();
        let size = self.element.bytes();
        if !(1..=5).contains(&rank) || self.box_dims.len() != rank || self.strides.len() + 1 != rank
        {
            return bad(format!(
                "rank {rank} needs as many box dimensions and one stride less, from 1 to 5"
            ));
        }
        if !self.address.is_multiple_of(16) {
            return bad(format!("address {:#x} is no multiple of 16", self.address));
        }
        if let Some(s) = self
            .strides
            .iter()
            .find(|s| !s.is_multiple_of(16) || **s >= 1 << 40)
        {
            return bad(format!("stride {s} is no multiple of 16 below 2^40"));
        }
        if let Some(d) = self.dims.iter().find(|d| **d == 0 || **d > 1 << 32) {
            return bad(format!("dimension {d} is not in 1 to 2^32"));
        }
        if let Some(b) = self.box_dims.iter().find(|b| **b == 0 || **b > 256) {
            return bad(format!("box dimension {b} is not in 1 to 256"));
        }
        let inner = self.box_dims[0] * size;
        if !inner.is_multiple_of(16) || inner > self.swizzle.span() {
            return bad(format!(
                "the box is {inner} bytes wide: no multiple of 16, or wider than the swizzle"
            ));
        }
        if self.fill == OobFill::Nan
            && !matches!(
                self.element,
                ElementType::F16
                    | ElementType::F32
                    | ElementType::F64
                    | ElementType::Bf16
                    | ElementType::Tf32
            )
        {
            return bad("NaN fill needs a float element".into());
        }
        Ok(())
    }

    /// The 128 bytes to place in device memory or in a `.param` of alignment 64.
    ///
    /// # Errors
    /// As [`TensorMap::check`].
    pub fn encode(&self) -> Result<[u8; 128], TensorMapError> {
        self.check()?;
        let mut out = [0u8; 128];
        out[..8].copy_from_slice(MAGIC);
        out[8..16].copy_from_slice(&self.address.to_le_bytes());
        out[16] = self.dims.len() as u8;
        out[17] = self.element as u8;
        out[18] = self.swizzle as u8;
        out[19] = self.fill as u8;
        for (i, d) in self.dims.iter().enumerate() {
            out[20 + 4 * i..24 + 4 * i].copy_from_slice(&((d - 1) as u32).to_le_bytes());
        }
        for (i, s) in self.strides.iter().enumerate() {
            out[40 + 8 * i..48 + 8 * i].copy_from_slice(&s.to_le_bytes());
        }
        for (i, b) in self.box_dims.iter().enumerate() {
            out[72 + 2 * i..74 + 2 * i].copy_from_slice(&(*b as u16).to_le_bytes());
        }
        Ok(out)
    }

    /// Reads 128 bytes back.
    ///
    /// # Errors
    /// Bytes that [`TensorMap::encode`] did not write.
    pub fn decode(bytes: &[u8; 128]) -> Result<Self, TensorMapError> {
        let bad = || TensorMapError("these 128 bytes are no tensor map of this simulator".into());
        let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        let rank = bytes[16] as usize;
        if bytes[..8] != *MAGIC || !(1..=5).contains(&rank) {
            return Err(bad());
        }
        let map = Self {
            address: word(8),
            element: *ElementType::ALL.get(bytes[17] as usize).ok_or_else(bad)?,
            swizzle: *Swizzle::ALL.get(bytes[18] as usize).ok_or_else(bad)?,
            fill: if bytes[19] == 0 {
                OobFill::Zero
            } else {
                OobFill::Nan
            },
            dims: (0..rank)
                .map(|i| (word(20 + 4 * i) & 0xffff_ffff) + 1)
                .collect(),
            strides: (0..rank - 1).map(|i| word(40 + 8 * i)).collect(),
            box_dims: (0..rank)
                .map(|i| (word(72 + 2 * i) & 0xffff) as u32)
                .collect(),
        };
        map.check()?;
        Ok(map)
    }

    pub(crate) fn box_bytes(&self) -> u32 {
        self.box_dims.iter().product::<u32>() * self.element.bytes()
    }

    /// Bits of an element outside the tensor.
    pub(crate) fn fill_byte(&self, i: u32) -> u8 {
        let top = (i + 1).is_multiple_of(self.element.bytes());
        match self.fill {
            OobFill::Zero => 0,
            OobFill::Nan => {
                if top {
                    0x7f
                } else {
                    0xff
                }
            }
        }
    }

    /// The parts of the box at `coords` (innermost first) when its shared image begins at `shared`.
    pub(crate) fn pieces(&self, coords: &[i32], shared: u32) -> Vec<Piece> {
        let size = self.element.bytes();
        let row = self.box_dims[0];
        let rows: u32 = self.box_dims[1..].iter().product();
        let per_chunk = 16 / size;
        let mut out = Vec::new();
        for r in 0..rows {
            let (mut index, mut base, mut inside) = (r, i128::from(self.address), true);
            for (d, b) in self.box_dims[1..].iter().enumerate() {
                let c = i64::from(coords[d + 1]) + i64::from(index % b);
                index /= b;
                inside &= c >= 0 && (c as u64) < self.dims[d + 1];
                base += i128::from(c) * i128::from(self.strides[d]);
            }
            for chunk in (0..row).step_by(per_chunk as usize) {
                let at = self.swizzle.apply(shared + (r * row + chunk) * size);
                for e in 0..per_chunk {
                    let c = i64::from(coords[0]) + i64::from(chunk + e);
                    let here = inside && c >= 0 && (c as u64) < self.dims[0];
                    let global = here.then(|| (base + i128::from(c) * i128::from(size)) as u64);
                    push(
                        &mut out,
                        Piece {
                            global,
                            shared: at + e * size,
                            bytes: size,
                        },
                    );
                }
            }
        }
        out
    }
}

/// Appends, joining with the previous piece where both sides are contiguous.
fn push(out: &mut Vec<Piece>, p: Piece) {
    if let Some(last) = out.last_mut()
        && last.shared + last.bytes == p.shared
        && match (last.global, p.global) {
            (None, None) => true,
            (Some(a), Some(b)) => a + u64::from(last.bytes) == b,
            _ => false,
        }
    {
        last.bytes += p.bytes;
        return;
    }
    out.push(p);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map() -> TensorMap {
        TensorMap {
            address: 0x1000,
            element: ElementType::F16,
            dims: vec![100, 7],
            strides: vec![256],
            box_dims: vec![64, 8],
            swizzle: Swizzle::B128,
            fill: OobFill::Zero,
        }
    }

    #[test]
    fn maps_round_trip_and_refuse_broken_rules() {
        let m = map();
        assert_eq!(TensorMap::decode(&m.encode().unwrap()).unwrap(), m);
        assert!(
            TensorMap {
                strides: vec![100],
                ..m.clone()
            }
            .check()
            .is_err()
        );
        assert!(
            TensorMap {
                box_dims: vec![128, 8],
                ..m.clone()
            }
            .check()
            .is_err()
        );
        assert!(TensorMap { address: 8, ..m }.check().is_err());
        assert!(TensorMap::decode(&[0; 128]).is_err());
    }

    #[test]
    fn pieces_cover_the_box_once_and_mark_what_is_outside() {
        let m = map();
        let pieces = m.pieces(&[64, 2], 1024);
        assert_eq!(pieces.iter().map(|p| p.bytes).sum::<u32>(), m.box_bytes());
        let inside: u32 = pieces
            .iter()
            .filter(|p| p.global.is_some())
            .map(|p| p.bytes)
            .sum();
        assert_eq!(inside, 36 * 2 * 5);
        // Row 1, chunk 0 of a 128-byte swizzle lies at chunk 1.
        let first = 0x1000 + 3 * 256 + 64 * 2;
        let p = pieces.iter().find(|p| p.global == Some(first)).unwrap();
        assert_eq!(p.shared, 1024 + 128 + 16);
    }
}
