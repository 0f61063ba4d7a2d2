//! Memory of the GPU, accounted and checked before it is taken, and pinned memory of the host.
//!
//! Weights are copied from a mapped file through two pinned buffers: while the GPU fetches one,
//! the processor fills the other. Copying from the mapping itself would make the driver do the
//! same through a buffer of its own, one page fault at a time.

use cudarc::driver::sys;
use qcc_ir::diag::Result;
use std::ffi::c_void;
use std::sync::{Mutex, MutexGuard};

use super::api::check;
use super::error::{failed, no_memory};
use super::event::Event;
use super::gpu::Gpu;

/// Bytes of one buffer of an upload.
const CHUNK: usize = 8 << 20;

/// Locks; a thread that panicked while it held the lock left nothing half done.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}

pub(super) fn length(bytes: u64) -> Result<usize> {
    usize::try_from(bytes).map_err(|e| no_memory(bytes, e))
}

impl Gpu {
    /// Bytes that are free and that there are, at this moment.
    ///
    /// # Errors
    /// `Q0743` if the driver does not say.
    pub fn memory(&self) -> Result<(u64, u64)> {
        self.enter()?;
        let (mut free, mut total) = (0, 0);
        // SAFETY: a context is current; the function writes two numbers.
        check("cuMemGetInfo", unsafe {
            sys::cuMemGetInfo_v2(&mut free, &mut total)
        })?;
        Ok((free as u64, total as u64))
    }

    /// Bytes allocated through this object and not freed yet.
    pub fn used(&self) -> u64 {
        lock(&self.live).values().sum()
    }

    /// Allocates memory that starts at a multiple of 256.
    ///
    /// # Errors
    /// `Q0733` if less is free; nothing is allocated then.
    pub fn alloc(&self, bytes: u64) -> Result<u64> {
        let (free, total) = self.memory()?;
        if bytes > free {
            let text = format!("{free} of {total} are free, {} are ours", self.used());
            return Err(no_memory(bytes, text));
        }
        let mut at = 0;
        // SAFETY: a context is current; the function writes one address.
        let result = unsafe { sys::cuMemAlloc_v2(&mut at, length(bytes.max(1))?) };
        check("cuMemAlloc", result).map_err(|d| match d.number() {
            733 => no_memory(bytes, d.message()),
            _ => d,
        })?;
        lock(&self.live).insert(at, bytes);
        Ok(at)
    }

    /// Frees an allocation, after all work that the GPU was given.
    pub fn free(&self, at: u64) {
        if lock(&self.live).remove(&at).is_some() && self.enter().is_ok() {
            // SAFETY: it was allocated and not freed; the driver waits for pending work.
            unsafe {
                sys::cuMemFree_v2(at);
            }
        }
    }

    /// Copies bytes to the GPU and returns when they are there.
    ///
    /// # Errors
    /// Those of the driver: `Q0743`, or a fault of a kernel that ran before.
    pub fn upload(&self, at: u64, bytes: &[u8]) -> Result<()> {
        self.enter()?;
        let mut uploader = lock(&self.uploader);
        if uploader.is_none() {
            *uploader = Some(Uploader::new()?);
        }
        match uploader.as_mut() {
            Some(u) => u.upload(at, bytes),
            None => Err(failed("upload", "no buffer")),
        }
    }
}

/// Pinned memory of the host. It is freed while the context of its GPU is current.
pub(super) struct Pinned {
    at: *mut u8,
    len: usize,
}

// SAFETY: it owns its memory, which any thread may use.
unsafe impl Send for Pinned {}

impl Pinned {
    /// Needs a current context.
    pub(super) fn new(len: usize) -> Result<Self> {
        let mut at: *mut c_void = std::ptr::null_mut();
        // SAFETY: a context is current; the function writes one pointer.
        check("cuMemHostAlloc", unsafe {
            sys::cuMemHostAlloc(&mut at, len, 0)
        })?;
        if at.is_null() {
            return Err(failed("cuMemHostAlloc", "it gave no memory"));
        }
        let at = at.cast::<u8>();
        // SAFETY: the allocation has `len` bytes; they become initialized before a slice is made.
        unsafe { at.write_bytes(0, len) };
        Ok(Pinned { at, len })
    }

    pub(super) fn bytes(&self) -> &[u8] {
        // SAFETY: `len` initialized bytes that live as long as `self`.
        unsafe { std::slice::from_raw_parts(self.at, self.len) }
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.at, self.len) }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` and freed once.
        unsafe {
            sys::cuMemFreeHost(self.at.cast());
        }
    }
}

/// Starts a copy of `len` bytes at `from` of a pinned buffer.
///
/// The caller leaves those bytes alone until the copy is done.
pub(super) fn copy_in(
    at: u64,
    pinned: &Pinned,
    from: usize,
    len: usize,
    stream: sys::CUstream,
) -> Result<()> {
    let source = pinned.bytes()[from..from + len].as_ptr();
    // SAFETY: the source is pinned memory inside the buffer; the driver checks the destination.
    check("cuMemcpyHtoDAsync", unsafe {
        sys::cuMemcpyHtoDAsync_v2(at, source.cast(), len, stream)
    })
}

/// Two pinned buffers and the stream on which they are sent. Used with the context current.
pub(super) struct Uploader {
    buffers: [(Pinned, Event); 2],
    stream: sys::CUstream,
}

// SAFETY: the stream belongs to it alone, and any thread may use it.
unsafe impl Send for Uploader {}

impl Uploader {
    fn new() -> Result<Self> {
        let buffer = || Ok((Pinned::new(CHUNK)?, Event::new()?));
        let buffers = [buffer()?, buffer()?];
        let mut stream = std::ptr::null_mut();
        // SAFETY: a context is current; 1 makes a stream that does not wait for the default one.
        check("cuStreamCreate", unsafe {
            sys::cuStreamCreate(&mut stream, 1)
        })?;
        Ok(Uploader { buffers, stream })
    }

    fn upload(&mut self, at: u64, bytes: &[u8]) -> Result<()> {
        let sent = self.send(at, bytes);
        // Also after an error: the buffers must not be in flight when the next upload fills them.
        // SAFETY: the stream is live.
        let done = check("cuStreamSynchronize", unsafe {
            sys::cuStreamSynchronize(self.stream)
        });
        sent.and(done)
    }

    fn send(&mut self, at: u64, bytes: &[u8]) -> Result<()> {
        let mut to = at;
        for (i, chunk) in bytes.chunks(CHUNK).enumerate() {
            let (pinned, sent) = &mut self.buffers[i % 2];
            // An event that was never recorded is done.
            sent.wait()?;
            pinned.bytes_mut()[..chunk.len()].copy_from_slice(chunk);
            copy_in(to, pinned, 0, chunk.len(), self.stream)?;
            sent.record(self.stream)?;
            to += chunk.len() as u64;
        }
        Ok(())
    }
}

impl Drop for Uploader {
    fn drop(&mut self) {
        // SAFETY: made in `new` and destroyed once; nothing is in flight on it.
        unsafe {
            sys::cuStreamDestroy_v2(self.stream);
        }
    }
}
