//! A cluster (or a single block): its blocks, its scheduler, and the bulk copies in flight.

use std::collections::BTreeMap;

use super::barrier::ClusterBarrier;
use super::tensormap::{Piece, TensorMap};
use super::warp::{Wait, Warp};
use super::{Cta, Ctx, Machine, Res, atom};
use crate::check::Race;
use crate::count::Counters;
use crate::fault::{Fault, FaultKind};
use crate::isa::Op;
use crate::isa::asynch::BulkReduce;
use crate::isa::memory::AtomKind;

/// When asynchronous work completes and which warp runs next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Schedule {
    /// Warps in order, copies at once.
    Early,
    /// Warps in order, copies when nothing else can run.
    Late,
    Random,
}

/// One bulk copy.
pub(crate) struct BulkCopy {
    /// Block and line that issued it.
    issuer: (usize, u32),
    kind: BulkKind,
}

enum BulkKind {
    Load {
        rank: usize,
        pieces: Vec<Piece>,
        bar: (usize, u32),
        bytes: u32,
        map: Option<TensorMap>,
    },
    Store {
        pieces: Vec<Piece>,
        reduce: Option<BulkReduce>,
    },
    Direct {
        to: (usize, u32),
        data: Vec<u8>,
        bar: (usize, u32),
    },
}

impl BulkCopy {
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn load(
        issuer: usize,
        line: u32,
        rank: usize,
        pieces: Vec<Piece>,
        bar: (usize, u32),
        bytes: u32,
        map: Option<TensorMap>,
    ) -> Self {
        Self {
            issuer: (issuer, line),
            kind: BulkKind::Load {
                rank,
                pieces,
                bar,
                bytes,
                map,
            },
        }
    }

    pub(crate) fn store(
        issuer: usize,
        line: u32,
        pieces: Vec<Piece>,
        reduce: Option<BulkReduce>,
    ) -> Self {
        Self {
            issuer: (issuer, line),
            kind: BulkKind::Store { pieces, reduce },
        }
    }

    pub(crate) fn direct(
        issuer: usize,
        line: u32,
        to: (usize, u32),
        data: Vec<u8>,
        bar: (usize, u32),
    ) -> Self {
        Self {
            issuer: (issuer, line),
            kind: BulkKind::Direct { to, data, bar },
        }
    }
}

/// How a turn of a unit ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    Finished,
    /// The budget is spent.
    Paused,
}

/// A cluster being executed.
pub(crate) struct Unit {
    pub(crate) index: u64,
    pub(crate) ctas: Vec<Cta>,
    pub(crate) cluster_barrier: ClusterBarrier,
    pub(crate) counters: Option<Box<Counters>>,
    pub(crate) race: Option<Box<Race>>,
    pub(crate) last_alloc: usize,
    pub(crate) clock: u64,
    /// The next `try_wait` fails although it could wait.
    pub(crate) spurious: bool,
    pub(crate) schedule: Schedule,
    pub(crate) rng: u64,
    pub(crate) copies: BTreeMap<u64, BulkCopy>,
    pub(crate) next_copy: u64,
    pub(crate) executed: u64,
}

impl Unit {
    pub(crate) fn random(&mut self) -> u64 {
        self.rng ^= self.rng << 13;
        self.rng ^= self.rng >> 7;
        self.rng ^= self.rng << 17;
        self.rng >> 11
    }

    /// Does the asynchronous operation that was just issued complete at once?
    pub(crate) fn early(&mut self) -> bool {
        match self.schedule {
            Schedule::Early => true,
            Schedule::Late => false,
            Schedule::Random => self.random() & 1 == 0,
        }
    }

    pub(crate) fn enqueue(&mut self, copy: BulkCopy) -> u64 {
        let id = self.next_copy;
        self.next_copy += 1;
        self.copies.insert(id, copy);
        id
    }

    /// Live warps of a block, `current` being outside of it.
    pub(crate) fn live_warps(&self, rank: usize, current: &Warp) -> u32 {
        let inside = self.ctas[rank].warps.iter().filter(|w| w.live != 0).count() as u32;
        inside + u32::from(current.live != 0)
    }

    pub(crate) fn live_threads(&self, current: &Warp) -> u32 {
        let inside: u32 = self
            .ctas
            .iter()
            .flat_map(|c| &c.warps)
            .map(|w| w.live.count_ones())
            .sum();
        inside + current.live.count_ones()
    }

