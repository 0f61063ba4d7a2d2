//! The plan: everything a device needs in order to run a compiled model, without the bytes.
//!
//! A [`Plan`] is the manifest of a plan file. It names the inputs and outputs, the ranges of
//! the symbolic dimensions, the quantized modules, the packed weights and, for each target, the
//! steps in execution order with their kernels and buffers ([`TargetSection`]). The bytes of
//! weights, kernels and module texts are *entries* of the file and are named here; reading and
//! writing them belongs to the runtime.
//!
//! Sizes, offsets and grids are dimension expressions in text form over the plan's symbols
//! (`4*N`, `(N + 127)//128`), so that one plan serves every size within the ranges.
//!
//! **Compatibility.** A reader refuses another major version. A newer minor version may add
//! fields at the top of [`Plan`] and entries to the file, and a reader ignores those; the types
//! nested in it are fixed within a major version and refuse fields that they do not know.

mod check;
mod describe;
mod layout;
mod section;
mod select;
mod text;

use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::DType;
use crate::diag::{Class, Diagnostic, Result};

pub use describe::{Interface, step_names};
pub use layout::Layout;
pub use section::{
    Action, Arena, Arg, Buffer, Choice, Guard, Kernel, Launch, Step, TargetSection, VENDOR,
    VendorGemm,
};

/// The version of the plan format: `major.minor`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FormatVersion {
    /// Changes when older readers cannot read the file.
    pub major: u32,
    /// Changes when something optional was added.
    pub minor: u32,
}

impl FormatVersion {
    /// The version that this crate writes.
    pub const CURRENT: FormatVersion = FormatVersion { major: 1, minor: 0 };
}

impl fmt::Display for FormatVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// The text is no `major.minor` version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidVersion(pub String);

impl fmt::Display for InvalidVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is not a version of the form 1.0", self.0)
    }
}

impl std::error::Error for InvalidVersion {}

impl FromStr for FormatVersion {
    type Err = InvalidVersion;

    fn from_str(s: &str) -> std::result::Result<Self, Self::Err> {
        let parts = s.split_once('.').and_then(|(major, minor)| {
            Some(FormatVersion {
                major: major.parse().ok()?,
                minor: minor.parse().ok()?,
            })
        });
        parts.ok_or_else(|| InvalidVersion(s.to_string()))
    }
}

/// The manifest of a plan file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Version of the plan format.
    pub format: FormatVersion,
    /// Version of the compiler that wrote it.
    pub qcc_version: String,
    /// Name of the model, as its graph says.
    pub model: String,
    /// BLAKE3 hash of the model's bytes (external data included), in hexadecimal.
    pub model_hash: String,
    /// The resolved options, by flag name: what the compiler really used.
    pub options: BTreeMap<String, String>,
    /// Symbolic dimensions with their ranges, in the order of their first use.
    pub symbols: Vec<Symbol>,
    /// Inputs in the order of the model.
    pub inputs: Vec<Port>,
    /// Outputs in the order of the model.
    pub outputs: Vec<Port>,
    /// The quantized modules that the sections execute.
    pub modules: Vec<ModuleEntry>,
    /// Packed weights in the order in which the file holds them.
    pub weights: Vec<WeightEntry>,
    /// One section per target.
    pub targets: Vec<TargetSection>,
}

/// A symbolic dimension and the sizes that it may take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Symbol {
    /// Name, as the dimension expressions spell it.
    pub name: String,
    /// Smallest size.
    pub min: u64,
    /// Largest size.
    pub max: u64,
    /// Sizes that the plan was optimised for, ascending.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub points: Vec<u64>,
}

/// An input or an output of the model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Port {
    /// Name in the model.
    pub name: String,
    /// Element type.
    #[serde(with = "text")]
    pub dtype: DType,
    /// One dimension expression per axis.
    pub dims: Vec<String>,
}

