//! Device memory: allocations with guard gaps, and which of their bytes have been written.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering::Relaxed};

/// An address in device memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DevPtr(pub u64);

impl DevPtr {
    /// The address `bytes` further on.
    #[must_use]
    pub fn offset(self, bytes: u64) -> Self {
        Self(self.0.wrapping_add(bytes))
    }
}

/// Why a host access was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryError(pub String);

impl fmt::Display for MemoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for MemoryError {}

/// First address ever handed out; everything below belongs to the windows of other state spaces.
const START: u64 = 0x7f00_0000_0000;
/// Gap between allocations, so that an overrun never lands in a neighbour.
const GAP: u64 = 4096;
const ALIGN: u64 = 512;
/// Largest single allocation: 64 GiB.
const MAX_BYTES: u64 = 1 << 36;

/// One allocation. Words are atomic so that blocks on several threads may touch the same memory.
pub(crate) struct Alloc {
    pub(crate) base: u64,
    pub(crate) len: u64,
    words: Box<[AtomicU64]>,
    /// One bit a byte; empty when everything is initialized.
    init: Box<[AtomicU64]>,
}

impl Alloc {
    #[inline]
    fn ptr(&self) -> *const u8 {
        self.words.as_ptr().cast()
    }

    /// Loads `bytes` (1, 2, 4 or 8) at a multiple of itself inside the allocation.
    #[inline]
    pub(crate) fn load(&self, off: u64, bytes: u32) -> u64 {
        assert!(off + u64::from(bytes) <= self.len && off.is_multiple_of(u64::from(bytes)));
        // SAFETY: the range lies inside `words`, is aligned to its size, and every access to the words
        // is atomic; `AtomicUn` has the layout of `un`.
        unsafe {
            let p = self.ptr().add(off as usize);
            match bytes {
                1 => u64::from((*p.cast::<AtomicU8>()).load(Relaxed)),
                2 => u64::from((*p.cast::<AtomicU16>()).load(Relaxed)),
                4 => u64::from((*p.cast::<AtomicU32>()).load(Relaxed)),
                _ => (*p.cast::<AtomicU64>()).load(Relaxed),
            }
        }
    }

    /// Stores `bytes` (1, 2, 4 or 8) at a multiple of itself inside the allocation.
    #[inline]
    pub(crate) fn store(&self, off: u64, bytes: u32, v: u64) {
        assert!(off + u64::from(bytes) <= self.len && off.is_multiple_of(u64::from(bytes)));
        // SAFETY: as for `load`.
        unsafe {
            let p = self.ptr().add(off as usize);
            match bytes {
                1 => (*p.cast::<AtomicU8>()).store(v as u8, Relaxed),
                2 => (*p.cast::<AtomicU16>()).store(v as u16, Relaxed),
                4 => (*p.cast::<AtomicU32>()).store(v as u32, Relaxed),
                _ => (*p.cast::<AtomicU64>()).store(v, Relaxed),
            }
        }
        self.set_init(off, u64::from(bytes));
    }

    pub(crate) fn read_bytes(&self, off: u64, out: &mut [u8]) {
        for (i, b) in out.iter_mut().enumerate() {
            *b = self.load(off + i as u64, 1) as u8;
        }
    }

    pub(crate) fn write_bytes(&self, off: u64, data: &[u8]) {
        for (i, b) in data.iter().enumerate() {
            self.store(off + i as u64, 1, u64::from(*b));
        }
    }

    #[inline]
    fn set_init(&self, off: u64, len: u64) {
        if self.init.is_empty() {
            return;
        }
        let (mut at, end) = (off, off + len);
        while at < end {
            let n = (64 - at % 64).min(end - at);
            let mask = (u64::MAX >> (64 - n)) << (at % 64);
            self.init[(at / 64) as usize].fetch_or(mask, Relaxed);
            at += n;
        }
    }

