//! `verify` accepts the kernels of a plan, and finds what is broken in a copy of them.

use qcc::verify::{Verdict, verify};
use qcc_codegen::lower::emit_section;
use qcc_codegen::target::Target;
use qcc_ir::diag::Result;
use qcc_ir::eval::weight_tensor;
use qcc_ir::graph::{Module, WeightBytes, WeightData, parse};
use qcc_ir::ledger::Ledger;
use qcc_ir::plan::Plan;
use qcc_runtime::plan_file::{AlignedBytes, plan_in_memory};
use qcc_runtime::{PlanContents, PlanFile, Verify};
use serde_json::Value;
use std::borrow::Cow;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

/// A norm, dynamic quantization, a quantized linear with an epilogue, a softmax, and a
/// float linear.
const TEXT: &str = r#"qir 1
dim b = 1..8
dim s = 1..600
weight @gain: f16[64] = normal(3, 1)
weight @w: e4m3[48, 64] = normal(5, 60)
weight @ws: f32[48, 1] = splat(0.02)
weight @bias: f16[48] = normal(7, 0.5)
weight @w16: f16[40, 64] = normal(9, 0.1)

func @main(%x: f16[b, s, 64]) -> (p: f16[b, s, 48], z: f16[b, s, 40]) {
  %gain: f16[64] = const @gain
  %h: f16[b, s, 64] = rms_norm %x, %gain { eps = 1e-6 }
  %q: q<e4m3, [1, 1, *], scale=f32, dynamic>[b, s, 64] = quantize %h
  %w: q<e4m3, [1, *], scale=f32>[48, 64] = const @w, @ws
  %bias: f16[48] = const @bias
  %y: f16[b, s, 48] = linear %q, %w, %bias
  %p: f16[b, s, 48] = softmax %y { axis = 2 }
  %w16: f16[40, 64] = const @w16
  %z: f16[b, s, 40] = linear %h, %w16
  return %p, %z
}
"#;

#[derive(Debug)]
struct Held(Vec<u8>);

impl WeightBytes for Held {
    fn bytes(&self) -> Result<Cow<'_, [u8]>> {
        Ok(Cow::Borrowed(&self.0))
    }
}

/// The module with its weights' bytes at hand.
fn module(text: &str) -> Module {
    let mut m = parse(text).unwrap_or_else(|e| panic!("{e:?}"));
    assert_eq!(qcc_ir::graph::verify(&m), []);
    for w in &mut m.weights {
        let bytes = weight_tensor(w).unwrap().bytes().to_vec();
        w.data = WeightData::Bytes(Arc::new(Held(bytes)));
    }
    m
}

/// A plan file in which the PTX of kernels was changed; also which kernels were.
fn plan(target: &str, change: impl Fn(&str, &str) -> String) -> (AlignedBytes, Vec<String>) {
    plan_of(TEXT, target, change)
}

fn plan_of(
    text: &str,
    target: &str,
    change: impl Fn(&str, &str) -> String,
) -> (AlignedBytes, Vec<String>) {
    let m = module(text);
    let (section, mut texts) = emit_section(&m, "main", Target::find(target).unwrap()).unwrap();
    let mut changed = Vec::new();
    for k in &section.kernels {
        let text = texts.get_mut(&k.entry).unwrap();
        let other = change(&k.name, text);
        if other != *text {
            changed.push(k.name.clone());
            *text = other;
        }
    }
    let mut plan = Plan::new("test", "00", "0.1.0");
    plan.add_module("main", &m).unwrap();
    plan.targets.push(section);
    texts.insert("text/main".into(), m.to_string());
    let contents = PlanContents {
        plan: &plan,
        ledger: &Ledger::new(),
        texts: &texts,
    };
    let written = plan_in_memory(&contents, |entry, put| {
        let id = m.find_weight(&entry.name).unwrap();
        put(weight_tensor(m.weight(id))?.bytes())
    });
    (written.unwrap().0, changed)
}

fn judged(bytes: AlignedBytes, target: &str) -> Vec<Verdict> {
    let file = PlanFile::from_bytes(bytes, Verify::Full).unwrap();
    verify(Arc::new(file), target, 2).unwrap()
}

