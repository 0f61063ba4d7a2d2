//! What a launch did: instructions by class, tensor operations, memory traffic, bytes in flight.
//!
//! Unique 32-byte sectors are what DRAM must move at least once with a perfect L2; the sectors of every
//! warp request added up are what moves between L2 and the SMs. A shared-memory request takes as many
//! wavefronts as its busiest bank has different words (32 banks of 4 bytes; 8-byte accesses go by half
//! warps, 16-byte accesses by quarter warps).

use std::collections::BTreeMap;

use crate::isa::Class;
use crate::isa::tensor::TensorKind;
use crate::memory::Memory;

const SECTOR: u64 = 32;

/// Sums over blocks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counters {
    pub(crate) warp_insts: [u64; Class::COUNT],
    pub(crate) lane_insts: [u64; Class::COUNT],
    /// Multiply-adds of tensor instructions by kind.
    pub(crate) macs: [u64; TensorKind::COUNT],
    /// Serialized memory hops of the slowest cluster.
    pub(crate) hops: u32,
    /// Touched sectors of each allocation, one bit each: read, written.
    read: Vec<Vec<u64>>,
    written: Vec<Vec<u64>>,
    pub(crate) l2_read: u64,
    pub(crate) l2_written: u64,
    /// Bytes that lanes asked for.
    pub(crate) asked: u64,
    pub(crate) requests: u64,
    pub(crate) shared_bytes: u64,
    pub(crate) wavefronts: u64,
    pub(crate) ideal_wavefronts: u64,
    pub(crate) bulk_bytes: u64,
    /// Waits by PTX line: how many, and the smallest number of bytes in flight at one.
    pub(crate) waits: BTreeMap<u32, (u64, u64)>,
    /// Bytes issued before `griddepcontrol.wait`.
    pub(crate) before_dependency: u64,
    pub(crate) waiting_for_dependency: bool,
    flying: u64,
    pub(crate) blocks: u64,
    block_bytes: u64,
    pub(crate) max_block_bytes: u64,
}

impl Counters {
    pub(crate) fn new(allocs: usize) -> Self {
        Self {
            read: vec![vec![]; allocs],
            written: vec![vec![]; allocs],
            ..Self::default()
        }
    }

    #[inline]
    pub(crate) fn instruction(&mut self, class: Class, exec: u32) {
        self.warp_insts[class as usize] += 1;
        self.lane_insts[class as usize] += u64::from(exec.count_ones());
    }

    pub(crate) fn mma(&mut self, kind: TensorKind, macs: u64) {
        self.macs[kind as usize] += macs;
    }

    fn moved(&mut self, bytes: u64, write: bool) {
        if write {
            self.l2_written += bytes
        } else {
            self.l2_read += bytes
        }
        self.block_bytes += bytes;
        if self.waiting_for_dependency && !write {
            self.before_dependency += bytes;
        }
    }

    fn touch(&mut self, memory: &Memory, sector: u64, write: bool) {
        let Some((i, off)) = memory.locate(sector * SECTOR, 1) else {
            return;
        };
        let maps = if write {
            &mut self.written
        } else {
            &mut self.read
        };
        let map = &mut maps[i];
        if map.is_empty() {
            map.resize(
                (memory.allocs()[i].len.div_ceil(SECTOR * 64) + 1) as usize,
                0,
            );
        }
        let s = off / SECTOR;
        map[(s / 64) as usize] |= 1 << (s % 64);
    }

    /// One warp access to global memory.
    pub(crate) fn global_access(
        &mut self,
        memory: &Memory,
        addrs: &[u64; 32],
        bytes: u32,
        exec: u32,
        write: bool,
    ) {
        let mut sectors = [0u64; 64];
        let mut n = 0;
        for l in crate::exec::Lane::of(exec) {
            let (first, last) = (
                addrs[l] / SECTOR,
                (addrs[l] + u64::from(bytes) - 1) / SECTOR,
            );
            for s in first..=last {
                if n == 0 || sectors[n - 1] != s {
                    sectors[n.min(63)] = s;
                    n = (n + 1).min(64);
                }
            }
        }
        let list = &mut sectors[..n];
        list.sort_unstable();
        let mut previous = u64::MAX;
        let mut unique = 0;
        for s in list.iter().copied() {
            if s != previous {
                unique += 1;
                previous = s;
                self.touch(memory, s, write);
            }
        }
        self.requests += 1;
        self.asked += u64::from(bytes) * u64::from(exec.count_ones());
        self.moved(unique * SECTOR, write);
    }

    /// One contiguous part of a bulk copy.
    pub(crate) fn bulk(&mut self, memory: &Memory, addr: u64, bytes: u32, write: bool) {
        let (first, last) = (addr / SECTOR, (addr + u64::from(bytes) - 1) / SECTOR);
        for s in first..=last {
            self.touch(memory, s, write);
        }
        self.asked += u64::from(bytes);
        self.bulk_bytes += u64::from(bytes);
        self.moved((last - first + 1) * SECTOR, write);
    }

    /// One warp access to shared memory.
    pub(crate) fn shared_access(&mut self, addrs: &[u64; 32], bytes: u32, exec: u32, _write: bool) {
        let lanes = match bytes {
            16 => 8,
            8 => 16,
            _ => 32,
        };
        for first in (0..32).step_by(lanes) {
            let mut words = [0u32; 64];
            let mut n = 0;
            for (l, addr) in addrs.iter().enumerate().skip(first).take(lanes) {
                if exec >> l & 1 == 1 {
                    for w in 0..bytes.div_ceil(4) {
                        words[n] = (*addr as u32 / 4).wrapping_add(w);
                        n += 1;
                    }
                }
            }
            self.phase(&mut words[..n]);
        }
        self.shared_bytes += u64::from(bytes) * u64::from(exec.count_ones());
    }

