//! Shadow of global memory over all clusters of a launch, and the variables they synchronize through.

use std::collections::HashMap;

use super::clock::Clock;
use super::shadow::Stamp;
use crate::exec::Machine;
use crate::isa::memory::Scope;

/// Grains of one page.
const PAGE: u64 = 1024;

/// A stamp of a cluster.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct GlobalStamp {
    pub(crate) unit: u64,
    pub(crate) stamp: Stamp,
}

/// Last write and the two latest unordered reads of a grain.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct GlobalCell {
    pub(crate) write: GlobalStamp,
    pub(crate) reads: [GlobalStamp; 2],
}

/// What was released to a variable.
#[derive(Clone, Debug)]
pub(crate) struct Released {
    pub(crate) unit: u64,
    pub(crate) scope: Scope,
    pub(crate) clock: Clock,
}

/// Shadow of global memory; it travels from cluster to cluster.
#[derive(Debug, Default)]
pub(crate) struct GlobalShadow {
    pub(crate) grain: u32,
    pages: Vec<Box<[GlobalCell]>>,
    places: HashMap<u64, usize>,
    /// The page of the last access and its place: the next is mostly on the same.
    last: Option<(u64, usize)>,
    pub(crate) sync: HashMap<u64, Vec<Released>>,
}

impl GlobalShadow {
    pub(crate) fn new(m: &Machine<'_>) -> Self {
        Self {
            grain: m.program.global_grain,
            ..Self::default()
        }
    }

    pub(crate) fn cell(&mut self, grain: u64) -> &mut GlobalCell {
        let id = grain / PAGE;
        let place = match self.last {
            Some((last, place)) if last == id => place,
            _ => self.turn_to(id),
        };
        &mut self.pages[place][(grain % PAGE) as usize]
    }

    fn turn_to(&mut self, id: u64) -> usize {
        let place = *self.places.entry(id).or_insert_with(|| {
            let page = vec![GlobalCell::default(); PAGE as usize];
            self.pages.push(page.into_boxed_slice());
            self.pages.len() - 1
        });
        self.last = Some((id, place));
        place
    }
}
