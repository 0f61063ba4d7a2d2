//! Bulk copies by the async proxy: linear and tensor, loads counted on mbarriers, stores in bulk groups.

use super::memory::Place;
use super::step::Flow;
use super::tensormap::{Piece, TensorMap};
use super::unit::BulkCopy;
use super::{Ctx, Lane, Res};
use crate::fault::FaultKind;
use crate::isa::R;
use crate::isa::asynch::{Addr, AsyncOp, BulkDst, BulkReduce, TensorCopy};

impl Ctx<'_, '_> {
    pub(crate) fn bulk_op(&mut self, op: &AsyncOp, exec: u32) -> Res<Flow> {
        match op {
            AsyncOp::Bulk {
                dst,
                src,
                size,
                reduce,
            } => self.bulk(dst, src, *size, *reduce, exec)?,
            AsyncOp::TensorLoad {
                dst,
                bar,
                multicast,
                tensor,
            } => self.tensor_load(dst, bar, *multicast, tensor, exec)?,
            AsyncOp::TensorStore {
                src,
                tensor,
                reduce,
            } => self.tensor_store(src, tensor, *reduce, exec)?,
            AsyncOp::BulkCommit => {
                let group = std::mem::take(&mut self.w.bulk_open);
                self.w.bulk_groups.push_back(group);
                let (rank, warp) = (self.rank, self.w.index);
                if let Some(r) = self.race() {
                    r.bulk_commit(rank, warp);
                }
            }
            AsyncOp::BulkWait { pending } => {
                let done = self.w.bulk_groups.len().saturating_sub(*pending as usize);
                for group in self.w.bulk_groups.drain(..done).collect::<Vec<_>>() {
                    for id in group {
                        self.unit.complete(self.m, id)?;
                    }
                }
                let (rank, warp) = (self.rank, self.w.index);
                if let Some(r) = self.race() {
                    r.bulk_wait(rank, warp, exec, u64::from(*pending));
                }
            }
            AsyncOp::StAsync {
                dst,
                bar,
                bytes,
                regs,
            } => self.st_async(dst, bar, u32::from(*bytes), regs, exec)?,
            _ => {}
        }
        Ok(Flow::Next)
    }

    /// A bulk store reads shared memory, which is gone when the block ends.
    pub(crate) fn check_bulk_done(&self) -> Res<()> {
        let open = !self.w.bulk_open.is_empty() || self.w.bulk_groups.iter().any(|g| !g.is_empty());
        if open && self.m.options.races {
            let text = "the warp ends while its bulk stores may still read shared memory";
            return self.fault(FaultKind::NotWaited, None, text);
        }
        Ok(())
    }

    fn shared_at(
        &self,
        a: &Addr,
        addr: u64,
        align: u32,
        bytes: u32,
        lane: usize,
    ) -> Res<(usize, u32)> {
        let Place::Shared(rank, at) = self.place(a.space, addr, lane)? else {
            return self.fault(
                FaultKind::OutOfBounds,
                Some(lane),
                format!("{addr:#x} is no shared memory address"),
            );
        };
        self.check_aligned(u64::from(at), align, lane)?;
        if !self.unit.ctas[rank].shared.contains(at, bytes) {
            let text = format!(
                "bulk copy of {bytes} bytes at shared address {at:#x} leaves shared memory"
            );
            return self.fault(FaultKind::OutOfBounds, Some(lane), text);
        }
        Ok((rank, at))
    }

    /// Ranks that receive a load: the destination's block, or those of the multicast mask.
    fn receivers(&self, rank: usize, multicast: Option<R>, lane: usize) -> Res<Vec<usize>> {
        let Some(r) = multicast else {
            return Ok(vec![rank]);
        };
        self.check_init(r, 1 << lane)?;
        let mask = self.src(r)[lane] as u32;
        let list: Vec<usize> = Lane::of(mask).collect();
        if list.is_empty() || list.iter().any(|r| *r >= self.unit.ctas.len()) {
            return self.fault(
                FaultKind::Operand,
                Some(lane),
                format!("multicast mask {mask:#x} names blocks outside the cluster"),
            );
        }
        Ok(list)
    }

