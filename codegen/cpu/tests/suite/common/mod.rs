//! Differential harness: a module in text form, run by the evaluator and by the CPU executor.

#![allow(dead_code, unreachable_pub)]

use qcc_cpu::{CpuOptions, CpuProgram, Threads};
use qcc_ir::format::{decode_slice, decode_slice_i64, encode_slice, encode_slice_i64};
use qcc_ir::graph::{Module, parse, verify};
use qcc_ir::{DType, Tensor, eval};

/// SplitMix64.
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Nearly normal, standard deviation 1.
    pub fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.unit()).sum::<f64>() - 6.0
    }
}

pub fn module(text: &str) -> Module {
    let m = parse(text).unwrap_or_else(|e| panic!("{e:?}\n{text}"));
    let problems = verify(&m);
    assert!(problems.is_empty(), "{problems:?}\n{text}");
    m
}

/// A random tensor: floats normal, integers in `lo..hi`.
pub fn random(rng: &mut Rng, dtype: DType, dims: &[u64], ints: (i64, i64)) -> Tensor {
    let mut t = Tensor::zeros(dtype, dims).unwrap();
    let n = t.numel();
    if dtype.is_float() {
        let v: Vec<f64> = (0..n).map(|_| rng.normal()).collect();
        encode_slice(dtype, &v, t.bytes_mut()).unwrap();
    } else {
        let (lo, hi) = if dtype == DType::Bool { (0, 2) } else { ints };
        let v: Vec<i64> = (0..n)
            .map(|_| lo + rng.below((hi - lo) as u64) as i64)
            .collect();
        encode_slice_i64(dtype, &v, t.bytes_mut()).unwrap();
    }
    t
}

/// Inputs for the entry function with these sizes of the symbols.
pub fn inputs(m: &Module, sizes: &[(&str, i64)], ints: (i64, i64), seed: u64) -> Vec<Tensor> {
    let mut rng = Rng(seed);
    let at = |s: &str| sizes.iter().find(|(n, _)| *n == s).map(|(_, v)| *v);
    let f = &m.funcs[0];
    f.params
        .iter()
        .map(|p| {
            let ty = f.ty(*p);
            let dims: Vec<u64> = ty
                .shape
                .iter()
                .map(|d| d.eval(&at).unwrap() as u64)
                .collect();
            random(&mut rng, ty.elem.plain().unwrap(), &dims, ints)
        })
        .collect()
}

pub fn program(m: &Module, threads: usize) -> CpuProgram {
    CpuProgram::new(m, &CpuOptions::new(Threads::new(threads).unwrap())).unwrap()
}

pub fn run_cpu(m: &Module, inputs: &[Tensor], threads: usize) -> Vec<Tensor> {
    let refs: Vec<&Tensor> = inputs.iter().collect();
    program(m, threads).run(&refs).unwrap()
}

pub fn floats(t: &Tensor) -> Vec<f64> {
    let mut v = vec![0f64; t.numel()];
    if t.dtype().is_float() {
        decode_slice(t.dtype(), t.bytes(), &mut v).unwrap();
    } else {
        let mut i = vec![0i64; t.numel()];
        decode_slice_i64(t.dtype(), t.bytes(), &mut i).unwrap();
        v.iter_mut().zip(i).for_each(|(v, i)| *v = i as f64);
    }
    v
}

/// How far a result may be from the oracle's.
#[derive(Clone, Copy)]
pub enum Close {
    /// The same bits.
    Exact,
    /// Relative to the element, and to the root mean square of the result.
    Rel(f64, f64),
    /// Codes of a quantized result: at most one step in this share of the elements.
    Codes(f64),
}

/// f32 results of a chain of a few ops.
pub const F32: Close = Close::Rel(1e-5, 1e-6);

pub fn compare(what: &str, got: &Tensor, want: &Tensor, close: Close) {
    assert_eq!(
        (got.dtype(), got.dims()),
        (want.dtype(), want.dims()),
        "{what}"
    );
    let (g, w) = (floats(got), floats(want));
    let rms = (w
        .iter()
        .filter(|v| v.is_finite())
        .map(|v| v * v)
        .sum::<f64>()
        / w.len().max(1) as f64)
        .sqrt();
    let mut off = 0usize;
    for (i, (a, b)) in g.iter().zip(&w).enumerate() {
        let same = a == b || (a.is_nan() && b.is_nan());
        let ok = match close {
            Close::Exact => same,
            Close::Rel(rel, abs) => same || (a - b).abs() <= rel * b.abs() + abs * rms,
            Close::Codes(_) => {
                off += usize::from(!same);
                (a - b).abs() <= 1.0
            }
        };
        assert!(
            ok,
            "{what}: element {i} of {:?} is {a}, the oracle has {b} (rms {rms})",
            got.dims()
        );
    }
    if let Close::Codes(share) = close {
        assert!(
            off as f64 <= share * g.len() as f64 + 1.0,
            "{what}: {off} of {} codes differ",
            g.len()
        );
    }
}

/// Runs the module by the oracle and on 1, 2 and 3 threads, and compares.
pub fn check(text: &str, sizes: &[(&str, i64)], ints: (i64, i64), close: Close) {
    let m = module(text);
    let inputs = inputs(&m, sizes, ints, 7 + text.len() as u64);
    let want = eval::run(&m, &inputs).unwrap_or_else(|e| panic!("{e}\n{text}"));
    let got = run_cpu(&m, &inputs, 1);
    assert_eq!(got.len(), want.len());
    for (i, (g, w)) in got.iter().zip(&want).enumerate() {
        compare(&format!("{text}\n{sizes:?}, result {i}"), g, w, close);
    }
    for threads in [2, 3] {
        assert_eq!(
            run_cpu(&m, &inputs, threads),
            got,
            "{threads} threads\n{text}"
        );
    }
}
