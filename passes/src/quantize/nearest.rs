//! A weight that is rounded to nearest again and again, each time with other factors.
//!
//! ```text
//! Ŵ = real(quantize(W·diag(s)))        or, back in the scale of W:   Ŵ·diag(1/s)
//! ```
//!
//! Searches want this for some twenty `s`. So the weight is read once, and it is taken in pieces of
//! whole rows, which share no scale with others, on several threads: what is in between stays small.

use super::assign::Assigned;
use super::fit::source;
use super::fit_weight::{Fit, real};
use super::methods::Methods;
use super::rtn::global_scale;
use super::scheme::QuantSpec;
use crate::GptqOptions;
use crate::parallel;
use crate::weights::{format_error, inline_f32, read_f32};
use qcc_ir::Tensor;
use qcc_ir::diag::Result;
use qcc_ir::eval::weight_tensor;
use qcc_ir::format::{decode_slice, encode_slice};
use qcc_ir::graph::{Module, Weight};

/// Elements of a piece, about.
const PIECE: usize = 1 << 18;

/// A weight and the form that it is rounded to.
pub(crate) struct Nearest {
    name: String,
    float: Tensor,
    /// `None` of one that stays float.
    spec: Option<QuantSpec>,
    threads: usize,
}

impl Nearest {
    /// Layers with their weights.
    ///
    /// # Errors
    /// When a weight cannot be read.
    pub(crate) fn of<'a>(
        m: &Module,
        layers: Vec<&'a Assigned>,
        threads: usize,
    ) -> Result<Vec<(&'a Assigned, Self)>> {
        let weight = |l: &'a Assigned| {
            let spec = l.choice.map(|q| q.weights);
            Ok((l, Nearest::new(source(m, l)?, spec, threads)?))
        };
        layers.into_iter().map(weight).collect()
    }

    /// Reads a weight.
    ///
    /// # Errors
    /// When it cannot be read.
    fn new(source: &Weight, spec: Option<QuantSpec>, threads: usize) -> Result<Self> {
        Ok(Nearest {
            name: source.name.clone(),
            float: weight_tensor(source)?,
            spec,
            threads,
        })
    }

    /// What the weight holds.
    pub(crate) fn float(&self) -> &Tensor {
        &self.float
    }

    /// The real values of the weight after its columns have been multiplied by factors and it has
    /// been rounded, in its own format; divided by the factors again if `back` says so.
    ///
    /// # Errors
    /// When an element is NaN or infinite.
    pub(crate) fn scaled(&self, factors: &[f32], back: bool) -> Result<Tensor> {
        let global = self.global(factors)?;
        let mut out = Tensor::zeros(self.float.dtype(), self.float.dims())?;
        let bytes = self.piece_bytes();
        let (from, to) = (self.float.bytes(), out.bytes_mut());
        let pieces: Vec<_> = from.chunks(bytes).zip(to.chunks_mut(bytes)).collect();
        let done = parallel::consume(pieces, self.threads, |(from, to)| {
            let mut v = self.multiplied(from, factors)?;
            if let Some(spec) = self.spec {
                v = self.rounded(&v, spec, global)?;
            }
            if back {
                divide(&mut v, factors);
            }
            encode_slice(self.float.dtype(), &v, to).map_err(|e| format_error(e, &self.name))
        });
        done.into_iter().collect::<Result<Vec<()>>>()?;
        Ok(out)
    }

    /// As [`Nearest::scaled`] and back, rounded by `round` and all at once.
    ///
    /// # Errors
    /// What `round` reports.
    pub(super) fn rounded_by(
        &self,
        factors: &[f32],
        round: &dyn Fn(&Weight) -> Result<Weight>,
    ) -> Result<Tensor> {
        let v = self.multiplied(self.float.bytes(), factors)?;
        let w = inline_f32(self.name.clone(), self.float.dims().to_vec(), &v);
        drop(v);
        let mut v = read_f32(&round(&w)?)?;
        divide(&mut v, factors);
        let mut out = Tensor::zeros(self.float.dtype(), self.float.dims())?;
        encode_slice(out.dtype(), &v, out.bytes_mut()).map_err(|e| format_error(e, &self.name))?;
        Ok(out)
    }

    /// Elements of a row.
    fn row(&self) -> usize {
        let rows = self.float.dims().first().map_or(1, |n| *n as usize);
        (self.float.numel() / rows.max(1)).max(1)
    }

    /// Bytes of a piece: rows that share no scale with others, nor a byte.
    fn piece_bytes(&self) -> usize {
        if self.float.dtype().bits() < 8 {
            return self.float.bytes().len().max(1);
        }
        let (all, row) = (self.float.numel(), self.row());
        let shared = self.spec.map_or(1, |s| s.blocks(all / row, row).rows);
        let rows = (PIECE / row).max(1).next_multiple_of(shared);
        let elements = row.saturating_mul(rows).min(all).max(1);
        elements * self.float.dtype().bits() as usize / 8
    }

    /// A piece with its columns multiplied.
    fn multiplied(&self, piece: &[u8], factors: &[f32]) -> Result<Vec<f32>> {
        let dtype = self.float.dtype();
        let elements = piece.len() * 8 / dtype.bits() as usize;
        let mut v = vec![0.0; elements.min(self.float.numel())];
        decode_slice(dtype, piece, &mut v).map_err(|e| format_error(e, &self.name))?;
        for row in v.chunks_mut(factors.len().max(1)) {
            row.iter_mut().zip(factors).for_each(|(v, s)| *v *= s);
        }
        Ok(v)
    }

    /// The scale above those of blocks, where scales have two levels.
    fn global(&self, factors: &[f32]) -> Result<Option<f32>> {
        let Some(spec) = self.spec.filter(|s| s.scale.global().is_some()) else {
            return Ok(None);
        };
        let pieces: Vec<&[u8]> = self.float.bytes().chunks(self.piece_bytes()).collect();
        let greatest = parallel::map(&pieces, self.threads, |p| {
            let v = self.multiplied(p, factors)?;
            Ok(v.into_iter().fold(0.0f32, |a, v| v.abs().max(a)))
        });
        let greatest: Vec<f32> = greatest.into_iter().collect::<Result<_>>()?;
        global_scale(&spec, None, &[], &greatest).map_err(|e| format_error(e, &self.name))
    }

    /// The real values of some rows after rounding.
    fn rounded(&self, rows: &[f32], spec: QuantSpec, global: Option<f32>) -> Result<Vec<f32>> {
        let mut dims = self.float.dims().to_vec();
        if let Some(n) = dims.first_mut() {
            *n = (rows.len() / self.row()) as u64;
        }
        let w = inline_f32(self.name.clone(), dims, rows);
        let methods = Methods {
            table: spec.is_table(),
            ..Methods::default()
        };
        let fit = Fit {
            methods,
            gptq: &GptqOptions::default(),
            threads: 1,
            scores: false,
            global,
        };
        let (coded, _) = fit.weight(&w, spec, None)?;
        read_f32(&real(&w, &coded)?)
    }
}

