//! HQQ: zero points with which most weights come out well and a few badly, without data.
//!
//! ```text
//! min over z of Σ |w − s·(q − z)|^p,   q = saturate(round(w/s + z)),   p = 0.7
//!
//! r = w − s·(q − z)                       e = sign(r) · max(|r| − |r|^(p−1) / β, 0)
//! z ← mean(q − (w − e)/s),  β ← κ·β       up to 20 times, while mean |r| falls; β = 10, κ = 1.01
//! ```
//!
//! (Badri and Shaji, "Half-Quadratic Quantization", 2023: `e` splits the sum into two steps that
//! each have a closed form; only zero points move.) The published method stores a real `z`. A zero
//! point here is an integer as everywhere in this compiler, so a real one is only the way: of the
//! integers beside the last `z` and the first zero point, the one with the least sum stays. It is
//! never worse than rounding to nearest in that sum.
//!
//! Preconditions: an integer grid with zero points. Sums are f64, group by group.

use super::gptq::Matrix;
use super::parallel;
use crate::weights::Quantizer;
use qcc_ir::format::IntRange;

const P: f64 = 0.7;
const BETA: f64 = 10.0;
const KAPPA: f64 = 1.01;
const STEPS: usize = 20;

/// The zero points for groups of `group` columns that have these scales and first zero points.
pub(super) fn zeros(
    m: Matrix<'_>,
    q: &Quantizer,
    levels: IntRange,
    group: usize,
    threads: usize,
) -> Option<Vec<i32>> {
    let first = q.zeros.as_deref()?;
    let group = group.min(m.k).max(1);
    let groups = m.k.div_ceil(group);
    let rows: Vec<usize> = (0..if m.k == 0 { 0 } else { m.n }).collect();
    let found = parallel::map(&rows, threads, |row| {
        let w = m.w[row * m.k..][..m.k].chunks(group);
        let old = q.scales[row * groups..].iter().zip(&first[row * groups..]);
        w.zip(old)
            .map(|(w, (s, z))| zero(w, f64::from(*s), *z, levels))
            .collect::<Vec<i32>>()
    });
    Some(found.concat())
}

/// The zero point of one group.
fn zero(w: &[f32], scale: f64, first: i32, levels: IntRange) -> i32 {
    let (min, max) = (f64::from(levels.min), f64::from(levels.max));
    let code = |w: f32, z: f64| (f64::from(w) / scale + z).round_ties_even().clamp(min, max);
    let error = |w: f32, z: f64| f64::from(w) - scale * (code(w, z) - z);
    let (mut z, mut beta, mut least) = (f64::from(first), BETA, f64::INFINITY);
    for _ in 0..STEPS {
        let (mut sum, mut size) = (0.0, 0.0);
        for &v in w {
            let r = error(v, z);
            sum += code(v, z) - (f64::from(v) - shrink(r, beta)) / scale;
            size += r.abs();
        }
        z = sum / w.len() as f64;
        beta *= KAPPA;
        if size >= least || size.is_nan() {
            break;
        }
        least = size;
    }
    let norm = |z: i32| -> f64 {
        let each = w.iter().map(|v| error(*v, f64::from(z)).abs());
        each.map(|r| libm::pow(r, P)).sum()
    };
    let mut best = (first, norm(first));
    for t in [z.floor(), z.ceil()] {
        let t = t.clamp(min, max) as i32;
        let n = norm(t);
        if n < best.1 {
            best = (t, n);
        }
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
    use super::super::{Scheme, rtn};
    use super::*;
    use crate::weights::inline_f32;
    use qcc_ir::eval::normal;

    /// The zero points of a case of `tests/quant_refs/hqq.py`, and the sum that they leave.
    fn run(n: usize, k: usize, scheme: &str, std: f64, threads: usize) -> (Vec<i32>, f64) {
        let mut w = normal(3, 1.0, n * k);
        for (i, v) in w.iter_mut().enumerate() {
            if (i % k).is_multiple_of(37) {
                *v *= 4.0;
            }
            *v = (*v + (i / k) as f64 * 0.1) * std;
        }
        let w: Vec<f32> = w.into_iter().map(|v| v as f32).collect();
        let weights = Scheme::named(scheme).unwrap().weights.unwrap();
        let (spec, _) = weights.resolved(false);
        let weight = inline_f32("w".into(), vec![n as u64, k as u64], &w);
        let q = rtn::quantizer(&weight, &spec, spec.quant_type(2, false).block).unwrap();
        let super::super::Granularity::Group(group) = spec.granularity else {
            panic!("{scheme} has no groups");
        };
        let levels = spec.levels().unwrap();
        let m = Matrix { w: &w, n, k };
        let z = zeros(m, &q, levels, group as usize, threads).unwrap();
        let each = w.iter().enumerate().map(|(i, v)| {
            let at = i / k * k.div_ceil(group as usize) + i % k / group as usize;
            let (s, z) = (f64::from(q.scales[at]), f64::from(z[at]));
            let q = (f64::from(*v) / s + z).round_ties_even();
            let q = q.clamp(f64::from(levels.min), f64::from(levels.max));
            (f64::from(*v) - s * (q - z)).abs().powf(P)
        });
        let sum = each.sum();
        (z, sum)
    }

    #[test]
    fn zero_points_are_those_of_the_reference() {
        for line in include_str!("../../../tests/quant_refs/hqq.txt").lines() {
            let f: Vec<&str> = line.split(' ').collect();
            let number = |i: usize| f[i].parse::<usize>().unwrap();
            let scheme = format!("w{}a16-g{}-asym", f[2], f[3]);
            let (z, sum) = run(number(0), number(1), &scheme, f[4].parse().unwrap(), 1);
            let want: Vec<i32> = f[6]
                .chars()
                .map(|c| c.to_digit(16).unwrap() as i32)
                .collect();
            assert_eq!(z, want, "{line}");
            let wanted: f64 = f[5].parse().unwrap();
            assert!((sum - wanted).abs() < 1e-4 * wanted, "{line}: {sum}");
            assert_eq!(
                run(number(0), number(1), &scheme, f[4].parse().unwrap(), 3).0,
                z
            );
        }
    }

    #[test]
    fn groups_of_one_value_and_of_zeros() {
        let levels = IntRange { min: 0, max: 15 };
        assert_eq!(zero(&[0.0; 4], 1.0, 0, levels), 0);
        assert_eq!(zero(&[1.5; 4], 0.1, 0, levels), 0);
        assert_eq!(zero(&[-1.5; 4], 0.1, 15, levels), 15);
    }
}
