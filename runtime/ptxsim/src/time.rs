//! A time model over the counters.
//!
//! ```text
//! t = launch + max( rounds · hops · 0.7 µs,
//!                   0.7 µs + max( DRAM bytes / rate, L2 bytes / rate, slots of the busiest pipe ) )
//! ```
//! Launch is 1.3 µs, 0.3 µs for a dependent launch. The first term is latency: every cluster needs
//! its chain of memory hops, and `rounds` generations of resident blocks do so one after the other;
//! a ring of copies has one hop for each time around, so this is also the limit that the bytes in
//! flight set (Little's law). The second is throughput after the first bytes have come. Blocks are
//! dealt out whole: with 133 blocks on 132 multiprocessors the pipes take twice as long.
//!
//! DRAM bytes are the unique sectors; what a working set F above the L2 capacity C reads again misses
//! with probability 1 − C/F. Slots are PTX instructions by class times what the assembler makes of one
//! of them ([`crate::sass`]).

use std::fmt;

use crate::gpu::{GPUS, Gpu};
use crate::isa::Class;
use crate::isa::tensor::TensorKind;
use crate::report::Report;
use crate::sass;

/// Microseconds of one round trip to memory under load.
const HOP_US: f64 = 0.7;
/// Registers of a multiprocessor.
const REGISTERS: u32 = 65_536;
/// Shared memory that the system takes of each block.
const SYSTEM_SHARED: u32 = 1024;

/// A predicted time with its parts, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prediction {
    /// GPU.
    pub gpu: &'static str,
    /// Time from launch to end.
    pub us: f64,
    /// What takes the time: `latency`, `dram`, `l2`, or a pipe.
    pub bound: &'static str,
    /// Launch.
    pub launch: f64,
    /// Chain of memory hops of all rounds.
    pub latency: f64,
    /// DRAM traffic.
    pub dram: f64,
    /// L2 traffic.
    pub l2: f64,
    /// The busiest pipe.
    pub pipe: f64,
}

impl Prediction {
    /// One JSON object.
    #[must_use]
    pub fn to_json(&self) -> String {
        format!(
            "{{\"gpu\":\"{}\",\"us\":{:.3},\"bound\":\"{}\",\"launch\":{:.3},\"latency\":{:.3},\"dram\":{:.3},\"l2\":{:.3},\"pipe\":{:.3}}}",
            self.gpu, self.us, self.bound, self.launch, self.latency, self.dram, self.l2, self.pipe
        )
    }
}

impl fmt::Display for Prediction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:<20} {:.2} µs, bound by {} (latency {:.2}, dram {:.2}, l2 {:.2}, pipe {:.2})",
            self.gpu, self.us, self.bound, self.latency, self.dram, self.l2, self.pipe
        )
    }
}

impl Report {
    /// Times for each GPU of the table that runs this kernel's target.
    #[must_use]
    pub fn predict(&self) -> Vec<Prediction> {
        let able = GPUS.iter().filter(|g| g.runs(&self.target));
        able.map(|g| self.predict_on(g)).collect()
    }

    /// The time on a GPU.
    #[must_use]
    pub fn predict_on(&self, gpu: &Gpu) -> Prediction {
        let launch = if self.dependent { 0.3 } else { 1.3 };
        let rounds = self
            .blocks
            .div_ceil(u64::from(gpu.sms * self.resident(gpu)));
        let latency = rounds as f64 * f64::from(self.hops) * HOP_US;
        let dram = self.dram_bytes(gpu) / (gpu.dram_gbps * 1e3);
        let l2 = (self.l2_read + self.l2_written) as f64 / (gpu.l2_gbps * 1e3);
        let (name, pipe) = self.pipe(gpu);
        let throughput = [("dram", dram), ("l2", l2), (name, pipe)];
        let (mut bound, mut most) = ("latency", 0.0);
        for (name, us) in throughput {
            if us > most {
                (bound, most) = (name, us);
            }
        }
        let first = if self.hops > 0 { HOP_US } else { 0.0 };
        let streaming = first + most;
        if latency >= streaming || first > most {
            bound = "latency";
        }
        Prediction {
            gpu: gpu.name,
            us: launch + latency.max(streaming),
            bound,
            launch,
            latency,
            dram,
            l2,
            pipe,
        }
    }

