//! Work in order.

use cudarc::driver::sys::{self, CUstream};
use qcc_ir::diag::Result;
use std::sync::Arc;

use super::api::check;
use super::blas::Gemm;
use super::event::Event;
use super::gpu::Gpu;
use super::graph::Graph;
use super::launch::Launch;
use super::memory::{Pinned, copy_in};

/// Bytes of the pinned buffer through which a session's inputs and outputs go.
const STAGE: usize = 4 << 20;

/// The driver's stream; graphs keep it alive.
pub(super) struct Handle {
    pub(super) stream: CUstream,
    pub(super) gpu: Arc<Gpu>,
}

// SAFETY: any thread may use a stream.
unsafe impl Send for Handle {}
// SAFETY: as above; calls on it are ordered by the driver.
unsafe impl Sync for Handle {}

impl Handle {
    /// Waits for everything that it was given.
    pub(super) fn finish(&self) -> Result<()> {
        self.gpu.enter()?;
        // SAFETY: the stream is live.
        check("cuStreamSynchronize", unsafe {
            sys::cuStreamSynchronize(self.stream)
        })
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.gpu.enter().is_ok() {
            // SAFETY: made once and destroyed once; the driver finishes its work first.
            unsafe {
                sys::cuStreamDestroy_v2(self.stream);
            }
        }
    }
}

/// A stream of one GPU, used by one thread at a time.
pub struct Stream {
    /// Made at the first copy.
    stage: Option<Pinned>,
    /// Bytes at the front of the stage that copies in flight may still read.
    staged: usize,
    handle: Arc<Handle>,
}

impl Stream {
    pub(super) fn new(gpu: Arc<Gpu>) -> Result<Self> {
        gpu.enter()?;
        let mut stream = std::ptr::null_mut();
        // SAFETY: a context is current; 1 makes a stream that does not wait for the default one.
        check("cuStreamCreate", unsafe {
            sys::cuStreamCreate(&mut stream, 1)
        })?;
        Ok(Stream {
            stage: None,
            staged: 0,
            handle: Arc::new(Handle { stream, gpu }),
        })
    }

    /// The GPU that it belongs to.
    pub fn gpu(&self) -> &Arc<Gpu> {
        &self.handle.gpu
    }

    /// Copies bytes to the GPU, after the work before; the caller may change them at once.
    ///
    /// # Errors
    /// `Q0743`, or a fault of the work before.
    pub fn upload(&mut self, at: u64, bytes: &[u8]) -> Result<()> {
        self.handle.gpu.enter()?;
        self.make_stage()?;
        let (mut to, mut rest) = (at, bytes);
        while !rest.is_empty() {
            if self.staged == STAGE {
                self.finish()?;
            }
            let from = self.staged;
            let (chunk, after) = rest.split_at(rest.len().min(STAGE - from));
            if let Some(stage) = &mut self.stage {
                stage.bytes_mut()[from..from + chunk.len()].copy_from_slice(chunk);
                copy_in(to, stage, from, chunk.len(), self.handle.stream)?;
            }
            self.staged = from + chunk.len();
            to += chunk.len() as u64;
            rest = after;
        }
        Ok(())
    }

    /// Waits for the work before, then copies bytes from the GPU.
    ///
    /// # Errors
    /// `Q0743`, or a fault of the work before.
    pub fn download(&mut self, at: u64, bytes: &mut [u8]) -> Result<()> {
        self.finish()?;
        self.make_stage()?;
        let mut from = at;
        for chunk in bytes.chunks_mut(STAGE) {
            if let Some(stage) = &mut self.stage {
                let target = stage.bytes_mut().as_mut_ptr();
                // SAFETY: the stage has `STAGE` bytes and nothing else uses them, as the stream is
                // idle; the driver checks the source.
                check("cuMemcpyDtoHAsync", unsafe {
                    sys::cuMemcpyDtoHAsync_v2(target.cast(), from, chunk.len(), self.handle.stream)
                })?;
            }
            self.finish()?;
            if let Some(stage) = &self.stage {
                chunk.copy_from_slice(&stage.bytes()[..chunk.len()]);
            }
            from += chunk.len() as u64;
        }
        Ok(())
    }

    /// Starts a kernel after the work before.
    ///
    /// # Errors
    /// `Q0734` if it cannot be launched with these arguments and sizes.
    pub fn launch(&mut self, launch: &Launch<'_>) -> Result<()> {
        self.handle.gpu.enter()?;
        self.handle.gpu.launch(self.handle.stream, launch)
    }

    /// Starts a matrix product of cuBLASLt after the work before.
    ///
    /// # Errors
    /// `Q0744` if the library is missing or refuses it.
    pub fn gemm(&mut self, gemm: &Gemm) -> Result<()> {
        self.handle.gpu.enter()?;
        self.handle.gpu.gemm(self.handle.stream, gemm)
    }

    /// Waits for everything that it was given.
    ///
    /// # Errors
    /// `Q0732` if a kernel was at fault, else `Q0743`.
    pub fn finish(&mut self) -> Result<()> {
        self.handle.finish()?;
        self.staged = 0;
        Ok(())
    }

    /// Captures work instead of doing it. `work` may launch kernels and products; a copy or a wait
    /// in it is an error of the driver.
    ///
    /// # Errors
    /// That of `work`, or `Q0743` if the driver makes no graph of it.
    pub fn capture(&mut self, work: impl FnOnce(&mut Stream) -> Result<()>) -> Result<Graph> {
        self.handle.gpu.enter()?;
        // SAFETY: the stream is live. Other threads may allocate meanwhile: their calls do not
        // touch what is captured here.
        check("cuStreamBeginCapture", unsafe {
            sys::cuStreamBeginCapture_v2(
                self.handle.stream,
                sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL,
            )
        })?;
        let done = work(self);
        let graph = Graph::end(self.handle.clone());
        done?;
        graph
    }

    /// Microseconds that the GPU takes for some work.
    ///
    /// # Errors
    /// That of `work`, or a fault of what ran.
    pub fn time(&mut self, work: impl FnOnce(&mut Stream) -> Result<()>) -> Result<f64> {
        self.handle.gpu.enter()?;
        let (start, end) = (Event::new()?, Event::new()?);
        start.record(self.handle.stream)?;
        work(self)?;
        self.handle.gpu.enter()?;
        end.record(self.handle.stream)?;
        end.wait()?;
        start.micros_until(&end)
    }

    fn make_stage(&mut self) -> Result<()> {
        if self.stage.is_none() {
            self.stage = Some(Pinned::new(STAGE)?);
        }
        Ok(())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // The stage is read by copies in flight; it is freed after this, with the context current.
        let _ = self.handle.finish();
    }
}
