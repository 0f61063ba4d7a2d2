//! Plans on the simulated GPU give the numbers of the CPU device, and every kernel of theirs alone
//! those of the evaluator.

use qcc::Compiled;
use qcc::verify::verify;
use qcc_ir::format::decode_slice;
use qcc_runtime::{Device, Engine, PlanFile, SimOptions, Tensor, Threads, Verify};
use qcc_tests::example::compile;
use std::sync::Arc;

fn engine(compiled: &Compiled, device: Device) -> Arc<Engine> {
    let file = PlanFile::from_bytes(compiled.to_bytes().unwrap(), Verify::Full).unwrap();
    Engine::new(Arc::new(file), device).unwrap()
}

fn floats(t: &Tensor) -> Vec<f64> {
    let mut out = vec![0f64; t.numel()];
    decode_slice(t.dtype(), t.bytes(), &mut out).unwrap();
    out
}

/// `‖a − b‖ / ‖b‖`
fn error(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!((a.dtype(), a.dims()), (b.dtype(), b.dims()));
    let (a, b) = (floats(a), floats(b));
    let square = |i: &mut dyn Iterator<Item = f64>| i.map(|x| x * x).sum::<f64>();
    let diff = square(&mut a.iter().zip(&b).map(|(a, b)| a - b));
    (diff / square(&mut b.iter().copied())).sqrt()
}

fn tokens(batch: u64, length: u64) -> Tensor {
    let ids: Vec<i64> = (0..batch * length)
        .map(|i| (i as i64 * 37 + 11) % 500)
        .collect();
    Tensor::i64(&[batch, length], &ids).unwrap()
}

#[test]
fn static_fp8_on_sim_is_static_fp8_on_cpu() {
    let compiled = compile("fp8", &["cpu", "sm_80"], true);
    let cpu = engine(&compiled, Device::Cpu(Threads::new(2).unwrap()));
    let mut options = SimOptions::default();
    options.threads = 2;
    options.checks = true;
    let sim = engine(&compiled, Device::Sim(options));
    assert_eq!((sim.device(), sim.target()), ("sim", "sm_80"));
    let (mut sim, mut cpu) = (sim.session(), cpu.session());
    for (batch, length) in [(1, 7), (2, 3), (1, 7)] {
        let ids = tokens(batch, length);
        let got = sim.run(&[("input_ids", &ids)]).unwrap();
        let want = cpu.run(&[("input_ids", &ids)]).unwrap();
        for ((name, got), (_, want)) in got.iter().zip(&want) {
            let e = error(got, want);
            assert!(e < 1e-3, "{name} at [{batch}, {length}]: {e}");
        }
    }
}

/// A session that met an index outside of its table runs on; the first bad index is reported for
/// any order of warps.
#[test]
fn a_session_goes_on_after_an_index_outside_of_its_table() {
    let compiled = compile("float", &["sm_80"], false);
    for schedule in [0, 1, 7] {
        let mut options = SimOptions::default();
        options.checks = true;
        options.schedule = schedule;
        let mut session = engine(&compiled, Device::Sim(options)).session();
        let good = session.run(&[("input_ids", &tokens(1, 5))]).unwrap();
        let bad = Tensor::i64(&[1, 5], &[0, 4, 70_000_000_000, -9999, 2048]).unwrap();
        for _ in 0..2 {
            let e = session.run(&[("input_ids", &bad)]).unwrap_err();
            assert_eq!(e.code(), "Q0705");
            assert!(e.message().contains("index 70000000000 "), "{e}");
        }
        let again = session.run(&[("input_ids", &tokens(1, 5))]).unwrap();
        assert_eq!(again[0].1, good[0].1);
    }
}

/// Every kernel of the plan's sections, alone, on random and adversarial values.
fn verified(compiled: &Compiled) {
    let file = PlanFile::from_bytes(compiled.to_bytes().unwrap(), Verify::Full).unwrap();
    let file = Arc::new(file);
    for section in &compiled.plan.targets {
        let verdicts = verify(file.clone(), &section.target, 2).unwrap();
        assert_eq!(verdicts.len(), section.kernels.len());
        for v in verdicts {
            assert_eq!(v.failure, None, "{v:?}");
        }
    }
}

#[test]
fn every_kernel_of_dynamic_int8_for_ampere() {
    verified(&compile("int8", &["sm_80"], false));
}

/// About a minute: `cargo test -p qcc-tests --test suite device_sim -- --ignored`
#[test]
#[ignore = "slow"]
fn every_kernel_of_static_fp8_and_float() {
    verified(&compile("fp8", &["sm_80", "sm_90"], true));
    verified(&compile("float", &["sm_90"], false));
}
