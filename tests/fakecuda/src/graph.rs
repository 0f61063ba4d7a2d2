//! Graphs: captured work that is replayed.

use std::ffi::c_ulonglong;

use crate::state::Op;
use crate::{Code, INVALID_HANDLE, INVALID_VALUE, give, with_context};

/// # Safety
/// As the driver's documentation says; so for all functions here.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuGraphInstantiateWithFlags(
    out: *mut usize,
    graph: usize,
    flags: c_ulonglong,
) -> Code {
    with_context("cuGraphInstantiateWithFlags", |s| {
        if flags != 0 {
            return Err(INVALID_VALUE);
        }
        let work = s.graphs.get(&graph).cloned().ok_or(INVALID_HANDLE)?;
        let handle = s.handle();
        s.execs.insert(handle, work);
        // SAFETY: the caller's pointer.
        unsafe { give(out, handle) }
    })
}

// SAFETY: the name is the driver\'s, whose place this library takes.
#[unsafe(no_mangle)]
extern "C" fn cuGraphDestroy(graph: usize) -> Code {
    with_context("cuGraphDestroy", |s| {
        let known = s.graphs.remove(&graph);
        known.map(|_| ()).ok_or(INVALID_HANDLE)
    })
}

// SAFETY: the name is the driver\'s, whose place this library takes.
#[unsafe(no_mangle)]
extern "C" fn cuGraphLaunch(exec: usize, stream: usize) -> Code {
    with_context("cuGraphLaunch", |s| {
        let work = s.execs.get(&exec).cloned().ok_or(INVALID_HANDLE)?;
        s.push(stream, Op::Replay(work))
    })
}

// SAFETY: the name is the driver\'s, whose place this library takes.
#[unsafe(no_mangle)]
extern "C" fn cuGraphExecDestroy(exec: usize) -> Code {
    with_context("cuGraphExecDestroy", |s| {
        let done = s.drain_all();
        s.execs.remove(&exec).map(|_| ()).ok_or(INVALID_HANDLE)?;
        done
    })
}
