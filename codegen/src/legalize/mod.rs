//! Rewrites kernels into operations that a GPU architecture has.
//!
//! Which operations those are, the emitter's tables say: each statement is tried alone. One that
//! has no instruction, or one of a newer architecture, is replaced by others until all are legal.
//! The replacements are exact: they give the same bits as the codecs of [`qcc_ir::format`] (a NaN
//! stays a NaN), only the special functions of `math` state an error.
//!
//! | missing | replaced by |
//! |---|---|
//! | conversions from and to FP8 (`fp8`) | f16 and integer operations, or the packed instruction |
//! | conversions from and to bf16 and saturating ones (`narrow`) | shifts, f32 rounded to odd, clamps |
//! | conversions from and to 4 bits (`nibble`) | shifts of words |
//! | arithmetic of 16-bit floats (`wide`) | the same in f32, rounded once more (innocuous: 24 ≥ 2·11 + 2 bits) |
//! | vectors (`lanes`) | lanes one by one |
//! | exact special functions (`math`) | polynomials |

mod fp8;
mod lanes;
mod math;
mod narrow;
mod nibble;
mod wide;

use qcc_ir::diag::{Class, Diagnostic};
use qcc_ir::kernel::{Kernel, KernelBuilder, Op, Stmt, Ty, Value, rewrite};

use crate::ptx::{Arch, Probe};

/// Replacements of replacements; more means that rules feed each other.
const MAX_ROUNDS: usize = 12;

/// The kernel in operations that `arch` has.
///
/// # Errors
/// `Q0623` for an operation that the architecture lacks and nothing replaces.
pub fn legalize(kernel: &Kernel, arch: Arch) -> Result<Kernel, Diagnostic> {
    let mut kernel = kernel.clone();
    for _ in 0..MAX_ROUNDS {
        let mut stuck = None;
        let mut changed = false;
        let next = {
            let mut probe = Probe::new(&kernel);
            rewrite(&kernel, &mut |k, stmt, args| {
                if probe.runs_on(stmt, arch) {
                    return None;
                }
                changed = true;
                let replaced = replace(k, &kernel, stmt, args, arch);
                if replaced.is_none() {
                    stuck.get_or_insert_with(|| describe(&kernel, stmt));
                }
                replaced
            })
        };
        if let Some(op) = stuck {
            let message = format!("{arch} has no instruction for `{op}`, and nothing replaces it");
            return Err(Diagnostic::error(623, Class::Unsupported, message)
                .at(format!("kernel {}", kernel.name())));
        }
        if !changed {
            return Ok(kernel);
        }
        kernel = next.map_err(|problem| {
            let message = format!("legalizing `{}` for {arch}: {problem}", kernel.name());
            Diagnostic::error(624, Class::Internal, message)
        })?;
    }
    let message = format!("legalizing `{}` for {arch} does not end", kernel.name());
    Err(Diagnostic::error(624, Class::Internal, message))
}

fn describe(kernel: &Kernel, stmt: &Stmt) -> String {
    let types = |values: &[Value]| {
        values
            .iter()
            .map(|&v| kernel.ty(v).to_string())
            .collect::<Vec<_>>()
            .join(", ")
    };
    format!(
        "{} {} -> {}",
        stmt.op.name(),
        types(&stmt.args),
        types(&stmt.results)
    )
}

/// A statement to replace, with its operands in the new kernel.
struct Site<'a> {
    op: Op,
    args: &'a [Value],
    /// Types of the results.
    to: Vec<Ty>,
    arch: Arch,
}

fn replace(
    k: &mut KernelBuilder,
    kernel: &Kernel,
    stmt: &Stmt,
    args: &[Value],
    arch: Arch,
) -> Option<Vec<Value>> {
    let to = stmt.results.iter().map(|&r| kernel.ty(r)).collect();
    let site = Site {
        op: stmt.op,
        args,
        to,
        arch,
    };
    let one = |v: Value| vec![v];
    if let Op::Convert { .. } = site.op {
        return nibble::convert(k, &site)
            .or_else(|| fp8::convert(k, &site))
            .or_else(|| narrow::convert(k, &site))
            .or_else(|| lanes::split(k, &site))
            .map(one);
    }
    if let Op::Redux { op } = site.op {
        return Some(one(lanes::redux(k, op, args[0])));
    }
    wide::in_f32(k, &site)
        .or_else(|| math::expand(k, &site))
        .or_else(|| lanes::split(k, &site))
        .or_else(|| wide::keep_nan(k, &site))
        .map(one)
}
