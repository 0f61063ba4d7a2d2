//! Non-bulk asynchronous copies (`cp.async`): groups belong to each thread.

use std::collections::VecDeque;

use super::memory::Place;
use super::{Ctx, Lane, Res};
use crate::fault::FaultKind;
use crate::isa::PSrc;
use crate::isa::R;
use crate::isa::asynch::{Addr, AsyncOp};

/// One copy of up to 16 bytes that has not been performed.
#[derive(Clone, Copy, Debug)]
struct Copy {
    lane: u8,
    dst: u32,
    src: u64,
    bytes: u8,
    /// Bytes that are read; the rest is zero.
    read: u8,
    line: u32,
}

/// A commit of one lane that it has not waited for.
#[derive(Clone, Copy, Debug)]
struct Commit {
    serial: u64,
    /// Epoch of the first copy in it.
    start: u64,
}

/// Copy groups of a warp. Each lane commits and waits for itself; commits of the warp are numbered, and
/// the number at its issue is the epoch of a copy.
#[derive(Default)]
pub(crate) struct CopyGroups {
    open: Vec<Copy>,
    committed: VecDeque<(u64, Vec<Copy>)>,
    outstanding: [VecDeque<Commit>; 32],
    open_start: [Option<u64>; 32],
    /// Commits of the warp so far.
    pub(crate) serial: u64,
    /// Groups issued and not yet waited for, for the counters.
    flying: VecDeque<Flying>,
    open_bytes: u64,
    /// When the open group arrives, in hops.
    open_arrival: u32,
}

/// A group of a warp on its way.
struct Flying {
    serial: u64,
    bytes: u64,
    /// In hops.
    arrival: u32,
}

impl CopyGroups {
    /// When everything issued so far arrives, in hops.
    pub(crate) fn arrival(&self) -> u32 {
        let flying = self.flying.iter().map(|f| f.arrival);
        flying.fold(self.open_arrival, u32::max)
    }
}

impl Ctx<'_, '_> {
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn cp_async(
        &mut self,
        dst: &Addr,
        src: &Addr,
        bytes: u8,
        src_size: Option<R>,
        ignore: PSrc,
        exec: u32,
    ) -> Res<()> {
        let to = self.addresses(dst.reg, dst.narrow, dst.off, exec)?;
        let from = self.addresses(src.reg, src.narrow, src.off, exec)?;
        let skip = self.psrc(ignore);
        let sizes = match src_size {
            None => [u64::from(bytes); 32],
            Some(r) => {
                self.check_init(r, exec)?;
                *self.src(r)
            }
        };
        let mut reading = 0;
        for l in Lane::of(exec) {
            let read = if skip >> l & 1 == 1 {
                0
            } else {
                sizes[l].min(255) as u8
            };
            if read > bytes {
                return self.fault(
                    FaultKind::Operand,
                    Some(l),
                    format!("source size {} above {bytes}", sizes[l]),
                );
            }
            let Place::Shared(rank, addr) = self.place(dst.space, to[l], l)? else {
                return self.fault(
                    FaultKind::OutOfBounds,
                    Some(l),
                    "the destination of cp.async is not shared memory",
                );
            };
            self.check_shared(rank, addr, u32::from(bytes), l)?;
            self.check_aligned(from[l], u32::from(bytes), l)?;
            if read > 0 {
                reading |= 1 << l;
                self.check_source(from[l], read, l)?;
            }
            let who = self.who(l);
            let group = self.w.copies.serial;
            self.w.copies.open_start[l].get_or_insert(group);
            if let Some(r) = self.unit.race.as_deref_mut() {
                let found = r.copy_issue(who, addr, u32::from(bytes), group);
                self.judge(found, l)?;
            }
            let copy = Copy {
                lane: l as u8,
                dst: addr,
                src: from[l],
                bytes,
                read,
                line: self.line,
            };
            self.w.copies.open_bytes += u64::from(read);
            if self.unit.early() {
                self.perform(copy)?
            } else {
                self.w.copies.open.push(copy)
            }
        }
        if reading != 0 {
            self.w.copies.open_arrival = self.w.hops.arrival();
            self.traffic(
                crate::isa::memory::Space::Global,
                &from,
                u32::from(bytes),
                reading,
                false,
            );
            self.traffic(
                crate::isa::memory::Space::Shared,
                &to,
                u32::from(bytes),
                exec,
                true,
            );
        }
        Ok(())
    }

    fn check_source(&mut self, addr: u64, read: u8, lane: usize) -> Res<()> {
        let (i, off) = self.check_global(addr, u32::from(read), Some(lane))?;
        if self.m.options.uninit && !self.m.memory.allocs()[i].is_init(off, u64::from(read)) {
            return self.uninit(format!("global address {addr:#x} ({read} bytes)"), lane);
        }
        let who = self.who(lane);
        if let Some(r) = self.unit.race.as_deref_mut() {
            let found = r.global(who, addr, u32::from(read), crate::check::Access::Read);
            self.judge(found, lane)?;
        }
        Ok(())
    }