    /// Performs a bulk copy that has not been performed.
    pub(crate) fn complete(&mut self, m: &Machine<'_>, id: u64) -> Res<()> {
        let Some(copy) = self.copies.remove(&id) else {
            return Ok(());
        };
        match copy.kind {
            BulkKind::Load {
                rank,
                pieces,
                bar,
                bytes,
                map,
            } => {
                for p in &pieces {
                    let mut data = vec![0u8; p.bytes as usize];
                    match p.global {
                        Some(addr) => {
                            let Some((i, off)) = m.memory.locate(addr, u64::from(p.bytes)) else {
                                continue;
                            };
                            m.memory.allocs()[i].read_bytes(off, &mut data);
                        }
                        None => {
                            if let Some(map) = &map {
                                for (i, b) in data.iter_mut().enumerate() {
                                    *b = map.fill_byte(i as u32);
                                }
                            }
                        }
                    }
                    self.ctas[rank].shared.write(p.shared, &data);
                }
                if let Some(c) = self.counters.as_deref_mut() {
                    c.landed(u64::from(bytes));
                }
                self.transacted(m, bar, bytes, copy.issuer)
            }
            BulkKind::Direct { to, data, bar } => {
                self.ctas[to.0].shared.write(to.1, &data);
                self.transacted(m, bar, data.len() as u32, copy.issuer)
            }
            BulkKind::Store { pieces, reduce } => {
                for p in &pieces {
                    let data = self.ctas[copy.issuer.0]
                        .shared
                        .bytes(p.shared, p.bytes)
                        .to_vec();
                    let Some(addr) = p.global else { continue };
                    let Some((i, off)) = m.memory.locate(addr, u64::from(p.bytes)) else {
                        continue;
                    };
                    let alloc = &m.memory.allocs()[i];
                    match reduce {
                        None => alloc.write_bytes(off, &data),
                        Some(r) => reduce_into(alloc, off, &data, r),
                    }
                }
                Ok(())
            }
        }
    }

    fn transacted(
        &mut self,
        m: &Machine<'_>,
        bar: (usize, u32),
        bytes: u32,
        issuer: (usize, u32),
    ) -> Res<()> {
        match self.ctas[bar.0].mbars.get_mut(&bar.1) {
            Some(b) => {
                b.tx -= i64::from(bytes);
                b.settle();
                Ok(())
            }
            None => {
                let text = format!(
                    "a bulk copy completes on address {:#x}, where no mbarrier is",
                    bar.1
                );
                Err(self.blame(m, FaultKind::Mbarrier, issuer, text))
            }
        }
    }

    fn blame(
        &self,
        m: &Machine<'_>,
        kind: FaultKind,
        (rank, line): (usize, u32),
        message: String,
    ) -> Box<Fault> {
        let block = self.ctas[rank].id;
        Box::new(Fault {
            kind,
            message,
            kernel: m.program.name.clone(),
            line,
            block,
            note: None,
            thread: None,
        })
    }

    /// Runs warps until all have ended or `budget` warp instructions are spent.
    pub(crate) fn turn(&mut self, m: &Machine<'_>, budget: u64) -> Res<Turn> {
        let start = self.executed;
        let warps = self.ctas.len() * m.warps;
        let mut at = 0;
        let mut idle = 0;
        while idle < warps {
            if self.executed - start >= budget {
                return Ok(Turn::Paused);
            }
            if self.executed > m.options.max_instructions {
                return Err(self.limit(m));
            }
            if self.schedule == Schedule::Random {
                at = (self.random() % warps as u64) as usize;
                self.random_events(m)?;
            }
            let (rank, index) = (at / m.warps, at % m.warps);
            at = (at + 1) % warps;
            let ran = self.run_warp(m, rank, index)?;
            self.executed += ran;
            self.clock += ran + 1;
            idle = if ran > 0 { 0 } else { idle + 1 };
            if self.schedule == Schedule::Random && idle > 0 && idle < warps {
                // Random picks may miss a ready warp: look at all before giving up.
                idle = if self.any_ready(m) { 0 } else { warps };
            }
            if idle >= warps && self.unblock(m)? {
                idle = 0;
            }
        }
        self.finish(m)
    }

