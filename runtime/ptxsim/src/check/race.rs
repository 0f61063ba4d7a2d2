//! The clocks of one cluster and the checks of its accesses.

use std::collections::HashMap;

use super::clock::{Clock, Entry};
use super::global::{GlobalShadow, GlobalStamp};
use super::shadow::{ASYNC, ATOMIC, PROXY, SharedShadow, Stamp, VALID};
use super::{Access, Conflict, Who};
use crate::exec::{Cta, Machine};
use crate::fault::FaultKind;
use crate::isa::memory::Scope;
use crate::isa::program::SHARED_START;

/// Clock state of one warp.
#[derive(Debug, Default)]
pub(super) struct WarpClock {
    pub(super) lanes: u32,
    /// Epoch of its accesses now.
    pub(super) now: u32,
    /// What all lanes know.
    pub(super) base: Clock,
    /// What only some lanes know.
    pub(super) extras: Vec<(u32, Clock)>,
    /// Copy groups that each lane has waited for.
    pub(super) copies: [u32; 32],
    pub(super) bulk: u32,
    pub(super) wgmma: u32,
    /// Clocks at the last fence, published by later relaxed writes.
    pub(super) fences: Vec<(u32, Scope, Clock)>,
    /// Clocks observed by relaxed reads, acquired by a later fence.
    pub(super) pending: Vec<(u32, u64, Clock)>,
}

/// Synchronization through one mbarrier.
#[derive(Debug, Default)]
pub(super) struct MbarClock {
    pub(super) agent: usize,
    pub(super) phases: HashMap<u64, Clock>,
}

/// Race state of a cluster.
#[derive(Debug, Default)]
pub(crate) struct Race {
    pub(super) unit: u64,
    per_block: usize,
    pub(super) count: usize,
    grain: u32,
    grains: usize,
    pub(super) warps: Vec<WarpClock>,
    shadows: Vec<SharedShadow>,
    pub(super) bars: HashMap<(usize, u8, u64), Clock>,
    pub(super) clusters: HashMap<u64, Clock>,
    pub(super) mbars: HashMap<(usize, u32), MbarClock>,
    pub(super) sync: HashMap<(usize, u32), Vec<super::global::Released>>,
    pub(super) global: GlobalShadow,
    /// Line of the instruction being executed.
    pub(crate) line: u32,
}

/// The accessing side: who issues, and as which agent it is remembered.
#[derive(Clone, Copy, Debug)]
struct Actor {
    who: Who,
    stamp: Stamp,
    /// Goes through the async proxy: generic writes must have been fenced.
    proxy: bool,
}

impl Race {
    pub(crate) fn new(m: &Machine<'_>, global: GlobalShadow) -> Self {
        let blocks: u32 = m.cluster.iter().product();
        let grain = m.program.shared_grain;
        Self {
            per_block: m.warps,
            count: m.warps * blocks as usize,
            grain,
            grains: ((m.shared_end - SHARED_START) >> grain) as usize + 1,
            shadows: (0..blocks).map(|_| SharedShadow::default()).collect(),
            global,
            ..Self::default()
        }
    }

    /// A new cluster starts.
    pub(crate) fn begin(&mut self, unit: u64, ctas: &[Cta]) {
        self.unit = unit;
        self.warps.clear();
        for w in ctas.iter().flat_map(|c| &c.warps) {
            let mut clock = WarpClock {
                lanes: w.live,
                now: 1,
                ..WarpClock::default()
            };
            clock.base.seen.resize(4 * self.count, Entry::default());
            self.warps.push(clock);
        }
        self.shadows.iter_mut().for_each(|s| s.reset(self.grains));
        self.bars.clear();
        self.clusters.clear();
        self.mbars.clear();
        self.sync.clear();
    }

    pub(crate) fn lend(&mut self, shadow: GlobalShadow) {
        self.global = shadow;
    }

    pub(crate) fn give_back(&mut self) -> GlobalShadow {
        std::mem::take(&mut self.global)
    }

    pub(super) fn index(&self, rank: usize, warp: usize) -> usize {
        rank * self.per_block + warp
    }

    /// The agent of an mbarrier's copies.
    pub(super) fn mbar_agent(&mut self, key: (usize, u32)) -> usize {
        let next = 4 * self.count + self.mbars.len();
        self.mbars
            .entry(key)
            .or_insert_with(|| MbarClock {
                agent: next,
                ..MbarClock::default()
            })
            .agent
    }

    /// Does the thread know of the access behind `s`?
    fn knows(&self, who: Who, s: Stamp, proxied: bool) -> bool {
        let own = self.index(who.rank, who.warp);
        let agent = s.agent as usize;
        let w = &self.warps[own];
        if agent == own && s.lane == who.lane && !proxied {
            return true;
        }
        if agent == self.count + own && s.lane == who.lane && s.epoch < w.copies[who.lane as usize]
        {
            return true;
        }
        let hit = |c: &Clock| c.entry(agent, proxied).knows(s.epoch, s.lane);
        hit(&w.base)
            || w.extras
                .iter()
                .any(|(mask, c)| mask >> who.lane & 1 == 1 && hit(c))
    }

