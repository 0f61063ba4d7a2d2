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
//! `awq`, `gptq` and `mse` alone do what their papers and public implementations do. They combine
//! as `awq,gptq` (the scales of the one, then the rounding of the other; `refine` is part of it),
//! `gptq,refine` and `mse,gptq`. Without a choice, integer weights of at most 4 bits get
//! `awq,gptq` with calibration data and `mse` without; all others `rtn`.

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

    /// The name.
    pub fn name(self) -> &'static str {
        NAMES
            .iter()
            .find(|(_, a)| *a == self)
            .map_or("", |(n, _)| n)
    }
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
    pub(crate) fn of(chosen: Option<&[Algo]>, spec: &QuantSpec, data: bool) -> Self {
        if !spec.are_integers() {
            let table = spec.is_table();
            return Methods {
                table,
                weighted: table && data,
                ..Methods::default()
            };
        }
        let has = |a| chosen.is_some_and(|c| c.contains(&a));
        match (chosen, spec.bits <= 4) {
            (Some(_), _) => Methods {
                mse: has(Algo::Mse),
                hqq: has(Algo::Hqq),
                awq: has(Algo::Awq),
                gptq: has(Algo::Gptq),
                refine: has(Algo::Gptq) && (has(Algo::Awq) || has(Algo::Refine)),
                ..Methods::default()
            },
            (None, true) => Methods {
                mse: !data,
                awq: data,
                gptq: data,
                refine: data,
                ..Methods::default()
            },
            (None, false) => Methods::default(),
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
        let of = |name: &str, data| {
            let s = Scheme::named(name).unwrap();
            let m = Methods::of(None, &s.weights.unwrap().resolved(data).0, data);
            (m.mse, m.awq, m.gptq, m.refine)
        };
        assert_eq!(of("int4", true), (false, true, true, true));
        assert_eq!(of("int4", false), (true, false, false, false));
        assert_eq!(of("int8", true), (false, false, false, false));
        assert_eq!(of("fp8", false), (false, false, false, false));
    }

    #[test]
    fn gptq_alone_is_the_published_method() {
        let refines = |names| {
            let spec = Scheme::named("int4").unwrap().weights.unwrap();
            let chosen = Algo::list(names).unwrap();
            Methods::of(Some(&chosen), &spec.resolved(true).0, true).refine
        };
        assert!(!refines("gptq") && !refines("mse,gptq") && !refines("awq"));
        assert!(refines("gptq,refine") && refines("awq,gptq"));
    }
}
