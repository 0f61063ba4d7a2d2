//! The simulator's table of GPUs says what the compiler's table of devices says, and its counters
//! and times of a real kernel are what the sizes say.

use ptxsim::{GPUS, Options};
use qcc_codegen::kernels::hard::w4a16::W4A16;
use qcc_codegen::target::{DEVICES, Machine, TARGETS};
use qcc_tests::on_sim::{Input, OnSim, Shape};

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

/// One token through 4096 × 4096 weights of 4 bits, by 32 × 4 blocks.
#[test]
fn a_decode_step_moves_each_byte_once() {
    let (rows, depth, slices) = (4096usize, 4096usize, 4usize);
    let config = W4A16 {
        token_tiles: 1,
        stages: 6,
    };
    let kernel = config.build("w4a16").expect("a valid kernel");
    let inputs = [
        Input::Memory(vec![0x5a; rows * depth / 2]),
        Input::Memory(vec![0; rows * depth / 128 * 2]),
        Input::Memory(vec![0; depth * 2]),
        Input::Memory(vec![0; slices * rows * 4]),
        Input::Scalar(1),
        Input::Scalar(rows as u64),
        Input::Scalar(depth as u64),
    ];
    let shape = Shape {
        grid: [rows as u32 / 128, slices as u32, 1],
        shared: config.shared_bytes(),
    };
    let options = Options {
        races: false,
        uninit: false,
        threads: 2,
        ..Options::default()
    };
    let mut sim = OnSim::new(&kernel, 80).expect("text that the simulator reads");
    let (_, report) = sim.run(shape, &inputs, options).expect("no fault");
    // 8 MiB of weights, 256 KiB of scales, and 8 KiB of activations, of which each of 128 blocks
    // reads a quarter from L2.
    let once = (8 << 20) + (256 << 10);
    assert_eq!(report.dram_read, once + (8 << 10));
    assert_eq!(report.l2_read, once + 128 * (2 << 10));
    // A block has 8 groups of the depth and 5 of the 6 stages on their way: twice around.
    assert_eq!((report.hops, report.max_block_bytes), (2, 70_144));
    // 8.7 MB at 4.8 TB/s are 1.8 µs; launch and first bytes 2.0 more.
    let times = report.predict();
    let h200 = times
        .iter()
        .find(|p| p.gpu == "H200 SXM")
        .expect("in the table");
    assert!((3.8..5.0).contains(&h200.us), "{h200}");
}
