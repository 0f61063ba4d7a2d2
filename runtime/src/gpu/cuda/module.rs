//! Kernels: PTX texts compiled by the driver, once each.

use cudarc::driver::sys::{self, CUfunction, CUfunction_attribute as Attribute, CUjit_option};
use cudarc::driver::sys::{CUmodule, CUresult};
use qcc_ir::diag::Result;
use std::ffi::{CString, c_void};
use std::sync::Arc;

use super::api::check;
use super::entry::{self, Entry};
use super::error::cannot_load;
use super::gpu::Gpu;
use super::memory::lock;

/// Bytes of the compiler's log that are kept.
const LOG: usize = 8192;
/// Shared memory that a kernel gets without asking for more.
const SHARED_DEFAULT: u32 = 48 << 10;
/// Blocks of a cluster that every GPU with clusters runs.
const CLUSTER_DEFAULT: u32 = 8;

/// Number of a loaded kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel(usize);

/// Modules and kernels of a GPU. They live as long as the GPU.
#[derive(Default)]
pub(super) struct Modules {
    modules: Vec<(CUmodule, Arc<str>)>,
    kernels: Vec<Loaded>,
}

// SAFETY: modules and functions belong to the context and may be used from any thread.
unsafe impl Send for Modules {}

#[derive(Clone)]
pub(super) struct Loaded {
    pub(super) function: CUfunction,
    pub(super) entry: Arc<Entry>,
    /// Largest dynamic shared memory that was asked for.
    shared: u32,
    /// Whether it may run in clusters of more than 8 blocks.
    large_clusters: bool,
}

impl Modules {
    /// Unloads everything. The context is current and nothing runs.
    pub(super) fn unload(&mut self) {
        self.kernels.clear();
        for (module, _) in self.modules.drain(..) {
            // SAFETY: loaded once and unloaded once.
            unsafe {
                sys::cuModuleUnload(module);
            }
        }
    }
}

impl Gpu {
    /// Compiles a PTX text; gives the number of the module.
    ///
    /// # Errors
    /// `Q0734` with the compiler's log if the text is refused.
    pub fn load(&self, text: &str) -> Result<usize> {
        self.enter()?;
        let module = compile(text)?;
        let mut all = lock(&self.modules);
        all.modules.push((module, text.into()));
        Ok(all.modules.len() - 1)
    }

    /// The kernel `symbol` of a module.
    ///
    /// # Errors
    /// `Q0734` if the module has no such kernel, or its declaration cannot be read.
    pub fn kernel(&self, module: usize, symbol: &str) -> Result<Kernel> {
        self.enter()?;
        let mut all = lock(&self.modules);
        let found = all.modules.get(module).map(|(m, text)| (*m, text.clone()));
        let (module, text) = found.ok_or_else(|| cannot_load(format!("no module {module}")))?;
        let entry = entry::find(&text, symbol)
            .ok_or_else(|| cannot_load(format!("the text has no kernel `{symbol}`")))?;
        let name = CString::new(symbol).map_err(cannot_load)?;
        let mut function = std::ptr::null_mut();
        // SAFETY: the module is loaded and the name ends with a zero.
        check("cuModuleGetFunction", unsafe {
            sys::cuModuleGetFunction(&mut function, module, name.as_ptr())
        })
        .map_err(|d| d.or_at(format!("kernel {symbol}")))?;
        all.kernels.push(Loaded {
            function,
            entry: Arc::new(entry),
            shared: SHARED_DEFAULT,
            large_clusters: false,
        });
        Ok(Kernel(all.kernels.len() - 1))
    }

    /// The kernel, allowed to use that much shared memory and clusters of that many blocks.
    pub(super) fn allowed(&self, kernel: Kernel, shared: u32, cluster: u32) -> Result<Loaded> {
        let most = self.info().shared_per_block;
        if shared > most {
            let text = format!("it asks for {shared} bytes of shared memory, a block gets {most}");
            return Err(cannot_load(text));
        }
        let mut all = lock(&self.modules);
        let loaded = all.kernels.get_mut(kernel.0);
        let loaded = loaded.ok_or_else(|| cannot_load(format!("no kernel {}", kernel.0)))?;
        let set = |a: Attribute, value: i32| {
            // SAFETY: the function belongs to a loaded module.
            check("cuFuncSetAttribute", unsafe {
                sys::cuFuncSetAttribute(loaded.function, a, value)
            })
        };
        if shared > loaded.shared {
            let bytes = i32::try_from(shared).map_err(cannot_load)?;
            set(
                Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
                bytes,
            )?;
            loaded.shared = shared;
        }
        if cluster > CLUSTER_DEFAULT && !loaded.large_clusters {
            set(
                Attribute::CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED,
                1,
            )?;
            loaded.large_clusters = true;
        }
        Ok(loaded.clone())
    }
}

fn compile(text: &str) -> Result<CUmodule> {
    use CUjit_option::*;
    let image = CString::new(text).map_err(cannot_load)?;
    let mut log = vec![0u8; LOG];
    let mut options = [CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES];
    let mut values: [*mut c_void; 2] = [
        log.as_mut_ptr().cast(),
        // Numbers travel in the place of pointers.
        std::ptr::without_provenance_mut(LOG),
    ];
    let mut module = std::ptr::null_mut();
    // SAFETY: the image ends with a zero; the log has the stated size; both outlive the call.
    let result = unsafe {
        sys::cuModuleLoadDataEx(
            &mut module,
            image.as_ptr().cast(),
            2,
            options.as_mut_ptr(),
            values.as_mut_ptr(),
        )
    };
    if result == CUresult::CUDA_SUCCESS {
        return Ok(module);
    }
    let end = log.iter().position(|b| *b == 0).unwrap_or(log.len());
    let said = String::from_utf8_lossy(&log[..end]);
    check("cuModuleLoadDataEx", result).map_err(|d| match (d.number(), said.trim()) {
        (733, _) => d,
        (_, "") => cannot_load(d.message()),
        (_, said) => cannot_load(format!("{}\n{said}", d.message())),
    })?;
    Ok(module)
}
