//! A decoded kernel.

use super::{Inst, Lanes};
use crate::parse::ast::Param;

/// Shared memory addresses begin here: the first KiB belongs to the system on sm_90, and a kernel that
/// takes address 0 for valid is caught on every target.
pub(crate) const SHARED_START: u32 = 1024;

/// A module variable in global or constant memory.
#[derive(Clone, Debug)]
pub(crate) struct GlobalVar {
    pub(crate) name: String,
    pub(crate) size: u32,
    pub(crate) init: Option<Vec<u8>>,
}

/// A constant operand that is the address of a module variable plus an offset.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reloc {
    pub(crate) constant: usize,
    pub(crate) var: usize,
    pub(crate) off: i64,
}

/// A kernel ready to execute.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    pub(crate) name: String,
    pub(crate) insts: Vec<Inst>,
    pub(crate) consts: Vec<Lanes>,
    pub(crate) relocs: Vec<Reloc>,
    pub(crate) reg_names: Vec<String>,
    pub(crate) num_preds: usize,
    pub(crate) params: Vec<Param>,
    pub(crate) param_bytes: u32,
    /// End of the static shared variables, an address.
    pub(crate) static_end: u32,
    /// Where dynamic shared memory begins, an address.
    pub(crate) dynamic_start: u32,
    pub(crate) local_bytes: u32,
    pub(crate) max_threads: Option<([u32; 3], bool)>,
    pub(crate) max_regs: Option<u32>,
    pub(crate) cluster: Option<[u32; 3]>,
    /// Uses `wgmma`, so writes of registers are followed.
    pub(crate) wgmma: bool,
    /// Has a `griddepcontrol.wait`.
    pub(crate) depends: bool,
    /// Log2 of the smallest access to shared and to global memory: the grain of the race checks.
    pub(crate) shared_grain: u32,
    pub(crate) global_grain: u32,
    /// Blocks may talk to each other through memory (atomics, synchronizing or volatile accesses).
    pub(crate) communicates: bool,
}