/// Divides the columns of rows by factors.
fn divide(v: &mut [f32], factors: &[f32]) {
    for row in v.chunks_mut(factors.len().max(1)) {
        row.iter_mut().zip(factors).for_each(|(v, s)| *v /= s);
    }
}

#[cfg(test)]
mod tests {
    use super::super::Scheme;
    use super::*;
    use crate::weights::{Transform, derive, inline_as};
    use qcc_ir::DType;
    use qcc_ir::eval::normal;

    /// What [`Nearest::scaled`] gives, of the whole weight at once.
    fn whole(w: &Weight, spec: QuantSpec, s: &[f32], back: bool) -> Vec<f32> {
        let scale = Transform::Scale {
            axis: 1,
            factors: s.to_vec().into(),
            divide: false,
            dtype: DType::F32,
        };
        let scaled = derive(w, scale).unwrap();
        let one = Nearest::new(&scaled, Some(spec), 1).unwrap();
        let v = read_f32(&scaled).unwrap();
        let global = one.global(&vec![1.0; s.len()]).unwrap();
        let mut v = one.rounded(&v, spec, global).unwrap();
        if back {
            v.chunks_mut(s.len())
                .for_each(|row| row.iter_mut().zip(s).for_each(|(v, s)| *v /= s));
        }
        qcc_ir::format::round_slice(w.dtype, &mut v);
        v
    }

