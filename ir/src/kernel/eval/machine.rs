//! The lockstep machine: values of all threads, masks, control flow.

use super::super::body::{Kernel, Region, Stmt, Value};
use super::super::text::stmt_line;
use super::super::{Cmp, Op, Special, Ty};
use super::memory::{Memory, from_bytes, to_bytes};
use super::{EvalError, Evaluated, arith};
use crate::DType;

/// Iterations of one loop after which it counts as endless.
const MAX_ITERATIONS: u64 = 1 << 24;

pub(super) struct Machine<'k, 'a> {
    pub(super) kernel: &'k Kernel,
    pub(super) memory: Memory<'a>,
    pub(super) threads: usize,
    block: [u32; 3],
    grid: [u32; 3],
    place: [u32; 3],
    /// Byte offset of each shared array.
    arrays: Vec<u32>,
    /// Of each value: lanes of thread 0, lanes of thread 1, …
    values: Vec<Vec<u64>>,
    widths: Vec<usize>,
}

/// Threads that execute a statement.
pub(super) type Mask = Vec<bool>;

impl<'k, 'a> Machine<'k, 'a> {
    pub(super) fn new(
        kernel: &'k Kernel,
        block: [u32; 3],
        grid: [u32; 3],
        memory: Memory<'a>,
        scalars: &[u64],
    ) -> Self {
        let threads = block.iter().product::<u32>() as usize;
        let widths: Vec<usize> = (0..kernel.num_values())
            .map(|i| usize::from(kernel.types[i].lanes()).max(1))
            .collect();
        let mut values = vec![Vec::new(); kernel.num_values()];
        for (i, &bits) in scalars.iter().enumerate() {
            values[i] = vec![bits; threads];
        }
        let place = [0; 3];
        Machine {
            kernel,
            memory,
            threads,
            block,
            grid,
            place,
            arrays: Vec::new(),
            values,
            widths,
        }
    }

    /// Runs one block. Shared memory begins as all ones, so that what nobody wrote is seen.
    pub(super) fn run_block(&mut self, place: [u32; 3], dynamic_shared: u32) -> Evaluated {
        self.place = place;
        self.arrays.clear();
        let mut end = 0u32;
        let statics = self.kernel.shared().iter().filter(|a| a.len.is_some());
        let dynamic = self.kernel.shared().iter().filter(|a| a.len.is_none());
        let mut offsets = vec![0; self.kernel.shared().len()];
        for array in statics.chain(dynamic) {
            let index = self
                .kernel
                .shared()
                .iter()
                .position(|a| a == array)
                .unwrap_or(0);
            let too_much = || EvalError::new("too much shared memory");
            let start = end
                .checked_next_multiple_of(array.align)
                .ok_or_else(too_much)?;
            offsets[index] = start;
            let bytes = array.bytes().unwrap_or(dynamic_shared);
            end = start
                .checked_add(bytes)
                .filter(|&n| n <= 1 << 20)
                .ok_or_else(too_much)?;
        }
        self.arrays = offsets;
        self.memory.shared = vec![0xff; end as usize];
        let kernel = self.kernel;
        self.region(&kernel.body, &vec![true; self.threads])
    }

    // --- values -------------------------------------------------------------------------------

    pub(super) fn ty(&self, v: Value) -> Ty {
        self.kernel.ty(v)
    }

    /// Lanes of a value in a thread.
    pub(super) fn get(&self, v: Value, thread: usize) -> &[u64] {
        let width = self.widths[v.index()];
        let at = thread * width;
        self.values[v.index()].get(at..at + width).unwrap_or(&[0])
    }

    pub(super) fn scalar(&self, v: Value, thread: usize) -> u64 {
        self.get(v, thread)[0]
    }

    pub(super) fn set(&mut self, v: Value, thread: usize, lanes: &[u64]) {
        let width = self.widths[v.index()];
        let slot = &mut self.values[v.index()];
        if slot.is_empty() {
            slot.resize(width * self.threads, 0);
        }
        slot[thread * width..][..width].copy_from_slice(lanes);
    }

