//! Schemes as data: what is stored in which format, and how many numbers share a scale.
//!
//! | name | weights | activations |
//! |---|---|---|
//! | `float` | as they are | as they are |
//! | `fp8` | e4m3, absmax/448 per output channel | e4m3, absmax/448: static per tensor with calibration data, else dynamic per token |
//! | `int8` | i8 in [−127, 127], absmax/127 per output channel | i8 in [−127, 127], absmax/127, dynamic per token; of convolutions static per tensor |
//! | `int4[-⟨grid⟩]` | with calibration data as `w4a16-g128-asym`, else as `w4a16-g32-asym` | as they are |
//!
//! A suffix fixes the activations whatever the options say: `-static`, `-dynamic`, or
//! `-weights` for none (`fp8-static`, `int8-weights`, …).
//!
//! Further names are put together: `w⟨bits⟩a⟨16|8⟩[-g⟨size⟩][-⟨grid⟩]`, such as `w4a16-g128-asym`.
//! Weights have 2, 3, 4 or 8 bits; activations stay as they are (`a16`) or are those of `int8`
//! (`a8`). `size` input channels of an output channel share a scale, all of them without `-g`
//! (the last group of a row may be shorter). The [`Grid`] is `asym`, `sym` (the default),
//! `sym-narrow` or `sym-full`.

use super::grid::Grid;
use crate::options::ActMode;
use qcc_ir::diag::{Class, Diagnostic, Result};
use qcc_ir::format::{BlockShape, DType, FormatError, IntRange, QuantFormat, Range};
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
    /// This many consecutive elements of the last dimension: input channels of one output
    /// channel.
    Group(u32),
}

/// How one tensor is quantized.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct QuantSpec {
    /// Format of the codes.
    pub storage: DType,
    /// Bits of a code that are used, from the lowest.
    pub bits: u32,
    /// Elements that share a scale.
    pub granularity: Granularity,
    /// How scale and zero point follow from the values.
    pub grid: Grid,
}

/// How many input channels of a weight share a scale, as asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Group {
    /// All of them.
    Channel,
    /// 128 with calibration data, 32 without.
    Auto,
    /// This many.
    Of(u32),
}

/// How weights are quantized.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Weights {
    /// Format of the codes.
    pub storage: DType,
    /// Bits of a code that are used.
    pub bits: u32,
    /// Elements that share a scale.
    pub group: Group,
    /// How scale and zero point follow from the values.
    pub grid: Grid,
}

/// What is quantized, and how.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Scheme {
    /// Its name.
    pub name: String,
    /// Weights; `None` for float.
    pub weights: Option<Weights>,
    /// Storage of activations, symmetric; `None` for float. Integers are narrow.
    pub acts: Option<DType>,
    /// How activations are quantized, unless the options say otherwise.
    pub act: ActMode,
    /// Whether `ActMode::Auto` takes static activations where there is calibration data.
    pub prefers_static: bool,
}

