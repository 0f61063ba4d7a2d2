//! What orders accesses: warp and block barriers, clusters, mbarriers, groups, fences, release and acquire.

use super::Who;
use super::clock::{Clock, Entry};
use super::global::Released;
use super::race::Race;
use crate::exec::Place;
use crate::isa::memory::Scope;

impl Race {
    /// The clock that lanes of a warp publish; accesses after it belong to a new epoch.
    fn publish_clock(&mut self, own: usize, mask: u32) -> Clock {
        let count = self.count;
        let w = &mut self.warps[own];
        let whole = mask & w.lanes == w.lanes;
        let mut c = w.base.clone();
        for (lanes, extra) in &w.extras {
            if lanes & mask != 0 {
                c.join(extra);
            }
        }
        c.learn(
            own,
            if whole {
                Entry {
                    epoch: w.now + 1,
                    mask: 0,
                }
            } else {
                Entry { epoch: w.now, mask }
            },
        );
        let done = (0..32).filter(|l| mask >> l & 1 == 1).map(|l| w.copies[l]);
        let least = done.clone().min().unwrap_or(0);
        let copies = if whole || least == 0 {
            Entry {
                epoch: least,
                mask: 0,
            }
        } else {
            Entry {
                epoch: least - 1,
                mask,
            }
        };
        c.learn(count + own, copies);
        w.now += 1;
        c
    }

    fn acquire_clock(&mut self, own: usize, mask: u32, clock: &Clock) {
        let w = &mut self.warps[own];
        if mask & w.lanes == w.lanes {
            w.base.join(clock);
            return;
        }
        match w.extras.iter_mut().find(|(m, _)| *m == mask) {
            Some((_, c)) => c.join(clock),
            None => w.extras.push((mask, clock.clone())),
        }
    }

    pub(crate) fn warp_sync(&mut self, rank: usize, warp: usize, mask: u32) {
        let own = self.index(rank, warp);
        let c = self.publish_clock(own, mask);
        self.acquire_clock(own, mask, &c);
        let w = &mut self.warps[own];
        if mask & w.lanes == w.lanes {
            w.extras.clear();
        } else {
            w.extras.retain(|(m, _)| m & !mask != 0 || *m == mask);
        }
    }

    /// What these lanes know and did becomes visible to the async proxy; it orders no lane with another.
    pub(crate) fn proxy_fence(&mut self, rank: usize, warp: usize, mask: u32) {
        let own = self.index(rank, warp);
        let mut c = self.publish_clock(own, mask);
        c.pass_proxy();
        let passed = Clock {
            proxied: c.proxied,
            ..Clock::default()
        };
        self.acquire_clock(own, mask, &passed);
    }

    pub(crate) fn bar_arrive(
        &mut self,
        rank: usize,
        warp: usize,
        mask: u32,
        id: u8,
        generation: u64,
    ) {
        let own = self.index(rank, warp);
        let c = self.publish_clock(own, mask);
        self.bars
            .entry((rank, id, generation))
            .or_default()
            .join(&c);
        if generation > 1 {
            self.bars.remove(&(rank, id, generation - 2));
        }
    }

    pub(crate) fn bar_leave(
        &mut self,
        rank: usize,
        warp: usize,
        mask: u32,
        id: u8,
        generation: u64,
    ) {
        let own = self.index(rank, warp);
        if let Some(c) = self.bars.get(&(rank, id, generation)).cloned() {
            self.acquire_clock(own, mask, &c);
            if mask & self.warps[own].lanes == self.warps[own].lanes {
                self.warps[own].extras.clear();
            }
        }
    }

    pub(crate) fn cluster_arrive(&mut self, rank: usize, warp: usize, mask: u32, phase: u64) {
        let own = self.index(rank, warp);
        let c = self.publish_clock(own, mask);
        self.clusters.entry(phase).or_default().join(&c);
    }

    pub(crate) fn cluster_leave(&mut self, rank: usize, warp: usize, mask: u32, phase: u64) {
        let own = self.index(rank, warp);
        if let Some(c) = self.clusters.get(&phase).cloned() {
            self.acquire_clock(own, mask, &c);
        }
    }

    pub(crate) fn mbar_arrive(&mut self, who: Who, key: (usize, u32), phase: u64) {
        let own = self.index(who.rank, who.warp);
        let c = self.publish_clock(own, 1 << who.lane);
        self.mbar_agent(key);
        if let Some(b) = self.mbars.get_mut(&key) {
            b.phases.entry(phase).or_default().join(&c);
        }
    }

    /// The copies of a lane arrive on an mbarrier when they are performed.
    pub(crate) fn copy_arrive(&mut self, who: Who, key: (usize, u32), phase: u64, group: u64) {
        let own = self.index(who.rank, who.warp);
        let agent = self.count + own;
        self.mbar_agent(key);
        if let Some(b) = self.mbars.get_mut(&key) {
            let c = b.phases.entry(phase).or_default();
            c.learn(
                agent,
                Entry {
                    epoch: group as u32,
                    mask: 1 << who.lane,
                },
            );
        }
    }

