//! The simulator's table of GPUs says what the compiler's table of devices says.

use ptxsim::GPUS;
use qcc_codegen::target::{DEVICES, Machine, TARGETS};

#[test]
fn both_tables_have_the_same_gpus_and_rates() {
    for gpu in GPUS {
        let device = DEVICES.iter().find(|d| d.name == gpu.name);
        let Some(d) = device else {
            panic!("the compiler does not know {}", gpu.name);
        };
        let simulated = (gpu.sms, gpu.dram_gbps, gpu.f16_tflops);
        assert_eq!(simulated, (d.sms, d.gbps, d.f16_tflops), "{}", gpu.name);
        let simulated = (gpu.fp8_tflops, gpu.int8_tops, gpu.f32_tflops);
        let compiled = (d.fp8_tflops, d.int8_tops, d.f32_tflops);
        assert_eq!(simulated, compiled, "{}", gpu.name);
    }
    for target in TARGETS {
        let Machine::Gpu(cc) = target.machine else {
            continue;
        };
        for name in target.devices {
            let gpu = GPUS.iter().find(|g| g.name == *name);
            assert_eq!(gpu.map(|g| g.cc), Some(cc), "{name}");
            // What one block may use, and one KiB of the system, is all of a multiprocessor's.
            let shared = gpu.map(|g| (g.shared_kib - 1) * 1024);
            assert_eq!(shared, Some(target.shared_bytes), "{name}");
        }
    }
}
