//! `ldmatrix`, `stmatrix`, `movmatrix` (PTX ISA §9.7.14.5) and the dispatch of matrix instructions.
//!
//! Matrix i takes its eight row addresses from lanes 8i to 8i+7; lane l holds row l/4, columns
//! 2(l mod 4) and the next, of each 8 × 8 matrix of 16-bit elements.

use super::memory::Place;
use super::{Ctx, Res};
use crate::check::Access;
use crate::fault::FaultKind;
use crate::isa::R;
use crate::isa::memory::Space;
use crate::isa::tensor::TensorOp;

type Matrix = [[u16; 8]; 8];

fn fragment(m: &Matrix, lane: usize, trans: bool) -> u64 {
    let (r, c) = (lane / 4, lane % 4 * 2);
    let (a, b) = if trans {
        (m[c][r], m[c + 1][r])
    } else {
        (m[r][c], m[r][c + 1])
    };
    u64::from(a) | u64::from(b) << 16
}

impl Ctx<'_, '_> {
    pub(crate) fn tensor(&mut self, op: &TensorOp, exec: u32) -> Res<()> {
        if exec != u32::MAX {
            return self.fault(
                FaultKind::Divergent,
                None,
                "a matrix instruction needs a whole warp of 32 lanes",
            );
        }
        match op {
            TensorOp::Mma(op) => self.mma(op),
            TensorOp::LdMatrix {
                space,
                addr,
                narrow,
                off,
                trans,
                d,
            } => self.ldmatrix((*space, *addr, *narrow, *off), *trans, d),
            TensorOp::StMatrix {
                space,
                addr,
                narrow,
                off,
                trans,
                s,
            } => self.stmatrix((*space, *addr, *narrow, *off), *trans, s),
            TensorOp::MovMatrix { d, a } => {
                self.check_init(*a, exec)?;
                let m = gather(self.src(*a), false);
                let out = std::array::from_fn(|l| fragment(&m, l, true));
                self.set(*d, &out, exec);
                Ok(())
            }
            TensorOp::Wgmma(op) => self.wgmma(op),
            TensorOp::WgmmaFence => {
                self.wgmma_fence();
                Ok(())
            }
            TensorOp::WgmmaCommit => {
                self.wgmma_commit();
                Ok(())
            }
            TensorOp::WgmmaWait { pending } => self.wgmma_wait(*pending),
        }
    }

    /// The 16 bytes of each row address in use, as (block, address).
    fn rows(
        &mut self,
        (space, addr, narrow, off): (Space, R, bool, i64),
        n: usize,
    ) -> Res<Vec<(usize, u32)>> {
        let lanes = if n == 4 { u32::MAX } else { (1 << (8 * n)) - 1 };
        let addrs = self.addresses(addr, narrow, off, lanes)?;
        let mut out = Vec::with_capacity(8 * n);
        for (l, a) in addrs.iter().enumerate().take(8 * n) {
            let Place::Shared(rank, at) = self.place(space, *a, l)? else {
                return self.fault(
                    FaultKind::OutOfBounds,
                    Some(l),
                    format!("{a:#x} is no shared memory address"),
                );
            };
            self.check_shared(rank, at, 16, l)?;
            out.push((rank, at));
        }
        if let Some(c) = self.unit.counters.as_deref_mut() {
            c.matrix_access(&out);
        }
        Ok(out)
    }

    fn ldmatrix(&mut self, at: (Space, R, bool, i64), trans: bool, d: &[R]) -> Res<()> {
        let rows = self.rows(at, d.len())?;
        for (l, (rank, addr)) in rows.iter().enumerate() {
            // Rows are read by the whole warp; the lane that gives the address answers for the order.
            let who = self.who(l);
            if let Some(r) = self.unit.race.as_deref_mut() {
                let found = r.shared(who, *rank, *addr, 16, Access::Read);
                self.judge(found, l)?;
            }
            if self.m.options.uninit && !self.unit.ctas[*rank].shared.is_init(*addr, 16) {
                return self.uninit(format!("shared address {addr:#x} (16 bytes)"), l);
            }
        }
        for (i, reg) in d.iter().enumerate() {
            let mut m: Matrix = [[0; 8]; 8];
            for (row, (rank, addr)) in m.iter_mut().zip(&rows[8 * i..]) {
                let s = &self.unit.ctas[*rank].shared;
                for (c, v) in row.iter_mut().enumerate() {
                    *v = s.load(addr + 2 * c as u32, 2) as u16;
                }
            }
            let out = std::array::from_fn(|l| fragment(&m, l, trans));
            self.set(*reg, &out, u32::MAX);
        }
        Ok(())
    }

    fn stmatrix(&mut self, at: (Space, R, bool, i64), trans: bool, s: &[R]) -> Res<()> {
        let rows = self.rows(at, s.len())?;
        for (i, reg) in s.iter().enumerate() {
            self.check_init(*reg, u32::MAX)?;
            let m = gather(self.src(*reg), trans);
            for (row, (l, (rank, addr))) in m.iter().zip(rows.iter().enumerate().skip(8 * i)) {
                let who = self.who(l);
                if let Some(r) = self.unit.race.as_deref_mut() {
                    let found = r.shared(who, *rank, *addr, 16, Access::Write);
                    self.judge(found, l)?;
                }
                for (c, v) in row.iter().enumerate() {
                    self.unit.ctas[*rank]
                        .shared
                        .store(addr + 2 * c as u32, 2, u64::from(*v));
                }
            }
        }
        Ok(())
    }
}

/// The matrix that the lanes hold.
fn gather(lanes: &crate::isa::Lanes, trans: bool) -> Matrix {
    let mut m: Matrix = [[0; 8]; 8];
    for (l, v) in lanes.iter().enumerate() {
        let (r, c) = (l / 4, l % 4 * 2);
        for k in 0..2 {
            let x = (v >> (16 * k)) as u16;
            if trans {
                m[c + k][r] = x
            } else {
                m[r][c + k] = x
            }
        }
    }
    m
}
