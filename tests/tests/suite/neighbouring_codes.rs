//! Where GPU code and the processor may differ by more than a kernel may: at neighbouring codes.
//!
//! `bert_block` has coarse static scales. A number beside the boundary of two codes may fall to
//! either of them (both kernels are right), and one step of a coarse scale changes a whole row by
//! more than a kernel may. Held here on all values of the fused block:
//! - each kernel, given the operands that its own device computed, agrees with the evaluator: floats
//!   within the tolerance of a kernel, codes but for neighbours in few places;
//! - where the devices first differ by more than a kernel may, neighbouring codes are the reason.

use qcc_codegen::cost::Roofline;
use qcc_codegen::target::Target;
use qcc_ir::eval::eval_op;
use qcc_ir::format::{decode_slice, encode_slice};
use qcc_ir::graph::{Builder, Module, OpKind, TensorType, ValueId, parse};
use qcc_ir::{Bundle, DType, Tensor};
use qcc_passes::{Manager, Options, PassContext, registry};
use qcc_runtime::{Device, Engine, PlanFile, SimOptions, Threads};
use qcc_tests::plans::{fill_weights, plan_of};
use std::collections::BTreeMap;
use std::sync::Arc;

const TEXT: &str = include_str!("../../filetests/lower/bert_block.qir");
/// Largest relative error of a float kernel (Frobenius norm).
const TOLERANCE: f64 = 1e-3;
/// Largest share of a kernel's codes that may be neighbours of the evaluator's.
const BESIDE: f64 = 1e-3;

/// The fused block with every intermediate value as an output: codes as the numbers that they
/// stand for.
fn block(target: &'static Target) -> Module {
    let (options, cost) = (Options::default(), Roofline::new(target));
    let mut context = PassContext::new(&options);
    context.cost = Some(&cost);
    let mut passes = Manager::new(registry::parse_list("fuse,dce").unwrap());
    let mut m = passes
        .run(parse(TEXT).unwrap(), &mut context)
        .unwrap()
        .module;
    fill_weights(&mut m);
    let from = m.funcs[0].clone();
    let mut b = Builder::new("main");
    let mut at: BTreeMap<ValueId, ValueId> = BTreeMap::new();
    for p in &from.params {
        at.insert(*p, b.param(&from.value(*p).name, from.ty(*p).clone()));
    }
    let mut outputs = Vec::new();
    for (_, op) in from.ops() {
        let operands: Vec<ValueId> = op.operands.iter().map(|o| at[o]).collect();
        let results = b.copy_op(&from, op, &operands);
        at.extend(op.results.iter().copied().zip(results.iter().copied()));
        if matches!(op.kind, OpKind::Const { .. }) {
            continue;
        }
        for v in results {
            let (name, ty) = (b.func().value(v).name.clone(), b.ty(v).clone());
            outputs.push(match ty.elem.quant() {
                None => (name, v),
                Some(_) => {
                    let real = TensorType::new(DType::F32, ty.shape.clone());
                    (format!("{name}.real"), b.op(OpKind::Dequantize, &[v], real))
                }
            });
        }
    }
    m.funcs[0] = b.finish(outputs.iter().map(|(n, v)| (n.as_str(), *v)));
    m
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

/// How many codes differ, of how many, and by how much at most.
fn apart(a: &Tensor, b: &Tensor) -> (usize, usize, f64) {
    let (a, b) = (floats(a), floats(b));
    let by: Vec<f64> = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).collect();
    let differ = by.iter().filter(|d| **d != 0.0).count();
    (differ, by.len(), by.iter().copied().fold(0.0, f64::max))
}

/// The values of one device by name.
type Values = BTreeMap<String, Tensor>;

