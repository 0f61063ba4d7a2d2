//! Programs as callers see them: binding, refusals, taps, weights that are streamed.

use crate::common::{inputs, module, random, run_cpu};
use qcc_cpu::{CpuExecutor, CpuOptions, CpuProgram, Threads};
use qcc_ir::exec::Executor;
use qcc_ir::graph::{WeightBytes, WeightData, parse};
use qcc_ir::{DType, Tensor};
use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const MLP: &str = "qir 1
dim n = 1..64
weight @w: i8[40, 32] = normal(1, 40)
weight @w.s: f32[40, 1] = normal(2, 0.01)
weight @v: f16[8, 40] = normal(3, 0.3)
func @main(%x: f32[n, 32], %y: f32[n, 8]) -> (out: f32[n, 8], again: f32[n, 8]) {
  %w: q<i8, [1, *], scale=f32>[40, 32] = const @w, @w.s
  %v: f16[8, 40] = const @v
  %h: f32[n, 40] = linear %x, %w
  %g: f32[n, 40] = gelu %h
  %f: f32[40*n] = reshape %g
  %e: f32[n, 40] = reshape %f
  %z: f32[n, 8] = linear %e, %v
  %o: f32[n, 8] = add %z, %y
  return %o, %o
}";

fn tensor(dims: &[u64]) -> Tensor {
    random(&mut crate::common::Rng(1), DType::F32, dims, (0, 1))
}

/// The error's code and text for these inputs.
fn refusal(text: &str, inputs: &[Tensor]) -> String {
    let m = module(text);
    let program = CpuProgram::new(&m, &CpuOptions::new(Threads::single())).unwrap();
    let refs: Vec<&Tensor> = inputs.iter().collect();
    program.run(&refs).unwrap_err().to_string()
}

#[test]
fn inputs_that_do_not_fit_are_refused_with_both_sides() {
    let (x, y) = (tensor(&[3, 32]), tensor(&[3, 8]));
    let e = refusal(MLP, std::slice::from_ref(&x));
    assert!(e.contains("1 inputs were given, 2 are needed"), "{e}");
    let half = random(&mut crate::common::Rng(1), DType::F16, &[3, 32], (0, 1));
    let e = refusal(MLP, &[half, y.clone()]);
    assert!(
        e.contains("Q0505") && e.contains("f16") && e.contains("f32[n, 32]"),
        "{e}"
    );
    let e = refusal(MLP, &[tensor(&[3, 31]), y.clone()]);
    assert!(e.contains("Q0505") && e.contains("[3, 31]"), "{e}");
    let e = refusal(MLP, &[x.clone(), tensor(&[4, 8])]);
    assert!(
        e.contains("Q0505") && e.contains("n = 4") && e.contains('3'),
        "{e}"
    );
    let e = refusal(MLP, &[tensor(&[65, 32]), tensor(&[65, 8])]);
    assert!(e.contains("Q0505") && e.contains("1..64"), "{e}");
}

