//! Executes kernels: what their operations mean, without a GPU.
//!
//! A block's threads run in lockstep, statement by statement, under masks; so barriers, shuffles,
//! `ldmatrix` and `mma` have all their threads at hand. Blocks run one after another in order of
//! x, y, z. Copies are done when they are issued. Races are not looked for (that is the simulator's
//! work), and waiting for another thread inside a block is not possible: kernels with mbarriers,
//! bulk copies, wgmma or clusters are refused.
//!
//! Special functions are computed in f64 and rounded, approximate ones too. Sums of `mma` are exact
//! for integers; for floats each product is exact and added in f32 in the order of K.

mod arith;
mod machine;
mod memory;
mod number;
mod tensor;
mod warp;

use std::fmt;

use super::{Kernel, Kind, Ty};
use memory::Memory;

pub use number::{decode, encode};

/// An argument of a kernel.
#[derive(Debug)]
pub enum Arg<'a> {
    /// The bits of a scalar.
    Scalar(u64),
    /// Memory that the kernel only reads.
    Read(&'a [u8]),
    /// Memory that the kernel may write.
    Write(&'a mut [u8]),
}

/// Why a kernel could not be executed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvalError {
    /// What went wrong.
    pub message: String,
    /// The statement in text form, when there is one.
    pub at: Option<String>,
}

impl EvalError {
    fn new(message: impl Into<String>) -> EvalError {
        EvalError {
            message: message.into(),
            at: None,
        }
    }
}

impl fmt::Display for EvalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.at {
            Some(at) => write!(f, " (at `{at}`)"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for EvalError {}

type Evaluated<T = ()> = Result<T, EvalError>;

/// Runs a verified kernel: an spmd kernel on a grid of blocks with this much dynamic shared memory,
/// a serial one once (its `begin` and `end` are the first two arguments; the grid is ignored).
///
/// # Errors
/// Arguments that do not fit the parameters, an access out of bounds or misaligned, a barrier that
/// some threads of the block do not reach, an operation that lockstep cannot execute.
pub fn run(
    kernel: &Kernel,
    grid: [u32; 3],
    dynamic_shared: u32,
    args: &mut [Arg<'_>],
) -> Evaluated {
    if args.len() != kernel.params().len() {
        let (n, m) = (args.len(), kernel.params().len());
        return Err(EvalError::new(format!("{n} arguments for {m} parameters")));
    }
    let (memory, scalars) = Memory::new(kernel, args)?;
    let (block, grid) = match kernel.kind() {
        Kind::Spmd(launch) if launch.cluster != [1, 1, 1] => {
            return Err(EvalError::new("clusters are not executed in lockstep"));
        }
        Kind::Spmd(launch) => (launch.block, grid),
        Kind::Serial => ([1, 1, 1], [1, 1, 1]),
    };
    let mut machine = machine::Machine::new(kernel, block, grid, memory, &scalars);
    for z in 0..grid[2] {
        for y in 0..grid[1] {
            for x in 0..grid[0] {
                machine.run_block([x, y, z], dynamic_shared)?;
            }
        }
    }
    Ok(())
}

/// Checks an argument against its parameter.
fn check_arg(ty: Ty, arg: &Arg<'_>) -> Evaluated {
    match (ty, arg) {
        (Ty::Val { .. }, Arg::Scalar(_)) => Ok(()),
        (
            Ty::Ptr {
                space: super::Space::ReadOnly,
                ..
            },
            Arg::Read(_) | Arg::Write(_),
        ) => Ok(()),
        (Ty::Ptr { .. }, Arg::Write(_)) => Ok(()),
        (Ty::Ptr { .. }, Arg::Read(_)) => {
            Err(EvalError::new("read-only memory for a writing kernel"))
        }
        (ty, _) => Err(EvalError::new(format!(
            "no such argument for a parameter of type `{ty}`"
        ))),
    }
}
