//! HQQ: grids with which most weights come out well and a few badly, without data.
//!
//! ```text
//! min Σ |w − s·(q − z)|^p,   q = saturate(round(w/s) + z),   p = 0.7
//!
//! r = w − s·(q − z)       e = sign(r) · max(|r| − |r|^(p−1) / β, 0)       t = w − e
//! z ← round(mean(q − t/s)),   s ← Σ (q − z)·t / Σ (q − z)²,   β ← κ·β
//! up to 20 times, while Σ |r| falls; β = 10, κ = 1.01
//! ```
//!
//! (Badri and Shaji, "Half-Quadratic Quantization", 2023: `e` splits the sum into steps that each
//! have a closed form.) The published method moves a real zero point and nothing else. A zero
//! point here is an integer as everywhere in this compiler, and moving it by whole steps changes
//! only what is clipped; so the scale, which has the closed form above, moves too. The grid with
//! the least sum stays: the result is never worse than rounding to nearest in that sum.
//!
//! Preconditions: an integer grid; without zero points only scales move. Sums are f64, group by
//! group.

use super::gptq::Matrix;
use crate::parallel;
use crate::weights::Quantizer;
use qcc_ir::format::IntRange;

const P: f64 = 0.7;
const BETA: f64 = 10.0;
const KAPPA: f64 = 1.01;
const STEPS: usize = 20;

/// A quantizer for groups of `group` columns, better than the one that is given.
pub(super) fn improved(
    m: Matrix<'_>,
    q: Quantizer,
    levels: IntRange,
    group: usize,
    threads: usize,
) -> Quantizer {
    let group = group.min(m.k).max(1);
    let groups = m.k.div_ceil(group);
    let rows: Vec<&[f32]> = m.w.chunks(m.k.max(1)).collect();
    let rows: Vec<(usize, &[f32])> = rows.into_iter().enumerate().collect();
    let found = parallel::map(&rows, threads, |(row, w)| -> Vec<(f32, i32)> {
        let each = w.chunks(group).enumerate().map(|(b, w)| {
            let at = row * groups + b;
            let zero = q.zeros.as_ref().map(|z| z[at]);
            improve(w, q.scales[at], zero, levels)
        });
        each.collect()
    });
    let (scales, zeros): (Vec<f32>, Vec<i32>) = found.into_iter().flatten().unzip();
    Quantizer {
        scales: scales.into(),
        zeros: q.zeros.as_ref().map(|_| zeros.into()),
        ..q
    }
}

/// Scale and zero point of one group; without a zero point it stays 0.
fn improve(w: &[f32], scale: f32, zero: Option<i32>, levels: IntRange) -> (f32, i32) {
    let (min, max) = (f64::from(levels.min), f64::from(levels.max));
    let mut best = ((scale, zero.unwrap_or(0)), f64::INFINITY);
    let (mut s, mut z) = (f64::from(scale), f64::from(zero.unwrap_or(0)));
    let (mut beta, mut least) = (BETA, f64::INFINITY);
    for _ in 0..=STEPS {
        let code = |w: f64| ((w / s).round_ties_even() + z).clamp(min, max);
        let split = |w: &f32| {
            let w = f64::from(*w);
            let q = code(w);
            (q, w, w - s * (q - z))
        };
        let parts: Vec<(f64, f64, f64)> = w.iter().map(split).collect();
        let norm: f64 = parts.iter().map(|(.., r)| libm::pow(r.abs(), P)).sum();
        if norm < best.1 {
            best = ((s as f32, z as i32), norm);
        }
        let size: f64 = parts.iter().map(|(.., r)| r.abs()).sum();
        if size >= least || size.is_nan() {
            break;
        }
        least = size;
        let targets: Vec<(f64, f64)> = parts
            .iter()
            .map(|(q, w, r)| (*q, w - shrink(*r, beta)))
            .collect();
        if zero.is_some() {
            let sum: f64 = targets.iter().map(|(q, t)| q - t / s).sum();
            z = (sum / w.len() as f64).round_ties_even().clamp(min, max);
        }
        let product: f64 = targets.iter().map(|(q, t)| (q - z) * t).sum();
        let square: f64 = targets.iter().map(|(q, _)| (q - z) * (q - z)).sum();
        let next = (product / square) as f32;
        if !next.is_normal() || f64::from(next) * s < 0.0 {
            break;
        }
        s = f64::from(next);
        beta *= KAPPA;
    }
    best.0
}

