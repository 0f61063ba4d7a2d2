//! A whole launch: clusters one after the other, or in turns where blocks talk to each other.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::barrier::{ClusterBarrier, Named};
use super::setup;
use super::shared::SharedMem;
use super::unit::{Schedule, Turn, Unit};
use super::warp::Warp;
use super::{Cta, Machine};
use crate::Module;
use crate::check::{GlobalShadow, Race};
use crate::count::Counters;
use crate::fault::{Fault, FaultKind};
use crate::launch::{Launch, Options};
use crate::memory::Memory;
use crate::report::Report;

/// Warp instructions of one turn where blocks run in turns.
const TURN: u64 = 20_000;

/// Executes kernels.
#[derive(Clone, Debug, Default)]
pub struct Simulator {
    options: Options,
}

impl Simulator {
    /// A simulator with these options.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self { options }
    }

    /// Its options.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Runs one kernel to its end.
    ///
    /// Comments `//@ text` in the PTX name what follows; a fault carries the one above its line.
    ///
    /// # Errors
    /// The first fault, in block order.
    pub fn launch(
        &self,
        module: &Module,
        entry: &str,
        launch: &Launch,
        memory: &mut Memory,
    ) -> Result<Report, Box<Fault>> {
        self.execute(module, entry, launch, memory)
            .map_err(|mut fault| {
                fault.note = if fault.line > 0 {
                    module.note(fault.line)
                } else {
                    None
                };
                fault
            })
    }

    fn execute(
        &self,
        module: &Module,
        entry: &str,
        launch: &Launch,
        memory: &mut Memory,
    ) -> Result<Report, Box<Fault>> {
        let Some(program) = module.program(entry) else {
            return Err(Box::new(Fault {
                kind: FaultKind::Launch,
                message: format!(
                    "the module has no entry `{entry}`; it has {:?}",
                    module.entries()
                ),
                kernel: entry.into(),
                line: 0,
                block: [0; 3],
                note: None,
                thread: None,
            }));
        };
        setup::place_variables(program, module.id(), module.variables(), memory)?;
        let addresses = memory
            .variables
            .get(&module.id())
            .cloned()
            .unwrap_or_default();
        let m = setup::machine(program, &addresses, launch, &self.options, memory)?;
        let clusters: u64 = (0..3)
            .map(|i| u64::from(launch.grid[i] / m.cluster[i]))
            .product();
        let counters = if program.communicates {
            take_turns(&m, clusters)?
        } else {
            one_by_one(&m, clusters, self.options.threads.max(1))?
        };
        Ok(Report::new(&m, module.target(), counters))
    }
}

/// A worker's reusable cluster.
fn blank(m: &Machine<'_>) -> Unit {
    let blocks: u32 = m.cluster.iter().product();
    let ctas = (0..blocks)
        .map(|_| Cta {
            id: [0; 3],
            shared: SharedMem::default(),
            warps: (0..m.warps).map(|_| Warp::default()).collect(),
            bars: std::array::from_fn(|_| Named::default()),
            spare_regs: 0,
            mbars: Default::default(),
        })
        .collect();
    Unit {
        index: 0,
        ctas,
        cluster_barrier: ClusterBarrier::default(),
        counters: None,
        race: None,
        last_alloc: 0,
        clock: 0,
        spurious: false,
        schedule: Schedule::Early,
        rng: 1,
        copies: Default::default(),
        next_copy: 0,
        executed: 0,
    }
}

/// Fits a cluster for its place in the grid.
fn begin(m: &Machine<'_>, unit: &mut Unit, index: u64) {
    let n: [u64; 3] = std::array::from_fn(|i| u64::from(m.launch.grid[i] / m.cluster[i]));
    let at = [index % n[0], index / n[0] % n[1], index / (n[0] * n[1])];
    unit.index = index;
    unit.cluster_barrier = ClusterBarrier::default();
    unit.clock = 0;
    unit.executed = 0;
    unit.spurious = false;
    unit.schedule = match m.options.schedule_seed {
        0 => Schedule::Early,
        1 => Schedule::Late,
        _ => Schedule::Random,
    };
    unit.rng = (m.options.schedule_seed ^ index.wrapping_mul(0x9e37_79b9_7f4a_7c15))
        .wrapping_mul(0xd134_2543_de82_ef95)
        | 1;
    unit.copies.clear();
    let threads: u32 = m.launch.block.iter().product();
    let [cx, cy, _] = m.cluster;
    for (rank, cta) in unit.ctas.iter_mut().enumerate() {
        let r = rank as u32;
        let inside = [r % cx, r / cx % cy, r / (cx * cy)];
        cta.id = std::array::from_fn(|i| at[i] as u32 * m.cluster[i] + inside[i]);
        cta.shared.reset(m.shared_end);
        cta.bars.iter_mut().for_each(|b| *b = Named::default());
        cta.mbars.clear();
        cta.spare_regs = 0;
        for (i, w) in cta.warps.iter_mut().enumerate() {
            let have = threads - (i as u32 * 32).min(threads);
            let lanes = if have >= 32 {
                u32::MAX
            } else {
                (1 << have) - 1
            };
            let p = m.program;
            w.reset(
                i,
                lanes,
                p.reg_names.len(),
                p.num_preds,
                p.local_bytes as usize,
                p.wgmma,
            );
            let followed = if m.options.count {
                p.reg_names.len()
            } else {
                0
            };
            w.hops.reset(followed);
            w.held_regs = p.max_regs.unwrap_or(0);
        }
    }
    if let Some(r) = unit.race.as_deref_mut() {
        r.begin(index, &unit.ctas);
    }
    if let Some(c) = unit.counters.as_deref_mut() {
        c.block_begins();
    }
}

