//! Schemes as data: what is stored in which format, and how many numbers share a scale.
//!
//! | name | weights | activations |
//! |---|---|---|
//! | `float` | as they are | as they are |
//! | `fp8` | e4m3, absmax/448 per output channel | e4m3, absmax/448: static per tensor with calibration data, else dynamic per token |
//! | `int8` | i8 in [−127, 127], absmax/127 per output channel | i8 in [−127, 127], absmax/127, dynamic per token; of convolutions static per tensor |
//! | `fp8-e5m2` | as `fp8` with e5m2, absmax/57344 | the same |
//! | `fp8-tensor`, `fp8-e5m2-tensor`, `int8-tensor` | one scale for the whole weight | as without `-tensor` |
//! | `w8a8-fp8-block128` | e4m3, absmax/448 per block of 128 × 128 | e4m3, dynamic per token and 128 channels |
//! | `int8-block128` | i8 in [−127, 127], absmax/127 per block of 128 × 128 | i8, dynamic per token and 128 channels |
//! | `mxfp8[-⟨round⟩]` | e4m3, a power of two per group of 32 | as they are |
//! | `mxfp4[-⟨round⟩]` | e2m1, a power of two per group of 32 | as they are |
//! | `nvfp4` | e2m1, an e4m3 scale per group of 16 under one f32 scale, which layers that read the same value share | as they are |
//! | `nf4` | nf4, absmax per group of 64 | as they are |
//! | `lut4`, `lut3` | a table of 16 or 8 values per output channel ([`table`](super::table)) | as they are |
//! | `int4[-⟨grid⟩]` | with calibration data, or `XᵀX` in statistics, as `w4a16-g128-asym`, else as `w4a16-g32-asym` | as they are |
//!
//! A suffix fixes the activations whatever the options say: `-static`, `-dynamic`, or
//! `-weights` for none (`fp8-static`, `int8-weights`, …).
//!
//! Further names are put together: `w⟨bits⟩a⟨16|8|4⟩[-g⟨size⟩|-tensor|-block128][-⟨grid⟩]`, such as
//! `w4a16-g128-asym`. Weights have 2, 3, 4 or 8 bits; activations stay as they are (`a16`), are
//! those of `int8` (`a8`), or the same with i4 in [−7, 7], absmax/7 (`a4`). With `-g` that many
//! input channels of an output channel share a scale (the last group of a row may be shorter), with
//! `-tensor` all weights, with `-block128` those of 128 input and 128 output channels (and 128
//! channels of a token); without any of them all input channels of an output channel. How a power of two is found (`⟨round⟩`) is `floor`
//! (OCP MX, the default), `rceil` or `even` ([`PowerRound`]). The [`Grid`] is `asym`, `sym` (the default),
//! `sym-narrow` or `sym-full`.

use super::grid::Grid;
use crate::options::ActMode;
use qcc_ir::diag::{Class, Diagnostic, Result};
use qcc_ir::format::{
    Block, BlockShape, DType, FormatError, IntRange, PowerRound, QuantFormat, Range,
};
use qcc_ir::graph::{QuantType, ScaleType};

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
    /// Squares of this many rows and columns of a matrix.
    Square(u32),
}

/// How many neighbouring rows and columns of a matrix share a scale; at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Blocks {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
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
    /// How scales are stored.
    pub scale: ScaleType,
}

/// How many input channels of a weight share a scale, as asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Group {
    /// All of them, for all output channels.
    Tensor,
    /// All of them.
    Channel,
    /// 128 where a weight method uses what is known of the inputs, else 32.
    Auto,
    /// This many.
    Of(u32),
    /// This many, of as many output channels.
    Square(u32),
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
    /// How scales are stored.
    pub scale: ScaleType,
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
    /// Channels of a token that share a dynamic scale; `None` for all.
    pub act_group: Option<u32>,
    /// How activations are quantized, unless the options say otherwise.
    pub act: ActMode,
    /// Whether `ActMode::Auto` takes static activations where there is calibration data.
    pub prefers_static: bool,
}

/// Group sizes that have names.
const SIZES: [u32; 5] = [16, 32, 64, 128, 256];

