//! What is written can be read, by us and by the reference implementation of safetensors.

use super::*;
use safetensors::SafeTensors;
use safetensors::tensor::Dtype;

#[test]
fn everything_comes_back() {
    let sample = Sample::new(1200);
    let file = open(&sample.file(usize::MAX), Verify::Full).unwrap();
    assert_eq!(file.plan(), &sample.plan);
    assert_eq!(file.ledger().unwrap(), sample.ledger);
    for (name, text) in &sample.texts {
        assert_eq!(file.text(name).unwrap(), text);
    }
    for w in &sample.plan.weights {
        let bytes = file.weight(w).unwrap();
        assert_eq!(bytes, sample.weight_bytes(&w.entry));
        assert_eq!(bytes.as_ptr() as usize % 64, 0);
    }
    let w = file.entries().find(|e| e.name == "fc.w").unwrap();
    assert_eq!(
        (w.dtype, w.shape, w.offset % 4096),
        ("F8_E4M3", &[1200, 1000][..], 0)
    );
}

#[test]
fn the_reference_reader_of_safetensors_accepts_it() {
    let sample = Sample::new(1200);
    let bytes = sample.file(usize::MAX);
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let fc = tensors.tensor("fc.w").unwrap();
    assert_eq!(fc.dtype(), Dtype::F8_E4M3);
    assert_eq!(fc.shape(), [1200, 1000]);
    assert_eq!(fc.data(), sample.weight_bytes("fc.w"));
    let odd = tensors.tensor("odd").unwrap();
    assert_eq!((odd.dtype(), odd.shape()), (Dtype::U8, &[11][..]));
    let text = tensors.tensor("module.m0").unwrap();
    assert_eq!(text.data(), sample.texts["module.m0"].as_bytes());
}

#[test]
fn bytes_depend_on_nothing_but_the_contents() {
    let sample = Sample::new(1200);
    let whole = sample.file(usize::MAX);
    assert!(whole == sample.file(1000), "pieces show in the file");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.qplan");
    let mut writer = crate::PlanWriter::create(&path, &sample.contents()).unwrap();
    for w in &sample.plan.weights {
        writer
            .write(&w.entry, &sample.weight_bytes(&w.entry))
            .unwrap();
    }
    let written = writer.finish().unwrap();
    assert!(
        std::fs::read(&path).unwrap() == whole,
        "file and memory differ"
    );
    let file = PlanFile::open(&path, Verify::Full).unwrap();
    assert_eq!(file.root(), written.root);
    assert_eq!(file.root().to_string().len(), 64);
}

fn refusal(sample: &Sample, write: impl FnMut(&WeightEntry, Put) -> Result<()>) -> String {
    let refused = plan_in_memory(&sample.contents(), write);
    refused.map(|_| ()).unwrap_err().to_string()
}

type Put<'a, 'b> = &'a mut (dyn FnMut(&[u8]) -> Result<()> + 'b);

#[test]
fn a_writer_that_breaks_its_word_is_refused() {
    let mut sample = Sample::new(2);
    let short = refusal(&sample, |w, put| {
        put(&sample.weight_bytes(&w.entry)[..w.bytes as usize / 2])
    });
    assert!(
        short.contains("Q0410") && short.contains("`bias` lacks 30 of its 60 bytes"),
        "{short}"
    );
    let long = refusal(&sample, |_, put| put(&[0; 64]));
    assert!(
        long.contains("Q0410") && long.contains("`bias` got 4 bytes more"),
        "{long}"
    );
    sample.texts.insert("extra".to_string(), String::new());
    let unused = refusal(&sample, |_, _| Ok(()));
    assert!(
        unused.contains("Q0410") && unused.contains("`extra`"),
        "{unused}"
    );
    sample.texts.clear();
    let missing = refusal(&sample, |_, _| Ok(()));
    assert!(missing.contains("`kernels` is missing"), "{missing}");
}

