//! Launches that were captured once and are replayed with one call.

use cudarc::driver::sys::{self, CUgraph, CUgraphExec};
use qcc_ir::diag::Result;
use std::sync::Arc;

use super::api::check;
use super::error::failed;
use super::event::Event;
use super::stream::Handle;

/// A captured sequence of launches on the stream that captured it.
///
/// It holds the addresses that the launches were given: whoever frees that memory drops the graph
/// first.
pub struct Graph {
    exec: CUgraphExec,
    handle: Arc<Handle>,
}

// SAFETY: any thread may launch a graph, one at a time.
unsafe impl Send for Graph {}

impl Graph {
    /// Ends the capture of a stream, whatever became of it. The context is current.
    pub(super) fn end(handle: Arc<Handle>) -> Result<Graph> {
        let mut graph: CUgraph = std::ptr::null_mut();
        // SAFETY: the stream is live and captures.
        check("cuStreamEndCapture", unsafe {
            sys::cuStreamEndCapture(handle.stream, &mut graph)
        })?;
        if graph.is_null() {
            return Err(failed("cuStreamEndCapture", "it gave no graph"));
        }
        let mut exec = std::ptr::null_mut();
        // SAFETY: the graph is complete; it is destroyed once, after its executable was made.
        let made = unsafe {
            let made = check(
                "cuGraphInstantiate",
                sys::cuGraphInstantiateWithFlags(&mut exec, graph, 0),
            );
            sys::cuGraphDestroy(graph);
            made
        };
        made.map(|()| Graph { exec, handle })
    }

    /// Starts all launches, after the work that the stream has now.
    ///
    /// # Errors
    /// `Q0743` if the driver refuses, or a fault of the work before.
    pub fn replay(&mut self) -> Result<()> {
        self.handle.gpu.enter()?;
        // SAFETY: graph and stream are live.
        check("cuGraphLaunch", unsafe {
            sys::cuGraphLaunch(self.exec, self.handle.stream)
        })
    }

    /// Microseconds that the GPU takes for one replay: the mean of some, one straight after the
    /// other.
    ///
    /// # Errors
    /// As [`Graph::replay`], and a fault of what ran.
    pub fn micros(&mut self, repetitions: u32) -> Result<f64> {
        self.handle.gpu.enter()?;
        let (start, end) = (Event::new()?, Event::new()?);
        start.record(self.handle.stream)?;
        for _ in 0..repetitions.max(1) {
            self.replay()?;
        }
        end.record(self.handle.stream)?;
        end.wait()?;
        Ok(start.micros_until(&end)? / f64::from(repetitions.max(1)))
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        if self.handle.gpu.enter().is_ok() {
            // SAFETY: made once and destroyed once; the driver waits for a replay in flight.
            unsafe {
                sys::cuGraphExecDestroy(self.exec);
            }
        }
    }
}
