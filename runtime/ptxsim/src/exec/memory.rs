//! Loads and stores in every state space, with bounds, alignment and initialization checks.

use super::{Ctx, Lane, Res};
use crate::check::{Access, Who};
use crate::decode::{LOCAL_WINDOW, PARAM_WINDOW, SHARED_WINDOW};
use crate::fault::FaultKind;
use crate::isa::memory::{MemOp, Order, Scope, Space};
use crate::isa::{P, R};

/// Where an address of a state space points.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Rank of the block in the cluster and address in its shared memory.
    Shared(usize, u32),
    Global(u64),
    Local(u32),
    Param(u32),
}

impl Ctx<'_, '_> {
    /// Addresses of all lanes.
    #[inline]
    pub(crate) fn addresses(&self, reg: R, narrow: bool, off: i64, exec: u32) -> Res<[u64; 32]> {
        self.check_init(reg, exec)?;
        let v = self.src(reg);
        Ok(if narrow {
            v.map(|a| u64::from((a as u32).wrapping_add(off as u32)))
        } else {
            v.map(|a| a.wrapping_add(off as u64))
        })
    }

    /// Resolves one address.
    #[inline]
    pub(crate) fn place(&self, space: Space, addr: u64, lane: usize) -> Res<Place> {
        match space {
            Space::Global | Space::Const => Ok(Place::Global(addr)),
            Space::Shared | Space::SharedCluster => {
                if addr >> 32 == SHARED_WINDOW >> 32 {
                    return self.fault(
                        FaultKind::OutOfBounds,
                        Some(lane),
                        format!("generic address {addr:#x} used as a shared address"),
                    );
                }
                self.shared_place(addr, space == Space::Shared, lane)
            }
            Space::Local => Ok(Place::Local(addr as u32)),
            Space::Param => Ok(Place::Param(addr as u32)),
            Space::Generic => match addr >> 32 {
                w if w == SHARED_WINDOW >> 32 => self.shared_place(addr & 0xffff_ffff, false, lane),
                w if w == LOCAL_WINDOW >> 32 => Ok(Place::Local(addr as u32)),
                w if w == PARAM_WINDOW >> 32 => Ok(Place::Param(addr as u32)),
                _ => Ok(Place::Global(addr)),
            },
        }
    }

    /// The top byte of a cluster shared address is the block's rank plus one; 0 is the own block.
    fn shared_place(&self, addr: u64, own_only: bool, lane: usize) -> Res<Place> {
        let top = (addr >> 24) as usize;
        let rank = if top == 0 { self.rank } else { top - 1 };
        if addr >> 32 != 0 || rank >= self.unit.ctas.len() {
            return self.fault(
                FaultKind::OutOfBounds,
                Some(lane),
                format!("{addr:#x} is no shared memory address"),
            );
        }
        if own_only && rank != self.rank {
            return self.fault(
                FaultKind::OutOfBounds,
                Some(lane),
                format!("{addr:#x} lies in another block of the cluster"),
            );
        }
        Ok(Place::Shared(rank, (addr & 0xff_ffff) as u32))
    }

    pub(crate) fn who(&self, lane: usize) -> Who {
        Who {
            rank: self.rank,
            warp: self.w.index,
            lane: lane as u8,
        }
    }

    /// Checks that `bytes` at a shared address exist and are aligned.
    #[inline]
    pub(crate) fn check_shared(&self, rank: usize, addr: u32, bytes: u32, lane: usize) -> Res<()> {
        if !self.unit.ctas[rank].shared.contains(addr, bytes) {
            let text = format!(
                "shared address {addr:#x} + {bytes} bytes is outside {:#x} bytes from 0x400",
                self.m.shared_end - 1024
            );
            return self.fault(FaultKind::OutOfBounds, Some(lane), text);
        }
        self.check_aligned(u64::from(addr), bytes, lane)
    }

    #[inline]
    pub(crate) fn check_aligned(&self, addr: u64, bytes: u32, lane: usize) -> Res<()> {
        if !addr.is_multiple_of(u64::from(bytes)) {
            return self.fault(
                FaultKind::Misaligned,
                Some(lane),
                format!("address {addr:#x} is no multiple of {bytes}"),
            );
        }
        Ok(())
    }

