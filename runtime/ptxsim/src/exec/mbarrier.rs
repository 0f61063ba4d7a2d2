//! mbarrier objects (PTX ISA §9.7.13.15) and the dispatch of asynchronous instructions.
//!
//! A phase completes when no arrivals and no transaction bytes are pending. A wait on parity P succeeds
//! while the current phase has the other parity: on a fresh barrier a wait on parity 1 succeeds at once.

use super::barrier::Latest;
use super::memory::Place;
use super::step::Flow;
use super::warp::Wait;
use super::{Ctx, Lane, Res};
use crate::check::Access;
use crate::fault::FaultKind;
use crate::isa::R;
use crate::isa::asynch::{Addr, AsyncOp, Phase};
use crate::isa::memory::{Order, Space};

/// Largest count of arrivals and of transaction bytes.
const MAX_COUNT: i64 = (1 << 20) - 1;

/// State of one mbarrier.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mbarrier {
    pub(crate) phase: u64,
    expected: i64,
    pending: i64,
    pub(crate) tx: i64,
    pub(crate) hop: Latest,
}

impl Mbarrier {
    /// Moves on when nothing is pending.
    pub(crate) fn settle(&mut self) -> bool {
        let done = self.pending == 0 && self.tx == 0;
        if done {
            self.hop.complete(self.phase);
            self.phase += 1;
            self.pending = self.expected;
        }
        done
    }
}

/// One arrival.
struct Arrive {
    count: i64,
    tx: i64,
    drop: bool,
    no_complete: bool,
}

impl Ctx<'_, '_> {
    /// Block and address of an mbarrier operand.
    pub(crate) fn mbar_at(&self, a: &Addr, addr: u64, lane: usize) -> Res<(usize, u32)> {
        let Place::Shared(rank, at) = self.place(a.space, addr, lane)? else {
            return self.fault(
                FaultKind::Mbarrier,
                Some(lane),
                "an mbarrier lies in shared memory",
            );
        };
        self.check_shared(rank, at, 8, lane)?;
        Ok((rank, at))
    }

    pub(crate) fn mbar(&mut self, key: (usize, u32), lane: usize) -> Res<&mut Mbarrier> {
        if !self.unit.ctas[key.0].mbars.contains_key(&key.1) {
            let text = format!("no mbarrier was initialized at {:#x}", key.1);
            return self.fault(FaultKind::Mbarrier, Some(lane), text);
        }
        Ok(self.unit.ctas[key.0].mbars.entry(key.1).or_default())
    }

    pub(crate) fn asynch(&mut self, op: &AsyncOp, exec: u32) -> Res<Flow> {
        match op {
            AsyncOp::CpAsync { .. }
            | AsyncOp::CommitGroup
            | AsyncOp::WaitGroup { .. }
            | AsyncOp::WaitAll => self.copy_op(op, exec)?,
            AsyncOp::CpAsyncArrive { bar, noinc } => self.copy_arrive(bar, *noinc, exec)?,
            AsyncOp::MbarInit { bar, count } => self.mbar_init(bar, *count, exec)?,
            AsyncOp::MbarInval { bar } => self.mbar_inval(bar, exec)?,
            AsyncOp::MbarArrive { .. } => self.mbar_arrive_op(op, exec)?,
            AsyncOp::MbarExpectTx { bar, tx } => self.mbar_tx(bar, *tx, 1, exec)?,
            AsyncOp::MbarCompleteTx { bar, tx } => self.mbar_tx(bar, *tx, -1, exec)?,
            AsyncOp::MbarWait {
                bar,
                phase,
                d,
                try_wait,
                order,
                ..
            } => {
                return self.mbar_wait(bar, *phase, *d, *try_wait, *order, exec);
            }
            AsyncOp::MbarPending { d, state } => {
                self.check_init(*state, exec)?;
                let out = self.src(*state).map(|s| s >> 1 & MAX_COUNT as u64);
                self.set(*d, &out, exec);
            }
            AsyncOp::Mapa {
                d,
                a,
                rank,
                generic,
                wide,
            } => self.mapa(*d, *a, *rank, (*generic, *wide), exec)?,
            AsyncOp::ClusterRank { d, a, generic } => {
                let addrs = self.addresses(*a, false, 0, exec)?;
                let space = if *generic {
                    Space::Generic
                } else {
                    Space::SharedCluster
                };
                let mut out = [0; 32];
                for l in Lane::of(exec) {
                    if let Place::Shared(rank, _) = self.place(space, addrs[l], l)? {
                        out[l] = rank as u64;
                    }
                }
                self.set(*d, &out, exec);
            }
            AsyncOp::ClusterArrive { order, .. } => {
                self.cluster_arrive(*order != Order::Relaxed, exec)?
            }
            AsyncOp::ClusterWait => return self.cluster_wait(exec),
            _ => return self.bulk_op(op, exec),
        }
        Ok(Flow::Next)
    }

