//! Small tensors in comments, in the syntax of weights: `x: f32[2] = [1, 2]`.

use super::Filetest;
use qcc_ir::format::{decode_slice, decode_slice_i64};
use qcc_ir::graph::{Module, parse};
use qcc_ir::{DType, Tensor, eval};

/// Named results.
pub(super) type Outputs = Vec<(String, Tensor)>;

/// A tensor and its name.
pub(super) fn tensor(text: &str) -> Result<(String, Tensor), String> {
    let m = parse(&format!("qir 1\nweight @{text}"))
        .map_err(|e| format!("`{text}`: {}", super::expect::show(&e)))?;
    let w = &m.weights[0];
    let t = eval::weight_tensor(w).map_err(|d| format!("`{text}`: {d}"))?;
    Ok((w.name.clone(), t))
}

/// The arguments of the entry function, from the file's `input` directives.
pub(super) fn inputs(file: &Filetest, m: &Module) -> Result<Vec<Tensor>, String> {
    let given = file.directive("input").map(tensor);
    arguments(m, given.collect::<Result<_, _>>()?)
}

/// The samples of the `calib` directives: the first of each name make the first sample.
pub(super) fn samples(file: &Filetest, m: &Module) -> Result<Vec<Vec<Tensor>>, String> {
    let mut samples: Vec<Vec<(String, Tensor)>> = Vec::new();
    for line in file.directive("calib") {
        let (name, t) = tensor(line)?;
        let free = |s: &&mut Vec<(String, Tensor)>| s.iter().all(|(n, _)| *n != name);
        match samples.iter_mut().find(free) {
            Some(s) => s.push((name, t)),
            None => samples.push(vec![(name, t)]),
        }
    }
    samples.into_iter().map(|s| arguments(m, s)).collect()
}

/// Tensors in the order of the parameters.
fn arguments(m: &Module, mut given: Vec<(String, Tensor)>) -> Result<Vec<Tensor>, String> {
    let f = m.funcs.first().ok_or("the module has no function")?;
    let mut out = Vec::new();
    for p in &f.params {
        let v = f.value(*p);
        let at = given.iter().position(|(n, _)| *n == v.name);
        let at = at.ok_or_else(|| format!("there is no `// input {}: …`", v.name))?;
        out.push(given.remove(at).1);
    }
    match given.first() {
        None => Ok(out),
        Some((n, _)) => Err(format!("there is no parameter `{n}`")),
    }
}

/// The results of the entry function on the oracle, with their names.
pub(super) fn results(m: &Module, args: &[Tensor]) -> Result<Outputs, String> {
    let out = eval::run(m, args).map_err(|d| d.to_string())?;
    let names = m.funcs.iter().take(1).flat_map(|f| &f.results);
    Ok(names.map(|(n, _)| n.clone()).zip(out).collect())
}

fn reals(t: &Tensor) -> Vec<f64> {
    let mut v = vec![0.0; t.numel()];
    decode_slice(t.dtype(), t.bytes(), &mut v).expect("a tensor has as many bytes as elements");
    v
}

fn header(t: &Tensor) -> String {
    let dims: Vec<String> = t.dims().iter().map(ToString::to_string).collect();
    format!("{}[{}]", t.dtype(), dims.join(", "))
}

/// `f32[2] = [1.0, 2.0]`: each element in the shortest form that gives its bits.
pub(super) fn show(t: &Tensor) -> String {
    let elements: Vec<String> = match t.dtype() {
        DType::F64 => reals(t).iter().map(|v| format!("{v:?}")).collect(),
        d if d.is_float() => reals(t)
            .iter()
            .map(|v| format!("{:?}", *v as f32))
            .collect(),
        DType::Bool => t.bytes().iter().map(u8::to_string).collect(),
        d => {
            let mut v = vec![0; t.numel()];
            decode_slice_i64(d, t.bytes(), &mut v).expect("a tensor has as many bytes as elements");
            v.iter().map(i64::to_string).collect()
        }
    };
    format!("{} = [{}]", header(t), elements.join(", "))
}

/// The names of results, for messages.
pub(super) fn names(o: &Outputs) -> String {
    let names: Vec<&str> = o.iter().map(|(n, _)| n.as_str()).collect();
    names.join(", ")
}

/// How far a result may lie from what is wanted.
#[derive(Clone, Copy)]
pub(super) enum Tolerance {
    /// Not at all.
    Bits,
    /// As a share of max(1, magnitude).
    Real(f64),
    /// Not at all in integers; in floats, where another order of operations may round
    /// differently, one step of the format at max(1, magnitude), and 1e-5 for wide ones.
    Format,
}

impl Tolerance {
    fn of(self, d: DType) -> f64 {
        match (self, d) {
            (Tolerance::Bits, _) => 0.0,
            (Tolerance::Real(t), _) => t,
            (Tolerance::Format, DType::F64 | DType::F32) => 1e-5,
            (Tolerance::Format, DType::F16) => 1.0 / 1024.0,
            (Tolerance::Format, DType::BF16) => 1.0 / 128.0,
            (Tolerance::Format, DType::E4M3) => 1.0 / 8.0,
            (Tolerance::Format, DType::E5M2) => 1.0 / 4.0,
            (Tolerance::Format, _) => 0.0,
        }
    }
}

/// Compares two tensors; the error names the first element that is too far off.
pub(super) fn compare(
    name: &str,
    got: &Tensor,
    want: &Tensor,
    tolerance: Tolerance,
) -> Result<(), String> {
    if header(got) != header(want) {
        return Err(format!(
            "{name}: expected {}, got {}",
            header(want),
            header(got)
        ));
    }
    if got.bytes() == want.bytes() {
        return Ok(());
    }
    let limit = tolerance.of(want.dtype());
    // NaN only where NaN is wanted, of any sign and payload; else equal bits, equal infinities,
    // or a finite difference that is small.
    let near = |g: f64, w: f64| {
        let same = g.to_bits() == w.to_bits() || (limit > 0.0 && g == w);
        same || (g.is_nan() && w.is_nan())
            || (limit > 0.0 && (g - w).abs() <= limit * w.abs().max(1.0))
    };
    for (i, (g, w)) in reals(got).into_iter().zip(reals(want)).enumerate() {
        if !near(g, w) {
            return Err(format!("{name}: element {i} is {g:?}, expected {w:?}"));
        }
    }
    // Large integers may differ although they are equal as f64.
    match want.dtype().is_float() {
        true => Ok(()),
        false => Err(format!("{name}: the bits differ")),
    }
}
