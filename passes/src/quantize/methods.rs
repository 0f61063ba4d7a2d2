//! The weight methods, and which of them a layer gets.
//!
//! | name | what it does | needs data |
//! |---|---|---|
//! | `rtn` | rounds to nearest | |
//! | `mse` | clips the ranges of groups ([`clip`](super::clip), on the weights alone) | |
//! | `hqq` | moves scales and zero points ([`hqq`](super::hqq)) | |
//! | `awq` | scales input channels ([`awq`](super::awq)), then clips on the layer's outputs | yes |
//! | `gptq` | makes each rounding error good by the columns behind it ([`gptq`](super::gptq)) | yes |
//! | `refine` | with `gptq`: searches ranges ([`range_search`](super::range_search)) as it goes, then codes and grids in turn ([`refine`](super::refine)) | yes |
//!
//! Codes may be integers, floats or indices of tables, but `hqq` needs integers and `mse` ranges.
//! What several output channels share (`-tensor`, `-block128`) is not moved row by row: `hqq` and
//! `refine` leave such weights alone. A method that does not apply to a weight does nothing to it;
//! where it applies to none, the user is told.
//!
//! `awq`, `gptq` and `mse` alone do what their papers and public implementations do. They combine
//! as `awq,gptq` (the scales of the one, then the rounding of the other; `refine` is part of it),
//! `gptq,refine` and `mse,gptq`. Without a choice, integer and float weights of at most 4 bits get
//! `awq,gptq` with samples of calibration data and `gptq,refine` where statistics hold `XᵀX`. Without
//! either, integers get `mse`; all others `rtn`.

use super::scheme::QuantSpec;
use qcc_ir::diag::{Class, Diagnostic, Result};

/// A weight method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algo {
    /// Round to nearest.
    Rtn,
    /// Ranges of groups by the error of the weights.
    Mse,
    /// Scales and zero points by a robust error of the weights.
    Hqq,
    /// Scales of input channels and ranges of groups by the error of outputs.
    Awq,
    /// Rounding column by column.
    Gptq,
    /// Codes and ranges that are better yet for the error of outputs.
    Refine,
}

const NAMES: [(&str, Algo); 6] = [
    ("rtn", Algo::Rtn),
    ("mse", Algo::Mse),
    ("hqq", Algo::Hqq),
    ("awq", Algo::Awq),
    ("gptq", Algo::Gptq),
    ("refine", Algo::Refine),
];

impl Algo {
    /// The methods of a list of names with commas between.
    ///
    /// # Errors
    /// `Q0047` for an unknown name, or methods that do not combine.
    pub fn list(names: &str) -> Result<Vec<Algo>> {
        let bad = |message: String| {
            Err(Diagnostic::error(47, Class::Usage, message)
                .hint("weight methods are rtn, mse, hqq, awq, gptq, and together awq,gptq (which refines), gptq,refine and mse,gptq"))
        };
        let mut out = Vec::new();
        for name in names.split(',') {
            match NAMES.iter().find(|(n, _)| *n == name) {
                Some((_, a)) if !out.contains(a) => out.push(*a),
                Some(_) => return bad(format!("`{name}` is named twice")),
                None => return bad(format!("there is no weight method `{name}`")),
            }
        }
        out.sort_unstable();
        match out.as_slice() {
            [Algo::Refine] => bad("`refine` improves what gptq made".into()),
            [_]
            | [Algo::Awq, Algo::Gptq]
            | [Algo::Awq, Algo::Gptq, Algo::Refine]
            | [Algo::Gptq, Algo::Refine]
            | [Algo::Mse, Algo::Gptq] => Ok(out),
            _ => bad(format!("`{names}` do not combine")),
        }
    }

    /// Whether it does anything to weights of this form.
    pub(super) fn applies(self, spec: &QuantSpec) -> bool {
        match self {
            Algo::Rtn | Algo::Mse => !spec.is_table(),
            Algo::Hqq => spec.are_integers() && !spec.shares_rows(),
            Algo::Awq | Algo::Gptq => true,
            Algo::Refine => !spec.shares_rows(),
        }
    }

    /// The name.
    pub fn name(self) -> &'static str {
        NAMES
            .iter()
            .find(|(_, a)| *a == self)
            .map_or("", |(n, _)| n)
    }
}

/// What is known of a layer's inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Inputs {
    /// Nothing that a weight method could use.
    Unknown,
    /// `XᵀX`, as the float model makes it.
    Gram,
    /// Samples of the model's inputs.
    Samples,
}

/// The methods of one layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Methods {
    pub(crate) mse: bool,
    pub(crate) hqq: bool,
    pub(crate) awq: bool,
    pub(crate) gptq: bool,
    pub(crate) refine: bool,
    /// Tables of values ([`table`](super::table)).
    pub(crate) table: bool,
    /// Whether errors of a table are weighted by the inputs.
    pub(crate) weighted: bool,
}

