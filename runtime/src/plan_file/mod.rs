//! The plan file: one valid safetensors file that holds a compiled model.
//!
//! ```text
//! offset 0   u64, little endian: length of the header
//! offset 8   header: JSON, padded with spaces to a multiple of 4096 bytes in all
//! then       qcc.manifest        the Plan as JSON
//!            qcc.ledger          the Ledger as JSON
//!            …                   module texts and PTX texts under the names of the manifest
//!            …                   weights, in the order of the manifest
//!            qcc.hashes          u8[chunks + 1, 32]
//! ```
//!
//! Every tensor starts at a multiple of 64 bytes in the file, a large weight at a multiple of
//! 4096; filler tensors (`qcc.pad.N`, zeros) keep the data without holes, as safetensors asks.
//!
//! **Hashes.** The header and each tensor but the last are regions. A region is cut into chunks
//! of 1 MiB; row *i* of `qcc.hashes` is the BLAKE3 hash of chunk *i* in file order, and its last
//! row is the hash of all rows before it (the root). So every byte of the file is covered, and a
//! weight can be checked alone, before its first use.
//!
//! **Limits.** Header ≤ 16 MiB, manifest and ledger ≤ 16 MiB each, all sizes checked before
//! they are used. Any bytes give a plan or a typed error (`Q04xx`, see [`Diagnostic`]).
//!
//! A plan holds no host code, and its hashes detect damage, not forgery: who can write the file
//! can also write fitting hashes.
//!
//! [`Diagnostic`]: qcc_ir::Diagnostic

mod archive;
mod bytes;
mod container;
mod disk;
pub(crate) mod error;
mod hash;
mod header;
mod reader;
#[cfg(test)]
mod tests;
mod writer;

pub use bytes::AlignedBytes;
pub use hash::Root;
pub use reader::{EntryInfo, PlanFile, Verify};
pub use writer::{PlanContents, PlanWriter, Written, plan_in_memory};

/// Entry that holds the manifest.
const MANIFEST: &str = "qcc.manifest";
/// Entry that holds the ledger.
const LEDGER: &str = "qcc.ledger";
/// Entry that holds the hash rows.
const HASHES: &str = "qcc.hashes";
/// Prefix of the filler entries.
const PAD: &str = "qcc.pad.";
/// Key in the safetensors metadata that marks a plan and gives its format version.
const VERSION_KEY: &str = "qcc_plan";
/// Largest header.
const MAX_HEADER: u64 = 16 << 20;
/// Largest manifest and largest ledger.
const MAX_JSON: u64 = 16 << 20;
