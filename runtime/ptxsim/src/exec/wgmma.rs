//! `wgmma.mma_async` (PTX ISA §9.7.15): operands through shared-memory descriptors, in-flight registers.
//!
//! Warp w of a warpgroup computes rows 16w to 16w + 15 of the 64 × n result. A descriptor holds, in units
//! of 16 bytes, the start address (bits 0-13), the leading (16-29) and the stride byte offset (32-45),
//! a base offset (49-51) and the swizzle (62-63: none, 128, 64, 32 bytes). With S the swizzle width:
//!
//! * K-major: row r, byte b of a row lies at (r mod 8)·S + (r/8)·SBO + b; without swizzle a row of a core
//!   matrix has 16 bytes and byte b lies at (r mod 8)·16 + (r/8)·SBO + (b/16)·LBO + b mod 16.
//! * MN-major (16-bit types): element (mn, k) lies at (mn mod S/2)·2 + (k mod 8)·S + (k/8)·SBO +
//!   (mn/(S/2))·LBO; without swizzle S is 16 and LBO and SBO change places.
//!
//! The swizzle XORs address bits 4-6 with bits 7-9 of the final address.

use std::collections::VecDeque;

use super::mma::{acc_bits, accumulate, accumulation, element, int_element, int_sum};
use super::tensormap::Swizzle;
use super::{Ctx, Res};
use crate::fault::FaultKind;
use crate::isa::tensor::{Acc, Elem, TensorKind, Wgmma, WgmmaA};
use crate::isa::{CONST, Op, R};
use crate::num::format::f16_to_f32;

/// One issued multiplication that has not been performed.
struct Issued {
    pc: u32,
    a_desc: u64,
    b_desc: u64,
    keep: bool,
    line: u32,
}

/// `wgmma` operations of a warp between issue and wait.
#[derive(Default)]
pub(crate) struct InFlight {
    open: Vec<Issued>,
    groups: VecDeque<Vec<Issued>>,
    /// Accumulator registers of operations that were not waited for, with their group number.
    locked: Vec<(R, u64)>,
    committed: u64,
    fenced: bool,
}

/// A matrix operand in shared memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Desc {
    start: u32,
    lbo: u32,
    sbo: u32,
    swizzle: Swizzle,
}

impl Desc {
    /// Reads the 64 bits; none when reserved bits or a base offset are set.
    pub(crate) fn read(bits: u64) -> Option<Self> {
        let field = |at: u32| ((bits >> at & 0x3fff) << 4) as u32;
        let swizzle = match bits >> 62 {
            0 => Swizzle::None,
            1 => Swizzle::B128,
            2 => Swizzle::B64,
            _ => Swizzle::B32,
        };
        if bits >> 49 & 7 != 0 {
            return None;
        }
        Some(Self {
            start: field(0),
            lbo: field(16),
            sbo: field(32),
            swizzle,
        })
    }

    /// Address of element (mn, k) of `size` bytes.
    pub(crate) fn address(&self, mn: u32, k: u32, size: u32, mn_major: bool) -> u32 {
        let span = match self.swizzle {
            Swizzle::None => 16,
            Swizzle::B32 => 32,
            Swizzle::B64 => 64,
            Swizzle::B128 => 128,
        };
        let off = if mn_major {
            let per = span / size;
            let (lbo, sbo) = if self.swizzle == Swizzle::None {
                (self.sbo, self.lbo)
            } else {
                (self.lbo, self.sbo)
            };
            mn % per * size + k % 8 * span + k / 8 * sbo + mn / per * lbo
        } else {
            let byte = k * size;
            let rows = mn % 8 * span + mn / 8 * self.sbo;
            if self.swizzle == Swizzle::None {
                rows + byte / 16 * self.lbo + byte % 16
            } else {
                rows + byte
            }
        };
        self.swizzle.apply(self.start.wrapping_add(off))
    }
}

impl Ctx<'_, '_> {
    pub(crate) fn wgmma_fence(&mut self) {
        self.w.wgmma.fenced = true;
        self.w.dirty.fill(false);
    }