impl Methods {
    /// Those for weights of this form.
    pub(crate) fn of(chosen: Option<&[Algo]>, spec: &QuantSpec, inputs: Inputs) -> Self {
        let table = spec.is_table();
        let usual: &[Algo] = match (spec.bits <= 4 && !table, inputs) {
            (true, Inputs::Samples) => &[Algo::Awq, Algo::Gptq],
            (true, Inputs::Gram) => &[Algo::Gptq, Algo::Refine],
            (true, Inputs::Unknown) if spec.are_integers() => &[Algo::Mse],
            _ => &[Algo::Rtn],
        };
        let named = chosen.unwrap_or(usual);
        let has = |a: Algo| named.contains(&a) && a.applies(spec);
        let refine = named.contains(&Algo::Awq) || named.contains(&Algo::Refine);
        Methods {
            mse: has(Algo::Mse),
            hqq: has(Algo::Hqq),
            awq: has(Algo::Awq),
            gptq: has(Algo::Gptq),
            refine: has(Algo::Gptq) && refine && Algo::Refine.applies(spec),
            table,
            weighted: table && inputs != Inputs::Unknown,
        }
    }

    /// Whether they need calibration data.
    pub(crate) fn need_data(self) -> bool {
        self.awq || self.gptq || self.weighted
    }

    /// Whether they give something that rounding to nearest does not.
    pub(crate) fn any(self) -> bool {
        self.mse || self.hqq || self.table || self.need_data()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Scheme;
    use super::*;

    #[test]
    fn lists() {
        assert_eq!(Algo::list("rtn").unwrap(), [Algo::Rtn]);
        assert_eq!(Algo::list("gptq,awq").unwrap(), [Algo::Awq, Algo::Gptq]);
        for bad in [
            "",
            "awq,",
            "awq,awq",
            "rtn,gptq",
            "mse,awq",
            "hqq,gptq",
            "hqqq",
            "refine",
            "awq,refine",
        ] {
            assert_eq!(Algo::list(bad).unwrap_err().code(), "Q0047", "{bad}");
        }
    }

    #[test]
    fn defaults_depend_on_bits_and_data() {
        let of = |name: &str, inputs| {
            let s = Scheme::named(name).unwrap();
            let m = Methods::of(None, &s.weights.unwrap().resolved(true).0, inputs);
            (m.mse, m.awq, m.gptq, m.refine)
        };
        assert_eq!(of("int4", Inputs::Samples), (false, true, true, true));
        assert_eq!(of("int4", Inputs::Gram), (false, false, true, true));
        assert_eq!(of("int4", Inputs::Unknown), (true, false, false, false));
        for name in ["nvfp4", "mxfp4", "nf4"] {
            assert_eq!(of(name, Inputs::Samples), (false, true, true, true));
            assert_eq!(of(name, Inputs::Unknown), (false, false, false, false));
        }
        assert_eq!(of("lut4", Inputs::Samples), (false, false, false, false));
        assert_eq!(of("int8", Inputs::Samples), (false, false, false, false));
        assert_eq!(of("fp8", Inputs::Unknown), (false, false, false, false));
    }

    #[test]
    fn methods_leave_alone_what_they_do_not_apply_to() {
        let of = |name: &str, algo: &str| {
            let spec = Scheme::named(name)
                .unwrap()
                .weights
                .unwrap()
                .resolved(true)
                .0;
            let chosen = Algo::list(algo).unwrap();
            Methods::of(Some(&chosen), &spec, Inputs::Samples)
        };
        for name in ["nvfp4", "mxfp4", "nf4", "fp8", "int8", "lut4"] {
            let m = of(name, "awq,gptq");
            assert!(m.awq && m.gptq && m.refine, "{name}");
        }
        for name in ["int8-tensor", "int8-block128", "fp8-tensor"] {
            let m = of(name, "gptq,refine");
            assert!(m.gptq && !m.refine, "{name}");
        }
        assert!(!of("nvfp4", "hqq").any() && !of("w4a16-tensor", "hqq").any());
        assert!(!of("lut4", "mse").mse && of("nf4", "mse").mse);
    }

    #[test]
    fn gptq_alone_is_the_published_method() {
        let refines = |names| {
            let spec = Scheme::named("int4").unwrap().weights.unwrap();
            let chosen = Algo::list(names).unwrap();
            Methods::of(Some(&chosen), &spec.resolved(true).0, Inputs::Samples).refine
        };
        assert!(!refines("gptq") && !refines("mse,gptq") && !refines("awq"));
        assert!(refines("gptq,refine") && refines("awq,gptq"));
    }
}