#[test]
fn good_kernels_pass_and_are_counted() {
    for target in ["sm_80", "sm_90"] {
        let (bytes, _) = plan(target, |_, text| text.to_string());
        let verdicts = judged(bytes, target);
        assert!(verdicts.len() >= 4, "{verdicts:?}");
        for v in &verdicts {
            assert_eq!(v.failure, None, "{v:?}");
            assert!(v.cases >= 6 && v.error < 1e-3, "{v:?}");
            assert!(
                v.counters.instructions > 0 && v.counters.written > 0,
                "{v:?}"
            );
        }
        let macs = |v: &&Verdict| v.counters.tensor_macs > 0;
        assert!(verdicts.iter().any(|v| macs(&v)), "{verdicts:?}");
    }
}

/// Weights whose codes are decoded on the way: powers of two, two levels, two bits, squares.
const FORMATS: &str = r#"qir 1
dim b = 1..300
weight @two: e2m1[40, 96] = normal(1, 2)
weight @two.s: e4m3[40, 6] = splat(1.5)
weight @two.g: f32[] = splat(0.01)
weight @mx: e2m1[40, 97] = normal(2, 2)
weight @mx.s: e8m0[40, 4] = splat(0.03125)
weight @mx8: e4m3[40, 96] = normal(3, 60)
weight @mx8.s: e8m0[40, 3] = splat(0.00390625)
weight @pair: u2[40, 96] = splat(3)
weight @pair.s: f32[40, 6] = normal(5, 0.1)
weight @pair.z: u2[40, 6] = splat(1)
weight @int: i2[40, 97] = normal(6, 1)
weight @int.s: f32[40, 1] = splat(0.02)
weight @square: e4m3[40, 96] = normal(7, 60)
weight @square.s: f32[2, 3] = splat(0.004)

func @main(%x: f16[b, 96], %o: f16[b, 97]) -> (p: f16[b, 40], q: f16[b, 40], r: f16[b, 40], s: f16[b, 40], t: f16[b, 40], u: f16[b, 40]) {
  %two: q<e2m1, [1, 16], scale=e4m3/f32>[40, 96] = const @two, @two.s, _, @two.g
  %mx: q<e2m1, [1, 32], scale=e8m0 floor>[40, 97] = const @mx, @mx.s
  %mx8: q<e4m3, [1, 32], scale=e8m0 rceil>[40, 96] = const @mx8, @mx8.s
  %pair: q<u2, [1, 16], scale=f32, zero=u2>[40, 96] = const @pair, @pair.s, @pair.z
  %int: q<i2, [1, *], scale=f32>[40, 97] = const @int, @int.s
  %square: q<e4m3, [32, 32], scale=f32>[40, 96] = const @square, @square.s
  %p: f16[b, 40] = linear %x, %two
  %q: f16[b, 40] = linear %o, %mx
  %r: f16[b, 40] = linear %x, %mx8
  %s: f16[b, 40] = linear %x, %pair
  %t: f16[b, 40] = linear %o, %int
  %u: f16[b, 40] = linear %x, %square
  return %p, %q, %r, %s, %t, %u
}
"#;

/// At least so many kernels of a module, none of which fails.
fn all_pass(module: &str, least: usize) {
    for target in ["sm_80", "sm_90"] {
        let (bytes, _) = plan_of(module, target, |_, text| text.to_string());
        let verdicts = judged(bytes, target);
        assert!(verdicts.len() >= least, "{verdicts:?}");
        for v in &verdicts {
            assert_eq!(v.failure, None, "{v:?}");
        }
    }
}

#[test]
fn weights_in_block_formats_are_decoded_by_kernels() {
    all_pass(FORMATS, 6);
}