/// Group sizes that have names.
const SIZES: [u32; 5] = [16, 32, 64, 128, 256];

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
            weights: None,
            acts: None,
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
        let scheme = Self::fixed(base).or_else(|| Self::composed(base));
        match scheme {
            Some(s) if s.acts.is_some() || base == name => Ok(Scheme {
                name: name.into(),
                act,
                ..s
            }),
            _ => Err(
                Diagnostic::error(41, Class::Usage, format!("there is no scheme `{name}`")).hint(
                    "schemes are: float, fp8, int8, int4[-⟨grid⟩], and w⟨2|3|4|8⟩a⟨16|8⟩[-g⟨16|32|64|128|\
                     256⟩][-⟨asym|sym|sym-narrow|sym-full⟩]; fp8, int8 and those with a8 also with \
                     -static, -dynamic or -weights",
                ),
            ),
        }
    }

    /// The schemes with names of their own.
    fn fixed(name: &str) -> Option<Self> {
        let weights = |storage: DType, group, grid| {
            let bits = storage.bits();
            Some(Weights {
                storage,
                bits,
                group,
                grid,
            })
        };
        let (weights, acts, prefers_static) = match name {
            "float" => return Some(Scheme::float()),
            "fp8" => (
                weights(DType::E4M3, Group::Channel, Grid::Greatest),
                Some(DType::E4M3),
                true,
            ),
            "int8" => (
                weights(DType::I8, Group::Channel, Grid::Greatest),
                Some(DType::I8),
                false,
            ),
            _ => {
                let grid = match name.strip_prefix("int4")? {
                    "" => Grid::Asymmetric,
                    grid => Grid::named(grid.strip_prefix('-')?)?,
                };
                (Some(Weights::integer(4, Group::Auto, grid)), None, false)
            }
        };
        Some(Scheme {
            name: name.into(),
            weights,
            acts,
            act: ActMode::Auto,
            prefers_static,
        })
    }

    /// The schemes whose names are put together.
    fn composed(name: &str) -> Option<Self> {
        let (head, rest) = name.split_once('-').unwrap_or((name, ""));
        let (bits, acts) = head.strip_prefix('w')?.split_once('a')?;
        let bits = [2, 3, 4, 8].into_iter().find(|b| b.to_string() == bits)?;
        let acts = match acts {
            "16" => None,
            "8" => Some(DType::I8),
            _ => return None,
        };
        let (group, grid) = match rest.strip_prefix('g') {
            None => (Group::Channel, rest),
            Some(sized) => {
                let (size, grid) = sized.split_once('-').unwrap_or((sized, ""));
                let size = SIZES.into_iter().find(|n| n.to_string() == size)?;
                (Group::Of(size), grid)
            }
        };
        let grid = match grid {
            "" if !name.ends_with('-') => Grid::Half,
            named => Grid::named(named)?,
        };
        Some(Scheme {
            name: name.into(),
            weights: Some(Weights::integer(bits, group, grid)),
            acts,
            act: ActMode::Auto,
            prefers_static: false,
        })
    }

    /// The scheme with another group size or grid of its weights, under the name that it then
    /// has.
    ///
    /// # Errors
    /// `Q0041` when the weights are no integers, or a group of this size has no name.
    pub fn refined(&self, size: Option<u32>, grid: Option<Grid>) -> Result<Self> {
        if size.is_none() && grid.is_none() {
            return Ok(self.clone());
        }
        let Some(w) = self.weights.filter(|w| w.storage.is_int()) else {
            let message = format!(
                "the scheme `{}` has no groups of integer weights",
                self.name
            );
            return Err(Diagnostic::error(41, Class::Usage, message)
                .hint("--group-size, --sym and --asym refine int4, int8 and w⟨bits⟩a… schemes"));
        };
        let group = size.map_or(w.group, Group::Of);
        let grid = grid.unwrap_or(w.grid);
        let name = match group {
            // Without a size the choice of one stays open.
            Group::Auto => format!("int4-{}", grid.name()),
            _ => Weights::integer(w.bits, group, grid).name(self.acts),
        };
        Ok(Scheme {
            act: self.act,
            ..Scheme::named(&name)?
        })
    }
}

impl Weights {
    /// Integers of this many bits.
    fn integer(bits: u32, group: Group, grid: Grid) -> Self {
        let storage = match (bits, grid) {
            (8, Grid::Asymmetric) => DType::U8,
            (8, _) => DType::I8,
            (_, Grid::Asymmetric) => DType::U4,
            _ => DType::I4,
        };
        Weights {
            storage,
            bits,
            group,
            grid,
        }
    }

    /// The composed name of a scheme with these integer weights.
    fn name(&self, acts: Option<DType>) -> String {
        let acts = if acts.is_some() { 8 } else { 16 };
        let group = match self.group {
            Group::Channel | Group::Auto => String::new(),
            Group::Of(n) => format!("-g{n}"),
        };
        format!("w{}a{acts}{group}-{}", self.bits, self.grid.name())
    }

    /// The weights' form where there is calibration data or not, and the name of it where the
    /// scheme's name leaves it open.
    pub(crate) fn resolved(&self, data: bool) -> (QuantSpec, Option<String>) {
        let granularity = match self.group {
            Group::Channel => Granularity::Channel,
            Group::Of(n) => Granularity::Group(n),
            Group::Auto => Granularity::Group(if data { 128 } else { 32 }),
        };
        let spec = QuantSpec {
            storage: self.storage,
            bits: self.bits,
            granularity,
            grid: self.grid,
        };
        let name = match (self.group, granularity) {
            (Group::Auto, Granularity::Group(n)) => {
                let group = Group::Of(n);
                Some(Weights { group, ..*self }.name(None))
            }
            _ => None,
        };
        (spec, name)
    }
}

impl QuantSpec {
    /// Symmetric codes of the whole storage, scaled by the largest of them.
    pub fn symmetric(storage: DType, granularity: Granularity) -> Self {
        QuantSpec {
            storage,
            bits: storage.bits(),
            granularity,
            grid: Grid::Greatest,
        }
    }

    /// Whether a signed integer avoids its lowest code.
    fn narrow(&self) -> bool {
        self.storage.kind() == qcc_ir::format::Kind::Signed && self.grid == Grid::Greatest
    }

    /// The codes.
    ///
    /// # Errors
    /// When the storage holds no codes, or has no narrow range.
    pub fn format(&self) -> std::result::Result<QuantFormat, FormatError> {
        let range = if self.narrow() {
            Range::Narrow
        } else {
            Range::Full
        };
        QuantFormat::new(self.storage, range)
    }

    /// The least and the greatest code of an integer scheme.
    pub(crate) fn levels(&self) -> Option<IntRange> {
        use qcc_ir::format::Kind;
        let bits = self.bits.clamp(1, 16);
        let half = 1i32 << (bits - 1);
        match self.storage.kind() {
            Kind::Unsigned => Some(IntRange {
                min: 0,
                max: 2 * half - 1,
            }),
            Kind::Signed => Some(IntRange {
                min: if self.narrow() { 1 - half } else { -half },
                max: half - 1,
            }),
            _ => None,
        }
    }

