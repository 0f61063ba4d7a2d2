//! Shared memory of one block.

use crate::isa::program::SHARED_START;

/// Bytes of shared memory with their initialization state; addresses begin at [`SHARED_START`].
#[derive(Default)]
pub(crate) struct SharedMem {
    data: Vec<u8>,
    init: Vec<u8>,
}

impl SharedMem {
    /// Ready for a new block that uses addresses below `end`.
    pub(crate) fn reset(&mut self, end: u32) {
        let n = (end - SHARED_START) as usize;
        self.data.resize(n, 0);
        self.init.clear();
        self.init.resize(n, 0);
    }

    /// Does the range lie in shared memory?
    #[inline]
    pub(crate) fn contains(&self, addr: u32, len: u32) -> bool {
        addr >= SHARED_START
            && u64::from(addr - SHARED_START) + u64::from(len) <= self.data.len() as u64
    }

    /// Loads up to 8 bytes; the range was checked.
    #[inline]
    pub(crate) fn load(&self, addr: u32, bytes: u32) -> u64 {
        let at = (addr - SHARED_START) as usize;
        let s = &self.data[at..at + bytes as usize];
        match s.len() {
            4 => u64::from(u32::from_le_bytes([s[0], s[1], s[2], s[3]])),
            8 => u64::from_le_bytes([s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7]]),
            2 => u64::from(u16::from_le_bytes([s[0], s[1]])),
            _ => s.iter().rev().fold(0, |v, b| v << 8 | u64::from(*b)),
        }
    }

    /// Stores up to 8 bytes; the range was checked.
    #[inline]
    pub(crate) fn store(&mut self, addr: u32, bytes: u32, v: u64) {
        let at = (addr - SHARED_START) as usize;
        let n = bytes as usize;
        self.data[at..at + n].copy_from_slice(&v.to_le_bytes()[..n]);
        self.init[at..at + n].fill(1);
    }

    /// The bytes of a checked range.
    pub(crate) fn bytes(&self, addr: u32, len: u32) -> &[u8] {
        let at = (addr - SHARED_START) as usize;
        &self.data[at..at + len as usize]
    }

    pub(crate) fn write(&mut self, addr: u32, data: &[u8]) {
        let at = (addr - SHARED_START) as usize;
        self.data[at..at + data.len()].copy_from_slice(data);
        self.init[at..at + data.len()].fill(1);
    }

    #[inline]
    pub(crate) fn is_init(&self, addr: u32, len: u32) -> bool {
        let at = (addr - SHARED_START) as usize;
        self.init[at..at + len as usize].iter().all(|b| *b == 1)
    }
}