    fn bulk(
        &mut self,
        dst: &BulkDst,
        src: &Addr,
        size: R,
        reduce: Option<BulkReduce>,
        exec: u32,
    ) -> Res<()> {
        let from = self.addresses(src.reg, src.narrow, src.off, exec)?;
        self.check_init(size, exec)?;
        let sizes = *self.src(size);
        for l in Lane::of(exec) {
            let n = sizes[l] as u32;
            if !n.is_multiple_of(16) || n == 0 || n > 1 << 24 {
                return self.fault(
                    FaultKind::Operand,
                    Some(l),
                    format!("bulk copy of {n} bytes: no positive multiple of 16"),
                );
            }
            match dst {
                BulkDst::Shared {
                    dst,
                    bar,
                    multicast,
                } => {
                    self.check_aligned(from[l], 16, l)?;
                    let (to, at) = self.lane_pair(dst, bar, l)?;
                    let (rank, shared) = self.shared_at(dst, to, 16, n, l)?;
                    let (bar_rank, bar_at) = self.mbar_at(bar, at, l)?;
                    let receivers = self.receivers(rank, *multicast, l)?;
                    let pieces = vec![Piece {
                        global: Some(from[l]),
                        shared,
                        bytes: n,
                    }];
                    self.check_pieces(&pieces, l)?;
                    let bar = (
                        if multicast.is_some() {
                            None
                        } else {
                            Some(bar_rank)
                        },
                        bar_at,
                    );
                    self.issue_load(receivers, bar, pieces, n, None, l)?;
                }
                BulkDst::Global { dst } => {
                    let to = self.addresses(dst.reg, dst.narrow, dst.off, 1 << l)?[l];
                    self.check_aligned(to, 16, l)?;
                    let (_, shared) = self.shared_at(src, from[l], 16, n, l)?;
                    self.issue_store(
                        vec![Piece {
                            global: Some(to),
                            shared,
                            bytes: n,
                        }],
                        reduce,
                        l,
                    )?;
                }
                BulkDst::Cluster { dst, bar } => {
                    self.cluster_copy(src, from[l], (dst, bar), n, l)?
                }
            }
        }
        Ok(())
    }

    fn lane_pair(&self, a: &Addr, b: &Addr, lane: usize) -> Res<(u64, u64)> {
        let x = self.addresses(a.reg, a.narrow, a.off, 1 << lane)?[lane];
        let y = self.addresses(b.reg, b.narrow, b.off, 1 << lane)?[lane];
        Ok((x, y))
    }

    fn cluster_copy(
        &mut self,
        src: &Addr,
        from: u64,
        (dst, bar): (&Addr, &Addr),
        n: u32,
        l: usize,
    ) -> Res<()> {
        let (to, at) = self.lane_pair(dst, bar, l)?;
        let (from_rank, from_at) = self.shared_at(src, from, 16, n, l)?;
        let (rank, shared) = self.shared_at(dst, to, 16, n, l)?;
        let key = self.mbar_at(bar, at, l)?;
        let phase = self.mbar(key, l)?.phase;
        let who = self.who(l);
        if let Some(r) = self.unit.race.as_deref_mut() {
            let found = r
                .bulk_read(who, from_rank, from_at, n, Some((key, phase)))
                .or_else(|| r.bulk_write(who, rank, shared, n, key, phase));
            self.judge(found, l)?;
        }
        let data = self.unit.ctas[from_rank].shared.bytes(from_at, n).to_vec();
        let copy = BulkCopy::direct(self.rank, self.line, (rank, shared), data, key);
        self.launch_copy(copy)
    }

    fn launch_copy(&mut self, copy: BulkCopy) -> Res<()> {
        let id = self.unit.enqueue(copy);
        if self.unit.early() {
            self.unit.complete(self.m, id)?;
        }
        Ok(())
    }