    fn any_ready(&self, m: &Machine<'_>) -> bool {
        self.ctas.iter().any(|c| {
            c.warps.iter().any(|w| {
                w.frags
                    .iter()
                    .any(|f| f.wait.is_none() || f.wait.is_some_and(|x| self.over(m, c, x)))
            })
        })
    }

    /// Random completions and spurious failures.
    fn random_events(&mut self, m: &Machine<'_>) -> Res<()> {
        let dice = self.random();
        if dice.is_multiple_of(4)
            && let Some(id) = self
                .copies
                .keys()
                .nth((dice >> 8) as usize % self.copies.len().max(1))
                .copied()
        {
            self.complete(m, id)?;
        }
        if (dice >> 4).is_multiple_of(16) {
            self.spurious = true;
        }
        Ok(())
    }

    /// Is what a fragment waits for over?
    fn over(&self, _m: &Machine<'_>, cta: &Cta, wait: Wait) -> bool {
        match wait {
            Wait::Converge | Wait::Warp { .. } => false,
            Wait::Barrier { id, generation } => cta.bars[id as usize].generation > generation,
            Wait::Mbarrier { addr, phase } => {
                let (rank, at) = ((addr >> 24) as usize, addr & 0xff_ffff);
                self.spurious
                    || self.ctas[rank]
                        .mbars
                        .get(&at)
                        .is_none_or(|b| b.phase > phase)
            }
            Wait::Cluster { phase } => self.cluster_barrier.phase > phase,
            Wait::Registers { need } => cta.spare_regs >= need,
        }
    }

    fn run_warp(&mut self, m: &Machine<'_>, rank: usize, index: usize) -> Res<u64> {
        if self.ctas[rank].warps[index].live == 0 {
            return Ok(0);
        }
        let mut w = std::mem::take(&mut self.ctas[rank].warps[index]);
        self.wake(m, rank, &mut w);
        let quantum = if self.schedule == Schedule::Random {
            1 + self.random() % 64
        } else {
            1 << 16
        };
        let mut cx = Ctx {
            m,
            unit: self,
            rank,
            w: &mut w,
            line: 0,
        };
        let ran = cx.run(quantum);
        let ended = w.live == 0;
        self.ctas[rank].warps[index] = w;
        if ended && ran.is_ok() {
            self.after_exit(rank);
        }
        ran
    }

    /// Fragments whose wait is over become ready.
    fn wake(&mut self, m: &Machine<'_>, rank: usize, w: &mut Warp) {
        for i in 0..w.frags.len() {
            let Some(wait) = w.frags[i].wait else {
                continue;
            };
            if !self.over(m, &self.ctas[rank], wait) {
                continue;
            }
            w.frags[i].wait = None;
            let (pc, mask) = (w.frags[i].pc, w.frags[i].mask);
            match wait {
                Wait::Barrier { id, generation } => {
                    if let Op::Bar(bar) = &m.inst(pc).op {
                        let mut cx = Ctx {
                            m,
                            unit: self,
                            rank,
                            w,
                            line: 0,
                        };
                        cx.leave_barrier(bar, id, generation, mask);
                    }
                    w.frags[i].pc += 1;
                }
                Wait::Cluster { phase } => {
                    w.cluster_arrived = None;
                    w.hops.join(self.cluster_barrier.hop.of(phase));
                    let warp = w.index;
                    if let Some(r) = self.race.as_deref_mut() {
                        r.cluster_leave(rank, warp, mask, phase);
                    }
                    w.frags[i].pc += 1;
                }
                _ => {}
            }
        }
        w.merge();
    }

    /// A warp has ended: barriers that waited for it may be complete.
    fn after_exit(&mut self, rank: usize) {
        let live = self.ctas[rank].warps.iter().filter(|w| w.live != 0).count() as u32;
        for b in &mut self.ctas[rank].bars {
            b.try_complete(live);
        }
        let threads: u32 = self
            .ctas
            .iter()
            .flat_map(|c| &c.warps)
            .map(|w| w.live.count_ones())
            .sum();
        self.cluster_barrier.try_complete(threads);
    }

    /// Nothing can run: the oldest copy completes. False when there is none.
    fn unblock(&mut self, m: &Machine<'_>) -> Res<bool> {
        match self.copies.keys().next().copied() {
            Some(id) => {
                self.complete(m, id)?;
                Ok(true)
            }
            None => Ok(false),
        }
    }

