//! Events. Their time is the number of things done, one microsecond each.

use std::ffi::c_uint;

use crate::state::Op;
use crate::{Code, INVALID_HANDLE, give, with_context};

/// # Safety
/// As the driver's documentation says; so for all functions here.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuEventCreate(out: *mut usize, _: c_uint) -> Code {
    with_context("cuEventCreate", |s| {
        let handle = s.handle();
        s.events.insert(handle, 0);
        // SAFETY: the caller's pointer.
        unsafe { give(out, handle) }
    })
}

// SAFETY: the name is the driver\'s, whose place this library takes.
#[unsafe(no_mangle)]
extern "C" fn cuEventDestroy_v2(event: usize) -> Code {
    with_context("cuEventDestroy_v2", |s| {
        let done = s.drain_all();
        s.events.remove(&event).ok_or(INVALID_HANDLE)?;
        done
    })
}

// SAFETY: the name is the driver\'s, whose place this library takes.
#[unsafe(no_mangle)]
extern "C" fn cuEventRecord(event: usize, stream: usize) -> Code {
    with_context("cuEventRecord", |s| {
        s.events.get(&event).ok_or(INVALID_HANDLE)?;
        s.push(stream, Op::Record(event))
    })
}

// SAFETY: the name is the driver\'s, whose place this library takes.
#[unsafe(no_mangle)]
extern "C" fn cuEventSynchronize(event: usize) -> Code {
    with_context("cuEventSynchronize", |s| {
        s.events.get(&event).ok_or(INVALID_HANDLE)?;
        s.drain_all()
    })
}

/// # Safety
/// See above.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuEventElapsedTime(ms: *mut f32, start: usize, end: usize) -> Code {
    with_context("cuEventElapsedTime", |s| {
        let at = |e: &usize| s.events.get(e).copied().ok_or(INVALID_HANDLE);
        let steps = at(&end)?.saturating_sub(at(&start)?);
        // SAFETY: the caller's pointer.
        unsafe { give(ms, steps as f32 * 1e-3) }
    })
}