/// Weights whose codes are looked up: in the table of a format, and in tables of rows and of groups.
/// Odd widths leave places in a tile whose code, 0, is no 0.
const TABLES: &str = r#"qir 1
dim b = 1..300
weight @nf: nf4[40, 96] = normal(1, 0.5)
weight @nf.s: f32[40, 2] = normal(2, 0.1)
weight @odd: nf4[41, 97] = normal(3, 0.5)
weight @odd.s: f32[41, 1] = splat(0.05)
weight @line: nf4[40, 96] = normal(14, 0.5)
weight @line.s: f32[40, 1] = splat(0.05)
weight @rows: u4[40, 96] = normal(4, 9)
weight @rows.t: f32[40, 1, 16] = normal(5, 0.1)
weight @wide: u4[41, 97] = normal(6, 9)
weight @wide.t: f16[41, 1, 16] = normal(7, 0.1)
weight @pair: u2[40, 96] = normal(8, 2)
weight @pair.t: f32[40, 6, 4] = normal(9, 0.1)
weight @byte: u8[40, 96] = normal(10, 150)
weight @byte.t: bf16[40, 1, 256] = normal(11, 0.1)
weight @taps: u4[4, 3, 3, 3] = normal(12, 9)
weight @taps.t: f32[4, 1, 1, 1, 16] = normal(13, 0.1)

func @main(%x: f16[b, 96], %o: f16[b, 97], %f: f32[b, 96], %i: f32[b, 3, 5, 5]) -> (p: f16[b, 40], q: f16[b, 41], r: f16[b, 40], s: f16[b, 41], t: f16[b, 40], u: f16[b, 40], v: f32[b, 40], w: f32[b, 40], l: f32[b, 40], c: f32[b, 4, 3, 3], d: f32[40, 96]) {
  %nf: q<nf4, [1, 48], scale=f32>[40, 96] = const @nf, @nf.s
  %odd: q<nf4, [1, *], scale=f32>[41, 97] = const @odd, @odd.s
  %line: q<nf4, [1, *], scale=f32>[40, 96] = const @line, @line.s
  %rows: q<u4, [1, *], table=f32>[40, 96] = const @rows, @rows.t
  %wide: q<u4, [1, *], table=f16>[41, 97] = const @wide, @wide.t
  %pair: q<u2, [1, 16], table=f32>[40, 96] = const @pair, @pair.t
  %byte: q<u8, [1, *], table=bf16>[40, 96] = const @byte, @byte.t
  %taps: q<u4, [1, *, *, *], table=f32>[4, 3, 3, 3] = const @taps, @taps.t
  %p: f16[b, 40] = linear %x, %nf
  %q: f16[b, 41] = linear %o, %odd
  %r: f16[b, 40] = linear %x, %rows
  %s: f16[b, 41] = linear %o, %wide
  %t: f16[b, 40] = linear %x, %pair
  %u: f16[b, 40] = linear %x, %byte
  %v: f32[b, 40] = linear %f, %rows
  %codes: q<i8, [1, *], scale=f32, dynamic>[b, 96] = quantize %f
  %w: f32[b, 40] = linear %codes, %rows
  %l: f32[b, 40] = linear %codes, %line
  %c: f32[b, 4, 3, 3] = conv %i, %taps { kernel = [3, 3] }
  %d: f32[40, 96] = dequantize %rows
  return %p, %q, %r, %s, %t, %u, %v, %w, %l, %c, %d
}
"#;

#[test]
fn codes_of_tables_are_looked_up_by_kernels() {
    all_pass(TABLES, 11);
}

#[test]
fn quantized_blocks_of_activations_are_refused_by_name() {
    let layer = |x: &str, w: &str| {
        let text = format!(
            "qir 1
            weight @w: u4[4, 32] = splat(3)
            weight @s: f32[4, 1] = splat(0.5)
            func @main(%x: f16[2, 32]) -> (y: f16[2, 4]) {{
              %w: {w}
              {x}
              %y: f16[2, 4] = linear %a, %w
              return %y
            }}"
        );
        let e = emit_section(&module(&text), "main", Target::find("sm_80").unwrap());
        let all = e.err().unwrap();
        all.iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("\n")
    };
    let mx = "%a: q<e4m3, [1, 32], scale=e8m0 floor, dynamic>[2, 32] = quantize %x";
    let e = layer(mx, "q<u4, [1, *], scale=f32>[4, 32] = const @w, @s");
    assert!(
        e.contains("Q0610") && e.contains("one symmetric scale per row"),
        "{e}"
    );
}

