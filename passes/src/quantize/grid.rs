//! From the values of a block to its parameters, and from numbers to codes under them.
//!
//! With `b` bits, `m = max |w|` and `±m` the value of largest magnitude:
//!
//! | grid | codes | scale | also known from |
//! |---|---|---|---|
//! | `asym` | 0 … 2ᵇ−1 | (max − min) / (2ᵇ−1) over a range that holds 0, with a zero point | GPTQ, AWQ, ONNX |
//! | `sym` | −2ᵇ⁻¹ … 2ᵇ⁻¹−1 | 2m / (2ᵇ−1): m/7.5 for 4 bits | GPTQ, compressed-tensors |
//! | `sym-narrow` | −(2ᵇ⁻¹−1) … 2ᵇ⁻¹−1 | m / (2ᵇ⁻¹−1): m/7 for 4 bits | AWQ, TensorRT |
//! | `sym-full` | −2ᵇ⁻¹ … 2ᵇ⁻¹−1 | ±m / −2ᵇ⁻¹, which may be negative: ±m/−8 for 4 bits | llama.cpp `Q4_0` |
//!
//! Float codes have `sym-narrow`: m over the greatest code, as their scales are stored. A block of
//! zeros has scale 1 (under two levels the least that is stored).
//!
//! A [`Coder`] is what weight methods know of a format: the nearest code of a number, the number
//! of a code and the scales that can be stored. Whether codes are integers, floats or indices of
//! tables makes no difference to them.

use super::scheme::QuantSpec;
use qcc_ir::format::{
    FormatError, IntRange, QuantFormat, decode_slice, encode_slice, scale_asymmetric_in,
    scale_symmetric,
};
use std::sync::Arc;

/// How scale and zero point follow from the values of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Grid {
    /// `asym`: a zero point, and the whole range of the values.
    Asymmetric,
    /// `sym`: the largest magnitude over half the number of steps.
    Half,
    /// `sym-narrow`: the largest magnitude over the greatest code, the lowest code unused. Also
    /// of float codes.
    Greatest,
    /// `sym-full`: the value of largest magnitude is the lowest code.
    Lowest,
}

const NAMES: [(&str, Grid); 4] = [
    ("asym", Grid::Asymmetric),
    ("sym", Grid::Half),
    ("sym-narrow", Grid::Greatest),
    ("sym-full", Grid::Lowest),
];

impl Grid {
    /// The grid of this name.
    pub fn named(name: &str) -> Option<Self> {
        NAMES.iter().find(|(n, _)| *n == name).map(|(_, g)| *g)
    }

    /// The name.
    pub fn name(self) -> &'static str {
        NAMES
            .iter()
            .find(|(_, g)| *g == self)
            .map_or("", |(n, _)| n)
    }
}

/// How numbers become codes, the same for all blocks of a weight.
#[derive(Clone, Debug)]
pub(super) struct Coder {
    spec: QuantSpec,
    format: QuantFormat,
    levels: Option<IntRange>,
    /// The scale above those of the blocks.
    global: Option<f32>,
    /// The values of the codes, row by row, where codes index tables.
    tables: Option<Arc<[f32]>>,
}

/// What a code of one block means.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Cell<'a> {
    /// `(number − zero) · factor`
    Scaled { factor: f32, zero: i32 },
    /// A value of this table.
    Table(&'a [f32]),
}

impl Coder {
    /// The coder of a form, its scales being below `global` if they have two levels.
    ///
    /// # Errors
    /// When the storage holds no codes.
    pub(super) fn new(spec: QuantSpec, global: Option<f32>) -> Result<Self, FormatError> {
        Ok(Coder {
            spec,
            format: spec.format()?,
            levels: spec.levels(),
            global: global.filter(|_| spec.scale.global().is_some()),
            tables: None,
        })
    }

    /// The coder of tables, one for each row.
    ///
    /// # Errors
    /// When the storage holds no codes.
    pub(super) fn of_tables(spec: QuantSpec, tables: Arc<[f32]>) -> Result<Self, FormatError> {
        let tables = Some(tables);
        Ok(Coder {
            tables,
            ..Self::new(spec, None)?
        })
    }

    /// The form.
    pub(super) fn spec(&self) -> &QuantSpec {
        &self.spec
    }

    /// The scale above those of the blocks.
    pub(super) fn global(&self) -> Option<f32> {
        self.global
    }

    /// Whether codes index tables: then blocks have no scales.
    pub(super) fn is_table(&self) -> bool {
        self.tables.is_some()
    }