    /// The type of a quantized tensor of this rank.
    pub fn quant_type(&self, rank: usize, dynamic: bool) -> QuantType {
        let block = match self.granularity {
            Granularity::Tensor => BlockShape::tensor(rank),
            Granularity::Channel => BlockShape::axis(rank, 0),
            Granularity::Token => BlockShape::row(rank),
            Granularity::Group(n) => BlockShape::group(rank, u64::from(n)),
        };
        QuantType {
            dynamic,
            narrow: self.narrow(),
            zero: (self.grid == Grid::Asymmetric).then_some(self.storage),
            ..QuantType::symmetric(self.storage, block)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(q: QuantType) -> String {
        qcc_ir::graph::Elem::Quant(q).to_string()
    }

    #[test]
    fn names() {
        for name in [
            "float",
            "fp8",
            "int8",
            "int4",
            "int4-sym",
            "w4a16",
            "w8a8-g128-asym",
        ] {
            assert_eq!(Scheme::named(name).unwrap().name, name);
        }
        let s = Scheme::named("int8-static").unwrap();
        assert_eq!((s.acts, s.act), (Some(DType::I8), ActMode::Static));
        let bad = [
            "",
            "fp4",
            "float-static",
            "-static",
            "fp8-",
            "int4-static",
            "int4-",
            "int4sym",
            "w5a16",
            "w4a4",
            "w4a16-g100",
            "w4a16-g128-",
            "w4a16-",
            "w4a16-g128-odd",
            "w4",
            "w04a16",
        ];
        for bad in bad {
            assert_eq!(Scheme::named(bad).unwrap_err().code(), "Q0041", "{bad}");
        }
    }

    #[test]
    fn composed_names_say_what_they_mean() {
        let form = |name: &str| {
            let s = Scheme::named(name).unwrap();
            let (spec, _) = s.weights.unwrap().resolved(false);
            let l = spec.levels().unwrap();
            (text(spec.quant_type(2, false)), (l.min, l.max), s.acts)
        };
        let expected = [
            (
                "w4a16-g128-asym",
                "q<u4, [1, 128], scale=f32, zero=u4>",
                (0, 15),
                None,
            ),
            ("w4a16-g32", "q<i4, [1, 32], scale=f32>", (-8, 7), None),
            (
                "w4a16-g32-sym-narrow",
                "q<i4, [1, 32], scale=f32, narrow>",
                (-7, 7),
                None,
            ),
            (
                "w3a16-g64-asym",
                "q<u4, [1, 64], scale=f32, zero=u4>",
                (0, 7),
                None,
            ),
            ("w3a16-sym-full", "q<i4, [1, *], scale=f32>", (-4, 3), None),
            (
                "w8a8-asym",
                "q<u8, [1, *], scale=f32, zero=u8>",
                (0, 255),
                Some(DType::I8),
            ),
        ];
        for (name, ty, levels, acts) in expected {
            assert_eq!(form(name), (ty.to_string(), levels, acts), "{name}");
        }
    }

    #[test]
    fn refinements_have_the_name_of_what_they_are() {
        let refined = |name: &str, size, grid| {
            let s = Scheme::named(name).unwrap().refined(size, grid);
            s.map(|s| s.name).map_err(|e| e.code())
        };
        let sym = Some(Grid::Half);
        assert_eq!(refined("int4", Some(64), None).unwrap(), "w4a16-g64-asym");
        assert_eq!(refined("int4", Some(64), sym).unwrap(), "w4a16-g64-sym");
        assert_eq!(refined("int4", None, sym).unwrap(), "int4-sym");
        assert_eq!(
            refined("int8", Some(128), None).unwrap(),
            "w8a8-g128-sym-narrow"
        );
        assert_eq!(refined("fp8", Some(64), None).unwrap_err(), "Q0041");
        assert_eq!(refined("int4", Some(100), None).unwrap_err(), "Q0041");
        let open = Scheme::named("int4").unwrap().refined(None, sym).unwrap();
        let (spec, name) = open.weights.unwrap().resolved(true);
        assert_eq!(spec.granularity, Granularity::Group(128));
        assert_eq!(name.as_deref(), Some("w4a16-g128-sym"));
    }

    #[test]
    fn types() {
        let i8 = QuantSpec::symmetric(DType::I8, Granularity::Token).quant_type(3, true);
        assert_eq!(text(i8), "q<i8, [1, 1, *], scale=f32, dynamic, narrow>");
        let e4m3 = QuantSpec::symmetric(DType::E4M3, Granularity::Channel).quant_type(4, false);
        assert_eq!(text(e4m3), "q<e4m3, [1, *, *, *], scale=f32>");
    }
}
