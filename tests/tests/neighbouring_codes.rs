//! Where GPU code and the processor may differ by more than a kernel may: at neighbouring codes.
//!
//! `bert_block` has coarse static scales. A float that lies at the boundary of two codes may be
//! rounded to either of two f16 numbers (both kernels are right), whose codes then differ by one,
//! and one step of a coarse scale changes a whole row. Three things are held, on all values of the
//! block: each op of the GPU, given the operands that the GPU computed, agrees with the
//! evaluator; each code is exactly the quantization of the device's own float; and before the first
//! code that differs, nothing differs by more than a kernel may.

use qcc_codegen::lower::emit_section;
use qcc_codegen::target::Target;
use qcc_ir::eval::{eval_op, normal, weight_tensor};
use qcc_ir::format::{decode_slice, encode_slice};
use qcc_ir::graph::{Func, Module, OpKind, TensorType, ValueId, WeightBytes, WeightData, parse};
use qcc_ir::ledger::Ledger;
use qcc_ir::plan::{Plan, TargetSection};
use qcc_ir::{Bundle, DType, Tensor};
use qcc_runtime::plan_file::plan_in_memory;
use qcc_runtime::{Device, Engine, PlanContents, PlanFile, SimOptions, Threads, Verify};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

const TEXT: &str = include_str!("../filetests/lower/bert_block.qir");
/// Largest relative error of a float kernel (Frobenius norm).
const TOLERANCE: f64 = 1e-3;

#[derive(Debug)]
struct Held(Vec<u8>);

impl WeightBytes for Held {
    fn bytes(&self) -> qcc_ir::diag::Result<Cow<'_, [u8]>> {
        Ok(Cow::Borrowed(&self.0))
    }
}

/// The block with every intermediate value as an output: codes as the numbers that they stand for.
fn block() -> Module {
    let (head, body) = TEXT.split_once("func @main").unwrap();
    let (mut outputs, mut names, mut lines) = (Vec::new(), Vec::new(), Vec::new());
    for line in body.lines().filter(|l| l.trim_start().starts_with('%')) {
        lines.push(line.to_string());
        let (value, rest) = line.trim().split_once(": ").unwrap();
        let (ty, op) = rest.split_once(" = ").unwrap();
        if op.starts_with("const") {
            continue;
        }
        let (name, ty) = match ty.strip_prefix("q<i8, [*, *, *], scale=f32>") {
            Some(dims) => {
                lines.push(format!("  {value}.real: f32{dims} = dequantize {value}"));
                (format!("{value}.real"), format!("f32{dims}"))
            }
            None => (value.to_string(), ty.to_string()),
        };
        outputs.push(format!("{}: {ty}", &name[1..]));
        names.push(name);
    }
    let text = format!(
        "{head}func @main(%e: f16[b, s, 128], %mask: bool[b, 1, 1, s]) -> ({}) {{\n{}\n  return {}\n}}\n",
        outputs.join(", "),
        lines.join("\n"),
        names.join(", ")
    );
    let mut m = parse(&text).unwrap_or_else(|e| panic!("{e:?}\n{text}"));
    for w in &mut m.weights {
        let bytes = weight_tensor(w).unwrap().bytes().to_vec();
        w.data = WeightData::Bytes(Arc::new(Held(bytes)));
    }
    m
}

fn plan(m: &Module) -> Arc<PlanFile> {
    let (section, mut texts) = emit_section(m, "m0", Target::find("sm_80").unwrap()).unwrap();
    let mut plan = Plan::new("test", "00", "0.1.0");
    plan.add_module("m0", m).unwrap();
    plan.targets.push(section);
    plan.targets
        .push(TargetSection::cpu("cpu", "m0", m).unwrap());
    texts.insert("text/m0".into(), m.to_string());
    let contents = PlanContents {
        plan: &plan,
        ledger: &Ledger::new(),
        texts: &texts,
    };
    let written = plan_in_memory(&contents, |entry, put| {
        let id = m.find_weight(&entry.name).unwrap();
        put(weight_tensor(m.weight(id))?.bytes())
    });
    Arc::new(PlanFile::from_bytes(written.unwrap().0, Verify::Full).unwrap())
}

fn floats(t: &Tensor) -> Vec<f64> {
    let mut out = vec![0f64; t.numel()];
    decode_slice(t.dtype(), t.bytes(), &mut out).unwrap();
    out
}

fn error(a: &Tensor, b: &Tensor) -> f64 {
    let (a, b) = (floats(a), floats(b));
    let difference: f64 = a.iter().zip(&b).map(|(a, b)| (a - b) * (a - b)).sum();
    (difference / b.iter().map(|b| b * b).sum::<f64>()).sqrt()
}

