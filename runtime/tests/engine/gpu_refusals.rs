//! Wrong GPU sections, kernels and inputs: a typed error each.

use crate::gpu::{PTX, engine, input, plan};
use qcc_ir::plan::{Action, Arg, Guard, Launch, Plan};
use qcc_ir::{DType, Diagnostic, Tensor};

#[track_caller]
fn is(d: &Diagnostic, code: &str, part: &str, place: &str) {
    let text = d.to_string();
    assert_eq!(d.code(), code, "{text}");
    assert!(text.contains(part), "`{part}` is not in: {text}");
    assert!(text.contains(place), "`{place}` is not in: {text}");
}

fn launch(p: &mut Plan) -> &mut Launch {
    match &mut p.targets[0].steps[1].run[0].actions[0] {
        Action::Launch(l) => l,
        _ => panic!("a launch"),
    }
}

/// The refusal when the engine is made.
#[track_caller]
fn at_open(change: impl Fn(&mut Plan)) -> Diagnostic {
    let mut plan = plan("sm_80");
    change(&mut plan);
    engine(&plan, PTX, None).map(drop).unwrap_err()
}

/// The refusal of a run with 3 rows.
#[track_caller]
fn at_run(change: impl Fn(&mut Plan)) -> Diagnostic {
    let mut plan = plan("sm_80");
    change(&mut plan);
    let engine = engine(&plan, PTX, None).unwrap();
    engine.session().run(&[("x", &input(3))]).unwrap_err()
}

#[test]
fn sections_that_contradict_themselves() {
    let step = "target sm_80, step y";
    let d = at_open(|p| launch(p).grid[0] = "n +".into());
    is(&d, "Q0408", "`n +` is no size", step);
    let d = at_open(|p| launch(p).grid[0] = "m".into());
    is(&d, "Q0408", "unknown symbol `m`", step);
    let d = at_open(|p| launch(p).block = [1024, 2, 1]);
    is(&d, "Q0408", "[1024, 2, 1] threads", step);
    let d = at_open(|p| launch(p).cluster = Some([0, 1, 1]));
    is(&d, "Q0408", "cluster without blocks", step);
    let d = at_open(|p| {
        launch(p).args[3] = Arg::Dim {
            expr: "n".into(),
            dtype: DType::F32,
        }
    });
    is(&d, "Q0408", "passed as f32", step);
    let d = at_open(|p| p.targets[0].steps[1].run[0].actions = vec![Action::Cpu]);
    is(&d, "Q0408", "CPU code", step);
    let d = at_open(|p| p.targets[0].steps[1].run[0].requires = Some("sm_90a".into()));
    is(&d, "Q0408", "nothing of it runs on sm_80", step);
    let d = at_open(|p| p.targets[0].kernels[0].arch = "sm_90".into());
    is(&d, "Q0408", "kernel `add` is for sm_90", "step t");
    let d = at_open(|p| p.targets[0].arena.bytes = String::new());
    is(&d, "Q0408", "`` is no size", "target sm_80");
    let d = at_open(|p| {
        p.targets[0].outputs.clear();
        p.targets[0].steps.pop();
    });
    is(&d, "Q0408", "0 outputs are written", "target sm_80");
}

#[test]
fn sizes_that_no_launch_can_have() {
    let step = "step y";
    let d = at_run(|p| launch(p).grid[0] = "n - 4".into());
    is(&d, "Q0721", "`n - 4`", step);
    let d = at_run(|p| launch(p).grid[1] = "30000*n".into());
    is(&d, "Q0730", "90000 blocks along axis 1", step);
    let d = at_run(|p| launch(p).cluster = Some([2, 1, 1]));
    is(&d, "Q0730", "clusters of [2, 1, 1]", step);
    let d = at_run(|p| {
        launch(p).args[3] = Arg::Dim {
            expr: "n - 4".into(),
            dtype: DType::U32,
        }
    });
    is(&d, "Q0730", "n - 4 = -1 is no u32", step);
    let d = at_run(|p| {
        p.targets[0].steps[1].run[0].when = vec![Guard {
            expr: "n".into(),
            min: 4,
            max: 9,
        }]
    });
    is(&d, "Q0731", "on sm_80", step);
    let d = at_run(|p| p.targets[0].arena.bytes = "47".into());
    is(&d, "Q0408", "`t` lies at 0 with 48 bytes", "");
}

#[test]
fn kernels_that_cannot_be_loaded_or_fail() {
    let broken = |from: &str, to: &str| engine(&plan("sm_80"), &PTX.replace(from, to), None);
    let d = broken("add_row", "sub_row").map(drop).unwrap_err();
    is(&d, "Q0734", "no `add_row`", "kernel add");
    let d = broken("mad.lo", "mad.high").map(drop).unwrap_err();
    is(&d, "Q0734", "17:5", "kernel add");
    let engine = broken("@%p1 bra DONE;", "").unwrap();
    let d = engine.session().run(&[("x", &input(3))]).unwrap_err();
    is(&d, "Q0732", "out-of-bounds in `add_row` line", "step t");
    let d = at_run(|p| drop(launch(p).args.pop()));
    is(&d, "Q0732", "3 arguments for 4 parameters", "step y");
}

#[test]
fn devices_that_the_plan_was_not_built_for() {
    let old = engine(&plan("sm_90"), PTX, Some(80)).map(drop).unwrap_err();
    is(&old, "Q0406", "built for sm_90, the device is sm_80", "");
    assert!(engine(&plan("sm_80"), PTX, Some(90)).is_ok());
    let cpu = engine(&plan("cpu"), PTX, None).map(drop).unwrap_err();
    is(&cpu, "Q0406", "built for cpu, the device is a GPU", "");
}

#[test]
fn inputs_are_checked_as_on_the_cpu() {
    let engine = engine(&plan("sm_80"), PTX, None).unwrap();
    let mut session = engine.session();
    let wide = Tensor::zeros(DType::F32, &[2, 5]).unwrap();
    let d = session.run(&[("x", &wide)]).unwrap_err();
    is(&d, "Q0505", "[2, 5]", "input x");
    let long = Tensor::zeros(DType::F32, &[100_001, 4]).unwrap();
    let d = session.run(&[("x", &long)]).unwrap_err();
    is(&d, "Q0505", "0..100000", "input x");
    let d = session.run(&[]).unwrap_err();
    is(&d, "Q0723", "x: f32[n, 4]", "");
    session.run(&[("x", &input(2))]).unwrap();
}
