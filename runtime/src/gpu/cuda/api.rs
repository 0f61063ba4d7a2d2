//! The driver's library: found, complete and new enough before the first call.
//!
//! The bindings panic where the library or a function is missing, so both are asked for first.

use cudarc::driver::sys::{self, CUresult};
use qcc_ir::diag::{Diagnostic, Result};
use std::ffi::{CStr, c_void};
use std::sync::OnceLock;

use super::error::{cannot_load, failed, fault, no_driver, no_gpu, no_memory, old_driver};

/// Oldest driver interface: tensor maps and launch attributes came with CUDA 12.0.
const OLDEST: u32 = 12000;

/// Every function that is called, so that a missing one is an error and no panic.
const FUNCTIONS: &[&str] = &[
    "cuCtxSetCurrent",
    "cuDeviceGet",
    "cuDeviceGetAttribute",
    "cuDeviceGetCount",
    "cuDeviceGetName",
    "cuDevicePrimaryCtxRelease_v2",
    "cuDevicePrimaryCtxRetain",
    "cuDeviceTotalMem_v2",
    "cuEventCreate",
    "cuEventDestroy_v2",
    "cuEventElapsedTime",
    "cuEventRecord",
    "cuEventSynchronize",
    "cuFuncSetAttribute",
    "cuGetErrorName",
    "cuGetErrorString",
    "cuGraphDestroy",
    "cuGraphExecDestroy",
    "cuGraphInstantiateWithFlags",
    "cuGraphLaunch",
    "cuInit",
    "cuLaunchKernelEx",
    "cuMemAlloc_v2",
    "cuMemFreeHost",
    "cuMemFree_v2",
    "cuMemGetInfo_v2",
    "cuMemHostAlloc",
    "cuMemcpyDtoHAsync_v2",
    "cuMemcpyHtoDAsync_v2",
    "cuModuleGetFunction",
    "cuModuleLoadDataEx",
    "cuModuleUnload",
    "cuStreamBeginCapture_v2",
    "cuStreamCreate",
    "cuStreamDestroy_v2",
    "cuStreamEndCapture",
    "cuStreamSynchronize",
    "cuTensorMapEncodeTiled",
];

/// Loads and initializes the driver once; gives the CUDA version that it implements (12040).
///
/// # Errors
/// `Q0740` without a driver, `Q0741` without a GPU, `Q0742` if it is too old, `Q0743` if it
/// cannot be initialized.
pub(super) fn version() -> Result<u32> {
    static READY: OnceLock<Result<u32>> = OnceLock::new();
    READY.get_or_init(initialize).clone()
}

fn initialize() -> Result<u32> {
    // SAFETY: loading the driver's library runs its initializers and nothing else.
    if !unsafe { sys::is_culib_present() } {
        return Err(no_driver());
    }
    let mut version = 0;
    if !has("cuDriverGetVersion") {
        return Err(old_driver("it has no `cuDriverGetVersion`"));
    }
    // SAFETY: the function exists and writes one number.
    check("cuDriverGetVersion", unsafe {
        sys::cuDriverGetVersion(&mut version)
    })?;
    let version = u32::try_from(version).unwrap_or(0);
    if version < OLDEST {
        let (major, minor) = (version / 1000, version % 1000 / 10);
        let text = format!("it implements CUDA {major}.{minor}, and 12.0 is needed");
        return Err(old_driver(text));
    }
    if let Some(missing) = FUNCTIONS.iter().find(|f| !has(f)) {
        return Err(old_driver(format!("it has no `{missing}`")));
    }
    // SAFETY: the function exists; its only argument must be 0.
    check("cuInit", unsafe { sys::cuInit(0) })?;
    Ok(version)
}

/// Whether the driver's library has a function.
fn has(function: &str) -> bool {
    // SAFETY: the library is present; the symbol is looked up and not called.
    unsafe { sys::culib().get::<*const c_void>(function.as_bytes()) }.is_ok()
}

/// Milliseconds between two recorded events. The bindings know only the newer of two functions
/// that do the same, which drivers before CUDA 12.8 lack.
pub(super) fn elapsed(start: sys::CUevent, end: sys::CUevent) -> Result<f32> {
    // SAFETY: a type; the call below says why it is sound.
    type Elapsed = unsafe extern "C" fn(*mut f32, sys::CUevent, sys::CUevent) -> CUresult;
    let mut ms = 0.0;
    // SAFETY: the function has had this signature since the first CUDA; both events are live.
    let result = unsafe {
        match sys::culib().get::<Elapsed>(b"cuEventElapsedTime") {
            Ok(f) => f(&mut ms, start, end),
            Err(e) => return Err(old_driver(e)),
        }
    };
    check("cuEventElapsedTime", result)?;
    Ok(ms)
}

/// Turns a result of the driver into an error.
///
/// # Errors
/// `Q0732` to `Q0734`, `Q0741` and `Q0743`, by the kind of the result.
pub(super) fn check(call: &str, result: CUresult) -> Result<()> {
    match result {
        CUresult::CUDA_SUCCESS => Ok(()),
        bad => Err(error(call, bad)),
    }
}

fn error(call: &str, result: CUresult) -> Diagnostic {
    use CUresult::*;
    let why = describe(result);
    match result {
        CUDA_ERROR_NO_DEVICE | CUDA_ERROR_INVALID_DEVICE => no_gpu(0, 0),
        CUDA_ERROR_OUT_OF_MEMORY => no_memory(0, why),
        CUDA_ERROR_INVALID_PTX
        | CUDA_ERROR_UNSUPPORTED_PTX_VERSION
        | CUDA_ERROR_NO_BINARY_FOR_GPU
        | CUDA_ERROR_JIT_COMPILER_NOT_FOUND
        | CUDA_ERROR_NOT_FOUND
        | CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES => cannot_load(why),
        CUDA_ERROR_ILLEGAL_ADDRESS
        | CUDA_ERROR_LAUNCH_FAILED
        | CUDA_ERROR_LAUNCH_TIMEOUT
        | CUDA_ERROR_ILLEGAL_INSTRUCTION
        | CUDA_ERROR_MISALIGNED_ADDRESS
        | CUDA_ERROR_INVALID_ADDRESS_SPACE
        | CUDA_ERROR_INVALID_PC
        | CUDA_ERROR_HARDWARE_STACK_ERROR
        | CUDA_ERROR_ASSERT => fault(why),
        _ => failed(call, why),
    }
}

/// Name, number and sentence of a result.
fn describe(result: CUresult) -> String {
    if !has("cuGetErrorName") || !has("cuGetErrorString") {
        return format!("{result:?} ({})", result as u32);
    }
    // SAFETY: only the two functions of the last lines are passed, which exist.
    let text = |f: unsafe fn(CUresult, *mut *const std::ffi::c_char) -> CUresult| {
        let mut p = std::ptr::null();
        // SAFETY: on success the function gives a string that lives forever.
        unsafe {
            match f(result, &mut p) {
                CUresult::CUDA_SUCCESS if !p.is_null() => {
                    CStr::from_ptr(p).to_string_lossy().into_owned()
                }
                _ => "unknown".into(),
            }
        }
    };
    let (name, sentence) = (text(sys::cuGetErrorName), text(sys::cuGetErrorString));
    format!("{name} ({}): {sentence}", result as u32)
}
