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

/// The arguments of the entry function, from the file's `input` directives; none if there are
/// no directives and no parameters.
pub(super) fn inputs(file: &Filetest, m: &Module) -> Result<Vec<Tensor>, String> {
    let mut given: Vec<(String, Tensor)> = file
        .directive("input")
        .map(tensor)
        .collect::<Result<_, _>>()?;
    if given.is_empty() && file.command == "opt" {
        return Ok(Vec::new());
    }
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

/// Equality bit for bit, or up to `tolerance · max(1, |want|)`.
pub(super) fn compare(
    name: &str,
    got: &Tensor,
    want: &Tensor,
    tolerance: f64,
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
    let near = |g: f64, w: f64| {
        // Equal infinities, or a finite difference that is small; NaN only where NaN is wanted.
        g == w || (g.is_nan() && w.is_nan()) || (g - w).abs() <= tolerance * w.abs().max(1.0)
    };
    let exact = tolerance == 0.0;
    for (i, (g, w)) in reals(got).into_iter().zip(reals(want)).enumerate() {
        if exact && g.to_bits() != w.to_bits() || !near(g, w) {
            return Err(format!("{name}: element {i} is {g:?}, expected {w:?}"));
        }
    }
    if exact {
        return Err(format!("{name}: the bits differ"));
    }
    Ok(())
}
