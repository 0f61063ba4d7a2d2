//! Device memory, pinned host memory, copies.

use ptxsim::DevPtr;
use std::ffi::{c_uint, c_void};

use crate::state::Op;
use crate::{Code, INVALID_VALUE, OUT_OF_MEMORY, STREAM_CAPTURE_UNSUPPORTED, give, with_context};

/// # Safety
/// As the driver's documentation says; so for all functions here.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize) -> Code {
    with_context("cuMemGetInfo_v2", |s| {
        // SAFETY: the caller's pointers.
        unsafe {
            give(free, (s.config.memory - s.used) as usize)?;
            give(total, s.config.memory as usize)
        }
    })
}

/// # Safety
/// See above.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemAlloc_v2(at: *mut u64, bytes: usize) -> Code {
    with_context("cuMemAlloc_v2", |s| {
        let bytes = bytes as u64;
        if bytes == 0 {
            return Err(INVALID_VALUE);
        }
        if bytes > s.config.memory - s.used {
            return Err(OUT_OF_MEMORY);
        }
        let address = s.memory.alloc(bytes).map_err(|_| OUT_OF_MEMORY)?;
        s.live.insert(address.0, bytes);
        s.used += bytes;
        s.peak = s.peak.max(s.used);
        // SAFETY: the caller's pointer.
        unsafe { give(at, address.0) }
    })
}

// SAFETY: the name is the driver\'s, whose place this library takes.
#[unsafe(no_mangle)]
extern "C" fn cuMemFree_v2(at: u64) -> Code {
    with_context("cuMemFree_v2", |s| {
        let done = s.drain_all();
        let bytes = s.live.remove(&at).ok_or(INVALID_VALUE)?;
        s.used -= bytes;
        s.memory.free(DevPtr(at)).map_err(|_| INVALID_VALUE)?;
        done
    })
}

/// # Safety
/// See above.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemHostAlloc(at: *mut *mut c_void, bytes: usize, _: c_uint) -> Code {
    with_context("cuMemHostAlloc", |s| {
        let mut words = vec![u64::MAX; bytes.div_ceil(8)].into_boxed_slice();
        let pointer = words.as_mut_ptr();
        s.pinned.insert(pointer as usize, words);
        // SAFETY: the caller's pointer.
        unsafe { give(at, pointer.cast()) }
    })
}

// SAFETY: the name is the driver\'s, whose place this library takes.
#[unsafe(no_mangle)]
extern "C" fn cuMemFreeHost(at: usize) -> Code {
    with_context("cuMemFreeHost", |s| {
        let done = s.drain_all();
        s.pinned.remove(&at).map(|_| ()).ok_or(INVALID_VALUE)?;
        done
    })
}

/// # Safety
/// See above.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemcpyHtoDAsync_v2(
    to: u64,
    from: *const c_void,
    bytes: usize,
    stream: usize,
) -> Code {
    with_context("cuMemcpyHtoDAsync_v2", |s| {
        no_capture(s, stream)?;
        s.push(stream, Op::CopyIn(from as usize, to, bytes))
    })
}

/// # Safety
/// See above.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemcpyDtoHAsync_v2(
    to: *mut c_void,
    from: u64,
    bytes: usize,
    stream: usize,
) -> Code {
    with_context("cuMemcpyDtoHAsync_v2", |s| {
        no_capture(s, stream)?;
        s.push(stream, Op::CopyOut(to as usize, from, bytes))
    })
}

/// A copy in a graph would use the host's memory at every replay; the runtime has no such graphs.
fn no_capture(s: &crate::state::State, stream: usize) -> Result<(), Code> {
    match s.streams.get(&stream) {
        Some(stream) if stream.capture.is_some() => Err(STREAM_CAPTURE_UNSUPPORTED),
        _ => Ok(()),
    }
}