    fn spec(name: &str) -> QuantSpec {
        let weights = Scheme::named(name).unwrap().weights.unwrap();
        weights.resolved(true).0
    }

    #[test]
    fn pieces_give_what_the_whole_gives() {
        // Pieces of two rows, or as many as share a scale.
        let cases = [
            ("int8", 5, PIECE / 2 - 6, true),
            ("int4", 5, PIECE / 2 - 6, false),
            ("nvfp4", 5, PIECE / 2 - 6, true),
            ("int8-tensor", 5, PIECE / 2 - 6, false),
            ("w8a8-fp8-block128", 300, PIECE / 254, true),
            ("lut4", 300, PIECE / 254, false),
        ];
        for (name, n, k, back) in cases {
            let s: Vec<f32> = (0..k).map(|j| 0.5 + (j % 7) as f32).collect();
            let values: Vec<f32> = normal(3, 1.0, n * k).iter().map(|v| *v as f32).collect();
            for dtype in [DType::F32, DType::BF16] {
                let dims = vec![n as u64, k as u64];
                let w = inline_as("w".into(), dtype, dims, &values).unwrap();
                let got = Nearest::new(&w, Some(spec(name)), 2).unwrap();
                assert!(got.float().bytes().len() > got.piece_bytes() || name == "int8-tensor");
                let got = got.scaled(&s, back).unwrap();
                assert_eq!(got.dtype(), dtype);
                let mut v = vec![0.0f32; n * k];
                decode_slice(dtype, got.bytes(), &mut v).unwrap();
                assert!(v == whole(&w, spec(name), &s, back), "{name} {dtype}");
            }
        }
    }

    #[test]
    fn rows_that_share_a_byte_are_one_piece() {
        let values: Vec<f32> = (0..15).map(|i| i as f32 / 4.0 - 2.0).collect();
        let w = inline_as("w".into(), DType::E2M1, vec![3, 5], &values).unwrap();
        let s = [1.0, 2.0, 0.5, 1.0, 4.0];
        let got = Nearest::new(&w, Some(spec("int4")), 2).unwrap();
        let got = got.scaled(&s, true).unwrap();
        let mut v = vec![0.0f32; 15];
        decode_slice(DType::E2M1, got.bytes(), &mut v).unwrap();
        assert_eq!(v, whole(&w, spec("int4"), &s, true));
    }

    #[test]
    fn what_stays_float_is_only_multiplied() {
        let w = inline_f32("w".into(), vec![2, 2], &[1.0, 2.0, 3.0, 4.0]);
        let w = Nearest::new(&w, None, 1).unwrap();
        let t = w.scaled(&[2.0, 0.5], false).unwrap();
        assert_eq!(t.as_slice::<f32>().unwrap(), [2.0, 1.0, 6.0, 2.0]);
    }

    #[test]
    fn a_weight_that_is_not_finite_is_refused_by_name() {
        let w = inline_f32("fc.w".into(), vec![1, 2], &[1.0, f32::INFINITY]);
        for name in ["int8", "nvfp4"] {
            let w = Nearest::new(&w, Some(spec(name)), 1).unwrap();
            let e = w.scaled(&[1.0, 1.0], false).unwrap_err();
            assert_eq!(e.place(), Some("weight fc.w"), "{name}");
        }
    }
}
