//! The bytes of a plan: a mapped file, or memory that is aligned like one.

use memmap2::Mmap;
use std::fs::File;
use std::io;
use std::ops::Deref;

/// Alignment of every tensor in a plan file, in bytes.
pub(super) const ALIGN: usize = 64;

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Block([u8; ALIGN]);

/// Bytes in memory that start at a multiple of 64, as mapped files do: so tensors inside can be
/// read as slices of their element type.
pub struct AlignedBytes {
    blocks: Vec<Block>,
    len: usize,
}

impl AlignedBytes {
    /// Zeros of that length in bytes.
    pub fn zeroed(len: usize) -> Self {
        AlignedBytes {
            blocks: vec![Block([0; ALIGN]); len.div_ceil(ALIGN)],
            len,
        }
    }

    /// A copy of the bytes.
    pub fn copy_of(bytes: &[u8]) -> Self {
        let mut copy = AlignedBytes::zeroed(bytes.len());
        copy.as_mut_slice().copy_from_slice(bytes);
        copy
    }

    /// The bytes, for writing.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: the blocks are one allocation of blocks.len() * 64 ≥ len initialized bytes,
        // u8 has no alignment or validity requirement, and the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.blocks.as_mut_ptr().cast(), self.len) }
    }
}

impl Deref for AlignedBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: as in `as_mut_slice`, with a shared borrow.
        unsafe { std::slice::from_raw_parts(self.blocks.as_ptr().cast(), self.len) }
    }
}

/// Where the bytes of an open plan are.
pub(super) enum Backing {
    Mapped(Mmap),
    Memory(AlignedBytes),
}

impl Backing {
    pub(super) fn map(file: &File) -> io::Result<Self> {
        // SAFETY: the map is read-only. Its bytes change only if someone writes into the open
        // file in place; plan files are replaced by renaming, never written in place, and the
        // documentation of `PlanFile::open` asks the same of everyone else.
        Ok(Backing::Mapped(unsafe { Mmap::map(file)? }))
    }
}

impl Deref for Backing {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Backing::Mapped(m) => m,
            Backing::Memory(b) => b,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_aligned_and_keeps_its_length() {
        for len in [0, 1, 63, 64, 65, 1000] {
            let data: Vec<u8> = (0..len).map(|i| i as u8).collect();
            let copy = AlignedBytes::copy_of(&data);
            assert_eq!(&*copy, &data[..]);
            assert_eq!(copy.as_ptr() as usize % ALIGN, 0);
        }
    }
}
