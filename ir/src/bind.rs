//! Binding the symbols of a function's shapes to the extents of its inputs.

use crate::diag::{Class, Diagnostic, Result};
use crate::graph::{Func, Module, TensorType};
use crate::tensor::Tensor;
use std::collections::BTreeMap;

/// The size of each symbol in one run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sizes(BTreeMap<String, i64>);

impl Sizes {
    /// The size of a symbol, if it is bound.
    pub fn get(&self, name: &str) -> Option<i64> {
        self.0.get(name).copied()
    }

    /// The extents of a type, all symbols replaced.
    ///
    /// # Errors
    /// When a symbol is unbound or an extent is negative or overflows.
    pub fn dims(&self, t: &TensorType) -> Result<Vec<u64>> {
        t.shape
            .iter()
            .map(|d| {
                let v = d.eval(&|s| self.get(s));
                v.and_then(|v| u64::try_from(v).ok()).ok_or_else(|| {
                    Diagnostic::error(
                        506,
                        Class::Input,
                        format!("the extent {d} of {t} has no size of 0 or more for these inputs"),
                    )
                })
            })
            .collect()
    }
}

impl<S: Into<String>> FromIterator<(S, i64)> for Sizes {
    fn from_iter<I: IntoIterator<Item = (S, i64)>>(i: I) -> Self {
        Sizes(i.into_iter().map(|(s, v)| (s.into(), v)).collect())
    }
}

/// Checks inputs against the parameters of `func` and solves for the symbols.
///
/// A parameter's extent that is a bare symbol binds it; any other expression is checked once
/// all symbols are bound.
///
/// # Errors
/// When the number, a format, a rank or an extent of the inputs does not fit, or a size lies
/// outside its symbol's declared range. The message names both sides.
pub fn bind_inputs(m: &Module, func: &Func, inputs: &[&Tensor]) -> Result<Sizes> {
    let bad = |name: &str, msg: String| {
        Diagnostic::error(505, Class::Input, msg).at(format!("input {name}"))
    };
    if inputs.len() != func.params.len() {
        return Err(bad(
            &func.name,
            format!(
                "{} inputs were given, {} are needed",
                inputs.len(),
                func.params.len()
            ),
        ));
    }
    let mut sizes = Sizes::default();
    for (p, t) in func.params.iter().zip(inputs) {
        let v = func.value(*p);
        if v.ty.elem.plain() != Some(t.dtype()) || v.ty.rank() != t.dims().len() {
            return Err(bad(
                &v.name,
                format!("{}{:?} was given, {} is needed", t.dtype(), t.dims(), v.ty),
            ));
        }
        for (d, n) in v.ty.shape.iter().zip(t.dims()) {
            let n = i64::try_from(*n).unwrap_or(i64::MAX);
            let Some(s) = d.as_sym() else { continue };
            let (lo, hi) = m.symbol_range(s);
            if n < lo || n > hi {
                return Err(bad(
                    &v.name,
                    format!("{s} = {n} lies outside the compiled range {lo}..{hi}"),
                ));
            }
            if *sizes.0.entry(s.to_string()).or_insert(n) != n {
                return Err(bad(
                    &v.name,
                    format!(
                        "{s} = {n} here, but {} in an earlier input",
                        sizes.get(s).unwrap_or(0)
                    ),
                ));
            }
        }
    }
    for (p, t) in func.params.iter().zip(inputs) {
        let v = func.value(*p);
        let want = sizes.dims(&v.ty)?;
        if want != t.dims() {
            return Err(bad(
                &v.name,
                format!("{:?} was given, {} = {want:?} is needed", t.dims(), v.ty),
            ));
        }
    }
    Ok(sizes)
}