    fn check_fenced(&self, op: &Wgmma) -> Res<()> {
        let a: &[R] = match &op.a {
            WgmmaA::Regs(r) => r,
            WgmmaA::Desc(_) => &[],
        };
        if !self.w.wgmma.fenced {
            return self.fault(
                FaultKind::WgmmaOrder,
                None,
                "wgmma.mma_async without an earlier wgmma.fence",
            );
        }
        for r in op.d.iter().chain(a) {
            if r & CONST == 0 && self.w.dirty[*r as usize] {
                let name = &self.m.program.reg_names[*r as usize];
                let text = format!("register `{name}` was written after the last wgmma.fence");
                return self.fault(FaultKind::WgmmaOrder, None, text);
            }
        }
        for r in a {
            self.check_init(*r, u32::MAX)?;
        }
        Ok(())
    }

    pub(crate) fn wgmma(&mut self, op: &Wgmma) -> Res<()> {
        if !self.m.warps.is_multiple_of(4) && self.w.index / 4 == self.m.warps / 4 {
            return self.fault(
                FaultKind::Divergent,
                None,
                "wgmma needs a whole warpgroup of four warps",
            );
        }
        self.check_fenced(op)?;
        self.check_pred(op.scale_d.p, u32::MAX)?;
        let keep = match self.psrc(op.scale_d) {
            0 => false,
            u32::MAX => true,
            _ => {
                return self.fault(
                    FaultKind::Operand,
                    None,
                    "scale-d of wgmma differs between lanes",
                );
            }
        };
        let locked = |w: &super::warp::Warp, r: R| w.wgmma.locked.iter().any(|l| l.0 == r);
        if keep {
            for r in &op.d {
                if !locked(self.w, *r) {
                    self.check_init(*r, u32::MAX)?;
                }
            }
        }
        let a_desc = match &op.a {
            WgmmaA::Desc(r) => self.uniform(*r, u32::MAX, "descriptor")?,
            WgmmaA::Regs(_) => 0,
        };
        let b_desc = self.uniform(op.b, u32::MAX, "descriptor")?;
        let pc = self.w.frags[0].pc;
        let issued = Issued {
            pc,
            a_desc,
            b_desc,
            keep,
            line: self.line,
        };
        self.check_operands(op, &issued)?;
        if let Some(c) = self.unit.counters.as_deref_mut() {
            c.mma(
                TensorKind::of(op.a_elem, false),
                16 * u64::from(op.n) * u64::from(op.k),
            );
        }
        let group = self.w.wgmma.committed;
        for r in &op.d {
            self.w.wgmma.locked.retain(|l| l.0 != *r);
            self.w.wgmma.locked.push((*r, group));
        }
        // Products on the same accumulators happen in order: early only if none is waiting.
        let waiting =
            !self.w.wgmma.open.is_empty() || self.w.wgmma.groups.iter().any(|g| !g.is_empty());
        if self.unit.early() && !waiting {
            self.perform_wgmma(op, &issued)?;
        } else {
            self.w.wgmma.open.push(issued);
        }
        // Until the wait nobody may look at the accumulators.
        for r in &op.d {
            self.w.init[*r as usize] = 0;
        }
        Ok(())
    }

    /// Is this register an accumulator in flight?
    pub(crate) fn in_flight(&self, r: R) -> bool {
        self.w.wgmma.locked.iter().any(|l| l.0 == r)
    }

    pub(crate) fn wgmma_commit(&mut self) {
        let open = std::mem::take(&mut self.w.wgmma.open);
        self.w.wgmma.groups.push_back(open);
        self.w.wgmma.committed += 1;
        let (rank, warp) = (self.rank, self.w.index);
        if let Some(r) = self.race() {
            r.wgmma_commit(rank, warp);
        }
    }

    pub(crate) fn wgmma_wait(&mut self, pending: u32) -> Res<()> {
        let due = self.w.wgmma.groups.len().saturating_sub(pending as usize);
        for group in self.w.wgmma.groups.drain(..due).collect::<Vec<_>>() {
            for issued in group {
                let m = self.m;
                let Op::Tensor(op) = &m.inst(issued.pc).op else {
                    continue;
                };
                let crate::isa::tensor::TensorOp::Wgmma(op) = &**op else {
                    continue;
                };
                let line = std::mem::replace(&mut self.line, issued.line);
                self.perform_wgmma(op, &issued)?;
                self.line = line;
            }
        }
        let done = self.w.wgmma.committed.saturating_sub(u64::from(pending));
        let w = &mut *self.w;
        w.wgmma.locked.retain(|(r, group)| {
            if *group < done {
                w.init[*r as usize] = u32::MAX;
            }
            *group >= done
        });
        let (rank, warp) = (self.rank, self.w.index);
        if let Some(r) = self.race() {
            r.wgmma_wait(rank, warp, u64::from(pending));
        }
        Ok(())
    }

