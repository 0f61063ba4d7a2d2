//! One GPU: its context, what it is, and what it owns.

use cudarc::driver::sys::{self, CUcontext, CUdevice, CUdevice_attribute as Attribute};
use qcc_ir::diag::Result;
use std::collections::BTreeMap;
use std::ffi::{CStr, c_char};
use std::fmt;
use std::sync::{Arc, Mutex};

use super::api::{self, check};
use super::blas::Blas;
use super::error::no_gpu;
use super::memory::{Uploader, lock};
use super::module::Modules;
use super::stream::Stream;

/// What a GPU is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GpuInfo {
    /// Position among the GPUs that the process sees.
    pub ordinal: usize,
    /// Name, as the vendor gives it.
    pub name: String,
    /// Compute capability: 90 for sm_90.
    pub sm: u32,
    /// Streaming multiprocessors.
    pub multiprocessors: u32,
    /// Bytes of memory.
    pub memory: u64,
    /// Bytes of second-level cache.
    pub l2: u64,
    /// Most bytes of shared memory that a block may ask for.
    pub shared_per_block: u32,
    /// Clock of the multiprocessors in kHz, at most.
    pub clock_khz: u32,
    /// CUDA version that the driver implements: major and minor.
    pub driver: (u32, u32),
}

/// An open GPU. Its methods may be called from several threads at once.
pub struct Gpu {
    info: GpuInfo,
    device: CUdevice,
    context: CUcontext,
    /// Bytes of each allocation that was not freed.
    pub(super) live: Mutex<BTreeMap<u64, u64>>,
    pub(super) modules: Mutex<Modules>,
    /// Present from the first upload on.
    pub(super) uploader: Mutex<Option<Uploader>>,
    /// Present from the first product on.
    pub(super) blas: Mutex<Option<Blas>>,
}

// SAFETY: the context is the device's primary one, which any thread may make current; all other
// fields are synchronized.
unsafe impl Send for Gpu {}
// SAFETY: as above.
unsafe impl Sync for Gpu {}

impl fmt::Debug for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Gpu({}, {})", self.info.ordinal, self.info.name)
    }
}

impl Gpu {
    /// The number of GPUs.
    ///
    /// # Errors
    /// `Q0740` to `Q0743` if there is no driver, or none that can be used.
    pub fn count() -> Result<usize> {
        api::version()?;
        let mut count = 0;
        // SAFETY: the driver is initialized; the function writes one number.
        check("cuDeviceGetCount", unsafe {
            sys::cuDeviceGetCount(&mut count)
        })?;
        Ok(usize::try_from(count).unwrap_or(0))
    }

    /// Opens a GPU.
    ///
    /// # Errors
    /// As [`Gpu::count`]; `Q0741` if there is no GPU of this number.
    pub fn open(ordinal: usize) -> Result<Arc<Gpu>> {
        let found = Gpu::count()?;
        let number = i32::try_from(ordinal).ok().filter(|_| ordinal < found);
        let number = number.ok_or_else(|| no_gpu(ordinal, found))?;
        let (mut device, mut context) = (0, std::ptr::null_mut());
        // SAFETY: the driver is initialized, the GPU exists, and each function writes one value.
        unsafe {
            check("cuDeviceGet", sys::cuDeviceGet(&mut device, number))?;
            check(
                "cuDevicePrimaryCtxRetain",
                sys::cuDevicePrimaryCtxRetain(&mut context, device),
            )?;
        }
        let mut gpu = Gpu {
            info: GpuInfo {
                ordinal,
                name: String::new(),
                sm: 0,
                multiprocessors: 0,
                memory: 0,
                l2: 0,
                shared_per_block: 0,
                clock_khz: 0,
                driver: (0, 0),
            },
            device,
            context,
            live: Mutex::default(),
            modules: Mutex::new(Modules::default()),
            uploader: Mutex::new(None),
            blas: Mutex::new(None),
        };
        // From here on the context is released when `gpu` is dropped.
        gpu.info = gpu.read_info(ordinal)?;
        Ok(Arc::new(gpu))
    }

    /// What it is.
    pub fn info(&self) -> &GpuInfo {
        &self.info
    }

    /// A new stream.
    ///
    /// # Errors
    /// `Q0743` if the driver refuses.
    pub fn stream(self: &Arc<Self>) -> Result<Stream> {
        Stream::new(self.clone())
    }

    /// Makes the context current in this thread, as every call of the driver needs.
    pub(super) fn enter(&self) -> Result<()> {
        // SAFETY: the context is retained as long as `self` lives.
        check("cuCtxSetCurrent", unsafe {
            sys::cuCtxSetCurrent(self.context)
        })
    }

    fn read_info(&self, ordinal: usize) -> Result<GpuInfo> {
        use Attribute::*;
        let number = |a: Attribute| {
            let mut value = 0;
            // SAFETY: the device exists; the function writes one number.
            check("cuDeviceGetAttribute", unsafe {
                sys::cuDeviceGetAttribute(&mut value, a, self.device)
            })?;
            Ok(u32::try_from(value).unwrap_or(0))
        };
        let major = number(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
        let minor = number(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
        let mut bytes = 0;
        let mut name: [c_char; 128] = [0; 128];
        // SAFETY: the device exists; the functions write one number, and at most 128 bytes with a
        // terminating zero, which stays even if the driver wrote none.
        unsafe {
            check(
                "cuDeviceTotalMem",
                sys::cuDeviceTotalMem_v2(&mut bytes, self.device),
            )?;
            check(
                "cuDeviceGetName",
                sys::cuDeviceGetName(name.as_mut_ptr(), 127, self.device),
            )?;
        }
        // SAFETY: the last byte of the array is zero.
        let name = unsafe { CStr::from_ptr(name.as_ptr()) };
        let version = api::version()?;
        Ok(GpuInfo {
            ordinal,
            name: name.to_string_lossy().into_owned(),
            sm: major * 10 + minor,
            multiprocessors: number(CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
            memory: bytes as u64,
            l2: number(CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)?.into(),
            shared_per_block: number(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?,
            clock_khz: number(CU_DEVICE_ATTRIBUTE_CLOCK_RATE)?,
            driver: (version / 1000, version % 1000 / 10),
        })
    }
}

impl Drop for Gpu {
    fn drop(&mut self) {
        if self.enter().is_ok() {
            // What it owns needs the context; errors of freeing leave nothing to do.
            self.uploader
                .get_mut()
                .unwrap_or_else(|e| e.into_inner())
                .take();
            self.blas
                .get_mut()
                .unwrap_or_else(|e| e.into_inner())
                .take();
            let left: Vec<u64> = lock(&self.live).keys().copied().collect();
            left.into_iter().for_each(|at| self.free(at));
            let modules = self.modules.get_mut().unwrap_or_else(|e| e.into_inner());
            modules.unload();
        }
        // SAFETY: it was retained once, in `open`; streams and graphs hold an `Arc` of `self`.
        unsafe {
            sys::cuDevicePrimaryCtxRelease_v2(self.device);
        }
    }
}
