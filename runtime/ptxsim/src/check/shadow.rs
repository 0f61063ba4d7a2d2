//! Last write and unordered reads of each grain of shared memory.

/// Who touched a grain: agent, its epoch, the lane, and the PTX line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) agent: u16,
    pub(crate) lane: u8,
    pub(crate) flags: u8,
    pub(crate) epoch: u32,
    pub(crate) line: u32,
}

pub(crate) const VALID: u8 = 1;
pub(crate) const ATOMIC: u8 = 2;
/// Complete only once it was waited for.
pub(crate) const ASYNC: u8 = 4;
/// Through the async proxy; `cp.async` is asynchronous but goes through the generic one.
pub(crate) const PROXY: u8 = 8;

impl Stamp {
    pub(crate) fn valid(self) -> bool {
        self.flags & VALID != 0
    }

    pub(crate) fn atomic(self) -> bool {
        self.flags & ATOMIC != 0
    }

    pub(crate) fn proxy(self) -> bool {
        self.flags & PROXY != 0
    }

    pub(crate) fn asynchronous(self) -> bool {
        self.flags & ASYNC != 0
    }
}

/// State of one grain.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cell {
    pub(crate) write: Stamp,
    pub(crate) read: Stamp,
    /// Index plus one of a longer list of reads.
    pub(crate) more: u32,
}

/// Grains of one block's shared memory.
#[derive(Debug, Default)]
pub(crate) struct SharedShadow {
    cells: Vec<Cell>,
    lists: Vec<Vec<Stamp>>,
}

impl SharedShadow {
    pub(crate) fn reset(&mut self, grains: usize) {
        self.cells.clear();
        self.cells.resize(grains, Cell::default());
        self.lists.clear();
    }

    pub(crate) fn cell(&self, i: usize) -> Cell {
        self.cells.get(i).copied().unwrap_or_default()
    }

    /// Reads that no write has followed.
    pub(crate) fn reads(&self, i: usize) -> impl Iterator<Item = Stamp> + '_ {
        let cell = self.cell(i);
        let list: &[Stamp] = match cell.more {
            0 => &[],
            n => &self.lists[n as usize - 1],
        };
        Some(cell.read)
            .into_iter()
            .filter(|r| r.valid())
            .chain(list.iter().copied())
    }

    /// Adds a read; earlier ones that `ordered` accepts may be forgotten.
    pub(crate) fn add_read(&mut self, i: usize, stamp: Stamp, ordered: impl Fn(Stamp) -> bool) {
        let Some(cell) = self.cells.get_mut(i) else {
            return;
        };
        let same =
            |r: &Stamp| r.agent == stamp.agent && r.epoch == stamp.epoch && r.lane == stamp.lane;
        if !cell.read.valid() || same(&cell.read) || ordered(cell.read) {
            cell.read = stamp;
            return;
        }
        if cell.more == 0 {
            self.lists.push(Vec::new());
            cell.more = self.lists.len() as u32;
        }
        let list = &mut self.lists[cell.more as usize - 1];
        if let Some(r) = list.iter_mut().find(|r| same(r)) {
            *r = stamp;
            return;
        }
        // Judging all for each new one would be quadratic: only when they fill their memory, of
        // which half is free after.
        if list.len() == list.capacity() {
            list.retain(|r| !ordered(*r));
            if list.len() >= list.capacity() / 2 {
                list.reserve(list.capacity().max(8));
            }
        }
        list.push(stamp);
    }

    pub(crate) fn set_write(&mut self, i: usize, stamp: Stamp) {
        let Some(cell) = self.cells.get_mut(i) else {
            return;
        };
        cell.write = stamp;
        cell.read = Stamp::default();
        if cell.more != 0 {
            self.lists[cell.more as usize - 1].clear();
        }
    }
}