    fn actor(&self, who: Who, access: Access) -> Actor {
        let own = self.index(who.rank, who.warp);
        let flags = VALID | if access.atomic() { ATOMIC } else { 0 };
        let stamp = Stamp {
            agent: own as u16,
            lane: who.lane,
            flags,
            epoch: self.warps[own].now,
            line: self.line,
        };
        Actor {
            who,
            stamp,
            proxy: false,
        }
    }

    fn async_actor(&self, who: Who, agent: usize, epoch: u32, lane: u8) -> Actor {
        let stamp = Stamp {
            agent: agent as u16,
            lane,
            flags: VALID | ASYNC | PROXY,
            epoch,
            line: self.line,
        };
        Actor {
            who,
            stamp,
            proxy: true,
        }
    }

    /// Names an agent for messages.
    fn name(&self, s: Stamp) -> String {
        let agent = s.agent as usize;
        let (n, w) = (self.count, agent % self.count);
        let place = format!("warp {}", w % self.per_block);
        match agent / n {
            0 => format!("{place} lane {} at line {}", s.lane, s.line),
            1 => format!("cp.async of {place} lane {} at line {}", s.lane, s.line),
            2 => format!("the bulk store of {place} at line {}", s.line),
            3 => format!("the wgmma of {place} at line {}", s.line),
            _ => format!("the bulk copy at line {}", s.line),
        }
    }

    /// Judges `now` against the earlier access `before`.
    fn clash(
        &self,
        now: Actor,
        before: Stamp,
        wrote: bool,
        access: Access,
        what: Spot,
    ) -> Option<Conflict> {
        if !before.valid() || before.atomic() && access.atomic() {
            return None;
        }
        let generic_write = wrote && !before.proxy();
        let proxied = now.proxy && generic_write;
        let ordered = self.knows(now.who, before, false);
        if ordered && (!proxied || self.knows(now.who, before, true)) {
            return None;
        }
        if wrote && access == Access::SameWrite && !before.asynchronous() {
            return None;
        }
        let (kind, why) = if proxied && ordered {
            (
                FaultKind::MissingProxyFence,
                "without fence.proxy.async between them",
            )
        } else if before.asynchronous() && before.agent as usize / self.count == 3 {
            (FaultKind::WgmmaOrder, "before wgmma.wait_group")
        } else if before.asynchronous() {
            (FaultKind::NotWaited, "before the copy was waited for")
        } else {
            (FaultKind::Race, "without an order between them")
        };
        let verb = |w: bool| if w { "write" } else { "read" };
        let by = self.name(before);
        let message = format!(
            "{} of {what} after the {} by {by} {why}",
            verb(access.writes()),
            verb(wrote)
        );
        Some(Conflict { kind, message })
    }

    fn touch_shared(
        &mut self,
        rank: usize,
        addr: u32,
        len: u32,
        actor: Actor,
        access: Access,
    ) -> Option<Conflict> {
        let (first, last) = (
            (addr - SHARED_START) >> self.grain,
            (addr - SHARED_START + len - 1) >> self.grain,
        );
        for i in first as usize..=last as usize {
            let cell = self.shadows[rank].cell(i);
            let at = Spot::Shared(SHARED_START + ((i as u32) << self.grain));
            if let Some(c) = self.clash(actor, cell.write, true, access, at) {
                return Some(c);
            }
            if access.writes() {
                let reads: Vec<Stamp> = self.shadows[rank].reads(i).collect();
                for r in reads {
                    if let Some(c) = self.clash(actor, r, false, access, at) {
                        return Some(c);
                    }
                }
                self.shadows[rank].set_write(i, actor.stamp);
            } else {
                let mut shadow = std::mem::take(&mut self.shadows[rank]);
                shadow.add_read(i, actor.stamp, |r| {
                    self.knows(actor.who, r, false) && !actor.stamp.asynchronous()
                });
                self.shadows[rank] = shadow;
            }
        }
        None
    }

    /// A generic access to shared memory.
    pub(crate) fn shared(
        &mut self,
        who: Who,
        rank: usize,
        addr: u32,
        len: u32,
        access: Access,
    ) -> Option<Conflict> {
        let actor = self.actor(who, access);
        self.touch_shared(rank, addr, len, actor, access)
    }

    /// A `cp.async` into the own block's shared memory; it is a generic-proxy access.
    pub(crate) fn copy_issue(
        &mut self,
        who: Who,
        addr: u32,
        len: u32,
        group: u64,
    ) -> Option<Conflict> {
        let agent = self.count + self.index(who.rank, who.warp);
        let mut actor = self.async_actor(who, agent, group as u32, who.lane);
        actor.proxy = false;
        actor.stamp.flags &= !PROXY;
        self.touch_shared(who.rank, addr, len, actor, Access::Write)
    }