    fn check_pieces(&mut self, pieces: &[Piece], lane: usize) -> Res<()> {
        for p in pieces {
            let Some(addr) = p.global else { continue };
            let (i, off) = self.check_global(addr, p.bytes, Some(lane))?;
            if self.m.options.uninit && !self.m.memory.allocs()[i].is_init(off, u64::from(p.bytes))
            {
                return self.uninit(
                    format!("global address {addr:#x} ({} bytes)", p.bytes),
                    lane,
                );
            }
            let who = self.who(lane);
            if let Some(r) = self.unit.race.as_deref_mut() {
                let found = r.global(who, addr, p.bytes, crate::check::Access::Read);
                self.judge(found, lane)?;
            }
            let m = self.m;
            let early = m.program.depends && !self.w.depended;
            if let Some(c) = self.counters() {
                c.waiting_for_dependency = early;
                c.bulk(m.memory, addr, p.bytes, false);
            }
        }
        Ok(())
    }

    /// `bar` is the mbarrier's block, or none for the same address in every receiver.
    #[allow(clippy::too_many_arguments)]
    fn issue_load(
        &mut self,
        receivers: Vec<usize>,
        bar: (Option<usize>, u32),
        pieces: Vec<Piece>,
        bytes: u32,
        map: Option<TensorMap>,
        lane: usize,
    ) -> Res<()> {
        let who = self.who(lane);
        for rank in receivers {
            let key = (bar.0.unwrap_or(rank), bar.1);
            let arrival = self.w.hops.arrival();
            let b = self.mbar(key, lane)?;
            b.hop.arrive(arrival);
            let phase = b.phase;
            let found = self.race().and_then(|r| {
                pieces
                    .iter()
                    .find_map(|p| r.bulk_write(who, rank, p.shared, p.bytes, key, phase))
            });
            self.judge(found, lane)?;
            if let Some(c) = self.counters() {
                c.flying(u64::from(bytes));
            }
            self.launch_copy(BulkCopy::load(
                self.rank,
                self.line,
                rank,
                pieces.clone(),
                key,
                bytes,
                map.clone(),
            ))?;
        }
        Ok(())
    }

    fn issue_store(
        &mut self,
        pieces: Vec<Piece>,
        reduce: Option<BulkReduce>,
        lane: usize,
    ) -> Res<()> {
        let who = self.who(lane);
        for p in &pieces {
            let Some(addr) = p.global else { continue };
            self.check_global(addr, p.bytes, Some(lane))?;
            if self.m.options.uninit && !self.unit.ctas[self.rank].shared.is_init(p.shared, p.bytes)
            {
                return self.uninit(
                    format!("shared address {:#x} ({} bytes)", p.shared, p.bytes),
                    lane,
                );
            }
            if let Some(r) = self.unit.race.as_deref_mut() {
                let found = r
                    .bulk_read(who, who.rank, p.shared, p.bytes, None)
                    .or_else(|| r.bulk_global_write(who, addr, p.bytes, reduce.is_some()));
                self.judge(found, lane)?;
            }
            let m = self.m;
            let early = m.program.depends && !self.w.depended;
            if let Some(c) = self.counters() {
                c.waiting_for_dependency = early;
                c.bulk(m.memory, addr, p.bytes, true);
            }
        }
        let id = self
            .unit
            .enqueue(BulkCopy::store(self.rank, self.line, pieces, reduce));
        self.w.bulk_open.push(id);
        if self.unit.early() {
            self.unit.complete(self.m, id)?;
        }
        Ok(())
    }

    /// The tensor map behind an address, with bounds of its 128 bytes checked.
    fn tensor_map(&mut self, a: &Addr, lane: usize) -> Res<TensorMap> {
        let addr = self.addresses(a.reg, a.narrow, a.off, 1 << lane)?[lane];
        let mut bytes = [0u8; 128];
        match self.place(a.space, addr, lane)? {
            Place::Param(at) => match self.m.params.get(at as usize..at as usize + 128) {
                Some(b) => bytes.copy_from_slice(b),
                None => {
                    return self.fault(
                        FaultKind::OutOfBounds,
                        Some(lane),
                        "the tensor map leaves the parameters",
                    );
                }
            },
            Place::Global(addr) => {
                self.check_aligned(addr, 64, lane)?;
                let (i, off) = self.check_global(addr, 128, Some(lane))?;
                self.m.memory.allocs()[i].read_bytes(off, &mut bytes);
            }
            _ => {
                return self.fault(
                    FaultKind::Operand,
                    Some(lane),
                    "a tensor map lies in parameters or global memory",
                );
            }
        }
        match TensorMap::decode(&bytes) {
            Ok(m) => Ok(m),
            Err(e) => self.fault(FaultKind::Operand, Some(lane), e.to_string()),
        }
    }

