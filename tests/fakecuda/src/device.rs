//! Initialization, devices, contexts, and the names of results.

use std::ffi::{c_char, c_int, c_uint};

use crate::{Code, INVALID_DEVICE, INVALID_VALUE, NO_DEVICE, call, give};

/// The one context, as its handle.
const CONTEXT: usize = 0xc0;

// SAFETY: the name is the driver\'s, whose place this library takes.
#[unsafe(no_mangle)]
extern "C" fn cuInit(flags: c_uint) -> Code {
    call("cuInit", |s| {
        s.initialized = true;
        match (flags, s.config.devices) {
            (0, 0) => Err(NO_DEVICE),
            (0, _) => Ok(()),
            _ => Err(INVALID_VALUE),
        }
    })
}

/// # Safety
/// As the driver's documentation says; so for all functions here.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuDriverGetVersion(version: *mut c_int) -> Code {
    // SAFETY: the caller's pointer.
    call("cuDriverGetVersion", |s| unsafe {
        give(version, s.config.version)
    })
}

/// # Safety
/// See above.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuDeviceGetCount(count: *mut c_int) -> Code {
    // SAFETY: the caller's pointer.
    call("cuDeviceGetCount", |s| unsafe {
        give(count, s.config.devices)
    })
}

/// # Safety
/// See above.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuDeviceGet(device: *mut c_int, ordinal: c_int) -> Code {
    call("cuDeviceGet", |s| {
        if !(0..s.config.devices).contains(&ordinal) {
            return Err(INVALID_DEVICE);
        }
        // SAFETY: the caller's pointer.
        unsafe { give(device, ordinal) }
    })
}

/// # Safety
/// See above.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuDeviceGetAttribute(value: *mut c_int, attribute: c_uint, _: c_int) -> Code {
    call("cuDeviceGetAttribute", |s| {
        let number = match attribute {
            // Most threads of a block, clock in kHz, multiprocessors, second-level cache.
            1 => 1024,
            13 => 1_980_000,
            16 => 132,
            38 => 50 << 20,
            75 => s.config.sm / 10,
            76 => s.config.sm % 10,
            // Most shared memory of a block on request.
            97 => 227 << 10,
            _ => return Err(INVALID_VALUE),
        };
        // SAFETY: the caller's pointer.
        unsafe { give(value, number) }
    })
}

/// # Safety
/// See above.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuDeviceGetName(name: *mut c_char, len: c_int, _: c_int) -> Code {
    call("cuDeviceGetName", |_| {
        let text = b"Simulated GPU\0";
        if name.is_null() || len < text.len() as c_int {
            return Err(INVALID_VALUE);
        }
        // SAFETY: the caller gives `len` bytes.
        unsafe { std::ptr::copy_nonoverlapping(text.as_ptr().cast(), name, text.len()) };
        Ok(())
    })
}

/// # Safety
/// See above.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuDeviceTotalMem_v2(bytes: *mut usize, _: c_int) -> Code {
    // SAFETY: the caller's pointer.
    call("cuDeviceTotalMem_v2", |s| unsafe {
        give(bytes, s.config.memory as usize)
    })
}

/// # Safety
/// See above.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuDevicePrimaryCtxRetain(context: *mut usize, _: c_int) -> Code {
    call("cuDevicePrimaryCtxRetain", |s| {
        s.retained += 1;
        // SAFETY: the caller's pointer.
        unsafe { give(context, CONTEXT) }
    })
}

// SAFETY: the name is the driver\'s, whose place this library takes.
#[unsafe(no_mangle)]
extern "C" fn cuDevicePrimaryCtxRelease_v2(_: c_int) -> Code {
    call("cuDevicePrimaryCtxRelease_v2", |s| {
        s.retained = s.retained.checked_sub(1).ok_or(INVALID_VALUE)?;
        s.report();
        Ok(())
    })
}

// SAFETY: the name is the driver\'s, whose place this library takes.
#[unsafe(no_mangle)]
extern "C" fn cuCtxSetCurrent(context: usize) -> Code {
    call("cuCtxSetCurrent", |s| match context {
        CONTEXT if s.retained > 0 => Ok(()),
        _ => Err(INVALID_VALUE),
    })
}

/// # Safety
/// See above.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuGetErrorName(code: Code, text: *mut *const c_char) -> Code {
    let name = match code {
        0 => c"CUDA_SUCCESS",
        1 => c"CUDA_ERROR_INVALID_VALUE",
        2 => c"CUDA_ERROR_OUT_OF_MEMORY",
        100 => c"CUDA_ERROR_NO_DEVICE",
        101 => c"CUDA_ERROR_INVALID_DEVICE",
        218 => c"CUDA_ERROR_INVALID_PTX",
        700 => c"CUDA_ERROR_ILLEGAL_ADDRESS",
        719 => c"CUDA_ERROR_LAUNCH_FAILED",
        _ => c"CUDA_ERROR_UNKNOWN",
    };
    // SAFETY: the caller's pointer.
    call("cuGetErrorName", |_| unsafe { give(text, name.as_ptr()) })
}

/// # Safety
/// See above.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuGetErrorString(_: Code, text: *mut *const c_char) -> Code {
    // SAFETY: the caller's pointer.
    call("cuGetErrorString", |_| unsafe {
        give(text, c"simulated driver".as_ptr())
    })
}