    /// Allocation and offset of a global range.
    #[inline]
    pub(crate) fn check_global(
        &mut self,
        addr: u64,
        bytes: u32,
        lane: Option<usize>,
    ) -> Res<(usize, u64)> {
        let m = self.m;
        let cached = m.memory.allocs().get(self.unit.last_alloc);
        let found = match cached {
            Some(a) if addr >= a.base && addr - a.base + u64::from(bytes) <= a.len => {
                (self.unit.last_alloc, addr - a.base)
            }
            _ => match m.memory.locate(addr, u64::from(bytes)) {
                Some(found) => found,
                None => return self.outside(addr, bytes, lane),
            },
        };
        self.unit.last_alloc = found.0;
        if m.options.dependent && !self.w.depended {
            let end = addr + u64::from(bytes);
            if !m
                .options
                .constants
                .iter()
                .any(|(a, n)| addr >= *a && end <= a + n)
            {
                let text = format!(
                    "global address {addr:#x} is used before griddepcontrol.wait and is no constant"
                );
                return self.fault(FaultKind::BeforeDependency, lane, text);
            }
        }
        Ok(found)
    }

    #[cold]
    fn outside(&self, addr: u64, bytes: u32, lane: Option<usize>) -> Res<(usize, u64)> {
        let near = self.m.memory.allocs().iter().rev().find(|a| a.base <= addr);
        let text = match near {
            Some(a) => {
                let off = addr - a.base;
                format!(
                    "global address {addr:#x} + {bytes} bytes lies at offset {off} of an allocation of {} bytes",
                    a.len
                )
            }
            None => format!("global address {addr:#x} + {bytes} bytes lies in no allocation"),
        };
        self.fault(FaultKind::OutOfBounds, lane, text)
    }

    #[inline]
    fn load_one(
        &mut self,
        op: &MemOp,
        addr: u64,
        lane: usize,
        total: u32,
        out: &mut [u64],
    ) -> Res<()> {
        let bytes = u32::from(op.bytes);
        match self.place(op.space, addr, lane)? {
            Place::Global(addr) => {
                let (i, off) = self.check_global(addr, total, Some(lane))?;
                self.check_aligned(addr, total, lane)?;
                let alloc = &self.m.memory.allocs()[i];
                if self.m.options.uninit && !alloc.is_init(off, u64::from(total)) {
                    return self.uninit(format!("global address {addr:#x} ({total} bytes)"), lane);
                }
                for (k, v) in out.iter_mut().enumerate() {
                    *v = alloc.load(off + k as u64 * u64::from(bytes), bytes);
                }
                let who = self.who(lane);
                if let Some(r) = self.unit.race.as_deref_mut() {
                    let found =
                        r.global(who, addr, total, Access::of(false, op.order != Order::Weak));
                    self.judge(found, lane)?;
                }
            }
            Place::Shared(rank, addr) => {
                self.check_shared(rank, addr, total, lane)?;
                let shared = &self.unit.ctas[rank].shared;
                if self.m.options.uninit && !shared.is_init(addr, total) {
                    // What an asynchronous copy has yet to write is not merely unwritten.
                    let who = self.who(lane);
                    if let Some(r) = self.unit.race.as_deref_mut() {
                        let found = r.shared(
                            who,
                            rank,
                            addr,
                            total,
                            Access::of(false, op.order != Order::Weak),
                        );
                        self.judge(found, lane)?;
                    }
                    return self.uninit(format!("shared address {addr:#x} ({total} bytes)"), lane);
                }
                for (k, v) in out.iter_mut().enumerate() {
                    *v = shared.load(addr + k as u32 * bytes, bytes);
                }
                let who = self.who(lane);
                if let Some(r) = self.unit.race.as_deref_mut() {
                    let found = r.shared(
                        who,
                        rank,
                        addr,
                        total,
                        Access::of(false, op.order != Order::Weak),
                    );
                    self.judge(found, lane)?;
                }
            }
            Place::Local(addr) => {
                let at = self.local_at(addr, total, lane)?;
                if self.m.options.uninit && self.w.local_init[at..at + total as usize].contains(&0)
                {
                    return self.uninit(format!("local address {addr:#x}"), lane);
                }
                for (k, v) in out.iter_mut().enumerate() {
                    *v = bytes_at(&self.w.local, at + k * bytes as usize, bytes);
                }
            }
            Place::Param(addr) => {
                if u64::from(addr) + u64::from(total) > self.m.params.len() as u64 {
                    return self.fault(
                        FaultKind::OutOfBounds,
                        Some(lane),
                        format!("parameter offset {addr} + {total} bytes"),
                    );
                }
                for (k, v) in out.iter_mut().enumerate() {
                    *v = bytes_at(&self.m.params, addr as usize + k * bytes as usize, bytes);
                }
            }
        }
        Ok(())
    }

