//! A small quantized model, its weights, and its plan.

use qcc_ir::diag::Result;
use qcc_ir::format::encode_slice;
use qcc_ir::graph::{Module, Weight, WeightBytes, WeightData, parse, verify};
use qcc_ir::ledger::Ledger;
use qcc_ir::plan::{Plan, TargetSection};
use qcc_ir::{DType, Tensor, eval};
use qcc_runtime::plan_file::{AlignedBytes, plan_in_memory};
use qcc_runtime::{Device, Engine, PlanContents, PlanFile, Threads, Verify};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Embedding, norm, a dynamically quantized linear, softmax over the columns.
pub(crate) const TEXT: &str = r#"qir 1
dim n = 1..64 @ 1, 16
weight @table: f16[50, 32] = extern
weight @norm: f32[32] = extern
weight @fc.w: e4m3[24, 32] = extern
weight @fc.scale: f32[24, 1] = extern
weight @fc.b: f32[24] = extern
weight @half: f32[] = [0.5]

func @main(%ids: i64[1, n], %gain: f32[n, 24]) -> (probs: f32[n, 24], hidden: f32[n, 32]) {
  %table: f16[50, 32] = const @table @"embed"
  %e: f16[1, n, 32] = gather %table, %ids { axis = 0 } @"embed"
  %r: f16[n, 32] = reshape %e @"embed"
  %x: f32[n, 32] = cast %r @"cast"
  %g: f32[32] = const @norm @"norm"
  %h: f32[n, 32] = rms_norm %x, %g { eps = 1e-6 } @"norm"
  %q: q<e4m3, [1, *], scale=f32, dynamic>[n, 32] = quantize %h @"fc"
  %w: q<e4m3, [1, *], scale=f32>[24, 32] = const @fc.w, @fc.scale @"fc"
  %b: f32[24] = const @fc.b @"fc"
  %y: f32[n, 24] = linear %q, %w, %b @"fc"
  %half: f32[] = const @half @"scale"
  %s: f32[n, 24] = mul %y, %half @"scale"
  %z: f32[n, 24] = mul %s, %gain @"scale"
  %p: f32[n, 24] = softmax %z { axis = 1 } @"softmax"
  return %p, %h
}
"#;

/// Weights with bytes, as a compiler holds them.
pub(crate) fn module(text: &str) -> Module {
    let mut m = parse(text).unwrap_or_else(|e| panic!("{e:?}"));
    assert_eq!(verify(&m), []);
    for (i, w) in m.weights.iter_mut().enumerate() {
        if matches!(w.data, WeightData::Extern) {
            w.data = WeightData::Bytes(Arc::new(Held(contents(i as u64, w))));
        }
    }
    m
}

#[derive(Debug)]
struct Held(Vec<u8>);

impl WeightBytes for Held {
    fn bytes(&self) -> Result<Cow<'_, [u8]>> {
        Ok(Cow::Borrowed(&self.0))
    }
}

fn contents(seed: u64, w: &Weight) -> Vec<u8> {
    let mut values = eval::normal(seed, 0.5, w.numel().unwrap() as usize);
    if w.name.ends_with("scale") {
        values.iter_mut().for_each(|v| *v = 0.01 + v.abs());
    }
    let mut bytes = vec![0; w.byte_len().unwrap() as usize];
    encode_slice(w.dtype, &values, &mut bytes).unwrap();
    bytes
}

/// The manifest of the module, with one section for the CPU.
pub(crate) fn plan(m: &Module) -> Plan {
    let mut plan = Plan::new("test", "00", "0.1.0");
    plan.add_module("m0", m).unwrap();
    plan.targets
        .push(TargetSection::cpu("cpu", "m0", m).unwrap());
    plan
}

/// The bytes of a plan file.
pub(crate) fn file(m: &Module, plan: &Plan, text: &str) -> AlignedBytes {
    let contents = PlanContents {
        plan,
        ledger: &Ledger::new(),
        texts: &BTreeMap::from([("text/m0".to_string(), text.to_string())]),
    };
    let written = plan_in_memory(&contents, |entry, put| {
        let id = m.find_weight(&entry.name).unwrap();
        put(eval::weight_tensor(m.weight(id))?.bytes())
    });
    written.unwrap().0
}

/// An engine for a plan in memory.
pub(crate) fn engine_of(bytes: AlignedBytes, threads: usize) -> Result<Arc<Engine>> {
    let file = PlanFile::from_bytes(bytes, Verify::Lazy)?;
    Engine::new(Arc::new(file), Device::Cpu(Threads::new(threads)?))
}

pub(crate) fn engine(threads: usize) -> Arc<Engine> {
    let m = module(TEXT);
    engine_of(file(&m, &plan(&m), &m.to_string()), threads).unwrap()
}

pub(crate) fn inputs(n: u64) -> [Tensor; 2] {
    let ids: Vec<i64> = (0..n as i64).map(|i| (i * 7 + 3) % 50).collect();
    let gain: Vec<f32> = (0..n * 24).map(|i| (i % 5) as f32 - 1.5).collect();
    [
        Tensor::i64(&[1, n], &ids).unwrap(),
        Tensor::from_slice(DType::F32, &[n, 24], &gain).unwrap(),
    ]
}