    /// Have all bytes of the range been written?
    #[inline]
    pub(crate) fn is_init(&self, off: u64, len: u64) -> bool {
        if self.init.is_empty() {
            return true;
        }
        let (mut at, end) = (off, off + len);
        while at < end {
            let n = (64 - at % 64).min(end - at);
            let mask = (u64::MAX >> (64 - n)) << (at % 64);
            if self.init[(at / 64) as usize].load(Relaxed) & mask != mask {
                return false;
            }
            at += n;
        }
        true
    }
}

/// Device memory, kept between launches.
#[derive(Default)]
pub struct Memory {
    allocs: Vec<Alloc>,
    next: u64,
    /// Addresses of the variables of each module that was launched.
    pub(crate) variables: BTreeMap<u64, Vec<u64>>,
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Memory({} allocations)", self.allocs.len())
    }
}

impl Memory {
    /// Empty memory.
    #[must_use]
    pub fn new() -> Self {
        Self {
            allocs: vec![],
            next: START,
            variables: BTreeMap::new(),
        }
    }

    /// Allocates `bytes` aligned to 512. The bytes are zero but count as never written: a kernel that
    /// reads them before a write is at fault.
    ///
    /// # Errors
    /// More than 64 GiB, or the host has no memory left.
    pub fn alloc(&mut self, bytes: u64) -> Result<DevPtr, MemoryError> {
        self.next = self.next.max(START);
        if bytes > MAX_BYTES {
            return Err(MemoryError(format!(
                "allocation of {bytes} bytes is above the limit of {MAX_BYTES}"
            )));
        }
        let words = bytes.div_ceil(8).max(1) as usize;
        let alloc = Alloc {
            base: self.next,
            len: bytes,
            words: zeros(words)?,
            init: zeros(bytes.div_ceil(64).max(1) as usize)?,
        };
        let base = alloc.base;
        self.next = (base + bytes + GAP).next_multiple_of(ALIGN);
        self.allocs.push(alloc);
        Ok(DevPtr(base))
    }

    /// Frees an allocation; later accesses to it are out of bounds.
    ///
    /// # Errors
    /// `ptr` is not the start of an allocation.
    pub fn free(&mut self, ptr: DevPtr) -> Result<(), MemoryError> {
        match self.allocs.binary_search_by_key(&ptr.0, |a| a.base) {
            Ok(i) => {
                self.allocs.remove(i);
                Ok(())
            }
            Err(_) => Err(MemoryError(format!(
                "{:#x} is not the start of an allocation",
                ptr.0
            ))),
        }
    }

    /// Copies bytes from the host; they count as written.
    ///
    /// # Errors
    /// The range does not lie inside one allocation.
    pub fn write(&mut self, ptr: DevPtr, data: &[u8]) -> Result<(), MemoryError> {
        let (i, off) = self.range(ptr, data.len() as u64)?;
        let alloc = &mut self.allocs[i];
        for (k, b) in data.iter().enumerate() {
            let at = off as usize + k;
            let word = alloc.words[at / 8].get_mut();
            let shift = at % 8 * 8;
            *word = *word & !(0xff << shift) | u64::from(*b) << shift;
        }
        if off == 0 && data.len() as u64 == alloc.len {
            alloc.init = Box::default();
        } else {
            alloc.set_init(off, data.len() as u64);
        }
        Ok(())
    }

    /// Copies bytes to the host.
    ///
    /// # Errors
    /// The range does not lie inside one allocation.
    pub fn read(&self, ptr: DevPtr, out: &mut [u8]) -> Result<(), MemoryError> {
        let (i, off) = self.range(ptr, out.len() as u64)?;
        for (k, b) in out.iter_mut().enumerate() {
            let at = off as usize + k;
            *b = (self.allocs[i].words[at / 8].load(Relaxed) >> (at % 8 * 8)) as u8;
        }
        Ok(())
    }

