//! GPUs that times are predicted for.
//!
//! Tensor, f32 and memory rates are the vendor's dense figures (product data sheets), clocks those
//! that belong to the tensor figure, units per multiprocessor those of the CUDA programming guide
//! ("Arithmetic Instructions", "Technical Specifications per Compute Capability"). L2 rates: A100 has
//! a vendor figure (5120 bytes a clock); the same per clock is assumed for Hopper; the others are
//! rounded from published microbenchmarks and the least certain numbers here.

/// A GPU's rates.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gpu {
    /// Product name.
    pub name: &'static str,
    /// Compute capability, `10·major + minor`.
    pub cc: u32,
    /// Multiprocessors.
    pub sms: u32,
    /// Clock, GHz.
    pub ghz: f64,
    /// Memory bandwidth, GB/s.
    pub dram_gbps: f64,
    /// L2 bandwidth, GB/s.
    pub l2_gbps: f64,
    /// L2 capacity, MiB.
    pub l2_mib: f64,
    /// Dense f16 rate with f32 accumulation, TFLOP/s.
    pub f16_tflops: f64,
    /// Dense 8-bit float rate; 0 where there is none.
    pub fp8_tflops: f64,
    /// Dense 8-bit integer rate, TOP/s.
    pub int8_tops: f64,
    /// f32 rate outside tensor cores, TFLOP/s.
    pub f32_tflops: f64,
    /// f64 lanes of a multiprocessor.
    pub f64_lanes: u32,
    /// Shared memory of a multiprocessor, KiB.
    pub shared_kib: u32,
    /// Resident threads and blocks of a multiprocessor.
    pub resident: (u32, u32),
}

/// The table.
pub const GPUS: &[Gpu] = &[
    Gpu {
        name: "A100 SXM 80GB",
        cc: 80,
        sms: 108,
        ghz: 1.41,
        dram_gbps: 2039.0,
        l2_gbps: 7219.0,
        l2_mib: 40.0,
        f16_tflops: 312.0,
        fp8_tflops: 0.0,
        int8_tops: 624.0,
        f32_tflops: 19.5,
        f64_lanes: 32,
        shared_kib: 164,
        resident: (2048, 32),
    },
    Gpu {
        name: "RTX 3090",
        cc: 86,
        sms: 82,
        ghz: 1.695,
        dram_gbps: 936.0,
        l2_gbps: 2500.0,
        l2_mib: 6.0,
        f16_tflops: 71.0,
        fp8_tflops: 0.0,
        int8_tops: 284.0,
        f32_tflops: 35.6,
        f64_lanes: 2,
        shared_kib: 100,
        resident: (1536, 16),
    },
    Gpu {
        name: "L40S",
        cc: 89,
        sms: 142,
        ghz: 2.52,
        dram_gbps: 864.0,
        l2_gbps: 5000.0,
        l2_mib: 96.0,
        f16_tflops: 362.0,
        fp8_tflops: 733.0,
        int8_tops: 733.0,
        f32_tflops: 91.6,
        f64_lanes: 2,
        shared_kib: 100,
        resident: (1536, 24),
    },
    Gpu {
        name: "RTX 4090",
        cc: 89,
        sms: 128,
        ghz: 2.52,
        dram_gbps: 1008.0,
        l2_gbps: 5000.0,
        l2_mib: 72.0,
        f16_tflops: 165.0,
        fp8_tflops: 330.0,
        int8_tops: 661.0,
        f32_tflops: 82.6,
        f64_lanes: 2,
        shared_kib: 100,
        resident: (1536, 24),
    },
    H100,
    Gpu {
        name: "H200 SXM",
        dram_gbps: 4800.0,
        l2_mib: 60.0,
        ..H100
    },
];

const H100: Gpu = Gpu {
    name: "H100 SXM",
    cc: 90,
    sms: 132,
    ghz: 1.83,
    dram_gbps: 3350.0,
    l2_gbps: 9370.0,
    l2_mib: 50.0,
    f16_tflops: 990.0,
    fp8_tflops: 1979.0,
    int8_tops: 1979.0,
    f32_tflops: 67.0,
    f64_lanes: 64,
    shared_kib: 228,
    resident: (2048, 32),
};

impl Gpu {
    /// The GPU of this name.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Self> {
        GPUS.iter().find(|g| g.name == name)
    }

    /// Does PTX of this `.target` run here? `sm_90a` runs on its own generation only, `sm_80` on every
    /// later one.
    #[must_use]
    pub fn runs(&self, target: &str) -> bool {
        let Some(sm) = target.strip_prefix("sm_") else {
            return false;
        };
        let number = sm.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let Ok(n) = number.parse::<u32>() else {
            return false;
        };
        match &sm[number.len()..] {
            "" => n <= self.cc,
            "a" => n == self.cc,
            "f" => n / 10 == self.cc / 10 && n <= self.cc,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_run_on_their_generation_and_later() {
        let on = |target: &str| -> Vec<&str> {
            let all = GPUS.iter().filter(|g| g.runs(target));
            all.map(|g| g.name).collect()
        };
        assert_eq!(on("sm_80").len(), GPUS.len());
        assert_eq!(on("sm_89"), ["L40S", "RTX 4090", "H100 SXM", "H200 SXM"]);
        assert_eq!(on("sm_90a"), ["H100 SXM", "H200 SXM"]);
        assert!(on("sm_120a").is_empty() && on("x").is_empty());
        assert_eq!(Gpu::find("L40S").map(|g| g.sms), Some(142));
    }
}
