//! Execution: grids of clusters of blocks of warps.
//!
//! The unit of scheduling is a cluster (one block when there is none). Its warps take turns; a warp
//! executes one instruction for all lanes that stand at it. Lanes that took different branches form
//! fragments, the one furthest behind runs first, and fragments that meet at an instruction join.

mod atom;
mod barrier;
mod bulk;
mod copy;
mod grid;
mod hops;
mod matrix;
mod mbarrier;
mod memory;
mod mma;
mod quick;
mod setup;
mod shared;
mod special;
mod step;
mod tensormap;
mod unit;
mod warp;
mod warpops;
mod wgmma;

pub use grid::Simulator;
pub use tensormap::{ElementType, OobFill, Swizzle, TensorMap, TensorMapError};

pub(crate) use memory::Place;

use crate::check::Race;
use crate::count::Counters;
use crate::fault::{Fault, FaultKind};
use crate::isa::program::Program;
use crate::isa::{CONST, Inst, Lanes, P, PSrc, R};
use crate::launch::{Launch, Options};
use crate::memory::Memory;
use shared::SharedMem;
use unit::Unit;
use warp::Warp;

/// Result of anything a kernel can get wrong; faults are rare and large, so they are boxed.
pub(crate) type Res<T> = Result<T, Box<Fault>>;

/// What all blocks of a launch share and nobody changes.
pub(crate) struct Machine<'a> {
    pub(crate) program: &'a Program,
    /// Constants with the addresses of module variables filled in.
    pub(crate) consts: Vec<Lanes>,
    pub(crate) memory: &'a Memory,
    pub(crate) params: Vec<u8>,
    pub(crate) launch: &'a Launch,
    pub(crate) cluster: [u32; 3],
    pub(crate) options: &'a Options,
    /// Shared memory of a block ends at this address.
    pub(crate) shared_end: u32,
    pub(crate) warps: usize,
}

/// One block.
pub(crate) struct Cta {
    pub(crate) id: [u32; 3],
    pub(crate) shared: SharedMem,
    pub(crate) warps: Vec<Warp>,
    pub(crate) bars: [barrier::Named; 16],
    /// Registers that `setmaxnreg.dec` gave back, for each thread of a warp.
    pub(crate) spare_regs: u32,
    pub(crate) mbars: std::collections::BTreeMap<u32, mbarrier::Mbarrier>,
}

/// Everything one warp needs to execute: itself is taken out of its block meanwhile.
pub(crate) struct Ctx<'c, 'm> {
    pub(crate) m: &'c Machine<'m>,
    pub(crate) unit: &'c mut Unit,
    /// Rank of the block in its cluster.
    pub(crate) rank: usize,
    pub(crate) w: &'c mut Warp,
    pub(crate) line: u32,
}

impl Ctx<'_, '_> {
    #[inline]
    pub(crate) fn src(&self, r: R) -> &Lanes {
        if r & CONST != 0 {
            &self.m.consts[(r & !CONST) as usize]
        } else {
            &self.w.regs[r as usize]
        }
    }

    pub(crate) fn psrc(&self, p: PSrc) -> u32 {
        let v = self.w.preds[p.p as usize];
        if p.neg { !v } else { v }
    }

    pub(crate) fn set(&mut self, r: R, lanes: &Lanes, mask: u32) {
        let d = &mut self.w.regs[r as usize];
        if mask == u32::MAX {
            *d = *lanes;
        } else {
            for l in Lane::of(mask) {
                d[l] = lanes[l];
            }
        }
        self.w.init[r as usize] |= mask;
        self.touch(r);
    }

    /// Remembers a write for the rule of `wgmma.fence`.
    #[inline]
    pub(crate) fn touch(&mut self, r: R) {
        if let Some(d) = self.w.dirty.get_mut(r as usize) {
            *d = true;
        }
    }

    pub(crate) fn set_pred(&mut self, p: P, bits: u32, mask: u32) {
        if p != 0 {
            let d = &mut self.w.preds[p as usize];
            *d = *d & !mask | bits & mask;
            self.w.pred_init[p as usize] |= mask;
        }
    }

    pub(crate) fn cta(&mut self) -> &mut Cta {
        &mut self.unit.ctas[self.rank]
    }

    pub(crate) fn counters(&mut self) -> Option<&mut Counters> {
        self.unit.counters.as_deref_mut()
    }

    pub(crate) fn race(&mut self) -> Option<&mut Race> {
        self.unit.race.as_deref_mut()
    }

    /// A fault of this instruction, by `lane` when one is to blame.
    pub(crate) fn fault<T>(
        &self,
        kind: FaultKind,
        lane: Option<usize>,
        message: impl Into<String>,
    ) -> Res<T> {
        Err(Box::new(Fault {
            kind,
            message: message.into(),
            kernel: self.m.program.name.clone(),
            line: self.line,
            block: self.unit.ctas[self.rank].id,
            note: None,
            thread: lane.map(|l| self.m.thread(self.w.index, l)),
        }))
    }

    /// All lanes of `mask` must have written `r`.
    #[inline]
    pub(crate) fn check_init(&self, r: R, mask: u32) -> Res<()> {
        self.w.hops.read(r);
        if r & CONST != 0 || self.w.init[r as usize] & mask == mask {
            return Ok(());
        }
        self.uninit_register(r, mask)
    }

    #[cold]
    fn uninit_register(&self, r: R, mask: u32) -> Res<()> {
        if self.in_flight(r) {
            let text = format!(
                "accumulator `{}` is read before wgmma.wait_group",
                self.m.program.reg_names[r as usize]
            );
            return self.fault(FaultKind::WgmmaOrder, None, text);
        }
        if !self.m.options.uninit {
            return Ok(());
        }
        let missing = mask & !self.w.init[r as usize];
        let lane = missing.trailing_zeros() as usize;
        let name = &self.m.program.reg_names[r as usize];
        self.fault(
            FaultKind::Uninitialized,
            Some(lane),
            format!("register `{name}` is read before it was written"),
        )
    }

    /// A value that must be the same in all lanes of `mask`.
    pub(crate) fn uniform(&self, r: R, mask: u32, what: &str) -> Res<u64> {
        self.check_init(r, mask)?;
        let v = self.src(r);
        let first = mask.trailing_zeros() as usize;
        match Lane::of(mask).find(|l| v[*l] != v[first]) {
            None => Ok(v[first]),
            Some(l) => {
                let text = format!(
                    "{what} differs between lanes: {:#x} and {:#x}",
                    v[first], v[l]
                );
                self.fault(FaultKind::Operand, Some(l), text)
            }
        }
    }
}

impl Machine<'_> {
    pub(crate) fn inst(&self, pc: u32) -> &Inst {
        &self.program.insts[pc as usize]
    }

    /// Thread coordinates of a lane of a warp.
    pub(crate) fn thread(&self, warp: usize, lane: usize) -> [u32; 3] {
        let [x, y, _] = self.launch.block;
        let t = (warp * 32 + lane) as u32;
        [t % x, t / x % y, t / (x * y)]
    }
}

/// Iteration over the set lanes of a mask.
pub(crate) struct Lane(u32);

impl Lane {
    #[inline]
    pub(crate) fn of(mask: u32) -> Self {
        Self(mask)
    }
}

impl Iterator for Lane {
    type Item = usize;
    #[inline]
    fn next(&mut self) -> Option<usize> {
        if self.0 == 0 {
            return None;
        }
        let l = self.0.trailing_zeros() as usize;
        self.0 &= self.0 - 1;
        Some(l)
    }
}
