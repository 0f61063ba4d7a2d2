//! A warp: registers, predicates, and the fragments in which its lanes move.

use std::collections::VecDeque;

use super::copy::CopyGroups;
use super::hops::Hops;
use super::wgmma::InFlight;
use crate::isa::Lanes;

/// What a fragment waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// More lanes must come to the same instruction.
    Converge,
    /// `bar.warp.sync` with this mask.
    Warp { mask: u32 },
    /// Completion of named barrier `id` after generation `gen`.
    Barrier { id: u8, generation: u64 },
    /// Completion of `phase` of the mbarrier at `addr`.
    Mbarrier { addr: u32, phase: u64 },
    /// Completion of a cluster barrier.
    Cluster { phase: u64 },
    /// So many registers of a thread in the block's pool.
    Registers { need: u32 },
}

/// Lanes that stand at one instruction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frag {
    pub(crate) pc: u32,
    pub(crate) mask: u32,
    pub(crate) wait: Option<Wait>,
}

/// One warp of a block.
#[derive(Default)]
pub(crate) struct Warp {
    pub(crate) index: usize,
    pub(crate) regs: Vec<Lanes>,
    /// Lanes that have written each register.
    pub(crate) init: Vec<u32>,
    pub(crate) preds: Vec<u32>,
    pub(crate) pred_init: Vec<u32>,
    pub(crate) carry: u32,
    pub(crate) live: u32,
    pub(crate) frags: Vec<Frag>,
    pub(crate) local: Vec<u8>,
    pub(crate) local_init: Vec<u8>,
    pub(crate) copies: CopyGroups,
    pub(crate) hops: Hops,
    pub(crate) wgmma: InFlight,
    /// Bulk groups: the open one and those committed and not finished, with their operations.
    pub(crate) bulk_open: Vec<u64>,
    pub(crate) bulk_groups: VecDeque<Vec<u64>>,
    pub(crate) cluster_arrived: Option<u64>,
    pub(crate) depended: bool,
    /// Registers of a thread; 0 where `.maxnreg` says nothing.
    pub(crate) held_regs: u32,
    /// Registers written since the last `wgmma.fence`; empty in kernels without `wgmma`.
    pub(crate) dirty: Vec<bool>,
    steps: u32,
}

impl Warp {
    /// Ready for a new block; keeps the buffers.
    pub(crate) fn reset(
        &mut self,
        index: usize,
        lanes: u32,
        regs: usize,
        preds: usize,
        local: usize,
        wgmma: bool,
    ) {
        self.index = index;
        self.regs.resize(regs, [0; 32]);
        self.init.clear();
        self.init.resize(regs, 0);
        self.preds.clear();
        self.preds.resize(preds, 0);
        self.preds[0] = u32::MAX;
        self.pred_init.clear();
        self.pred_init.resize(preds, 0);
        self.pred_init[0] = u32::MAX;
        self.carry = 0;
        self.live = lanes;
        self.frags.clear();
        self.frags.push(Frag {
            pc: 0,
            mask: lanes,
            wait: None,
        });
        self.local.clear();
        self.local.resize(local * 32, 0);
        self.local_init.clear();
        self.local_init.resize(local * 32, 0);
        self.copies = CopyGroups::default();
        self.wgmma = InFlight::default();
        self.bulk_open.clear();
        self.bulk_groups.clear();
        self.cluster_arrived = None;
        self.depended = false;
        self.dirty.clear();
        self.dirty.resize(if wgmma { regs } else { 0 }, true);
        self.steps = 0;
    }

    /// The fragment to run: the one furthest behind, but now and then the one furthest ahead, so that a
    /// loop that waits for other lanes of its own warp ends.
    #[inline]
    pub(crate) fn pick(&mut self) -> Option<usize> {
        if let [f] = &self.frags[..] {
            return f.wait.is_none().then_some(0);
        }
        self.steps = self.steps.wrapping_add(1);
        let ready = self
            .frags
            .iter()
            .enumerate()
            .filter(|(_, f)| f.wait.is_none());
        let ahead = self.steps % 4096 > 3072;
        if ahead {
            ready.max_by_key(|(_, f)| f.pc)
        } else {
            ready.min_by_key(|(_, f)| f.pc)
        }
        .map(|(i, _)| i)
    }

    /// Joins fragments that stand at the same instruction.
    pub(crate) fn merge(&mut self) {
        let mut i = 0;
        while i < self.frags.len() {
            let mut k = i + 1;
            while k < self.frags.len() {
                let joins = |f: &Frag| matches!(f.wait, None | Some(Wait::Converge));
                let (a, b) = (self.frags[i], self.frags[k]);
                if a.pc == b.pc && joins(&a) && joins(&b) {
                    self.frags[i].mask |= b.mask;
                    self.frags[i].wait = None;
                    self.frags.swap_remove(k);
                } else {
                    k += 1;
                }
            }
            i += 1;
        }
    }

    /// Lanes leave; those that waited for them look again.
    pub(crate) fn exit(&mut self, frag: usize, mask: u32) {
        self.live &= !mask;
        self.frags[frag].mask &= !mask;
        self.frags.retain(|f| f.mask != 0);
        for f in &mut self.frags {
            if f.wait == Some(Wait::Converge) {
                f.wait = None;
            }
        }
        self.release_warp_sync();
    }

    /// Releases `bar.warp.sync` fragments whose members have all come.
    pub(crate) fn release_warp_sync(&mut self) -> Option<u32> {
        for i in 0..self.frags.len() {
            let Some(Wait::Warp { mask }) = self.frags[i].wait else {
                continue;
            };
            let same = |f: &Frag| f.wait == Some(Wait::Warp { mask });
            let come = self
                .frags
                .iter()
                .filter(|f| same(f))
                .fold(0, |m, f| m | f.mask);
            if mask & self.live & !come == 0 {
                for f in &mut self.frags {
                    if same(f) {
                        f.wait = None;
                        f.pc += 1;
                    }
                }
                self.merge();
                return Some(come);
            }
        }
        None
    }
}
