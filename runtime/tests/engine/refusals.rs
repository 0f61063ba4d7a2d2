//! Wrong inputs and wrong plans: a typed error each, before anything runs.

use crate::model::*;
use qcc_ir::plan::Plan;
use qcc_ir::{DType, Diagnostic};
use qcc_runtime::plan_file::AlignedBytes;
use qcc_runtime::{Device, Engine, PlanFile, Tensor, Threads, Verify};

#[track_caller]
fn refused(d: &Diagnostic, code: &str, parts: &[&str]) {
    let text = d.to_string();
    assert_eq!(d.code(), code, "{text}");
    for part in parts {
        assert!(text.contains(part), "`{part}` is not in: {text}");
    }
}

#[test]
fn names_of_inputs() {
    let mut session = engine(1).session();
    let [ids, gain] = inputs(2);
    let d = session.run(&[("ids", &ids), ("gian", &gain)]).unwrap_err();
    refused(&d, "Q0722", &["`gian`", "ids: i64[1, n], gain: f32[n, 24]"]);
    let d = session.run(&[("ids", &ids)]).unwrap_err();
    refused(&d, "Q0723", &["gain: f32[n, 24]"]);
    let d = session
        .run(&[("ids", &ids), ("gain", &gain), ("ids", &ids)])
        .unwrap_err();
    refused(&d, "Q0724", &["`ids`"]);
}

#[test]
fn types_and_shapes_of_inputs() {
    let mut session = engine(1).session();
    let mut run =
        |ids: &Tensor, gain: &Tensor| session.run(&[("ids", ids), ("gain", gain)]).unwrap_err();
    let [ids, gain] = inputs(2);
    let ids32 = Tensor::zeros(DType::I32, &[1, 2]).unwrap();
    refused(
        &run(&ids32, &gain),
        "Q0505",
        &["input ids", "i32[1, 2]", "i64[1, n]"],
    );
    let flat = ids.clone().reshape(&[2]).unwrap();
    refused(
        &run(&flat, &gain),
        "Q0505",
        &["input ids", "i64[2]", "i64[1, n]"],
    );
    let tall = ids.clone().reshape(&[2, 1]).unwrap();
    refused(&run(&tall, &gain), "Q0505", &["input"]);
    let [_, other] = inputs(3);
    refused(&run(&ids, &other), "Q0505", &["input gain", "n = 3", "2"]);
    let [long, wide] = inputs(65);
    refused(&run(&long, &wide), "Q0505", &["n = 65", "1..64"]);
    let narrow = Tensor::zeros(DType::F32, &[2, 23]).unwrap();
    refused(&run(&ids, &narrow), "Q0505", &["input gain", "23", "24"]);
}

#[test]
fn an_index_outside_its_table_names_the_node() {
    let mut session = engine(1).session();
    let [_, gain] = inputs(1);
    let ids = Tensor::i64(&[1, 1], &[50]).unwrap();
    let d = session.run(&[("ids", &ids), ("gain", &gain)]).unwrap_err();
    assert_eq!(d.place(), Some("embed"), "{d}");
    // The session survives.
    let [ids, gain] = inputs(1);
    session.run(&[("ids", &ids), ("gain", &gain)]).unwrap();
}

#[track_caller]
fn refused_plan(change: impl Fn(&mut Plan), text: impl Fn(String) -> String) -> Diagnostic {
    let m = module(TEXT);
    let mut plan = plan(&m);
    change(&mut plan);
    let bytes = file(&m, &plan, &text(m.to_string()));
    engine_of(bytes, 1).map(|_| ()).unwrap_err()
}

fn same(text: String) -> String {
    text
}

#[test]
fn plans_for_another_architecture() {
    let d = refused_plan(|p| p.targets[0].target = "sm_90".to_string(), same);
    refused(&d, "Q0406", &["built for sm_90", "a CPU", "--target cpu"]);
}

#[test]
fn steps_that_are_not_those_of_the_module() {
    let d = refused_plan(|p| drop(p.targets[0].steps.pop()), same);
    refused(&d, "Q0408", &["13 steps run 14 ops"]);
    let d = refused_plan(|p| p.targets[0].steps.swap(0, 1), same);
    refused(&d, "Q0408", &["`e` stands where op `table`"]);
    let d = refused_plan(|p| p.targets[0].steps[0].run[0].actions.clear(), same);
    refused(&d, "Q0408", &["`table` has nothing that a CPU runs"]);
}

#[test]
fn modules_that_are_not_what_the_manifest_says() {
    let keep = |_: &mut Plan| ();
    let d = refused_plan(keep, |t| t.replace("softmax", "softmacks"));
    refused(&d, "Q0405", &["softmacks", "module m0"]);
    let d = refused_plan(keep, |t| t.replace("%s: f32[n, 24]", "%s: f32[n, 25]"));
    refused(&d, "Q0405", &["G03"]);
    let d = refused_plan(keep, |t| t.replace("probs", "probabilities"));
    refused(&d, "Q0408", &["not those of the manifest"]);
    let d = refused_plan(keep, |t| t.replace("1..64", "1..640"));
    refused(&d, "Q0408", &["not those of the manifest"]);
    let d = refused_plan(keep, |t| t.replace("@fc.b", "@fc.bias"));
    refused(&d, "Q0408", &["`fc.bias` is not in the file"]);
    let d = refused_plan(keep, |t| t.replace("f16[50, 32]", "f16[60, 32]"));
    refused(
        &d,
        "Q0408",
        &["f16[60, 32] in the module", "f16[50, 32] in the manifest"],
    );
}

#[test]
fn damaged_weights_before_they_are_used() {
    let m = module(TEXT);
    let mut bytes = file(&m, &plan(&m), &m.to_string());
    let intact = PlanFile::from_bytes(AlignedBytes::copy_of(&bytes), Verify::Full).unwrap();
    let at = intact.entries().find(|e| e.name == "fc.w").unwrap().offset as usize;
    bytes.as_mut_slice()[at] ^= 1;
    let file = PlanFile::from_bytes(bytes, Verify::Lazy).unwrap();
    let refusal = Engine::new(file.into(), Device::Cpu(Threads::single()));
    refused(&refusal.map(|_| ()).unwrap_err(), "Q0403", &["`fc.w`"]);
}

#[test]
fn a_forged_module_gives_an_error_or_an_engine() {
    let m = module(TEXT);
    let (plan, text) = (plan(&m), m.to_string());
    let mut state = 1u64;
    let mut below = |n: usize| {
        // xorshift64, Marsaglia 2003
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % n as u64) as usize
    };
    let (mut ran, mut refused) = (0, 0);
    for _ in 0..1000 {
        let mut forged = text.clone().into_bytes();
        for _ in 0..1 + below(3) {
            let at = below(forged.len());
            forged[at] = b"0123456789-\"[]{},:%@nxyzqpfi"[below(28)];
        }
        let forged = String::from_utf8(forged).unwrap();
        match engine_of(file(&m, &plan, &forged), 1) {
            Err(_) => refused += 1,
            Ok(engine) => {
                let [ids, gain] = inputs(2);
                // It may run or fail, but it must come back.
                let _ = engine.session().run(&[("ids", &ids), ("gain", &gain)]);
                ran += 1;
            }
        }
    }
    assert!(
        ran > 0 && refused > 100,
        "{ran} ran, {refused} were refused"
    );
}