/// What follows a name when all weights share a scale.
const TENSOR: &str = "-tensor";
/// Rows and columns of a square, and its name.
const SQUARE: (u32, &str) = (128, "-block128");

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
            act_group: None,
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
                    "schemes are: float, fp8[-tensor], fp8-e5m2[-tensor], w8a8-fp8-block128, \
                     int8[-tensor|-block128], int4[-⟨grid⟩], mxfp8, mxfp4 (both also -floor, -rceil \
                     or -even), nvfp4, nf4, lut4, lut3, and w⟨2|3|4|8⟩a⟨16|8|4⟩[-g⟨16|32|64|128|\
                     256⟩|-tensor|-block128][-⟨asym|sym|sym-narrow|sym-full⟩]; those that quantize \
                     activations also with -static, -dynamic or -weights",
                ),
            ),
        }
    }

    /// The schemes with names of their own.
    fn fixed(name: &str) -> Option<Self> {
        let float = |storage, group, scale| Weights {
            scale,
            ..Weights::symmetric(storage, group)
        };
        let f32 = ScaleType::Plain(DType::F32);
        let power = |storage, round: &str| {
            let round = match round {
                "" => PowerRound::Floor,
                round => round.strip_prefix('-')?.parse().ok()?,
            };
            Some(float(storage, Group::Of(32), ScaleType::Power(round)))
        };
        let eight = |storage, group| (float(storage, group, f32), Some(storage));
        let (weights, acts) = match name {
            "float" => return Some(Scheme::float()),
            "fp8" => eight(DType::E4M3, Group::Channel),
            "fp8-tensor" => eight(DType::E4M3, Group::Tensor),
            "fp8-e5m2" => eight(DType::E5M2, Group::Channel),
            "fp8-e5m2-tensor" => eight(DType::E5M2, Group::Tensor),
            "w8a8-fp8-block128" => eight(DType::E4M3, Group::Square(SQUARE.0)),
            "int8" => eight(DType::I8, Group::Channel),
            "int8-tensor" => eight(DType::I8, Group::Tensor),
            "int8-block128" => eight(DType::I8, Group::Square(SQUARE.0)),
            "nvfp4" => {
                let scale = ScaleType::TwoLevel(DType::E4M3, DType::F32);
                (float(DType::E2M1, Group::Of(16), scale), None)
            }
            "nf4" => (float(DType::NF4, Group::Of(64), f32), None),
            "lut4" => (Weights::table(4), None),
            "lut3" => (Weights::table(3), None),
            _ => match (name.strip_prefix("mxfp8"), name.strip_prefix("mxfp4")) {
                (Some(round), _) => (power(DType::E4M3, round)?, None),
                (_, Some(round)) => (power(DType::E2M1, round)?, None),
                _ => {
                    let grid = match name.strip_prefix("int4")? {
                        "" => Grid::Asymmetric,
                        grid => Grid::named(grid.strip_prefix('-')?)?,
                    };
                    (Weights::integer(4, Group::Auto, grid), None)
                }
            },
        };
        Some(Scheme {
            name: name.into(),
            weights: Some(weights),
            acts,
            act_group: weights.group.of_tokens(),
            act: ActMode::Auto,
            prefers_static: acts.is_some_and(DType::is_float)
                && weights.group.of_tokens().is_none(),
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
            "4" => Some(DType::I4),
            _ => return None,
        };
        let (first, others) = rest.split_once('-').unwrap_or((rest, ""));
        let (group, grid) = match Group::named(first) {
            Some(group) => (group, others),
            None => (Group::Channel, rest),
        };
        let grid = match grid {
            "" if !name.ends_with('-') => Grid::Half,
            named => Grid::named(named)?,
        };
        Some(Scheme {
            name: name.into(),
            weights: Some(Weights::integer(bits, group, grid)),
            acts,
            act_group: acts.and_then(|_| group.of_tokens()),
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
        let Some(w) = self.weights.filter(Weights::are_integers) else {
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

impl Group {
    /// The one that a part of a composed name says.
    fn named(part: &str) -> Option<Self> {
        match part.strip_prefix('g') {
            Some(size) => {
                let size = SIZES.into_iter().find(|n| n.to_string() == size);
                size.map(Group::Of)
            }
            None if part == &TENSOR[1..] => Some(Group::Tensor),
            None => (part == &SQUARE.1[1..]).then_some(Group::Square(SQUARE.0)),
        }
    }

    /// What it adds to a composed name.
    fn suffix(self) -> String {
        match self {
            Group::Channel | Group::Auto => String::new(),
            Group::Tensor => TENSOR.into(),
            Group::Of(n) => format!("-g{n}"),
            // The only squares that have a name.
            Group::Square(_) => SQUARE.1.into(),
        }
    }

    /// Channels of a token that share a dynamic scale beside such weights; `None` for all.
    fn of_tokens(self) -> Option<u32> {
        match self {
            Group::Square(n) => Some(n),
            _ => None,
        }
    }
}

impl Weights {
    /// Symmetric codes of the whole storage under f32 scales.
    fn symmetric(storage: DType, group: Group) -> Self {
        Weights {
            storage,
            bits: storage.bits(),
            group,
            grid: Grid::Greatest,
            scale: ScaleType::Plain(DType::F32),
        }
    }

    /// Tables of `2^bits` values for each output channel.
    fn table(bits: u32) -> Self {
        Weights {
            bits,
            scale: ScaleType::Table(DType::F32),
            ..Weights::symmetric(DType::U4, Group::Channel)
        }
    }

    /// Integers of this many bits.
    fn integer(bits: u32, group: Group, grid: Grid) -> Self {
        let storage = match (bits, grid) {
            (8, Grid::Asymmetric) => DType::U8,
            (8, _) => DType::I8,
            (2, Grid::Asymmetric) => DType::U2,
            (2, _) => DType::I2,
            (_, Grid::Asymmetric) => DType::U4,
            _ => DType::I4,
        };
        Weights {
            bits,
            grid,
            ..Weights::symmetric(storage, group)
        }
    }

    /// Whether codes are numbers, to be multiplied by a scale.
    pub(super) fn are_integers(&self) -> bool {
        self.storage.is_int() && !self.scale.is_table()
    }

    /// The composed name of a scheme with these integer weights.
    fn name(&self, acts: Option<DType>) -> String {
        let acts = acts.map_or(16, DType::bits);
        let group = self.group.suffix();
        format!("w{}a{acts}{group}-{}", self.bits, self.grid.name())
    }

    /// The weights' form where something is known of the layer's inputs or not, and the name of it
    /// where the scheme's name leaves it open.
    pub(crate) fn resolved(&self, data: bool) -> (QuantSpec, Option<String>) {
        let granularity = match self.group {
            Group::Tensor => Granularity::Tensor,
            Group::Channel => Granularity::Channel,
            Group::Of(n) => Granularity::Group(n),
            Group::Square(n) => Granularity::Square(n),
            Group::Auto => Granularity::Group(if data { 128 } else { 32 }),
        };
        let spec = QuantSpec {
            storage: self.storage,
            bits: self.bits,
            granularity,
            grid: self.grid,
            scale: self.scale,
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
            scale: ScaleType::Plain(DType::F32),
        }
    }

    /// Whether codes are numbers, to be multiplied by a scale.
    pub(crate) fn are_integers(&self) -> bool {
        self.storage.is_int() && !self.is_table()
    }

    /// Whether output channels share scales.
    pub(crate) fn shares_rows(&self) -> bool {
        matches!(
            self.granularity,
            Granularity::Tensor | Granularity::Square(_)
        )
    }

    /// The blocks of an `[n, k]` matrix.
    pub(crate) fn blocks(&self, n: usize, k: usize) -> Blocks {
        let (rows, columns) = match self.granularity {
            Granularity::Tensor => (n, k),
            Granularity::Channel | Granularity::Token => (1, k),
            Granularity::Group(g) => (1, g as usize),
            Granularity::Square(b) => (b as usize, b as usize),
        };
        Blocks {
            rows: rows.min(n).max(1),
            columns: columns.min(k).max(1),
        }
    }

    /// Whether codes index tables.
    pub(crate) fn is_table(&self) -> bool {
        self.scale.is_table()
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
            Granularity::Square(n) => BlockShape(vec![Block::Fixed(u64::from(n)); rank]),
        };
        QuantType {
            dynamic,
            narrow: self.narrow(),
            zero: (self.grid == Grid::Asymmetric).then_some(self.storage),
            scale: self.scale,
            ..QuantType::symmetric(self.storage, block)
        }
    }
}

#[cfg(test)]
mod tests;
