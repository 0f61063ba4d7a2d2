//! A GPU section with a kernel in hand-written PTX, on the simulated GPU.

use crate::model::module;
use qcc_ir::diag::Result;
use qcc_ir::eval;
use qcc_ir::ledger::Ledger;
use qcc_ir::plan::*;
use qcc_ir::{DType, Tensor};
use qcc_runtime::plan_file::plan_in_memory;
use qcc_runtime::{Device, Engine, Memory, PlanContents, PlanFile, SimOptions, Verify};
use std::collections::BTreeMap;
use std::sync::Arc;

const TEXT: &str = r#"qir 1
dim n = 0..100000
weight @w: f32[4] = extern

func @main(%x: f32[n, 4]) -> (y: f32[n, 4]) {
  %w: f32[4] = const @w
  %t: f32[n, 4] = add %x, %w
  %y: f32[n, 4] = add %t, %w
  return %y
}
"#;

/// `y[i] = x[i] + w[i mod 4]` for `i < n`.
pub(crate) const PTX: &str = "
.version 7.0
.target sm_80
.address_size 64
.visible .entry add_row(.param .u64 x, .param .u64 w, .param .u64 y, .param .u32 n) {
    .reg .pred %p<2>;
    .reg .b32 %r<8>;
    .reg .b64 %rd<9>;
    .reg .f32 %f<4>;
    ld.param.u64 %rd1, [x];
    ld.param.u64 %rd2, [w];
    ld.param.u64 %rd3, [y];
    ld.param.u32 %r1, [n];
    mov.u32 %r2, %ctaid.x;
    mov.u32 %r3, %ntid.x;
    mov.u32 %r4, %tid.x;
    mad.lo.u32 %r5, %r2, %r3, %r4;
    setp.ge.u32 %p1, %r5, %r1;
    @%p1 bra DONE;
    mul.wide.u32 %rd4, %r5, 4;
    add.u64 %rd5, %rd1, %rd4;
    ld.global.f32 %f1, [%rd5];
    and.b32 %r6, %r5, 3;
    mul.wide.u32 %rd6, %r6, 4;
    add.u64 %rd7, %rd2, %rd6;
    ld.global.f32 %f2, [%rd7];
    add.rn.f32 %f3, %f1, %f2;
    add.u64 %rd8, %rd3, %rd4;
    st.global.f32 [%rd8], %f3;
DONE:
    ret;
}";

fn value(name: &str) -> Arg {
    Arg::Value(name.into())
}

fn weight() -> Arg {
    Arg::Weight {
        name: "w".into(),
        layout: WeightEntry::ROW_MAJOR.into(),
    }
}

fn step(from: &str, to: &str) -> Step {
    let n = Arg::Dim {
        expr: "4*n".into(),
        dtype: DType::U32,
    };
    Step::launch(
        to,
        Launch {
            kernel: "add".into(),
            grid: ["(4*n + 63)//64".into(), "1".into(), "1".into()],
            block: [64, 1, 1],
            cluster: None,
            shared: 0,
            args: vec![value(from), weight(), value(to), n],
        },
    )
}

/// A plan that adds the row twice, with one section.
pub(crate) fn plan(target: &str) -> Plan {
    let m = module(TEXT);
    let mut plan = Plan::new("test", "00", "0.1.0");
    plan.add_module("m0", &m).unwrap();
    plan.targets.push(TargetSection {
        target: target.into(),
        module: "m0".into(),
        min_driver: None,
        steps: vec![step("x", "t"), step("t", "y")],
        arena: Arena {
            bytes: "256*((16*n + 255)//256)".into(),
            buffers: vec![Buffer {
                value: "t".into(),
                offset: "0".into(),
                bytes: "16*n".into(),
            }],
        },
        outputs: vec!["y".into()],
        kernels: vec![Kernel {
            name: "add".into(),
            arch: "sm_80".into(),
            entry: "kernel/add".into(),
            symbol: "add_row".into(),
        }],
    });
    plan
}

/// An engine for a changed plan and kernel text.
pub(crate) fn engine(plan: &Plan, ptx: &str, sm: Option<u32>) -> Result<Arc<Engine>> {
    let m = module(TEXT);
    let text = |name: &str, text: &str| (name.to_string(), text.to_string());
    let contents = PlanContents {
        plan,
        ledger: &Ledger::new(),
        texts: &BTreeMap::from([text("text/m0", &m.to_string()), text("kernel/add", ptx)]),
    };
    let written = plan_in_memory(&contents, |entry, put| {
        let id = m.find_weight(&entry.name).unwrap();
        put(eval::weight_tensor(m.weight(id))?.bytes())
    });
    let file = PlanFile::from_bytes(written?.0, Verify::Lazy)?;
    let mut options = SimOptions::default();
    options.sm = sm;
    options.checks = true;
    Engine::new(Arc::new(file), Device::Sim(options))
}

