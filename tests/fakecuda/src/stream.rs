//! Streams: work that is kept until something waits for it.

use std::ffi::c_uint;
use std::sync::Arc;

use crate::state::Stream;
use crate::{Code, INVALID_HANDLE, INVALID_VALUE, STREAM_CAPTURE_UNSUPPORTED, give, with_context};

/// # Safety
/// As the driver's documentation says; so for all functions here.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuStreamCreate(out: *mut usize, flags: c_uint) -> Code {
    with_context("cuStreamCreate", |s| {
        if flags > 1 {
            return Err(INVALID_VALUE);
        }
        let handle = s.handle();
        s.streams.insert(handle, Stream::default());
        // SAFETY: the caller's pointer.
        unsafe { give(out, handle) }
    })
}

// SAFETY: the name is the driver\'s, whose place this library takes.
#[unsafe(no_mangle)]
extern "C" fn cuStreamDestroy_v2(stream: usize) -> Code {
    with_context("cuStreamDestroy_v2", |s| {
        let done = s.drain(stream);
        s.streams.remove(&stream).ok_or(INVALID_HANDLE)?;
        done
    })
}

// SAFETY: the name is the driver\'s, whose place this library takes.
#[unsafe(no_mangle)]
extern "C" fn cuStreamSynchronize(stream: usize) -> Code {
    with_context("cuStreamSynchronize", |s| {
        let known = s.streams.get(&stream).ok_or(INVALID_HANDLE)?;
        if known.capture.is_some() {
            return Err(STREAM_CAPTURE_UNSUPPORTED);
        }
        s.drain(stream)
    })
}

// SAFETY: the name is the driver\'s, whose place this library takes.
#[unsafe(no_mangle)]
extern "C" fn cuStreamBeginCapture_v2(stream: usize, mode: c_uint) -> Code {
    with_context("cuStreamBeginCapture_v2", |s| {
        let known = s.streams.get_mut(&stream).ok_or(INVALID_HANDLE)?;
        if mode > 2 || known.capture.is_some() {
            return Err(INVALID_VALUE);
        }
        known.capture = Some(Vec::new());
        Ok(())
    })
}

/// # Safety
/// See above.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuStreamEndCapture(stream: usize, out: *mut usize) -> Code {
    with_context("cuStreamEndCapture", |s| {
        let known = s.streams.get_mut(&stream).ok_or(INVALID_HANDLE)?;
        let captured = known.capture.take().ok_or(INVALID_VALUE)?;
        let handle = s.handle();
        s.graphs.insert(handle, Arc::new(captured));
        // SAFETY: the caller's pointer.
        unsafe { give(out, handle) }
    })
}
