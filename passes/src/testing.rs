//! Text in, text out: how the passes are tested.

use crate::{Manager, Options, PassContext, Samples, registry};
use qcc_ir::diag::Result;
use qcc_ir::exec::{Executor, Prepared};
use qcc_ir::format::{decode_slice, encode_slice};
use qcc_ir::graph::{Module, ValueId, parse};
use qcc_ir::{Tensor, eval};

/// The module of a text without its version line.
pub(crate) fn module(text: &str) -> Module {
    parse(&format!("qir 1\n{text}")).unwrap_or_else(|errors| {
        let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
        panic!("{}\nin{text}", lines.join("\n"))
    })
}

/// Runs passes with default options.
pub(crate) fn run(passes: &str, m: Module) -> Result<Module> {
    run_with(passes, m, &mut PassContext::new(&Options::default()))
}

/// Runs passes in a context.
pub(crate) fn run_with(passes: &str, m: Module, ctx: &mut PassContext<'_>) -> Result<Module> {
    let out = Manager::new(registry::parse_list(passes)?).run(m, ctx)?;
    Ok(out.module)
}

/// Checks that passes make `expected` of `text`, and that both compute the same.
pub(crate) fn check(passes: &str, text: &str, expected: &str) {
    let before = module(text);
    let after = run(passes, before.clone()).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(after.to_string(), module(expected).to_string());
    let d = difference(&before, &after);
    assert!(d <= 1e-6, "results differ by {d}");
}

/// Checks that passes leave a module as it is.
pub(crate) fn declines(passes: &str, text: &str) {
    check(passes, text, text);
}

/// The largest difference between the results of two modules on the same random inputs,
/// relative to the largest magnitude of the first's.
pub(crate) fn difference(a: &Module, b: &Module) -> f64 {
    let inputs = inputs(a, 1);
    let [a, b] = [a, b].map(|m| eval::run(m, &inputs).unwrap_or_else(|e| panic!("{e}\n{m}")));
    assert_eq!(a.len(), b.len());
    a.iter()
        .zip(&b)
        .map(|(a, b)| distance(a, b))
        .fold(0.0, f64::max)
}

/// As [`difference`] for two tensors; infinite where only one is NaN.
pub(crate) fn distance(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!((a.dtype(), a.dims()), (b.dtype(), b.dims()));
    let [a, b] = [a, b].map(values);
    let scale = a.iter().fold(1e-30f64, |m, v| m.max(v.abs()));
    let differ = |(a, b): (&f64, &f64)| match (a.is_nan(), b.is_nan()) {
        (true, true) => 0.0,
        (false, false) if a == b => 0.0,
        (false, false) => (a - b).abs() / scale,
        _ => f64::INFINITY,
    };
    a.iter().zip(&b).map(differ).fold(0.0, f64::max)
}

/// The elements of a tensor.
pub(crate) fn values(t: &Tensor) -> Vec<f64> {
    let mut v = vec![0.0; t.numel()];
    decode_slice(t.dtype(), t.bytes(), &mut v).unwrap();
    v
}

/// Inputs for the entry function: deviates for floats, small numbers for integers. The symbol at
/// position `i` of the module has the size `i + 2`, limited to its range.
pub(crate) fn inputs(m: &Module, seed: u64) -> Vec<Tensor> {
    let size = |name: &str| {
        let i = m.symbols.iter().position(|s| s.name == name)?;
        let s = &m.symbols[i];
        Some((i as i64 + 2).clamp(s.min as i64, s.max as i64))
    };
    let f = &m.funcs[0];
    let tensor = |(i, v): (usize, &qcc_ir::graph::ValueId)| {
        let ty = f.ty(*v);
        let dims: Vec<u64> = ty
            .shape
            .iter()
            .map(|d| d.eval(&size).unwrap() as u64)
            .collect();
        let dtype = ty.elem.plain().unwrap();
        let n = dims.iter().product::<u64>() as usize;
        let v = match dtype.is_float() {
            true => eval::normal(seed + i as u64, 1.0, n),
            false if dtype.is_int() => (0..n).map(|i| (i % 3) as f64).collect(),
            false => (0..n).map(|i| (i % 2) as f64).collect(),
        };
        let mut t = Tensor::zeros(dtype, &dims).unwrap();
        encode_slice(dtype, &v, t.bytes_mut()).unwrap();
        t
    };
    f.params.iter().enumerate().map(tensor).collect()
}

/// Samples in memory.
pub(crate) struct Held(pub(crate) Vec<Vec<Tensor>>);

impl Samples for Held {
    fn batches(&self) -> usize {
        self.0.len()
    }

    fn batch(&self, index: usize) -> Result<Vec<Tensor>> {
        Ok(self.0[index].clone())
    }
}

/// Runs modules by the evaluator.
pub(crate) struct Oracle;

struct Ready<'m> {
    module: &'m Module,
    taps: Vec<ValueId>,
}

impl Executor for Oracle {
    fn prepare<'m>(&self, module: &'m Module, taps: &[ValueId]) -> Result<Box<dyn Prepared + 'm>> {
        let taps = taps.to_vec();
        Ok(Box::new(Ready { module, taps }))
    }
}

impl Prepared for Ready<'_> {
    fn run(
        &mut self,
        inputs: &[Tensor],
        tap: &mut dyn FnMut(usize, &Tensor),
    ) -> Result<Vec<Tensor>> {
        for (p, t) in self.module.funcs[0].params.iter().zip(inputs) {
            if let Some(i) = self.taps.iter().position(|v| v == p) {
                tap(i, t);
            }
        }
        eval::run_with(self.module, inputs, &mut |v, b| {
            if let Some(i) = self.taps.iter().position(|t| *t == v) {
                tap(i, &b.codes);
            }
        })
    }
}
