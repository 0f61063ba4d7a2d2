//! The rows of the target table.

use super::{Device, Machine, Target};

const fn gpu(
    name: &'static str,
    cc: u32,
    shared_kib: u32,
    devices: &'static [&'static str],
    ptx: &'static [&'static str],
    summary: &'static str,
) -> Target {
    Target {
        name,
        machine: Machine::Gpu(cc),
        devices,
        shared_bytes: shared_kib * 1024,
        ptx,
        summary,
    }
}

const fn cpu(name: &'static str, summary: &'static str) -> Target {
    Target {
        name,
        machine: Machine::Cpu,
        devices: &["CPU core pair"],
        shared_bytes: 0,
        ptx: &[],
        summary,
    }
}

/// Every target that `--target` accepts.
///
/// A row is added when its code path is built and tested: all GPU rows share one set of kernels,
/// printed for the lowest architecture that has what a kernel needs.
pub const TARGETS: &[Target] = &[
    cpu(
        "cpu",
        "any CPU; features are chosen when the plan is loaded",
    ),
    gpu(
        "sm_80",
        80,
        163,
        &["A100 SXM 80GB"],
        &["sm_80"],
        "Ampere data centre",
    ),
    gpu(
        "sm_86",
        86,
        99,
        &["RTX 3090"],
        &["sm_80"],
        "Ampere consumer",
    ),
    gpu("sm_89", 89, 99, &["L40S", "RTX 4090"], &["sm_80"], "Ada"),
    gpu(
        "sm_90",
        90,
        227,
        &["H200 SXM", "H100 SXM"],
        &["sm_90a", "sm_90", "sm_80"],
        "Hopper, with an sm_80 fallback",
    ),
];

/// Devices whose rates are known.
pub const DEVICES: &[Device] = &[
    device("CPU core pair", 2, 28.0, 24.0, [0.17, 0.0, 0.3, 0.17]),
    device(
        "A100 SXM 80GB",
        108,
        2039.0,
        80.0,
        [312.0, 0.0, 624.0, 19.5],
    ),
    device("RTX 3090", 82, 936.0, 24.0, [71.0, 0.0, 284.0, 35.6]),
    device("L40S", 142, 864.0, 48.0, [362.0, 733.0, 733.0, 91.6]),
    device("RTX 4090", 128, 1008.0, 24.0, [165.0, 330.0, 661.0, 82.6]),
    device("H100 SXM", 132, 3350.0, 80.0, [990.0, 1979.0, 1979.0, 67.0]),
    device(
        "H200 SXM",
        132,
        4800.0,
        141.0,
        [990.0, 1979.0, 1979.0, 67.0],
    ),
];

const fn device(name: &'static str, sms: u32, gbps: f64, gb: f64, rates: [f64; 4]) -> Device {
    Device {
        name,
        sms,
        gbps,
        gb,
        f16_tflops: rates[0],
        fp8_tflops: rates[1],
        int8_tops: rates[2],
        f32_tflops: rates[3],
    }
}
