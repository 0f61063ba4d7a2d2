//! Schemes as data: what is stored in which format, and how many numbers share a scale.
//!
//! | name | weights | activations |
//! |---|---|---|
//! | `float` | as they are | as they are |
//! | `fp8` | e4m3, absmax/448 per output channel | e4m3, absmax/448: static per tensor with calibration data, else dynamic per token |
//! | `int8` | i8 in [−127, 127], absmax/127 per output channel | i8 in [−127, 127], absmax/127, dynamic per token; of convolutions static per tensor |
//!
//! A suffix fixes the activations whatever the options say: `-static`, `-dynamic`, or
//! `-weights` for none (`fp8-static`, `int8-weights`, …).

use crate::options::ActMode;
use qcc_ir::diag::{Class, Diagnostic, Result};
use qcc_ir::format::{BlockShape, DType, FormatError, QuantFormat, Range};
use qcc_ir::graph::QuantType;

/// How many elements share one scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Granularity {
    /// The whole tensor.
    Tensor,
    /// One index of the first dimension: an output channel of a weight.
    Channel,
    /// One row along the last dimension: a token of an activation.
    Token,
}

/// How one tensor is quantized: symmetric, scale = absmax / largest code, in f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct QuantSpec {
    /// Format of the codes.
    pub storage: DType,
    /// Elements that share a scale.
    pub granularity: Granularity,
    /// Whether a signed integer avoids its lowest code.
    pub narrow: bool,
}

/// What is quantized, and how.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Scheme {
    /// Its name.
    pub name: String,
    /// Storage of weights and activations; `None` for float. Integers are narrow.
    pub storage: Option<DType>,
    /// How activations are quantized, unless the options say otherwise.
    pub act: ActMode,
    /// Whether `ActMode::Auto` takes static activations where there is calibration data.
    pub prefers_static: bool,
}

/// Storage and preference of the named schemes.
const NAMED: &[(&str, Option<DType>, bool)] = &[
    ("float", None, false),
    ("fp8", Some(DType::E4M3), true),
    ("int8", Some(DType::I8), false),
];

const SUFFIXES: &[(&str, ActMode)] = &[
    ("-static", ActMode::Static),
    ("-dynamic", ActMode::Dynamic),
    ("-weights", ActMode::Float),
];

impl Scheme {
    /// The scheme that quantizes nothing.
    pub fn float() -> Self {
        Scheme {
            name: "float".into(),
            storage: None,
            act: ActMode::Auto,
            prefers_static: false,
        }
    }

    /// The scheme of this name.
    ///
    /// # Errors
    /// `Q0041` when there is none; the hint lists those that exist.
    pub fn named(name: &str) -> Result<Self> {
        let (base, act) = SUFFIXES
            .iter()
            .find_map(|(s, act)| Some((name.strip_suffix(s)?, *act)))
            .unwrap_or((name, ActMode::Auto));
        match NAMED.iter().find(|(n, ..)| *n == base) {
            Some((_, storage, prefers_static)) if storage.is_some() || base == name => Ok(Scheme {
                name: name.into(),
                storage: *storage,
                act,
                prefers_static: *prefers_static,
            }),
            _ => Err(
                Diagnostic::error(41, Class::Usage, format!("there is no scheme `{name}`")).hint(
                    "schemes are: float, fp8, int8, and fp8 or int8 with -static, -dynamic or \
                     -weights",
                ),
            ),
        }
    }
}

impl QuantSpec {
    /// The codes.
    ///
    /// # Errors
    /// When the storage holds no codes, or has no narrow range.
    pub fn format(&self) -> std::result::Result<QuantFormat, FormatError> {
        let range = if self.narrow {
            Range::Narrow
        } else {
            Range::Full
        };
        QuantFormat::new(self.storage, range)
    }

    /// The type of a quantized tensor of this rank.
    pub fn quant_type(&self, rank: usize, dynamic: bool) -> QuantType {
        let block = match self.granularity {
            Granularity::Tensor => BlockShape::tensor(rank),
            Granularity::Channel => BlockShape::axis(rank, 0),
            Granularity::Token => BlockShape::row(rank),
        };
        QuantType {
            dynamic,
            narrow: self.narrow,
            ..QuantType::symmetric(self.storage, block)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (name, ..) in NAMED {
            assert_eq!(Scheme::named(name).unwrap().name, *name);
        }
        let s = Scheme::named("int8-static").unwrap();
        assert_eq!((s.storage, s.act), (Some(DType::I8), ActMode::Static));
        for bad in ["", "fp4", "float-static", "-static", "fp8-"] {
            assert_eq!(Scheme::named(bad).unwrap_err().code(), "Q0041", "{bad}");
        }
    }

    #[test]
    fn types() {
        let spec = |granularity, storage, narrow| QuantSpec {
            storage,
            granularity,
            narrow,
        };
        let i8 = spec(Granularity::Token, DType::I8, true).quant_type(3, true);
        let text = qcc_ir::graph::Elem::Quant(i8).to_string();
        assert_eq!(text, "q<i8, [1, 1, *], scale=f32, dynamic, narrow>");
        let e4m3 = spec(Granularity::Channel, DType::E4M3, false).quant_type(4, false);
        let text = qcc_ir::graph::Elem::Quant(e4m3).to_string();
        assert_eq!(text, "q<e4m3, [1, *, *, *], scale=f32>");
        assert!(
            spec(Granularity::Tensor, DType::E4M3, true)
                .format()
                .is_err()
        );
    }
}
