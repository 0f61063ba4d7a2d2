//! What a kernel did wrong.

use std::fmt;

/// Classes of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FaultKind {
    /// An access outside every allocation, or outside shared, local or parameter memory.
    OutOfBounds,
    /// An address that is no multiple of the access size.
    Misaligned,
    /// A register or memory byte read before it was written.
    Uninitialized,
    /// Two conflicting accesses without a happens-before order.
    Race,
    /// Data of an asynchronous copy used before the copy was waited for.
    NotWaited,
    /// Generic writes reach the async proxy without `fence.proxy.async`.
    MissingProxyFence,
    /// Registers or shared memory of a `wgmma` touched while it may be running.
    WgmmaOrder,
    /// Lanes or threads that must execute an instruction together do not.
    Divergent,
    /// Nothing can ever run again.
    Deadlock,
    /// More instructions than the limit.
    Limit,
    /// An mbarrier misused: not initialized, count or transaction overflow.
    Mbarrier,
    /// A malformed tensor map, descriptor or instruction operand.
    Operand,
    /// Memory other than constants used before `griddepcontrol.wait`.
    BeforeDependency,
    /// `trap` was executed.
    Trap,
    /// The launch itself is impossible (block size, parameters, shared memory).
    Launch,
}

impl FaultKind {
    /// A short stable name for reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::OutOfBounds => "out-of-bounds",
            Self::Misaligned => "misaligned",
            Self::Uninitialized => "uninitialized",
            Self::Race => "race",
            Self::NotWaited => "not-waited",
            Self::MissingProxyFence => "missing-proxy-fence",
            Self::WgmmaOrder => "wgmma-order",
            Self::Divergent => "divergent",
            Self::Deadlock => "deadlock",
            Self::Limit => "limit",
            Self::Mbarrier => "mbarrier",
            Self::Operand => "operand",
            Self::BeforeDependency => "before-dependency",
            Self::Trap => "trap",
            Self::Launch => "launch",
        }
    }
}

/// A fault with the place where it happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Its class.
    pub kind: FaultKind,
    /// What happened, with the addresses and threads concerned.
    pub message: String,
    /// Kernel.
    pub kernel: String,
    /// PTX line, 0 when no instruction is to blame.
    pub line: u32,
    /// Block.
    pub block: [u32; 3],
    /// The last `//@ note` above the line: what the instruction was made from.
    pub note: Option<String>,
    /// Thread in the block, when one is to blame.
    pub thread: Option<[u32; 3]>,
}

impl Fault {
    /// One JSON object.
    #[must_use]
    pub fn to_json(&self) -> String {
        let text = |s: &str| -> String {
            let escaped: String = s.chars().flat_map(escape).collect();
            format!("\"{escaped}\"")
        };
        let triple = |t: [u32; 3]| format!("{t:?}");
        let or_null = |v: Option<String>| v.unwrap_or_else(|| "null".into());
        format!(
            "{{\"fault\":{},\"kernel\":{},\"line\":{},\"op\":{},\"block\":{},\"thread\":{},\"message\":{}}}",
            text(self.kind.name()),
            text(&self.kernel),
            self.line,
            or_null(self.note.as_deref().map(text)),
            triple(self.block),
            or_null(self.thread.map(triple)),
            text(&self.message)
        )
    }
}

/// A character in a JSON string.
fn escape(c: char) -> Vec<char> {
    match c {
        '"' | '\\' => vec!['\\', c],
        c if (c as u32) < 0x20 => format!("\\u{:04x}", c as u32).chars().collect(),
        c => vec![c],
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in `{}`", self.kind.name(), self.kernel)?;
        if self.line > 0 {
            write!(f, " line {}", self.line)?;
        }
        if let Some(note) = &self.note {
            write!(f, " ({note})")?;
        }
        write!(f, " block {:?}", self.block)?;
        if let Some(t) = self.thread {
            write!(f, " thread {t:?}")?;
        }
        write!(f, ": {}", self.message)
    }
}

impl std::error::Error for Fault {}
