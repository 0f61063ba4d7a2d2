//! What `compile` reports: figures of layers and outputs, culprits, and the page.

use crate::support::{compile, compile_small, fails, json, qcc, small, text, windows};
use ::qcc::data::write_npy;
use qcc_ir::Tensor;
use serde_json::Value;

fn layers(c: &Value) -> &Vec<Value> {
    c["layers"].as_array().unwrap()
}

fn sum(c: &Value, field: &str) -> f64 {
    layers(c).iter().filter_map(|l| l[field].as_f64()).sum()
}

#[test]
fn layers_and_outputs_have_figures() {
    let dir = tempfile::tempdir().unwrap();
    let (_, calib) = small();
    let flags = ["--target", "cpu,sm_80", "--int8", "--act", "static"];
    let dims = ["--dims", "seq=1..64@1,32", "--calib", &calib];
    let c = compile_small(dir.path(), "m.qplan", &[&flags[..], &dims].concat());
    let quantized = layers(&c).iter().filter(|l| l["scheme"] == "int8-static");
    for l in quantized.clone() {
        let number = |f: &str| l[f].as_f64().unwrap_or_else(|| panic!("{f} in {l}"));
        assert!(number("sqnr_db") > 20.0 && number("cosine") > 0.99, "{l}");
        assert!((number("sqnr_db") + 10.0 * number("relative_mse").log10()).abs() < 1e-6);
        assert!(
            (8.0..10.0).contains(&number("bits")) && number("bytes") * 3.0 < number("float_bytes")
        );
        assert!((0.0..0.5).contains(&number("clipped_inputs")));
        assert!((0.0..=1.0).contains(&number("kl_share")) && number("weight_mse") > 0.0);
        assert!(l["outlier_channels"].is_u64() && l["clipped_weights"] == 0.0);
        assert_eq!(l["kernel"]["cpu"], serde_json::json!([]));
        assert!(!l["kernel"]["sm_80"][0].as_str().unwrap().is_empty());
        assert!(!l["fused"].as_array().unwrap().is_empty());
    }
    assert_eq!(quantized.count(), 14);
    let head = layers(&c).iter().find(|l| l["scheme"] == "float").unwrap();
    assert!(head["kl_share"].is_null() && head["fallback"].as_str().unwrap().contains("head"));
    assert!((sum(&c, "kl_share") - 1.0).abs() < 1e-9);
    let o = &c["output"];
    assert!(o["kl"].as_f64().unwrap() > 0.0 && o["top1"].as_f64().unwrap() > 0.5);
    assert_eq!(o["sensitivity"]["layers"], 14);
    let gpu = &c["targets"]["sm_80"];
    let buckets = gpu["predicted_us"].as_object().unwrap();
    assert_eq!(buckets.len(), 2);
    for (b, us) in buckets {
        assert!(us.as_f64().unwrap() > 0.0 && gpu["arena_bytes"][b].as_u64().unwrap() > 0);
        assert!(gpu["workspace_bytes"][b].is_u64());
        // A kernel costs more where the host launches it.
        assert!(gpu["unrecorded_us"][b].as_f64() > us.as_f64());
    }
    assert_eq!(c["targets"]["cpu"]["unrecorded_us"], serde_json::json!({}));
    let fuse = &c["search"]["fuse"];
    for figure in [
        "regions",
        "distinct",
        "rounds",
        "nodes",
        "classes",
        "peak_bytes",
    ] {
        assert!(fuse[figure].as_u64().unwrap() > 0, "{figure}: {fuse}");
    }
    assert!(fuse["seconds"].as_f64().unwrap() > 0.0 && fuse["cut"] == 0);
    assert!(c["targets"]["cpu"]["arena"].is_null() && gpu["arena"].is_string());
}

#[test]
fn a_layer_computes_no_other_layer() {
    let dir = tempfile::tempdir().unwrap();
    let calib = windows(dir.path(), "calib_tokens.npy", 4);
    let flags = [
        "--target", "sm_90", "--int8", "--act", "static", "--calib", &calib,
    ];
    let c = compile(dir.path(), "a.qplan", &flags);
    let layer = |name: &str| {
        layers(&c)
            .iter()
            .find(|l| l["name"].as_str().unwrap().starts_with(name))
            .unwrap()
    };
    let (up, down) = (layer("/h.0/c_fc/MatMul"), layer("/h.0/c_proj/MatMul"));
    let has = |l: &Value, n: &str| l["fused"].as_array().unwrap().contains(&n.into());
    assert!(has(up, "/h.0/c_fc/MatMul") && has(up, "/h.0/Tanh") && !has(up, "/h.0/c_proj/MatMul"));
    assert!(has(down, "/h.0/c_proj/MatMul") && !has(down, "/h.0/c_fc/MatMul"));
    assert_ne!(up["kernel"], down["kernel"]);
}