pub(crate) fn input(n: u64) -> Tensor {
    let values: Vec<f32> = (0..4 * n).map(|i| i as f32 * 0.5 - 3.0).collect();
    Tensor::f32(&[n, 4], &values).unwrap()
}

#[track_caller]
fn check(engine: &Arc<Engine>, sizes: &[u64]) {
    let mut session = engine.session();
    for n in sizes {
        let want = eval::run(&module(TEXT), &[input(*n)]).unwrap();
        let got = session.run(&[("x", &input(*n))]).unwrap();
        assert_eq!((got[0].0.as_str(), &got[0].1), ("y", &want[0]), "n = {n}");
    }
}

#[test]
fn a_section_runs_at_any_size_and_order_of_sizes() {
    let engine = engine(&plan("sm_80"), PTX, None).unwrap();
    assert_eq!((engine.device(), engine.target()), ("sim", "sm_80"));
    check(&engine, &[3, 1, 100, 3, 0, 100, 1]);
}

#[test]
fn sessions_run_side_by_side() {
    let engine = engine(&plan("sm_80"), PTX, None).unwrap();
    std::thread::scope(|s| {
        for n in [5, 33, 100] {
            let engine = &engine;
            s.spawn(move || check(engine, &[n, 1, n]));
        }
    });
}

#[test]
fn more_sizes_than_a_session_keeps_commands_for() {
    let engine = engine(&plan("sm_80"), PTX, None).unwrap();
    let sizes: Vec<u64> = (1..80).rev().chain([50, 1, 79]).collect();
    check(&engine, &sizes);
}

#[test]
fn memory_is_known_before_a_run() {
    let engine = engine(&plan("sm_80"), PTX, None).unwrap();
    let want = Memory {
        weights: 16,
        intermediates: 256,
        workspace: 0,
        inputs: 16 * 10,
        outputs: 16 * 10,
    };
    assert_eq!(engine.memory(&[("n", 10)]).unwrap(), want);
    let refusal = engine.memory(&[("n", 100_001)]).unwrap_err();
    assert_eq!(refusal.code(), "Q0720");
}

#[test]
fn the_first_way_whose_conditions_hold_is_taken() {
    let mut plan = plan("sm_80");
    let good = plan.targets[0].steps[0].run[0].clone();
    // Ways that cannot run: for another chip, for other sizes, and a kernel that does not exist.
    let mut other_chip = good.clone();
    other_chip.requires = Some("sm_90a".into());
    other_chip.actions = vec![Action::Cpu];
    let mut other_size = good.clone();
    other_size.when = vec![Guard {
        expr: "n".into(),
        min: 7,
        max: 7,
    }];
    let Action::Launch(l) = &mut other_size.actions[0] else {
        panic!("a launch");
    };
    l.grid[1] = "0".into();
    let steps = &mut plan.targets[0].steps;
    steps[0].run = vec![other_chip, other_size, good];
    let engine = engine(&plan, PTX, None).unwrap();
    check(&engine, &[6, 8]);
    // At 7 rows the launch has no blocks, and what it should have written is missing.
    let refusal = engine.session().run(&[("x", &input(7))]).unwrap_err();
    assert_eq!(
        (refusal.code().as_str(), refusal.place()),
        ("Q0732", Some("step y"))
    );
    assert!(refusal.to_string().contains("uninitialized"), "{refusal}");
}

#[test]
fn products_of_the_vendor_are_computed_by_definition() {
    let mut plan = plan("sm_80");
    // t = x Iᵀ, where the weight's bytes cannot be I: t[n, 1] = x[n, 4] · w, then unused.
    let gemm = VendorGemm {
        m: "n".into(),
        n: "1".into(),
        k: "4".into(),
        input: DType::F32,
        output: DType::F32,
        a: value("x"),
        b: weight(),
        d: value("t"),
        a_scale: None,
        b_scale: None,
        bias: None,
        gelu: false,
        workspace: 1024,
    };
    let section = &mut plan.targets[0];
    section.steps[0].run[0].actions = vec![Action::Vendor(Box::new(gemm))];
    let Action::Launch(l) = &mut section.steps[1].run[0].actions[0] else {
        panic!("a launch");
    };
    l.args[3] = Arg::Dim {
        expr: "n".into(),
        dtype: DType::U32,
    };
    let engine = engine(&plan, PTX, None).unwrap();
    assert_eq!(engine.memory(&[("n", 1)]).unwrap().workspace, 1024);
    let got = engine.session().run(&[("x", &input(3))]).unwrap();
    let m = module(TEXT);
    let w = eval::weight_tensor(m.weight(m.find_weight("w").unwrap())).unwrap();
    let (w, x) = (w.as_slice::<f32>().unwrap(), input(3));
    let y = got[0].1.as_slice::<f32>().unwrap();
    for (i, row) in x.as_slice::<f32>().unwrap().chunks(4).enumerate() {
        let dot: f32 = row.iter().zip(w).map(|(a, b)| a * b).sum();
        assert!((y[i] - dot - w[i]).abs() < 1e-5, "{} {dot}", y[i]);
    }
}