    fn mbar_init(&mut self, bar: &Addr, count: R, exec: u32) -> Res<()> {
        let addrs = self.addresses(bar.reg, bar.narrow, bar.off, exec)?;
        self.check_init(count, exec)?;
        for l in Lane::of(exec) {
            let n = self.src(count)[l] as i64;
            if !(1..=MAX_COUNT).contains(&n) {
                return self.fault(
                    FaultKind::Mbarrier,
                    Some(l),
                    format!("arrival count {n} is not in 1 to 2^20-1"),
                );
            }
            let (rank, at) = self.mbar_at(bar, addrs[l], l)?;
            // The phase goes on counting so that knowledge of an earlier life is not mistaken for this one.
            let phase = self.unit.ctas[rank]
                .mbars
                .get(&at)
                .map_or(0, |b| (b.phase + 2) & !1);
            self.unit.ctas[rank].mbars.insert(
                at,
                Mbarrier {
                    phase,
                    expected: n,
                    pending: n,
                    tx: 0,
                    hop: Latest::default(),
                },
            );
            self.unit.ctas[rank].shared.store(at, 8, 0);
            let who = self.who(l);
            if let Some(r) = self.unit.race.as_deref_mut() {
                let found = r.shared(who, rank, at, 8, Access::Write);
                self.judge(found, l)?;
            }
        }
        Ok(())
    }

    fn mbar_inval(&mut self, bar: &Addr, exec: u32) -> Res<()> {
        let addrs = self.addresses(bar.reg, bar.narrow, bar.off, exec)?;
        for l in Lane::of(exec) {
            let key = self.mbar_at(bar, addrs[l], l)?;
            self.mbar(key, l)?;
            self.unit.ctas[key.0].mbars.remove(&key.1);
        }
        Ok(())
    }

    /// A use of the mbarrier object counts as an atomic access to its bytes.
    fn mbar_touch(&mut self, key: (usize, u32), lane: usize) -> Res<()> {
        let who = self.who(lane);
        if let Some(r) = self.unit.race.as_deref_mut() {
            let found = r.shared(who, key.0, key.1, 8, Access::AtomicRead);
            self.judge(found, lane)?;
        }
        Ok(())
    }

    fn arrive_one(&mut self, key: (usize, u32), a: &Arrive, lane: usize) -> Res<u64> {
        self.mbar_touch(key, lane)?;
        let now = self.w.hops.now();
        let b = self.mbar(key, lane)?;
        b.hop.arrive(now);
        let before = b.phase;
        let state = before << 21 | (b.pending as u64) << 1;
        b.tx += a.tx;
        b.pending -= a.count;
        if a.drop {
            b.expected -= a.count;
        }
        let (pending, tx, settles) = (b.pending, b.tx, b.pending == 0 && b.tx == 0);
        if pending < 0 {
            return self.fault(
                FaultKind::Mbarrier,
                Some(lane),
                format!("more arrivals than expected at mbarrier {:#x}", key.1),
            );
        }
        if tx.abs() > MAX_COUNT {
            return self.fault(
                FaultKind::Mbarrier,
                Some(lane),
                format!("transaction count {tx} at mbarrier {:#x}", key.1),
            );
        }
        if a.no_complete && settles {
            return self.fault(
                FaultKind::Mbarrier,
                Some(lane),
                "arrive.noComplete would complete the phase",
            );
        }
        self.mbar(key, lane)?.settle();
        Ok(state)
    }

    fn mbar_arrive_op(&mut self, op: &AsyncOp, exec: u32) -> Res<()> {
        let AsyncOp::MbarArrive {
            bar,
            count,
            tx,
            drop,
            no_complete,
            state,
            order,
            ..
        } = op
        else {
            return Ok(());
        };
        let addrs = self.addresses(bar.reg, bar.narrow, bar.off, exec)?;
        for r in [count, tx].into_iter().flatten() {
            self.check_init(*r, exec)?;
        }
        let mut out = [0; 32];
        for l in Lane::of(exec) {
            let key = self.mbar_at(bar, addrs[l], l)?;
            let arrive = Arrive {
                count: count.map_or(1, |r| i64::from(self.src(r)[l] as u32)),
                tx: tx.map_or(0, |r| i64::from(self.src(r)[l] as u32)),
                drop: *drop,
                no_complete: *no_complete,
            };
            let phase = self.mbar(key, l)?.phase;
            let who = self.who(l);
            if *order != Order::Relaxed
                && let Some(r) = self.race()
            {
                r.mbar_arrive(who, key, phase);
            }
            out[l] = self.arrive_one(key, &arrive, l)?;
        }
        if let Some(d) = state {
            self.set(*d, &out, exec);
        }
        Ok(())
    }

    fn mbar_tx(&mut self, bar: &Addr, tx: R, sign: i64, exec: u32) -> Res<()> {
        let addrs = self.addresses(bar.reg, bar.narrow, bar.off, exec)?;
        self.check_init(tx, exec)?;
        for l in Lane::of(exec) {
            let key = self.mbar_at(bar, addrs[l], l)?;
            let n = sign * i64::from(self.src(tx)[l] as u32);
            self.mbar_touch(key, l)?;
            self.transact(key, n, l)?;
        }
        Ok(())
    }

