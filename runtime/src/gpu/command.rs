//! What a device is told to do, in numbers: nothing symbolic and no names are left.

use qcc_ir::DType;
use std::sync::Arc;

/// An address in the device's memory.
pub(crate) type Address = u64;

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Command {
    /// The step of the plan, for messages.
    pub(crate) step: Arc<str>,
    pub(crate) work: Work,
}

/// A launch or a product of the vendor's library.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Work {
    Launch(LaunchNumbers<ArgBytes>),
    Gemm(GemmNumbers<Address>),
}

/// A kernel launch. `A` is an argument: with a place in the plan, later with an address.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LaunchNumbers<A> {
    /// Position of the kernel among those that the executor loaded.
    pub(crate) kernel: usize,
    /// Blocks; none is zero.
    pub(crate) grid: [u32; 3],
    /// Threads of a block.
    pub(crate) block: [u32; 3],
    /// Blocks of a cluster; it divides the grid.
    pub(crate) cluster: Option<[u32; 3]>,
    /// Dynamic shared memory in bytes.
    pub(crate) shared: u32,
    /// Arguments in the order of the kernel's parameters.
    pub(crate) args: Vec<A>,
}

/// The bytes of one kernel parameter, little-endian.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ArgBytes {
    /// 4 bytes.
    Four([u8; 4]),
    /// 8 bytes: an address or a number.
    Eight([u8; 8]),
    /// A tensor map.
    Map(Box<[u8; 128]>),
}

impl ArgBytes {
    /// The bytes, as many as the parameter has.
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            ArgBytes::Four(b) => b,
            ArgBytes::Eight(b) => b,
            ArgBytes::Map(b) => &b[..],
        }
    }
}

/// A tensor map (TMA descriptor). `A` is where the tensor begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TensorMapNumbers<A> {
    pub(crate) address: A,
    pub(crate) dtype: DType,
    /// Elements along each axis, the innermost first.
    pub(crate) dims: Vec<u64>,
    /// Bytes from one element to the next along each axis but the innermost.
    pub(crate) strides: Vec<u64>,
    /// Elements of the box that one copy moves.
    pub(crate) tile: Vec<u32>,
    /// Width of the swizzle in bytes: 0, 32, 64 or 128.
    pub(crate) swizzle: u32,
}

/// `D[m, n] = gelu?(a_scale · b_scale · A[m, k] B[n, k]ᵀ + bias[n])`, all row-major. `A` is where a
/// tensor begins. The scales are one f32 each; the bias has the type of the result.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct GemmNumbers<A> {
    pub(crate) m: u64,
    pub(crate) n: u64,
    pub(crate) k: u64,
    /// Type of both factors.
    pub(crate) input: DType,
    /// Type of the result and of the bias.
    pub(crate) output: DType,
    pub(crate) a: A,
    pub(crate) b: A,
    pub(crate) d: A,
    pub(crate) a_scale: Option<A>,
    pub(crate) b_scale: Option<A>,
    pub(crate) bias: Option<A>,
    /// Whether the tanh form of GELU is applied at the end.
    pub(crate) gelu: bool,
    /// Memory that the library may use, and its size in bytes.
    pub(crate) workspace: (A, u64),
}