    /// The 32 bits of a word value.
    pub(super) fn word(&self, v: Value, thread: usize) -> u32 {
        let bytes = to_bytes(self.ty(v), self.get(v, thread));
        bytes.iter().rev().fold(0, |w, &b| w << 8 | u32::from(b))
    }

    pub(super) fn set_word(&mut self, v: Value, thread: usize, word: u32) {
        let lanes = from_bytes(self.ty(v), &word.to_le_bytes());
        self.set(v, thread, &lanes);
    }

    fn copy(&mut self, from: &[Value], to: &[Value], mask: &Mask) {
        let threads: Vec<usize> = (0..self.threads).filter(|&t| mask[t]).collect();
        for &t in &threads {
            let all: Vec<Vec<u64>> = from.iter().map(|&v| self.get(v, t).to_vec()).collect();
            for (&v, lanes) in to.iter().zip(all) {
                self.set(v, t, &lanes);
            }
        }
    }

    // --- control flow -------------------------------------------------------------------------

    pub(super) fn region(&mut self, region: &'k Region, mask: &Mask) -> Evaluated {
        if !mask.contains(&true) {
            return Ok(());
        }
        for stmt in &region.stmts {
            self.stmt(stmt, mask).map_err(|e| match e.at {
                Some(_) => e,
                None => EvalError {
                    at: Some(stmt_line(self.kernel, stmt)),
                    ..e
                },
            })?;
        }
        Ok(())
    }

    fn stmt(&mut self, stmt: &'k Stmt, mask: &Mask) -> Evaluated {
        match stmt.op {
            Op::For => self.for_loop(stmt, mask),
            Op::While => self.while_loop(stmt, mask),
            Op::If => self.branch(stmt, mask),
            op if op.is_async() => self.copy_async(stmt, mask),
            op if op.is_tensor() => self.tensor(stmt, mask),
            op if !op.is_serial() && !matches!(op, Op::Special { .. } | Op::SharedAddr { .. }) => {
                self.warp(stmt, mask)
            }
            _ => (0..self.threads)
                .filter(|&t| mask[t])
                .try_for_each(|t| self.one(stmt, t)),
        }
    }

    fn for_loop(&mut self, stmt: &'k Stmt, mask: &Mask) -> Evaluated {
        let region = &stmt.regions[0];
        let (lo, hi, step) = (stmt.args[0], stmt.args[1], stmt.args[2]);
        let dtype = self.ty(lo).dtype().unwrap_or(DType::I64);
        let (index, carried) = (region.params[0], &region.params[1..]);
        let less = Op::Cmp { cmp: Cmp::Lt };
        self.copy(&[lo], &[index], mask);
        self.copy(&stmt.args[3..], carried, mask);
        let mut active = mask.clone();
        for _ in 0..MAX_ITERATIONS {
            for (t, on) in active.iter_mut().enumerate() {
                let pair = [self.scalar(index, t), self.scalar(hi, t)];
                *on = *on && arith::lane(&less, dtype, DType::Bool, &pair)? == 1;
            }
            if !active.contains(&true) {
                self.copy(carried, &stmt.results, mask);
                return Ok(());
            }
            self.region(region, &active)?;
            self.copy(&region.yields, carried, &active);
            for t in (0..self.threads).filter(|&t| active[t]) {
                let pair = [self.scalar(index, t), self.scalar(step, t)];
                let next = arith::lane(&Op::IAdd, dtype, dtype, &pair)?;
                self.set(index, t, &[next]);
            }
        }
        Err(EvalError::new("endless loop"))
    }