    /// Rows of 16 bytes, eight to a phase.
    pub(crate) fn matrix_access(&mut self, rows: &[(usize, u32)]) {
        for phase in rows.chunks(8) {
            let mut words = [0u32; 32];
            for (i, (_, at)) in phase.iter().enumerate() {
                for w in 0..4 {
                    words[4 * i + w] = at / 4 + w as u32;
                }
            }
            self.phase(&mut words[..4 * phase.len()]);
            self.shared_bytes += 16 * phase.len() as u64;
        }
    }

    fn phase(&mut self, words: &mut [u32]) {
        if words.is_empty() {
            return;
        }
        words.sort_unstable();
        let mut banks = [0u8; 32];
        let mut previous = None;
        let mut unique = 0u64;
        for w in words.iter() {
            if previous != Some(*w) {
                banks[(w % 32) as usize] += 1;
                previous = Some(*w);
                unique += 1;
            }
        }
        self.wavefronts += u64::from(banks.iter().copied().max().unwrap_or(0));
        self.ideal_wavefronts += unique.div_ceil(32);
    }

    /// A wait on copy groups with this many bytes issued and not waited for.
    pub(crate) fn wait(&mut self, line: u32, flying: u64) {
        let w = self.waits.entry(line).or_insert((0, u64::MAX));
        *w = (w.0 + 1, w.1.min(flying));
    }

    /// A wait on an mbarrier that does not succeed at once.
    pub(crate) fn mbarrier_wait(&mut self, line: u32) {
        self.wait(line, self.flying);
    }

    pub(crate) fn flying(&mut self, bytes: u64) {
        self.flying += bytes;
    }

    pub(crate) fn landed(&mut self, bytes: u64) {
        self.flying = self.flying.saturating_sub(bytes);
    }

    pub(crate) fn block_begins(&mut self) {
        self.block_bytes = 0;
        self.flying = 0;
    }

    pub(crate) fn block_ends(&mut self, blocks: u64, hops: u32) {
        self.blocks += blocks;
        self.hops = self.hops.max(hops);
        self.max_block_bytes = self.max_block_bytes.max(self.block_bytes / blocks.max(1));
    }

    /// Adds another worker's counters.
    pub(crate) fn add(&mut self, o: &Self) {
        for i in 0..Class::COUNT {
            self.warp_insts[i] += o.warp_insts[i];
            self.lane_insts[i] += o.lane_insts[i];
        }
        for (mine, other) in [(&mut self.read, &o.read), (&mut self.written, &o.written)] {
            for (a, b) in mine.iter_mut().zip(other) {
                if a.len() < b.len() {
                    a.resize(b.len(), 0);
                }
                for (x, y) in a.iter_mut().zip(b) {
                    *x |= y;
                }
            }
        }
        for (mine, other) in self.macs.iter_mut().zip(o.macs) {
            *mine += other;
        }
        self.hops = self.hops.max(o.hops);
        self.l2_read += o.l2_read;
        self.l2_written += o.l2_written;
        self.asked += o.asked;
        self.requests += o.requests;
        self.shared_bytes += o.shared_bytes;
        self.wavefronts += o.wavefronts;
        self.ideal_wavefronts += o.ideal_wavefronts;
        self.bulk_bytes += o.bulk_bytes;
        self.before_dependency += o.before_dependency;
        for (line, (n, least)) in &o.waits {
            let w = self.waits.entry(*line).or_insert((0, u64::MAX));
            *w = (w.0 + n, w.1.min(*least));
        }
        self.blocks += o.blocks;
        self.max_block_bytes = self.max_block_bytes.max(o.max_block_bytes);
    }

    fn unique(maps: &[Vec<u64>]) -> u64 {
        maps.iter()
            .flatten()
            .map(|w| u64::from(w.count_ones()))
            .sum::<u64>()
            * SECTOR
    }

    pub(crate) fn dram_read(&self) -> u64 {
        Self::unique(&self.read)
    }

    pub(crate) fn dram_written(&self) -> u64 {
        Self::unique(&self.written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wavefronts_count_different_words_of_a_bank() {
        let mut c = Counters::new(0);
        c.shared_access(&std::array::from_fn(|l| 4 * l as u64), 4, u32::MAX, false);
        assert_eq!(c.wavefronts, 1);
        c.shared_access(&std::array::from_fn(|l| 128 * l as u64), 4, u32::MAX, false);
        assert_eq!(c.wavefronts, 33);
        c.shared_access(&[64; 32], 4, u32::MAX, false);
        assert_eq!(c.wavefronts, 34);
        c.shared_access(&std::array::from_fn(|l| 16 * l as u64), 16, u32::MAX, false);
        assert_eq!((c.wavefronts, c.ideal_wavefronts), (38, 7));
    }

    #[test]
    fn sectors_are_counted_once_for_dram_and_each_time_for_l2() {
        let mut memory = Memory::new();
        let p = memory.alloc(4096).unwrap();
        let mut c = Counters::new(1);
        let addrs = std::array::from_fn(|l| p.0 + 4 * l as u64);
        c.global_access(&memory, &addrs, 4, u32::MAX, false);
        c.global_access(&memory, &addrs, 4, u32::MAX, false);
        assert_eq!((c.dram_read(), c.l2_read, c.asked), (128, 256, 256));
        c.global_access(
            &memory,
            &addrs.map(|a| p.0 + (a - p.0) * 32),
            4,
            u32::MAX,
            true,
        );
        assert_eq!((c.dram_written(), c.l2_written), (1024, 1024));
    }
}