#[test]
fn data_that_breaks_an_op_is_refused() {
    let gather = "qir 1
        func @main(%x: f32[4, 2], %i: i64[1]) -> (y: f32[1, 2]) {
          %y: f32[1, 2] = gather %x, %i { axis = 0 } @\"Emb\"
          return %y
        }";
    for bad in [4, -5, i64::MIN, i64::MAX] {
        let e = refusal(
            gather,
            &[tensor(&[4, 2]), Tensor::i64(&[1], &[bad]).unwrap()],
        );
        assert!(e.contains("Q0705") && e.contains("Emb"), "{e}");
    }
    let div = "qir 1
        func @main(%a: i64[2], %b: i64[2]) -> (y: i64[2]) {\n %y: i64[2] = div %a, %b\n return %y }";
    let ints = |v: &[i64]| Tensor::i64(&[2], v).unwrap();
    let e = refusal(div, &[ints(&[1, 2]), ints(&[1, 0])]);
    assert!(e.contains("Q0704") && e.contains("div of 2 and 0"), "{e}");
    let max = "qir 1
        dim n = 0..4
        func @main(%a: i64[2, n]) -> (y: i64[2]) {\n %y: i64[2] = reduce %a { f = max, axes = [1] }\n return %y }";
    let e = refusal(max, &[Tensor::i64(&[2, 0], &[]).unwrap()]);
    assert!(e.contains("Q0704"), "{e}");
    let reshape = "qir 1
        dim n = 1..9
        dim m = 1..9
        func @main(%a: f32[n, m]) -> (y: f32[m, m]) {\n %y: f32[m, m] = reshape %a\n return %y }";
    let e = refusal(reshape, &[tensor(&[2, 3])]);
    assert!(
        e.contains("Q0707") && e.contains("[2, 3]") && e.contains("[3, 3]"),
        "{e}"
    );
    let slice = "qir 1
        dim n = 1..9
        func @main(%a: f32[4]) -> (y: f32[3*n]) {\n %y: f32[3*n] = slice %a { starts = [0], ends = [3*n] }\n return %y }";
    let m = parse(&slice.replace("%a: f32[4]", "%a: f32[4], %b: f32[n]")).unwrap();
    let program = CpuProgram::new(&m, &CpuOptions::new(Threads::single())).unwrap();
    let e = program
        .run(&[&tensor(&[4]), &tensor(&[2])])
        .unwrap_err()
        .to_string();
    assert!(e.contains("Q0708"), "{e}");
    let nan = "qir 1
        func @main(%a: f32[1, 2]) -> (y: f32[1, 2]) {
          %q: q<i8, [1, *], scale=f32, dynamic>[1, 2] = quantize %a
          %y: f32[1, 2] = dequantize %q
          return %y
        }";
    let e = refusal(nan, &[Tensor::f32(&[1, 2], &[f32::NAN, 1.0]).unwrap()]);
    assert!(e.contains("Q0507"), "{e}");
}

#[test]
fn modules_that_cannot_be_prepared_are_refused() {
    let prepare = |text: &str| {
        let m = parse(text).unwrap();
        CpuProgram::new(&m, &CpuOptions::new(Threads::single()))
            .unwrap_err()
            .to_string()
    };
    let e = prepare(
        "qir 1
        weight @w: f32[2] = extern
        func @main() -> (y: f32[2]) {\n %y: f32[2] = const @w\n return %y }",
    );
    assert!(e.contains("Q0510") && e.contains("@w"), "{e}");
    let e = prepare(
        "qir 1\nfunc @main(%x: f32[2]) -> (y: f32[3]) {\n %y: f32[3] = relu %x\n return %y }",
    );
    assert!(e.contains("G03"), "{e}");
    let e = prepare(
        "qir 1
        func @main(%x: f32[1, 2, 3, 3, 3], %w: f32[2, 2, 1, 1, 1]) -> (y: f32[1, 2, 3, 3, 3]) {
          %y: f32[1, 2, 3, 3, 3] = conv %x, %w { kernel = [1, 1, 1] } @\"Conv3d\"
          return %y
        }",
    );
    assert!(e.contains("Q0702") && e.contains("Conv3d"), "{e}");
}