/// A quantized module: which entry of the file holds its text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModuleEntry {
    /// Identifier by which sections name it.
    pub id: String,
    /// Entry of the file that holds the text form.
    pub entry: String,
    /// The function to run.
    pub func: String,
}

/// A packed weight.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeightEntry {
    /// Name of the constant in the modules, which share one set of names; unique together with
    /// the layout.
    pub name: String,
    /// Element type.
    #[serde(with = "text")]
    pub dtype: DType,
    /// Logical dimensions, before packing.
    pub dims: Vec<u64>,
    /// How the elements lie in the entry: the name of a [`Layout`].
    pub layout: String,
    /// Entry of the file that holds the bytes.
    pub entry: String,
    /// Length of the entry in bytes.
    pub bytes: u64,
    /// Name of the weight in the source model from which it was made.
    pub source: String,
}

impl WeightEntry {
    /// The layout of a dense tensor with its last axis contiguous.
    pub const ROW_MAJOR: &'static str = Layout::RowMajor.name();

    /// The bytes of the entry, from those of the row-major tensor.
    ///
    /// # Errors
    /// `Q0408` if the layout is unknown, or the tensor cannot lie so.
    pub fn pack<'a>(&self, dense: &'a [u8]) -> Result<Cow<'a, [u8]>> {
        match self.known()? {
            Layout::RowMajor => Ok(Cow::Borrowed(dense)),
            l => l
                .pack(self.dtype, &self.dims, dense)
                .map(Cow::Owned)
                .ok_or_else(|| self.misfit()),
        }
    }

    /// The bytes of the row-major tensor, from those of the entry.
    ///
    /// # Errors
    /// As [`WeightEntry::pack`].
    pub fn unpack<'a>(&self, packed: &'a [u8]) -> Result<Cow<'a, [u8]>> {
        match self.known()? {
            Layout::RowMajor => Ok(Cow::Borrowed(packed)),
            l => l
                .unpack(self.dtype, &self.dims, packed)
                .map(Cow::Owned)
                .ok_or_else(|| self.misfit()),
        }
    }

    fn known(&self) -> Result<Layout> {
        Layout::named(&self.layout).ok_or_else(|| self.misfit())
    }

    fn misfit(&self) -> Diagnostic {
        let (name, dtype, dims, layout) = (&self.name, self.dtype, &self.dims, &self.layout);
        let text = format!("weight `{name}` of type {dtype}{dims:?} has no layout `{layout}`");
        Diagnostic::error(408, Class::Input, text)
            .hint("the plan contradicts itself: compile the model again")
    }

    /// Bytes of a dense row-major tensor of this type and these dims; `None` on overflow.
    pub fn dense_bytes(dtype: DType, dims: &[u64]) -> Option<u64> {
        let elems = dims.iter().try_fold(1u64, |n, &d| n.checked_mul(d))?;
        dtype.byte_len(elems)
    }
}

impl Plan {
    /// The symbol of that name.
    pub fn symbol(&self, name: &str) -> Option<&Symbol> {
        self.symbols.iter().find(|s| s.name == name)
    }

    /// The module with that identifier.
    pub fn module(&self, id: &str) -> Option<&ModuleEntry> {
        self.modules.iter().find(|m| m.id == id)
    }

    /// The weight of that name in that layout.
    pub fn weight(&self, name: &str, layout: &str) -> Option<&WeightEntry> {
        self.weights
            .iter()
            .find(|w| w.name == name && w.layout == layout)
    }

    /// The entries of the file that hold texts: those of modules and kernels, some repeatedly.
    pub fn text_entries(&self) -> impl Iterator<Item = &str> {
        let kernels = self.targets.iter().flat_map(|t| &t.kernels);
        let modules = self.modules.iter().map(|m| m.entry.as_str());
        modules.chain(kernels.map(|k| k.entry.as_str()))
    }

    /// The targets of the sections, in file order.
    pub fn target_names(&self) -> impl Iterator<Item = &str> {
        self.targets.iter().map(|t| t.target.as_str())
    }
}