    /// A bulk write that completes in `phase` of an mbarrier.
    pub(crate) fn bulk_write(
        &mut self,
        who: Who,
        rank: usize,
        addr: u32,
        len: u32,
        key: (usize, u32),
        phase: u64,
    ) -> Option<Conflict> {
        let agent = self.mbar_agent(key);
        let actor = self.async_actor(who, agent, phase as u32, 0);
        self.touch_shared(rank, addr, len, actor, Access::Write)
    }

    /// A bulk read of shared memory, in the open bulk group or until `phase` of an mbarrier.
    pub(crate) fn bulk_read(
        &mut self,
        who: Who,
        rank: usize,
        addr: u32,
        len: u32,
        bar: Option<((usize, u32), u64)>,
    ) -> Option<Conflict> {
        let actor = match bar {
            Some((key, phase)) => {
                let agent = self.mbar_agent(key);
                self.async_actor(who, agent, phase as u32, 0)
            }
            None => {
                let own = self.index(who.rank, who.warp);
                self.async_actor(who, 2 * self.count + own, self.warps[own].bulk, 0)
            }
        };
        self.touch_shared(rank, addr, len, actor, Access::Read)
    }

    /// An operand of `wgmma` is read by the async proxy.
    pub(crate) fn wgmma_read(&mut self, who: Who, addr: u32, len: u32) -> Option<Conflict> {
        let own = self.index(who.rank, who.warp);
        let actor = self.async_actor(who, 3 * self.count + own, self.warps[own].wgmma, 0);
        self.touch_shared(who.rank, addr, len, actor, Access::Read)
    }

    /// A generic access to global memory.
    pub(crate) fn global(
        &mut self,
        who: Who,
        addr: u64,
        len: u32,
        access: Access,
    ) -> Option<Conflict> {
        let actor = self.actor(who, access);
        self.touch_global(addr, len, actor, access)
    }

    /// A bulk store to global memory; reductions are atomic.
    pub(crate) fn bulk_global_write(
        &mut self,
        who: Who,
        addr: u64,
        len: u32,
        atomic: bool,
    ) -> Option<Conflict> {
        let own = self.index(who.rank, who.warp);
        let mut actor = self.async_actor(who, 2 * self.count + own, self.warps[own].bulk, 0);
        let access = if atomic {
            Access::AtomicWrite
        } else {
            Access::Write
        };
        if atomic {
            actor.stamp.flags |= ATOMIC;
        }
        self.touch_global(addr, len, actor, access)
    }

    fn touch_global(
        &mut self,
        addr: u64,
        len: u32,
        actor: Actor,
        access: Access,
    ) -> Option<Conflict> {
        let grain = self.global.grain;
        let (first, last) = (addr >> grain, (addr + u64::from(len) - 1) >> grain);
        let unit = self.unit;
        for g in first..=last {
            let cell = *self.global.cell(g);
            let at = Spot::Global(g << grain);
            if let Some(c) = self.clash_global(actor, cell.write, true, access, at) {
                return Some(c);
            }
            let now = GlobalStamp {
                unit,
                stamp: actor.stamp,
            };
            if access.writes() {
                for r in cell.reads {
                    if let Some(c) = self.clash_global(actor, r, false, access, at) {
                        return Some(c);
                    }
                }
                let cell = self.global.cell(g);
                cell.write = now;
                cell.reads = Default::default();
            } else {
                let [a, b] = cell.reads;
                let same = |x: GlobalStamp| x.unit == unit && x.stamp.agent == actor.stamp.agent;
                let cell = self.global.cell(g);
                cell.reads = if !a.stamp.valid() || same(a) {
                    [now, b]
                } else {
                    [now, a]
                };
            }
        }
        None
    }

    fn clash_global(
        &self,
        now: Actor,
        before: GlobalStamp,
        wrote: bool,
        access: Access,
        at: Spot,
    ) -> Option<Conflict> {
        if before.unit == self.unit || !before.stamp.valid() {
            return self.clash(now, before.stamp, wrote, access, at);
        }
        if before.stamp.atomic() && access.atomic() || wrote && access == Access::SameWrite {
            return None;
        }
        let w = &self.warps[self.index(now.who.rank, now.who.warp)];
        let s = before.stamp;
        let hit = |c: &Clock| {
            c.foreign
                .get(&before.unit)
                .and_then(|f| f.get(s.agent as usize))
                .is_some_and(|e| e.knows(s.epoch, s.lane))
        };
        if hit(&w.base)
            || w.extras
                .iter()
                .any(|(mask, c)| mask >> now.who.lane & 1 == 1 && hit(c))
        {
            return None;
        }
        let verb = |w: bool| if w { "write" } else { "read" };
        let message = format!(
            "{} of {at} after the {} by block number {} at line {} without an order between them",
            verb(access.writes()),
            verb(wrote),
            before.unit,
            s.line
        );
        Some(Conflict {
            kind: FaultKind::Race,
            message,
        })
    }
}

/// A place in a message; only formatted when there is a conflict.
#[derive(Clone, Copy)]
enum Spot {
    Shared(u32),
    Global(u64),
}

impl std::fmt::Display for Spot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Shared(a) => write!(f, "shared address {a:#x}"),
            Self::Global(a) => write!(f, "global address {a:#x}"),
        }
    }
}
