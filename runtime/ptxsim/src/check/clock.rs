//! Vector clocks whose entries tell lanes apart.

use std::collections::BTreeMap;

/// Knowledge of one agent: all lanes below `epoch`, and the lanes of `mask` in `epoch` itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) epoch: u32,
    pub(crate) mask: u32,
}

impl Entry {
    pub(crate) fn knows(self, epoch: u32, lane: u8) -> bool {
        epoch < self.epoch || epoch == self.epoch && self.mask >> lane & 1 == 1
    }

    fn join(&mut self, other: Self) {
        match self.epoch.cmp(&other.epoch) {
            std::cmp::Ordering::Less => *self = other,
            std::cmp::Ordering::Equal => self.mask |= other.mask,
            std::cmp::Ordering::Greater => {}
        }
    }
}

fn join_all(a: &mut Vec<Entry>, b: &[Entry]) {
    if a.len() < b.len() {
        a.resize(b.len(), Entry::default());
    }
    for (x, y) in a.iter_mut().zip(b) {
        x.join(*y);
    }
}

/// What a thread knows: of every agent of its cluster, what of that passed a proxy fence, and of other
/// clusters.
#[derive(Clone, Debug, Default)]
pub(crate) struct Clock {
    pub(crate) seen: Vec<Entry>,
    pub(crate) proxied: Vec<Entry>,
    pub(crate) foreign: BTreeMap<u64, Vec<Entry>>,
}

impl Clock {
    pub(crate) fn join(&mut self, other: &Self) {
        join_all(&mut self.seen, &other.seen);
        join_all(&mut self.proxied, &other.proxied);
        self.join_foreign(other);
    }

    fn join_foreign(&mut self, other: &Self) {
        for (unit, seen) in &other.foreign {
            join_all(self.foreign.entry(*unit).or_default(), seen);
        }
    }

    /// Joins the clock of another cluster.
    pub(crate) fn join_from(&mut self, unit: u64, other: &Self) {
        join_all(self.foreign.entry(unit).or_default(), &other.seen);
        self.join_foreign(other);
    }

    pub(crate) fn learn(&mut self, agent: usize, entry: Entry) {
        if self.seen.len() <= agent {
            self.seen.resize(agent + 1, Entry::default());
        }
        self.seen[agent].join(entry);
    }

    pub(crate) fn entry(&self, agent: usize, proxied: bool) -> Entry {
        let list = if proxied { &self.proxied } else { &self.seen };
        list.get(agent).copied().unwrap_or_default()
    }

    /// Everything seen has passed the proxy fence.
    pub(crate) fn pass_proxy(&mut self) {
        let seen = std::mem::take(&mut self.seen);
        join_all(&mut self.proxied, &seen);
        self.seen = seen;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_keep_lanes_of_the_newest_epoch() {
        let mut a = Entry { epoch: 3, mask: 1 };
        a.join(Entry { epoch: 3, mask: 4 });
        assert!(a.knows(2, 9) && a.knows(3, 2) && !a.knows(3, 1));
        a.join(Entry { epoch: 4, mask: 0 });
        assert!(a.knows(3, 1) && !a.knows(4, 0));
    }
}