    fn while_loop(&mut self, stmt: &'k Stmt, mask: &Mask) -> Evaluated {
        let (test, body) = (&stmt.regions[0], &stmt.regions[1]);
        self.copy(&stmt.args, &test.params, mask);
        let mut active = mask.clone();
        for _ in 0..MAX_ITERATIONS {
            self.region(test, &active)?;
            let (again, rest) = (test.yields[0], &test.yields[1..]);
            self.copy(rest, &stmt.results, &active);
            for (t, on) in active.iter_mut().enumerate() {
                *on = *on && self.scalar(again, t) == 1;
            }
            if !active.contains(&true) {
                return Ok(());
            }
            self.copy(rest, &body.params, &active);
            self.region(body, &active)?;
            self.copy(&body.yields, &test.params, &active);
        }
        Err(EvalError::new("endless loop"))
    }

    fn branch(&mut self, stmt: &'k Stmt, mask: &Mask) -> Evaluated {
        let cond = stmt.args[0];
        for (i, region) in stmt.regions.iter().enumerate() {
            let side: Mask = (0..self.threads)
                .map(|t| mask[t] && (self.scalar(cond, t) == 1) == (i == 0))
                .collect();
            self.region(region, &side)?;
            self.copy(&region.yields, &stmt.results, &side);
        }
        Ok(())
    }

    // --- one thread ---------------------------------------------------------------------------

    fn special(&self, which: Special, thread: usize) -> u32 {
        let t = thread as u32;
        let [bx, by, _] = self.block;
        match which {
            Special::TidX => t % bx,
            Special::TidY => t / bx % by,
            Special::TidZ => t / bx / by,
            Special::NtidX => bx,
            Special::CtaidX => self.place[0],
            Special::CtaidY => self.place[1],
            Special::CtaidZ => self.place[2],
            Special::NctaidX => self.grid[0],
            Special::NctaidY => self.grid[1],
            Special::NctaidZ => self.grid[2],
            Special::LaneId => t % 32,
            Special::ClusterRank => 0,
            Special::ClusterSize => 1,
        }
    }

    fn one(&mut self, stmt: &Stmt, t: usize) -> Evaluated {
        let first = stmt.results.first().copied();
        let lanes: Vec<u64> = match (stmt.op, first) {
            (Op::Const { bits }, Some(v)) => vec![bits.0; self.widths[v.index()]],
            (Op::Special { which }, _) => vec![u64::from(self.special(which, t))],
            (Op::SharedAddr { array }, _) => vec![u64::from(self.arrays[array as usize])],
            (Op::Lop3 { .. } | Op::Prmt | Op::FunnelShl | Op::FunnelShr, Some(v)) => {
                let [a, b, c] = [0, 1, 2].map(|i| self.word(stmt.args[i], t));
                self.set_word(v, t, arith::word(&stmt.op, a, b, c).unwrap_or(0));
                return Ok(());
            }
            (Op::Dp4a, _) => {
                let kind = |i: usize| self.ty(stmt.args[i]).dtype().unwrap_or(DType::I8);
                let [a, b, c] = [0, 1, 2].map(|i| self.get(stmt.args[i], t));
                vec![arith::dp4a(kind(0), kind(1), a, b, c[0])]
            }
            (Op::Select, _) => self.select(stmt, t),
            (Op::Bitcast, Some(v)) => from_bytes(
                self.ty(v),
                &to_bytes(self.ty(stmt.args[0]), self.get(stmt.args[0], t)),
            ),
            (Op::Pack, _) => stmt
                .args
                .iter()
                .flat_map(|&a| self.get(a, t).to_vec())
                .collect(),
            (Op::Unpack, _) => return self.unpack(stmt, t),
            (Op::PtrAdd, Some(_)) => vec![self.ptr_add(stmt, t)],
            (Op::PtrCast | Op::PtrToInt, _) => vec![self.scalar(stmt.args[0], t)],
            (Op::Load { .. }, Some(v)) => self.load(stmt, v, t)?,
            (Op::Store { .. }, _) => return self.store(stmt, t),
            (_, Some(v)) => self.lanewise(stmt, v, t)?,
            (op, None) => return Err(EvalError::new(format!("`{}` has no effect", op.name()))),
        };
        match first {
            Some(v) => self.set(v, t, &lanes),
            None => return Err(EvalError::new("a value without a name")),
        }
        Ok(())
    }