/// The `e` that makes `|e|^p + β/2·(e − r)²` small.
fn shrink(r: f64, beta: f64) -> f64 {
    match r == 0.0 {
        true => 0.0,
        false => {
            let size = r.abs() - libm::pow(r.abs(), P - 1.0) / beta;
            size.max(0.0).copysign(r)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Granularity, Scheme, rtn};
    use super::*;
    use crate::weights::inline_f32;
    use qcc_ir::eval::normal;

    struct Case {
        w: Vec<f32>,
        n: usize,
        k: usize,
        group: usize,
        levels: IntRange,
        first: Quantizer,
    }

    /// The weights of `tests/quant_refs/hqq.py`.
    fn case(n: usize, k: usize, scheme: &str, std: f64) -> Case {
        let mut w = normal(3, 1.0, n * k);
        for (i, v) in w.iter_mut().enumerate() {
            if (i % k).is_multiple_of(37) {
                *v *= 4.0;
            }
            *v = (*v + (i / k) as f64 * 0.1) * std;
        }
        let w: Vec<f32> = w.into_iter().map(|v| v as f32).collect();
        let (spec, _) = Scheme::named(scheme)
            .unwrap()
            .weights
            .unwrap()
            .resolved(false);
        let weight = inline_f32("w".into(), vec![n as u64, k as u64], &w);
        let block = spec.quant_type(2, false).block;
        let Granularity::Group(group) = spec.granularity else {
            panic!("{scheme} has no groups");
        };
        Case {
            first: rtn::quantizer(&weight, &spec, block, None).unwrap(),
            levels: spec.levels().unwrap(),
            group: group as usize,
            w,
            n,
            k,
        }
    }

    impl Case {
        fn improved(&self, threads: usize) -> Quantizer {
            let (n, k) = (self.n, self.k);
            let m = Matrix { w: &self.w, n, k };
            improved(m, self.first.clone(), self.levels, self.group, threads)
        }

        /// `Σ |error|^p` of nearest codes.
        fn sum(&self, q: &Quantizer) -> f64 {
            let error = |(i, v): (usize, &f32)| {
                let at = i / self.k * self.k.div_ceil(self.group) + i % self.k / self.group;
                let z = q.zeros.as_ref().map_or(0, |z| z[at]);
                let code = q.format.quantize(*v, q.scales[at], z);
                let code = code.clamp(self.levels.min, self.levels.max);
                f64::from(v - q.format.dequantize(code, q.scales[at], z))
            };
            let each = self.w.iter().enumerate().map(error);
            each.map(|r| r.abs().powf(P)).sum()
        }
    }

    #[test]
    fn grids_are_those_of_the_reference() {
        for line in include_str!("../../../tests/quant_refs/hqq.txt").lines() {
            let f: Vec<&str> = line.split(' ').collect();
            let number = |i: usize| f[i].parse::<usize>().unwrap();
            let real = |i: usize| f[i].parse::<f64>().unwrap();
            let scheme = format!("w{}a16-g{}-asym", f[2], f[3]);
            let c = case(number(0), number(1), &scheme, real(4));
            let q = c.improved(1);
            let digits = f[7].chars().map(|c| c.to_digit(16).unwrap() as i32);
            assert_eq!(q.zeros.as_deref(), Some(&digits.collect::<Vec<_>>()[..]));
            for (i, s) in q.scales.iter().enumerate() {
                assert!(
                    (f64::from(*s) - real(8 + i)).abs() < 1e-5 * real(8 + i),
                    "{line}"
                );
            }
            for (q, want) in [(&c.first, real(5)), (&q, real(6))] {
                let sum = c.sum(q);
                assert!((sum - want).abs() < 1e-4 * want, "{sum} for {want}");
            }
            assert_eq!(c.improved(3), q);
        }
    }

    #[test]
    fn symmetric_grids_move_their_scale() {
        for scheme in ["w3a16-g32-sym", "w4a16-g32-sym-full"] {
            let c = case(8, 96, scheme, 1.0);
            let q = c.improved(2);
            assert!(c.sum(&q) < 0.99 * c.sum(&c.first), "{scheme}");
            assert_eq!(q.zeros, None);
        }
    }

    #[test]
    fn groups_of_one_value_and_of_zeros() {
        let levels = IntRange { min: 0, max: 15 };
        assert_eq!(improve(&[0.0; 4], 1.0, Some(0), levels), (1.0, 0));
        assert_eq!(improve(&[1.5; 4], 0.1, Some(0), levels), (0.1, 0));
        assert_eq!(improve(&[f32::MAX; 4], f32::MAX, None, levels).1, 0);
    }
}
