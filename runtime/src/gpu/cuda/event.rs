//! Points in the work of a stream, to wait for or to take the time between.

use cudarc::driver::sys::{self, CUevent, CUstream};
use qcc_ir::diag::Result;

use super::api::{self, check};

/// An event. Made, used and dropped while the context of its GPU is current.
pub(super) struct Event {
    event: CUevent,
}

// SAFETY: any thread may use an event.
unsafe impl Send for Event {}

impl Event {
    pub(super) fn new() -> Result<Self> {
        let mut event = std::ptr::null_mut();
        // SAFETY: a context is current; the function writes one handle.
        check("cuEventCreate", unsafe {
            sys::cuEventCreate(&mut event, 0)
        })?;
        Ok(Event { event })
    }

    /// Marks the end of the work that the stream has now.
    pub(super) fn record(&self, stream: CUstream) -> Result<()> {
        // SAFETY: both handles are live.
        check("cuEventRecord", unsafe {
            sys::cuEventRecord(self.event, stream)
        })
    }

    /// Waits until the marked work is done; at once if nothing was marked.
    pub(super) fn wait(&self) -> Result<()> {
        // SAFETY: the handle is live.
        check("cuEventSynchronize", unsafe {
            sys::cuEventSynchronize(self.event)
        })
    }

    /// Microseconds from this event to a later one; both are done.
    pub(super) fn micros_until(&self, later: &Event) -> Result<f64> {
        Ok(f64::from(api::elapsed(self.event, later.event)?) * 1e3)
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: made in `new` and destroyed once.
        unsafe {
            sys::cuEventDestroy_v2(self.event);
        }
    }
}
