//! A kernel: parameters, shared arrays and a body of regions and statements.

use super::{Op, Ty};
use crate::DType;

/// A value of a kernel: a parameter, a region's parameter or a statement's result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Value(pub(crate) u32);

impl Value {
    /// Index into per-value tables, below [`Kernel::num_values`].
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Who runs a kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A grid of thread blocks.
    Spmd(Launch),
    /// One CPU thread over a range of rows; the first two parameters are `begin: i64, end: i64`.
    Serial,
}

/// The launch shape that an spmd kernel is written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Launch {
    /// Threads of a block in x, y, z.
    pub block: [u32; 3],
    /// Blocks of a cluster in x, y, z; all ones without clusters.
    pub cluster: [u32; 3],
    /// Blocks that should fit on one multiprocessor; 0 leaves it open.
    pub min_blocks: u32,
    /// Registers per thread at most; 0 leaves it open.
    pub max_regs: u32,
}

impl Launch {
    /// A one-dimensional block without hints.
    pub const fn threads(x: u32) -> Launch {
        Launch {
            block: [x, 1, 1],
            cluster: [1, 1, 1],
            min_blocks: 0,
            max_regs: 0,
        }
    }

    /// Threads of a block, if they can be counted.
    pub fn block_threads(&self) -> Option<u32> {
        self.block.iter().try_fold(1u32, |n, &d| n.checked_mul(d))
    }

    /// Blocks of a cluster, if they can be counted.
    pub fn cluster_blocks(&self) -> Option<u32> {
        self.cluster.iter().try_fold(1u32, |n, &d| n.checked_mul(d))
    }
}

/// A kernel parameter: a scalar of 32 or 64 bits, a pointer to device memory, or a tensor map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Param {
    /// Name, unique in the kernel.
    pub name: String,
    /// Type.
    pub ty: Ty,
}

/// An array in shared memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedArray {
    /// Name, unique in the kernel.
    pub name: String,
    /// Format of an element.
    pub elem: DType,
    /// Elements; `None` is the dynamic array, sized at launch (at most one).
    pub len: Option<u32>,
    /// Alignment in bytes, a power of two.
    pub align: u32,
}

impl SharedArray {
    /// Bytes of a static array; `None` for the dynamic one or when they overflow.
    pub fn bytes(&self) -> Option<u32> {
        let bytes = self.elem.byte_len(u64::from(self.len?))?;
        u32::try_from(bytes).ok()
    }
}

/// Statements with parameters and a final yield.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Region {
    /// Values defined on entry.
    pub params: Vec<Value>,
    /// Statements in program order.
    pub stmts: Vec<Stmt>,
    /// Values handed to the enclosing statement at the end.
    pub yields: Vec<Value>,
}

/// One operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stmt {
    /// Values that it defines.
    pub results: Vec<Value>,
    /// What it does.
    pub op: Op,
    /// Operands.
    pub args: Vec<Value>,
    /// Nested regions (control flow).
    pub regions: Vec<Region>,
}

/// A kernel.
///
/// Values are numbered in the order in which the text defines them: parameters, then for each
/// statement its results, its regions' parameters and their statements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) params: Vec<Param>,
    pub(crate) shared: Vec<SharedArray>,
    pub(crate) types: Vec<Ty>,
    pub(crate) body: Region,
}

impl Kernel {
    /// Name of the entry point.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The same kernel under another name.
    #[must_use]
    pub fn renamed(mut self, name: &str) -> Kernel {
        self.name = name.to_string();
        self
    }

    /// Who runs it.
    pub fn kind(&self) -> &Kind {
        &self.kind
    }

    /// The launch shape of an spmd kernel.
    pub fn launch(&self) -> Option<&Launch> {
        match &self.kind {
            Kind::Spmd(launch) => Some(launch),
            Kind::Serial => None,
        }
    }

    /// Parameters; parameter `i` is [`Kernel::param_value`]`(i)`.
    pub fn params(&self) -> &[Param] {
        &self.params
    }

    /// The value of parameter `i`.
    pub fn param_value(&self, i: usize) -> Option<Value> {
        (i < self.params.len()).then_some(Value(i as u32))
    }

    /// Shared arrays, in declaration order.
    pub fn shared(&self) -> &[SharedArray] {
        &self.shared
    }

    /// The statements.
    pub fn body(&self) -> &Region {
        &self.body
    }

    /// Type of a value.
    pub fn ty(&self, v: Value) -> Ty {
        self.types[v.index()]
    }

    /// Number of values; every [`Value`] of the kernel has a smaller index.
    pub fn num_values(&self) -> usize {
        self.types.len()
    }

    /// Calls `f` on every statement in program order, outer ones first.
    pub fn visit<'k>(&'k self, f: &mut dyn FnMut(&'k Stmt)) {
        visit_region(&self.body, f);
    }

    /// Static shared memory in bytes, each array aligned as declared; `None` on overflow.
    pub fn static_shared_bytes(&self) -> Option<u32> {
        let mut end = 0u32;
        for array in self.shared.iter().filter(|a| a.len.is_some()) {
            end = end
                .checked_next_multiple_of(array.align)?
                .checked_add(array.bytes()?)?;
        }
        Some(end)
    }
}

fn visit_region<'k>(region: &'k Region, f: &mut dyn FnMut(&'k Stmt)) {
    for stmt in &region.stmts {
        f(stmt);
        for inner in &stmt.regions {
            visit_region(inner, f);
        }
    }
}