    fn coords(&self, t: &TensorCopy, map: &TensorMap, lane: usize) -> Res<Vec<i32>> {
        if map.dims.len() != t.coords.len() {
            let text = format!(
                "the instruction has {} dimensions, the tensor map {}",
                t.coords.len(),
                map.dims.len()
            );
            return self.fault(FaultKind::Operand, Some(lane), text);
        }
        let mut out = Vec::new();
        for c in &t.coords {
            self.check_init(*c, 1 << lane)?;
            out.push(self.src(*c)[lane] as i32);
        }
        Ok(out)
    }

    fn tensor_load(
        &mut self,
        dst: &Addr,
        bar: &Addr,
        multicast: Option<R>,
        t: &TensorCopy,
        exec: u32,
    ) -> Res<()> {
        for l in Lane::of(exec) {
            let map = self.tensor_map(&t.map, l)?;
            let coords = self.coords(t, &map, l)?;
            let (to, at) = self.lane_pair(dst, bar, l)?;
            let bytes = map.box_bytes();
            let (rank, shared) = self.shared_at(dst, to, 128, bytes, l)?;
            let (bar_rank, bar_at) = self.mbar_at(bar, at, l)?;
            let receivers = self.receivers(rank, multicast, l)?;
            let pieces = map.pieces(&coords, shared);
            self.check_pieces(&pieces, l)?;
            let key = (
                if multicast.is_some() {
                    None
                } else {
                    Some(bar_rank)
                },
                bar_at,
            );
            self.issue_load(receivers, key, pieces, bytes, Some(map), l)?;
        }
        Ok(())
    }

    fn tensor_store(
        &mut self,
        src: &Addr,
        t: &TensorCopy,
        reduce: Option<BulkReduce>,
        exec: u32,
    ) -> Res<()> {
        for l in Lane::of(exec) {
            let map = self.tensor_map(&t.map, l)?;
            let coords = self.coords(t, &map, l)?;
            let from = self.addresses(src.reg, src.narrow, src.off, 1 << l)?[l];
            let (_, shared) = self.shared_at(src, from, 128, map.box_bytes(), l)?;
            let pieces = map
                .pieces(&coords, shared)
                .into_iter()
                .filter(|p| p.global.is_some())
                .collect();
            self.issue_store(pieces, reduce, l)?;
        }
        Ok(())
    }

    fn st_async(&mut self, dst: &Addr, bar: &Addr, bytes: u32, regs: &[R], exec: u32) -> Res<()> {
        for r in regs {
            self.check_init(*r, exec)?;
        }
        let total = bytes * regs.len() as u32;
        for l in Lane::of(exec) {
            let (to, at) = self.lane_pair(dst, bar, l)?;
            let (rank, shared) = self.shared_at(dst, to, total, total, l)?;
            let key = self.mbar_at(bar, at, l)?;
            let phase = self.mbar(key, l)?.phase;
            let who = self.who(l);
            if let Some(r) = self.unit.race.as_deref_mut() {
                let found = r.bulk_write(who, rank, shared, total, key, phase);
                self.judge(found, l)?;
            }
            let data = regs
                .iter()
                .flat_map(|r| self.src(*r)[l].to_le_bytes()[..bytes as usize].to_vec())
                .collect();
            self.launch_copy(BulkCopy::direct(
                self.rank,
                self.line,
                (rank, shared),
                data,
                key,
            ))?;
        }
        Ok(())
    }
}