    #[cold]
    pub(crate) fn uninit<T>(&self, what: String, lane: usize) -> Res<T> {
        self.fault(
            FaultKind::Uninitialized,
            Some(lane),
            format!("{what} is read before it was written"),
        )
    }

    fn local_at(&self, addr: u32, bytes: u32, lane: usize) -> Res<usize> {
        let size = self.m.program.local_bytes;
        if u64::from(addr) + u64::from(bytes) > u64::from(size) {
            return self.fault(
                FaultKind::OutOfBounds,
                Some(lane),
                format!("local address {addr:#x} of {size} bytes"),
            );
        }
        self.check_aligned(u64::from(addr), bytes, lane)?;
        Ok(lane * size as usize + addr as usize)
    }

    pub(crate) fn load(&mut self, op: &MemOp, exec: u32) -> Res<()> {
        let n = op.regs.len();
        let total = u32::from(op.bytes) * n as u32;
        let addrs = self.addresses(op.addr, op.narrow, op.off, exec)?;
        let mut out = [[0u64; 32]; 8];
        if !self.quick_load(op, &addrs, exec, &mut out) {
            let mut one = [0u64; 8];
            for l in Lane::of(exec) {
                self.load_one(op, addrs[l], l, total, &mut one[..n])?;
                for k in 0..n {
                    out[k][l] = one[k];
                }
            }
        }
        for (k, reg) in op.regs.iter().enumerate() {
            let Some(reg) = reg else { continue };
            if op.extend > 0 {
                let (from, to) = (64 - u32::from(op.bytes) * 8, 64 - u32::from(op.extend));
                out[k] = out[k].map(|v| ((v << from) as i64 >> from) as u64 & (u64::MAX >> to));
            }
            self.set(*reg, &out[k], exec);
        }
        if self.traffic(op.space, &addrs, total, exec, false) {
            op.regs.iter().flatten().for_each(|r| self.w.hops.load(*r));
        }
        self.order_after(op.order, op.scope, op.space, &addrs, exec);
        Ok(())
    }

    pub(crate) fn store(&mut self, op: &MemOp, exec: u32) -> Res<()> {
        let bytes = u32::from(op.bytes);
        let total = bytes * op.regs.len() as u32;
        let addrs = self.addresses(op.addr, op.narrow, op.off, exec)?;
        self.order_before(op.order, op.scope, op.space, &addrs, exec);
        for reg in op.regs.iter().flatten() {
            self.check_init(*reg, exec)?;
        }
        if self.quick_store(op, &addrs, exec) {
            self.traffic(op.space, &addrs, total, exec, true);
            return Ok(());
        }
        for l in Lane::of(exec) {
            let who = self.who(l);
            match self.place(op.space, addrs[l], l)? {
                Place::Global(addr) => {
                    let (i, off) = self.check_global(addr, total, Some(l))?;
                    self.check_aligned(addr, total, l)?;
                    let alloc = &self.m.memory.allocs()[i];
                    if self.unit.race.is_some() {
                        let same = op.regs.iter().flatten().enumerate().all(|(k, reg)| {
                            alloc.load(off + k as u64 * u64::from(bytes), bytes)
                                == self.src(*reg)[l] & low_mask(bytes)
                        });
                        let access = store_access(op.order, same);
                        let found = self.race().and_then(|r| r.global(who, addr, total, access));
                        self.judge(found, l)?;
                    }
                    for (k, reg) in op.regs.iter().flatten().enumerate() {
                        alloc.store(off + k as u64 * u64::from(bytes), bytes, self.src(*reg)[l]);
                    }
                }
                Place::Shared(rank, addr) => {
                    self.check_shared(rank, addr, total, l)?;
                    if self.unit.race.is_some() {
                        let shared = &self.unit.ctas[rank].shared;
                        let same = op.regs.iter().flatten().enumerate().all(|(k, reg)| {
                            shared.load(addr + k as u32 * bytes, bytes)
                                == self.src(*reg)[l] & low_mask(bytes)
                        });
                        let access = store_access(op.order, same);
                        let found = self
                            .race()
                            .and_then(|r| r.shared(who, rank, addr, total, access));
                        self.judge(found, l)?;
                    }
                    for (k, reg) in op.regs.iter().flatten().enumerate() {
                        let v = self.src(*reg)[l];
                        self.unit.ctas[rank]
                            .shared
                            .store(addr + k as u32 * bytes, bytes, v);
                    }
                }
                Place::Local(addr) => {
                    let at = self.local_at(addr, total, l)?;
                    for (k, reg) in op.regs.iter().flatten().enumerate() {
                        let v = self.src(*reg)[l].to_le_bytes();
                        let at = at + k * bytes as usize;
                        self.w.local[at..at + bytes as usize].copy_from_slice(&v[..bytes as usize]);
                        self.w.local_init[at..at + bytes as usize].fill(1);
                    }
                }
                Place::Param(_) => {
                    return self.fault(
                        FaultKind::OutOfBounds,
                        Some(l),
                        "parameters are not written",
                    );
                }
            }
        }
        self.traffic(op.space, &addrs, total, exec, true);
        Ok(())
    }