    /// Blocks that a multiprocessor holds at once. Registers are known when `.maxnreg` says so.
    fn resident(&self, gpu: &Gpu) -> u32 {
        let threads = self.threads.max(1).next_multiple_of(32);
        let shared = self.block_shared + SYSTEM_SHARED;
        let mut n = gpu.resident.1.min(gpu.resident.0 / threads);
        n = n.min(gpu.shared_kib * 1024 / shared);
        if let Some(fit) = REGISTERS.checked_div(self.max_regs * threads) {
            n = n.min(fit);
        }
        n.max(1)
    }

    /// Bytes that DRAM moves with this GPU's L2: the unique sectors, and what is read again and is
    /// not there any more.
    #[must_use]
    pub fn dram_bytes(&self, gpu: &Gpu) -> f64 {
        let unique = (self.dram_read + self.dram_written) as f64;
        let again = ((self.l2_read + self.l2_written) as f64 - unique).max(0.0);
        let kept = (gpu.l2_mib * 1024.0 * 1024.0 / unique.max(1.0)).min(1.0);
        unique + again * (1.0 - kept)
    }

    /// The busiest pipe and its microseconds.
    fn pipe(&self, gpu: &Gpu) -> (&'static str, f64) {
        // Of all blocks' work, the busiest multiprocessor does this part.
        let blocks = self.blocks.max(1);
        let part = blocks.div_ceil(u64::from(gpu.sms)) as f64 / blocks as f64;
        let clocks_per_us = gpu.ghz * 1e3;
        let lanes = |classes: &[Class], per_clock: f64| {
            let n: f64 = classes
                .iter()
                .map(|c| self.warp_instructions[*c as usize] as f64 * sass::factor(*c))
                .sum();
            n * 32.0 / per_clock * part / clocks_per_us
        };
        let f32_lanes = gpu.f32_tflops * 1e3 / (2.0 * f64::from(gpu.sms) * gpu.ghz);
        let issued = self.total_warp_instructions() as f64 * sass::ALL / 4.0 * part / clocks_per_us;
        let wavefronts = self.wavefronts as f64 * part / clocks_per_us;
        use Class::{Compare, Convert, Double, Float, Function, Half, Integer, Warp};
        let pipes = [
            ("issue", issued),
            ("integer", lanes(&[Integer, Compare], 64.0)),
            ("float", lanes(&[Float, Half], f32_lanes)),
            ("double", lanes(&[Double], gpu.f64_lanes.into())),
            ("convert", lanes(&[Convert], 64.0)),
            ("function", lanes(&[Function], 16.0)),
            ("exchange", lanes(&[Warp], 32.0)),
            ("shared", wavefronts),
            ("tensor", self.tensor(gpu) * part * f64::from(gpu.sms)),
        ];
        let mut most = ("issue", 0.0);
        for p in pipes {
            if p.1 > most.1 {
                most = p;
            }
        }
        most
    }