/// Changes the kernels whose names begin with `kind` and gives what is said of those that fail; all
/// others must pass.
#[track_caller]
fn broken(kind: &str, from: &str, to: &str) -> Vec<String> {
    let (bytes, changed) = plan("sm_80", |name, text| match name.starts_with(kind) {
        true => text.replace(from, to),
        false => text.to_string(),
    });
    assert!(!changed.is_empty(), "no {kind} kernel has `{from}`");
    let mut failures = Vec::new();
    for v in judged(bytes, "sm_80") {
        match v.failure {
            Some(why) => {
                assert!(changed.contains(&v.kernel), "{}: {why}", v.kernel);
                failures.push(why);
            }
            // The change may mean nothing: a kernel that converts codes copies none of them.
            None => continue,
        }
    }
    assert!(!failures.is_empty(), "{kind} without `{from}` passes");
    failures
}

#[test]
fn broken_copies_are_found() {
    let says = |failures: Vec<String>, parts: &[&str]| {
        for f in &failures {
            assert!(parts.iter().any(|p| f.contains(p)), "{f}");
        }
    };
    // Every barrier of a kernel that stages tiles in shared memory.
    says(broken("linear", "bar.sync 0;", ""), &["race", "not-waited"]);
    // Not waiting for the copies of a tile.
    says(
        broken("linear", "cp.async.wait_group", "// cp.async.wait_group"),
        &["not-waited"],
    );
    // A row's sum over half of the lanes.
    says(
        broken("rms_norm", "1, 31, 0xffffffff", "0, 31, 0xffffffff"),
        &["relative error", "is "],
    );
    // A maximum instead of a sum.
    says(
        broken("softmax", "add.rn.f32", "max.f32"),
        &["relative error", "evaluator says"],
    );
    // The smallest magnitude instead of the largest.
    says(
        broken("quantize", "max.NaN.f32", "min.NaN.f32"),
        &["code", "relative error", "evaluator says"],
    );
}

fn qcc(dir: &Path, args: &[&str]) -> (Option<i32>, Value) {
    let mut c = Command::new(env!("CARGO_BIN_EXE_qcc"));
    let out = c.current_dir(dir).args(args).arg("--json").output();
    let out = out.expect("the command starts");
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    // A failing verification prints its table before the error: the first document counts.
    let mut all = serde_json::Deserializer::from_str(&text).into_iter::<Value>();
    let first = all.next().expect("a document").expect("JSON");
    (out.status.code(), first)
}

#[test]
fn the_command_prints_verdicts_and_fails_with_them() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let (good, _) = plan("sm_90", |_, text| text.to_string());
    std::fs::write(dir.join("good.qplan"), &good[..]).unwrap();
    let (code, v) = qcc(dir, &["verify", "good.qplan"]);
    assert_eq!(
        (code, &v["schema"], &v["failed"]),
        (Some(0), &"qcc.verify/1".into(), &0.into())
    );
    let kernels = v["kernels"].as_array().unwrap();
    assert!(
        kernels
            .iter()
            .all(|k| k["target"] == "sm_90" && k["failure"].is_null()),
        "{v}"
    );

    let (bad, changed) = plan("sm_90", |name, text| match name.starts_with("softmax") {
        true => text.replace("add.rn.f32", "max.f32"),
        false => text.to_string(),
    });
    std::fs::write(dir.join("bad.qplan"), &bad[..]).unwrap();
    let (code, v) = qcc(dir, &["verify", "bad.qplan"]);
    assert_eq!(
        (code, v["failed"].as_u64()),
        (Some(1), Some(changed.len() as u64)),
        "{v}"
    );

    let (code, v) = qcc(dir, &["verify", "good.qplan", "--ptxas=no/such/ptxas"]);
    assert_eq!(
        (code, &v["error"]["code"]),
        (Some(6), &"Q0702".into()),
        "{v}"
    );
    let (code, v) = qcc(dir, &["verify", "good.qplan", "--target", "sm_80"]);
    assert_eq!(
        (code, &v["error"]["code"]),
        (Some(3), &"Q0406".into()),
        "{v}"
    );
}
