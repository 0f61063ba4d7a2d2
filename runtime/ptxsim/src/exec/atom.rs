//! Atomics and reductions on shared and global memory. Lanes act one after the other in lane order.

use super::memory::Place;
use super::{Ctx, Lane, Res};
use crate::fault::FaultKind;
use crate::isa::memory::{AtomKind, AtomOp, Order};
use crate::num::arith::{add_odd, add32};
use crate::num::format::{BF16, F16, Format, Rnd};

/// The value that an atomic leaves behind.
pub(crate) fn apply(kind: AtomKind, bytes: u32, old: u64, a: u64, b: u64) -> u64 {
    let wide = bytes == 8;
    let signed = |v: u64| {
        if wide {
            v as i64
        } else {
            i64::from(v as u32 as i32)
        }
    };
    let half = |f: Format, x: u64, y: u64| {
        let sum = add_odd(f.decode(x as u32 & 0xffff), f.decode(y as u32 & 0xffff));
        u64::from(f.encode(sum, Rnd::Near, false))
    };
    let new = match kind {
        AtomKind::Add => old.wrapping_add(a),
        AtomKind::AddF32 => u64::from(
            add32(
                f32::from_bits(old as u32),
                f32::from_bits(a as u32),
                Rnd::Near,
            )
            .to_bits(),
        ),
        AtomKind::AddF64 => (f64::from_bits(old) + f64::from_bits(a)).to_bits(),
        AtomKind::AddF16 => half(F16, old, a),
        AtomKind::AddBf16 => half(BF16, old, a),
        AtomKind::AddF16x2 => half(F16, old, a) | half(F16, old >> 16, a >> 16) << 16,
        AtomKind::AddBf16x2 => half(BF16, old, a) | half(BF16, old >> 16, a >> 16) << 16,
        AtomKind::MinU => old.min(a),
        AtomKind::MaxU => old.max(a),
        AtomKind::MinS => {
            if signed(a) < signed(old) {
                a
            } else {
                old
            }
        }
        AtomKind::MaxS => {
            if signed(a) > signed(old) {
                a
            } else {
                old
            }
        }
        AtomKind::And => old & a,
        AtomKind::Or => old | a,
        AtomKind::Xor => old ^ a,
        AtomKind::Inc => {
            if old >= a {
                0
            } else {
                old + 1
            }
        }
        AtomKind::Dec => {
            if old == 0 || old > a {
                a
            } else {
                old - 1
            }
        }
        AtomKind::Exch => a,
        AtomKind::Cas => {
            if old == a {
                b
            } else {
                old
            }
        }
    };
    if wide {
        new
    } else {
        new & ((1 << (bytes * 8)) - 1)
    }
}

impl Ctx<'_, '_> {
    pub(crate) fn atomic(&mut self, op: &AtomOp, exec: u32) -> Res<()> {
        let addrs = self.addresses(op.addr, op.narrow, op.off, exec)?;
        let bytes = u32::from(op.bytes);
        let elements: Vec<_> = std::iter::once((op.d, op.a))
            .chain(op.more.iter().copied())
            .collect();
        let total = bytes * elements.len() as u32;
        for (_, a) in &elements {
            self.check_init(*a, exec)?;
        }
        self.check_init(op.b, exec)?;
        let mut old = vec![[0u64; 32]; elements.len()];
        for l in Lane::of(exec) {
            let place = self.place(op.space, addrs[l], l)?;
            self.check_aligned(addrs[l], total, l)?;
            if let Some(r) = self.unit.race.as_deref_mut() {
                let who = crate::check::Who {
                    rank: self.rank,
                    warp: self.w.index,
                    lane: l as u8,
                };
                if matches!(op.order, Order::Release | Order::AcqRel | Order::Relaxed) {
                    r.publish(who, place, op.order != Order::Relaxed, op.scope, true);
                }
            }
            for (k, (_, a)) in elements.iter().enumerate() {
                let (va, vb) = (self.src(*a)[l], self.src(op.b)[l]);
                old[k][l] = self.modify(place, k as u32 * bytes, bytes, l, |old| {
                    apply(op.kind, bytes, old, va, vb)
                })?;
            }
            if let Some(r) = self.unit.race.as_deref_mut() {
                let who = crate::check::Who {
                    rank: self.rank,
                    warp: self.w.index,
                    lane: l as u8,
                };
                r.observe(
                    who,
                    place,
                    matches!(op.order, Order::Acquire | Order::AcqRel),
                    op.scope,
                );
            }
        }
        for (k, (d, _)) in elements.iter().enumerate() {
            if let Some(d) = d {
                self.set(*d, &old[k], exec);
            }
        }
        if self.traffic(op.space, &addrs, total, exec, true) {
            let old = elements.iter().filter_map(|(d, _)| *d);
            old.for_each(|d| self.w.hops.load(d));
        }
        Ok(())
    }

    /// Reads, modifies and writes one element; returns what it held.
    fn modify(
        &mut self,
        place: Place,
        at: u32,
        bytes: u32,
        lane: usize,
        f: impl Fn(u64) -> u64,
    ) -> Res<u64> {
        let who = self.who(lane);
        match place {
            Place::Global(addr) => {
                let addr = addr + u64::from(at);
                let (i, off) = self.check_global(addr, bytes, Some(lane))?;
                if let Some(r) = self.unit.race.as_deref_mut() {
                    let found = r.global(who, addr, bytes, crate::check::Access::AtomicWrite);
                    self.judge(found, lane)?;
                }
                let alloc = &self.m.memory.allocs()[i];
                if self.m.options.uninit && !alloc.is_init(off, u64::from(bytes)) {
                    return self.uninit(format!("global address {addr:#x}"), lane);
                }
                let old = alloc.load(off, bytes);
                alloc.store(off, bytes, f(old));
                Ok(old)
            }
            Place::Shared(rank, addr) => {
                let addr = addr + at;
                self.check_shared(rank, addr, bytes, lane)?;
                if let Some(r) = self.unit.race.as_deref_mut() {
                    let found = r.shared(who, rank, addr, bytes, crate::check::Access::AtomicWrite);
                    self.judge(found, lane)?;
                }
                let shared = &mut self.unit.ctas[rank].shared;
                if self.m.options.uninit && !shared.is_init(addr, bytes) {
                    return self.uninit(format!("shared address {addr:#x}"), lane);
                }
                let old = shared.load(addr, bytes);
                shared.store(addr, bytes, f(old));
                Ok(old)
            }
            _ => self.fault(
                FaultKind::OutOfBounds,
                Some(lane),
                "atomics act on global and shared memory only",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn atomics_follow_their_definition() {
        assert_eq!(apply(AtomKind::Inc, 4, 3, 3, 0), 0);
        assert_eq!(apply(AtomKind::Inc, 4, 2, 3, 0), 3);
        assert_eq!(apply(AtomKind::Dec, 4, 0, 7, 0), 7);
        assert_eq!(apply(AtomKind::Dec, 4, 9, 7, 0), 7);
        assert_eq!(apply(AtomKind::MinS, 4, 1, 0xffff_ffff, 0), 0xffff_ffff);
        assert_eq!(apply(AtomKind::Cas, 4, 5, 5, 9), 9);
        assert_eq!(apply(AtomKind::Add, 4, 0xffff_ffff, 1, 0), 0);
        assert_eq!(
            apply(AtomKind::AddF16x2, 4, 0x3c00_3c00, 0x3c00_4000, 0),
            0x4000_4200
        );
    }
}