/// A value as an operand of the evaluator, with the numbers that the device has for it.
fn operand(m: &Module, v: ValueId, found: &Values) -> Bundle {
    let f = &m.funcs[0];
    let name = &f.value(v).name;
    if let Some(op) = f.def_op(v)
        && let OpKind::Const { .. } = op.kind
    {
        let made = eval_op(m, &op.kind, &[], &[], &[f.ty(v)], &Default::default());
        return made.unwrap().swap_remove(0);
    }
    if f.ty(v).elem.quant().is_none() {
        return found[name].clone().into();
    }
    // The text names the scale of `%x.q` `%x.scale`.
    let scale = f.find(&name.replace(".q", ".scale")).unwrap();
    let scale = operand(m, scale, found).codes;
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

/// Every kernel of one device agrees with the evaluator on that device's own operands; the number of
/// codes beside the evaluator's.
fn kernels_agree(m: &Module, found: &Values, sizes: &[(&str, i64)]) -> usize {
    let f = &m.funcs[0];
    let sizes = sizes.iter().copied().collect();
    let mut beside = 0;
    for (_, op) in f.ops() {
        if matches!(op.kind, OpKind::Const { .. } | OpKind::Dequantize) {
            continue;
        }
        let given: Vec<Bundle> = op.operands.iter().map(|o| operand(m, *o, found)).collect();
        let given: Vec<&Bundle> = given.iter().collect();
        let types: Vec<&TensorType> = op.operands.iter().map(|o| f.ty(*o)).collect();
        let results: Vec<&TensorType> = op.results.iter().map(|r| f.ty(*r)).collect();
        let want = eval_op(m, &op.kind, &given, &types, &results, &sizes).unwrap();
        for (v, want) in op.results.iter().zip(want) {
            let name = &f.value(*v).name;
            if f.ty(*v).elem.quant().is_none() {
                let e = error(&found[name], &want.codes);
                assert!(e <= TOLERANCE, "{name}: {e:.1e}");
                continue;
            }
            let (differ, of, most) = apart(&operand(m, *v, found).codes, &want.codes);
            assert!(
                differ as f64 <= BESIDE * of as f64 && most <= 1.0,
                "{name}: {differ} of {of} codes differ, by {most} at most"
            );
            beside += differ;
        }
    }
    beside
}

/// Runs the block on both devices; the relative error of the result and the first codes that differ.
fn compare(m: &Module, file: &Arc<PlanFile>, b: u64, s: u64) -> (f64, Option<String>) {
    let mut e = Tensor::zeros(DType::F16, &[b, s, 128]).unwrap();
    encode_slice(DType::F16, &uniform(e.numel()), e.bytes_mut()).unwrap();
    let mut mask = Tensor::zeros(DType::Bool, &[b, 1, 1, s]).unwrap();
    mask.bytes_mut().fill(1);
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
    let sizes = [("b", b as i64), ("s", s as i64)];
    let beside = [&gpu, &cpu].map(|found| kernels_agree(m, found, &sizes));
    let (f, mut first) = (&m.funcs[0], None);
    for (_, op) in f.ops() {
        for v in &op.results {
            let name = &f.value(*v).name;
            if matches!(op.kind, OpKind::Const { .. } | OpKind::Dequantize) || first.is_some() {
                continue;
            }
            if f.ty(*v).elem.quant().is_none() {
                let e = error(&gpu[name], &cpu[name]);
                assert!(e <= 2.0 * TOLERANCE, "{name}: {e:.1e}");
                continue;
            }
            let codes = [&gpu, &cpu].map(|found| operand(m, *v, found).codes);
            let (differ, of, most) = apart(&codes[0], &codes[1]);
            if differ > 0 {
                assert!(most == 1.0, "{name}: codes differ by {most}");
                first = Some(format!("{name}, {differ} of {of}"));
            }
        }
    }
    let y = error(&gpu["y"], &cpu["y"]);
    println!(
        "b {b}, s {s}: y by {y:.1e}, first codes that differ: {first:?}; beside the evaluator's (sim, cpu): {beside:?}"
    );
    (y, first)
}

/// The numbers between -1 and 1 that the suite for a machine with a GPU takes as input.
fn uniform(n: usize) -> Vec<f64> {
    let mut seed = 23u64;
    let next = std::iter::repeat_with(move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (f64::from((seed >> 16) as u32) / f64::from(u32::MAX) - 0.5) * 2.0
    });
    next.take(n).collect()
}

#[test]
fn a_difference_larger_than_a_kernels_comes_from_neighbouring_codes() {
    let target = Target::find("sm_80").unwrap();
    let m = block(target);
    let file = plan_of(&m, target);
    let mut far = 0;
    for (b, s) in [(1, 1), (7, 7), (8, 33)] {
        let (y, first) = compare(&m, &file, b, s);
        assert!(y <= TOLERANCE || first.is_some(), "{y:.1e} without a cause");
        far += usize::from(y > TOLERANCE);
    }
    assert!(far > 0, "no input of this test shows what it is about");
}
