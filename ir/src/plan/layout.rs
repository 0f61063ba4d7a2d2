//! How the elements of a weight lie in its entry of the file.
//!
//! | name | elements |
//! |---|---|
//! | `row-major` | dense, the last axis contiguous, 4-bit codes two in a byte, the first in its lower half |
//! | `mma-nibbles` | 4-bit codes `[n, k]` as the fragments of `mma.m16n8k16`, `n` in blocks of 16, `k` in blocks of 64 |
//!
//! In `mma-nibbles` a block of 16 rows and 64 columns is 512 bytes, blocks of one row of blocks lie
//! one after the other, and each of 32 lanes has 16 bytes of a block. The code of row `r` and column
//! `c` of a block is a nibble of one of the lane's four words of 32 bits:
//!
//! ```text
//! lane   = 4 (r mod 8) + (c mod 32) / 8
//! word   = 2 (c / 32) + (c mod 8) / 4
//! nibble = r / 8 + 2 ((c mod 4) / 2) + 4 (c mod 2)
//! ```
//!
//! so that word `s` of a lane is its A fragment of one product over 16 columns (nibbles `i` and
//! `i + 4` are the halves of register `i`; PTX ISA, "Matrix Fragments for mma.m16n8k16"), and the B
//! fragments of the two products over columns `32 h … 32 h + 31` are 16 consecutive bytes of 16-bit
//! activations. Signed codes have their highest bit flipped: a nibble is `code + 8`.

use crate::DType;

/// How a weight lies in its entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Layout {
    /// Dense, the last axis contiguous.
    #[default]
    RowMajor,
    /// 4-bit codes as fragments of the tensor core.
    MmaNibbles,
}

/// Rows and columns of a block of `mma-nibbles`.
const BLOCK: (u64, u64) = (16, 64);

impl Layout {
    /// Every layout.
    pub const ALL: [Layout; 2] = [Layout::RowMajor, Layout::MmaNibbles];

    /// The name in plans.
    pub const fn name(self) -> &'static str {
        match self {
            Layout::RowMajor => "row-major",
            Layout::MmaNibbles => "mma-nibbles",
        }
    }

    /// The layout of this name.
    pub fn named(name: &str) -> Option<Layout> {
        Layout::ALL.into_iter().find(|l| l.name() == name)
    }

    /// Whether a tensor can lie this way.
    pub fn takes(self, dtype: DType, dims: &[u64]) -> bool {
        match (self, dims) {
            (Layout::RowMajor, _) => true,
            (Layout::MmaNibbles, [n, k]) => {
                matches!(dtype, DType::I4 | DType::U4)
                    && n.is_multiple_of(BLOCK.0)
                    && k.is_multiple_of(BLOCK.1)
            }
            _ => false,
        }
    }

    /// The bytes of a row-major tensor in this layout, which are as many; none if it cannot lie so
    /// or the bytes are not those of such a tensor.
    pub fn pack(self, dtype: DType, dims: &[u64], dense: &[u8]) -> Option<Vec<u8>> {
        self.moved(dtype, dims, dense, |out, bytes, from, to, flip| {
            let code = bytes[from / 2] >> (4 * (from % 2)) & 15 ^ flip;
            out[to / 2] |= code << (4 * (to % 2));
        })
    }

    /// The row-major bytes of a tensor in this layout; the inverse of [`Layout::pack`].
    pub fn unpack(self, dtype: DType, dims: &[u64], packed: &[u8]) -> Option<Vec<u8>> {
        self.moved(dtype, dims, packed, |out, bytes, to, from, flip| {
            let code = bytes[from / 2] >> (4 * (from % 2)) & 15 ^ flip;
            out[to / 2] |= code << (4 * (to % 2));
        })
    }

    /// Calls `one(out, bytes, dense, packed, flip)` for the two nibble positions of every code.
    fn moved(
        self,
        dtype: DType,
        dims: &[u64],
        bytes: &[u8],
        one: impl Fn(&mut [u8], &[u8], usize, usize, u8),
    ) -> Option<Vec<u8>> {
        let count = dims.iter().try_fold(1u64, |n, d| n.checked_mul(*d))?;
        if !self.takes(dtype, dims) || dtype.byte_len(count)? != bytes.len() as u64 {
            return None;
        }
        let (Layout::MmaNibbles, [n, k]) = (self, dims) else {
            return Some(bytes.to_vec());
        };
        let (n, k) = (*n as usize, *k as usize);
        let flip = if dtype == DType::I4 { 8 } else { 0 };
        let mut out = vec![0; bytes.len()];
        for r in 0..n {
            for c in 0..k {
                one(&mut out, bytes, r * k + c, nibble(k, r, c), flip);
            }
        }
        Some(out)
    }
}

/// The position among all nibbles of the code in row `r` and column `c` of `[n, k]`.
fn nibble(k: usize, r: usize, c: usize) -> usize {
    let block = r / 16 * (k / 64) + c / 64;
    let (r, c) = (r % 16, c % 64);
    let lane = 4 * (r % 8) + c % 32 / 8;
    let word = 2 * (c / 32) + c % 8 / 4;
    let place = r / 8 + 2 * (c % 4 / 2) + 4 * (c % 2);
    1024 * block + 32 * lane + 8 * word + place
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packing_is_a_permutation_and_has_an_inverse() {
        let dims = [32, 128];
        let dense: Vec<u8> = (0..2048u32).map(|i| (i * 151 % 256) as u8).collect();
        for dtype in [DType::U4, DType::I4] {
            let packed = Layout::MmaNibbles.pack(dtype, &dims, &dense).unwrap();
            let back = Layout::MmaNibbles.unpack(dtype, &dims, &packed).unwrap();
            assert_eq!(back, dense);
            assert_ne!(packed, dense);
        }
        let mut seen = vec![false; 32 * 128];
        for r in 0..32 {
            for c in 0..128 {
                assert!(!std::mem::replace(&mut seen[nibble(128, r, c)], true));
            }
        }
    }

    #[test]
    fn a_code_lies_where_the_tensor_core_reads_it() {
        // Row 9, column 77: block 1, lane 4·1 + 13/8, word 2·0 + 5/4, nibble 1 + 2·0 + 4·1.
        assert_eq!(nibble(128, 9, 77), 1024 + 32 * 5 + 8 + 5);
        let mut dense = vec![0x88; 1024];
        // -7 at row 9, column 77, and the bias of 8 elsewhere gives zeros.
        dense[(9 * 128 + 77) / 2] = 0x98;
        let packed = Layout::MmaNibbles
            .pack(DType::I4, &[16, 128], &dense)
            .unwrap();
        let mut want = vec![0; 1024];
        want[(1024 + 32 * 5 + 8 + 5) / 2] = 0x10;
        assert_eq!(packed, want);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let l = Layout::MmaNibbles;
        assert!(l.pack(DType::I8, &[16, 64], &[0; 1024]).is_none());
        assert!(l.pack(DType::I4, &[16, 32], &[0; 256]).is_none());
        assert!(l.pack(DType::I4, &[8, 64], &[0; 256]).is_none());
        assert!(l.pack(DType::I4, &[16, 64], &[0; 511]).is_none());
        assert_eq!(Layout::named("mma-nibbles"), Some(l));
        assert_eq!(Layout::named("tiled"), None);
        let same = Layout::RowMajor.pack(DType::I8, &[2], &[1, 2]);
        assert_eq!(same, Some(vec![1, 2]));
    }
}
