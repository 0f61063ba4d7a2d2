//! Special registers (PTX ISA §10).

use super::Ctx;
use crate::isa::{Lanes, Special};

impl Ctx<'_, '_> {
    /// The value of a special register in every lane.
    pub(crate) fn special(&self, sr: Special) -> Lanes {
        let m = self.m;
        let id = self.unit.ctas[self.rank].id;
        let each = |f: &dyn Fn(usize) -> u32| std::array::from_fn(|l| u64::from(f(l)));
        let all = |v: u32| [u64::from(v); 32];
        let (grid, cluster) = (m.launch.grid, m.cluster);
        let i = |a: u8| a as usize;
        match sr {
            Special::Tid(a) => each(&|l| m.thread(self.w.index, l)[i(a)]),
            Special::Ntid(a) => all(m.launch.block[i(a)]),
            Special::Ctaid(a) => all(id[i(a)]),
            Special::Nctaid(a) => all(grid[i(a)]),
            Special::ClusterId(a) => all(id[i(a)] / cluster[i(a)]),
            Special::NclusterId(a) => all(grid[i(a)] / cluster[i(a)]),
            Special::ClusterCtaid(a) => all(id[i(a)] % cluster[i(a)]),
            Special::ClusterNctaid(a) => all(cluster[i(a)]),
            Special::ClusterCtarank => all(self.rank as u32),
            Special::ClusterNctarank => all(cluster.iter().product()),
            Special::Laneid => each(&|l| l as u32),
            Special::Warpid => all(self.w.index as u32),
            Special::Nwarpid => all(m.warps as u32),
            Special::Smid => all((self.unit.index % u64::from(m.options.sms)) as u32),
            Special::Nsmid => all(m.options.sms),
            Special::Gridid => all(1),
            Special::LanemaskEq => each(&|l| 1 << l),
            Special::LanemaskLe => each(&|l| u32::MAX >> (31 - l)),
            Special::LanemaskLt => each(&|l| (1 << l) - 1),
            Special::LanemaskGe => each(&|l| u32::MAX << l),
            Special::LanemaskGt => each(&|l| (u32::MAX << l) ^ 1 << l),
            Special::Clock | Special::GlobalTimer => [self.unit.clock; 32],
            Special::DynamicSmem => all(m.launch.shared_bytes),
            Special::TotalSmem => all(m.shared_end - crate::isa::program::SHARED_START),
        }
    }
}