    /// Microseconds of the tensor cores of the whole GPU. Formats without units of their own run as
    /// wider ones: 8-bit floats as f16 below sm_89, 4-bit as 8-bit; f64 as ordinary lanes.
    fn tensor(&self, gpu: &Gpu) -> f64 {
        let f8 = if gpu.fp8_tflops > 0.0 {
            gpu.fp8_tflops
        } else {
            gpu.f16_tflops
        };
        let f64_tera = 2.0 * f64::from(gpu.f64_lanes * gpu.sms) * gpu.ghz / 1e3;
        let int4 = if gpu.cc < 90 { 2.0 } else { 1.0 } * gpu.int8_tops;
        let tera = |kind: TensorKind| match kind {
            TensorKind::Half => gpu.f16_tflops,
            TensorKind::Tf32 => gpu.f16_tflops / 2.0,
            TensorKind::Float8 | TensorKind::Float4 => f8,
            TensorKind::Int8 => gpu.int8_tops,
            TensorKind::Int4 => int4,
            TensorKind::Double => f64_tera,
        };
        let kinds = [
            TensorKind::Half,
            TensorKind::Tf32,
            TensorKind::Float8,
            TensorKind::Float4,
            TensorKind::Int8,
            TensorKind::Int4,
            TensorKind::Double,
        ];
        kinds
            .into_iter()
            .map(|k| 2.0 * self.tensor_macs_by_kind[k as usize] as f64 / (tera(k) * 1e6))
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-3 * b.abs().max(1e-3), "{a} for {b}");
    }

    /// 4.8 GB on a GPU of 4800 GB/s: 1000 µs, and 0.7 for the first bytes, and 1.3 for the launch.
    #[test]
    fn a_large_copy_is_bound_by_memory() {
        let r = Report {
            target: "sm_80".into(),
            blocks: 13_200,
            threads: 256,
            dram_read: 2_400_000_000,
            dram_written: 2_400_000_000,
            l2_read: 2_400_000_000,
            l2_written: 2_400_000_000,
            hops: 1,
            ..Report::default()
        };
        let h200 = Gpu::find("H200 SXM").expect("in the table");
        let p = r.predict_on(h200);
        // 2048 / 256 = 8 blocks stay on each of 132 multiprocessors: ⌈13200 / 1056⌉ = 13 rounds of 0.7.
        near(p.latency, 13.0 * 0.7);
        near(p.us, 1.3 + 0.7 + 1000.0);
        assert_eq!((p.bound, r.predict().len()), ("dram", 6));
    }

    /// One block whose warps follow a chain of 20 loads: 20 · 0.7 µs, whatever the bandwidth. As a
    /// dependent launch it begins 1 µs earlier.
    #[test]
    fn a_chain_is_bound_by_latency() {
        let mut r = Report {
            target: "sm_90a".into(),
            blocks: 1,
            threads: 32,
            dram_read: 640,
            l2_read: 640,
            hops: 20,
            ..Report::default()
        };
        let p = r.predict();
        assert_eq!(p.len(), 2);
        near(p[1].us, 1.3 + 14.0);
        assert_eq!(p[1].bound, "latency");
        r.dependent = true;
        near(r.predict()[1].us, 0.3 + 14.0);
    }

    /// 133 blocks on 132 multiprocessors: the busiest does 2 of 133 parts. 133 · 2³⁰ multiply-adds of
    /// f16 are 2.856e11 operations: 288.5 µs of 990 TFLOP/s if all worked evenly, times 2·132/133.
    #[test]
    fn blocks_are_dealt_out_whole() {
        let mut r = Report {
            target: "sm_80".into(),
            blocks: 133,
            threads: 128,
            hops: 1,
            ..Report::default()
        };
        r.tensor_macs_by_kind[TensorKind::Half as usize] = 133 << 30;
        let p = r.predict_on(Gpu::find("H100 SXM").expect("in the table"));
        near(p.pipe, 288.495 * 264.0 / 133.0);
        assert_eq!(p.bound, "tensor");
    }

    /// A working set of 80 MiB read three times: A100 keeps half of it, so half of the 160 MiB read
    /// again come from memory; an L40S of 96 MiB keeps all.
    #[test]
    fn what_l2_does_not_hold_is_read_again() {
        let mib = 1u64 << 20;
        let r = Report {
            dram_read: 80 * mib,
            l2_read: 240 * mib,
            ..Report::default()
        };
        let bytes = |name| r.dram_bytes(Gpu::find(name).expect("in the table"));
        near(bytes("A100 SXM 80GB"), (160 * mib) as f64);
        near(bytes("L40S"), (80 * mib) as f64);
    }

    /// 57 KiB of shared memory and 1 of the system: three blocks in 228 KiB, though threads allow 8.
    /// 168 registers for 384 threads: one block.
    #[test]
    fn residency_is_the_scarcest_resource() {
        let h100 = Gpu::find("H100 SXM").expect("in the table");
        let mut r = Report {
            threads: 256,
            block_shared: 57 * 1024,
            ..Report::default()
        };
        assert_eq!(r.resident(h100), 3);
        (r.threads, r.max_regs, r.block_shared) = (384, 168, 0);
        assert_eq!(r.resident(h100), 1);
    }
}
