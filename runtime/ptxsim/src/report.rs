//! The result of a launch as numbers, text and JSON.

use std::fmt;

use crate::count::Counters;
use crate::exec::Machine;
use crate::isa::Class;
use crate::isa::program::SHARED_START;
use crate::isa::tensor::TensorKind;
use crate::time::Prediction;

/// Waits on copies at one PTX line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// PTX line.
    pub line: u32,
    /// Waits of warps that had to wait.
    pub count: u64,
    /// Smallest number of bytes in flight when one began.
    pub least_in_flight: u64,
}

/// What a launch did; all zero when counting was off.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// Kernel.
    pub kernel: String,
    /// `.target` of its module.
    pub target: String,
    /// Threads of a block.
    pub threads: u32,
    /// Static and dynamic shared memory of a block, in bytes.
    pub block_shared: u32,
    /// Registers of a thread that `.maxnreg` allows; 0 when it says nothing.
    pub max_regs: u32,
    /// Has a `griddepcontrol.wait`, so it can overlap the kernel before.
    pub dependent: bool,
    /// Blocks executed.
    pub blocks: u64,
    /// Rounds that `sms` multiprocessors need for the blocks, one block on each at a time.
    pub waves: u64,
    /// Warp instructions by class, in the order of [`Class::NAMES`].
    pub warp_instructions: [u64; Class::COUNT],
    /// Lane instructions by class.
    pub lane_instructions: [u64; Class::COUNT],
    /// Multiply-adds of tensor instructions.
    pub tensor_macs: u64,
    /// Multiply-adds by format, in the order of [`TensorKind::NAMES`].
    pub tensor_macs_by_kind: [u64; TensorKind::COUNT],
    /// Global accesses, one after the other, that the slowest cluster waits for: loads whose result
    /// is needed for the next one, and waits on copies.
    pub hops: u32,
    /// Bytes of different 32-byte sectors read.
    pub dram_read: u64,
    /// Bytes of different 32-byte sectors written.
    pub dram_written: u64,
    /// Bytes of sectors moved from L2 to the multiprocessors, request by request.
    pub l2_read: u64,
    /// Bytes of sectors moved to L2.
    pub l2_written: u64,
    /// Bytes that threads and bulk copies asked for.
    pub requested: u64,
    /// Bytes moved by bulk copies.
    pub bulk_bytes: u64,
    /// Bytes of shared memory accesses by instructions.
    pub shared_bytes: u64,
    /// Shared memory wavefronts.
    pub wavefronts: u64,
    /// Wavefronts without any bank conflict.
    pub ideal_wavefronts: u64,
    /// Waits on copies by PTX line.
    pub waits: Vec<Wait>,
    /// Bytes read from L2 by warps before their `griddepcontrol.wait`.
    pub before_dependency: u64,
    /// Most bytes that one block moved from and to L2.
    pub max_block_bytes: u64,
}

impl Report {
    pub(crate) fn new(m: &Machine<'_>, target: &str, counters: Option<Box<Counters>>) -> Self {
        let blocks: u64 = m.launch.grid.iter().map(|g| u64::from(*g)).product();
        let mut out = Self {
            kernel: m.program.name.clone(),
            target: target.into(),
            threads: m.launch.block.iter().product(),
            block_shared: m.shared_end.saturating_sub(SHARED_START),
            max_regs: m.program.max_regs.unwrap_or(0),
            dependent: m.program.depends,
            blocks,
            waves: blocks.div_ceil(u64::from(m.options.sms.max(1))),
            ..Self::default()
        };
        if let Some(c) = counters {
            out.warp_instructions = c.warp_insts;
            out.lane_instructions = c.lane_insts;
            out.tensor_macs = c.macs.iter().sum();
            out.tensor_macs_by_kind = c.macs;
            out.hops = c.hops;
            (out.dram_read, out.dram_written) = (c.dram_read(), c.dram_written());
            (out.l2_read, out.l2_written) = (c.l2_read, c.l2_written);
            (out.requested, out.bulk_bytes) = (c.asked, c.bulk_bytes);
            (out.shared_bytes, out.wavefronts, out.ideal_wavefronts) =
                (c.shared_bytes, c.wavefronts, c.ideal_wavefronts);
            out.waits = c
                .waits
                .iter()
                .map(|(line, (count, least))| Wait {
                    line: *line,
                    count: *count,
                    least_in_flight: *least,
                })
                .collect();
            out.before_dependency = c.before_dependency;
            out.max_block_bytes = c.max_block_bytes;
        }
        out
    }

