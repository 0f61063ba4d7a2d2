//! Machine code for serial kernels: kernel IR through Cranelift.
//!
//! [`Jit`] compiles kernels while a program is prepared and keeps equal ones once. A compiled
//! [`Code`] takes the address of an array with one 64-bit word for each kernel parameter. The
//! executable memory lives as long as any [`Code`] that was compiled into it.

mod arith;
mod calls;
mod convert;
mod emit;
mod lanes;
mod math;

use cranelift_codegen::Context;
use cranelift_codegen::ir::{AbiParam, types};
use cranelift_codegen::settings::{self, Configurable};
use cranelift_frontend::FunctionBuilderContext;
use cranelift_jit::{JITBuilder, JITModule};
use cranelift_module::{Linkage, Module, default_libcall_names};
use qcc_ir::diag::{Class, Diagnostic, Result};
use qcc_ir::kernel::Kernel;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// Compiles kernels into one piece of executable memory.
pub(crate) struct Jit {
    memory: Arc<Memory>,
    /// Compiled kernels by their text.
    known: BTreeMap<String, Code>,
}

/// Executable memory, freed with its last user.
struct Memory {
    module: Mutex<Option<JITModule>>,
}

impl Drop for Memory {
    fn drop(&mut self) {
        let module = self.module.get_mut().ok().and_then(Option::take);
        if let Some(m) = module {
            // SAFETY: every `Code` holds this memory, so none is left to be called.
            unsafe { m.free_memory() };
        }
    }
}

/// The machine code of a kernel.
#[derive(Clone)]
pub(crate) struct Code {
    entry: extern "C" fn(*const u64),
    params: usize,
    _memory: Arc<Memory>,
}

impl Code {
    /// Runs the kernel.
    ///
    /// # Safety
    /// `args` holds one word for each parameter: the bits of a scalar, or the address of memory
    /// in which every element that the kernel reaches for these scalars lies, writable where
    /// the kernel writes and not accessed by another thread then.
    ///
    /// # Errors
    /// When the number of arguments is not that of the parameters.
    pub(crate) unsafe fn call(&self, args: &[u64]) -> Result<()> {
        if args.len() != self.params {
            return Err(crate::internal(format!(
                "{} arguments for a kernel of {} parameters",
                args.len(),
                self.params
            )));
        }
        (self.entry)(args.as_ptr());
        Ok(())
    }
}

fn failed(what: impl std::fmt::Display) -> Diagnostic {
    Diagnostic::error(711, Class::Internal, format!("code generation: {what}"))
}

impl Jit {
    /// An empty compiler for the processor that runs it.
    ///
    /// # Errors
    /// When Cranelift does not know the processor.
    pub(crate) fn new() -> Result<Self> {
        let mut flags = settings::builder();
        for (name, value) in [
            ("use_colocated_libcalls", "false"),
            ("is_pic", "false"),
            ("opt_level", "speed"),
        ] {
            flags.set(name, value).map_err(failed)?;
        }
        let isa = cranelift_native::builder()
            .map_err(|e| Diagnostic::error(712, Class::Unsupported, e.to_string()))?
            .finish(settings::Flags::new(flags))
            .map_err(failed)?;
        let mut builder = JITBuilder::with_isa(isa, default_libcall_names());
        for (name, address) in calls::table() {
            builder.symbol(name, address);
        }
        Ok(Jit {
            memory: Arc::new(Memory {
                module: Mutex::new(Some(JITModule::new(builder))),
            }),
            known: BTreeMap::new(),
        })
    }

    /// The code of a kernel, compiled or found.
    ///
    /// # Errors
    /// When the kernel holds an operation that serial kernels of this crate do not use.
    pub(crate) fn compile(&mut self, kernel: &Kernel) -> Result<Code> {
        let text = kernel.to_string();
        if let Some(code) = self.known.get(&text) {
            return Ok(code.clone());
        }
        let entry = {
            let mut guard = self.memory.module.lock().map_err(failed)?;
            let module = guard.as_mut().ok_or_else(|| failed("memory is gone"))?;
            define(module, kernel, self.known.len())?
        };
        let code = Code {
            entry,
            params: kernel.params().len(),
            _memory: self.memory.clone(),
        };
        self.known.insert(text, code.clone());
        Ok(code)
    }
}

/// Compiles one kernel; `number` tells it from the others in the module.
fn define(
    module: &mut JITModule,
    kernel: &Kernel,
    number: usize,
) -> Result<extern "C" fn(*const u64)> {
    let mut ctx: Context = module.make_context();
    ctx.func.signature.params.push(AbiParam::new(types::I64));
    let id = module
        .declare_function(
            &format!("kernel{number}"),
            Linkage::Local,
            &ctx.func.signature,
        )
        .map_err(failed)?;
    let mut builder = FunctionBuilderContext::new();
    emit::function(module, &mut ctx.func, &mut builder, kernel)?;
    module
        .define_function(id, &mut ctx)
        .map_err(|e| failed(format!("{e:?}")))?;
    module.finalize_definitions().map_err(failed)?;
    let address = module.get_finalized_function(id);
    // SAFETY: the address is that of a function with exactly this signature, just finalized.
    Ok(unsafe { std::mem::transmute::<*const u8, extern "C" fn(*const u64)>(address) })
}

#[cfg(test)]
mod tests;
