//! Named block barriers and cluster barriers (PTX ISA §9.7.13.1 to .4).

use super::step::Flow;
use super::warp::Wait;
use super::{Ctx, Lane, Res};
use crate::fault::FaultKind;
use crate::isa::{Bar, BarKind};

/// One of the sixteen named barriers of a block.
#[derive(Clone, Debug, Default)]
pub(crate) struct Named {
    /// Threads that have arrived in this generation, whole warps counting 32.
    arrived: u32,
    /// Threads that must arrive; none is every live warp.
    expected: Option<u32>,
    /// Warps and instruction line of those that wait, for messages.
    pub(crate) lines: Vec<(usize, u32)>,
    pub(crate) generation: u64,
    and: bool,
    or: bool,
    popc: u32,
    /// Result of the last two generations: and, or, popc.
    results: [(bool, bool, u32); 2],
    hop: Latest,
}

/// The latest time, in hops, of those that arrive; and of the last two phases.
#[derive(Clone, Debug, Default)]
pub(crate) struct Latest {
    open: u32,
    done: [u32; 2],
}

impl Latest {
    pub(crate) fn arrive(&mut self, time: u32) {
        self.open = self.open.max(time);
    }

    pub(crate) fn complete(&mut self, phase: u64) {
        self.done[(phase % 2) as usize] = std::mem::take(&mut self.open);
    }

    pub(crate) fn of(&self, phase: u64) -> u32 {
        self.done[(phase % 2) as usize]
    }
}

impl Named {
    fn complete(&mut self) {
        self.results[(self.generation % 2) as usize] = (self.and, self.or, self.popc);
        self.hop.complete(self.generation);
        self.generation += 1;
        self.arrived = 0;
        self.expected = None;
        self.lines.clear();
        (self.and, self.or, self.popc) = (true, false, 0);
    }

    /// Completes when all live warps have come to a barrier without count.
    pub(crate) fn try_complete(&mut self, live_warps: u32) -> bool {
        let full = match self.expected {
            Some(n) => self.arrived >= n,
            None => self.arrived > 0 && self.arrived >= live_warps * 32,
        };
        if full {
            self.complete();
        }
        full
    }
}

/// Barrier of a whole cluster.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClusterBarrier {
    /// Lanes that have arrived in this phase.
    arrived: u32,
    pub(crate) phase: u64,
    pub(crate) hop: Latest,
}

impl ClusterBarrier {
    pub(crate) fn try_complete(&mut self, live_threads: u32) {
        if self.arrived > 0 && self.arrived >= live_threads {
            self.arrived = 0;
            self.hop.complete(self.phase);
            self.phase += 1;
        }
    }
}

impl Ctx<'_, '_> {
    pub(crate) fn barrier(&mut self, bar: &Bar, exec: u32) -> Res<Flow> {
        let id = self.uniform(bar.id, exec, "barrier number")?;
        if id >= 16 {
            return self.fault(
                FaultKind::Operand,
                None,
                format!("barrier {id} does not exist"),
            );
        }
        let count = match bar.count {
            None => None,
            Some(r) => Some(self.uniform(r, exec, "thread count")? as u32),
        };
        if let Some(n) = count
            && (n == 0 || !n.is_multiple_of(32))
        {
            return self.fault(
                FaultKind::Operand,
                None,
                format!("barrier thread count {n} is no multiple of 32"),
            );
        }
        let whole = exec == self.w.live;
        let votes = self.psrc(bar.pred) & exec;
        let now = self.w.hops.now();
        let (line, index, live) = (
            self.line,
            self.w.index,
            self.unit.live_warps(self.rank, self.w),
        );
        let b = &mut self.cta().bars[id as usize];
        if b.arrived > 0 && b.expected != count {
            let text = format!(
                "barrier {id} is used with {count:?} threads while others wait with {:?}",
                b.expected
            );
            return self.fault(FaultKind::Divergent, None, text);
        }
        if b.arrived == 0 {
            (b.and, b.or, b.popc) = (true, false, 0);
        }
        b.expected = count;
        b.arrived += if whole { 32 } else { exec.count_ones() };
        b.and &= votes == exec;
        b.or |= votes != 0;
        b.popc += votes.count_ones();
        b.lines.push((index, line));
        b.hop.arrive(now);
        let generation = b.generation;
        if let Some(n) = count
            && b.arrived > n
        {
            let text = format!(
                "barrier {id}: {} threads arrive where {n} are expected",
                b.arrived
            );
            return self.fault(FaultKind::Divergent, None, text);
        }
        b.try_complete(live);
        let rank = self.rank;
        if let Some(r) = self.race() {
            r.bar_arrive(rank, index, exec, id as u8, generation);
        }
        if bar.kind == BarKind::Arrive {
            return Ok(Flow::Next);
        }
        Ok(Flow::Wait(Wait::Barrier {
            id: id as u8,
            generation,
        }))
    }

    /// A fragment leaves the barrier it waited at.
    pub(crate) fn leave_barrier(&mut self, bar: &Bar, id: u8, generation: u64, mask: u32) {
        let b = &self.cta().bars[id as usize];
        let (time, (and, or, popc)) = (b.hop.of(generation), b.results[(generation % 2) as usize]);
        self.w.hops.join(time);
        match bar.kind {
            BarKind::RedAnd => self.set_pred(bar.pd, if and { u32::MAX } else { 0 }, mask),
            BarKind::RedOr => self.set_pred(bar.pd, if or { u32::MAX } else { 0 }, mask),
            BarKind::RedPopc => self.set(bar.rd, &[u64::from(popc); 32], mask),
            BarKind::Sync | BarKind::Arrive => {}
        }
        let (rank, warp) = (self.rank, self.w.index);
        if let Some(r) = self.race() {
            r.bar_leave(rank, warp, mask, id, generation);
        }
    }

    pub(crate) fn cluster_arrive(&mut self, release: bool, exec: u32) -> Res<()> {
        let phase = self.unit.cluster_barrier.phase;
        if self.w.cluster_arrived == Some(phase) && exec == self.w.live {
            return self.fault(
                FaultKind::Divergent,
                None,
                "barrier.cluster.arrive twice without a wait",
            );
        }
        self.w.cluster_arrived = Some(phase);
        self.unit.cluster_barrier.arrived += exec.count_ones();
        self.unit.cluster_barrier.hop.arrive(self.w.hops.now());
        let live = self.unit.live_threads(self.w);
        self.unit.cluster_barrier.try_complete(live);
        let (rank, warp) = (self.rank, self.w.index);
        if release && let Some(r) = self.race() {
            r.cluster_arrive(rank, warp, exec, phase);
        }
        Ok(())
    }

    pub(crate) fn cluster_wait(&mut self, exec: u32) -> Res<Flow> {
        let Some(phase) = self.w.cluster_arrived else {
            return self.fault(
                FaultKind::Divergent,
                Lane::of(exec).next(),
                "barrier.cluster.wait without an arrive",
            );
        };
        Ok(Flow::Wait(Wait::Cluster { phase }))
    }
}
