//! How a kernel is launched and how it is simulated.

pub use crate::num::approx::Approx;

/// Grid, block and parameters of one launch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Launch {
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: [u32; 3],
    /// Blocks of a cluster; `[1, 1, 1]` for none. A kernel's `.reqnctapercluster` wins over zeros.
    pub cluster: [u32; 3],
    /// Dynamic shared memory of a block, in bytes.
    pub shared_bytes: u32,
    /// Parameters in order.
    pub args: Vec<Arg>,
}

impl Launch {
    /// A launch without cluster and dynamic shared memory.
    #[must_use]
    pub fn new(grid: [u32; 3], block: [u32; 3], args: Vec<Arg>) -> Self {
        Self {
            grid,
            block,
            cluster: [0; 3],
            shared_bytes: 0,
            args,
        }
    }
}

/// One kernel parameter; its size must equal the declared one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arg {
    /// A pointer.
    Ptr(crate::DevPtr),
    /// 32 bits.
    U32(u32),
    /// 64 bits.
    U64(u64),
    /// The bits of an f32.
    F32(u32),
    /// Any bytes: 8- and 16-bit values, structs, tensor maps.
    Bytes(Vec<u8>),
}

impl Arg {
    /// An f32 parameter.
    #[must_use]
    pub fn f32(x: f32) -> Self {
        Self::F32(x.to_bits())
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Ptr(p) => p.0.to_le_bytes().to_vec(),
            Self::U32(v) | Self::F32(v) => v.to_le_bytes().to_vec(),
            Self::U64(v) => v.to_le_bytes().to_vec(),
            Self::Bytes(b) => b.clone(),
        }
    }
}

/// How tensor cores accumulate floats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Accumulate {
    /// Products and sum exact (in f64), rounded once to the accumulator.
    #[default]
    Exact,
    /// Addends aligned to the largest exponent and truncated, as Hopper does.
    Hopper,
}

/// How a launch is simulated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// 0: warps in order, copies complete at once. 1: copies complete as late as possible. Others:
    /// a random schedule in which copies complete at random times and `try_wait` fails spuriously.
    pub schedule_seed: u64,
    /// Tensor core accumulation.
    pub accumulate: Accumulate,
    /// Approximate functions.
    pub approx: Approx,
    /// Find races and reads of data that was not waited for.
    pub races: bool,
    /// Find reads of unwritten registers and memory.
    pub uninit: bool,
    /// Keep counters.
    pub count: bool,
    /// Operating-system threads; the result is the same for any number.
    pub threads: usize,
    /// Most warp instructions of one block (or cluster) before it counts as endless.
    pub max_instructions: u64,
    /// The launch depends on the one before (programmatic dependent launch): memory other than the
    /// listed constant ranges may not be touched before `griddepcontrol.wait`.
    pub dependent: bool,
    /// Ranges (address, bytes) that earlier launches do not write.
    pub constants: Vec<(u64, u64)>,
    /// SM count for the number of waves in the report.
    pub sms: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            schedule_seed: 0,
            accumulate: Accumulate::Exact,
            approx: Approx::Nearest,
            races: true,
            uninit: true,
            count: true,
            threads: 1,
            max_instructions: 1 << 32,
            dependent: false,
            constants: vec![],
            sms: 132,
        }
    }
}

impl Options {
    /// Values only: no races, no initialization checks, no counters.
    #[must_use]
    pub fn fast() -> Self {
        Self {
            races: false,
            uninit: false,
            count: false,
            ..Self::default()
        }
    }
}
