//! One target's part of a plan: steps in execution order, their kernels, and the arena.

use serde::{Deserialize, Serialize};

use super::text;
use crate::DType;

/// What one target executes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetSection {
    /// Name of the target: `cpu`, `x86-64-v3`, `sm_80`, `sm_90`, …
    pub target: String,
    /// Identifier of the module that the steps execute.
    pub module: String,
    /// Oldest GPU driver that can load the kernels, such as `525.60`; none for CPU targets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_driver: Option<String>,
    /// Steps in execution order.
    pub steps: Vec<Step>,
    /// Where intermediate values live.
    pub arena: Arena,
    /// By position, the name under which launches write each output (its value's name in the
    /// module, or that of the value of which it is a reshape); none for CPU targets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outputs: Vec<String>,
    /// The kernels that the steps launch.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kernels: Vec<Kernel>,
}

impl TargetSection {
    /// The kernel of that name.
    pub fn kernel(&self, name: &str) -> Option<&Kernel> {
        self.kernels.iter().find(|k| k.name == name)
    }
}

/// The execution of one op of the module.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Name of the op's first result in the module.
    pub op: String,
    /// Ways to run it, the best first: a device takes the first one whose conditions hold. Where
    /// none does, the sizes are beyond what the target can launch, which is an error.
    pub run: Vec<Choice>,
}

impl Step {
    /// A step that the CPU device compiles from the op itself when the plan is loaded.
    pub fn cpu(op: impl Into<String>) -> Self {
        Step::one(op, Action::Cpu)
    }

    /// A step that is one kernel launch in every case.
    pub fn launch(op: impl Into<String>, launch: Launch) -> Self {
        Step::one(op, Action::Launch(launch))
    }

    fn one(op: impl Into<String>, action: Action) -> Self {
        Step {
            op: op.into(),
            run: vec![Choice {
                requires: None,
                when: Vec::new(),
                actions: vec![action],
            }],
        }
    }
}

/// One way to run a step, and when it applies.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Choice {
    /// What it needs beyond the section's target: an architecture such as `sm_90a`, or [`VENDOR`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requires: Option<String>,
    /// Conditions on the sizes of this run; all must hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub when: Vec<Guard>,
    /// What to do, in order.
    pub actions: Vec<Action>,
}

/// The name by which a [`Choice`] requires the vendor's library (cuBLASLt).
pub const VENDOR: &str = "cublaslt";

/// `min <= expr <= max`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Guard {
    /// A dimension expression.
    pub expr: String,
    /// Smallest value that passes.
    pub min: u64,
    /// Largest value that passes.
    pub max: u64,
}

/// One thing that a device does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// The CPU device's own code for the op, made when the plan is loaded.
    Cpu,
    /// A kernel launch.
    Launch(Launch),
    /// A matrix product of the vendor's library.
    Vendor(Box<VendorGemm>),
}

impl Action {
    /// What it is given: for a tensor map, what the map describes.
    pub fn args(&self) -> Vec<&Arg> {
        let args: Vec<&Arg> = match self {
            Action::Cpu => Vec::new(),
            Action::Launch(l) => l.args.iter().collect(),
            Action::Vendor(g) => {
                let optional = [&g.a_scale, &g.b_scale, &g.bias].into_iter().flatten();
                [&g.a, &g.b, &g.d].into_iter().chain(optional).collect()
            }
        };
        args.into_iter().map(Arg::beneath).collect()
    }
}

impl Arg {
    /// What a tensor map describes; another argument is itself.
    fn beneath(&self) -> &Arg {
        match self {
            Arg::TensorMap { of, .. } => of,
            plain => plain,
        }
    }
}

/// A kernel launch; sizes are dimension expressions.
///
/// A grid with an extent of 0 is not launched: some size is 0 and there is nothing to store.
/// Every address is a multiple of 16 bytes, those of inputs and outputs too; a device that is
/// handed other addresses copies.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Launch {
    /// Name of a kernel of the section.
    pub kernel: String,
    /// Number of blocks along x, y and z.
    pub grid: [String; 3],
    /// Threads of a block along x, y and z.
    pub block: [u32; 3],
    /// Blocks of a cluster along x, y and z; none for a launch without clusters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<[u32; 3]>,
    /// Dynamic shared memory in bytes.
    pub shared: u32,
    /// Arguments in the order of the kernel's parameters.
    pub args: Vec<Arg>,
}

/// An argument of a kernel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Arg {
    /// Address of a value: an input, an output or a buffer of the arena.
    Value(String),
    /// Address of a weight in the named layout.
    Weight {
        /// Name of the weight.
        name: String,
        /// Layout of the weight.
        layout: String,
    },
    /// The value of a dimension expression as an integer.
    Dim {
        /// The expression.
        expr: String,
        /// Integer type of the parameter.
        #[serde(with = "text")]
        dtype: DType,
    },
    /// A TMA descriptor (tiled tensor map) over an address.
    TensorMap {
        /// What it describes: a value or a weight.
        of: Box<Arg>,
        /// Element type.
        #[serde(with = "text")]
        dtype: DType,
        /// Sizes from the innermost axis outward, as dimension expressions.
        dims: Vec<String>,
        /// Distances in bytes between elements of each axis but the innermost.
        strides: Vec<String>,
        /// Size of the tile that one copy moves.
        tile: Vec<u32>,
        /// Width in bytes of the shared-memory swizzle: 0, 32, 64 or 128.
        swizzle: u32,
    },
    /// Address of the step's two fault words, of 64 bits each. All bits are set before a run; a
    /// kernel that finds an index outside of its table lowers both to the minimum of what they
    /// hold and the index's position in its tensor (upper 32 bits) beside, in the first word, the
    /// upper and, in the second, the lower half of the index.
    Faults,
}

/// `D = alpha * A B^T` with an epilogue, run by the vendor's library (cuBLASLt).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VendorGemm {
    /// Rows of the result.
    pub m: String,
    /// Columns of the result.
    pub n: String,
    /// Length of the inner products.
    pub k: String,
    /// Element type of both factors.
    #[serde(with = "text")]
    pub input: DType,
    /// Element type of the result.
    #[serde(with = "text")]
    pub output: DType,
    /// The left factor, row-major `[m, k]`.
    pub a: Arg,
    /// The right factor, row-major `[n, k]`.
    pub b: Arg,
    /// The result, row-major `[m, n]`.
    pub d: Arg,
    /// Scale of the left factor, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub a_scale: Option<Arg>,
    /// Scale of the right factor, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub b_scale: Option<Arg>,
    /// Bias along the columns, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bias: Option<Arg>,
    /// Whether the tanh form of GELU is applied at the end.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub gelu: bool,
    /// Bytes of workspace that the library may use.
    pub workspace: u64,
}

/// A kernel: a function in one of the file's PTX texts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kernel {
    /// Name by which launches call it; unique within the section.
    pub name: String,
    /// Lowest architecture of the text, such as `sm_80` or `sm_90a`.
    pub arch: String,
    /// Entry of the file that holds the PTX text.
    pub entry: String,
    /// Name of the function in that text.
    pub symbol: String,
}

/// The memory for intermediate values: one allocation, values at planned offsets.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Arena {
    /// Size in bytes as a dimension expression; empty means that the device plans by itself.
    pub bytes: String,
    /// The values in it; those whose lifetimes do not meet may overlap.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub buffers: Vec<Buffer>,
}

/// A value in the arena.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Buffer {
    /// Name of the value in the module, or of a workspace.
    pub value: String,
    /// Offset in bytes, a dimension expression.
    pub offset: String,
    /// Size in bytes, a dimension expression.
    pub bytes: String,
}
