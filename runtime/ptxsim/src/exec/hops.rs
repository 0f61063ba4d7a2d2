//! Serialized memory hops: how many global accesses a cluster waits for one after the other.
//!
//! Each warp has a clock that counts round trips to memory. What a load issued at time t brings is
//! there at t + 1; the first instruction that reads one of its registers moves the clock there, as on
//! a machine that issues in order. Asynchronous copies bring the time to whoever waits for them,
//! barriers hand on the latest time of those that arrive. The clock of the last warp at its end is
//! the cluster's number of hops: a kernel cannot end before that many latencies have passed. Stores
//! and the way through shared memory are free, and messages between clusters are not followed.

use std::cell::Cell;

use crate::isa::R;

/// The clock of a warp.
#[derive(Debug, Default)]
pub(crate) struct Hops {
    now: Cell<u32>,
    /// Latest time in `ready`.
    latest: u32,
    /// When each register's load arrives; empty when nothing is counted.
    ready: Vec<u32>,
}

impl Hops {
    /// Starts anew, for this many registers; for none nothing is followed.
    pub(crate) fn reset(&mut self, registers: usize) {
        self.now.set(0);
        self.latest = 0;
        self.ready.clear();
        self.ready.resize(registers, 0);
    }

    pub(crate) fn now(&self) -> u32 {
        self.now.get()
    }

    /// When what is issued now arrives.
    pub(crate) fn arrival(&self) -> u32 {
        self.now() + 1
    }

    /// Waits until `time`.
    pub(crate) fn join(&self, time: u32) {
        self.now.set(self.now().max(time));
    }

    /// A register is read.
    #[inline]
    pub(crate) fn read(&self, r: R) {
        if self.latest > self.now.get() {
            self.stall(r);
        }
    }

    #[cold]
    fn stall(&self, r: R) {
        // Constants have indices beyond every register.
        if let Some(t) = self.ready.get(r as usize) {
            self.join(*t);
        }
    }

    /// A load into this register is issued.
    pub(crate) fn load(&mut self, r: R) {
        let time = self.arrival();
        if let Some(t) = self.ready.get_mut(r as usize) {
            *t = time;
            self.latest = self.latest.max(time);
        }
    }
}