    /// The zero points that a block may have: none but 0 on a symmetric grid.
    pub(super) fn zeros(&self) -> IntRange {
        let only = IntRange { min: 0, max: 0 };
        match self.spec.grid {
            Grid::Asymmetric => self.levels.unwrap_or(only),
            _ => only,
        }
    }

    /// Whether codes are equally far apart, so that a greater range only makes them coarser.
    pub(super) fn is_uniform(&self) -> bool {
        self.levels.is_some()
    }

    /// The stored scale and the zero point of a block whose values lie in `[lo, hi]`.
    ///
    /// # Errors
    /// When a bound is NaN or infinite, or the scale overflows.
    pub(super) fn fit(&self, lo: f32, hi: f32) -> Result<(f32, i32), FormatError> {
        let absmax = match lo.is_nan() || hi.is_nan() {
            true => f32::NAN,
            false => hi.max(-lo).max(0.0),
        };
        let Some(levels) = self.levels else {
            let global = self.global.unwrap_or(1.0);
            return Ok((self.spec.scale.of_block(absmax, self.format, global)?, 0));
        };
        let steps = (levels.max - levels.min) as f32;
        match self.spec.grid {
            Grid::Asymmetric => scale_asymmetric_in(lo, hi, levels),
            Grid::Half => Ok((scale_symmetric(absmax, steps / 2.0)?, 0)),
            Grid::Greatest => Ok((scale_symmetric(absmax, levels.max as f32)?, 0)),
            Grid::Lowest => {
                let scale = scale_symmetric(absmax, -levels.min as f32)?;
                let up = hi >= -lo && absmax > 0.0;
                Ok((if up { -scale } else { scale }, 0))
            }
        }
    }

    /// The stored scale with which codes are multiplied by what is nearest to `factor`; `None`
    /// where that is nothing.
    pub(super) fn stored(&self, factor: f32) -> Option<f32> {
        let dtype = self.spec.scale.stored();
        let mut bytes = [0; 4];
        let bytes = &mut bytes[..dtype.bits().div_ceil(8) as usize];
        let mut scale = [0.0f32];
        encode_slice(dtype, &[factor / self.global.unwrap_or(1.0)], bytes).ok()?;
        decode_slice(dtype, bytes, &mut scale).ok()?;
        Some(scale[0]).filter(|s| s.is_finite() && *s != 0.0)
    }

