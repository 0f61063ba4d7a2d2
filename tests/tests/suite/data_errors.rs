//! What the data make impossible is the same error on the processor and on a GPU.

use qcc_codegen::target::Target;
use qcc_ir::Tensor;
use qcc_ir::graph::parse;
use qcc_runtime::{Device, Engine, PlanFile, SimOptions, Threads};
use qcc_tests::plans::plan_of;
use std::sync::Arc;

fn plan(op: &str) -> Arc<PlanFile> {
    plan_with(&format!("%y: i64[2, n] = {op} @\"node_7\""))
}

fn plan_with(ops: &str) -> Arc<PlanFile> {
    let text = format!(
        "qir 1\ndim n = 1..64\nfunc @main(%a: i64[2, n], %b: i64[n]) -> (y: i64[2, n]) {{\n  %two: i64[] = splat {{ value = 2 }}\n  {ops}\n  return %y\n}}\n"
    );
    let m = parse(&text).unwrap_or_else(|e| panic!("{e:?}\n{text}"));
    plan_of(&m, Target::find("sm_80").unwrap())
}

/// Code, message and node of the error, or the numbers.
fn run(file: &Arc<PlanFile>, device: Device, b: [i64; 3]) -> Result<Vec<u8>, [String; 2]> {
    let a = Tensor::i64(&[2, 3], &[7, -7, i64::MIN, 9, 8, -1]).unwrap();
    let b = Tensor::i64(&[3], &b).unwrap();
    let engine = Engine::new(file.clone(), device).unwrap();
    let found = engine.session().run(&[("a", &a), ("b", &b)]);
    found
        .map(|out| out[0].1.bytes().to_vec())
        .map_err(|e| [e.code(), e.to_string()])
}

#[test]
fn an_integer_divided_by_zero() {
    let fused =
        "map %a, %b { expr = { t0 = in0; t1 = in1; t2 = mod t0, t1; t3 = add t2, t1; store t3 } }";
    for (op, named) in [
        ("div %a, %b", "div of -9223372036854775808 and 0"),
        ("mod %a, %b", "mod of -9223372036854775808 and 0"),
        (fused, "mod of -9223372036854775808 and 0"),
    ] {
        let file = plan(op);
        let on = |b| {
            let cpu = run(&file, Device::Cpu(Threads::single()), b);
            let schedules = [0, 1, 7].map(|schedule| {
                let mut options = SimOptions::default();
                options.schedule = schedule;
                run(&file, Device::Sim(options), b)
            });
            for found in schedules {
                assert_eq!(found, cpu, "{op}");
            }
            cpu
        };
        let [code, message] = on([2, 3, 0]).unwrap_err();
        assert_eq!(code, "Q0704");
        assert!(
            message.contains(named) && message.contains("node_7"),
            "{message}"
        );
        on([2, -3, 5]).unwrap();
    }
}

#[test]
fn a_column_outside_of_its_row() {
    let file = plan_with(
        "%x: f32[2, n] = cast %a
         %c: i64[n, 1] = reshape %b
         %v: f32[n, 1] = splat { value = 1 }
         %p: f32[2, n] = sparse_linear %x, %c, %v @\"node_7\"
         %y: i64[2, n] = cast %p",
    );
    for columns in [[2, 0, -3], [0, 3, 4], [-4, 0, 0]] {
        let cpu = run(&file, Device::Cpu(Threads::single()), columns);
        assert_eq!(cpu.is_ok(), columns[0] == 2);
        for schedule in [0, 1, 7] {
            let mut options = SimOptions::default();
            options.schedule = schedule;
            assert_eq!(run(&file, Device::Sim(options), columns), cpu);
        }
        if let Err([code, message]) = cpu {
            let found = code == "Q0705" && message.contains("node_7");
            assert!(found, "{code} {message}");
        }
    }
}

/// A divisor that is known needs no check.
#[test]
fn a_constant_divisor_is_not_watched() {
    for (op, watched) in [("div %a, %two", false), ("div %a, %b", true)] {
        let file = plan(op);
        let section = file
            .plan()
            .targets
            .iter()
            .find(|t| t.target != "cpu")
            .unwrap();
        assert_eq!(format!("{section:?}").contains("Faults"), watched, "{op}");
    }
}