/// The values of one device by name.
type Values = BTreeMap<String, Tensor>;

/// A value as an operand of the evaluator, with the numbers that the device has for it.
fn operand(m: &Module, f: &Func, v: ValueId, found: &Values) -> Bundle {
    let name = &f.value(v).name;
    let sizes = Default::default();
    if let Some(op) = f.def_op(v)
        && let OpKind::Const { .. } = op.kind
    {
        let made = eval_op(m, &op.kind, &[], &[], &[f.ty(v)], &sizes);
        return made.unwrap().swap_remove(0);
    }
    if f.ty(v).elem.quant().is_none() {
        return found[name].clone().into();
    }
    let scale = operand(m, f, f.def_op(v).unwrap().operands[1], found).codes;
    let s = floats(&scale)[0];
    let real = &found[&format!("{name}.real")];
    let codes: Vec<f64> = floats(real).iter().map(|x| (x / s).round()).collect();
    let mut t = Tensor::zeros(DType::I8, real.dims()).unwrap();
    encode_slice(DType::I8, &codes, t.bytes_mut()).unwrap();
    Bundle {
        codes: t,
        scale: Some(scale),
        zero: None,
        global: None,
    }
}

#[test]
fn every_op_and_code_is_right_and_the_first_codes_that_differ_are_neighbours() {
    let m = block();
    let f = &m.funcs[0];
    let file = plan(&m);
    let (b, s) = (4u64, 7u64);
    let mut e = Tensor::zeros(DType::F16, &[b, s, 128]).unwrap();
    encode_slice(DType::F16, &normal(23, 0.6, e.numel()), e.bytes_mut()).unwrap();
    let mut mask = Tensor::zeros(DType::Bool, &[b, 1, 1, s]).unwrap();
    mask.bytes_mut().fill(1);
    let sizes = [("b", b as i64), ("s", s as i64)].into_iter().collect();
    let run = |device: Device| -> Values {
        let engine = Engine::new(file.clone(), device).unwrap();
        let outputs = engine.session().run(&[("e", &e), ("mask", &mask)]).unwrap();
        let inputs = [
            ("e".to_string(), e.clone()),
            ("mask".to_string(), mask.clone()),
        ];
        outputs.into_iter().chain(inputs).collect()
    };
    let gpu = run(Device::Sim(SimOptions::default()));
    let cpu = run(Device::Cpu(Threads::new(2).unwrap()));
    let (mut beside, mut first) = (0, None);
    for (_, op) in f.ops() {
        let v = op.results[0];
        let name = &f.value(v).name;
        if matches!(op.kind, OpKind::Const { .. } | OpKind::Dequantize) {
            continue;
        }
        // The op itself, on what each device computed before.
        for found in [&gpu, &cpu] {
            let given: Vec<Bundle> = op
                .operands
                .iter()
                .map(|o| operand(&m, f, *o, found))
                .collect();
            let given: Vec<&Bundle> = given.iter().collect();
            let types: Vec<&TensorType> = op.operands.iter().map(|o| f.ty(*o)).collect();
            let want = eval_op(&m, &op.kind, &given, &types, &[f.ty(v)], &sizes);
            let want = want.unwrap().swap_remove(0).codes;
            match f.ty(v).elem.quant() {
                None => assert!(error(&found[name], &want) <= TOLERANCE, "{name}"),
                Some(_) => assert_eq!(operand(&m, f, v, found).codes, want, "{name}"),
            }
        }
        // Both devices beside each other.
        if f.ty(v).elem.quant().is_some() {
            let codes = |found| floats(&operand(&m, f, v, found).codes);
            let apart = |(g, c): (&f64, &f64)| (g - c).abs();
            let (g, c) = (codes(&gpu), codes(&cpu));
            let differ = g.iter().zip(&c).filter(|p| apart(*p) != 0.0).count();
            if differ > 0 && first.is_none() {
                let most = g.iter().zip(&c).map(apart).fold(0.0, f64::max);
                assert_eq!(
                    most, 1.0,
                    "the first codes that differ are neighbours: {name}"
                );
                first = Some(name.clone());
            }
            beside += differ;
        } else if first.is_none() {
            assert!(error(&gpu[name], &cpu[name]) <= 2.0 * TOLERANCE, "{name}");
        }
    }
    let y = error(&gpu["y"], &cpu["y"]);
    println!("{beside} codes differ, first in {first:?}; y by {y:.1e}");
    assert!(first.is_some() || y <= TOLERANCE, "{y}");
}