    fn lanewise(&self, stmt: &Stmt, v: Value, t: usize) -> Evaluated<Vec<u64>> {
        let from = match self.ty(stmt.args[0]) {
            Ty::Val { dtype, .. } => dtype,
            _ => DType::U64,
        };
        let to = self.ty(v).dtype().unwrap_or(from);
        (0..self.widths[v.index()])
            .map(|lane| {
                let codes: Vec<u64> = stmt
                    .args
                    .iter()
                    // The amount of a shift is one for all lanes.
                    .map(|&a| *self.get(a, t).get(lane).unwrap_or(&self.scalar(a, t)))
                    .collect();
                arith::lane(&stmt.op, from, to, &codes)
            })
            .collect()
    }

    fn select(&self, stmt: &Stmt, t: usize) -> Vec<u64> {
        let cond = self.get(stmt.args[0], t);
        let (a, b) = (self.get(stmt.args[1], t), self.get(stmt.args[2], t));
        let pick = |(i, (&a, &b))| {
            if cond[if cond.len() > 1 { i } else { 0 }] == 1 {
                a
            } else {
                b
            }
        };
        a.iter().zip(b).enumerate().map(pick).collect()
    }

    fn unpack(&mut self, stmt: &Stmt, t: usize) -> Evaluated {
        let lanes = self.get(stmt.args[0], t).to_vec();
        for (&r, part) in stmt
            .results
            .iter()
            .zip(lanes.chunks(lanes.len() / stmt.results.len()))
        {
            self.set(r, t, part);
        }
        Ok(())
    }

    fn ptr_add(&self, stmt: &Stmt, t: usize) -> u64 {
        let (Ty::Ptr { elem, .. }, Some(index)) =
            (self.ty(stmt.args[0]), self.ty(stmt.args[1]).dtype())
        else {
            return 0;
        };
        let i = super::number::to_int(index, self.scalar(stmt.args[1], t)) as i64;
        let offset = i.wrapping_mul(i64::from(elem.bits() / 8));
        self.scalar(stmt.args[0], t).wrapping_add_signed(offset)
    }

    fn load(&self, stmt: &Stmt, v: Value, t: usize) -> Evaluated<Vec<u64>> {
        let Op::Load { offset, .. } = stmt.op else {
            return Ok(Vec::new());
        };
        if let [_, pred, other] = stmt.args[..]
            && self.scalar(pred, t) == 0
        {
            return Ok(self.get(other, t).to_vec());
        }
        let (space, address) = self.address(stmt.args[0], offset.0, t);
        let ty = self.ty(v);
        let bytes = self.memory.read(space, address, ty.bits() as usize / 8)?;
        Ok(from_bytes(ty, bytes))
    }

    pub(super) fn address(&self, p: Value, offset: i32, t: usize) -> (super::super::Space, u64) {
        let space = match self.ty(p) {
            Ty::Ptr { space, .. } => space,
            _ => super::super::Space::Global,
        };
        (
            space,
            self.scalar(p, t).wrapping_add_signed(i64::from(offset)),
        )
    }

    fn store(&mut self, stmt: &Stmt, t: usize) -> Evaluated {
        let Op::Store { offset, .. } = stmt.op else {
            return Ok(());
        };
        if stmt.args.get(2).is_some_and(|&p| self.scalar(p, t) == 0) {
            return Ok(());
        }
        let (space, address) = self.address(stmt.args[0], offset.0, t);
        let bytes = to_bytes(self.ty(stmt.args[1]), self.get(stmt.args[1], t));
        self.memory.write(space, address, &bytes)
    }
}