    fn desc(&self, bits: u64) -> Res<Desc> {
        match Desc::read(bits) {
            Some(d) => Ok(d),
            None => self.fault(
                FaultKind::Operand,
                None,
                format!("descriptor {bits:#018x} has a base offset, which is not built"),
            ),
        }
    }

    /// Bounds, initialization and order of everything that the instruction will read.
    fn check_operands(&mut self, op: &Wgmma, issued: &Issued) -> Res<()> {
        let row = self.w.index as u32 % 4 * 16;
        let mut parts = vec![(issued.b_desc, 0, u32::from(op.n), op.b_elem, op.trans_b)];
        if let WgmmaA::Desc(_) = op.a {
            parts.push((issued.a_desc, row, 16, op.a_elem, op.trans_a));
        }
        for (bits, first, count, elem, mn_major) in parts {
            let d = self.desc(bits)?;
            let size = elem.bits() / 8;
            // Sixteen contiguous bytes at a time, whichever way they run.
            let step = 16 / size;
            let (mn_step, k_step) = if mn_major { (step, 1) } else { (1, step) };
            for mn in (first..first + count).step_by(mn_step as usize) {
                for k in (0..u32::from(op.k)).step_by(k_step as usize) {
                    let at = d.address(mn, k, size, mn_major);
                    self.check_operand(at)?;
                }
            }
        }
        Ok(())
    }

    fn check_operand(&mut self, at: u32) -> Res<()> {
        let (rank, lane) = (self.rank, 0);
        if !self.unit.ctas[rank].shared.contains(at, 16) {
            return self.fault(
                FaultKind::OutOfBounds,
                None,
                format!("wgmma operand at shared address {at:#x}"),
            );
        }
        let who = self.who(lane);
        if let Some(r) = self.unit.race.as_deref_mut() {
            let found = r.wgmma_read(who, at, 16);
            self.judge(found, lane)?;
        }
        if self.m.options.uninit && !self.unit.ctas[rank].shared.is_init(at, 16) {
            return self.uninit(format!("wgmma operand at shared address {at:#x}"), lane);
        }
        Ok(())
    }

    /// Codes of an operand in shared memory, row by row of `k`.
    fn operand(
        &self,
        bits: u64,
        first: u32,
        count: u32,
        op: &Wgmma,
        elem: Elem,
        mn_major: bool,
    ) -> Res<Vec<u64>> {
        let d = self.desc(bits)?;
        let size = elem.bits() / 8;
        let shared = &self.unit.ctas[self.rank].shared;
        let mut out = Vec::with_capacity(count as usize * usize::from(op.k));
        for mn in first..first + count {
            for k in 0..u32::from(op.k) {
                out.push(shared.load(d.address(mn, k, size, mn_major), size));
            }
        }
        Ok(out)
    }

    /// A's sixteen rows of this warp.
    fn operand_a(&self, op: &Wgmma, issued: &Issued) -> Res<Vec<u64>> {
        let k = usize::from(op.k);
        match &op.a {
            WgmmaA::Desc(_) => self.operand(
                issued.a_desc,
                self.w.index as u32 % 4 * 16,
                16,
                op,
                op.a_elem,
                op.trans_a,
            ),
            WgmmaA::Regs(regs) => {
                let bits = op.a_elem.bits() as usize;
                let e = 32 / bits;
                let mut out = vec![0; 16 * k];
                for (r, reg) in regs.iter().enumerate() {
                    for (l, v) in self.src(*reg).iter().enumerate() {
                        for i in 0..e {
                            let col = l % 4 * e + r / 2 * 4 * e + i;
                            out[(l / 4 + 8 * (r % 2)) * k + col] =
                                v >> (bits * i) & ((1 << bits) - 1);
                        }
                    }
                }
                Ok(out)
            }
        }
    }