/// Rows that do not begin on a byte, tables and two levels of scales, where the budget for decoded
/// weights is spent too.
#[test]
fn packed_weights_multiply_like_their_real_values() {
    let text = "qir 1
        weight @w: i2[7, 13] = list
        weight @v: e2m1[7, 13] = list
        weight @vs: e4m3[7, 4] = splat(1.5)
        weight @vg: f32[] = splat(0.25)
        weight @u: u4[7, 13] = splat(3)
        weight @ut: f32[7, 1, 16] = normal(4, 1.0)
        weight @ws: f32[7, 1] = normal(5, 1.0)
        func @main(%x: f32[3, 13]) -> (a: f32[3, 7], b: f32[3, 7], c: f32[3, 7]) {
          %w: q<i2, [1, *], scale=f32>[7, 13] = const @w, @ws
          %v: q<e2m1, [1, 4], scale=e4m3/f32>[7, 13] = const @v, @vs, _, @vg
          %u: q<u4, [1, *], table=f32>[7, 13] = const @u, @ut
          %a: f32[3, 7] = linear %x, %w
          %b: f32[3, 7] = linear %x, %v
          %c: f32[3, 7] = linear %x, %u
          return %a, %b, %c
        }";
    let list = |f: fn(i64) -> f64| (0..91).map(|i| format!("{:?}", f(i))).collect::<Vec<_>>();
    let codes = list(|i| ((i * 7 + 3) % 4 - 2) as f64).join(", ");
    let floats = list(|i| [0.0, 0.5, -1.0, 1.5, 6.0, -4.0, 3.0][(i % 7) as usize]).join(", ");
    let text = text.replacen("list", &format!("[{codes}]"), 1);
    let text = text.replacen("list", &format!("[{floats}]"), 1);
    let m = module(&text);
    let x = qcc_ir::eval::normal(9, 1.0, 39);
    let x: Vec<f32> = x.iter().map(|v| *v as f32).collect();
    let x = [Tensor::f32(&[3, 13], &x).unwrap()];
    let want = qcc_ir::eval::run(&m, &x).unwrap();
    let undecoded = CpuOptions {
        decoded_bytes: 0,
        ..CpuOptions::new(Threads::single())
    };
    for options in [
        CpuOptions::new(Threads::single()),
        undecoded,
        CpuOptions::streamed(Threads::single()),
    ] {
        let got = CpuProgram::new(&m, &options)
            .unwrap()
            .run(&[&x[0]])
            .unwrap();
        for (got, want) in got.iter().zip(&want) {
            let (got, want) = (
                got.as_slice::<f32>().unwrap(),
                want.as_slice::<f32>().unwrap(),
            );
            for (g, w) in got.iter().zip(want) {
                assert!((g - w).abs() <= 1e-5 * w.abs().max(1.0), "{g} is not {w}");
            }
        }
    }
}

/// The oracle multiplies floats only, so these are checked by hand.
#[test]
fn integer_matrices_multiply_in_integers() {
    let m = module(
        "qir 1
        func @main(%a: i64[2, 2], %b: i64[2, 2]) -> (y: i64[2, 2]) {
          %y: i64[2, 2] = matmul %a, %b
          return %y
        }",
    );
    let t = |v: [i64; 4]| Tensor::i64(&[2, 2], &v).unwrap();
    let big = (1 << 53) + 1;
    let out = run_cpu(&m, &[t([1, 2, 3, big]), t([5, 6, 7, 1])], 1);
    assert_eq!(
        out[0].as_slice::<i64>().unwrap(),
        [19, 8, 15 + 7 * big, 18 + big]
    );
}

#[test]
fn taps_see_each_value_once_in_order() {
    let m = module(MLP);
    let f = &m.funcs[0];
    let [x, h, z, o] = ["x", "h", "z", "o"].map(|n| f.find(n).unwrap());
    let executor = CpuExecutor::new(CpuOptions::new(Threads::new(2).unwrap()));
    let mut prepared = executor.prepare(&m, &[z, h, x, h, o]).unwrap();
    let data = inputs(&m, &[("n", 5)], (0, 1), 3);
    let mut seen = Vec::new();
    let out = prepared
        .run(&data, &mut |i, t| seen.push((i, t.clone())))
        .unwrap();
    let order: Vec<usize> = seen.iter().map(|(i, _)| *i).collect();
    assert_eq!(order, [2, 1, 3, 0, 4]);
    assert_eq!(seen[0].1, data[0]);
    assert_eq!(seen[1].1, seen[2].1);
    assert_eq!(seen[4].1, out[0]);
    assert_eq!(out[0], out[1]);
    let w = f.find("w").unwrap();
    assert!(
        executor.prepare(&m, &[w]).is_err(),
        "a quantized value has no plain float to see"
    );
}