    fn finish(&mut self, m: &Machine<'_>) -> Res<Turn> {
        for (rank, cta) in self.ctas.iter().enumerate() {
            if let Some(w) = cta.warps.iter().find(|w| w.live != 0) {
                return Err(self.stuck(m, rank, w));
            }
        }
        Ok(Turn::Finished)
    }

    /// Describes why nothing can run.
    fn stuck(&self, m: &Machine<'_>, rank: usize, w: &Warp) -> Box<Fault> {
        let Some(f) = w.frags.iter().find(|f| f.wait.is_some()) else {
            return self.blame(m, FaultKind::Deadlock, (rank, 0), "no warp can run".into());
        };
        let line = m.inst(f.pc).line;
        let others = w.frags.len() > 1;
        let (kind, text) = match f.wait {
            Some(Wait::Converge | Wait::Warp { .. }) => {
                let text = format!(
                    "lanes {:#010x} of {:#010x} wait for the others, which never come",
                    f.mask, w.live
                );
                (FaultKind::Divergent, text)
            }
            Some(Wait::Barrier { id, .. }) => {
                let here = &self.ctas[rank].bars[id as usize].lines;
                (
                    FaultKind::Deadlock,
                    format!(
                        "warp {} waits at barrier {id} forever; arrived (warp, line): {here:?}",
                        w.index
                    ),
                )
            }
            Some(Wait::Mbarrier { addr, phase }) => {
                let b = &self.ctas[(addr >> 24) as usize]
                    .mbars
                    .get(&(addr & 0xff_ffff));
                (
                    FaultKind::Deadlock,
                    format!(
                        "warp {} waits for phase {phase} of mbarrier {:#x} forever: {b:?}",
                        w.index,
                        addr & 0xff_ffff
                    ),
                )
            }
            Some(Wait::Registers { need }) => (
                FaultKind::Deadlock,
                format!(
                    "warp {} waits for {need} registers forever, the block's pool has {}",
                    w.index, self.ctas[rank].spare_regs
                ),
            ),
            _ => (
                FaultKind::Deadlock,
                format!("warp {} waits at a cluster barrier forever", w.index),
            ),
        };
        let text = if others {
            format!("{text} (the warp is in {} fragments)", w.frags.len())
        } else {
            text
        };
        let mut fault = self.blame(m, kind, (rank, line), text);
        fault.thread = Some(m.thread(w.index, f.mask.trailing_zeros() as usize));
        fault
    }

    fn limit(&self, m: &Machine<'_>) -> Box<Fault> {
        let line = self.ctas[0]
            .warps
            .iter()
            .find_map(|w| w.frags.first().map(|f| m.inst(f.pc).line));
        let text = format!(
            "more than {} warp instructions in one block",
            m.options.max_instructions
        );
        self.blame(m, FaultKind::Limit, (0, line.unwrap_or(0)), text)
    }
}

fn reduce_into(alloc: &crate::memory::Alloc, off: u64, data: &[u8], r: BulkReduce) {
    let (kind, bytes) = match r {
        BulkReduce::AddU32 => (AtomKind::Add, 4),
        BulkReduce::AddU64 => (AtomKind::Add, 8),
        BulkReduce::AddF16 => (AtomKind::AddF16, 2),
        BulkReduce::AddBf16 => (AtomKind::AddBf16, 2),
        BulkReduce::AddF32 => (AtomKind::AddF32, 4),
        BulkReduce::AddF64 => (AtomKind::AddF64, 8),
        BulkReduce::Min(b, signed) => (
            if signed {
                AtomKind::MinS
            } else {
                AtomKind::MinU
            },
            u32::from(b),
        ),
        BulkReduce::Max(b, signed) => (
            if signed {
                AtomKind::MaxS
            } else {
                AtomKind::MaxU
            },
            u32::from(b),
        ),
        BulkReduce::And => (AtomKind::And, 4),
        BulkReduce::Or => (AtomKind::Or, 4),
        BulkReduce::Xor => (AtomKind::Xor, 4),
    };
    for (i, part) in data.chunks(bytes as usize).enumerate() {
        let at = off + i as u64 * u64::from(bytes);
        let v = part.iter().rev().fold(0, |v, b| v << 8 | u64::from(*b));
        let old = alloc.load(at, bytes);
        alloc.store(at, bytes, atom::apply(kind, bytes, old, v, 0));
    }
}