#[test]
fn errors_do_not_depend_on_threads() {
    let dir = tempfile::tempdir().unwrap();
    let (_, calib) = small();
    let report = |threads: &str| {
        let flags = [
            "--target",
            "cpu",
            "--int4",
            "--calib",
            &calib,
            "--threads",
            threads,
        ];
        let c = compile_small(dir.path(), "m.qplan", &flags);
        (
            c["layers"].clone(),
            c["output"].clone(),
            c["culprits"].clone(),
        )
    };
    assert_eq!(report("1"), report("3"));
}

#[test]
fn the_culprits_kept_float_are_the_loss() {
    let dir = tempfile::tempdir().unwrap();
    let calib = windows(dir.path(), "calib_tokens.npy", 4);
    let flags = [
        "--target", "cpu", "--int8", "--act", "static", "--calib", &calib,
    ];
    let before = compile(dir.path(), "a.qplan", &flags);
    let culprits = &before["culprits"];
    assert!(culprits["share"].as_f64().unwrap() > 0.4, "{culprits}");
    let keep = culprits["override"].as_str().unwrap();
    let after = compile(
        dir.path(),
        "b.qplan",
        &[&flags[..], &["--override", keep]].concat(),
    );
    let kl = |c: &Value| c["output"]["kl"].as_f64().unwrap();
    assert!(
        kl(&after) < 0.7 * kl(&before),
        "{} of {}",
        kl(&after),
        kl(&before)
    );
    let named = culprits["layers"].as_array().unwrap();
    let float = layers(&after).iter().filter(|l| named.contains(&l["name"]));
    assert!(float.clone().count() == named.len());
    assert!(float.clone().all(|l| l["scheme"] == "float"), "{keep}");
    // The error of the choice is in the plan.
    let e = json(dir.path(), &["explain", "a.qplan", "--layer", "^onnx::"]);
    let scheme = |d: &&Value| d["topic"] == "scheme" && d["chosen"] == "int8-static";
    let found = e["decisions"]
        .as_array()
        .unwrap()
        .iter()
        .find(scheme)
        .unwrap();
    assert!(
        found["considered"][0]["error"].as_f64().unwrap() > 0.0,
        "{found}"
    );
}

#[test]
fn the_summary_names_the_worst() {
    let dir = tempfile::tempdir().unwrap();
    let (model, calib) = small();
    let args = [
        "compile",
        &model,
        "--target",
        "cpu,sm_80",
        "--int8",
        "--calib",
        &calib,
    ];
    let out = qcc(dir.path(), &args);
    let said = text(&out.stdout);
    for part in [
        "output    KL ",
        "--override '^",
        " dB  ",
        " % ",
        "µs predicted, arena ",
        "search    fuse: ",
        " e-nodes in ",
        " MiB at batch=",
    ] {
        assert!(said.contains(part), "{part}\n{said}");
    }
}

#[test]
fn pages_are_written_beside_plans_or_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (model, calib) = small();
    let flags = [
        "--target",
        "cpu",
        "--int8",
        "--calib",
        &calib,
        "--emit",
        "plan,report",
    ];
    let c = compile_small(dir.path(), "m.qplan", &flags);
    assert_eq!(
        (&c["plan"], &c["page"]),
        (&"m.qplan".into(), &"m.report.html".into())
    );
    let page = std::fs::read_to_string(dir.path().join("m.report.html")).unwrap();
    for l in layers(&c) {
        let name = l["name"].as_str().unwrap();
        assert!(page.contains(&name.replace('_', "_<wbr>")), "{name}");
    }
    let alone = ["compile", &model, "--target", "cpu", "--emit", "report"];
    let c = json(dir.path(), &alone);
    assert_eq!(
        (&c["plan"], &c["page"]),
        (&Value::Null, &"llama.report.html".into())
    );
    assert!(c["bytes"].is_null() && !dir.path().join("llama.qplan").exists());
    let named = json(dir.path(), &[&alone[..], &["-o", "x.html"]].concat());
    assert_eq!(named["page"], "x.html");
    let both = ["compile", &model, "--target", "cpu", "--emit", "qir,report"];
    fails(dir.path(), &both, 2);
}

#[test]
fn a_run_names_its_device_once() {
    let dir = tempfile::tempdir().unwrap();
    let (model, _) = small();
    let write = |name: &str, v: &[i64]| {
        let t = Tensor::i64(&[1, v.len() as u64], v).unwrap();
        write_npy(&dir.path().join(name), &t).unwrap();
    };
    write("ids.npy", &[1, 2, 3]);
    write("mask.npy", &[1, 1, 1]);
    let inputs = [
        "--input",
        "input_ids=ids.npy",
        "--input",
        "attention_mask=mask.npy",
    ];
    let args = [&["run", model.as_str(), "--device", "cpu"][..], &inputs].concat();
    let out = qcc(dir.path(), &args);
    let (said, progress) = (text(&out.stdout), text(&out.stderr));
    assert!(out.status.success(), "{progress}");
    assert!(
        said.starts_with("logits: f32[1, 3, 512]") && !said.contains("device"),
        "{said}"
    );
    assert_eq!(progress.matches("device: cpu").count(), 1, "{progress}");
}