    /// Phases below `current` are over for these lanes.
    pub(crate) fn mbar_wait(
        &mut self,
        rank: usize,
        warp: usize,
        mask: u32,
        key: (usize, u32),
        current: u64,
    ) {
        let own = self.index(rank, warp);
        let agent = self.mbar_agent(key);
        let Some(b) = self.mbars.get_mut(&key) else {
            return;
        };
        // What earlier phases taught is folded into the last one that is over.
        let mut c = Clock::default();
        b.phases.retain(|phase, clock| {
            if *phase < current {
                c.join(clock);
            }
            *phase >= current
        });
        c.learn(
            agent,
            Entry {
                epoch: current as u32,
                mask: 0,
            },
        );
        if current > 0 {
            b.phases.insert(current - 1, c.clone());
        }
        self.acquire_clock(own, mask, &c);
    }

    /// Lanes have waited for all copy groups below their number.
    pub(crate) fn copy_done(&mut self, rank: usize, warp: usize, lanes: &[(usize, u64)]) {
        let own = self.index(rank, warp);
        for (l, n) in lanes {
            let done = &mut self.warps[own].copies[*l];
            *done = (*done).max(*n as u32);
        }
    }

    pub(crate) fn bulk_commit(&mut self, rank: usize, warp: usize) {
        let own = self.index(rank, warp);
        self.warps[own].bulk += 1;
    }

    pub(crate) fn bulk_wait(&mut self, rank: usize, warp: usize, mask: u32, pending: u64) {
        let own = self.index(rank, warp);
        let done = u64::from(self.warps[own].bulk).saturating_sub(pending) as u32;
        let mut c = Clock::default();
        c.learn(
            2 * self.count + own,
            Entry {
                epoch: done,
                mask: 0,
            },
        );
        self.acquire_clock(own, mask, &c);
    }

    pub(crate) fn wgmma_commit(&mut self, rank: usize, warp: usize) {
        let own = self.index(rank, warp);
        self.warps[own].wgmma += 1;
    }

    pub(crate) fn wgmma_wait(&mut self, rank: usize, warp: usize, pending: u64) {
        let own = self.index(rank, warp);
        let done = u64::from(self.warps[own].wgmma).saturating_sub(pending) as u32;
        let mut c = Clock::default();
        c.learn(
            3 * self.count + own,
            Entry {
                epoch: done,
                mask: 0,
            },
        );
        self.acquire_clock(own, u32::MAX, &c);
    }

    /// `fence`: what relaxed reads saw is acquired, what comes before is published by relaxed writes.
    pub(crate) fn fence(&mut self, rank: usize, warp: usize, mask: u32, scope: Scope) {
        let own = self.index(rank, warp);
        let pending = std::mem::take(&mut self.warps[own].pending);
        for (lanes, unit, clock) in pending {
            if lanes & mask != 0 {
                self.acquire_from(own, lanes, unit, &clock);
            } else {
                self.warps[own].pending.push((lanes, unit, clock));
            }
        }
        let c = self.publish_clock(own, mask);
        let fences = &mut self.warps[own].fences;
        fences.retain(|(m, ..)| m & !mask != 0);
        fences.push((mask, scope, c));
    }

    fn acquire_from(&mut self, own: usize, mask: u32, unit: u64, clock: &Clock) {
        if unit == self.unit {
            self.acquire_clock(own, mask, clock);
        } else {
            let mut c = Clock::default();
            c.join_from(unit, clock);
            self.acquire_clock(own, mask, &c);
        }
    }

    /// A synchronizing write or atomic: what it releases stays with the variable. A read-modify-write
    /// continues the release sequence of those before it.
    pub(crate) fn publish(
        &mut self,
        who: Who,
        place: Place,
        release: bool,
        scope: Scope,
        rmw: bool,
    ) {
        let own = self.index(who.rank, who.warp);
        let bit = 1u32 << who.lane;
        let clock = if release {
            Some((scope, self.publish_clock(own, bit)))
        } else {
            let fences = &self.warps[own].fences;
            fences
                .iter()
                .rev()
                .find(|(m, ..)| m & bit != 0)
                .map(|(_, s, c)| ((*s).min(scope), c.clone()))
        };
        let unit = self.unit;
        let list = match place {
            Place::Global(addr) => self.global.sync.entry(addr).or_default(),
            Place::Shared(rank, addr) => self.sync.entry((rank, addr)).or_default(),
            Place::Local(_) | Place::Param(_) => return,
        };
        if !rmw {
            list.clear();
        }
        if let Some((scope, clock)) = clock {
            match list.iter_mut().find(|r| r.unit == unit && r.scope == scope) {
                Some(r) => r.clock.join(&clock),
                None => list.push(Released { unit, scope, clock }),
            }
        }
    }

    /// A synchronizing read or atomic sees what was released to the variable.
    pub(crate) fn observe(&mut self, who: Who, place: Place, acquire: bool, scope: Scope) {
        let own = self.index(who.rank, who.warp);
        let unit = self.unit;
        let list = match place {
            Place::Global(addr) => self.global.sync.get(&addr),
            Place::Shared(rank, addr) => self.sync.get(&(rank, addr)),
            Place::Local(_) | Place::Param(_) => None,
        };
        let reaches =
            |r: &&Released| r.unit == unit || r.scope >= Scope::Gpu && scope >= Scope::Gpu;
        let seen: Vec<(u64, Clock)> = list
            .into_iter()
            .flatten()
            .filter(reaches)
            .map(|r| (r.unit, r.clock.clone()))
            .collect();
        for (from, clock) in seen {
            if acquire {
                self.acquire_from(own, 1 << who.lane, from, &clock);
            } else {
                self.warps[own].pending.push((1 << who.lane, from, clock));
            }
        }
    }
}