    fn perform_wgmma(&mut self, op: &Wgmma, issued: &Issued) -> Res<()> {
        let k = usize::from(op.k);
        let a = self.operand_a(op, issued)?;
        let b = self.operand(issued.b_desc, 0, u32::from(op.n), op, op.b_elem, op.trans_b)?;
        if op.acc == Acc::S32 {
            self.perform_int(op, issued.keep, &a, &b, k);
            return Ok(());
        }
        let value = |elem, neg: bool, c: &u64| {
            if neg {
                -element(elem, *c)
            } else {
                element(elem, *c)
            }
        };
        let a: Vec<f64> = a.iter().map(|c| value(op.a_elem, op.neg_a, c)).collect();
        let b: Vec<f64> = b.iter().map(|c| value(op.b_elem, op.neg_b, c)).collect();
        let (unit, model) = (accumulation(op.a_elem, true), self.m.options.accumulate);
        let halves = op.acc == Acc::F16;
        for (i, reg) in op.d.iter().enumerate() {
            let old = self.w.regs[*reg as usize];
            let one = |i: usize, l: usize, old: f64| {
                // Element i of a lane: column pair i/4, row half by bit 1.
                let (row, col) = (l / 4 + 8 * (i / 2 % 2), i / 4 * 8 + l % 4 * 2 + i % 2);
                let c = if issued.keep { old } else { 0.0 };
                acc_bits(
                    op.acc,
                    accumulate(
                        c,
                        &a[row * k..][..k],
                        &b[col * k..][..k],
                        op.acc,
                        unit,
                        model,
                    ),
                )
            };
            self.w.regs[*reg as usize] = std::array::from_fn(|l| {
                if halves {
                    let half = |h: u64| f64::from(f16_to_f32(h as u16));
                    one(2 * i, l, half(old[l])) | one(2 * i + 1, l, half(old[l] >> 16)) << 16
                } else {
                    one(i, l, f64::from(f32::from_bits(old[l] as u32)))
                }
            });
        }
        Ok(())
    }

    fn perform_int(&mut self, op: &Wgmma, keep: bool, a: &[u64], b: &[u64], k: usize) {
        let a: Vec<i32> = a.iter().map(|c| int_element(op.a_elem, *c)).collect();
        let b: Vec<i32> = b.iter().map(|c| int_element(op.b_elem, *c)).collect();
        for (i, reg) in op.d.iter().enumerate() {
            let old = self.w.regs[*reg as usize];
            self.w.regs[*reg as usize] = std::array::from_fn(|l| {
                let (row, col) = (l / 4 + 8 * (i / 2 % 2), i / 4 * 8 + l % 4 * 2 + i % 2);
                let dot: i64 = a[row * k..][..k]
                    .iter()
                    .zip(&b[col * k..][..k])
                    .map(|(x, y)| i64::from(x * y))
                    .sum();
                let c = if keep {
                    i64::from(old[l] as u32 as i32)
                } else {
                    0
                };
                u64::from(int_sum(c + dot, op.saturate))
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every element of an operand has an address of its own.
    fn distinct(d: Desc, mn: u32, k: u32, size: u32, mn_major: bool) {
        let mut all: Vec<u32> = (0..mn)
            .flat_map(|m| (0..k).map(move |k| (m, k)))
            .map(|(m, k)| d.address(m, k, size, mn_major))
            .collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len() as u32, mn * k, "{d:?} {mn_major}");
    }

    #[test]
    fn canonical_layouts_do_not_overlap() {
        for (swizzle, span) in [(Swizzle::B32, 32), (Swizzle::B64, 64), (Swizzle::B128, 128)] {
            let d = Desc {
                start: 1024,
                lbo: span * 16,
                sbo: span * 8,
                swizzle,
            };
            distinct(d, 64, span / 2, 2, false);
            distinct(d, 64, span, 1, false);
            distinct(
                Desc {
                    lbo: span * 16,
                    sbo: span * 8,
                    ..d
                },
                64,
                16,
                2,
                true,
            );
        }
        let plain = Desc {
            start: 1024,
            lbo: 128,
            sbo: 256,
            swizzle: Swizzle::None,
        };
        distinct(plain, 64, 16, 2, false);
        distinct(plain, 64, 16, 2, true);
    }
}