    /// Counts the traffic of one warp access; true when it goes to global memory.
    pub(crate) fn traffic(
        &mut self,
        space: Space,
        addrs: &[u64; 32],
        bytes: u32,
        exec: u32,
        write: bool,
    ) -> bool {
        let m = self.m;
        let early = m.program.depends && !self.w.depended;
        let Some(c) = self.unit.counters.as_deref_mut() else {
            return false;
        };
        let shared = match space {
            Space::Shared | Space::SharedCluster => true,
            Space::Generic => {
                let first = addrs[exec.trailing_zeros() as usize];
                match first >> 32 {
                    w if w == SHARED_WINDOW >> 32 => true,
                    w if w == LOCAL_WINDOW >> 32 || w == PARAM_WINDOW >> 32 => return false,
                    _ => false,
                }
            }
            Space::Global | Space::Const => false,
            Space::Local | Space::Param => return false,
        };
        if shared {
            c.shared_access(addrs, bytes, exec, write);
        } else {
            c.waiting_for_dependency = early;
            c.global_access(m.memory, addrs, bytes, exec, write);
        }
        !shared
    }

    /// Acquire side of a load.
    pub(crate) fn order_after(
        &mut self,
        order: Order,
        scope: Scope,
        space: Space,
        addrs: &[u64; 32],
        exec: u32,
    ) {
        if !matches!(order, Order::Acquire | Order::AcqRel | Order::Relaxed)
            || self.unit.race.is_none()
        {
            return;
        }
        let acquire = order != Order::Relaxed;
        for l in Lane::of(exec) {
            let (who, Ok(place)) = (self.who(l), self.place(space, addrs[l], l)) else {
                continue;
            };
            if let Some(r) = self.unit.race.as_deref_mut() {
                r.observe(who, place, acquire, scope);
            }
        }
    }

    /// Release side of a store.
    pub(crate) fn order_before(
        &mut self,
        order: Order,
        scope: Scope,
        space: Space,
        addrs: &[u64; 32],
        exec: u32,
    ) {
        if order == Order::Weak || self.unit.race.is_none() {
            return;
        }
        let release = matches!(order, Order::Release | Order::AcqRel);
        for l in Lane::of(exec) {
            let (who, Ok(place)) = (self.who(l), self.place(space, addrs[l], l)) else {
                continue;
            };
            if let Some(r) = self.unit.race.as_deref_mut() {
                r.publish(who, place, release, scope, false);
            }
        }
    }

    /// Turns a conflict into a fault.
    #[inline]
    pub(crate) fn judge(&self, found: Option<crate::check::Conflict>, lane: usize) -> Res<()> {
        match found {
            None => Ok(()),
            Some(c) => self.fault(c.kind, Some(lane), c.message),
        }
    }

    pub(crate) fn is_space(&mut self, p: P, a: R, space: Space, exec: u32) -> Res<()> {
        self.check_init(a, exec)?;
        let v = *self.src(a);
        let mut out = 0;
        for l in Lane::of(exec) {
            let hit = match (self.place(Space::Generic, v[l], l)?, space) {
                (Place::Shared(rank, _), Space::Shared) => rank == self.rank,
                (Place::Shared(..), Space::SharedCluster) => true,
                (Place::Global(_), Space::Global | Space::Const) => true,
                (Place::Local(_), Space::Local) => true,
                (Place::Param(_), Space::Param) => true,
                _ => false,
            };
            out |= u32::from(hit) << l;
        }
        self.set_pred(p, out, exec);
        Ok(())
    }
}

fn bytes_at(data: &[u8], at: usize, bytes: u32) -> u64 {
    data[at..at + bytes as usize]
        .iter()
        .rev()
        .fold(0, |v, b| v << 8 | u64::from(*b))
}

fn low_mask(bytes: u32) -> u64 {
    u64::MAX >> (64 - 8 * bytes)
}

fn store_access(order: Order, same: bool) -> Access {
    match (order, same) {
        (Order::Weak, true) => Access::SameWrite,
        (Order::Weak, false) => Access::Write,
        _ => Access::AtomicWrite,
    }
}