    /// Adds to the pending bytes and completes the phase when that settles it.
    pub(crate) fn transact(&mut self, key: (usize, u32), n: i64, lane: usize) -> Res<()> {
        let b = self.mbar(key, lane)?;
        b.tx += n;
        let tx = b.tx;
        if tx.abs() > MAX_COUNT {
            return self.fault(
                FaultKind::Mbarrier,
                Some(lane),
                format!("transaction count {tx} at mbarrier {:#x}", key.1),
            );
        }
        self.mbar(key, lane)?.settle();
        Ok(())
    }

    fn copy_arrive(&mut self, bar: &Addr, noinc: bool, exec: u32) -> Res<()> {
        let addrs = self.addresses(bar.reg, bar.narrow, bar.off, exec)?;
        self.flush_copies(exec)?;
        let arrival = self.w.copies.arrival();
        for l in Lane::of(exec) {
            let key = self.mbar_at(bar, addrs[l], l)?;
            let b = self.mbar(key, l)?;
            if !noinc {
                b.pending += 1;
            }
            let phase = b.phase;
            b.hop.arrive(arrival);
            let (who, group) = (self.who(l), self.w.copies.serial);
            if let Some(r) = self.race() {
                r.copy_arrive(who, key, phase, group);
            }
            self.arrive_one(
                key,
                &Arrive {
                    count: 1,
                    tx: 0,
                    drop: false,
                    no_complete: false,
                },
                l,
            )?;
        }
        Ok(())
    }

    fn mbar_wait(
        &mut self,
        bar: &Addr,
        phase: Phase,
        d: u16,
        try_wait: bool,
        order: Order,
        exec: u32,
    ) -> Res<Flow> {
        let addrs = self.addresses(bar.reg, bar.narrow, bar.off, exec)?;
        let (Phase::State(r) | Phase::Parity(r)) = phase;
        self.check_init(r, exec)?;
        let (mut done, mut first) = (0u32, None);
        for l in Lane::of(exec) {
            let key = self.mbar_at(bar, addrs[l], l)?;
            self.mbar_touch(key, l)?;
            let v = self.src(r)[l];
            let b = self.mbar(key, l)?;
            let current = b.phase;
            let complete = match phase {
                Phase::State(_) => v >> 21 < current,
                Phase::Parity(_) => current & 1 != v & 1,
            };
            if complete {
                done |= 1 << l;
                let time = b.hop.of(current.wrapping_sub(1));
                self.w.hops.join(time);
            } else {
                first.get_or_insert((key, current));
            }
        }
        if try_wait
            && done == 0
            && let Some((key, current)) = first
            && !std::mem::take(&mut self.unit.spurious)
        {
            let line = self.line;
            if let Some(c) = self.counters() {
                c.mbarrier_wait(line);
            }
            return Ok(Flow::Wait(Wait::Mbarrier {
                addr: (key.0 as u32) << 24 | key.1,
                phase: current,
            }));
        }
        let mut left: u32 = if order == Order::Relaxed { 0 } else { done };
        while left != 0 {
            let l = left.trailing_zeros() as usize;
            let same = Lane::of(left)
                .filter(|k| addrs[*k] == addrs[l])
                .fold(0, |m, k| m | 1 << k);
            let key = self.mbar_at(bar, addrs[l], l)?;
            let current = self.mbar(key, l)?.phase;
            let (rank, warp) = (self.rank, self.w.index);
            if let Some(r) = self.race() {
                r.mbar_wait(rank, warp, same, key, current);
            }
            left &= !same;
        }
        self.set_pred(d, done, exec);
        Ok(Flow::Next)
    }

    fn mapa(&mut self, d: R, a: R, rank: R, (generic, wide): (bool, bool), exec: u32) -> Res<()> {
        let addrs = self.addresses(a, !wide, 0, exec)?;
        self.check_init(rank, exec)?;
        let ranks = *self.src(rank);
        let space = if generic {
            Space::Generic
        } else {
            Space::SharedCluster
        };
        let mut out = [0; 32];
        for l in Lane::of(exec) {
            let Place::Shared(_, at) = self.place(space, addrs[l], l)? else {
                return self.fault(
                    FaultKind::Operand,
                    Some(l),
                    "mapa maps shared addresses only",
                );
            };
            if ranks[l] as usize >= self.unit.ctas.len() {
                return self.fault(
                    FaultKind::Operand,
                    Some(l),
                    format!("the cluster has no block {}", ranks[l]),
                );
            }
            let low = (ranks[l] + 1) << 24 | u64::from(at);
            out[l] = if generic {
                crate::decode::SHARED_WINDOW | low
            } else {
                low
            };
        }
        self.set(d, &out, exec);
        Ok(())
    }
}