#[test]
fn weights_come_in_the_order_of_the_manifest() {
    let sample = Sample::new(2);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.qplan");
    let mut writer = crate::PlanWriter::create(&path, &sample.contents()).unwrap();
    let early = writer.write("fc.w", &[0]).unwrap_err();
    assert!(early.message().contains("`bias` lacks 60"), "{early}");
    writer.write("bias", &[0; 60]).unwrap();
    writer.write("fc.w", &[0]).unwrap();
    let late = writer.write("bias", &[]).unwrap_err();
    assert!(late.message().contains("complete already"), "{late}");
    drop(writer);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn contradictions_in_the_manifest_are_refused() {
    type Change = fn(&mut Plan);
    let cases: [(Change, &str); 16] = [
        (|p| p.symbols[0].max = 0, "ranges from 1 to 0"),
        (
            |p| p.symbols.push(symbol("N", 1, 2)),
            "symbol `N` appears twice",
        ),
        (
            |p| p.inputs.push(p.inputs[0].clone()),
            "input `x` appears twice",
        ),
        (
            |p| p.targets[1].target = "cpu".to_string(),
            "target `cpu` appears twice",
        ),
        (
            |p| p.targets[0].module = "m1".to_string(),
            "module `m1` does not exist",
        ),
        (
            |p| p.targets[1].kernels.clear(),
            "kernel `gemm` does not exist",
        ),
        (
            |p| p.targets[1].arena.buffers.clear(),
            "value `scratch` has no buffer",
        ),
        (
            |p| p.targets[1].outputs.clear(),
            "value `product` has no buffer",
        ),
        (
            |p| p.targets[1].outputs.push("y".to_string()),
            "2 outputs are written, the plan has 1",
        ),
        (|p| p.targets[1].steps[0].run.clear(), "no way to run it"),
        (
            |p| p.weights[2].layout = "other".to_string(),
            "no weight `fc.w` in layout `tiled`",
        ),
        (
            |p| p.weights[0].bytes = 61,
            "needs 60 bytes, its entry has 61",
        ),
        (
            |p| p.weights[0].dims = vec![1 << 40, 1 << 40],
            "larger than 2^64",
        ),
        (
            |p| p.weights[0].entry = "kernels".to_string(),
            "a text and a weight",
        ),
        (
            |p| p.weights[0].entry = "qcc.ledger".to_string(),
            "no name for an entry",
        ),
        (
            |p| p.weights[0].entry = "odd".to_string(),
            "`odd` appears twice",
        ),
    ];
    for (change, expected) in cases {
        let mut sample = Sample::new(2);
        change(&mut sample.plan);
        let d = refusal(&sample, |_, _| Ok(()));
        assert!(
            d.contains("Q0408") && d.contains(expected),
            "{expected}: {d}"
        );
    }
}

#[test]
fn a_device_takes_the_newest_section_that_it_can_run() {
    let mut plan = Sample::new(2).plan;
    plan.targets.push(TargetSection {
        target: "sm_90".to_string(),
        ..gpu_section()
    });
    let gpu = |sm| plan.section_for_gpu(sm).map(|t| t.target.as_str());
    assert_eq!(gpu(80), Ok("sm_80"));
    assert_eq!(gpu(89), Ok("sm_80"));
    assert_eq!(gpu(120), Ok("sm_90"));
    let old = gpu(75).unwrap_err();
    assert_eq!(old.code(), "Q0406");
    assert_eq!(
        old.message(),
        "the plan was built for cpu, sm_80, sm_90, the device is sm_75"
    );
    assert_eq!(old.advice(), Some("rebuild with --target sm_75"));
    let cpu = |levels: &[&str]| plan.section_for_cpu(levels).map(|t| t.target.clone());
    assert_eq!(cpu(&["x86-64-v4", "cpu"]).unwrap(), "cpu");
    assert_eq!(cpu(&["x86-64-v4"]).unwrap_err().code(), "Q0406");
    assert_eq!(plan.section("sm_89").unwrap_err().code(), "Q0406");
    assert_eq!(plan.section("sm_90").unwrap().target, "sm_90");
}
