//! Barriers, shuffles, votes, reductions, atomics.

use super::super::body::{Stmt, Value};
use super::super::{AtomicOp, Op, ReduxOp, ShflMode, Ty, VoteMode};
use super::machine::{Machine, Mask};
use super::memory::{from_bytes, to_bytes};
use super::{EvalError, Evaluated, arith};
use crate::DType;

impl<'k, 'a> Machine<'k, 'a> {
    pub(super) fn warp(&mut self, stmt: &'k Stmt, mask: &Mask) -> Evaluated {
        match stmt.op {
            Op::Barrier if mask.contains(&false) => {
                Err(EvalError::new("a barrier that some threads do not reach"))
            }
            Op::NamedBarrier { threads, .. } => {
                let here = mask.iter().filter(|&&m| m).count();
                let all = here == threads as usize;
                all.then_some(())
                    .ok_or_else(|| EvalError::new(format!("{here} of {threads} threads")))
            }
            Op::Barrier | Op::WarpSync | Op::Fence { .. } | Op::GridDep { .. } => Ok(()),
            Op::Shuffle { mode } => self.each_warp(mask, |m, lanes| m.shuffle(stmt, mode, lanes)),
            Op::Vote { mode } => self.each_warp(mask, |m, lanes| {
                let mut votes = lanes.iter().map(|&t| m.scalar(stmt.args[0], t) == 1);
                let answer = match mode {
                    VoteMode::All => votes.all(|v| v),
                    VoteMode::Any => votes.any(|v| v),
                };
                m.broadcast(stmt.results[0], lanes, u64::from(answer))
            }),
            Op::Ballot => self.each_warp(mask, |m, lanes| {
                let bits = lanes
                    .iter()
                    .map(|&t| m.scalar(stmt.args[0], t) << (t % 32))
                    .sum();
                m.broadcast(stmt.results[0], lanes, bits)
            }),
            Op::Redux { op } => self.each_warp(mask, |m, lanes| m.redux(stmt, op, lanes)),
            Op::Elect => self.each_warp(mask, |m, lanes| {
                for (i, &t) in lanes.iter().enumerate() {
                    m.set(stmt.results[0], t, &[u64::from(i == 0)]);
                }
                Ok(())
            }),
            Op::Atomic { .. } | Op::AtomicCas { .. } => (0..self.threads)
                .filter(|&t| mask[t])
                .try_for_each(|t| self.atomic(stmt, t)),
            op => Err(EvalError::new(format!(
                "`{}` is not executed in lockstep",
                op.name()
            ))),
        }
    }

    /// Runs `f` on the active threads of each warp that has any.
    fn each_warp(
        &mut self,
        mask: &Mask,
        f: impl Fn(&mut Self, &[usize]) -> Evaluated,
    ) -> Evaluated {
        for first in (0..self.threads).step_by(32) {
            let lanes: Vec<usize> = (first..self.threads.min(first + 32))
                .filter(|&t| mask[t])
                .collect();
            if !lanes.is_empty() {
                f(self, &lanes)?;
            }
        }
        Ok(())
    }

    fn broadcast(&mut self, v: Value, lanes: &[usize], bits: u64) -> Evaluated {
        lanes.iter().for_each(|&t| self.set(v, t, &[bits]));
        Ok(())
    }

    fn shuffle(&mut self, stmt: &Stmt, mode: ShflMode, lanes: &[usize]) -> Evaluated {
        let values: Vec<Vec<u64>> = lanes
            .iter()
            .map(|&t| self.get(stmt.args[0], t).to_vec())
            .collect();
        for &t in lanes {
            let lane = (t % 32) as i64;
            let by = self.scalar(stmt.args[1], t) as i64 & 31;
            let source = match mode {
                ShflMode::Idx => by,
                ShflMode::Up => lane - by,
                ShflMode::Down => lane + by,
                ShflMode::Bfly => lane ^ by,
            };
            let source = if (0..32).contains(&source) {
                source
            } else {
                lane
            };
            let found = lanes.iter().position(|&s| (s % 32) as i64 == source);
            let Some(from) = found else {
                return Err(EvalError::new(format!(
                    "lane {lane} reads lane {source}, which is not there"
                )));
            };
            self.set(stmt.results[0], t, &values[from]);
        }
        Ok(())
    }

    fn redux(&mut self, stmt: &Stmt, op: ReduxOp, lanes: &[usize]) -> Evaluated {
        let dtype = self.ty(stmt.args[0]).dtype().unwrap_or(DType::U32);
        let op = match op {
            ReduxOp::Add => Op::IAdd,
            ReduxOp::Min => Op::IMin,
            ReduxOp::Max => Op::IMax,
            ReduxOp::And => Op::And,
            ReduxOp::Or => Op::Or,
            ReduxOp::Xor => Op::Xor,
        };
        let mut all = self.scalar(stmt.args[0], lanes[0]);
        for &t in &lanes[1..] {
            all = arith::lane(&op, dtype, dtype, &[all, self.scalar(stmt.args[0], t)])?;
        }
        self.broadcast(stmt.results[0], lanes, all)
    }

    fn atomic(&mut self, stmt: &Stmt, t: usize) -> Evaluated {
        let result = stmt.results[0];
        let ty: Ty = self.ty(result);
        let dtype = ty.dtype().unwrap_or(DType::U32);
        let (space, address) = self.address(stmt.args[0], 0, t);
        let old = from_bytes(
            ty,
            self.memory.read(space, address, ty.bits() as usize / 8)?,
        )[0];
        let operand = self.scalar(stmt.args[1], t);
        let pair = [old, operand];
        let op = match stmt.op {
            Op::Atomic {
                op: AtomicOp::Exch, ..
            } => None,
            Op::Atomic { op, .. } => Some(match op {
                AtomicOp::Add => Op::IAdd,
                AtomicOp::Min => Op::IMin,
                AtomicOp::Max => Op::IMax,
                AtomicOp::And => Op::And,
                AtomicOp::Or => Op::Or,
                _ => Op::Xor,
            }),
            _ => None,
        };
        let new = match (op, stmt.op) {
            (Some(op), _) => arith::lane(&op, dtype, dtype, &pair)?,
            (None, Op::AtomicCas { .. }) if old == operand => self.scalar(stmt.args[2], t),
            (None, Op::AtomicCas { .. }) => old,
            _ => operand,
        };
        self.memory.write(space, address, &to_bytes(ty, &[new]))?;
        self.set(result, t, &[old]);
        Ok(())
    }
}
