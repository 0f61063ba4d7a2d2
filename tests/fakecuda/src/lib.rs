//! A CUDA driver without a GPU: the functions of `libcuda` that the runtime calls, executed by the
//! PTX simulator. Tests put it in the loader's path as `libcuda.so` and run the real code of the
//! CUDA device. Under the name `libcublasLt.so` the same file is cuBLASLt.
//!
//! It is stricter than a GPU. Work of a stream is kept and done only when something waits for it, so
//! a missing wait, or a staging buffer that is filled again too early, changes the result. Kernels
//! run with the simulator's checks for races and unwritten memory. Everything that was made and not
//! destroyed is counted.
//!
//! It is configured by the environment of the process:
//!
//! | variable | meaning |
//! |---|---|
//! | `FAKECUDA_DEVICES` | number of GPUs (1) |
//! | `FAKECUDA_SM` | compute capability (90) |
//! | `FAKECUDA_VERSION` | CUDA version of the driver (13000) |
//! | `FAKECUDA_MEMORY` | bytes of memory (1 GiB) |
//! | `FAKECUDA_FAIL` | `FUNCTION=RESULT@N`: the Nth call of it gives that result |
//! | `FAKECUDA_SEED` | seed of the simulator's schedule (0) |
//! | `FAKECUDA_REPORT` | file that is written when the context is released: counts of calls and leaks |
//!
//! The signatures are those of the driver API's documentation; the bindings under test are not used
//! here, so that a misreading of theirs would show.

mod blas;
mod device;
mod event;
mod graph;
mod launch;
pub mod locate;
mod memory;
mod module;
mod product;
mod state;
mod stream;
mod tensor_map;

use std::sync::{Mutex, MutexGuard};

use state::State;

/// A result of the driver.
type Code = u32;

const SUCCESS: Code = 0;
const INVALID_VALUE: Code = 1;
const OUT_OF_MEMORY: Code = 2;
const NO_DEVICE: Code = 100;
const INVALID_DEVICE: Code = 101;
const INVALID_CONTEXT: Code = 201;
const NO_BINARY: Code = 209;
const INVALID_PTX: Code = 218;
const UNSUPPORTED_PTX: Code = 222;
const INVALID_HANDLE: Code = 400;
const NOT_FOUND: Code = 500;
const ILLEGAL_ADDRESS: Code = 700;
const MISALIGNED_ADDRESS: Code = 716;
const LAUNCH_FAILED: Code = 719;
const STREAM_CAPTURE_UNSUPPORTED: Code = 900;

static STATE: Mutex<Option<State>> = Mutex::new(None);

/// Runs one function of the driver: counts it, fails it if it shall fail, then does it.
fn call(name: &str, body: impl FnOnce(&mut State) -> Result<(), Code>) -> Code {
    let mut guard: MutexGuard<'_, Option<State>> = STATE.lock().unwrap_or_else(|e| e.into_inner());
    let state = guard.get_or_insert_with(State::from_environment);
    match state.count(name).and_then(|()| body(state)) {
        Ok(()) => SUCCESS,
        Err(code) => code,
    }
}

/// As [`call`], for functions that need a context and fail for good after a kernel was at fault.
fn with_context(name: &str, body: impl FnOnce(&mut State) -> Result<(), Code>) -> Code {
    call(name, |s| {
        s.usable()?;
        body(s)
    })
}

/// Writes a result through a pointer of the caller.
///
/// # Safety
/// `at` is null or may be written.
unsafe fn give<T>(at: *mut T, value: T) -> Result<(), Code> {
    if at.is_null() {
        return Err(INVALID_VALUE);
    }
    // SAFETY: not null, and writable as the caller promises.
    unsafe { at.write(value) };
    Ok(())
}
