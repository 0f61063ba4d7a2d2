//! Modules: PTX texts, read by the simulator with the limits of the configured driver.

use ptxsim::Module;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::sync::Arc;

use crate::state::Function;
use crate::{
    Code, INVALID_HANDLE, INVALID_PTX, INVALID_VALUE, NO_BINARY, NOT_FOUND, UNSUPPORTED_PTX, give,
    with_context,
};

const ERROR_LOG: c_uint = 5;
const ERROR_LOG_BYTES: c_uint = 6;
const MAX_DYNAMIC_SHARED: c_uint = 8;
const LARGE_CLUSTERS: c_uint = 14;

/// Newest PTX version of a driver's CUDA version (PTX ISA, release history).
fn newest_ptx(cuda: i32) -> (u32, u32) {
    match cuda / 10 {
        ..=1200 => (8, 0),
        1201 => (8, 1),
        1202 => (8, 2),
        1203 => (8, 3),
        1204 => (8, 4),
        1205 | 1206 => (8, 5),
        1207 => (8, 6),
        1208 => (8, 7),
        1209 => (8, 8),
        _ => (9, 0),
    }
}

/// Whether a GPU of capability `sm` runs code for `target`.
fn runs(target: &str, sm: i32) -> bool {
    let name = target.trim_start_matches("sm_");
    let number = name.trim_end_matches('a');
    match number.parse::<i32>() {
        Ok(n) if number.len() == name.len() => n <= sm,
        Ok(n) => n == sm,
        Err(_) => false,
    }
}

/// # Safety
/// As the driver's documentation says; so for all functions here.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuModuleLoadDataEx(
    out: *mut usize,
    image: *const c_char,
    count: c_uint,
    options: *const c_uint,
    values: *const *mut c_void,
) -> Code {
    with_context("cuModuleLoadDataEx", |s| {
        if image.is_null() {
            return Err(INVALID_VALUE);
        }
        // SAFETY: the caller gives a text that ends with a zero.
        let text = unsafe { CStr::from_ptr(image) };
        let text = text.to_str().map_err(|_| INVALID_PTX)?;
        let module = Module::parse(text).map_err(|e| {
            // SAFETY: the caller's arrays have `count` elements.
            unsafe { log(&format!("ptxas: {e}"), count, options, values) };
            INVALID_PTX
        })?;
        if module.version() > newest_ptx(s.config.version) {
            return Err(UNSUPPORTED_PTX);
        }
        if !runs(module.target(), s.config.sm) {
            return Err(NO_BINARY);
        }
        let handle = s.handle();
        s.modules.insert(handle, Arc::new(module));
        // SAFETY: the caller's pointer.
        unsafe { give(out, handle) }
    })
}

/// Writes the compiler's log where the options say.
///
/// # Safety
/// `options` and `values` have `count` elements; the buffer has the stated size.
unsafe fn log(text: &str, count: c_uint, options: *const c_uint, values: *const *mut c_void) {
    let (mut buffer, mut size) = (std::ptr::null_mut::<u8>(), 0usize);
    for i in 0..count as usize {
        // SAFETY: below `count`.
        let (option, value) = unsafe { (*options.add(i), *values.add(i)) };
        match option {
            ERROR_LOG => buffer = value.cast(),
            ERROR_LOG_BYTES => size = value as usize,
            _ => {}
        }
    }
    if !buffer.is_null() && size > 0 {
        let len = text.len().min(size - 1);
        // SAFETY: `len` and the zero behind it lie inside the buffer.
        unsafe {
            std::ptr::copy_nonoverlapping(text.as_ptr(), buffer, len);
            buffer.add(len).write(0);
        }
    }
}

// SAFETY: the name is the driver\'s, whose place this library takes.
#[unsafe(no_mangle)]
extern "C" fn cuModuleUnload(module: usize) -> Code {
    with_context("cuModuleUnload", |s| {
        let done = s.drain_all();
        s.modules.remove(&module).ok_or(INVALID_HANDLE)?;
        s.functions.retain(|_, f| f.module != module);
        done
    })
}

/// # Safety
/// See above.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuModuleGetFunction(
    out: *mut usize,
    module: usize,
    name: *const c_char,
) -> Code {
    with_context("cuModuleGetFunction", |s| {
        // SAFETY: the caller gives a text that ends with a zero.
        let name = unsafe { CStr::from_ptr(name) }.to_string_lossy();
        let found = s.modules.get(&module).ok_or(INVALID_HANDLE)?;
        if found.params(&name).is_none() {
            return Err(NOT_FOUND);
        }
        let function = Function {
            module,
            name: name.into_owned(),
            max_shared: 48 << 10,
            large_clusters: false,
        };
        let handle = s.handle();
        s.functions.insert(handle, function);
        // SAFETY: the caller's pointer.
        unsafe { give(out, handle) }
    })
}

// SAFETY: the name is the driver\'s, whose place this library takes.
#[unsafe(no_mangle)]
extern "C" fn cuFuncSetAttribute(function: usize, attribute: c_uint, value: c_int) -> Code {
    with_context("cuFuncSetAttribute", |s| {
        let f = s.functions.get_mut(&function).ok_or(INVALID_HANDLE)?;
        match attribute {
            MAX_DYNAMIC_SHARED if (0..=227 << 10).contains(&value) => {
                f.max_shared = value as u32;
            }
            LARGE_CLUSTERS => f.large_clusters = value != 0,
            _ => return Err(INVALID_VALUE),
        }
        Ok(())
    })
}