fn equip(m: &Machine<'_>, unit: &mut Unit, shadow: GlobalShadow) {
    if m.options.races {
        unit.race = Some(Box::new(Race::new(m, shadow)));
    }
    if m.options.count {
        unit.counters = Some(Box::new(Counters::new(m.memory.allocs().len())));
    }
}

fn end(unit: &mut Unit, blocks: u64) {
    if let Some(c) = unit.counters.as_deref_mut() {
        let warps = unit.ctas.iter().flat_map(|c| &c.warps);
        c.block_ends(blocks, warps.map(|w| w.hops.now()).max().unwrap_or(0));
    }
}

/// Clusters that do not communicate, spread over threads. Faults and counters do not depend on their
/// number: the fault of the lowest cluster wins, and counters are sums. With race checks one thread does
/// all, because clusters are then compared with each other.
fn one_by_one(
    m: &Machine<'_>,
    clusters: u64,
    threads: usize,
) -> Result<Option<Box<Counters>>, Box<Fault>> {
    let next = AtomicU64::new(0);
    let worst: Mutex<Option<(u64, Box<Fault>)>> = Mutex::new(None);
    let stop = AtomicU64::new(u64::MAX);
    let blocks = m.cluster.iter().map(|c| u64::from(*c)).product();
    let work = || -> Option<Box<Counters>> {
        let mut unit = blank(m);
        equip(m, &mut unit, GlobalShadow::new(m));
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= clusters || index > stop.load(Ordering::Relaxed) {
                return unit.counters.take();
            }
            begin(m, &mut unit, index);
            if let Err(fault) = unit.turn(m, u64::MAX) {
                stop.fetch_min(index, Ordering::Relaxed);
                let mut worst = worst.lock().unwrap_or_else(PoisonError::into_inner);
                if worst.as_ref().is_none_or(|(i, _)| index < *i) {
                    *worst = Some((index, fault));
                }
                return None;
            }
            end(&mut unit, blocks);
        }
    };
    let alone = m.options.races || threads == 1 || clusters == 1;
    let parts: Vec<Option<Box<Counters>>> = if alone {
        vec![work()]
    } else {
        std::thread::scope(|s| {
            let handles: Vec<_> = (0..threads).map(|_| s.spawn(work)).collect();
            handles
                .into_iter()
                .map(|h| h.join().unwrap_or(None))
                .collect()
        })
    };
    if let Some((_, fault)) = worst.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(fault);
    }
    let mut total: Option<Box<Counters>> = None;
    for counters in parts.into_iter().flatten() {
        match &mut total {
            Some(t) => t.add(&counters),
            None => total = Some(counters),
        }
    }
    Ok(total)
}

/// Clusters that may wait for each other: the first runs until its budget is spent, then the next joins.
fn take_turns(m: &Machine<'_>, clusters: u64) -> Result<Option<Box<Counters>>, Box<Fault>> {
    let blocks = m.cluster.iter().map(|c| u64::from(*c)).product();
    let mut active: Vec<Unit> = Vec::new();
    let mut spare: Vec<Unit> = Vec::new();
    let mut shadow = Some(GlobalShadow::new(m));
    let mut next = 0;
    let mut at = 0;
    let mut totals: Option<Box<Counters>> = None;
    while next < clusters || !active.is_empty() {
        if at >= active.len() {
            at = 0;
            if next < clusters {
                let mut unit = spare.pop().unwrap_or_else(|| {
                    let mut unit = blank(m);
                    equip(m, &mut unit, GlobalShadow::new(m));
                    unit
                });
                begin(m, &mut unit, next);
                next += 1;
                at = active.len();
                active.push(unit);
            }
        }
        let unit = &mut active[at];
        if let (Some(r), Some(s)) = (unit.race.as_deref_mut(), shadow.take()) {
            r.lend(s);
        }
        let turn = unit.turn(m, TURN);
        shadow = unit.race.as_deref_mut().map(Race::give_back);
        match turn? {
            Turn::Paused => at += 1,
            Turn::Finished => {
                let mut unit = active.remove(at);
                end(&mut unit, blocks);
                spare.push(unit);
            }
        }
    }
    for unit in &mut spare {
        if let Some(c) = unit.counters.take() {
            match &mut totals {
                Some(t) => t.add(&c),
                None => totals = Some(c),
            }
        }
    }
    Ok(totals)
}