    /// Warp instructions in all.
    #[must_use]
    pub fn total_warp_instructions(&self) -> u64 {
        self.warp_instructions.iter().sum()
    }

    /// Requested bytes over bytes moved between L2 and the multiprocessors; 1 is perfect coalescing.
    #[must_use]
    pub fn coalescing(&self) -> f64 {
        let moved = self.l2_read + self.l2_written;
        if moved == 0 {
            1.0
        } else {
            self.requested as f64 / moved as f64
        }
    }

    /// Shared memory wavefronts per KiB; 8 is the least for full-width accesses.
    #[must_use]
    pub fn wavefronts_per_kib(&self) -> f64 {
        if self.shared_bytes == 0 {
            0.0
        } else {
            self.wavefronts as f64 * 1024.0 / self.shared_bytes as f64
        }
    }

    /// Mean bytes that a block moved from and to L2.
    #[must_use]
    pub fn mean_block_bytes(&self) -> f64 {
        (self.l2_read + self.l2_written) as f64 / self.blocks.max(1) as f64
    }

    fn numbers(&self) -> Vec<(&'static str, String)> {
        let n = |v: u64| v.to_string();
        vec![
            ("blocks", n(self.blocks)),
            ("waves", n(self.waves)),
            ("warp_instructions", n(self.total_warp_instructions())),
            ("lane_instructions", n(self.lane_instructions.iter().sum())),
            ("tensor_macs", n(self.tensor_macs)),
            ("hops", n(self.hops.into())),
            ("dram_read", n(self.dram_read)),
            ("dram_written", n(self.dram_written)),
            ("l2_read", n(self.l2_read)),
            ("l2_written", n(self.l2_written)),
            ("requested", n(self.requested)),
            ("coalescing", format!("{:.4}", self.coalescing())),
            ("bulk_bytes", n(self.bulk_bytes)),
            ("shared_bytes", n(self.shared_bytes)),
            ("wavefronts", n(self.wavefronts)),
            ("ideal_wavefronts", n(self.ideal_wavefronts)),
            (
                "wavefronts_per_kib",
                format!("{:.3}", self.wavefronts_per_kib()),
            ),
            ("before_dependency", n(self.before_dependency)),
            ("max_block_bytes", n(self.max_block_bytes)),
            (
                "mean_block_bytes",
                format!("{:.1}", self.mean_block_bytes()),
            ),
        ]
    }

    /// One JSON object.
    #[must_use]
    pub fn to_json(&self) -> String {
        let kernel: String = self.kernel.chars().flat_map(char::escape_default).collect();
        let waits: Vec<String> = self
            .waits
            .iter()
            .map(|w| {
                format!(
                    "{{\"line\":{},\"count\":{},\"least_in_flight\":{}}}",
                    w.line, w.count, w.least_in_flight
                )
            })
            .collect();
        let numbers: Vec<String> = self
            .numbers()
            .iter()
            .map(|(k, v)| format!("\"{k}\":{v}"))
            .collect();
        let times: Vec<String> = self.predict().iter().map(Prediction::to_json).collect();
        format!(
            "{{\"kernel\":\"{kernel}\",{},\"waits\":[{}],\"by_class\":{{{}}},\"macs\":{{{}}},\"predicted\":[{}]}}",
            numbers.join(","),
            waits.join(","),
            named(&Class::NAMES, &self.warp_instructions),
            named(&TensorKind::NAMES, &self.tensor_macs_by_kind),
            times.join(",")
        )
    }
}

/// Members of a JSON object.
fn named(names: &[&str], numbers: &[u64]) -> String {
    let parts: Vec<String> = names
        .iter()
        .zip(numbers)
        .map(|(k, n)| format!("\"{k}\":{n}"))
        .collect();
    parts.join(",")
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.kernel)?;
        for (k, v) in self.numbers() {
            writeln!(f, "  {k:<20} {v}")?;
        }
        for w in &self.waits {
            writeln!(
                f,
                "  wait at line {:<7} {} times, at least {} bytes in flight",
                w.line, w.count, w.least_in_flight
            )?;
        }
        for (k, n) in Class::NAMES
            .iter()
            .zip(&self.warp_instructions)
            .filter(|(_, n)| **n > 0)
        {
            writeln!(f, "  {k:<20} {n} warp instructions")?;
        }
        for (k, n) in TensorKind::NAMES
            .iter()
            .zip(&self.tensor_macs_by_kind)
            .filter(|(_, n)| **n > 0)
        {
            writeln!(f, "  {k:<20} {n} multiply-adds")?;
        }
        self.predict().iter().try_for_each(|p| writeln!(f, "  {p}"))
    }
}