    /// Declares the whole allocation that starts at `ptr` unwritten, so that reads of stale data of an
    /// earlier use are found.
    ///
    /// # Errors
    /// `ptr` is not the start of an allocation.
    pub fn mark_uninit(&mut self, ptr: DevPtr) -> Result<(), MemoryError> {
        match self.allocs.binary_search_by_key(&ptr.0, |a| a.base) {
            Ok(i) => {
                self.allocs[i].init = zeros(self.allocs[i].len.div_ceil(64).max(1) as usize)?;
                Ok(())
            }
            Err(_) => Err(MemoryError(format!(
                "{:#x} is not the start of an allocation",
                ptr.0
            ))),
        }
    }

    /// Declares part of an allocation unwritten: a region of an arena that is about to be used anew.
    ///
    /// # Errors
    /// The range does not lie inside one allocation.
    pub fn mark_uninit_range(&mut self, ptr: DevPtr, bytes: u64) -> Result<(), MemoryError> {
        let (i, off) = self.range(ptr, bytes)?;
        let alloc = &mut self.allocs[i];
        if alloc.init.is_empty() {
            alloc.init = zeros(alloc.len.div_ceil(64).max(1) as usize)?;
            alloc.init.iter_mut().for_each(|w| *w.get_mut() = u64::MAX);
        }
        for k in off..off + bytes {
            *alloc.init[(k / 64) as usize].get_mut() &= !(1 << (k % 64));
        }
        Ok(())
    }

    /// Have all bytes of the range been written by host or kernels?
    ///
    /// # Errors
    /// The range does not lie inside one allocation.
    pub fn is_written(&self, ptr: DevPtr, bytes: u64) -> Result<bool, MemoryError> {
        let (i, off) = self.range(ptr, bytes)?;
        Ok(self.allocs[i].is_init(off, bytes))
    }

    fn range(&self, ptr: DevPtr, len: u64) -> Result<(usize, u64), MemoryError> {
        self.locate(ptr.0, len).ok_or_else(|| {
            MemoryError(format!(
                "{:#x} + {len} bytes does not lie inside one allocation",
                ptr.0
            ))
        })
    }

    pub(crate) fn allocs(&self) -> &[Alloc] {
        &self.allocs
    }

    /// Allocation and offset of a range, none when it is not wholly inside one.
    #[inline]
    pub(crate) fn locate(&self, addr: u64, len: u64) -> Option<(usize, u64)> {
        let i = self
            .allocs
            .partition_point(|a| a.base <= addr)
            .checked_sub(1)?;
        let off = addr - self.allocs[i].base;
        (off.checked_add(len)? <= self.allocs[i].len).then_some((i, off))
    }
}

fn zeros(n: usize) -> Result<Box<[AtomicU64]>, MemoryError> {
    let mut v: Vec<AtomicU64> = Vec::new();
    v.try_reserve_exact(n)
        .map_err(|_| MemoryError(format!("no host memory for {} bytes", n * 8)))?;
    v.resize_with(n, AtomicU64::default);
    Ok(v.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allocations_are_apart_and_remember_what_was_written() {
        let mut m = Memory::new();
        let (a, b) = (m.alloc(10).unwrap(), m.alloc(100).unwrap());
        assert!(b.0 >= a.0 + 10 + GAP);
        assert!(m.locate(a.0 + 8, 4).is_none());
        m.write(a.offset(2), &[1, 2, 3]).unwrap();
        assert!(m.is_written(a.offset(2), 3).unwrap());
        assert!(!m.is_written(a.offset(2), 4).unwrap());
        let mut out = [0; 4];
        m.read(a.offset(1), &mut out).unwrap();
        assert_eq!(out, [0, 1, 2, 3]);
        m.write(b, &[7; 100]).unwrap();
        m.mark_uninit_range(b.offset(4), 2).unwrap();
        assert!(m.is_written(b, 4).unwrap() && !m.is_written(b, 5).unwrap());
        m.free(a).unwrap();
        assert!(m.read(a, &mut out).is_err());
    }
}