#[test]
fn streamed_weights_give_the_same_bits_as_decoded_ones() {
    let text = MLP.replacen("dim n = 1..64", "dim n = 1..2000", 1);
    // A constant that is a result, and one that a convolution reads.
    let text = text.replacen("-> (", "-> (w: f16[8, 40], c: f32[1, 2, n, 31], ", 1);
    let text = text.replacen("return", "return %v, %c,", 1);
    let text = text.replacen(
        "  %h:",
        "  %k: q<i8, [1, *, *, *], scale=f32>[2, 1, 1, 2] = const @k, @k.s
           %i: f32[1, 1, n, 32] = reshape %x
           %c: f32[1, 2, n, 31] = conv %i, %k { kernel = [1, 2] }
           %h:",
        1,
    );
    let kernel = "weight @k: i8[2, 1, 1, 2] = normal(4, 40)
        weight @k.s: f32[2, 1, 1, 1] = normal(5, 0.01)
        func";
    let m = module(&text.replacen("func", kernel, 1));
    for n in [50, 1500] {
        let data = inputs(&m, &[("n", n)], (0, 1), 3);
        let refs: Vec<&Tensor> = data.iter().collect();
        let want = run_cpu(&m, &data, 1);
        let undecoded = CpuOptions {
            decoded_bytes: 0,
            ..CpuOptions::new(Threads::single())
        };
        for options in [undecoded, CpuOptions::streamed(Threads::new(2).unwrap())] {
            let program = CpuProgram::new(&m, &options).unwrap();
            for _ in 0..2 {
                assert_eq!(program.run(&refs).unwrap(), want, "{options:?}");
            }
        }
    }
}

/// Bytes that count how often they are read.
#[derive(Debug, Default)]
struct Counted(AtomicUsize);

impl WeightBytes for Counted {
    fn bytes(&self) -> qcc_ir::diag::Result<Cow<'_, [u8]>> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(Cow::Borrowed(&[0; 4 * 6]))
    }
}

#[test]
fn streamed_constants_are_read_in_every_run_and_others_once() {
    let m = module(
        "qir 1
        weight @w: f32[3, 2] = extern
        func @main(%x: f32[4, 2]) -> (y: f32[4, 3]) {
          %w: f32[3, 2] = const @w
          %y: f32[4, 3] = linear %x, %w
          return %y
        }",
    );
    for (options, reads) in [
        (CpuOptions::new(Threads::single()), [1, 1, 1]),
        (CpuOptions::streamed(Threads::single()), [0, 1, 2]),
    ] {
        let source = Arc::new(Counted::default());
        let mut m = m.clone();
        m.weights[0].data = WeightData::Bytes(source.clone());
        let program = CpuProgram::new(&m, &options).unwrap();
        let mut seen = vec![source.0.load(Ordering::Relaxed)];
        for _ in 0..2 {
            program.run(&[&tensor(&[4, 2])]).unwrap();
            seen.push(source.0.load(Ordering::Relaxed));
        }
        assert_eq!(seen, reads);
    }
}

#[test]
fn a_program_is_shared_between_threads_of_the_caller() {
    let m = module(MLP);
    let program = crate::common::program(&m, 2);
    let want: Vec<Vec<Tensor>> = (1..5)
        .map(|n| run_cpu(&m, &inputs(&m, &[("n", n)], (0, 1), n as u64), 1))
        .collect();
    std::thread::scope(|s| {
        for (n, want) in (1..5).zip(&want) {
            let (m, program) = (&m, &program);
            s.spawn(move || {
                let data = inputs(m, &[("n", n)], (0, 1), n as u64);
                let refs: Vec<&Tensor> = data.iter().collect();
                assert_eq!(program.run(&refs).unwrap(), *want);
            });
        }
    });
}
