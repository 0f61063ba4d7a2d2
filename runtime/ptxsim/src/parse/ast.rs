//! What the reader hands to the decoder: declarations with layout, and instructions whose registers
//! are already resolved to numbers.

use std::collections::BTreeMap;

use super::error::Pos;

/// A register of one kernel, by its place in [`Kernel::regs`].
pub(crate) type RegId = u32;

/// Width class of a declared register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RegKind {
    Pred,
    /// 16, 32 or 64 bits.
    Bits(u8),
}

/// A declared register.
#[derive(Clone, Debug)]
pub(crate) struct RegDecl {
    pub(crate) name: String,
    pub(crate) kind: RegKind,
}

/// An operand as written.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Operand {
    Reg(RegId),
    /// `!p`
    Not(RegId),
    /// A symbol, label or special register (`%tid.x` keeps its member).
    Sym(String),
    Int(i64),
    F32(u32),
    F64(u64),
    Vector(Vec<Operand>),
    /// `d|p`
    Pair(Box<Operand>, Box<Operand>),
    /// `[base+off]` or `[base, {coordinates}, more]`.
    Addr {
        base: Box<Operand>,
        off: i64,
        rest: Vec<Operand>,
    },
    /// `_`
    Sink,
}

/// One modifier without its dot.
#[derive(Clone, Debug)]
pub(crate) struct Mod {
    pub(crate) text: String,
    pub(crate) pos: Pos,
}

/// An instruction as written.
#[derive(Clone, Debug)]
pub(crate) struct RawInst {
    pub(crate) pos: Pos,
    /// `@p` (false) or `@!p` (true).
    pub(crate) guard: Option<(RegId, bool)>,
    pub(crate) opcode: String,
    pub(crate) mods: Vec<Mod>,
    pub(crate) operands: Vec<Operand>,
    /// The block in which label names are looked up.
    pub(crate) scope: u32,
}

/// State space of a variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum VarSpace {
    Shared,
    ExternShared,
    Global,
    Const,
    Local,
}

/// A variable with its size, and its initial bytes when it has an initializer.
#[derive(Clone, Debug)]
pub(crate) struct Var {
    pub(crate) name: String,
    pub(crate) space: VarSpace,
    pub(crate) align: u32,
    pub(crate) size: u32,
    pub(crate) init: Option<Vec<u8>>,
}

/// One kernel parameter in its place in the parameter bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Param {
    /// The name in the text.
    pub name: String,
    /// Byte offset in the parameter block.
    pub offset: u32,
    /// Bytes.
    pub size: u32,
    /// Alignment in bytes.
    pub align: u32,
}

/// A block `{ … }` of a body: labels declared in it, and the block around it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scope {
    pub(crate) parent: Option<u32>,
    pub(crate) labels: BTreeMap<String, usize>,
    pub(crate) branch_targets: BTreeMap<String, Vec<String>>,
}

/// One `.entry` as written.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kernel {
    pub(crate) name: String,
    pub(crate) params: Vec<Param>,
    pub(crate) regs: Vec<RegDecl>,
    pub(crate) vars: Vec<Var>,
    pub(crate) insts: Vec<RawInst>,
    pub(crate) scopes: Vec<Scope>,
    /// `.maxntid` or `.reqntid`: threads per block, and whether the shape is required.
    pub(crate) max_threads: Option<([u32; 3], bool)>,
    /// `.maxnreg`: registers of a thread.
    pub(crate) max_regs: Option<u32>,
    /// `.reqnctapercluster` / `.explicitcluster`.
    pub(crate) cluster: Option<[u32; 3]>,
}

/// A whole text.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ast {
    pub(crate) version: (u32, u32),
    pub(crate) target: String,
    pub(crate) vars: Vec<Var>,
    pub(crate) kernels: Vec<Kernel>,
}
