//! The common loads and stores without race checks: one bounds check for the whole warp. Whatever does
//! not fit returns false and goes lane by lane, which also finds whom to blame.

use super::{Ctx, Lane};
use crate::isa::memory::{MemOp, Order, Space};

/// Lowest and highest address, when all are multiples of `total`.
fn span(addrs: &[u64; 32], total: u64, exec: u32) -> Option<(u64, u64)> {
    let (mut low, mut high, mut bits) = (u64::MAX, 0, 0);
    for l in Lane::of(exec) {
        low = low.min(addrs[l]);
        high = high.max(addrs[l]);
        bits |= addrs[l];
    }
    (bits & (total - 1) == 0 && total.is_power_of_two()).then_some((low, high))
}

impl Ctx<'_, '_> {
    fn plain(&self, op: &MemOp) -> bool {
        self.unit.race.is_none() && op.order == Order::Weak && !self.m.options.dependent
    }

    /// Index of the allocation that holds the whole span.
    fn whole(&mut self, low: u64, high: u64, total: u64) -> Option<usize> {
        let len = (high - low).checked_add(total)?;
        let m = self.m;
        let i = match m.memory.allocs().get(self.unit.last_alloc) {
            Some(a) if low >= a.base && low - a.base + len <= a.len => self.unit.last_alloc,
            _ => m.memory.locate(low, len)?.0,
        };
        self.unit.last_alloc = i;
        Some(i)
    }

    /// Does the span lie in the own block's shared memory?
    fn whole_shared(&self, low: u64, high: u64, total: u64) -> bool {
        high < 1 << 24
            && self.unit.ctas[self.rank]
                .shared
                .contains(low as u32, (high - low + total) as u32)
    }

    /// Loads for all lanes at once.
    pub(crate) fn quick_load(
        &mut self,
        op: &MemOp,
        addrs: &[u64; 32],
        exec: u32,
        out: &mut [[u64; 32]; 8],
    ) -> bool {
        let bytes = u64::from(op.bytes);
        let n = op.regs.len();
        let total = bytes * n as u64;
        let Some((low, high)) = span(addrs, total, exec) else {
            return false;
        };
        if !self.plain(op) {
            return false;
        }
        match op.space {
            Space::Global => {
                let Some(i) = self.whole(low, high, total) else {
                    return false;
                };
                let alloc = &self.m.memory.allocs()[i];
                if self.m.options.uninit && !alloc.is_init(low - alloc.base, high - low + total) {
                    return false;
                }
                for (k, out) in out.iter_mut().enumerate().take(n) {
                    let base = alloc.base;
                    for l in Lane::of(exec) {
                        out[l] =
                            alloc.load(addrs[l] - base + k as u64 * bytes, u32::from(op.bytes));
                    }
                }
            }
            Space::Shared if self.whole_shared(low, high, total) => {
                let shared = &self.unit.ctas[self.rank].shared;
                let unwritten = |l: usize| !shared.is_init(addrs[l] as u32, total as u32);
                if self.m.options.uninit && Lane::of(exec).any(unwritten) {
                    return false;
                }
                for (k, out) in out.iter_mut().enumerate().take(n) {
                    for l in Lane::of(exec) {
                        out[l] = shared.load(
                            addrs[l] as u32 + k as u32 * bytes as u32,
                            u32::from(op.bytes),
                        );
                    }
                }
            }
            _ => return false,
        }
        true
    }

    /// Stores for all lanes at once.
    pub(crate) fn quick_store(&mut self, op: &MemOp, addrs: &[u64; 32], exec: u32) -> bool {
        let bytes = u64::from(op.bytes);
        let total = bytes * op.regs.len() as u64;
        let Some((low, high)) = span(addrs, total, exec) else {
            return false;
        };
        if !self.plain(op) {
            return false;
        }
        match op.space {
            Space::Global => {
                let Some(i) = self.whole(low, high, total) else {
                    return false;
                };
                let alloc = &self.m.memory.allocs()[i];
                for (k, reg) in op.regs.iter().flatten().enumerate() {
                    let v = self.src(*reg);
                    for l in Lane::of(exec) {
                        alloc.store(
                            addrs[l] - alloc.base + k as u64 * bytes,
                            u32::from(op.bytes),
                            v[l],
                        );
                    }
                }
            }
            Space::Shared if self.whole_shared(low, high, total) => {
                for (k, reg) in op.regs.iter().flatten().enumerate() {
                    let v = *self.src(*reg);
                    let shared = &mut self.unit.ctas[self.rank].shared;
                    for l in Lane::of(exec) {
                        shared.store(
                            addrs[l] as u32 + k as u32 * bytes as u32,
                            u32::from(op.bytes),
                            v[l],
                        );
                    }
                }
            }
            _ => return false,
        }
        true
    }
}
