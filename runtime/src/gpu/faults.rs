//! What kernels report of the data that they met.
//!
//! A step that checks its data has two words of 64 bits on the device, all ones as long as nothing
//! is wrong. For an index outside of its table at position `p` of the index tensor, or an integer that
//! is divided by zero at position `p` of the result, a kernel lowers them (unsigned atomic minimum) to
//!
//! ```text
//! p · 2³² + upper half of the number        p · 2³² + lower half of the number
//! ```
//!
//! so what is left is the first of them, whatever order threads ran in. The words are read after
//! the outputs, when the stream has been waited for, and written again only after a fault.

use qcc_ir::bind::Sizes;
use qcc_ir::diag::{Diagnostic, Result, index_outside};
use qcc_ir::eval::undefined;
use qcc_ir::expr::BinaryFn;
use qcc_ir::graph::{Func, Module, Op, OpKind};

use super::driver::{Address, Stream};
use super::program::Program;
use crate::plan_file::error::contradicts;

/// Bytes of a step's words.
pub(crate) const BYTES: u64 = 16;

/// The words of a session's steps.
#[derive(Debug)]
pub(crate) struct Faults {
    at: Address,
    /// Whether all ones are known to be there.
    clean: bool,
}

/// What a step reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Position in [`Program::faults`].
    pub(crate) slot: usize,
    /// Position in the index tensor or the result.
    pub(crate) position: u32,
    /// The index or the dividend.
    pub(crate) number: i64,
}

impl Faults {
    /// Words at this address; nothing is known of them.
    pub(crate) fn new(at: Address) -> Self {
        Faults { at, clean: false }
    }

    /// Prepares the words of so many steps for a run.
    pub(crate) fn arm(&mut self, steps: usize, stream: &mut dyn Stream) -> Result<()> {
        if !self.clean && steps > 0 {
            stream.upload(self.at, &clear(steps))?;
        }
        self.clean = false;
        Ok(())
    }

    /// What the first of so many steps reported, if one did; everything before has run then.
    pub(crate) fn read(&mut self, steps: usize, stream: &mut dyn Stream) -> Result<Option<Fault>> {
        let mut words = clear(steps);
        if steps > 0 {
            stream.download(self.at, &mut words)?;
        }
        let found = first(&words);
        self.clean = found.is_none();
        Ok(found)
    }
}

/// The words of so many steps that have nothing to report.
pub(crate) fn clear(steps: usize) -> Vec<u8> {
    vec![0xff; steps * BYTES as usize]
}

/// The report of the first step that has one.
pub(crate) fn first(words: &[u8]) -> Option<Fault> {
    let (steps, _) = words.as_chunks::<{ BYTES as usize }>();
    let slot = steps.iter().position(|s| *s != [0xff; BYTES as usize])?;
    let word = |half: usize| {
        let bytes = steps[slot][8 * half..][..8].iter().rev();
        bytes.fold(0u64, |word, b| word << 8 | u64::from(*b))
    };
    let (upper, lower) = (word(0), word(1));
    Some(Fault {
        slot,
        position: (upper >> 32) as u32,
        number: (upper << 32 | lower & u64::from(u32::MAX)) as i64,
    })
}

impl Fault {
    /// The error that the same data give on the processor.
    pub(crate) fn diagnostic(self, program: &Program, module: &Module, s: &Sizes) -> Diagnostic {
        let step = &program.steps[program.faults[self.slot]].op;
        let f = module.funcs.first();
        let op = f.and_then(|f| Some((f, f.def_op(f.find(step)?)?)));
        let known = op.and_then(|(f, op)| {
            let data = f.ty(*op.operands.first()?);
            let why = match op.kind.indexed(data.rank()) {
                Some(axis) => {
                    let extent = s.dims(data).ok().and_then(|d| d.get(axis).copied());
                    index_outside(self.number, axis, extent.unwrap_or(0))
                }
                None => undefined(division(f, op)?, self.number, 0),
            };
            Some(why.at(op.loc.to_string()))
        });
        known.unwrap_or_else(|| contradicts(format!("step {step} reports {}", self.number)))
    }
}

/// The integer division of an op.
fn division(f: &Func, op: &Op) -> Option<BinaryFn> {
    let operand = |k: u8| {
        let v = op.operands.get(usize::from(k));
        v.map(|v| f.ty(*v).elem.read_as())
    };
    match &op.kind {
        OpKind::Binary(b) => Some(*b),
        kind => kind
            .expr()?
            .integer_divisions(&operand)
            .first()
            .map(|d| d.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_step_that_reports_is_read() {
        assert_eq!(first(&clear(3)), None);
        for index in [-1i64, i64::MIN, i64::MAX, 5, 1 << 40] {
            let mut words = clear(3);
            for (slot, position) in [(2u64, 1u64), (1, 7)] {
                let halves = [index as u64 >> 32, index as u64 & u64::from(u32::MAX)];
                for (half, value) in halves.into_iter().enumerate() {
                    let at = (16 * slot) as usize + 8 * half;
                    words[at..at + 8].copy_from_slice(&(position << 32 | value).to_le_bytes());
                }
            }
            let want = Fault {
                slot: 1,
                position: 7,
                number: index,
            };
            assert_eq!(first(&words), Some(want));
        }
    }
}