    fn perform(&mut self, c: Copy) -> Res<()> {
        let mut data = [0u8; 16];
        if c.read > 0 {
            let (i, off) = self.check_global(c.src, u32::from(c.read), Some(c.lane as usize))?;
            self.m.memory.allocs()[i].read_bytes(off, &mut data[..c.read as usize]);
        }
        let rank = self.rank;
        self.unit.ctas[rank]
            .shared
            .write(c.dst, &data[..c.bytes as usize]);
        Ok(())
    }

    fn perform_all(&mut self, copies: Vec<Copy>) -> Res<()> {
        let line = self.line;
        for c in copies {
            self.line = c.line;
            self.perform(c)?;
        }
        self.line = line;
        Ok(())
    }

    pub(crate) fn commit_copies(&mut self, exec: u32) {
        let g = &mut self.w.copies;
        let serial = g.serial;
        g.serial += 1;
        for l in Lane::of(exec) {
            let start = g.open_start[l].take().unwrap_or(serial);
            g.outstanding[l].push_back(Commit { serial, start });
        }
        let mine: Vec<Copy> = g.open.extract_if(.., |c| exec >> c.lane & 1 == 1).collect();
        if !mine.is_empty() {
            g.committed.push_back((serial, mine));
        }
        let bytes = std::mem::take(&mut g.open_bytes);
        let arrival = std::mem::take(&mut g.open_arrival);
        g.flying.push_back(Flying {
            serial,
            bytes,
            arrival,
        });
    }

    /// Waits until at most `pending` committed groups of each lane are open; `all` includes what was not
    /// committed.
    pub(crate) fn wait_copies(&mut self, pending: u32, all: bool, exec: u32) -> Res<()> {
        let g = &mut self.w.copies;
        let flying: u64 = g.flying.iter().map(|f| f.bytes).sum::<u64>() + g.open_bytes;
        let keep = if all { 0 } else { pending as usize };
        for l in Lane::of(exec) {
            while g.outstanding[l].len() > keep {
                g.outstanding[l].pop_front();
            }
        }
        let oldest = g
            .outstanding
            .iter()
            .filter_map(|o| o.front())
            .map(|c| c.serial)
            .min();
        let hops = &self.w.hops;
        g.flying.retain(|f| {
            let stays = oldest.is_some_and(|o| f.serial >= o);
            if !stays {
                hops.join(f.arrival);
            }
            stays
        });
        let mut due = Vec::new();
        let outstanding = &g.outstanding;
        for (serial, copies) in &mut g.committed {
            let over = |c: &Copy| {
                outstanding[c.lane as usize]
                    .front()
                    .is_none_or(|f| f.serial > *serial)
            };
            due.extend(copies.extract_if(.., |c| over(c)));
        }
        g.committed.retain(|(_, copies)| !copies.is_empty());
        if all {
            due.extend(g.open.extract_if(.., |c| exec >> c.lane & 1 == 1));
            g.open_bytes = 0;
            hops.join(std::mem::take(&mut g.open_arrival));
            g.serial += 1;
            Lane::of(exec).for_each(|l| g.open_start[l] = None);
        }
        let done: Vec<(usize, u64)> = Lane::of(exec)
            .map(|l| {
                let front = g.outstanding[l].front().map(|c| c.start);
                (l, front.or(g.open_start[l]).unwrap_or(g.serial))
            })
            .collect();
        let line = self.line;
        if let Some(c) = self.counters() {
            c.wait(line, flying);
        }
        self.perform_all(due)?;
        let (rank, warp) = (self.rank, self.w.index);
        if let Some(r) = self.race() {
            r.copy_done(rank, warp, &done);
        }
        Ok(())
    }

    /// All copies of these lanes are performed: `cp.async.mbarrier.arrive` triggers now.
    pub(crate) fn flush_copies(&mut self, exec: u32) -> Res<()> {
        let of = |c: &Copy| exec >> c.lane & 1 == 1;
        let mut due = Vec::new();
        for (_, group) in &mut self.w.copies.committed {
            due.extend(group.extract_if(.., |c| of(c)));
        }
        due.extend(self.w.copies.open.extract_if(.., |c| of(c)));
        self.perform_all(due)
    }

    /// Copies that were never waited for are performed at the end of the warp.
    pub(crate) fn finish_copies(&mut self) -> Res<()> {
        while let Some((_, copies)) = self.w.copies.committed.pop_front() {
            self.perform_all(copies)?;
        }
        let open = std::mem::take(&mut self.w.copies.open);
        self.perform_all(open)
    }

    pub(crate) fn copy_op(&mut self, op: &AsyncOp, exec: u32) -> Res<()> {
        match op {
            AsyncOp::CpAsync {
                dst,
                src,
                bytes,
                src_size,
                ignore,
            } => self.cp_async(dst, src, *bytes, *src_size, *ignore, exec),
            AsyncOp::CommitGroup => {
                self.commit_copies(exec);
                Ok(())
            }
            AsyncOp::WaitGroup { pending } => self.wait_copies(*pending, false, exec),
            _ => self.wait_copies(0, true, exec),
        }
    }
}