    /// What codes of a block with this stored scale and zero point mean, in a row of the weight.
    pub(super) fn cell(&self, scale: f32, zero: i32, row: usize) -> Cell<'_> {
        match (&self.tables, self.global) {
            (Some(t), _) => {
                let size = 1usize << self.spec.storage.bits();
                let used = 1usize << self.spec.bits;
                Cell::Table(t.get(row * size..row * size + used).unwrap_or(&[]))
            }
            (None, global) => Cell::Scaled {
                factor: scale * global.unwrap_or(1.0),
                zero,
            },
        }
    }

    /// The code nearest to a number, of equally near ones that of the format's rounding (of a
    /// table the first).
    pub(super) fn code(&self, x: f32, cell: Cell<'_>) -> i32 {
        match (cell, self.levels) {
            (Cell::Scaled { factor, zero }, levels) => {
                let code = self.format.quantize(x, factor, zero);
                levels.map_or(code, |l| code.clamp(l.min, l.max))
            }
            (Cell::Table(values), _) => {
                let far = |v: &f32| (v - x).abs();
                let mut best = 0;
                for (i, v) in values.iter().enumerate().skip(1) {
                    if far(v) < far(&values[best]) {
                        best = i;
                    }
                }
                best as i32
            }
        }
    }

    /// The number that a code stands for.
    pub(super) fn real(&self, code: i32, cell: Cell<'_>) -> f32 {
        match cell {
            Cell::Scaled { factor, zero } => self.format.dequantize(code, factor, zero),
            Cell::Table(values) => values.get(code as usize).copied().unwrap_or(0.0),
        }
    }

    /// The number of a code as it is stored: what the scale multiplies.
    pub(super) fn number(&self, code: i32) -> f32 {
        self.format.dequantize(code, 1.0, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::super::scheme::Scheme;
    use super::*;

    fn coder(name: &str, global: Option<f32>) -> Coder {
        let (spec, _) = Scheme::named(name).unwrap().weights.unwrap().resolved(true);
        Coder::new(spec, global).unwrap()
    }

    fn fit_of(name: &str, lo: f32, hi: f32) -> (f32, i32) {
        coder(name, None).fit(lo, hi).unwrap()
    }

    #[test]
    fn the_public_conventions() {
        assert_eq!(fit_of("w4a16-g128-asym", -0.5, 1.0), (0.1, 5));
        assert_eq!(fit_of("w4a16-g128-asym", 0.5, 1.5), (0.1, 0));
        assert_eq!(fit_of("w4a16-g128-asym", -3.0, -1.0), (0.2, 15));
        assert_eq!(fit_of("w4a16-sym", -1.0, 0.5), (1.0 / 7.5, 0));
        assert_eq!(fit_of("w4a16-sym-narrow", -1.0, 0.5), (1.0 / 7.0, 0));
        assert_eq!(fit_of("w4a16-sym-full", -1.0, 0.5), (0.125, 0));
        assert_eq!(fit_of("w4a16-sym-full", -0.5, 1.0), (-0.125, 0));
        assert_eq!(fit_of("w3a16-asym", 0.0, 1.4), (0.2, 0));
        assert_eq!(fit_of("int8", -1.27, 0.0), (0.01, 0));
        assert_eq!(fit_of("fp8", -448.0, 1.0), (1.0, 0));
        assert_eq!(fit_of("nf4", -3.0, 1.0), (3.0, 0));
        assert_eq!(fit_of("mxfp4", -7.0, 1.0), (1.0, 0));
        assert_eq!(coder("nvfp4", Some(0.5)).fit(-6.0, 1.0), Ok((2.0, 0)));
    }

    #[test]
    fn blocks_of_zeros_and_of_no_numbers() {
        for name in [
            "w4a16-asym",
            "w4a16-sym",
            "w4a16-sym-full",
            "int8",
            "fp8",
            "nf4",
            "mxfp4",
        ] {
            assert_eq!(fit_of(name, 0.0, 0.0), (1.0, 0), "{name}");
            let c = coder(name, None);
            for bad in [f32::NAN, f32::INFINITY] {
                assert!(c.fit(-1.0, bad).is_err(), "{name} {bad}");
                assert!(c.fit(-bad, 1.0).is_err(), "{name} {bad}");
            }
        }
    }

    #[test]
    fn codes_are_nearest_whatever_they_mean() {
        for name in ["w3a16-g32-asym", "int8", "fp8", "mxfp4", "nvfp4", "nf4"] {
            let c = coder(name, Some(0.25));
            let (scale, zero) = c.fit(-3.0, 2.0).unwrap();
            let cell = c.cell(scale, zero, 0);
            let all: Vec<f32> = (-128..256)
                .map(|i| c.real(c.code(i as f32 / 40.0, cell), cell))
                .collect();
            for (i, got) in all.iter().enumerate() {
                let x = (i as f32 - 128.0) / 40.0;
                let least = all.iter().map(|v| (v - x).abs()).fold(f32::MAX, f32::min);
                assert!((got - x).abs() <= least * 1.001, "{name}: {got} for {x}");
            }
        }
    }

    #[test]
    fn tables_belong_to_rows() {
        let (spec, _) = Scheme::named("lut3")
            .unwrap()
            .weights
            .unwrap()
            .resolved(true);
        let mut tables = [0.0f32; 32];
        tables[..8].copy_from_slice(&[-3.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 9.0]);
        tables[16] = -7.0;
        let c = Coder::of_tables(spec, tables.into()).unwrap();
        let (first, second) = (c.cell(1.0, 0, 0), c.cell(1.0, 0, 1));
        assert_eq!(c.code(1.6, first), 6);
        assert_eq!(c.code(-0.75, first), 1);
        assert_eq!(c.real(7, first), 9.0);
        assert_eq!((c.code(-5.0, second), c.real(0, second)), (0, -7.0));
    }

    #[test]
    fn scales_are_stored_as_the_format_has_them() {
        assert_eq!(coder("nf4", None).stored(0.3), Some(0.3));
        assert_eq!(coder("mxfp4", None).stored(0.3), Some(0.25));
        assert_eq!(coder("mxfp4", None).stored(0.4), Some(0.5));
        assert_eq!(coder("nvfp4", Some(0.5)).stored(0.53), Some(1.0));
        assert_eq!(coder("mxfp4", None).stored(-0.3), None);
        assert_eq!(coder("nvfp4", Some(1.0)).stored(1e-9), None);
    }
}
