//! Operand and result types of every operation: the one set of typing rules, used eagerly by the
//! builder and again by the verifier.

mod hardware;
mod scalar;

use super::{Op, Problem, Ty};
use crate::DType;

/// Types of a statement's operands and results.
pub(crate) struct Sig<'a> {
    pub(crate) args: &'a [Ty],
    pub(crate) results: &'a [Ty],
}

pub(crate) type Checked = Result<(), Problem>;

/// Whether `op` may take these operands and give these results. Control flow is checked with its
/// regions in the verifier.
pub(crate) fn check(op: &Op, args: &[Ty], results: &[Ty]) -> Checked {
    for ty in results {
        if !ty.exists() {
            return Err(Problem::new("K05", format!("no kernel type is `{ty}`")));
        }
    }
    let sig = Sig { args, results };
    match op {
        Op::For | Op::While | Op::If => Ok(()),
        op if op.is_async() => hardware::check_async(op, &sig),
        op if op.is_tensor() => hardware::check_tensor(op, &sig),
        op if op.is_serial() => scalar::check(op, &sig),
        op => hardware::check_thread(op, &sig),
    }
}

pub(crate) fn operand(message: impl Into<String>) -> Problem {
    Problem::new("K03", message)
}

pub(crate) fn result(message: impl Into<String>) -> Problem {
    Problem::new("K04", message)
}

pub(crate) fn ensure(ok: bool, problem: impl FnOnce() -> Problem) -> Checked {
    if ok { Ok(()) } else { Err(problem()) }
}

impl Sig<'_> {
    /// Exactly these numbers of operands and results.
    pub(crate) fn counts(&self, args: usize, results: usize) -> Checked {
        ensure(self.args.len() == args, || {
            Problem::new(
                "K02",
                format!("takes {args} operands, not {}", self.args.len()),
            )
        })?;
        ensure(self.results.len() == results, || {
            result(format!(
                "gives {results} results, not {}",
                self.results.len()
            ))
        })
    }

    /// `n` operands of one type and one result of it; returns the type.
    pub(crate) fn uniform(&self, n: usize) -> Result<Ty, Problem> {
        self.counts(n, 1)?;
        let ty = self.results[0];
        for arg in self.args {
            ensure(*arg == ty, || {
                operand(format!("operand `{arg}` where the result is `{ty}`"))
            })?;
        }
        Ok(ty)
    }

    pub(crate) fn arg_is(&self, i: usize, ty: Ty) -> Checked {
        ensure(self.args[i] == ty, || {
            operand(format!(
                "operand {i} is `{}`, expected `{ty}`",
                self.args[i]
            ))
        })
    }

    pub(crate) fn word(&self, i: usize) -> Checked {
        ensure(self.args[i].is_word(), || {
            operand(format!(
                "operand {i} is `{}`, expected 32 bits",
                self.args[i]
            ))
        })
    }

    /// Pointer operand: its element format, if the space is allowed.
    pub(crate) fn pointer(&self, i: usize, spaces: &[super::Space]) -> Result<DType, Problem> {
        match self.args.get(i) {
            Some(Ty::Ptr { elem, space }) if spaces.contains(space) => Ok(*elem),
            Some(other) => {
                let names: Vec<_> = spaces.iter().map(|s| s.name()).collect();
                Err(operand(format!(
                    "operand {i} is `{other}`, expected a pointer to {} memory",
                    names.join(" or ")
                )))
            }
            None => Err(Problem::new("K02", format!("operand {i} is missing"))),
        }
    }
}
